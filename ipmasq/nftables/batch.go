package nftables

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// batch are changes that turn what the kernel holds of one table of the contract
// into what it should hold, in their order.
type batch struct {
	table        ipmasq.Table
	put, deleted int
	// chains is the difference that the batch makes to the number of chains.
	chains  int
	changes []func(*nftables.Conn) error
}

func (b *batch) change(put, deleted int, change func(*nftables.Conn) error) {
	b.put, b.deleted, b.changes = b.put+put, b.deleted+deleted, append(b.changes, change)
}

// addRule appends a rule to its chain.
func (b *batch) addRule(r *nftables.Rule) {
	b.change(1, 0, func(conn *nftables.Conn) error { conn.AddRule(r); return nil })
}

// insertRule puts a rule in front of the one at its position, or before all.
func (b *batch) insertRule(r *nftables.Rule) {
	b.change(1, 0, func(conn *nftables.Conn) error { conn.InsertRule(r); return nil })
}

// delRules deletes rules as they were read from a chain.
func (b *batch) delRules(in *nftables.Chain, list ...*nftables.Rule) {
	for _, r := range list {
		b.change(0, 1, func(conn *nftables.Conn) error {
			return conn.DelRule(&nftables.Rule{Table: in.Table, Chain: in, Handle: r.Handle})
		})
	}
}

// edit changes a chain as planned; have are the rules found in it, want those wanted.
func (b *batch) edit(in *nftables.Chain, e ipmasq.Edit, have, want []*nftables.Rule) {
	if e.Create {
		b.addTable(in.Table)
		b.addChain(in)
	}
	for _, p := range e.Puts {
		switch r := want[p.Rule]; p.Before {
		case len(have):
			b.addRule(r)
		case ipmasq.AtFirst:
			b.insertRule(r)
		default:
			r.Position = have[p.Before].Handle
			b.insertRule(r)
		}
	}
	for _, i := range e.Delete {
		b.delRules(in, have[i])
	}
	if e.Remove {
		b.delChain(in)
	}
}

// addTable makes sure that a table exists; it does not count.
func (b *batch) addTable(t *nftables.Table) {
	b.change(0, 0, func(conn *nftables.Conn) error { conn.AddTable(t); return nil })
}

func (b *batch) addChain(c *nftables.Chain) {
	b.chains++
	b.change(1, 0, func(conn *nftables.Conn) error { conn.AddChain(c); return nil })
}

func (b *batch) delChain(c *nftables.Chain) {
	b.chains--
	b.change(0, 1, func(conn *nftables.Conn) error { conn.DelChain(c); return nil })
}

// transaction compares the tables of each family with what they should hold, and
// writes what differs, all at once. If that fails, it tries once more: somebody may
// have changed the tables between reading and writing.
func (d *Driver) transaction(ctx context.Context, c ipmasq.Config, compare func(*nftables.Conn, ipfam.Family) ([]*batch, error)) (ipmasq.Changes, error) {
	changes, err := d.transactionOnce(c, compare)
	if err != nil && ctx.Err() == nil {
		changes, err = d.transactionOnce(c, compare)
	}
	return changes, err
}

func (d *Driver) transactionOnce(c ipmasq.Config, compare func(*nftables.Conn, ipfam.Family) ([]*batch, error)) (ipmasq.Changes, error) {
	conn, err := d.Open()
	if err != nil {
		return nil, fmt.Errorf("open nf_tables: %w", err)
	}
	changes := ipmasq.Changes{}
	for _, f := range ipfam.All() {
		if !c.Concerns(f) {
			continue
		}
		todo, err := d.compareSteadily(func() ([]*batch, error) { return compare(conn, f) })
		if err != nil {
			return nil, fmt.Errorf("%s: read nf_tables: %w", f, err)
		}
		for _, b := range todo {
			for _, change := range b.changes {
				if err := change(conn); err != nil {
					return nil, fmt.Errorf("%s: prepare table %s: %w", f, b.table, err)
				}
			}
			changes.Add(b.table, b.put, b.deleted)
			d.Log.Debug("rules to write", "table", b.table, "family", f, "put", b.put, "deleted", b.deleted)
		}
	}
	if len(changes) == 0 {
		return nil, nil
	}
	if err := conn.Flush(); err != nil {
		return nil, fmt.Errorf("write nf_tables: %w", err)
	}
	return changes, nil
}

// compareTries is how often compareSteadily reads.
const compareTries = 10

// compareSteadily compares until there is nothing to do, or until nothing in
// nf_tables has changed meanwhile: the kernel may leave out a rule of a list that
// changes, or show it twice.
func (d *Driver) compareSteadily(compare func() ([]*batch, error)) ([]*batch, error) {
	for range compareTries {
		before, err := d.Generation()
		if err != nil {
			return nil, err
		}
		todo, err := compare()
		todo = slices.DeleteFunc(todo, func(b *batch) bool { return len(b.changes) == 0 })
		if err != nil || len(todo) == 0 {
			return nil, err
		}
		after, err := d.Generation()
		if err != nil || before == after {
			return todo, err
		}
	}
	return nil, errors.New("nf_tables changes all the time")
}
