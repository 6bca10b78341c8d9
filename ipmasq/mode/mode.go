// Package mode chooses how the rules get into the kernel of this host: with
// nftables or with one of the two kinds of iptables.
package mode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
	"flannel/ipmasq/iptables"
	"flannel/ipmasq/keeper"
	"flannel/ipmasq/nftables"
)

// nftablesResync is how often the tables are checked without an event.
const nftablesResync = 120 * time.Second

// Options is what the choice depends on beside the host.
type Options struct {
	Log *slog.Logger
	// Families that are enabled.
	Families ipfam.Pair[bool]
	// Bridge is that of the pods.
	Bridge string
	// NFTables chooses nftables.
	NFTables bool
	// Resync is how often tables without events are checked.
	Resync time.Duration
}

// Choose chooses what writes the rules, and what removes those that another mode
// has left.
func Choose(ctx context.Context, o Options) (keeper.Mode, error) {
	tables := nftables.New(nftables.Options{Log: o.Log})
	chosen, other, err := iptables.New(ctx, iptables.Options{Families: o.Families, Generation: tables.Generation, Log: o.Log})
	nft, why := o.NFTables, "EnableNFTables"
	switch {
	case errors.Is(err, iptables.ErrNoTool):
		// The image without iptables has no programs.
		if !nft {
			nft, why = true, iptables.ErrNoTool.Error()
		}
		o.Log.Debug("iptables cannot be used", "err", err)
	case err != nil:
		return keeper.Mode{}, fmt.Errorf("find iptables: %w", err)
	}
	legacy := legacyOf(chosen, other)
	mode := keeper.Mode{Resync: o.Resync}
	mode.Blocked = (&blocked{tables: tables, bridge: o.Bridge, legacyKept: legacy != nil}).lines
	// FORWARD of the other kind of iptables may drop what ours accepts.
	forward := nftables.NewCompat(tables, ipmasq.Filter)
	former := nftables.NewCompat(tables, ipmasq.Nat)
	var drivers keeper.Several
	if nft {
		o.Log.Info("packet filter", "mode", "nftables", "why", why)
		drivers, mode.Former, mode.Watch = keeper.Several{tables, forward}, []keeper.Remover{former}, tables.Watch
		if legacy == nil { // which has no events
			mode.Resync = nftablesResync
		}
	} else {
		o.Log.Info("packet filter", "mode", "iptables", "programs", chosen.Mode(), "why", chosen.Why())
		drivers, mode.Former = keeper.Several{chosen}, []keeper.Remover{tables}
	}
	switch {
	case legacy == nil:
		mode.Former = append(mode.Former, &iptables.LegacyNotice{Log: o.Log})
	case !nft && legacy == chosen:
		drivers, mode.Former = append(drivers, forward), append(mode.Former, former)
	default:
		drivers, mode.Former = append(drivers, iptables.NewLift(legacy)), append(mode.Former, legacy)
	}
	mode.Driver = drivers
	return mode, nil
}

// legacyOf returns the driver that writes legacy tables, or nil.
func legacyOf(drivers ...*iptables.Driver) *iptables.Driver {
	for _, driver := range drivers {
		if driver != nil && driver.Mode() == iptables.Legacy {
			return driver
		}
	}
	return nil
}
