package iptables

import (
	"context"
	"errors"
	"fmt"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

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
	ch := chains[ipmasq.Filter]
	var errs []error
	for f, t := range ipfam.Pair[*tool](d.tools).Each() {
		if t == nil || !c.Concerns(f) {
			continue
		}
		table, err := readLegacy(f, ch.table)
		want := c
		if !table.needed(c) {
			want = c.None()
		}
		// Without the chain there is nothing to remove: no program is run.
		if err == nil && (want.Forward || table.chain(ch.name) >= 0) {
			err = d.applyTable(ctx, t, ch, want, changes)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f, err))
		}
	}
	return errors.Join(errs...)
}
