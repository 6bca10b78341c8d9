package nftables

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// compat is a chain of ours as iptables makes it in nf_tables, and the chain
// of the kernel that jumps to it.
type compat struct {
	table      ipmasq.Table
	base, name string
}

var compats = []compat{
	{table: ipmasq.Nat, base: "POSTROUTING", name: "FLANNEL-POSTRTG"},
	{table: ipmasq.Filter, base: "FORWARD", name: "FLANNEL-FWD"},
}

// Compat removes what the iptables programs have left in nf_tables, without
// needing them.
type Compat struct{ driver *Driver }

// NewCompat returns a Compat. It does nothing yet.
func NewCompat(d *Driver) Compat { return Compat{d} }

// Remove takes this daemon's rules out of the chains that iptables has made,
// and the chains and jumps with the last of them.
func (r Compat) Remove(_ context.Context, c ipmasq.Config) (ipmasq.Changes, error) {
	if r.driver.absent() {
		return nil, nil
	}
	conn, err := r.driver.open()
	if err != nil {
		return nil, fmt.Errorf("open nf_tables: %w", err)
	}
	changes := ipmasq.Changes{}
	var errs []error
	for _, f := range ipfam.All() {
		if !c.Concerns(f) {
			continue
		}
		for _, chain := range compats {
			n, err := chain.remove(conn, f, c)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: read chain %s of table %s: %w", f, chain.name, chain.table, err))
			}
			changes.Add(chain.table, 0, n)
		}
	}
	if len(changes) == 0 {
		return nil, errors.Join(errs...)
	}
	if err := conn.Flush(); err != nil {
		return nil, errors.Join(append(errs, fmt.Errorf("write nf_tables: %w", err))...)
	}
	return changes, errors.Join(errs...)
}

// remove queues the removal from one chain and counts what goes.
func (c compat) remove(conn *nftables.Conn, f ipfam.Family, cfg ipmasq.Config) (int, error) {
	list, err := chainsOf(conn, f, string(c.table))
	if err != nil || !slices.ContainsFunc(list, func(h *nftables.Chain) bool { return h.Name == c.name }) {
		return 0, err
	}
	table := &nftables.Table{Name: string(c.table), Family: families[f]}
	chain := &nftables.Chain{Name: c.name, Table: table}
	own, err := conn.GetRules(table, chain)
	if err != nil {
		return 0, err
	}
	ours, others := 0, 0
	for _, r := range own {
		switch {
		case names(f, r.Exprs, cfg.Owns):
			ours++
			_ = conn.DelRule(&nftables.Rule{Table: table, Chain: chain, Handle: r.Handle})
		case len(sides(f, r.Exprs)) > 0:
			others++
		}
	}
	if others > 0 {
		return ours, nil
	}
	jumps, err := c.removeJumps(conn, table)
	if err != nil {
		return ours, err
	}
	conn.FlushChain(chain)
	conn.DelChain(chain)
	return ours + jumps + 1, nil
}

// removeJumps queues the removal of the jumps to the chain.
func (c compat) removeJumps(conn *nftables.Conn, table *nftables.Table) (int, error) {
	base := &nftables.Chain{Name: c.base, Table: table}
	list, err := conn.GetRules(table, base)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, r := range list {
		jump := slices.ContainsFunc(r.Exprs, func(e expr.Any) bool {
			v, ok := e.(*expr.Verdict)
			return ok && v.Chain == c.name
		})
		if jump {
			n++
			_ = conn.DelRule(&nftables.Rule{Table: table, Chain: base, Handle: r.Handle})
		}
	}
	return n, nil
}
