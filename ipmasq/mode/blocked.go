package mode

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"flannel/internal/firewall"
	"flannel/internal/ipfam"
	"flannel/ipmasq"
	"flannel/ipmasq/iptables"
	"flannel/ipmasq/nftables"
)

// blocked finds what drops the overlay's packets although our rules are in
// place. An accept of ours cannot undo a drop in another table, or ahead of it.
type blocked struct {
	tables *nftables.Driver
	// bridge is that of the pods.
	bridge string
	// legacyKept is set if our rules are kept in legacy tables.
	legacyKept bool

	// last are the lines about nf_tables that were found at verified.
	verified ipmasq.Verified
	last     []string
}

// lines returns a line for each chain of others that drops what the overlay
// forwards, with the command that lets it pass: in nf_tables, which holds the
// rules of iptables-nft and of firewalld, and in legacy iptables.
//
// A rule with conditions on other things than addresses counts as if no packet met
// it. nf_tables are not read again as long as they have not changed.
func (b *blocked) lines(_ context.Context, c ipmasq.Config) ([]string, error) {
	lines, err := b.inNFTables(c)
	more, failed := b.inLegacy(c)
	return append(lines, more...), errors.Join(err, failed)
}

func (b *blocked) inNFTables(c ipmasq.Config) ([]string, error) {
	generation, err := b.tables.Generation()
	if err != nil {
		return nil, nil // a kernel without nf_tables drops nothing there
	}
	if b.verified.At(generation, c) {
		return slices.Clone(b.last), nil
	}
	b.verified.Forget()
	rules, err := firewall.ReadNFTables(b.tables.Namespace)
	if err != nil {
		return nil, err
	}
	defer rules.Close()
	b.last = nil
	for _, network := range ipfam.Prefixes(c.Network) {
		for _, f := range firewall.Forwarded(network, b.bridge, rules) {
			if nftables.IsOurs(f.Table) {
				continue
			}
			unless := ""
			if f.MayAccept {
				unless = " that no rule with other conditions accepts"
			}
			b.last = append(b.last, line(f, network, unless))
		}
	}
	slices.Sort(b.last)
	b.last = slices.Compact(b.last)
	b.verified.Set(generation, c)
	return slices.Clone(b.last), nil
}

func (b *blocked) inLegacy(c ipmasq.Config) ([]string, error) {
	var lines []string
	for _, network := range ipfam.Prefixes(c.Network) {
		found, err := iptables.LegacyDrops(network, b.bridge, b.legacyKept)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			but := ""
			if still, err := iptables.LegacyDrops(network, b.bridge, true); err == nil && len(still) == 0 {
				but = ", but for what an earlier run has left in its chain " + ipmasq.Chains[ipmasq.Filter].Name + ", which nothing restores"
			}
			lines = append(lines, line(f, network, but))
		}
	}
	return lines, nil
}

// line describes for people what drops, and which command helps.
func line(f firewall.Finding, network netip.Prefix, unless string) string {
	return fmt.Sprintf("%s drops forwarded packets of %s%s; let them pass with: %s", f.Base, network, unless, f.Allow(network))
}
