package nftables

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// Single addresses that are not masqueraded, such as those of thousands of
// nodes, are elements of a set: one rule looks all of them up at once.

// sets are the addresses that daemons exclude, by the network of the daemon.
type sets map[netip.Prefix][]netip.Addr

// excludes returns the address that a rule excludes, if it is a single one.
func excludes(r ipmasq.Rule, network netip.Prefix) (netip.Addr, bool) {
	single := !r.Dst.Any() && !r.Dst.Not && r.Dst.Prefix.IsSingleIP()
	return r.Dst.Prefix.Addr(), single && r.Do == ipmasq.Return && r.Src == ipmasq.Match{Prefix: network}
}

// lookUp returns the rule that looks up the excluded addresses.
func lookUp(f ipfam.Family, network netip.Prefix) []expr.Any {
	return append(address(ipmasq.Match{Prefix: network}, srcOffset[f]),
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: dstOffset[f], Len: uint32(f.Bits() / 8)},
		&expr.Lookup{SourceRegister: register, SetName: setName(network)},
		&expr.Verdict{Kind: expr.VerdictReturn})
}

// setName names the set of the daemon with this network; nft allows no colons.
func setName(network netip.Prefix) string {
	return "excluded-" + strings.NewReplacer("/", "-", ":", "_").Replace(network.String())
}

// setOf returns the set of one daemon. The number is needed within one
// transaction only.
func setOf(f ipfam.Family, network netip.Prefix) *nftables.Set {
	return &nftables.Set{
		Table: ownTable(f), Name: setName(network), ID: uint32(f) + 1,
		KeyType: ipfam.Pair[nftables.SetDatatype]{nftables.TypeIPAddr, nftables.TypeIP6Addr}[f],
	}
}

// readSets returns the sets of this daemon and of its earlier runs.
func readSets(conn *nftables.Conn, f ipfam.Family, c ipmasq.Config) (sets, error) {
	out := sets{}
	for _, network := range c.Networks(f) {
		s, err := conn.GetSetByName(ownTable(f), setName(network))
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read set %s: %w", setName(network), err)
		}
		elements, err := conn.GetSetElements(s)
		if err != nil {
			return nil, fmt.Errorf("read set %s: %w", setName(network), err)
		}
		addrs := make([]netip.Addr, 0, len(elements))
		for _, e := range elements {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
				addrs = append(addrs, a)
			}
		}
		out[network] = addrs
	}
	return out, nil
}

// missing returns what is in list and not in from.
func missing(list, from []netip.Addr) []netip.Addr {
	there := make(map[netip.Addr]bool, len(from))
	for _, a := range from {
		there[a] = true
	}
	return slices.DeleteFunc(slices.Clone(list), func(a netip.Addr) bool { return there[a] })
}

// elementsAtOnce bounds a message: the length of a list has 16 bits.
const elementsAtOnce = 1000

// fillSet makes the set of a network hold the excluded addresses, before rules look
// them up.
func (b *batch) fillSet(f ipfam.Family, network netip.Prefix, have sets, want []netip.Addr) {
	if len(want) == 0 {
		return
	}
	set := setOf(f, network)
	addrs, exists := have[network]
	if !exists {
		b.addTable(set.Table)
		b.change(1, 0, func(conn *nftables.Conn) error { return conn.AddSet(set, nil) })
	}
	for list := range slices.Chunk(missing(want, addrs), elementsAtOnce) {
		b.change(len(list), 0, func(conn *nftables.Conn) error { return conn.SetAddElements(set, elements(list)) })
	}
	for list := range slices.Chunk(missing(addrs, want), elementsAtOnce) {
		b.change(0, len(list), func(conn *nftables.Conn) error { return conn.SetDeleteElements(set, elements(list)) })
	}
}

func elements(addrs []netip.Addr) []nftables.SetElement {
	out := make([]nftables.SetElement, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, nftables.SetElement{Key: a.AsSlice()})
	}
	return out
}
