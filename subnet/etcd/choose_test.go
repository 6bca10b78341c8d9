package etcd

import (
	"net/netip"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/etcdtest"
	"flannel/subnet"
	"flannel/subnet/subnettest"
)

// elsewhere is a record of node 1 as it was at another address.
func elsewhere(subnets string) subnet.Lease {
	l := subnet.Lease{Subnet: pair(subnets), Attrs: subnettest.Attrs(v4, 1)}
	l.Attrs.PublicIP = addrs("192.0.2.99")
	return l
}

func TestRecordsOfThisNode(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	sameAddress := stranger("10.5.30.0/24", 2)
	sameAddress.Attrs.PublicIP = addrs("192.0.2.1")
	plain := func(l subnet.Lease, backend string) subnet.Lease {
		l.Attrs.BackendType, l.Attrs.Data = backend, subnet.Attrs{}.Data
		return l
	}
	at := func(subnets string) subnet.Lease { return stranger(subnets, 1) }
	const prev = "10.5.10.0/24"
	for _, c := range []struct {
		name                 string
		records, reservation []subnet.Lease
		attrs                subnet.Attrs
		want                 string
		stay                 []string
	}{
		{
			name:    "readdressed while away, the subnet is known",
			records: []subnet.Lease{elsewhere(prev)}, want: prev,
		},
		{
			name:    "readdressed while away, the subnet is not known",
			records: []subnet.Lease{elsewhere("10.5.20.0/24")}, want: "10.5.20.0/24",
		},
		{
			name:    "an older record of another address",
			records: []subnet.Lease{elsewhere("10.5.20.0/24"), at(prev)}, want: prev,
		},
		{
			name:    "the address counts more than the device",
			records: []subnet.Lease{elsewhere("10.5.20.0/24"), at("10.5.21.0/24")}, want: "10.5.21.0/24",
		},
		{
			name:    "a record of this node that does not fit overlaps",
			records: []subnet.Lease{at("10.5.8.0/22"), at(prev)}, want: prev,
		},
		{
			name:    "the address of another device is not surely ours",
			records: []subnet.Lease{sameAddress, at(prev)}, want: prev, stay: []string{"10.5.30.0/24"},
		},
		{
			name:    "a reservation is taken over and nothing else stays",
			records: []subnet.Lease{at(prev)}, reservation: []subnet.Lease{at("10.5.40.0/24")}, want: "10.5.40.0/24",
		},
		{
			name:        "of two reservations the older one is taken, both stay",
			reservation: []subnet.Lease{at("10.5.40.0/24"), at(prev)}, want: "10.5.40.0/24", stay: []string{prev},
		},
		{
			name:    "without key material the same attributes are enough",
			records: []subnet.Lease{plain(at("10.5.20.0/24"), "host-gw"), plain(at(prev), "host-gw")},
			attrs:   plain(at(prev), "host-gw").Attrs, want: prev,
		},
		{
			name:    "udp nodes may share an address",
			records: []subnet.Lease{plain(at("10.5.20.0/24"), "udp"), plain(at(prev), "udp")},
			attrs:   plain(at(prev), "udp").Attrs, want: prev, stay: []string{"10.5.20.0/24"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, server, ownPrefix())
			h.SetConfig(t, v4)
			for _, l := range c.records {
				h.Put(t, l, false)
			}
			for _, l := range c.reservation {
				h.Put(t, l, true)
			}
			if c.attrs.BackendType == "" {
				c.attrs = subnettest.Attrs(v4, 1)
			}
			m := newManager(t, h.options())
			own, err := m.Acquire(t.Context(), c.attrs, pair(prev))
			if err != nil || own.Subnet != pair(c.want) {
				t.Errorf("Acquire = %v, %v; want %s", own.Subnet, err, c.want)
			}
			inStore(t, m, append(c.stay, c.want)...)
		})
	}
}

// inStore checks that the store holds leases of exactly these subnets.
func inStore(t *testing.T, m *Manager, want ...string) {
	t.Helper()
	leases, err := m.List(t.Context())
	if err != nil || len(leases) != len(want) {
		t.Errorf("the store holds %v, %v; want %v", leases, err, want)
	}
	held := map[ipfam.Pair[netip.Prefix]]bool{}
	for _, l := range leases {
		held[l.Subnet] = true
	}
	for _, s := range want {
		if !held[pair(s)] {
			t.Errorf("%s is not in the store: %v", s, leases)
		}
	}
}
