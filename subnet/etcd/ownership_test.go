package etcd

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/internal/ipfam"
	"flannel/internal/statedir"
	"flannel/internal/testkit/etcdtest"
	"flannel/internal/testkit/eventually"
	"flannel/subnet"
	"flannel/subnet/subnettest"
)

const (
	keyA = "02:00:00:00:00:0a"
	keyB = "02:00:00:00:00:0b"
)

// TestEvidence has a node A with two addresses, which may have had others
// under its subnet. What A has published stands in past, what it wants to
// publish in want, and what it reads in the record.
func TestEvidence(t *testing.T) {
	const ours, theirs clientv3.LeaseID = 7, 8
	plain := func(backend string, public ...string) subnet.Attrs {
		return subnet.Attrs{BackendType: backend, PublicIP: addrs(public...)}
	}
	hostGW := func(public ...string) subnet.Attrs { return plain("host-gw", public...) }
	past := func(public []string, keys []string) published {
		p := published{Name: "10.5.1.0-24", Keys: keys, Leases: []clientv3.LeaseID{5, ours}}
		for _, a := range public {
			p.Addresses = append(p.Addresses, netip.MustParseAddr(a))
		}
		return p
	}
	moved := past([]string{"192.0.2.1", "fd00::1", "192.0.2.2"}, nil)
	movedVXLAN := past([]string{"192.0.2.1", "fd00::1", "192.0.2.2"}, []string{keyA})
	for name, c := range map[string]struct {
		record    subnet.Attrs
		invalid   string
		etcdLease clientv3.LeaseID
		want      subnet.Attrs
		past      published
		evidence  evidence
	}{
		"nothing has changed": {
			record: vxlan(keyA, "192.0.2.2"), etcdLease: ours, want: vxlan(keyA, "192.0.2.2"), past: movedVXLAN, evidence: sure,
		},
		"an operator made it a reservation": {
			record: vxlan(keyA, "192.0.2.2"), want: vxlan(keyA, "192.0.2.2"), past: movedVXLAN, evidence: sure,
		},
		"a backup from before the address changed": {
			record: vxlan(keyA, "192.0.2.1"), etcdLease: ours, want: vxlan(keyA, "192.0.2.2"), past: movedVXLAN, evidence: sure,
		},
		"a backup from before the address changed, no key": {
			record: hostGW("192.0.2.1"), etcdLease: 5, want: hostGW("192.0.2.2"), past: moved, evidence: sure,
		},
		"a backup from before both addresses changed": {
			record: hostGW("192.0.2.1", "fd00::1"), etcdLease: 5, want: hostGW("192.0.2.2", "fd00::2"), past: moved, evidence: sure,
		},
		"a backup from before the address changed, udp": {
			record: plain("udp", "192.0.2.1"), etcdLease: ours, want: plain("udp", "192.0.2.2"), past: moved, evidence: sure,
		},
		"a backup from before address and key changed": {
			record: vxlan(keyB, "192.0.2.1"), etcdLease: 5, want: vxlan(keyA, "192.0.2.2"), past: movedVXLAN, evidence: sure,
		},
		"a backup that was put without etcd leases": {
			record: hostGW("192.0.2.1"), want: hostGW("192.0.2.2"), past: moved, evidence: likely,
		},
		"a backup that was put without etcd leases, one address changed": {
			record: hostGW("192.0.2.9", "fd00::1"), want: hostGW("192.0.2.2", "fd00::2"), past: moved, evidence: likely,
		},
		"a backup from before the backend changed": {
			record: vxlan(keyA, "192.0.2.1"), etcdLease: 5, want: hostGW("192.0.2.2"), past: moved, evidence: sure,
		},
		"a backup from before anything is remembered": {
			record: vxlan(keyA, "192.0.2.9"), etcdLease: theirs, want: vxlan(keyA, "192.0.2.2"), evidence: sure,
		},
		"the key of a run that published another one": {
			record: vxlan(keyB, "192.0.2.9"), etcdLease: theirs, want: vxlan(keyA, "192.0.2.2"),
			past: past(nil, []string{keyB, keyA}), evidence: likely,
		},
		"one of two addresses is the same": {
			record: hostGW("192.0.2.9", "fd00::2"), etcdLease: theirs, want: hostGW("192.0.2.2", "fd00::2"), past: moved, evidence: likely,
		},
		"two nodes with one address": {
			record: vxlan(keyB, "192.0.2.2"), etcdLease: theirs, want: vxlan(keyA, "192.0.2.2"), past: movedVXLAN, evidence: likely,
		},
		"another node has a former address": {
			record: vxlan(keyB, "192.0.2.1"), etcdLease: theirs, want: vxlan(keyA, "192.0.2.2"), past: movedVXLAN, evidence: foreign,
		},
		"another node has a former address and no etcd lease": {
			record: vxlan(keyB, "192.0.2.1"), want: vxlan(keyA, "192.0.2.2"), past: movedVXLAN, evidence: foreign,
		},
		"another node has a former address, no key": {
			record: hostGW("192.0.2.1"), etcdLease: theirs, want: hostGW("192.0.2.2"), past: moved, evidence: foreign,
		},
		"another node has former addresses, no key": {
			record: hostGW("192.0.2.1", "fd00::1"), etcdLease: theirs, want: hostGW("192.0.2.2", "fd00::2"), past: moved, evidence: foreign,
		},
		"another node": {
			record: vxlan(keyB, "192.0.2.9"), etcdLease: theirs, want: vxlan(keyA, "192.0.2.2"), past: movedVXLAN, evidence: foreign,
		},
		"another node, no etcd lease": {
			record: hostGW("192.0.2.9"), want: hostGW("192.0.2.2"), past: moved, evidence: foreign,
		},
		"garbage": {invalid: "bad JSON", want: hostGW("192.0.2.2"), evidence: blank},
		"garbage under our etcd lease": {
			invalid: "bad JSON", etcdLease: ours, want: vxlan(keyA, "192.0.2.2"), past: movedVXLAN, evidence: blank,
		},
		"garbage under the etcd lease of another node": {
			invalid: "bad JSON", etcdLease: theirs, want: vxlan(keyA, "192.0.2.2"), past: movedVXLAN, evidence: blank,
		},
		"no address and no key": {
			record: subnet.Attrs{BackendType: "vxlan"}, etcdLease: theirs, want: vxlan(keyA, "192.0.2.2"), evidence: blank,
		},
		"no address and no key under our etcd lease": {
			record: subnet.Attrs{BackendType: "vxlan"}, etcdLease: ours, want: vxlan(keyA, "192.0.2.2"), past: movedVXLAN, evidence: sure,
		},
		"the same, no key": {
			record: hostGW("192.0.2.2"), etcdLease: theirs, want: hostGW("192.0.2.2"), evidence: sure,
		},
		"the same, udp": {
			record: plain("udp", "192.0.2.2"), etcdLease: theirs, want: plain("udp", "192.0.2.2"), evidence: likely,
		},
		"what was published in another record": {
			record: vxlan(keyB, "192.0.2.1"), want: vxlan(keyA, "192.0.2.2"),
			past: published{Name: "10.5.2.0-24", Keys: []string{keyB}, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, evidence: foreign,
		},
		"the key in capitals": {
			record: vxlan(strings.ToUpper(keyA), "192.0.2.9"), etcdLease: theirs, want: vxlan(keyA, "192.0.2.2"), evidence: sure,
		},
		"an empty key on both sides": {
			record: vxlan("", "192.0.2.9"), etcdLease: theirs, want: vxlan("", "192.0.2.2"), evidence: foreign,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := &record{name: "10.5.1.0-24", lease: subnet.Lease{Attrs: c.record, Invalid: c.invalid}, etcdLease: c.etcdLease}
			if got := (self{want: c.want, past: c.past}).evidence(r); got != c.evidence {
				t.Errorf("got %d, want %d", got, c.evidence)
			}
		})
	}
}

func TestWhatIsPublishedIsRemembered(t *testing.T) {
	a := vxlan(keyA, "192.0.2.1", "fd00::1")
	p, news := published{}.with("one", a, 1)
	again, none := p.with("one", a, 1)
	if !news || none || len(again.Addresses) != 2 || len(again.Keys) != 1 || len(again.Leases) != 1 {
		t.Errorf("%+v, then %+v", p, again)
	}
	for id := range clientv3.LeaseID(2 * maxPast) {
		p, _ = p.with("one", vxlan(keyB, fmt.Sprintf("192.0.2.%d", id)), id)
	}
	if n := len(p.Leases); n != maxPast || !p.wrote(2*maxPast-1) || p.wrote(maxPast-1) || len(p.Addresses) != maxPast {
		t.Errorf("%d etcd leases: %v", n, p.Leases)
	}
	other, _ := p.with("two", a, 1)
	if len(other.Addresses) != 2 || len(other.Keys) != 1 || !other.wrote(2*maxPast-1) {
		t.Errorf("after a change of the subnet: %+v", other)
	}
	text, err := json.Marshal(p)
	var read published
	if err != nil || json.Unmarshal(text, &read) != nil || !slices.Equal(read.Addresses, p.Addresses) {
		t.Errorf("%s, %v", text, err)
	}
	p = published{Name: "10.5.1.0-24", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	for name, c := range map[string]struct {
		public ipfam.Pair[netip.Addr]
		prev   ipfam.Pair[netip.Prefix]
		want   bool
	}{
		"the same address": {addrs("192.0.2.1"), ipfam.Pair[netip.Prefix]{}, true},
		"the same subnet":  {addrs("192.0.2.9"), pair("10.5.1.0/24"), true},
		"a copied disk":    {addrs("192.0.2.9"), ipfam.Pair[netip.Prefix]{}, false},
		"another subnet":   {addrs("192.0.2.9"), pair("10.5.2.0/24"), false},
	} {
		if got := p.confirmed(c.public, c.prev); (got.Name != "") != c.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// kinds are the ways in which nodes publish themselves.
var kinds = map[string]func(n int) subnet.Attrs{
	"vxlan":       func(n int) subnet.Attrs { return subnettest.Attrs(v4, n) },
	"vxlan, dual": func(n int) subnet.Attrs { return subnettest.Attrs(dual, n) },
	"host-gw":     func(n int) subnet.Attrs { return keyless(v4, "host-gw", n) },
	"host-gw, IPv6": func(n int) subnet.Attrs {
		return keyless(subnettest.IPv6Config, "host-gw", n)
	},
	"udp, dual": func(n int) subnet.Attrs { return keyless(dual, "udp", n) },
}

func keyless(config, backend string, n int) subnet.Attrs {
	return subnet.Attrs{BackendType: backend, PublicIP: subnettest.Attrs(config, n).PublicIP}
}

// configOf is a configuration for such attributes.
func configOf(a subnet.Attrs) string {
	switch {
	case !a.PublicIP[ipfam.V4].IsValid():
		return subnettest.IPv6Config
	case !a.PublicIP[ipfam.V6].IsValid():
		return v4
	}
	return dual
}

// mover is a node that moves from the address of node 1 to that of node 2.
type mover struct {
	h           *harness
	m           *Manager
	here, there subnet.Attrs
	own         subnet.Lease
	before      string // a snapshot of the store before the move
}

func newMover(t *testing.T, attrs func(int) subnet.Attrs) *mover {
	t.Helper()
	v := &mover{h: newHarness(t, etcdtest.Start(t, etcdtest.Options{}), "/coreos.com/network"), here: attrs(1), there: attrs(2)}
	v.there.Data = v.here.Data
	v.h.SetConfig(t, configOf(v.here))
	v.start(t, t.TempDir())
	v.own = acquire(t, v.m, v.here)
	v.before = v.h.server.Snapshot()
	return v
}

// start makes a manager with a state folder.
func (v *mover) start(t *testing.T, folder string) {
	t.Helper()
	o := v.h.options()
	o.State = statedir.Open(slog.New(slog.DiscardHandler), folder, "", "node")
	v.m = newManager(t, o)
}

func (v *mover) acquire(t *testing.T, a subnet.Attrs, prev ipfam.Pair[netip.Prefix]) {
	t.Helper()
	own, err := v.m.Acquire(t.Context(), a, prev)
	if err != nil || own.Subnet != v.own.Subnet {
		t.Fatalf("Acquire = %v, %v; want %v", own.Subnet, err, v.own.Subnet)
	}
	v.own = own
}

func (v *mover) restore(t *testing.T, snapshot string) {
	t.Helper()
	v.h.server.Kill()
	v.h.server.Restore(snapshot)
	v.h.server.Start()
}

// published waits until the store has what the node publishes, while it keeps its
// lease.
func (v *mover) published(t *testing.T, kept <-chan error) {
	t.Helper()
	eventually.True(t, "the present address is published", func() bool {
		l, reservation, found := v.h.Get(t, v.own.Subnet)
		return found && !reservation && l.Attrs == v.there
	})
	select {
	case err := <-kept:
		t.Errorf("Keep = %v", err)
	default:
	}
}

func TestABackupFromBeforeAnAddressChanged(t *testing.T) {
	for name, attrs := range kinds {
		t.Run(name, func(t *testing.T) {
			v := newMover(t, attrs)
			v.acquire(t, v.there, v.own.Subnet)
			kept, _ := subnettest.Background(t, subnettest.Keep(v.m, v.own))
			v.restore(t, v.before)
			v.published(t, kept)
		})
	}
}

// TestABackupFromBeforeAnAddressChangedAndARestart restores it while the node
// keeps its lease again, and while its daemon is away.
func TestABackupFromBeforeAnAddressChangedAndARestart(t *testing.T) {
	for name, attrs := range kinds {
		t.Run(name, func(t *testing.T) {
			v := newMover(t, attrs)
			folder := t.TempDir()
			v.start(t, folder)
			v.acquire(t, v.here, v.own.Subnet)
			before := v.h.server.Snapshot()
			v.acquire(t, v.there, v.own.Subnet)

			v.start(t, folder)
			v.acquire(t, v.there, v.own.Subnet)
			kept, stop := subnettest.Background(t, subnettest.Keep(v.m, v.own))
			v.restore(t, before)
			v.published(t, kept)
			stop()

			v.restore(t, before)
			v.start(t, folder)
			v.acquire(t, v.there, v.own.Subnet)
			v.published(t, nil)
		})
	}
}

// TestTheKeyOfAnotherNodeIsNotTakenOver has another node with the same address
// write its record under this node's key.
func TestTheKeyOfAnotherNodeIsNotTakenOver(t *testing.T) {
	v := newMover(t, kinds["vxlan"])
	folder := t.TempDir()
	v.start(t, folder)
	v.acquire(t, v.here, v.own.Subnet)
	previous := func() string {
		v.start(t, folder)
		a, err := v.m.Previous(t.Context(), v.here.PublicIP, v.own.Subnet)
		if err != nil {
			t.Fatal(err)
		}
		return a.Data[ipfam.V4]
	}
	if data := previous(); data != v.here.Data[ipfam.V4] {
		t.Errorf("%s is not our key", data)
	}
	other := subnet.Lease{Subnet: v.own.Subnet, Attrs: kinds["vxlan"](2)}
	other.Attrs.PublicIP = v.here.PublicIP
	v.h.Put(t, other, false)
	if data := previous(); data != "" {
		t.Errorf("%s is another node's key", data)
	}
	v.h.Put(t, other, true) // an operator did it
	if data := previous(); data == "" {
		t.Error("the key that an operator wrote is not taken over")
	}
}

// TestABackupFromBeforeTheFirstStart has the record as another daemon, flannel,
// wrote it on this node, which subnet.env shows.
func TestABackupFromBeforeTheFirstStart(t *testing.T) {
	for name, attrs := range kinds {
		t.Run(name, func(t *testing.T) {
			v := newMover(t, attrs)
			v.h.Put(t, v.own, false)
			before := v.h.server.Snapshot()
			v.start(t, t.TempDir())
			v.acquire(t, v.here, v.own.Subnet)
			v.acquire(t, v.there, v.own.Subnet)
			kept, _ := subnettest.Background(t, subnettest.Keep(v.m, v.own))
			v.restore(t, before)
			v.published(t, kept)
		})
	}
}

// TestABackupWithTheSameRevisions empties the store, lets the node publish
// itself at another address, and restores a backup in which the record has the
// very revisions that the node knows.
func TestABackupWithTheSameRevisions(t *testing.T) {
	for name, attrs := range kinds {
		t.Run(name, func(t *testing.T) {
			v := newMover(t, attrs)
			before := v.own.Precedence
			v.h.server.Kill()
			v.h.server.Wipe()
			v.h.server.Start()
			v.h.SetConfig(t, configOf(v.here))
			v.acquire(t, v.there, v.own.Subnet)
			if v.own.Precedence != before {
				t.Fatalf("the precedence is %v, was %v", v.own.Precedence, before)
			}
			kept, _ := subnettest.Background(t, subnettest.Keep(v.m, v.own))
			v.restore(t, v.before)
			v.published(t, kept)
		})
	}
}

// TestABackupWithHigherRevisions is ahead of the emptied store.
func TestABackupWithHigherRevisions(t *testing.T) {
	for name, attrs := range kinds {
		t.Run(name, func(t *testing.T) {
			v := newMover(t, attrs)
			for range 5 {
				v.h.SetConfig(t, configOf(v.here))
			}
			v.acquire(t, v.there, v.own.Subnet)
			v.acquire(t, v.here, v.own.Subnet)
			v.before = v.h.server.Snapshot()
			v.h.server.Kill()
			v.h.server.Wipe()
			v.h.server.Start()
			v.h.SetConfig(t, configOf(v.here))
			v.acquire(t, v.there, v.own.Subnet)
			kept, _ := subnettest.Background(t, subnettest.Keep(v.m, v.own))
			v.restore(t, v.before)
			v.published(t, kept)
		})
	}
}
