package iptables

import (
	"fmt"
	"net/netip"
	"strings"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// chain is a chain of ours, as iptables prints it.
type chain ipmasq.Chain

func chainOf(t ipmasq.Table) chain { return chain(ipmasq.Chains[t]) }

// jump returns the rule of the base chain.
func (c chain) jump() string { return fmt.Sprintf("-m comment --comment %q -j %s", c.Comment, c.Name) }

// markText is the condition on the mark as iptables prints it.
var markText = fmt.Sprintf("%#x/%#x", ipmasq.Mark, ipmasq.Mark)

var targets = map[ipmasq.Action]string{
	ipmasq.Return: "RETURN", ipmasq.Masquerade: "MASQUERADE", ipmasq.Accept: "ACCEPT",
}

// format returns a rule without the name of its chain, as iptables takes and
// prints it.
func (c chain) format(r ipmasq.Rule) string {
	var words []string
	for _, side := range []struct {
		flag string
		ipmasq.Match
	}{{"-s", r.Src}, {"-d", r.Dst}} {
		if side.Not {
			words = append(words, "!")
		}
		if !side.Any() {
			words = append(words, side.flag, side.Prefix.String())
		}
	}
	if r.Marked {
		words = append(words, "-m mark --mark", markText)
	}
	words = append(words, fmt.Sprintf("-m comment --comment %q -j", c.Comment), targets[r.Do])
	if r.RandomFully {
		words = append(words, "--random-fully")
	}
	return strings.Join(words, " ")
}

// entry is a rule that iptables has printed.
type entry struct {
	// text is the rule without the name of its chain.
	text  string
	means ipmasq.Meaning
}

// parse reads what iptables -S prints for one chain. Lines that are no rules
// are left out.
func (c chain) parse(in string, lines []string) []entry {
	var out []entry
	for _, line := range lines {
		if text, ok := strings.CutPrefix(line, "-A "+in+" "); ok {
			out = append(out, c.parseRule(text))
		}
	}
	return out
}

func (c chain) parseRule(text string) entry {
	e := entry{text: text, means: ipmasq.Meaning{Plain: true}}
	m := &e.means
	words := split(text)
	next := func() (word string) { // nothing at the end
		if len(words) > 0 {
			word, words = words[0], words[1:]
		}
		return word
	}
	for not := false; len(words) > 0; {
		word := next()
		if word == "!" {
			not = true
			continue
		}
		switch word {
		case "-s":
			m.Rule.Src = match(m, next(), not)
		case "-d":
			m.Rule.Dst = match(m, next(), not)
		case "-m":
			module := next()
			m.Plain = m.Plain && (module == "mark" || module == "comment")
		case "--mark":
			m.Rule.Marked = true
			mark := next()
			m.Plain = m.Plain && mark == markText && !not
		case "--comment":
			m.Commented = next() == c.Comment
		case "-j":
			c.target(m, next())
		case "--random-fully":
			m.Rule.RandomFully = true
		default:
			m.Plain = false
		}
		not = false
	}
	return e
}

func match(m *ipmasq.Meaning, value string, not bool) ipmasq.Match {
	p, err := parsePrefix(value)
	m.Plain = m.Plain && err == nil
	return ipmasq.Match{Prefix: p, Not: not}
}

func (c chain) target(m *ipmasq.Meaning, value string) {
	m.Jump = value == c.Name
	for v, name := range targets {
		if name == value {
			m.Rule.Do = v
			return
		}
	}
	m.Plain = false
}

// parsePrefix reads an address with or without a prefix length.
func parsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		return netip.ParsePrefix(s)
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return ipfam.Host(a), nil
}

// split cuts a line at blanks as iptables quotes it: double quotes hold words
// together, a backslash takes the next character as it is.
func split(line string) []string {
	var words []string
	var word strings.Builder
	open, quoted, escaped := false, false, false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\':
			escaped, open = true, true
		case r == '"':
			quoted, open = !quoted, true
		case r == ' ' && !quoted:
			if open {
				words = append(words, word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteRune(r)
			open = true
		}
	}
	if open {
		words = append(words, word.String())
	}
	return words
}
