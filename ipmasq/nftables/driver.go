// Package nftables puts the rules of masquerading and forwarding into tables
// of nf_tables, over netlink and without any program.
package nftables

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// Limits of one exchange with the kernel.
const (
	timeout    = 5 * time.Second
	bufferSize = 8 << 20
)

// Options is what a Driver is built from.
type Options struct {
	Log *slog.Logger
	// Namespace is an open network namespace; 0 stands for the process's own.
	Namespace int
}

// Driver keeps the rules in tables of their own.
type Driver struct {
	Options

	// verified is when nothing was to be written.
	verified ipmasq.Verified
}

// New returns a driver. It does nothing yet.
func New(o Options) *Driver { return &Driver{Options: o} }

// Open returns a connection that gives up after a while.
func (d *Driver) Open() (*nftables.Conn, error) {
	return nftables.New(nftables.WithNetNSFd(d.Namespace), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(
			c.SetDeadline(time.Now().Add(timeout)),
			c.SetReadBuffer(bufferSize),
			c.SetWriteBuffer(bufferSize),
		)
	}))
}

// Apply makes the tables hold the rules, and none of this daemon's beside
// them, in one transaction. It writes nothing when they are there already.
func (d *Driver) Apply(ctx context.Context, c ipmasq.Config) (ipmasq.Changes, error) {
	before, failed := d.Generation()
	if failed != nil && !c.Masquerade && !c.Forward {
		return nil, nil //nolint:nilerr // without nf_tables there is nothing to remove
	}
	if failed == nil && d.verified.At(before, c) {
		return nil, nil
	}
	d.verified.Forget()
	changes, err := d.apply(c)
	if err != nil && ctx.Err() == nil {
		// Somebody may have changed the tables between reading and writing.
		changes, err = d.apply(c)
	}
	if failed == nil && err == nil && len(changes) == 0 {
		d.verified.Set(before, c)
	}
	return changes, err
}

// absent reports whether this kernel has no nf_tables, so that there is nothing
// to remove.
func (d *Driver) absent() bool {
	_, err := d.Generation()
	return err != nil
}

func (d *Driver) apply(c ipmasq.Config) (ipmasq.Changes, error) {
	conn, err := d.Open()
	if err != nil {
		return nil, fmt.Errorf("open nf_tables: %w", err)
	}
	changes := ipmasq.Changes{}
	for _, f := range ipfam.All() {
		if !c.Concerns(f) {
			continue
		}
		var todo []steps
		var last bool
		err := d.steady(func() (n int, err error) {
			todo, last, err = d.compare(conn, f, c)
			return len(todo), err
		})
		if err != nil {
			return nil, fmt.Errorf("%s: read table %s: %w", f, tableNames[f], err)
		}
		for _, s := range todo {
			if err := s.queue(conn); err != nil {
				return nil, fmt.Errorf("%s: prepare table %s: %w", f, tableNames[f], err)
			}
			changes.Add(s.chain.table, s.put(), s.deleted())
			d.Log.Debug("rules to write", "table", key(f, s.chain), "put", s.put(), "deleted", s.deleted())
		}
		if last {
			conn.DelTable(ownTable(f))
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

// compare returns what is to be done in the table of one family, and whether
// nothing is left in it afterwards.
func (d *Driver) compare(conn *nftables.Conn, f ipfam.Family, c ipmasq.Config) (todo []steps, last bool, err error) {
	list, err := chainsOf(conn, f, tableNames[f])
	if err != nil {
		return nil, false, err
	}
	left := len(list)
	for _, table := range ipmasq.Tables() {
		ch := chains[table]
		h, err := read(conn, f, ch, list)
		if err == nil && table == ipmasq.Nat {
			h.sets, err = readSets(conn, f, c)
		}
		if err != nil {
			return nil, false, err
		}
		s := plan(f, ch, h, c)
		if s.empty() {
			continue
		}
		todo = append(todo, s)
		if s.dropChain {
			left--
		}
		if s.makeChain {
			left++
		}
	}
	return todo, len(list) > 0 && left == 0, nil
}

// chainsOf lists the chains of a table; none when there is no such table.
func chainsOf(conn *nftables.Conn, f ipfam.Family, table string) ([]*nftables.Chain, error) {
	list, err := conn.ListChainsOfTableFamily(families[f])
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(c *nftables.Chain) bool { return c.Table.Name != table }), nil
}

func read(conn *nftables.Conn, f ipfam.Family, c chain, list []*nftables.Chain) (have, error) {
	i := slices.IndexFunc(list, func(have *nftables.Chain) bool { return have.Name == c.name })
	if i < 0 {
		return have{}, nil
	}
	h := have{chain: list[i]}
	var err error
	h.rules, err = conn.GetRules(ownTable(f), list[i])
	return h, err
}

// queue adds the steps to the connection's transaction.
func (s steps) queue(conn *nftables.Conn) error {
	c := s.chain.in(s.family)
	for _, r := range s.del {
		// The library refuses rules without a number; those of the kernel have one.
		_ = conn.DelRule(&nftables.Rule{Table: c.Table, Chain: c, Handle: r.Handle})
	}
	if s.dropChain {
		conn.DelChain(c)
	}
	if s.makeChain {
		conn.AddTable(c.Table)
		conn.AddChain(c)
	}
	if err := s.sets.fill(conn, s.family); err != nil {
		return err
	}
	for _, w := range s.add {
		conn.AddRule(w.rule(c))
	}
	for _, w := range s.insert {
		conn.InsertRule(w.rule(c))
	}
	for _, network := range s.sets.drop {
		conn.DelSet(setOf(s.family, network))
	}
	return nil
}

// Remove takes this daemon's rules out of the kernel, and the tables with the
// last of them.
func (d *Driver) Remove(ctx context.Context, c ipmasq.Config) (ipmasq.Changes, error) {
	return d.Apply(ctx, c.None())
}
