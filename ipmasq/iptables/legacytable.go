package iptables

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// Legacy tables are read as legacy programs read them, with getsockopt
// (linux/netfilter_ipv4/ip_tables.h): one that is not there would be made.
const (
	soGetInfo    = 64
	soGetEntries = 65
	nameSize     = 32
	// infoSize is that of struct ipt_getinfo; hooksAt is where it has the
	// beginning of each base chain, sizeAt the size of the table.
	infoSize  = 84
	hooksAt   = 36
	sizeAt    = 80
	hookAfter = 4
	// entriesAt is where the table begins in struct ipt_get_entries.
	entriesAt = 40
	// targetSize is that of struct xt_entry_target.
	targetSize = 32
)

// Verdicts of rules without a target of their own, as the kernel has them.
const (
	verdictDrop   = -1
	verdictAccept = -2
	verdictReturn = -5
)

// legacyTable is a table as the kernel holds it.
type legacyTable struct {
	family ipfam.Family
	blob   []byte
	// forward is where the chain FORWARD begins.
	forward int
}

// legacyRule is one rule.
type legacyRule struct {
	src, dst ipmasq.Match
	// more says that it has conditions on other things than addresses.
	more bool
	// target is that of the rule. Without one verdict is what happens, or where
	// the chain is that it jumps to.
	target       string
	verdict      int
	jumpsForGood bool
	// name is that of the chain that begins behind a rule with target ERROR.
	name string
	size int
}

// entryLayout is where struct ipt_entry, or ip6t_entry, has what it has.
type entryLayout struct {
	conditions, flags, inverted int
	targetAt, size              int
	gotoFlag                    byte
}

var entryLayouts = ipfam.Pair[entryLayout]{
	{conditions: 16, flags: 82, inverted: 83, targetAt: 88, size: 112, gotoFlag: 2},
	{conditions: 64, flags: 131, inverted: 132, targetAt: 140, size: 168, gotoFlag: 4},
}

// Flags of inverted conditions.
const (
	invertedSrc = 8
	invertedDst = 16
)

// legacyTries is how often a table is read that others write meanwhile.
const legacyTries = 10

// readLegacy reads a table; one that is not there is the zero table.
func readLegacy(f ipfam.Family, table ipmasq.Table) (t legacyTable, err error) {
	if !legacyInUse(f, table) {
		return legacyTable{family: f}, nil
	}
	for range legacyTries {
		// The size may have changed since the kernel was asked for it.
		if t, err = readLegacyOnce(f, table); !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return t, err
}

func readLegacyOnce(f ipfam.Family, table ipmasq.Table) (legacyTable, error) {
	t := legacyTable{family: f}
	fd, err := unix.Socket(f.AF(), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return t, err
	}
	defer unix.Close(fd)
	level := ipfam.Pair[int]{unix.IPPROTO_IP, unix.IPPROTO_IPV6}[f]
	info := make([]byte, infoSize)
	copy(info[:nameSize-1], table)
	if err := getsockopt(fd, level, soGetInfo, info); err != nil {
		return t, err
	}
	size := binary.NativeEndian.Uint32(info[sizeAt:])
	if size > 1<<30 {
		return t, errors.New("a table of more than a gigabyte")
	}
	blob := make([]byte, entriesAt+int(size))
	copy(blob[:nameSize-1], table)
	binary.NativeEndian.PutUint32(blob[nameSize:], size)
	if err := getsockopt(fd, level, soGetEntries, blob); err != nil {
		return t, err
	}
	t.blob = blob[entriesAt:]
	t.forward = int(binary.NativeEndian.Uint32(info[hooksAt+hookAfter*unix.NF_INET_FORWARD:]))
	return t, nil
}

// chain returns where the chain of a user begins, -1 when there is none. Its name
// is in the rule in front of it.
func (t legacyTable) chain(name string) int {
	before := entryLayouts[t.family].size + targetSize
	for at := 0; ; at++ {
		i := bytes.Index(t.blob[at:], append([]byte(name), 0))
		if i < 0 {
			return -1
		}
		at += i
		if r, ok := t.rule(at - before); ok && r.target == "ERROR" && r.name == name {
			return at - before + r.size
		}
	}
}

// rule reads the rule at an offset; it reports false behind the last one.
func (t legacyTable) rule(at int) (legacyRule, bool) {
	l := entryLayouts[t.family]
	if at < 0 || at+l.size > len(t.blob) {
		return legacyRule{}, false
	}
	e := t.blob[at:]
	targetAt := int(binary.NativeEndian.Uint16(e[l.targetAt:]))
	r := legacyRule{size: int(binary.NativeEndian.Uint16(e[l.targetAt+2:]))}
	if targetAt < l.size || r.size < targetAt+targetSize || r.size > len(e) {
		return legacyRule{}, false
	}
	flags, inverted := e[l.flags], e[l.inverted]
	bytesOf := t.family.Bits() / 8
	r.src = match(e[:bytesOf], e[2*bytesOf:3*bytesOf], inverted&invertedSrc != 0)
	r.dst = match(e[bytesOf:2*bytesOf], e[3*bytesOf:4*bytesOf], inverted&invertedDst != 0)
	// Interfaces, the protocol and, with IPv6, the kind of service are between the
	// addresses and the flags.
	r.more = !zero(e[l.conditions:l.flags]) || flags&^l.gotoFlag != 0 || inverted&^(invertedSrc|invertedDst) != 0 ||
		hasMatch(e[l.size:targetAt])
	r.jumpsForGood = flags&l.gotoFlag != 0
	r.target = text(e[targetAt+2 : targetAt+targetSize-1])
	rest := e[targetAt+targetSize : r.size]
	switch {
	case r.target == "ERROR":
		r.name = text(rest)
	case r.target == "" && len(rest) >= 4:
		r.verdict = int(int32(binary.NativeEndian.Uint32(rest)))
	}
	return r, true
}

// match reads a condition on an address.
func match(addr, mask []byte, not bool) ipmasq.Match {
	if zero(mask) {
		return ipmasq.Match{}
	}
	a, _ := netip.AddrFromSlice(addr)
	bits := 0
	for bits < a.BitLen() && mask[bits/8]&(0x80>>(bits%8)) != 0 {
		bits++
	}
	return ipmasq.Match{Prefix: netip.PrefixFrom(a, bits).Masked(), Not: not}
}

// hasMatch reports whether a list of struct xt_entry_match has more than
// comments.
func hasMatch(list []byte) bool {
	const headerSize = 32
	for len(list) >= headerSize {
		size := int(binary.NativeEndian.Uint16(list))
		if text(list[2:headerSize-1]) != "comment" || size < headerSize || size > len(list) {
			return true
		}
		list = list[size:]
	}
	return false
}

func zero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// text reads a string that a zero byte ends.
func text(b []byte) string {
	before, _, _ := bytes.Cut(b, []byte{0})
	return string(before)
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
