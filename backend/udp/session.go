package udp

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/backend/udp/packet"
	"flannel/internal/ipfam"
)

// session is the time between opening the device and the sockets, and closing
// them.
type session struct {
	udp      *udp
	setup    setup
	tun      *tun
	sockets  ipfam.Pair[*socket]
	reporter *reporter
}

// offloads are what the kernel is asked to do for many packets at once: take
// apart and join TCP segments and datagrams on the device, and datagrams on the
// sockets when they are sent and received.
type offloads struct{ segments, datagrams, gso, gro bool }

// all is what is asked for outside of tests, which simulate an older kernel.
var all = offloads{true, true, true, true}

// open attaches to the device and opens a socket per family.
func (b *udp) open(want setup) (*session, error) {
	s := &session{udp: b, setup: want}
	var err error
	if s.tun, err = openTUN(want.device, b.may); err != nil {
		return nil, err
	}
	for family, on := range b.env.Families.Each() {
		if !on {
			continue
		}
		if s.sockets[family], err = listen(want.addrs[family], b.config.Port, want.uplink, b.may); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	s.reporter = openReporter(b.env.Log, b.env.Families)
	s.logOffloads()
	return s, nil
}

// logOffloads logs which offloads an old kernel lacks: without them everything is
// slower.
func (s *session) logOffloads() {
	var lacking []string
	add := func(has bool, what string) {
		if !has {
			lacking = append(lacking, what)
		}
	}
	add(s.tun.segments, "TUN segmentation of TCP")
	add(s.tun.datagrams, "TUN segmentation of UDP (Linux 6.2)")
	for family, socket := range s.sockets.Each() {
		if socket != nil {
			add(socket.gso, fmt.Sprintf("%s UDP GSO (Linux 4.18)", family))
			add(socket.gro, fmt.Sprintf("%s UDP GRO (Linux 5.0)", family))
		}
	}
	if lacking != nil {
		s.udp.env.Log.Warn("the kernel lacks offloads, so packets are moved more slowly", "lacking", lacking)
	}
}

// run moves packets until something fails or interrupt is called.
func (s *session) run() error {
	var group errgroup.Group
	move := func(run func() error) {
		group.Go(func() error {
			err := run()
			s.interrupt()
			return err
		})
	}
	move(newOutward(s).run)
	for _, socket := range s.sockets {
		if socket != nil {
			move(newInward(s, socket).run)
		}
	}
	err := group.Wait()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// interrupt makes run return.
func (s *session) interrupt() {
	past := time.Unix(1, 0)
	_ = s.tun.file.SetDeadline(past) // fails when closed
	for _, socket := range s.sockets {
		if socket != nil {
			_ = socket.conn.SetDeadline(past)
		}
	}
}

func (s *session) close() error {
	errs := []error{s.tun.file.Close()}
	for _, socket := range s.sockets {
		if socket != nil {
			errs = append(errs, socket.conn.Close())
		}
	}
	if s.reporter != nil {
		errs = append(errs, s.reporter.close())
	}
	return errors.Join(errs...)
}

// report sends an ICMP error about a packet to its sender.
func (s *session) report(problem packet.Problem, p packet.Packet, mtu int) {
	t := s.udp.tables.Load()
	if !s.reporter.may() {
		return
	}
	if r := packet.Report(problem, p, t.own[p.Family()], mtu); r != nil {
		s.reporter.send(r)
	}
}
