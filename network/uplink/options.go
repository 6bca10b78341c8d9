// Package uplink finds out which interface and which addresses carry the
// overlay's traffic, and follows them while the daemon runs.
package uplink

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"flannel/internal/ipfam"
)

// Flags are the values of the command line that choose the uplink.
type Flags struct {
	Iface      []string
	IfaceRegex []string
	CanReach   string
	PublicIP   string
	PublicIPv6 string
}

// Options are flags that have been checked.
type Options struct {
	// Ifaces are names or addresses of interfaces; they are tried in order,
	// and after them the patterns of Regexes, first on addresses, then on
	// names. Last comes the interface that leads to CanReach.
	Ifaces   []string
	Regexes  []*regexp.Regexp
	CanReach netip.Addr
	// Public is what other nodes send to; an absent address stands for the
	// uplink's own.
	Public ipfam.Pair[netip.Addr]
	// Families that are on.
	Families ipfam.Pair[bool]
}

// Options checks the flags. An error names the flag, the value and what is
// allowed. Public addresses of families that are off are dropped.
func (f Flags) Options(families ipfam.Pair[bool]) (Options, error) {
	o := Options{Families: families}
	for _, name := range f.Iface {
		if name = strings.TrimSpace(name); name != "" {
			o.Ifaces = append(o.Ifaces, name)
		}
	}
	for _, text := range f.IfaceRegex {
		if text == "" {
			continue
		}
		re, err := regexp.Compile(text)
		if err != nil {
			return Options{}, fmt.Errorf("--iface-regex: %q is not allowed: use a regular expression: %w", text, err)
		}
		o.Regexes = append(o.Regexes, re)
	}
	addresses := []struct {
		flag, value string
		allowed     string
		fits        func(netip.Addr) bool
		dst         *netip.Addr
	}{
		{"iface-can-reach", f.CanReach, "an IP address", netip.Addr.IsValid, &o.CanReach},
		{"public-ip", f.PublicIP, "an IPv4 address", netip.Addr.Is4, &o.Public[ipfam.V4]},
		{"public-ipv6", f.PublicIPv6, "an IPv6 address", netip.Addr.Is6, &o.Public[ipfam.V6]},
	}
	for _, a := range addresses {
		if a.value == "" {
			continue
		}
		addr, err := netip.ParseAddr(a.value)
		if addr = addr.Unmap(); err != nil || addr.Zone() != "" || !a.fits(addr) {
			return Options{}, fmt.Errorf("--%s: %q is not allowed: use %s", a.flag, a.value, a.allowed)
		}
		*a.dst = addr
	}
	for fam, on := range families.Each() {
		if !on {
			o.Public[fam] = netip.Addr{}
		}
	}
	return o, nil
}

// byRoute reports whether the choice depends on the host's routes.
func (o Options) byRoute() bool { return o.CanReach.IsValid() || o.byDefaultRoute() }

func (o Options) byDefaultRoute() bool {
	return !o.named() && !o.Public[ipfam.V4].IsValid() && !o.Public[ipfam.V6].IsValid()
}

// named reports whether a flag names the interface.
func (o Options) named() bool {
	return len(o.Ifaces) > 0 || len(o.Regexes) > 0 || o.CanReach.IsValid()
}
