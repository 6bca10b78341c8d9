// Package iptables writes the rules of masquerading and forwarding with the
// iptables programs: it reads chain by chain, and writes one transaction per table
// and family.
package iptables

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"

	"flannel/internal/firewall"
	"flannel/internal/health"
	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// Options is what a Driver is built from.
type Options struct {
	Log *slog.Logger
	// Families that are enabled.
	Families ipfam.Pair[bool]
	// Generation returns a number that changes whenever nf_tables rules do;
	// nil if that is not known. It saves reading what has not changed.
	Generation func() (uint32, error)
}

// Driver keeps the rules with the programs of one mode.
type Driver struct {
	log        *slog.Logger
	tools      tools
	mode       Mode
	why        string
	generation func() (uint32, error)

	// verified is the last check that found nothing to write.
	verified ipmasq.Verified
}

// New finds the programs and chooses the mode that the host's other rules are
// in. other keeps the rules of the mode that was not chosen, for removing what
// an earlier run left there; it is nil if the host does not have it. The error
// wraps ErrNoTool if the programs do not exist.
func New(ctx context.Context, o Options) (chosen, other *Driver, err error) {
	all, byDefault, err := findAll(o.Families)
	if err != nil {
		return nil, nil, err
	}
	if o.Generation != nil && len(all) > 1 {
		if _, err := o.Generation(); err != nil {
			o.Log.Debug("iptables-nft cannot be used", "err", err)
			delete(all, NFT) // its programs are there, but the kernel has no nf_tables
		}
	}
	found := map[Mode]evidence{}
	for mode, ts := range all {
		if len(all) > 1 {
			found[mode] = weighTools(ctx, ts)
		} else {
			found[mode] = evidence{}
		}
	}
	mode, why := choose(found, byDefault)
	for m, ts := range all {
		d := &Driver{log: o.Log, tools: ts, mode: m, why: why}
		if m == NFT {
			d.generation = o.Generation
		}
		if m == mode {
			chosen = d
		} else {
			other = d
		}
	}
	return chosen, other, nil
}

// Mode returns the kind of tables that the driver writes.
func (d *Driver) Mode() Mode { return d.mode }

// Why returns the reason for this mode.
func (d *Driver) Why() string { return d.why }

// Apply makes the kernel hold the rules, and no others of this daemon. It writes
// nothing if they are there already.
func (d *Driver) Apply(ctx context.Context, c ipmasq.Config) (ipmasq.Changes, error) {
	before, known := d.now()
	if known && d.verified.At(before, c) {
		return nil, nil
	}
	d.verified.Forget()
	changes := ipmasq.Changes{}
	var errs []error
	for f, t := range d.each(c) {
		for _, table := range ipmasq.Tables() {
			err := d.applyTable(ctx, t, chainOf(table), c, changes)
			if errors.Is(err, errLocked) {
				return changes, err // for the other tables, too
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", f, err))
			}
		}
	}
	if known && len(errs) == 0 && len(changes) == 0 {
		d.verified.Set(before, c)
	}
	return changes, errors.Join(errs...)
}

// each visits the families that have programs and, perhaps, rules.
func (d *Driver) each(c ipmasq.Config) iter.Seq2[ipfam.Family, *tool] {
	return func(yield func(ipfam.Family, *tool) bool) {
		for f, t := range d.tools {
			if f := ipfam.Family(f); t != nil && c.Concerns(f) && !yield(f, t) {
				return
			}
		}
	}
}

// now returns the generation if it is known.
func (d *Driver) now() (uint32, bool) {
	if d.generation == nil {
		return 0, false
	}
	n, err := d.generation()
	return n, err == nil
}

func (d *Driver) applyTable(ctx context.Context, t *tool, ch chain, c ipmasq.Config, changes ipmasq.Changes) error {
	defer health.Outside(ctx)() // for the programs
	c.RandomFully = c.RandomFully && t.randomFully()
	want := c.Rules(t.family, ch.Table)
	if len(want) == 0 && t.mode == Legacy && !firewall.LegacyInUse(t.family, string(ch.Table)) {
		return nil // reading would make the table
	}
	h, err := t.read(ch)
	if err != nil {
		return err
	}
	s := plan(ch, h, want, c.OwnsRule)
	if len(s.lines) == 0 {
		return nil
	}
	d.log.Debug("rules to write", "table", ch.Table, "family", t.family, "script", strings.Join(s.lines, "; "))
	if err := t.write(ctx, s); err != nil {
		return err
	}
	changes.Add(ch.Table, s.put, s.deleted)
	return nil
}

// Remove removes this daemon's rules, except those that Lift keeps.
func (d *Driver) Remove(ctx context.Context, c ipmasq.Config) (ipmasq.Changes, error) {
	changes := ipmasq.Changes{}
	var errs []error
	for f, t := range d.each(c) {
		if err := d.applyTable(ctx, t, chainOf(ipmasq.Nat), c.None(), changes); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f, err))
		}
	}
	errs = append(errs, d.lift(ctx, c, changes))
	return changes, errors.Join(errs...)
}
