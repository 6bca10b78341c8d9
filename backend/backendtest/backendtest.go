// Package backendtest has what the tests of single backends share: nodes, an
// uplink, and a plan as text.
package backendtest

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/subnet"
)

// Env is what a backend is built from if nothing was there before.
func Env(v4, v6 bool) backend.Env {
	env := backend.Env{
		Log:       slog.New(slog.DiscardHandler),
		Families:  ipfam.Pair[bool]{v4, v6},
		DeviceMAC: func(string) kernel.MAC { return kernel.MAC{} },
		TUNName:   func(prefix string) string { return prefix + "0" },
		Counter:   func(string) *atomic.Uint64 { return new(atomic.Uint64) },
	}
	if v4 {
		env.Network[ipfam.V4] = netip.MustParsePrefix("10.5.0.0/16")
	}
	if v6 {
		env.Network[ipfam.V6] = netip.MustParsePrefix("fc00::/48")
	}
	return env
}

// Uplink is that of node 1.
func Uplink() backend.Uplink {
	a := ipfam.Pair[netip.Addr]{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	return backend.Uplink{Name: "eth0", Index: 7, MTU: 1500, Addr: a, Public: a}
}

// Host is that of node 1, which has all nodes on its link.
func Host() backend.Host {
	return backend.Host{Uplink: Uplink(), OnLinkRoutes: backend.OnLinkRoutes{
		{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Direct: true},
		{Prefix: netip.MustParsePrefix("2001:db8::/64"), Direct: true},
	}}
}

// Node returns the lease of node n with a backend, in both families, changed
// by what is given.
func Node(backendType string, n int, changes ...func(*subnet.Lease)) subnet.Lease {
	l := subnet.Lease{Name: fmt.Sprintf("node%d", n), Precedence: subnet.Precedence{Age: int64(n)}}
	l.Subnet = ipfam.Pair[netip.Prefix]{
		netip.MustParsePrefix(fmt.Sprintf("10.5.%d.0/24", n)), netip.MustParsePrefix(fmt.Sprintf("fc00:0:0:%d::/64", n)),
	}
	l.Attrs = subnet.Attrs{BackendType: backendType, PublicIP: ipfam.Pair[netip.Addr]{
		netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", n)), netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", n)),
	}}
	for _, change := range changes {
		change(&l)
	}
	return l
}

// Text is a plan as a person reviews it.
func Text(state kernel.State, peers []backend.PeerStatus) string {
	var b strings.Builder
	b.WriteString(state.String())
	for _, p := range peers {
		fmt.Fprintf(&b, "peer %s %s %s via %s: %s: %s%s\n", p.Name, p.Family, p.Subnet, p.Via, p.How, p.Why, probeText(p))
	}
	return b.String()
}

// probeText is which addresses of a peer are probed, and at which size.
func probeText(p backend.PeerStatus) string {
	if p.Probe == (backend.Probe{}) {
		return ""
	}
	text := "; probe"
	device, bridge := p.Probe.Addrs(p.Subnet)
	for _, a := range []netip.Addr{device, bridge} {
		if a.IsValid() {
			text += " " + a.String()
		}
	}
	text += fmt.Sprintf(" with %d bytes and %d more outside", p.Probe.MTU, p.Probe.Overhead)
	if p.Probe.OnDemand {
		text += " on demand"
	}
	return text
}

// Config parses the Backend object, which must be valid.
func Config(t testing.TB, typ backend.Type, object string, families ipfam.Pair[bool]) backend.Config {
	t.Helper()
	c, warnings, err := typ.Parse(json.RawMessage(object), families)
	if err != nil || len(warnings) > 0 {
		t.Fatal(warnings, err)
	}
	return c
}

// New builds a backend from its Backend object, which must be valid.
func New(t testing.TB, typ backend.Type, object string, env backend.Env) backend.Backend {
	t.Helper()
	b, err := Config(t, typ, object, env.Families).New(env)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
