package lab

import (
	"fmt"
	"net/netip"

	"flannel/internal/ipfam"
)

// Families are the IP versions of a lab.
type Families uint8

// The possible families.
const (
	IPv4 Families = 1 << iota
	IPv6
	Dual = IPv4 | IPv6
)

// Has reports whether a family is on.
func (fs Families) Has(f ipfam.Family) bool { return fs&(1<<f) != 0 }

// The numbers of the machines on a link. Host n has the number firstHost+n.
const (
	routerNumber  = 1
	etcdNumber    = 2
	controlNumber = 3
	firstHost     = 10
)

// address returns the address of machine number n on a link, with the link's
// prefix length: 172.31.LINK.N/24 and fd00:31:0:LINK::N/64. The decimal digits
// are the same in both.
func address(f ipfam.Family, link, n int) netip.Prefix {
	if f == ipfam.V4 {
		return netip.MustParsePrefix(fmt.Sprintf("172.31.%d.%d/24", link, n))
	}
	return netip.MustParsePrefix(fmt.Sprintf("fd00:31:0:%d::%d/64", link, n))
}

// addresses returns the addresses of machine number n in the families of the
// underlay.
func (fs Families) addresses(link, n int) ipfam.Pair[netip.Prefix] {
	var p ipfam.Pair[netip.Prefix]
	for _, f := range ipfam.All() {
		if fs.Has(f) {
			p[f] = address(f, link, n)
		}
	}
	return p
}

// podRanges are the overlay networks of the default network configuration.
func (fs Families) podRanges() []netip.Prefix {
	var out []netip.Prefix
	for f, text := range defaultNetworks.Each() {
		if fs.Has(f) {
			out = append(out, netip.MustParsePrefix(text))
		}
	}
	return out
}

var defaultNetworks = ipfam.Pair[string]{"10.244.0.0/16", "fd00:10:244::/48"}

// hostSubnets leaves subnets that no host ever gets: tests may give them to
// peers of their own making.
const hostSubnets = `"SubnetMin": "10.244.100.0", "SubnetMax": "10.244.199.0", `

// config returns the default network configuration.
func (fs Families) config(backend string) string {
	if backend == "" {
		backend = `{"Type": "vxlan"}`
	}
	text := "{"
	if fs.Has(ipfam.V4) {
		text += `"Network": "` + defaultNetworks[ipfam.V4] + `", ` + hostSubnets
	} else {
		text += `"EnableIPv4": false, `
	}
	if fs.Has(ipfam.V6) {
		text += `"EnableIPv6": true, "IPv6Network": "` + defaultNetworks[ipfam.V6] + `", `
	}
	return text + `"Backend": ` + backend + "}"
}
