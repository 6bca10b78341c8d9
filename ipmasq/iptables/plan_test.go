package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/golden"
	"flannel/ipmasq"
)

// kernel is the two chains of a table as iptables -S prints them.
type kernel struct{ base, own []string }

func (k kernel) have(c chain) have {
	return have{base: c.parse(c.Base, k.base), own: c.parse(c.Name, k.own), exists: k.own != nil}
}

// full is what a kernel holds with our rules in it.
func full(c chain, f ipfam.Family) kernel {
	k := kernel{base: []string{"-A " + c.Base + " " + c.jump()}, own: []string{"-N " + c.Name}}
	for _, r := range dual().Rules(f, c.Table) {
		k.own = append(k.own, "-A "+c.Name+" "+c.format(r))
	}
	return k
}

func TestPlan(t *testing.T) {
	c := chainOf(ipmasq.Nat)
	ours := full(c, ipfam.V4)
	own := func(change func([]string) []string) kernel {
		return kernel{ours.base, change(slices.Clone(ours.own))}
	}
	const other = `-A FLANNEL-POSTRTG -s 10.245.3.0/24 -d 10.245.0.0/16 -m comment --comment "flanneld masq" -j RETURN`
	tests := []struct {
		name string
		have kernel
		none bool
	}{
		{name: "nothing is there"},
		{name: "everything is there", have: ours},
		{name: "the jump is gone", have: kernel{nil, ours.own}},
		{name: "the jump is there twice", have: kernel{slices.Repeat(ours.base, 2), ours.own}},
		{name: "the chain is empty", have: own(func(l []string) []string { return l[:1] })},
		{name: "a rule is gone", have: own(func(l []string) []string { return slices.Delete(l, 3, 4) })},
		{name: "a rule is there twice", have: own(func(l []string) []string { return append(l, l[2]) })},
		{name: "two rules have changed places", have: own(func(l []string) []string { l[3], l[4] = l[4], l[3]; return l })},
		{name: "the mark rule is gone", have: own(func(l []string) []string { return slices.Delete(l, 1, 2) })},
		{name: "the mark rule is last", have: own(func(l []string) []string { return append(slices.Delete(l, 1, 2), ours.own[1]) })},
		{name: "another subnet", have: own(func(l []string) []string {
			for i := range l {
				l[i] = strings.ReplaceAll(l[i], "10.244.17.0", "10.244.99.0")
			}
			return l
		})},
		{name: "another daemon and the user have rules too", have: own(func(l []string) []string {
			return append(slices.Delete(l, 3, 4), other, "-A FLANNEL-POSTRTG -s 10.244.0.0/16 -j ACCEPT")
		})},
		{name: "none wanted", have: ours, none: true},
		{name: "none wanted and none there", none: true},
		{name: "none wanted beside those of another daemon", have: own(func(l []string) []string { return append(l, other) }), none: true},
	}
	var b strings.Builder
	for _, tt := range tests {
		cfg := dual()
		if tt.none {
			cfg = cfg.None()
		}
		s := plan(c, tt.have.have(c), cfg.Rules(ipfam.V4, c.Table), cfg.OwnsRule)
		fmt.Fprintf(&b, "# %s: put %d, deleted %d\n%s", tt.name, s.put, s.deleted, s.text())
	}
	golden.Equal(t, b.String(), "testdata/plan.txt")
}

func TestOneNodeAmongThousandsIsOneRule(t *testing.T) {
	c, cfg := chainOf(ipmasq.Nat), dual()
	for i := range 5000 {
		cfg.Exclude = append(cfg.Exclude, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), 32))
	}
	var k kernel
	for _, r := range cfg.Rules(ipfam.V4, c.Table) {
		k.own = append(k.own, "-A "+c.Name+" "+c.format(r))
	}
	k.base = []string{"-A " + c.Base + " " + c.jump()}
	cfg.Exclude[2500] = prefix("198.51.100.1/32")
	s := plan(c, k.have(c), cfg.Rules(ipfam.V4, c.Table), cfg.OwnsRule)
	if s.put != 1 || s.deleted != 1 || !strings.HasPrefix(s.lines[1], "-I FLANNEL-POSTRTG 2505 -s 10.244.0.0/16 -d 198.51.100.1/32 ") {
		t.Errorf("put %d, deleted %d: %q", s.put, s.deleted, s.lines)
	}
}

func TestChoose(t *testing.T) {
	tests := []struct {
		name      string
		found     map[Mode]evidence
		byDefault Mode
		want      Mode
	}{
		{"only nft", map[Mode]evidence{NFT: {}}, NFT, NFT},
		{"only legacy", map[Mode]evidence{Legacy: {}}, Legacy, Legacy},
		{"nobody has rules", map[Mode]evidence{NFT: {}, Legacy: {}}, Legacy, Legacy},
		{"no default either", map[Mode]evidence{NFT: {}, Legacy: {}}, "", NFT},
		{"rules in legacy", map[Mode]evidence{NFT: {}, Legacy: {rules: 2}}, NFT, Legacy},
		{"more rules in nft", map[Mode]evidence{NFT: {rules: 3}, Legacy: {rules: 2}}, Legacy, NFT},
		{"the kubelet in legacy", map[Mode]evidence{NFT: {rules: 9}, Legacy: {hint: true, rules: 1}}, NFT, Legacy},
		{"the kubelet in nft", map[Mode]evidence{NFT: {hint: true}, Legacy: {rules: 9}}, Legacy, NFT},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, why := choose(tt.found, tt.byDefault); got != tt.want {
				t.Errorf("got %s, %s; want %s", got, why, tt.want)
			}
		})
	}
}

func TestWeigh(t *testing.T) {
	got := weigh("*mangle\n:PREROUTING ACCEPT [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n*nat\n" +
		":POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -j FLANNEL-POSTRTG\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n")
	if want := (evidence{hint: true, rules: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
