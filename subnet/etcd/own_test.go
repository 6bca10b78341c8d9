package etcd

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/etcdtest"
	"flannel/internal/testkit/eventually"
	"flannel/subnet"
	"flannel/subnet/subnettest"
)

// TestOddKeysKeepNobodyFromASubnet has a node ask for the subnet of an earlier
// run.
func TestOddKeysKeepNobodyFromASubnet(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	const prev = "10.5.10.0/24"
	for name, same := range map[string]bool{
		"10.0.0.0-8": true, "10.5.0.0-16": true, // as large as the network
		"10.5.10.0-24/sub": false, "10.5.10.0-24x": false, // nobody can create the key
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, server, ownPrefix())
			h.SetConfig(t, v4)
			if _, err := h.client.Put(h.ctx(t), h.prefix+"/subnets/"+name, `{"PublicIP":"192.0.2.200","X":"odd on purpose"}`); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			own, err := newManager(t, h.options()).Acquire(ctx, subnettest.Attrs(v4, 1), pair(prev))
			if err != nil || same != (own.Subnet == pair(prev)) {
				t.Errorf("Acquire = %v, %v after %s", own.Subnet, err, prev)
			}
		})
	}
}

func (h *harness) stored(t *testing.T, subnets ipfam.Pair[netip.Prefix]) (mod int64, id clientv3.LeaseID) {
	t.Helper()
	resp, err := h.client.Get(h.ctx(t), h.key(subnets))
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return 0, 0
	}
	return resp.Kvs[0].ModRevision, clientv3.LeaseID(resp.Kvs[0].Lease)
}

func (h *harness) etcdLeases(t *testing.T) int {
	t.Helper()
	resp, err := h.client.Leases(h.ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	return len(resp.Leases)
}

func TestOwnLease(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	for _, c := range []struct {
		name string
		run  func(*testing.T, *harness)
	}{
		{"is renewed before it ends", renewedBeforeItEnds},
		{"gets another etcd lease at a restart", anotherEtcdLease},
		{"is granted for a day", grantedForADay},
		{"yields to another node that comes right after", yieldsToStranger},
		{"yields to an older one that shares the IPv6 subnet", yieldsToOlder},
		{"yields although the store was away when it looked", yieldsAfterAFailure},
		{"yields to a stranger although it could not look before a restart", yieldsAfterARestart},
		{"yields to a stranger although the store was away at the first look", yieldsAfterAVainLook},
		{"replaces an earlier one that comes back in its place", replacesEarlier},
		{"is recognised by its MAC", recognisedByMAC},
		{"leaves a key with other things on its etcd lease alone", leavesOtherKeysAlone},
		{"keeps the family that fits when the other changes", keepsFittingFamily},
		{"does not delete what flannel cannot read", undecodableStays},
		{"is kept by a manager that did not acquire it", keptByAnother},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, server, ownPrefix())
			h.SetConfig(t, v4)
			c.run(t, h)
		})
	}
}

func renewedBeforeItEnds(t *testing.T, h *harness) {
	o := h.options()
	o.RenewMargin = 3 * time.Second
	m := newManager(t, o)
	m.ttl = 4 * time.Second
	sets := make(chan []*subnet.Lease, 100)
	own := acquire(t, m, subnettest.Attrs(v4, 1))
	subnettest.Background(t, func(ctx context.Context) error {
		return m.Watch(ctx, func(s subnet.Snapshot) { sets <- s.Leases })
	})
	leases := h.etcdLeases(t)
	reported := make(chan subnet.Lease, 100)
	subnettest.Background(t, func(ctx context.Context) error {
		return m.Keep(ctx, own, func(l subnet.Lease) { reported <- l })
	})
	first, id := h.stored(t, own.Subnet)
	for range 2 {
		eventually.True(t, "renewal", func() bool {
			mod, now := h.stored(t, own.Subnet)
			renewed := mod > first && now != id
			if renewed {
				first, id = mod, now
			}
			return renewed
		})
	}
	l, _, _ := h.Get(t, own.Subnet)
	if l.Precedence != own.Precedence || l.Attrs != own.Attrs {
		t.Errorf("the record became %+v, was %+v", l, own)
	}
	if present := <-reported; !present.Expires.After(own.Expires) || !present.Equal(own) {
		t.Errorf("reported %+v after %+v", present, own)
	}
	if n := len(sets); n != 1 {
		t.Errorf("the watch passed %d sets, want one: a renewal is no change", n)
	}
	eventually.True(t, "former etcd leases are revoked", func() bool { return h.etcdLeases(t) == leases })
}

func anotherEtcdLease(t *testing.T, h *harness) {
	own := acquire(t, newManager(t, h.options()), subnettest.Attrs(v4, 1))
	_, before := h.stored(t, own.Subnet)
	leases := h.etcdLeases(t)
	again := acquire(t, newManager(t, h.options()), subnettest.Attrs(v4, 1))
	if _, after := h.stored(t, own.Subnet); after == before || again.Expires.Before(own.Expires) {
		t.Errorf("etcd lease %x after %x, expires %s after %s", after, before, again.Expires, own.Expires)
	}
	if n := h.etcdLeases(t); n != leases {
		t.Errorf("%d etcd leases, want %d", n, leases)
	}
}

func grantedForADay(t *testing.T, h *harness) {
	own := acquire(t, newManager(t, h.options()), subnettest.Attrs(v4, 1))
	_, id := h.stored(t, own.Subnet)
	resp, err := h.client.TimeToLive(h.ctx(t), id)
	if err != nil || resp.GrantedTTL != 86400 {
		t.Errorf("granted %+v, %v", resp, err)
	}
	if left := time.Until(own.Expires); left < 23*time.Hour || left > 24*time.Hour {
		t.Errorf("expires in %s", left)
	}
}

func yieldsToStranger(t *testing.T, h *harness) {
	h.SetConfig(t, dual)
	m := newManager(t, h.options())
	var strangers []subnet.Lease
	m.afterCreate = func(chosen ipfam.Pair[netip.Prefix]) {
		if len(strangers) == 2 {
			return
		}
		l := stranger(chosen[ipfam.V4].String(), 100+len(strangers))
		h.Put(t, l, false)
		strangers = append(strangers, l)
	}
	own := acquire(t, m, subnettest.Attrs(dual, 1))
	leases, err := m.List(t.Context())
	if err != nil || len(leases) != 3 {
		t.Errorf("the store holds %v, %v; want the strangers' and ours", leases, err)
	}
	for _, l := range strangers {
		if own.Subnet[ipfam.V4].Overlaps(l.Subnet[ipfam.V4]) {
			t.Errorf("%v is shared with a stranger", own.Subnet)
		}
	}
}

func yieldsToOlder(t *testing.T, h *harness) {
	h.SetConfig(t, dual)
	m := newManager(t, h.options())
	var other subnet.Lease
	m.beforeCreate = func(chosen ipfam.Pair[netip.Prefix]) {
		if other.Subnet[ipfam.V6].IsValid() {
			return
		}
		other = subnet.Lease{Subnet: pair("10.5.200.0/24", chosen[ipfam.V6].String()), Attrs: subnettest.Attrs(dual, 100)}
		if chosen[ipfam.V4] == other.Subnet[ipfam.V4] {
			other.Subnet[ipfam.V4] = netip.MustParsePrefix("10.5.201.0/24")
		}
		h.Put(t, other, false)
	}
	own := acquire(t, m, subnettest.Attrs(dual, 1))
	if own.Subnet[ipfam.V6].Overlaps(other.Subnet[ipfam.V6]) {
		t.Errorf("%v shares its IPv6 subnet with an older lease", own.Subnet)
	}
	if leases, err := m.List(t.Context()); err != nil || len(leases) != 2 {
		t.Errorf("the store holds %v, %v", leases, err)
	}
}

// yieldsAfterAFailure has a stranger come right after the lease is published
// again, and the connection break before anybody looks.
func yieldsAfterAFailure(t *testing.T, h *harness) {
	h.SetConfig(t, dual)
	p := newProxy(t, h.server.Endpoint())
	o := h.options()
	o.Endpoints = []string{p.Endpoint()}
	m := newManager(t, o)
	own := acquire(t, m, subnettest.Attrs(dual, 1))
	other := stranger(own.Subnet[ipfam.V4].String(), 100)
	m.afterCreate = func(ipfam.Pair[netip.Prefix]) {
		h.Put(t, other, false)
		p.Cut()
	}
	result, _ := subnettest.Background(t, subnettest.Keep(m, own))
	h.Delete(t, own.Subnet)
	eventually.True(t, "a vain attempt to connect", func() bool { return p.Refused() > 0 })
	p.Mend()
	if err := <-result; !errors.Is(err, subnet.ErrLeaseLost) {
		t.Errorf("Keep = %v, want ErrLeaseLost", err)
	}
	if leases, err := m.List(t.Context()); err != nil || len(leases) != 1 {
		t.Errorf("the store holds %v, %v; want the stranger's", leases, err)
	}
}

// yieldsAfterARestart has the daemon end right after it has created its lease.
func yieldsAfterARestart(t *testing.T, h *harness) {
	h.SetConfig(t, dual)
	own := acquire(t, newManager(t, h.options()), subnettest.Attrs(dual, 1))
	other := stranger(own.Subnet[ipfam.V4].String(), 100)
	h.Put(t, other, false)
	m := newManager(t, h.options())
	if again := acquire(t, m, own.Attrs); again.Subnet[ipfam.V4].Overlaps(other.Subnet[ipfam.V4]) {
		t.Errorf("%v is shared with a stranger", again.Subnet)
	}
	if leases, err := m.List(t.Context()); err != nil || len(leases) != 2 {
		t.Errorf("the store holds %v, %v", leases, err)
	}
}

// yieldsAfterAVainLook has the connection break there.
func yieldsAfterAVainLook(t *testing.T, h *harness) {
	h.SetConfig(t, dual)
	p := newProxy(t, h.server.Endpoint())
	o := h.options()
	o.Endpoints = []string{p.Endpoint()}
	m := newManager(t, o)
	var other subnet.Lease
	m.afterCreate = func(chosen ipfam.Pair[netip.Prefix]) {
		if !other.Subnet[ipfam.V4].IsValid() {
			other = stranger(chosen[ipfam.V4].String(), 100)
			h.Put(t, other, false)
			p.Cut()
		}
	}
	own := make(chan subnet.Lease, 1)
	subnettest.Background(t, func(ctx context.Context) error {
		l, err := m.Acquire(ctx, subnettest.Attrs(dual, 1), ipfam.Pair[netip.Prefix]{})
		own <- l
		return err
	})
	eventually.True(t, "a vain attempt to connect", func() bool { return p.Refused() > 0 })
	p.Mend()
	if l := <-own; l.Subnet[ipfam.V4].Overlaps(other.Subnet[ipfam.V4]) {
		t.Errorf("%v is shared with a stranger", l.Subnet)
	}
}

func replacesEarlier(t *testing.T, h *harness) {
	m := newManager(t, h.options())
	own, err := m.Acquire(t.Context(), subnettest.Attrs(v4, 1), pair("10.5.10.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	earlier := stranger("10.5.222.0/24", 1)
	h.Put(t, earlier, false)
	h.Delete(t, own.Subnet)
	result, _ := subnettest.Background(t, subnettest.Keep(m, own))
	eventually.True(t, "the lease is there again", func() bool {
		_, _, found := h.Get(t, own.Subnet)
		return found
	})
	l, _, _ := h.Get(t, own.Subnet)
	resp, err := h.client.Get(h.ctx(t), h.key(earlier.Subnet), clientv3.WithRev(l.Precedence.Age))
	if err != nil || len(resp.Kvs) > 0 {
		t.Errorf("both records were there together: %v, %v", resp, err)
	}
	select {
	case err := <-result:
		t.Errorf("Keep = %v", err)
	default:
	}
}

func recognisedByMAC(t *testing.T, h *harness) {
	m := newManager(t, h.options())
	own := acquire(t, m, subnettest.Attrs(v4, 1))
	result, _ := subnettest.Background(t, subnettest.Keep(m, own))
	other := own
	other.Attrs.PublicIP = addrs("192.0.2.99")
	h.Put(t, other, false)
	eventually.True(t, "own attributes are published again", func() bool {
		l, _, _ := h.Get(t, own.Subnet)
		return l.Attrs == own.Attrs
	})
	select {
	case err := <-result:
		t.Errorf("Keep = %v", err)
	default:
	}
}

func leavesOtherKeysAlone(t *testing.T, h *harness) {
	own := acquire(t, newManager(t, h.options()), subnettest.Attrs(v4, 1))
	_, id := h.stored(t, own.Subnet)
	other := h.prefix + "/operator"
	if _, err := h.client.Put(h.ctx(t), other, "x", clientv3.WithLease(id)); err != nil {
		t.Fatal(err)
	}
	acquire(t, newManager(t, h.options()), subnettest.Attrs(v4, 1))
	if resp, err := h.client.Get(h.ctx(t), other); err != nil || len(resp.Kvs) != 1 {
		t.Errorf("a key of the operator is gone: %v, %v", resp, err)
	}
}

func keepsFittingFamily(t *testing.T, h *harness) {
	before := acquire(t, newManager(t, h.options()), subnettest.Attrs(v4, 1))
	h.SetConfig(t, dual)
	after := acquire(t, newManager(t, h.options()), subnettest.Attrs(dual, 1))
	if after.Subnet[ipfam.V4] != before.Subnet[ipfam.V4] || !after.Subnet[ipfam.V6].IsValid() {
		t.Errorf("acquired %v after %v", after.Subnet, before.Subnet)
	}
	if _, _, found := h.Get(t, before.Subnet); found {
		t.Error("the record of one family is still there")
	}
}

func undecodableStays(t *testing.T, h *harness) {
	h.SetConfig(t, subnettest.IPv6Config)
	before := acquire(t, newManager(t, h.options()), subnettest.Attrs(subnettest.IPv6Config, 1))
	h.SetConfig(t, dual)
	// The same node, but known by its IPv6 address alone.
	after := acquire(t, newManager(t, h.options()), subnettest.Attrs(subnettest.IPv6Config, 1))
	if _, _, found := h.Get(t, before.Subnet); !found || after.Subnet == before.Subnet {
		t.Errorf("%v was deleted for %v", before.Subnet, after.Subnet)
	}
}

func keptByAnother(t *testing.T, h *harness) {
	own := acquire(t, newManager(t, h.options()), subnettest.Attrs(v4, 1))
	m := newManager(t, h.options())
	subnettest.Background(t, subnettest.Keep(m, own))
	h.Delete(t, own.Subnet)
	eventually.True(t, "the lease is there again", func() bool {
		_, _, found := h.Get(t, own.Subnet)
		return found
	})
}

func TestConfigIsLoggedOnce(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{}), "/coreos.com/network")
	var book logBook
	o := h.options()
	o.Log, o.CheckEvery = book.logger(), 10*time.Millisecond
	m := newManager(t, o)
	result, _ := subnettest.Background(t, func(ctx context.Context) error {
		_, err := m.Config(ctx)
		return err
	})
	logged := func(text string, times int) {
		t.Helper()
		eventually.True(t, "the log has "+text, func() bool { return book.count(text) == times })
	}
	logged("etcdctl --endpoints="+h.server.Endpoint()+" put /coreos.com/network/config", 1)
	h.SetConfig(t, `{"Network":"nonsense"}`)
	logged("nonsense", 1)
	h.SetConfig(t, ` {"Network":"nonsense"}`)
	h.SetConfig(t, v4)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	own := acquire(t, m, subnettest.Attrs(v4, 1))
	subnettest.Background(t, subnettest.Keep(m, own))
	h.SetConfig(t, dual)
	logged("takes effect at restart", 1)
	h.SetConfig(t, v4)
	logged("is the one in use again", 1)
	for text, times := range map[string]int{"no network configuration": 1, "nonsense": 1, "takes effect at restart": 1} {
		if n := book.count(text); n != times {
			t.Errorf("%q is logged %d times, want %d:\n%s", text, n, times, book.String())
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := Options{Endpoints: []string{"http://127.0.0.1:1"}, Prefix: "/x", RenewMargin: time.Hour, Log: (&logBook{}).logger()}
	for want, change := range map[string]func(*Options){
		"no endpoints": func(o *Options) { o.Endpoints = nil },
		"renew margin": func(o *Options) { o.RenewMargin = 24 * time.Hour },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want an error about %s", err, want)
		}
	}
	m := newManager(t, good)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := m.Config(ctx); err == nil {
		t.Error("a configuration came from nowhere")
	}
}
