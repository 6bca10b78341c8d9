package udp

import (
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"flannel/backend/udp/packet"
	"flannel/internal/ipfam"
)

// inward moves packets from one socket to the device.
type inward struct {
	udp      *udp
	session  *session
	family   ipfam.Family
	receiver *receiver
	writer   *writer
	merger   packet.Merger
	// merge is whether the kernel takes packets of many segments.
	merge bool
	table *table
}

func newInward(s *session, socket *socket) *inward {
	i := &inward{
		udp: s.udp, session: s, family: socket.family, receiver: newReceiver(socket), writer: newWriter(s.tun),
		merge: s.tun.segments,
	}
	i.merger.UDP = s.tun.datagrams
	return i
}

// run moves packets until the device or the socket fails.
func (i *inward) run() error {
	for {
		messages, err := i.receiver.receive()
		if err != nil {
			return err
		}
		i.table = i.udp.tables.Load()
		for m := range messages {
			if err := i.message(&messages[m]); err != nil {
				return err
			}
		}
		if err := i.write(); err != nil {
			return err
		}
	}
}

// message takes the datagrams of one message; they have one sender.
func (i *inward) message(m *ipv4.Message) error {
	data, sender := m.Buffers[0][:m.N], from(m)
	tos, size := incoming(m.OOB[:m.NN])
	here, known := i.table.endpoints[sender]
	if !known && !i.acceptUnknown(sender) {
		return nil
	}
	if size <= 0 {
		size = len(data)
	}
	for len(data) > 0 {
		datagram := data[:min(size, len(data))]
		data = data[len(datagram):]
		if p := i.accept(datagram, tos, here.subnets); p != nil {
			if err := i.join(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// acceptUnknown reports whether packets from an address that no lease names are
// accepted. The address is logged once.
func (i *inward) acceptUnknown(from netip.Addr) bool {
	i.udp.counters.unknownSource.Add(1)
	drop := i.udp.config.KnownSourcesOnly || i.udp.config.StrictSources
	if i.udp.unknownSources.First(from) {
		i.udp.env.Log.Info("packets from an address that no lease names", "src", from, "dropped", drop)
	}
	return !drop
}

// accept looks at the packet in a datagram and returns it as it is to be
// written, or nil.
func (i *inward) accept(datagram []byte, tos byte, subnets []netip.Prefix) packet.Packet {
	p, ok := packet.Parse(datagram)
	if !ok || p.Family() != i.family || !i.table.network[i.family].Contains(p.Dst()) {
		i.udp.counters.malformed.Add(1)
		return nil
	}
	if i.udp.config.StrictSources && !holds(subnets, p.Src()) {
		i.udp.counters.wrongSource.Add(1)
		return nil
	}
	if !p.Arrive(tos) {
		i.udp.counters.congested.Add(1)
		return nil
	}
	if !p.Hop() {
		i.udp.counters.expired.Add(1)
		i.session.report(packet.TimeExceeded, p, 0)
		return nil
	}
	return p
}

func holds(subnets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(subnets, func(s netip.Prefix) bool { return s.Contains(a) })
}

// join puts a packet to those before it, or writes those and begins anew.
func (i *inward) join(p packet.Packet) error {
	if i.merger.Add(p) && i.merge {
		return nil
	}
	if err := i.write(); err != nil || !i.merge {
		return err
	}
	i.merger.Add(p)
	return nil
}

func (i *inward) write() error {
	v, parts := i.merger.Take()
	if parts == nil {
		return nil
	}
	err := i.writer.write(v, parts)
	switch {
	case err == nil, fatal(err):
		return err
	}
	// The device is down, or the packet makes no sense to the kernel.
	i.udp.counters.unwritten.Add(1)
	return nil
}

// fatal reports whether the device is gone or the session has to end.
func fatal(err error) bool {
	for _, ordinary := range []error{unix.EIO, unix.EINVAL, unix.ENOBUFS, unix.ENOMEM, unix.EPERM} {
		if errors.Is(err, ordinary) {
			return false
		}
	}
	return true
}
