package cleanup

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"flannel/internal/firewall"
	"flannel/internal/ipfam"
	ours "flannel/ipmasq/nftables"
)

// Names of our chains in the tables of iptables, which flannel has as well.
var chainNames = []string{"FLANNEL-POSTRTG", "FLANNEL-FWD"}

// nfTables finds our tables, and our chains in the tables of iptables-nft with the
// rules that jump to them.
func (h *host) nfTables() ([]Thing, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nf_tables: %w", err)
	}
	tables, err := conn.ListTables()
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) {
		return nil, nil // a kernel without nf_tables
	}
	if err != nil {
		return nil, fmt.Errorf("list tables of nf_tables: %w", err)
	}
	var out []Thing
	for _, t := range tables {
		name := "table " + familyName(t) + " " + t.Name
		if ours.IsOurs(name[len("table "):]) && familyName(t) != "" {
			out = append(out, Thing{name, func() error { conn.DelTable(t); return conn.Flush() }})
		}
	}
	chains, err := conn.ListChains()
	if err != nil {
		return out, fmt.Errorf("list chains of nf_tables: %w", err)
	}
	for _, c := range chains {
		if slices.Contains(chainNames, c.Name) && familyName(c.Table) != "" {
			name := fmt.Sprintf("chain %s of table %s %s", c.Name, familyName(c.Table), c.Table.Name)
			out = append(out, Thing{name, func() error { return deleteChain(conn, chains, c) }})
		}
	}
	return out, nil
}

// familyName is empty for a family that we have no tables in.
func familyName(t *nftables.Table) string {
	return map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6"}[t.Family]
}

// deleteChain deletes a chain and the rules that jump to it, in one transaction.
func deleteChain(conn *nftables.Conn, all []*nftables.Chain, c *nftables.Chain) error {
	for _, from := range all {
		if from.Table.Name != c.Table.Name || from.Table.Family != c.Table.Family {
			continue
		}
		rules, err := conn.GetRules(from.Table, from)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if jumpsTo(r, c.Name) {
				if err := conn.DelRule(r); err != nil {
					return err
				}
			}
		}
	}
	conn.FlushChain(c)
	conn.DelChain(c)
	return conn.Flush()
}

func jumpsTo(r *nftables.Rule, chain string) bool {
	return slices.ContainsFunc(r.Exprs, func(e expr.Any) bool {
		v, ok := e.(*expr.Verdict)
		return ok && v.Chain == chain
	})
}

var (
	legacyPrograms = ipfam.Pair[string]{"iptables-legacy", "ip6tables-legacy"}
	legacyTables   = []string{"nat", "filter"}
)

// legacy finds our chains in legacy tables, which only the legacy programs can
// write.
func (h *host) legacy(ctx context.Context) ([]Thing, error) {
	var out []Thing
	var errs []error
	for _, f := range ipfam.All() {
		for _, table := range legacyTables {
			t, err := firewall.ReadLegacy(f, table)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			for _, chain := range chainNames {
				if t.Has(chain) {
					name := fmt.Sprintf("chain %s of table %s of %s", chain, table, legacyPrograms[f])
					out = append(out, Thing{name, func() error { return deleteLegacy(ctx, legacyPrograms[f], table, chain) }})
				}
			}
		}
	}
	return out, errors.Join(errs...)
}

// deleteLegacy deletes a chain and the rules that jump to it, in one transaction.
func deleteLegacy(ctx context.Context, program, table, chain string) error {
	saved, err := exec.CommandContext(ctx, program+"-save", "-t", table).Output()
	if err != nil {
		return fmt.Errorf("%s-save: %w; install it, or run on the host: %s -t %s -S | grep %s", program, err, program, table, chain)
	}
	cmd := exec.CommandContext(ctx, program+"-restore", "--noflush", "--wait=5")
	cmd.Stdin = strings.NewReader(withoutChain(string(saved), table, chain))
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s-restore: %w: %s", program, err, strings.TrimSpace(string(text)))
	}
	return nil
}

// withoutChain writes what deletes a chain from what iptables-save prints.
func withoutChain(saved, table, chain string) string {
	text := "*" + table + "\n"
	for line := range strings.Lines(saved) {
		words := strings.Fields(line)
		i := slices.Index(words, chain)
		if len(words) > 2 && words[0] == "-A" && i > 1 && (words[i-1] == "-j" || words[i-1] == "-g") {
			text += "-D" + strings.TrimPrefix(line, "-A")
		}
	}
	return text + fmt.Sprintf("-F %s\n-X %s\nCOMMIT\n", chain, chain)
}
