// Package iptables puts the rules of masquerading and forwarding into the
// kernel with the iptables programs: it reads chain by chain, and writes one
// transaction per table and family.
package iptables

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"

	"flannel/internal/firewall"
	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// Options is what a Driver is built from.
type Options struct {
	Log *slog.Logger
	// Families that are on.
	Families ipfam.Pair[bool]
	// Generation returns a number that changes whenever nf_tables rules do;
	// nil when that is not known. It saves reading what has not changed.
	Generation func() (uint32, error)
}

// Driver keeps the rules with the programs of one mode.
type Driver struct {
	log        *slog.Logger
	tools      tools
	mode       Mode
	why        string
	generation func() (uint32, error)

	// verified is when nothing was to be written.
	verified ipmasq.Verified
}

// New finds the programs and chooses the mode that the host's other rules are
// in. other keeps the rules of the mode that was not chosen, for removing what
// an earlier run left there; it is nil when the host does not have it.
// ErrNoTool is in the error when the programs are not there.
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

// Mode says where the driver keeps its rules.
func (d *Driver) Mode() Mode { return d.mode }

// Why says in words why this mode was chosen.
func (d *Driver) Why() string { return d.why }

// Apply makes the kernel hold the rules, and none of this daemon's beside
// them. It writes nothing when they are there already.
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
			err := d.applyTable(ctx, t, chains[table], c, changes)
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

// now returns the generation, when it is known.
func (d *Driver) now() (uint32, bool) {
	if d.generation == nil {
		return 0, false
	}
	n, err := d.generation()
	return n, err == nil
}

func (d *Driver) applyTable(ctx context.Context, t *tool, ch chain, c ipmasq.Config, changes ipmasq.Changes) error {
	c.RandomFully = c.RandomFully && t.randomFully()
	want := c.Rules(t.family, ch.table)
	if len(want) == 0 && t.mode == Legacy && !firewall.LegacyInUse(t.family, string(ch.table)) {
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
	d.log.Debug("rules to write", "table", ch.table, "family", t.family, "script", strings.Join(s.lines, "; "))
	if err := t.write(ctx, s); err != nil {
		return err
	}
	changes.Add(ch.table, s.put, s.deleted)
	return nil
}

// Remove takes this daemon's rules out of the kernel, but for those that Lift
// keeps.
func (d *Driver) Remove(ctx context.Context, c ipmasq.Config) (ipmasq.Changes, error) {
	changes := ipmasq.Changes{}
	var errs []error
	for f, t := range d.each(c) {
		if err := d.applyTable(ctx, t, chains[ipmasq.Nat], c.None(), changes); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f, err))
		}
	}
	errs = append(errs, d.lift(ctx, c, changes))
	return changes, errors.Join(errs...)
}

// Text returns what iptables -S would print of the rules in a kernel that has
// no others, with the name of the table in front.
func Text(c ipmasq.Config, f ipfam.Family) string {
	var lines []string
	for _, table := range ipmasq.Tables() {
		want := c.Rules(f, table)
		if len(want) == 0 {
			continue
		}
		ch := chains[table]
		lines = append(lines, fmt.Sprintf("%s -A %s %s", table, ch.base, ch.jump))
		for _, r := range want {
			lines = append(lines, fmt.Sprintf("%s -A %s %s", table, ch.name, ch.format(r)))
		}
	}
	return strings.Join(lines, "\n") + "\n"
}
