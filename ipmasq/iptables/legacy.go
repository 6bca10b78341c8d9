package iptables

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"flannel/internal/firewall"
	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// LegacyDrops finds what drops the overlay's forwarded packets in a legacy table; the
// bridge is that of the pods.
// kept is set if a driver keeps our chain there: then its rules count even if they
// are missing. Otherwise what an earlier run has left in it does not count, because
// nobody restores it.
func LegacyDrops(network netip.Prefix, bridge string, kept bool) ([]firewall.Finding, error) {
	t, err := firewall.ReadLegacy(ipfam.Of(network.Addr()), string(ipmasq.Filter))
	if err != nil {
		return nil, err
	}
	return drops(t, network, bridge, kept), nil
}

func drops(t firewall.Legacy, network netip.Prefix, bridge string, kept bool) []firewall.Finding {
	verdict := firewall.Continue
	if kept {
		verdict = firewall.Accept
	}
	t.Assume = map[string]firewall.Verdict{ipmasq.Chains[ipmasq.Filter].Name: verdict}
	return firewall.Forwarded(network, bridge, t)
}

// needed reports whether packets of the overlay are dropped in the legacy table of
// a family without our chain, so that it must be there.
func needed(t firewall.Legacy, c ipmasq.Config, f ipfam.Family) bool {
	return c.Forward && c.Network[f].IsValid() && len(drops(t, c.Network[f], "", false)) > 0
}

// LegacyNotice logs which rules an earlier run has left in legacy tables if
// nobody can remove them without the legacy programs. Rules without which packets
// of pods would be dropped are not among them.
type LegacyNotice struct {
	Log  *slog.Logger
	once sync.Once
}

// Remove removes nothing; it logs once what is left, with the commands.
func (n *LegacyNotice) Remove(_ context.Context, c ipmasq.Config) (ipmasq.Changes, error) {
	var commands []string
	for _, f := range ipfam.All() {
		for _, table := range ipmasq.Tables() {
			ch := chainOf(table)
			t, err := firewall.ReadLegacy(f, string(table))
			if err != nil || !c.Concerns(f) || !t.Has(ch.Name) || !slices.ContainsFunc(c.Networks(f), t.Names) ||
				table == ipmasq.Filter && needed(t, c, f) {
				continue
			}
			program := fmt.Sprintf("%s-legacy -t %s", names[f], table)
			commands = append(commands, fmt.Sprintf("%s -D %s %s; %s -F %s; %s -X %s",
				program, ch.Base, ch.jump(), program, ch.Name, program, ch.Name))
		}
	}
	if len(commands) > 0 {
		n.once.Do(func() {
			n.Log.Warn("legacy iptables tables hold rules of an earlier run, and the legacy programs are not on this host; "+
				"remove the rules where they are", "command", strings.Join(commands, "; "))
		})
	}
	return nil, nil
}

// Lift keeps the rules of forwarding in legacy tables whose chain FORWARD drops
// packets of the overlay without them, while another driver keeps all rules
// elsewhere: an accept there cannot undo such a drop.
type Lift struct{ driver *Driver }

// NewLift returns a Lift that uses the programs of a driver of legacy tables.
func NewLift(d *Driver) Lift { return Lift{d} }

// Apply makes the tables hold the rules as long as they are needed, and none of
// this daemon's otherwise.
func (l Lift) Apply(ctx context.Context, c ipmasq.Config) (ipmasq.Changes, error) {
	changes := ipmasq.Changes{}
	err := l.driver.lift(ctx, c, changes)
	return changes, err
}

func (d *Driver) lift(ctx context.Context, c ipmasq.Config, changes ipmasq.Changes) error {
	ch := chainOf(ipmasq.Filter)
	var errs []error
	for f, t := range d.each(c) {
		table, err := firewall.ReadLegacy(f, string(ch.Table))
		want := c
		if !needed(table, c, f) {
			want = c.None()
		}
		// Without the chain there is nothing to remove: no program is run.
		if err == nil && (want.Forward || table.Has(ch.Name)) {
			err = d.applyTable(ctx, t, ch, want, changes)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f, err))
		}
	}
	return errors.Join(errs...)
}
