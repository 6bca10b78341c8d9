package look

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"
)

// Rule is a policy rule that chooses a routing table.
type Rule struct {
	Family   ipfam.Family
	Priority int
	// Src and Dst are invalid if the rule is for all.
	Src, Dst netip.Prefix
	Table    int
}

// String writes a rule as ip shows it.
func (r Rule) String() string {
	words := []string{fmt.Sprintf("%d: from", r.Priority), "all"}
	if r.Src.IsValid() {
		words[1] = r.Src.String()
	}
	if r.Dst.IsValid() {
		words = append(words, "to", r.Dst.String())
	}
	return strings.Join(append(words, "lookup", fmt.Sprint(r.Table)), " ")
}

// Rules lists the policy rules of both families.
func (r *Reader) Rules() ([]Rule, error) {
	var out []Rule
	for _, family := range ipfam.All() {
		var list []netlink.Rule
		err := rtnl.Retry(func() (err error) { list, err = r.handle.RuleList(family.AF()); return err })
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
			continue // a kernel without rules, or without IPv6
		}
		if err != nil {
			return out, fmt.Errorf("list rules: %w", err)
		}
		for _, l := range list {
			out = append(out, Rule{Family: family, Priority: l.Priority, Src: rtnl.NetworkOf(l.Src), Dst: rtnl.NetworkOf(l.Dst), Table: l.Table})
		}
	}
	return out, nil
}
