package udp

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"flannel/backend/udp/packet"
	"flannel/internal/ipfam"
)

// maxReports is how many ICMP errors are sent per second.
const maxReports = 200

// reporter sends ICMP errors. They leave by raw sockets and not by the device:
// from there the kernel would refuse packets with an address of its own as the
// source.
type reporter struct {
	fds ipfam.Pair[int]

	mu    sync.Mutex
	since time.Time
	count int
}

// openReporter opens the sockets that are possible.
func openReporter(log *slog.Logger, families ipfam.Pair[bool]) *reporter {
	r := &reporter{fds: ipfam.Pair[int]{-1, -1}}
	for f, on := range families.Each() {
		if !on {
			continue
		}
		fd, err := unix.Socket(f.AF(), unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
		if err != nil {
			log.Warn("no ICMP errors will be sent: path MTU discovery and traceroute suffer; CAP_NET_RAW is needed", "family", f, "err", err)
			continue
		}
		r.fds[f] = fd
	}
	return r
}

// may reports whether another error may be sent in this second.
func (r *reporter) may() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.since) > time.Second {
		r.since, r.count = now, 0
	}
	r.count++
	return r.count <= maxReports
}

// send sends a whole packet. Like every ICMP error it may get lost.
func (r *reporter) send(p packet.Packet) {
	f := p.Family()
	if r.fds[f] < 0 {
		return
	}
	var to unix.Sockaddr
	if f == ipfam.V4 {
		to = &unix.SockaddrInet4{Addr: p.Dst().As4()}
	} else {
		to = &unix.SockaddrInet6{Addr: p.Dst().As16()}
	}
	_ = unix.Sendto(r.fds[f], p, unix.MSG_DONTWAIT, to)
}

func (r *reporter) close() error {
	var errs []error
	for _, fd := range r.fds {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}

// sendOne sends one datagram at once; when the socket is full it is lost.
func (s *socket) sendOne(to *peer, tos byte, p packet.Packet) error {
	var c control
	_, _, err := s.conn.WriteMsgUDP(p, c.outgoing(s.family, tos, 0), to.to)
	return err
}
