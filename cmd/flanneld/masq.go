package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/sysctl"
	"flannel/ipmasq"
	"flannel/ipmasq/iptables"
	"flannel/ipmasq/keeper"
	"flannel/ipmasq/nftables"
	"flannel/network"
)

// nftablesResync is how often the tables are looked at although no event asks
// for it.
const nftablesResync = 120 * time.Second

// newFilter builds what keeps the rules of masquerading and forwarding.
func (d *daemon) newFilter(env network.FilterEnv) network.Filter {
	for _, p := range sysctl.Check(sysctl.Root, env.Config.Enabled(), env.Uplink) {
		d.log.Warn("a setting of this host is not as pods need it", "problem", p.Text, "command", p.Command)
	}
	return keeper.New(keeper.Options{
		Log: d.log,
		Choose: func(ctx context.Context) (keeper.Mode, error) {
			return d.chooseMode(ctx, env.Config.Enabled(), env.Config.EnableNFTables)
		},
		Config: ipmasq.Config{
			Network:     env.Config.Network,
			Previous:    env.Previous,
			Exclude:     env.Config.MasqueradeExclude,
			Masquerade:  d.options.ipMasq,
			Forward:     d.options.iptablesForwardRules,
			RandomFully: !d.options.ipMasqFullyRandomDisable,
		},
		ExcludeNodes: env.Config.ExcludeNodes,
		Checked:      d.rulesChecked,
		Wrote: func(t ipmasq.Table, put, deleted, drift int) {
			d.metrics.Table(string(t), put, deleted, drift)
		},
	})
}

// chooseMode says what writes the rules, and what removes those that another
// mode has left.
func (d *daemon) chooseMode(ctx context.Context, families ipfam.Pair[bool], nft bool) (keeper.Mode, error) {
	tables := nftables.New(nftables.Options{Log: d.log})
	compat := nftables.NewCompat(tables)
	chosen, other, err := iptables.New(ctx, iptables.Options{Families: families, Generation: tables.Generation, Log: d.log})
	switch {
	case errors.Is(err, iptables.ErrNoTool):
		if !nft {
			d.log.Warn("no iptables programs on this host: using nftables; EnableNFTables says so in the network configuration", "err", err)
		}
		nft = true
	case err != nil:
		return keeper.Mode{}, fmt.Errorf("find iptables: %w", err)
	}
	if nft {
		d.log.Info("packet filter", "mode", "nftables")
		return keeper.Mode{
			Driver: tables, Watch: tables.Watch, Blocked: blocked(tables, chosen, other), Resync: nftablesResync,
			Former: []keeper.Remover{compat, d.legacy(chosen, other)},
		}, nil
	}
	d.log.Info("packet filter", "mode", "iptables", "programs", chosen.Mode(), "why", chosen.Why())
	former := []keeper.Remover{tables, compat}
	if chosen.Mode() == iptables.NFT {
		former[1] = d.legacy(other)
	}
	return keeper.Mode{
		Driver: chosen, Resync: time.Duration(d.options.iptablesResync) * time.Second, Former: former,
		Blocked: blocked(tables, chosen, other),
	}, nil
}

// blocked finds drops of others in nf_tables, which holds the rules of
// iptables-nft and of firewalld, and, where its programs are, in legacy iptables.
func blocked(tables *nftables.Driver, drivers ...*iptables.Driver) func(context.Context, ipmasq.Config) ([]string, error) {
	return func(ctx context.Context, c ipmasq.Config) ([]string, error) {
		lines, err := tables.Blocked(ctx, c)
		for _, d := range drivers {
			if d == nil || d.Mode() != iptables.Legacy {
				continue
			}
			more, failed := d.Blocked(ctx, c)
			lines, err = append(lines, more...), errors.Join(err, failed)
		}
		return lines, err
	}
}

// legacy removes what is left in legacy tables with the first of these that
// can, or says what is left.
func (d *daemon) legacy(drivers ...*iptables.Driver) keeper.Remover {
	for _, driver := range drivers {
		if driver != nil && driver.Mode() == iptables.Legacy {
			return driver
		}
	}
	return &iptables.LegacyNotice{Log: d.log}
}

// rulesChecked notes whether the rules are in place.
func (d *daemon) rulesChecked(err error) {
	if err != nil {
		d.metrics.Error("rules")
		d.rules.Fail(err.Error())
		return
	}
	d.rules.OK()
}
