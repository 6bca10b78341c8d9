package uplink

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"flannel/internal/ipfam"

	"golang.org/x/sys/unix"
)

// news is what a batch of events means.
type news struct {
	// look says that the host has to be looked at.
	look bool
	// kick says that something of the uplink was gone for a moment, so that
	// routes over it may be missing although all looks the same.
	kick bool
	// down says that the uplink was down.
	down bool
	// added are addresses that came to the uplink before one in use of their
	// family was removed; removed says that this has happened.
	added   []netip.Addr
	removed ipfam.Pair[bool]
}

// merge adds what happened afterwards.
func (n *news) merge(o news) {
	for _, ip := range o.added {
		if !n.removed[ipfam.Of(ip)] {
			n.added = append(n.added, ip)
		}
	}
	for f := range n.removed {
		n.removed[f] = n.removed[f] || o.removed[f]
	}
	n.look = n.look || o.look
	n.kick = n.kick || o.kick
	n.down = n.down || o.down
}

// interest says which events matter.
type interest struct {
	// index and addrs are those of the uplink in use.
	index int
	addrs ipfam.Pair[netip.Addr]
	// any says that every link and address matters: an uplink is looked for.
	any bool
	// routes says that default routes matter, or all when allRoutes is set.
	routes, allRoutes bool
	// table is there when the links are tracked.
	table *linkTable
}

// judge says what the event messages in b mean. It keeps nothing of b.
func (i interest) judge(b []byte) news {
	var n news
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return n
		}
		kind, body := binary.NativeEndian.Uint16(b[4:]), b[unix.SizeofNlMsghdr:size]
		switch kind {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			n.merge(i.judgeLink(kind, body))
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			n.merge(i.judgeAddr(kind, body))
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			n.merge(i.judgeRoute(body))
		}
		b = b[min(align(size), len(b)):]
	}
	return n
}

func (i interest) judgeLink(kind uint16, body []byte) news {
	// Messages about bridge ports come in the same group.
	if len(body) < unix.SizeofIfInfomsg || body[0] != unix.AF_UNSPEC {
		return news{}
	}
	index, flags := int(binary.NativeEndian.Uint32(body[4:])), binary.NativeEndian.Uint32(body[8:])
	if index != i.index {
		return news{look: i.concerns(index)}
	}
	gone := kind == unix.RTM_DELLINK
	return news{look: true, kick: gone, down: gone || flags&unix.IFF_UP == 0}
}

func (i interest) judgeAddr(kind uint16, body []byte) news {
	if len(body) < unix.SizeofIfAddrmsg {
		return news{}
	}
	index := int(binary.NativeEndian.Uint32(body[4:]))
	if index != i.index {
		return news{look: i.concerns(index)}
	}
	n := news{look: true}
	eachAttr(body[unix.SizeofIfAddrmsg:], func(attr uint16, value []byte) {
		if attr != unix.IFA_LOCAL && attr != unix.IFA_ADDRESS {
			return
		}
		ip, ok := netip.AddrFromSlice(value)
		switch {
		case !ok:
		case kind == unix.RTM_NEWADDR:
			n.added = append(n.added, ip)
		case ip == i.addrs[ipfam.Of(ip)]:
			n.kick, n.removed[ipfam.Of(ip)] = true, true
		}
	})
	return n
}

// concerns reports whether events of an interface other than the uplink
// matter. Routes over it vanish with it and are not reported.
func (i interest) concerns(index int) bool {
	return i.any || i.table != nil && i.table.elsewhere[index]
}

func (i interest) judgeRoute(body []byte) news {
	if i.allRoutes {
		return news{look: true}
	}
	r, ok := parseRoute(body)
	if !ok {
		return news{}
	}
	return news{look: i.routes && r.dst.Bits() == 0 || i.table != nil && i.table.relevant(r)}
}

// events is a socket on which the kernel reports changes.
type events struct {
	file   *os.File
	conn   syscall.RawConn
	buf    []byte
	size   int // of the kernel's buffer
	routes bool
}

const (
	messageSize   = 64 << 10
	bufferSize    = 1 << 20
	maxBufferSize = 16 << 20
)

// openEvents subscribes to links and addresses.
func (h host) openEvents(size int) (*events, error) {
	fd := -1
	err := h.inside(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open event socket: %w", err)
	}
	e := &events{file: os.NewFile(uintptr(fd), "uplink events"), buf: make([]byte, messageSize)}
	if e.conn, err = e.file.SyscallConn(); err != nil {
		e.close()
		return nil, fmt.Errorf("open event socket: %w", err)
	}
	e.resize(size)
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		e.close()
		return nil, fmt.Errorf("subscribe to events: %w", err)
	}
	return e, nil
}

func (e *events) close() { e.file.Close() }

// resize asks for a kernel buffer of this size.
func (e *events) resize(size int) {
	e.size = min(size, maxBufferSize)
	_ = e.conn.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, e.size) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, e.size)
		}
	})
}

// watchRoutes turns the subscription to routes on or off and reports whether
// it was turned on: what happened before is not reported.
func (e *events) watchRoutes(on bool) (turnedOn bool, err error) {
	if e.routes == on {
		return false, nil
	}
	option := unix.NETLINK_DROP_MEMBERSHIP
	if on {
		option = unix.NETLINK_ADD_MEMBERSHIP
	}
	controlErr := e.conn.Control(func(fd uintptr) {
		for _, group := range []int{unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE} {
			err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_NETLINK, option, group))
		}
	})
	if err = errors.Join(err, controlErr); err != nil {
		return false, fmt.Errorf("subscribe to routes: %w", err)
	}
	e.routes = on
	return on, nil
}

// wait blocks until there are events, the deadline (zero: none) has passed or
// ctx ends, and says what they mean.
func (e *events) wait(ctx context.Context, deadline time.Time, i interest) (news, error) {
	if err := e.file.SetReadDeadline(deadline); err != nil {
		return news{}, err
	}
	// The deadline is set before: this one is not overwritten by it.
	stop := context.AfterFunc(ctx, func() { _ = e.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	n, err := e.read(i, true)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return n, ctx.Err()
	}
	return n, err
}

// drain reads what is there without waiting.
func (e *events) drain(i interest) (news, error) {
	if err := e.file.SetReadDeadline(time.Time{}); err != nil {
		return news{}, err
	}
	return e.read(i, false)
}

func (e *events) read(i interest, block bool) (n news, err error) {
	overrun := false
	readErr := e.conn.Read(func(fd uintptr) bool {
		for got := false; ; got = true {
			size, readErr := unix.Read(int(fd), e.buf)
			switch {
			case errors.Is(readErr, unix.EINTR):
			case errors.Is(readErr, unix.EAGAIN):
				return got || !block
			case errors.Is(readErr, unix.ENOBUFS):
				// Events were lost: any of them may have mattered.
				n.merge(news{look: true, kick: true})
				overrun = true
			case readErr != nil:
				err = readErr
				return true
			default:
				n.merge(i.judge(e.buf[:size]))
			}
		}
	})
	if overrun {
		e.resize(2 * e.size)
	}
	return n, errors.Join(err, readErr)
}
