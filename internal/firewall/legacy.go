package firewall

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
)

// Legacy tables are read as legacy programs read them, with getsockopt
// (linux/netfilter_ipv4/ip_tables.h). Reading one that does not exist creates it.
const (
	soGetInfo    = 64
	soGetEntries = 65
	tableSize    = 32
	// infoSize is that of struct ipt_getinfo. It holds which hooks the table has,
	// the offsets of each base chain and of its policy, and the size of the table.
	infoSize     = 84
	validHooksAt = 32
	hooksAt      = 36
	underflowsAt = 56
	sizeAt       = 80
	offsetSize   = 4
	// entriesAt is where the table begins in struct ipt_get_entries.
	entriesAt = 40
	// targetSize is that of struct xt_entry_target, errorSize that of the rule with
	// the name of a chain behind the conditions.
	targetSize = 32
	errorSize  = targetSize + 32
)

// Verdicts of rules with the standard target, as the kernel numbers them.
const (
	verdictDrop   = -1
	verdictAccept = -2
	verdictReturn = -5
)

// Legacy is a table of legacy iptables as the kernel holds it. The zero value
// has no rules.
type Legacy struct {
	// Assume is what chains with these names do, whatever they hold.
	Assume map[string]Verdict

	family ipfam.Family
	name   string
	blob   []byte
	info   []byte
}

// layout are the offsets in struct ipt_entry, or ip6t_entry, of what follows the
// names of the interfaces.
type layout struct {
	flags, targetAt, size  int
	gotoFlag, protocolFlag byte
}

var layouts = ipfam.Pair[layout]{
	{flags: 82, targetAt: 88, size: 112, gotoFlag: 2},
	{flags: 131, targetAt: 140, size: 168, gotoFlag: 4, protocolFlag: 1},
}

// Flags of inverted conditions.
const (
	invertedIn       = 1
	invertedOut      = 2
	invertedSrc      = 8
	invertedDst      = 16
	invertedProtocol = 64
	inverted         = invertedIn | invertedOut | invertedSrc | invertedDst | invertedProtocol
)

// LegacyTables names, per family, the file that lists the tables which legacy
// programs have created.
var LegacyTables = ipfam.Pair[string]{"/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"}

// LegacyInUse reports whether the kernel has a legacy table, or any for an empty
// name.
func LegacyInUse(f ipfam.Family, table string) bool {
	text, err := os.ReadFile(LegacyTables[f])
	if err != nil {
		return false
	}
	list := strings.Fields(string(text))
	return len(list) > 0 && (table == "" || slices.Contains(list, table))
}

// legacyTries bounds how often a table is read that others write meanwhile.
const legacyTries = 10

// ReadLegacy reads a table; one that does not exist is the zero table. It needs
// no programs, and creates no table.
func ReadLegacy(f ipfam.Family, table string) (t Legacy, err error) {
	if !LegacyInUse(f, table) {
		return Legacy{family: f}, nil
	}
	for range legacyTries {
		// The size may have changed since the kernel was asked for it.
		if t, err = readLegacyOnce(f, table); !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	if err != nil {
		return Legacy{}, fmt.Errorf("read table %s of %s-legacy: %w", table, programs[f], err)
	}
	return t, nil
}

func readLegacyOnce(f ipfam.Family, table string) (Legacy, error) {
	fd, err := unix.Socket(f.AF(), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Legacy{}, err
	}
	defer unix.Close(fd)
	level := ipfam.Pair[int]{unix.IPPROTO_IP, unix.IPPROTO_IPV6}[f]
	info := make([]byte, infoSize)
	copy(info[:tableSize-1], table)
	if err := getsockopt(fd, level, soGetInfo, info); err != nil {
		return Legacy{}, err
	}
	size := binary.NativeEndian.Uint32(info[sizeAt:])
	if size > 1<<30 {
		return Legacy{}, errors.New("a table of more than a gigabyte")
	}
	blob := make([]byte, entriesAt+int(size))
	copy(blob[:tableSize-1], table)
	binary.NativeEndian.PutUint32(blob[tableSize:], size)
	if err := getsockopt(fd, level, soGetEntries, blob); err != nil {
		return Legacy{}, err
	}
	return Legacy{family: f, name: table, blob: blob[entriesAt:], info: info}, nil
}

// ReadLegacyFilters reads the tables that filter.
func ReadLegacyFilters(f ipfam.Family) ([]Rules, error) {
	var out []Rules
	for table := range iptablesTables {
		t, err := ReadLegacy(f, table)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// bases implements Rules.
func (t Legacy) bases(p Packet, h Hook) []base {
	if t.blob == nil || p.Family != t.family || h > Postrouting {
		return nil
	}
	if hooks := binary.NativeEndian.Uint32(t.info[validHooksAt:]); hooks&(1<<h) == 0 {
		return nil
	}
	offset := func(at int) int { return int(binary.NativeEndian.Uint32(t.info[at+offsetSize*int(h):])) }
	b := Base{Chain: iptablesChains[h], Table: t.name, Program: programs[t.family] + "-legacy"}
	return []base{{
		Base: b, priority: iptablesTables[t.name], assume: t.Assume,
		chain: legacyChain{t, offset(hooksAt), b.Chain, offset(underflowsAt)},
	}}
}

// Has reports whether the table has a chain with this name.
func (t Legacy) Has(chain string) bool { return bytes.Contains(t.blob, append([]byte(chain), 0)) }

// Names reports whether an address of the network is in the table.
func (t Legacy) Names(network netip.Prefix) bool {
	return bytes.Contains(t.blob, network.Addr().AsSlice())
}

// legacyChain is a chain of a legacy table.
type legacyChain struct {
	table Legacy
	// at is the offset of its first rule.
	at int
	// label is the name of a base chain, policy the offset of its policy.
	label  string
	policy int
}

func (t Legacy) chainAt(at int) legacyChain { return legacyChain{table: t, at: at, policy: -1} }

// name returns the name of the chain. It is in the rule in front of it.
func (c legacyChain) name() string {
	if c.label != "" {
		return c.label
	}
	before, ok := c.table.entry(c.at - layouts[c.table.family].size - errorSize)
	if !ok || string(before.target) != "ERROR" || len(before.rest) != errorSize-targetSize {
		return ""
	}
	return string(text(before.rest))
}

func (c legacyChain) rules() iter.Seq[*rule] {
	return func(yield func(*rule) bool) {
		r := &rule{}
		number := uint64(0)
		for at := c.at; ; {
			e, ok := c.table.entry(at)
			if !ok || string(e.target) == "ERROR" {
				return
			}
			next := at + e.size
			number++
			*r = rule{conditions: r.conditions[:0], lookups: r.lookups[:0], number: number, position: int(number)}
			if at == c.policy {
				r.number, r.position = 0, 0
			}
			c.table.verdict(e, next, r)
			c.table.conditions(e, r)
			if !yield(r) {
				return
			}
			at = next
		}
	}
}

// entry is a rule as the kernel holds it: its fixed part, its extensions, its
// target and what belongs to that.
type entry struct {
	fixed, extensions, target, rest []byte
	size                            int
}

// entry returns the rule at an offset; it reports false behind the last one.
func (t Legacy) entry(at int) (e entry, ok bool) {
	l := layouts[t.family]
	if at < 0 || at+l.size > len(t.blob) {
		return e, false
	}
	b := t.blob[at:]
	targetAt := int(binary.NativeEndian.Uint16(b[l.targetAt:]))
	size := int(binary.NativeEndian.Uint16(b[l.targetAt+2:]))
	if targetAt < l.size || size < targetAt+targetSize || size > len(b) {
		return e, false
	}
	rest := targetAt + targetSize
	return entry{b[:l.size], b[l.size:targetAt], text(b[targetAt+2 : rest-1]), b[rest:size], size}, true
}

// conditions reads the conditions of a rule.
func (t Legacy) conditions(e entry, r *rule) {
	l, f := layouts[t.family], t.family
	flags, not := e.fixed[l.flags], e.fixed[l.flags+1]
	n := f.Bits() / 8
	for _, c := range [...]struct {
		field           Field
		at, maskAt, len int
		inverted        byte
	}{
		{Src, 0, 2 * n, n, invertedSrc},
		{Dst, n, 3 * n, n, invertedDst},
		{In, 4 * n, 4*n + 2*nameSize, nameSize, invertedIn},
		{Out, 4*n + nameSize, 4*n + 3*nameSize, nameSize, invertedOut},
	} {
		mask := e.fixed[c.maskAt : c.maskAt+c.len]
		if zero(mask) {
			continue
		}
		values, ok := c.field.masked(f, e.fixed[c.at:c.at+c.len], mask)
		r.add(Condition{Field: c.field, Values: values, Not: not&c.inverted != 0}, ok)
	}
	const protocolSize = 2
	protocolAt := 4*n + 4*nameSize
	if p := binary.NativeEndian.Uint16(e.fixed[protocolAt:]); p != 0 {
		r.add(Condition{Field: Protocol, Values: Protocol.values(f, []byte{byte(p)}, 8), Not: not&invertedProtocol != 0}, p < 256)
	}
	// With IPv6 the kind of service is between the protocol and the flags.
	if !zero(e.fixed[protocolAt+protocolSize:l.flags]) || flags&^(l.gotoFlag|l.protocolFlag) != 0 || not&^inverted != 0 {
		r.more = true
	}
	t.extensions(e.extensions, r)
}

// extensions reads a list of struct xt_entry_match.
func (t Legacy) extensions(list []byte, r *rule) {
	const headerSize = 32
	for len(list) >= headerSize {
		size := int(binary.NativeEndian.Uint16(list))
		if size < headerSize || size > len(list) {
			r.more = true
			return
		}
		r.extension(t.family, string(text(list[2:headerSize-1])), list[headerSize-1], list[headerSize:size])
		list = list[size:]
	}
}

// verdict reads what a rule does; next is the offset of the rule behind it.
func (t Legacy) verdict(e entry, next int, r *rule) {
	r.target(string(e.target))
	if len(e.target) > 0 || len(e.rest) < 4 {
		return
	}
	switch v := int(int32(binary.NativeEndian.Uint32(e.rest))); {
	case v == verdictDrop:
		r.verdict = Drop
	case v == verdictAccept:
		r.verdict = Accept
	case v == verdictReturn:
		r.verdict = toCaller
	case v >= 0 && v != next:
		r.verdict, r.to = jump, t.chainAt(v)
		if e.fixed[layouts[t.family].flags]&layouts[t.family].gotoFlag != 0 {
			r.verdict = jumpForGood
		}
	}
}

func zero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// text reads a string that a zero byte ends.
func text(b []byte) []byte {
	before, _, _ := bytes.Cut(b, []byte{0})
	return before
}

func getsockopt(fd, level, option int, buf []byte) error {
	length := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
