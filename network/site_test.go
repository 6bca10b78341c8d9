package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/subnet"
	"flannel/subnet/subnettest"
)

// logBook collects what is logged.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// found is what the last pass has found out about a peer.
func (n *testNode) found(prefix string) (Peer, bool) {
	s, _ := n.Status()
	i := slices.IndexFunc(s.Peers, func(p Peer) bool { return p.Subnet == prefix })
	if i < 0 {
		return Peer{}, false
	}
	return s.Peers[i], true
}

// A Node that is gone left a record with the address of the one that took its
// place: nothing in the kernel of others collides.
func TestPeersWithOneAddressAreUsedAndNoted(t *testing.T) {
	n := newNode(t)
	n.peer("22")
	second := n.peer("33")
	second.Attrs.PublicIP[ipfam.V4] = netip.MustParseAddr("192.0.2.22")
	n.store.Put(second, false)
	n.start()
	for _, want := range []string{"10.5.22.0/24", "10.5.33.0/24"} {
		n.await("the note of "+want, func() bool {
			p, _ := n.found(want)
			return p.How == "tunnel" && strings.Contains(p.Note, "public address 192.0.2.22 is that of 10.5.")
		})
		if !strings.Contains(n.kernel.String(), "route "+want) {
			t.Errorf("no route to %s in\n%s", want, n.kernel)
		}
	}
}

// hosted adds devices with addresses to the host before the network starts.
func (n *testNode) hosted(devices map[string]string) {
	open := n.NewKernel
	n.NewKernel = func(s kernel.Scope) (Kernel, error) {
		k, err := open(s)
		for name, addr := range devices {
			n.kernel.AddDevice(kernel.Device{Name: name, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}})
		}
		return k, err
	}
}

func TestASubnetThatHoldsAnAddressOfThisHostIsRejected(t *testing.T) {
	n := newNode(t)
	n.hosted(map[string]string{"eth1": "10.5.22.7/28", "cni0": "10.5.33.1/24", "docker0": "10.5.44.1/24"})
	for _, number := range []string{"22", "33", "44"} {
		n.peer(number)
	}
	n.start()
	n.await("the peer left out", func() bool {
		p, _ := n.found("10.5.22.0/24")
		return p.How == "left out" && strings.Contains(p.Why, "subnet 10.5.22.0/24 holds the address 10.5.22.7 of eth1")
	})
	for _, prefix := range []string{"10.5.33.0/24", "10.5.44.0/24"} {
		if p, _ := n.found(prefix); p.How != "tunnel" {
			t.Errorf("%s: got %+v, want it used: only a bridge of pods has an address there", prefix, p)
		}
	}
}

// With kube-proxy in IPVS mode every host has the external addresses of Services,
// and these are often addresses of nodes.
func TestANodeThatHasTheAddressOfAServiceIsUsed(t *testing.T) {
	n := newNode(t)
	n.hosted(map[string]string{"kube-ipvs0": "192.0.2.22/32", "eth1": "192.0.2.33/32"})
	n.peer("22")
	n.peer("33")
	n.start()
	n.await("the peers", func() bool { _, found := n.found("10.5.33.0/24"); return found })
	if p, _ := n.found("10.5.22.0/24"); p.How != "tunnel" {
		t.Errorf("got %+v, want it used", p)
	}
	if p, _ := n.found("10.5.33.0/24"); !strings.Contains(p.Why, "192.0.2.33 is on an interface of this host") {
		t.Errorf("got %+v, want it left out", p)
	}
	host := kernel.Host{Addrs: []kernel.HostAddr{{Addr: netip.MustParsePrefix("192.0.2.22/32"), Dev: "kube-ipvs0"}}}
	if s := newSite(&subnet.Config{BackendType: "udp"}, nil, host, backend.Uplink{}, nil); len(s.validation.Local) != 1 {
		t.Error("udp would send packets for such a node to itself")
	}
}

// blindKernel cannot read what this host has.
type blindKernel struct{ Kernel }

func (blindKernel) Host(context.Context) (kernel.Host, error) {
	return kernel.Host{}, errors.New("netlink dump interrupted")
}

func TestPeersAreUsedAlthoughTheAddressesOfThisHostCannotBeRead(t *testing.T) {
	n := newNode(t)
	var book logBook
	n.Log = slog.New(slog.NewTextHandler(&book, nil))
	open := n.NewKernel
	n.NewKernel = func(s kernel.Scope) (Kernel, error) {
		k, err := open(s)
		return blindKernel{k}, err
	}
	n.peer("22")
	n.start()
	n.await("the first pass", func() bool { return n.Network.last.Load() != nil })
	n.peer("33")
	for _, want := range []string{"10.5.22.0/24", "10.5.33.0/24"} {
		n.await("the pass with "+want, func() bool { _, found := n.found(want); return found })
		if p, _ := n.found(want); p.How != "tunnel" {
			t.Errorf("%s: got %+v, want it used", want, p)
		}
	}
	if got := strings.Count(book.String(), "netlink dump interrupted"); got != 1 {
		t.Errorf("the cause is logged %d times in\n%s", got, book.String())
	}
}

// At the moment when another subnet is acquired the store shows a record of ours
// under a subnet that is not ours yet.
func TestARecordOfOursLeadsToNoWarning(t *testing.T) {
	n := newNode(t)
	var book logBook
	n.Log = slog.New(slog.NewTextHandler(&book, nil))
	n.start()
	former := *n.own.Load()
	former.Subnet = subnettest.Subnets("10.5.99.0/24")
	n.store.Put(former, false)
	n.peer("22")
	n.await("a peer that came later", func() bool { return strings.Contains(n.kernel.String(), "10.5.22.0/24") })
	if p, found := n.found("10.5.99.0/24"); found || strings.Contains(book.String(), "left out") {
		t.Errorf("got %+v and\n%s", p, book.String())
	}
}

// nodes is a filter that notes the nodes.
type nodes struct{ latest chan []netip.Addr }

func (f *nodes) SetSubnet(ipfam.Pair[netip.Prefix]) {}
func (f *nodes) SetNodes(list []netip.Addr) {
	select {
	case <-f.latest:
	default:
	}
	f.latest <- list
}

func (f *nodes) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// Pods' packets to an address that several records name are masqueraded unless
// it is a neighbor's.
func TestASharedAddressThatIsNotOnLinkIsMasqueraded(t *testing.T) {
	n := newNode(t)
	n.store.SetConfig(`{"Network": "10.5.0.0/16", "MasqueradeExclude": ["nodes"], "Backend": {"Type": "vxlan"}}`)
	open := n.NewKernel
	n.NewKernel = func(s kernel.Scope) (Kernel, error) {
		k, err := open(s)
		n.kernel.AddAddr("eth0", netip.MustParsePrefix("192.0.2.1/24"))
		return k, err
	}
	filter := &nodes{latest: make(chan []netip.Addr, 1)}
	n.NewFilter = func(FilterEnv) Filter { return filter }
	at := func(number, public string) {
		l := n.peer(number)
		l.Attrs.PublicIP[ipfam.V4] = netip.MustParseAddr(public)
		n.store.Put(l, false)
	}
	at("22", "192.0.2.22")
	at("23", "192.0.2.22")
	at("33", "198.51.100.33")
	at("34", "198.51.100.33")
	at("44", "198.51.100.44")
	n.start()
	var last string
	n.await("the nodes", func() bool {
		list := <-filter.latest
		slices.SortFunc(list, netip.Addr.Compare)
		raw, _ := json.Marshal(slices.Compact(list))
		last = string(raw)
		return last == `["192.0.2.1","192.0.2.22","198.51.100.44"]`
	})
}
