package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"flannel/lab"
)

// filter is one way in which rules get into the kernel.
type filter struct {
	name string
	nft  bool
	// foreign is a rule of others, which decides between the kinds of iptables.
	foreign string
	// fault takes our rules away.
	fault string
	limit float64
}

// resyncPeriod is how often iptables rules are looked at by default.
const resyncPeriod = 5 * time.Second

func filters() []filter {
	fault := "iptables-MODE -F; iptables-MODE -t nat -F; ip6tables-MODE -F; ip6tables-MODE -t nat -F"
	foreign := "iptables-MODE -t nat -A PREROUTING -s 203.0.113.1 -j RETURN"
	in := func(text, mode string) string { return strings.ReplaceAll(text, "MODE", mode) }
	limit := resyncPeriod.Seconds() + 0.5
	return []filter{
		{name: "iptables-nft", foreign: in(foreign, "nft"), fault: in(fault, "nft"), limit: limit},
		{name: "iptables-legacy", foreign: in(foreign, "legacy"), fault: in(fault, "legacy"), limit: limit},
		{name: "nftables", nft: true, fault: "nft flush ruleset", limit: 1},
	}
}

// foreignRules is how many rules of others a busy host has.
const foreignRules = 20_000

// rules measures how fast the rules of masquerading are back, and what looking
// at them costs beside those of others.
func (b *bench) rules(ctx context.Context) ([]row, error) {
	if err := b.close(); err != nil {
		return nil, err
	}
	var rows []row
	var errs []error
	for _, f := range filters() {
		found, err := b.filter(ctx, f)
		rows = append(rows, found...)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.name, err))
		}
	}
	return rows, errors.Join(errs...)
}

func (b *bench) filter(ctx context.Context, f filter) (rows []row, err error) {
	l, err := lab.New(ctx, lab.Options{
		Hosts: 1, Families: lab.Dual, Binaries: b.binaries, Flags: []string{"--ip-masq"},
		Network: fmt.Sprintf(`{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48",
			"EnableNFTables": %t, "Backend": {"Type": "vxlan"}}`, f.nft),
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	h := filterHost{Host: l.Hosts[0], filter: f}
	if err := h.start(ctx); err != nil {
		return nil, err
	}
	healed := row{Measure: "healed: all rules deleted, " + f.name, Unit: seconds, Limit: &f.limit}
	for range b.roundsOr(4) {
		took, err := h.heal(ctx)
		if err != nil {
			return nil, err
		}
		healed.Samples = append(healed.Samples, inSeconds(took))
	}
	rows = append(rows, healed)
	if f.nft {
		return rows, nil
	}
	cost, err := h.cost(ctx, strings.TrimPrefix(f.name, "iptables-"))
	return append(rows, cost...), err
}

// filterHost is a host whose rules are measured.
type filterHost struct {
	*lab.Host
	filter filter
}

func (h filterHost) start(ctx context.Context) error {
	if h.filter.foreign != "" {
		if err := h.each(ctx, h.filter.foreign); err != nil {
			return err
		}
	}
	if err := h.StartFlanneld(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return h.WaitReady(ctx)
}

// each runs commands, separated by semicolons.
func (h filterHost) each(ctx context.Context, commands string) error {
	for command := range strings.SplitSeq(commands, "; ") {
		if _, err := h.Exec(ctx, strings.Fields(command)...); err != nil {
			return err
		}
	}
	return nil
}

// complete reports whether the rules of both tables and families are there.
func (h filterHost) complete(ctx context.Context) (bool, error) {
	if h.filter.nft {
		text, err := h.Exec(ctx, "nft", "list", "ruleset")
		return err == nil && strings.Count(text, "flanneld ") == 16, err
	}
	found := 0
	for _, program := range []string{"iptables", "ip6tables"} {
		name := strings.Replace(h.filter.name, "iptables", program, 1)
		for _, chain := range []string{"nat POSTROUTING", "nat FLANNEL-POSTRTG", "filter FORWARD", "filter FLANNEL-FWD"} {
			table, chain, _ := strings.Cut(chain, " ")
			text, err := h.Exec(ctx, name, "-t", table, "-S", chain)
			if err != nil {
				return false, err
			}
			found += strings.Count(text, "flanneld ")
		}
	}
	return found == 20, nil
}

// heal takes the rules away and returns how long they were.
func (h filterHost) heal(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	if err := h.each(ctx, h.filter.fault); err != nil {
		return 0, err
	}
	err := until(ctx, "all rules", 5*time.Millisecond, func() (bool, error) { return h.complete(ctx) })
	return time.Since(start), err
}
