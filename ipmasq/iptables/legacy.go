package iptables

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// LegacyNotice tells of rules that an earlier run has left in legacy tables
// and that nobody can remove without the legacy programs.
type LegacyNotice struct {
	Log  *slog.Logger
	once sync.Once
}

// Remove removes nothing; it says once what is left, with the commands.
func (n *LegacyNotice) Remove(_ context.Context, c ipmasq.Config) (ipmasq.Changes, error) {
	var commands []string
	for _, f := range ipfam.All() {
		for _, table := range ipmasq.Tables() {
			ch := chains[table]
			if !c.Concerns(f) || !legacyInUse(f, table) || !legacyHolds(f, ch, c) {
				continue
			}
			program := fmt.Sprintf("%s-legacy -t %s", names[f], table)
			commands = append(commands, fmt.Sprintf("%s -D %s %s; %s -F %s; %s -X %s",
				program, ch.base, ch.jump, program, ch.name, program, ch.name))
		}
	}
	if len(commands) > 0 {
		n.once.Do(func() {
			n.Log.Warn("legacy iptables tables hold rules of an earlier run, and the legacy programs are not on this host; "+
				"remove the rules where they are", "command", strings.Join(commands, "; "))
		})
	}
	return nil, nil
}

// Options of getsockopt by which legacy programs read a table
// (linux/netfilter_ipv4/ip_tables.h).
const (
	soGetInfo    = 64
	soGetEntries = 65
	nameSize     = 32
	// infoSize is that of struct ipt_getinfo, sizeAt where it has the size of
	// the table.
	infoSize = 84
	sizeAt   = 80
	// entriesAt is where the table begins in struct ipt_get_entries.
	entriesAt = 40
)

var socketLevels = ipfam.Pair[int]{unix.IPPROTO_IP, unix.IPPROTO_IPV6}

// legacyHolds reports whether a legacy table has our chain and names our
// network. The table must exist; looking would make it.
func legacyHolds(f ipfam.Family, ch chain, c ipmasq.Config) bool {
	blob, err := legacyTable(f, string(ch.table))
	if err != nil || !bytes.Contains(blob, append([]byte(ch.name), 0)) {
		return false
	}
	for _, network := range c.Networks(f) {
		if bytes.Contains(blob, network.Addr().AsSlice()) {
			return true
		}
	}
	return false
}

// legacyTable reads a whole table as the kernel holds it.
func legacyTable(f ipfam.Family, table string) ([]byte, error) {
	fd, err := unix.Socket(f.AF(), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	info := make([]byte, infoSize)
	copy(info[:nameSize-1], table)
	if err := getsockopt(fd, socketLevels[f], soGetInfo, info); err != nil {
		return nil, err
	}
	size := binary.NativeEndian.Uint32(info[sizeAt:])
	if size > 1<<30 {
		return nil, errors.New("a table of more than a gigabyte")
	}
	blob := make([]byte, entriesAt+int(size))
	copy(blob[:nameSize-1], table)
	binary.NativeEndian.PutUint32(blob[nameSize:], size)
	if err := getsockopt(fd, socketLevels[f], soGetEntries, blob); err != nil {
		return nil, err
	}
	return blob[entriesAt:], nil
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
