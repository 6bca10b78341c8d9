package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/lab"
)

// tap sees the packets that arrive at the router of a lab.
type tap struct {
	file *os.File
	b    []byte
}

// openTap begins to listen. Addresses that exist as records only are behind the
// router.
func openTap(l *lab.Lab) (*tap, error) {
	fd := -1
	err := l.Router.Do(func() (err error) {
		// SOCK_DGRAM leaves the Ethernet header out; all protocols.
		const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all&0xffff)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on the router: %w", err)
	}
	return &tap{os.NewFile(uintptr(fd), "router"), make([]byte, 2000)}, nil
}

func (t *tap) close() error { return t.file.Close() }

// await waits for a UDP packet to an address.
func (t *tap) await(ctx context.Context, to netip.Addr) error {
	if err := t.file.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	for ctx.Err() == nil {
		n, err := t.file.Read(t.b)
		if err != nil {
			return errors.Join(fmt.Errorf("no packet to %s", to), err)
		}
		if isUDPTo(t.b[:n], to) {
			return nil
		}
	}
	return ctx.Err()
}

// isUDPTo looks at a packet as it is on the wire.
func isUDPTo(p []byte, to netip.Addr) bool {
	const v4, v6 = 20, 40
	if ipfam.Of(to) == ipfam.V4 {
		return len(p) > v4 && p[0]>>4 == 4 && p[9] == unix.IPPROTO_UDP && net.IP(p[16:20]).Equal(to.AsSlice())
	}
	return len(p) > v6 && p[0]>>4 == 6 && p[6] == unix.IPPROTO_UDP && net.IP(p[24:40]).Equal(to.AsSlice())
}
