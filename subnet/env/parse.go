package env

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"flannel/internal/ipfam"
)

// The MTU of a loopback interface is the largest that Linux has by default;
// 68 bytes is the least that IPv4 allows.
const (
	minMTU = 68
	maxMTU = 65536
)

const remedy = "restart flanneld to have the file written again"

// Parse reads the text of a subnet.env. Blank lines, comments and unknown keys
// are skipped. name stands for the file in errors, which name the line as
// well and what is allowed.
func Parse(name string, text string) (Env, error) {
	var e Env
	seen := map[string]int{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, found := strings.Cut(line, "=")
		allowed := ""
		switch {
		case !found:
			allowed = "KEY=value or a comment"
		case seen[key] > 0:
			allowed = fmt.Sprintf("%s once only, it is on line %d already", key, seen[key])
		default:
			allowed = e.set(key, value)
		}
		if allowed != "" {
			return Env{}, fmt.Errorf("%s line %d: %s is not allowed: use %s; %s", name, number, shorten(line), allowed, remedy)
		}
		if strings.HasPrefix(key, "FLANNEL_") {
			seen[key] = number
		}
	}
	if missing := e.missing(seen); missing != "" {
		return Env{}, fmt.Errorf("%s: %s is missing; %s", name, missing, remedy)
	}
	return e, nil
}

// set takes one value over and returns what is allowed when the value is not.
func (e *Env) set(key, value string) (allowed string) {
	for _, f := range ipfam.All() {
		switch names := keysOf(f); key {
		case names.network:
			return e.setNetwork(f, value)
		case names.subnet:
			return e.setSubnet(f, value)
		}
	}
	switch key {
	case keyMTU:
		return e.setMTU(value)
	case keyIPMasq:
		if value != "true" && value != "false" {
			return "true or false"
		}
		e.IPMasq = value == "true"
	}
	return ""
}

func (e *Env) setNetwork(f ipfam.Family, value string) (allowed string) {
	for part := range strings.SplitSeq(value, ",") {
		p, ok := parsePrefix(f, strings.TrimSpace(part))
		if !ok {
			return fmt.Sprintf("%s networks such as %s, separated by commas", f, example(f))
		}
		e.Network[f] = append(e.Network[f], p.Masked())
	}
	return ""
}

func (e *Env) setSubnet(f ipfam.Family, value string) (allowed string) {
	p, ok := parsePrefix(f, value)
	if !ok {
		return fmt.Sprintf("an %s address with a prefix length such as %s", f, Gateway(example(f)))
	}
	e.Subnet[f] = p
	return ""
}

func (e *Env) setMTU(value string) (allowed string) {
	n, err := strconv.Atoi(value)
	if err != nil || n < minMTU || n > maxMTU {
		return fmt.Sprintf("a whole number from %d to %d", minMTU, maxMTU)
	}
	e.MTU = n
	return ""
}

func parsePrefix(f ipfam.Family, text string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() || ipfam.Of(p.Addr()) != f {
		return netip.Prefix{}, false
	}
	return p, true
}

func example(f ipfam.Family) netip.Prefix {
	return ipfam.Pair[netip.Prefix]{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, 17, 0}), 24),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x10, 2, 0x44}), 64),
	}[f]
}

// missing returns a key without which the file is of no use.
func (e *Env) missing(seen map[string]int) string {
	for f, s := range e.Subnet.Each() {
		switch key := keysOf(f); {
		case s.IsValid() && len(e.Network[f]) == 0:
			return key.network
		case !s.IsValid() && len(e.Network[f]) > 0:
			return key.subnet
		}
	}
	switch {
	case e.Subnet == (ipfam.Pair[netip.Prefix]{}):
		return keysOf(ipfam.V4).subnet
	case seen[keyMTU] == 0:
		return keyMTU
	case seen[keyIPMasq] == 0:
		return keyIPMasq
	}
	return ""
}

func shorten(line string) string {
	const longest = 80
	if len(line) > longest {
		line = line[:longest] + "..."
	}
	return strconv.Quote(line)
}
