package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/internal/printable"
)

// defaultTable is the one of iptables.
const defaultTable = "filter"

// Allow returns the command that lets the packets of a network pass the chain.
func (f Finding) Allow(network netip.Prefix) string {
	if f.Firewalld {
		// Other rules in its chains are lost when firewalld reloads.
		return fmt.Sprintf("firewall-cmd --permanent --zone=trusted --add-source=%s && firewall-cmd --reload", network)
	}
	family := ipfam.Of(network.Addr())
	return f.accept(family, words{src: network}) + " && " + f.accept(family, words{dst: network})
}

// Pass returns the command that lets packets like this one pass the chain.
func (f Finding) Pass(p Packet) string {
	if p.Port != 0 && f.Firewalld && f.Hook == Input {
		return fmt.Sprintf("firewall-cmd --permanent --add-port=%d/udp && firewall-cmd --reload", p.Port)
	}
	w := words{src: p.Src, dst: p.Dst}
	if p.Port != 0 {
		w = words{port: p.Port}
	}
	if f.Hook != Output && f.Hook != Postrouting && f.Hook != Egress {
		w.in = p.In.Name
	}
	if f.Hook == Forward || f.Hook == Output || f.Hook == Postrouting || f.Hook == Egress {
		w.out = p.Out.Name
	}
	return f.accept(p.Family, w)
}

// words are what a rule compares.
type words struct {
	in, out  string
	src, dst netip.Prefix
	port     uint16
}

// accept returns the command that accepts some packets at the head of the chain.
func (b Base) accept(f ipfam.Family, w words) string {
	var out []string
	add := func(there bool, list ...string) {
		if there {
			out = append(out, list...)
		}
	}
	if b.Program != "" {
		out = []string{b.Program}
		table := b.tableOfProgram()
		add(table != defaultTable, "-t", table)
		add(true, "-I", b.Chain)
		add(w.in != "", "-i", printable.Word(w.in))
		add(w.out != "", "-o", printable.Word(w.out))
		add(w.src.IsValid(), "-s", w.src.String())
		add(w.dst.IsValid(), "-d", w.dst.String())
		add(w.port != 0, "-p", "udp", "--dport", strconv.Itoa(int(w.port)))
		return strings.Join(append(out, "-j", "ACCEPT"), " ")
	}
	out = []string{"nft insert rule", b.Table, b.Chain}
	add(w.in != "", "iifname", printable.Word(w.in))
	add(w.out != "", "oifname", printable.Word(w.out))
	add(w.src.IsValid(), nftFamilies[f], "saddr", w.src.String())
	add(w.dst.IsValid(), nftFamilies[f], "daddr", w.dst.String())
	add(w.port != 0, "udp dport", strconv.Itoa(int(w.port)))
	return strings.Join(append(out, "accept"), " ")
}

// Where names the rule for people, and how its program names it.
func (f Finding) Where() string {
	if f.Rule == 0 && f.Position == 0 {
		return "its policy is drop"
	}
	in := ""
	if f.In != f.Chain {
		in = " of chain " + f.In
	}
	if f.Program != "" {
		return fmt.Sprintf("rule %d%s: %s", f.Position, in, f.Text)
	}
	return fmt.Sprintf("rule with handle %d%s: %s", f.Rule, in, f.Text)
}

// fieldWords are how iptables and nft name what rules compare.
var fieldWords = map[Field][2]string{
	Src: {"-s", "saddr"}, Dst: {"-d", "daddr"}, In: {"-i", "iifname"}, Out: {"-o", "oifname"},
	Protocol: {"-p", "meta l4proto"}, Port: {"--dport", "dport"}, srcPort: {"--sport", "sport"},
	inIndex: {"", "iif"}, outIndex: {"", "oif"}, mark: {"-m mark --mark", "meta mark"},
	state: {"-m conntrack --ctstate", "ct state"}, status: {"-m conntrack --ctstatus", "ct status"},
}

// text writes a rule, as far as it is understood.
func (r *rule) text(f ipfam.Family, iptables bool) string {
	var out []string
	protocol := "th"
	for i := range r.conditions {
		c := &r.conditions[i]
		if c.Field == Protocol && !c.Not {
			protocol = protocols[c.Values.Addr().AsSlice()[0]]
		}
	}
	ported := slices.ContainsFunc(r.conditions, func(c Condition) bool { return c.Field == Port || c.Field == srcPort })
	for i := range r.conditions {
		c := &r.conditions[i]
		if c.Field == Family || c.Field == etherType || !iptables && c.Field == Protocol && !c.Not && ported {
			continue // its program writes it with another condition, or not at all
		}
		out = append(out, c.text(f, iptables, protocol))
	}
	for _, l := range r.lookups {
		out = append(out, fmt.Sprintf("(%s in a set)", fieldWords[l.field][1]))
	}
	if r.more {
		out = append(out, "(more conditions)")
	}
	verdict := "drop"
	if r.reject {
		verdict = "reject"
	}
	if iptables {
		verdict = "-j " + strings.ToUpper(verdict)
	}
	return strings.Join(append(out, verdict), " ")
}

// protocols are the names of those of the transport layer.
var protocols = map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_ICMPV6: "ipv6-icmp", unix.IPPROTO_SCTP: "sctp"}

// text writes a condition.
func (c *Condition) text(f ipfam.Family, iptables bool, protocol string) string {
	word, not := fieldWords[c.Field][1], "!= "
	switch {
	case iptables && c.Not:
		word, not = "! "+fieldWords[c.Field][0], ""
	case iptables:
		word, not = fieldWords[c.Field][0], ""
	case c.Field == Src || c.Field == Dst:
		word = nftFamilies[f] + " " + word
	case c.Field == Port || c.Field == srcPort:
		word = protocol + " " + word
	}
	if !c.Not {
		not = ""
	}
	return word + " " + not + c.values(iptables)
}

func (c *Condition) values(iptables bool) string {
	if c.mask != 0 {
		return fmt.Sprintf("%#x/%#x", c.bits, c.mask)
	}
	b := c.Values.Addr().AsSlice()
	between := "-"
	if iptables {
		between = ":"
	}
	switch c.Field {
	case In, Out:
		name := string(text(b))
		if whole := c.Values.Bits() == 8*nameSize || c.Values.Bits() > 8*len(name); !whole && iptables {
			name += "+"
		} else if !whole {
			name += "*"
		}
		return name
	case Protocol:
		if name := protocols[b[0]]; name != "" {
			return name
		}
		return strconv.Itoa(int(b[0]))
	case Port, srcPort:
		out := strconv.Itoa(int(binary.BigEndian.Uint16(b)))
		if c.Last.IsValid() {
			out += between + strconv.Itoa(int(binary.BigEndian.Uint16(c.Last.AsSlice())))
		}
		return out
	case inIndex, outIndex:
		return strconv.Itoa(int(binary.NativeEndian.Uint32(b)))
	}
	if c.Last.IsValid() {
		return c.Values.Addr().String() + "-" + c.Last.String()
	}
	if c.Values.IsSingleIP() {
		return c.Values.Addr().String()
	}
	return c.Values.String()
}
