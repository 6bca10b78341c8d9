package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"flannel/internal/ipfam"
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
	d.settings.start(env)
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
		Dropped:      func(lines []string) { d.dropped.Fail(strings.Join(lines, "; ")) },
		Wrote: func(t ipmasq.Table, put, deleted, drift int) {
			d.metrics.Table(string(t), put, deleted, drift)
		},
	})
}

// chooseMode says what writes the rules, and what removes those that another
// mode has left.
func (d *daemon) chooseMode(ctx context.Context, families ipfam.Pair[bool], nft bool) (keeper.Mode, error) {
	tables := nftables.New(nftables.Options{Log: d.log})
	chosen, other, err := iptables.New(ctx, iptables.Options{Families: families, Generation: tables.Generation, Log: d.log})
	why := "EnableNFTables"
	switch {
	case errors.Is(err, iptables.ErrNoTool):
		// So it is in the image without iptables.
		if !nft {
			nft, why = true, iptables.ErrNoTool.Error()
		}
		d.log.Debug("iptables cannot be used", "err", err)
	case err != nil:
		return keeper.Mode{}, fmt.Errorf("find iptables: %w", err)
	}
	legacy := ofLegacy(chosen, other)
	mode := keeper.Mode{Resync: time.Duration(d.options.iptablesResync) * time.Second, Blocked: blocked(tables, legacy != nil)}
	// FORWARD of the other kind of iptables may drop what ours accepts.
	forward := nftables.NewCompat(tables, ipmasq.Filter)
	former := nftables.NewCompat(tables, ipmasq.Nat)
	var drivers keeper.Several
	switch {
	case nft:
		d.log.Info("packet filter", "mode", "nftables", "why", why)
		drivers, mode.Former, mode.Watch = keeper.Several{tables, forward}, []keeper.Remover{former}, tables.Watch
		if legacy == nil { // which has no events
			mode.Resync = nftablesResync
		}
	default:
		d.log.Info("packet filter", "mode", "iptables", "programs", chosen.Mode(), "why", chosen.Why())
		drivers, mode.Former = keeper.Several{chosen}, []keeper.Remover{tables}
	}
	switch {
	case legacy == nil:
		mode.Former = append(mode.Former, &iptables.LegacyNotice{Log: d.log})
	case !nft && legacy == chosen:
		drivers, mode.Former = append(drivers, forward), append(mode.Former, former)
	default:
		drivers, mode.Former = append(drivers, iptables.NewLift(legacy)), append(mode.Former, legacy)
	}
	mode.Driver = drivers
	return mode, nil
}

// ofLegacy returns the one of these that writes legacy tables, or nil.
func ofLegacy(drivers ...*iptables.Driver) *iptables.Driver {
	for _, driver := range drivers {
		if driver != nil && driver.Mode() == iptables.Legacy {
			return driver
		}
	}
	return nil
}

// blocked finds drops of others in nf_tables, which holds the rules of
// iptables-nft and of firewalld, and in legacy iptables. legacy says that our
// rules are kept there.
func blocked(tables *nftables.Driver, legacy bool) func(context.Context, ipmasq.Config) ([]string, error) {
	return func(ctx context.Context, c ipmasq.Config) ([]string, error) {
		lines, err := tables.Blocked(ctx, c)
		more, failed := iptables.LegacyBlocked(c, legacy)
		return append(lines, more...), errors.Join(err, failed)
	}
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
