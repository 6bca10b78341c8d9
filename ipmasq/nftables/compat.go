package nftables

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// compat is a chain of ours as the iptables programs create it in nf_tables.
type compat ipmasq.Chain

// commentMatch is the extension of xtables that carries a comment.
const commentMatch = "comment"

// Compat writes to a table of iptables-nft without its programs.
type Compat struct {
	driver *Driver
	chain  compat
	// match is commentMatch, except in tests of a kernel that does not have it.
	match string
}

// NewCompat returns a Compat for a table. It does nothing yet.
func NewCompat(d *Driver, table ipmasq.Table) Compat {
	return Compat{d, compat(ipmasq.Chains[table]), commentMatch}
}

// Apply makes the table hold the rules, in the layout of iptables-nft, if it has
// the base chain that jumps to ours; it creates neither tables nor base chains.
// What flannel has left stays where it is.
func (r Compat) Apply(ctx context.Context, c ipmasq.Config) (ipmasq.Changes, error) {
	if r.driver.absent() {
		return nil, nil
	}
	changes, err := r.apply(ctx, c, r.match)
	if errors.Is(err, unix.ENOENT) && ctx.Err() == nil {
		return r.apply(ctx, c, "") // the kernel has no nft_compat, or no comments
	}
	return changes, err
}

// Remove removes this daemon's rules, and the chains and jumps with the last of
// them.
func (r Compat) Remove(ctx context.Context, c ipmasq.Config) (ipmasq.Changes, error) {
	return r.Apply(ctx, c.None())
}

func (r Compat) apply(ctx context.Context, c ipmasq.Config, match string) (ipmasq.Changes, error) {
	return r.driver.transaction(ctx, c, func(conn *nftables.Conn, f ipfam.Family) ([]*batch, error) {
		h, err := r.read(conn, f)
		if err != nil {
			return nil, fmt.Errorf("chain %s of table %s: %w", r.chain.Name, r.chain.Table, err)
		}
		return []*batch{r.chain.plan(f, h, c, match)}, nil
	})
}

// compatHave is what the kernel holds: rules of the base chain and of ours.
type compatHave struct {
	hooked, exists bool
	base, own      []*nftables.Rule
}

// read reads only the two chains: the table may be large.
func (r Compat) read(conn *nftables.Conn, f ipfam.Family) (h compatHave, err error) {
	c := r.chain
	if _, h.hooked, err = r.driver.chain(f, string(c.Table), c.Base); err != nil {
		return h, err
	}
	if h.exists, _, err = r.driver.chain(f, string(c.Table), c.Name); err != nil {
		return h, err
	}
	base, own := c.chains(f)
	if h.base, err = conn.GetRules(base.Table, base); err != nil || !h.exists {
		return h, err
	}
	h.own, err = conn.GetRules(own.Table, own)
	return h, err
}

func (c compat) chains(f ipfam.Family) (base, own *nftables.Chain) {
	table := &nftables.Table{Name: string(c.Table), Family: families[f]}
	return &nftables.Chain{Name: c.Base, Table: table}, &nftables.Chain{Name: c.Name, Table: table}
}

// isForward reports whether a chain is one that Compat keeps for
// forwarding, or jumps from.
func isForward(f nftables.TableFamily, table, chain string) bool {
	c := compat(ipmasq.Chains[ipmasq.Filter])
	return slices.Contains(families[:], f) && table == string(c.Table) && (chain == c.Base || chain == c.Name)
}
