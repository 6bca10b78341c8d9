// Package nftables writes the rules of masquerading and forwarding to tables of
// nf_tables, over netlink and without any program.
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
	// Namespace is an open network namespace; 0 is that of the process.
	Namespace int
}

// Driver keeps the rules in tables that hold nothing else.
type Driver struct {
	Options

	// verified is the last check that found nothing to write.
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

// Apply makes the tables hold the rules, and no others of this daemon, in one
// transaction. It writes nothing if they are there already.
func (d *Driver) Apply(ctx context.Context, c ipmasq.Config) (ipmasq.Changes, error) {
	before, failed := d.Generation()
	if failed != nil && !c.Masquerade && !c.Forward {
		return nil, nil // without nf_tables there is nothing to remove
	}
	if failed == nil && d.verified.At(before, c) {
		return nil, nil
	}
	d.verified.Forget()
	changes, err := d.transaction(ctx, c, func(conn *nftables.Conn, f ipfam.Family) ([]*batch, error) { return compare(conn, f, c) })
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

// compare returns what is to be done in the table of one family. The table is
// deleted with its last chain.
func compare(conn *nftables.Conn, f ipfam.Family, c ipmasq.Config) (todo []*batch, err error) {
	list, err := conn.ListChainsOfTableFamily(families[f])
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(c *nftables.Chain) bool { return c.Table.Name != tableNames[f] })
	left := len(list)
	for _, table := range ipmasq.Tables() {
		ch, h := chains[table], have{}
		if i := slices.IndexFunc(list, func(c *nftables.Chain) bool { return c.Name == ch.name }); i >= 0 {
			h.chain = list[i]
			h.rules, err = conn.GetRules(ownTable(f), h.chain)
		}
		if err == nil && table == ipmasq.Nat {
			h.sets, err = readSets(conn, f, c)
		}
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", tableNames[f], err)
		}
		b := plan(f, ch, h, c)
		left += b.chains
		todo = append(todo, b)
	}
	if last := todo[len(todo)-1]; len(list) > 0 && left == 0 {
		last.change(0, 0, func(conn *nftables.Conn) error { conn.DelTable(ownTable(f)); return nil })
	}
	return todo, nil
}

// Remove removes this daemon's rules, and the tables with the last of them.
func (d *Driver) Remove(ctx context.Context, c ipmasq.Config) (ipmasq.Changes, error) {
	return d.Apply(ctx, c.None())
}
