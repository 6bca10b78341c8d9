package main

import (
	"context"
	"strings"
	"time"

	"flannel/ipmasq"
	"flannel/ipmasq/keeper"
	"flannel/ipmasq/mode"
	"flannel/kernel/podbridge"
	"flannel/network"
)

// newFilter builds what keeps the rules of masquerading and forwarding.
func (d *daemon) newFilter(env network.FilterEnv) network.Filter {
	d.settings.start(env)
	return keeper.New(keeper.Options{
		Log: d.log,
		Choose: func(ctx context.Context) (keeper.Mode, error) {
			return mode.Choose(ctx, mode.Options{
				Log: d.log, Bridge: podbridge.Name, Families: env.Config.Enabled(), NFTables: env.Config.EnableNFTables,
				Resync: time.Duration(d.options.iptablesResync) * time.Second,
			})
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
		Checked:      func(err error) { d.set(d.rules, "rules", err) },
		Dropped:      func(lines []string) { d.dropped.Fail(strings.Join(lines, "; ")) },
		Loop:         d.health.AddLoop("rules"),
		Wrote: func(t ipmasq.Table, put, deleted, drift int) {
			d.metrics.Table(string(t), put, deleted, drift)
		},
	})
}
