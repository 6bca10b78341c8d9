package subnettest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/subnet"
	"flannel/subnet/alloc"
)

// Network configurations of the suite. Subnets above SubnetMax are never drawn:
// tests may use them for others.
const (
	IPv4Config = `{"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0","Backend":{"Type":"vxlan"}}`
	IPv6Config = `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/56","Backend":{"Type":"vxlan"}}`
	DualConfig = `{"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0","EnableIPv6":true,"IPv6Network":"fd00:5::/56","Backend":{"Type":"vxlan"}}`
	tinyConfig = `{"Network":"10.5.0.0/28","Backend":{"Type":"vxlan"}}`
)

// Attrs are the attributes of node n, with an address in each family that is
// on in config.
func Attrs(config string, n int) subnet.Attrs {
	c, err := subnet.ParseConfig([]byte(config), true)
	if err != nil {
		panic(err) // the suite's own configurations are valid
	}
	a := subnet.Attrs{BackendType: "vxlan"}
	public := ipfam.Pair[netip.Addr]{
		netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}),
		netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", n)),
	}
	for f := range ipfam.Prefixes(c.Network) {
		a.PublicIP[f] = public[f]
		a.Data[f] = fmt.Sprintf(`{"VNI":1,"VtepMAC":"02:00:00:00:00:%02x"}`, n)
	}
	return a
}

// Subnets makes a pair of texts.
func Subnets(texts ...string) ipfam.Pair[netip.Prefix] {
	var p ipfam.Pair[netip.Prefix]
	for _, text := range texts {
		s := netip.MustParsePrefix(text)
		p[ipfam.Of(s.Addr())] = s
	}
	return p
}

func none() ipfam.Pair[netip.Prefix] { return ipfam.Pair[netip.Prefix]{} }

// limited is the context of calls that should return at once.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// node returns a manager that has read its configuration.
func node(t *testing.T, h Harness) subnet.Manager {
	t.Helper()
	m := h.Manager(t, nil)
	if _, err := m.Config(limited(t)); err != nil {
		t.Fatalf("Config: %v", err)
	}
	return m
}

func acquire(t *testing.T, m subnet.Manager, a subnet.Attrs, prev ipfam.Pair[netip.Prefix]) subnet.Lease {
	t.Helper()
	l, err := m.Acquire(limited(t), a, prev)
	if err != nil {
		t.Fatalf("Acquire: %v", err)
	}
	if l.Attrs != a || l.Name == "" || l.Precedence.Age == 0 {
		t.Fatalf("Acquire = %+v, want the attributes %+v, a name and a precedence", l, a)
	}
	return l
}

func configIsWaitedFor(t *testing.T, h Harness) {
	m := h.Manager(t, nil)
	got := make(chan *subnet.Config, 1)
	result, _ := Background(t, func(ctx context.Context) error {
		c, err := m.Config(ctx)
		got <- c
		return err
	})
	h.SetConfig(t, `{"Network":"nonsense"}`)
	h.SetConfig(t, IPv4Config)
	select {
	case err := <-result:
		if c := <-got; err != nil || c.Network[ipfam.V4] != netip.MustParsePrefix("10.5.0.0/16") {
			t.Errorf("Config = %+v, %v", c, err)
		}
	case <-time.After(patience):
		t.Error("a valid configuration is not noticed")
	}
}

// twentyAtOnce has half of the nodes read one configuration and half another.
func twentyAtOnce(t *testing.T, h Harness, one, other string) {
	const nodes = 20
	managers := make([]subnet.Manager, nodes)
	configs := make([]string, nodes)
	for i := range managers {
		configs[i] = one
		if i >= nodes/2 {
			configs[i] = other
		}
		h.SetConfig(t, configs[i])
		managers[i] = node(t, h)
	}
	var group sync.WaitGroup
	leases := make([]subnet.Lease, nodes)
	for i, m := range managers {
		group.Go(func() {
			var err error
			if leases[i], err = m.Acquire(limited(t), Attrs(configs[i], i+1), none()); err != nil {
				t.Errorf("node %d: Acquire: %v", i+1, err)
			}
		})
	}
	group.Wait()
	disjoint(t, leases)
	stored, err := managers[0].List(limited(t))
	if err != nil || len(stored) != nodes {
		t.Errorf("the store holds %d leases (%v), want %d", len(stored), err, nodes)
	}
}

func disjoint(t *testing.T, leases []subnet.Lease) {
	t.Helper()
	for i, a := range leases {
		for _, b := range leases[i+1:] {
			for f, s := range ipfam.Prefixes(a.Subnet) {
				if b.Subnet[f].IsValid() && s.Overlaps(b.Subnet[f]) {
					t.Errorf("%s of %v overlaps %s of %v", s, a.Attrs.PublicIP, b.Subnet[f], b.Attrs.PublicIP)
				}
			}
		}
	}
}

// notShared has a node that knows IPv4 only create its key just
// before each of ours does.
func notShared(t *testing.T, h Harness) {
	for _, config := range []string{IPv4Config, DualConfig} {
		h.SetConfig(t, config)
		var others []subnet.Lease
		intrude := func(chosen ipfam.Pair[netip.Prefix]) {
			if len(others) >= 3 {
				return
			}
			l := subnet.Lease{Attrs: Attrs(IPv4Config, 100+len(others))}
			l.Subnet[ipfam.V4] = chosen[ipfam.V4]
			if !h.Create(t, l) {
				t.Errorf("the other node did not get %s", l.Subnet[ipfam.V4])
			}
			others = append(others, l)
		}
		own := acquire(t, h.Manager(t, intrude), Attrs(config, 1), none())
		if len(others) != 3 {
			t.Fatalf("%d nodes came in between, want 3", len(others))
		}
		disjoint(t, append(others, own))
		for _, l := range append(others, own) {
			h.Delete(t, l.Subnet)
		}
	}
}

func againByPublicAddress(t *testing.T, h Harness) {
	for _, config := range []string{IPv4Config, IPv6Config, DualConfig} {
		h.SetConfig(t, config)
		first := acquire(t, node(t, h), Attrs(config, 1), none())
		changed := Attrs(config, 1)
		changed.BackendType = "host-gw"
		again := acquire(t, node(t, h), changed, none())
		if again.Subnet != first.Subnet || again.Precedence != first.Precedence {
			t.Errorf("the second run has %+v, the first had %+v", again, first)
		}
		h.Delete(t, again.Subnet)
	}
}

func againBySubnet(t *testing.T, h Harness) {
	h.SetConfig(t, DualConfig)
	prev := Subnets("10.5.77.0/24", "fd00:5:0:77::/64")
	first := acquire(t, node(t, h), Attrs(DualConfig, 1), prev)
	if first.Subnet != prev {
		t.Errorf("the free subnet of an earlier run is not used: %v", first.Subnet)
	}
	second := acquire(t, node(t, h), Attrs(DualConfig, 2), prev)
	outside := acquire(t, node(t, h), Attrs(DualConfig, 3), Subnets("10.6.0.0/24", "fd00:5:0:78::/64"))
	if outside.Subnet[ipfam.V6] != netip.MustParsePrefix("fd00:5:0:78::/64") {
		t.Errorf("the family that still fits is not used: %v", outside.Subnet)
	}
	disjoint(t, []subnet.Lease{first, second, outside})
}

func misfitIsReplaced(t *testing.T, h Harness) {
	h.SetConfig(t, IPv4Config)
	for _, misfit := range []string{"10.9.1.0/24", "10.5.8.0/22"} {
		h.Put(t, subnet.Lease{Subnet: Subnets(misfit), Attrs: Attrs(IPv4Config, 1)}, false)
		got := acquire(t, node(t, h), Attrs(IPv4Config, 1), none())
		if got.Subnet[ipfam.V4].Bits() != 24 || !netip.MustParsePrefix("10.5.0.0/16").Contains(got.Subnet[ipfam.V4].Addr()) {
			t.Errorf("acquired %v", got.Subnet)
		}
		if _, _, found := h.Get(t, Subnets(misfit)); found {
			t.Errorf("%s is still there", misfit)
		}
		h.Delete(t, got.Subnet)
	}
}

func reservationStaysOne(t *testing.T, h Harness) {
	h.SetConfig(t, IPv4Config)
	reserved := Subnets("10.5.42.0/24")
	h.Put(t, subnet.Lease{Subnet: reserved, Attrs: Attrs(IPv4Config, 1)}, true)
	m := node(t, h)
	changed := Attrs(IPv4Config, 1)
	changed.BackendType = "host-gw"
	for _, a := range []subnet.Attrs{Attrs(IPv4Config, 1), changed} {
		got := acquire(t, m, a, none())
		if got.Subnet != reserved || !got.Expires.IsZero() {
			t.Errorf("acquired %v until %s", got.Subnet, got.Expires)
		}
		l, reservation, found := h.Get(t, reserved)
		if !found || !reservation || l.Attrs != a {
			t.Errorf("the store has %+v, reservation %t, found %t", l, reservation, found)
		}
	}
}

func otherAttributes(t *testing.T, h Harness) {
	h.SetConfig(t, DualConfig)
	m := node(t, h)
	first := acquire(t, m, Attrs(DualConfig, 1), none())
	_, stop := Background(t, Keep(m, first))
	other := Attrs(DualConfig, 2)
	second := acquire(t, m, other, none())
	stop()
	if second.Subnet != first.Subnet || second.Precedence != first.Precedence {
		t.Errorf("the subnet changed from %+v to %+v", first, second)
	}
	if l, _, _ := h.Get(t, first.Subnet); l.Attrs != other {
		t.Errorf("the store has %+v, want %+v", l.Attrs, other)
	}
}

func previous(t *testing.T, h Harness) {
	h.SetConfig(t, IPv4Config)
	a := Attrs(IPv4Config, 1)
	m := node(t, h)
	if got, err := m.Previous(limited(t), a.PublicIP, none()); err != nil || got != (subnet.Attrs{}) {
		t.Errorf("Previous = %+v, %v before the first run", got, err)
	}
	own := acquire(t, m, a, none())
	keyless := a
	keyless.Data = subnet.Attrs{}.Data
	for prev, want := range map[ipfam.Pair[netip.Prefix]]subnet.Attrs{own.Subnet: a, none(): keyless} {
		if got, err := node(t, h).Previous(limited(t), a.PublicIP, prev); err != nil || got != want {
			t.Errorf("Previous = %+v, %v after %v; want %+v", got, err, prev, want)
		}
	}
	if got, err := m.Overrides(limited(t)); err != nil || got != (ipfam.Pair[netip.Addr]{}) {
		t.Errorf("Overrides = %v, %v", got, err)
	}
}

// twoRecords asks what was published, and then for a lease, with and without
// the subnet of an earlier run: both answers are about the same record.
func twoRecords(t *testing.T, h Harness) {
	h.SetConfig(t, IPv4Config)
	older, younger := Attrs(IPv4Config, 1), Attrs(IPv4Config, 1)
	older.BackendType, younger.BackendType = "older", "younger"
	for _, c := range []struct {
		prev ipfam.Pair[netip.Prefix]
		want subnet.Attrs
		at   ipfam.Pair[netip.Prefix]
	}{
		{Subnets("10.5.42.0/24"), younger, Subnets("10.5.42.0/24")},
		{none(), older, Subnets("10.5.77.0/24")},
	} {
		h.Put(t, subnet.Lease{Subnet: Subnets("10.5.77.0/24"), Attrs: older}, false)
		h.Put(t, subnet.Lease{Subnet: Subnets("10.5.42.0/24"), Attrs: younger}, false)
		m := node(t, h)
		got, err := m.Previous(limited(t), Attrs(IPv4Config, 1).PublicIP, c.prev)
		if err != nil || got.BackendType != c.want.BackendType {
			t.Errorf("Previous = %+v, %v; want %+v", got, err, c.want)
		}
		if own := acquire(t, m, Attrs(IPv4Config, 1), c.prev); own.Subnet != c.at {
			t.Errorf("acquired %v, want %v", own.Subnet, c.at)
		}
		h.Delete(t, Subnets("10.5.77.0/24"))
		h.Delete(t, Subnets("10.5.42.0/24"))
	}
}

func readdressed(t *testing.T, h Harness) {
	for _, config := range []string{IPv4Config, DualConfig} {
		h.SetConfig(t, config)
		first := acquire(t, node(t, h), Attrs(config, 1), none())
		moved := Attrs(config, 1)
		moved.PublicIP = Attrs(config, 2).PublicIP
		m := node(t, h)
		if got, err := m.Previous(limited(t), moved.PublicIP, first.Subnet); err != nil || got != (subnet.Attrs{}) {
			t.Errorf("Previous = %+v, %v; nobody has published this address", got, err)
		}
		again := acquire(t, m, moved, first.Subnet)
		if again.Subnet != first.Subnet || again.Precedence != first.Precedence {
			t.Errorf("the second run has %+v, the first had %+v", again, first)
		}
		if leases, err := m.List(limited(t)); err != nil || len(leases) != 1 {
			t.Errorf("the store holds %v, %v", leases, err)
		}
		h.Delete(t, again.Subnet)
	}
}

func fullNetwork(t *testing.T, h Harness) {
	h.SetConfig(t, tinyConfig)
	for n := 1; n <= 3; n++ {
		acquire(t, node(t, h), Attrs(tinyConfig, n), none())
	}
	if l, err := node(t, h).Acquire(limited(t), Attrs(tinyConfig, 4), none()); !errors.Is(err, alloc.ErrFull) {
		t.Errorf("Acquire = %+v, %v; want alloc.ErrFull", l, err)
	}
}

// addressOfAnother cuts a node off, gives its address to another one, and brings
// it back with a new address.
func addressOfAnother(t *testing.T, h Harness) {
	h.SetConfig(t, DualConfig)
	for _, c := range []struct{ first, other, back subnet.Attrs }{
		{Attrs(DualConfig, 1), withAddress(DualConfig, 2, 1), withAddress(DualConfig, 1, 3)},
		{hostGW(1), hostGW(1), hostGW(3)},
	} {
		m, n := node(t, h), node(t, h)
		own := acquire(t, m, c.first, none())
		prev, err := n.Previous(limited(t), c.other.PublicIP, none())
		if err != nil || prev.Data[ipfam.V4] != "" {
			t.Errorf("Previous = %+v, %v: the key is another node's", prev, err)
		}
		other := acquire(t, n, c.other, none())
		if other.Subnet != own.Subnet {
			t.Errorf("the address goes with %v, acquired %v", own.Subnet, other.Subnet)
		}
		back := acquire(t, m, c.back, own.Subnet)
		disjoint(t, []subnet.Lease{other, back})
		if l, _, _ := h.Get(t, other.Subnet); l.Attrs != c.other {
			t.Errorf("the record of the other node became %+v", l)
		}
		h.Delete(t, other.Subnet)
		h.Delete(t, back.Subnet)
	}
}

// withAddress is node n at the addresses of node at.
func withAddress(config string, n, at int) subnet.Attrs {
	a := Attrs(config, n)
	a.PublicIP = Attrs(config, at).PublicIP
	return a
}

// hostGW is node n with a backend without key material.
func hostGW(n int) subnet.Attrs {
	return subnet.Attrs{BackendType: "host-gw", PublicIP: Attrs(DualConfig, n).PublicIP}
}
