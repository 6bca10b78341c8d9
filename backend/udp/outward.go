package udp

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"flannel/backend/udp/packet"
	"flannel/internal/ipfam"
)

// arenaSize is room for the headers of many segments.
const arenaSize = 64 << 10

// outward moves packets from the device to the sockets.
type outward struct {
	udp     *udp
	session *session
	reader  *reader
	senders ipfam.Pair[*sender]
	// arena holds headers until they are sent.
	arena    []byte
	used     int
	splitter packet.Splitter
	// table and now are those of the batch.
	table *table
	now   time.Time
}

func newOutward(s *session) *outward {
	o := &outward{udp: s.udp, session: s, reader: newReader(s.tun), arena: make([]byte, arenaSize)}
	for f, socket := range s.sockets.Each() {
		if socket != nil {
			o.senders[f] = newSender(socket, func(m *message, err error) { o.refused(o.senders[f], m, err) })
		}
	}
	return o
}

// run moves packets until the device or a socket fails.
func (o *outward) run() error {
	for {
		frames, err := o.reader.read()
		o.table, o.now = o.udp.tables.Load(), time.Now()
		for _, frame := range frames {
			if err := o.frame(frame); err != nil {
				return err
			}
		}
		if err := errors.Join(o.flush(), err); err != nil {
			return err
		}
	}
}

func (o *outward) flush() error {
	for _, s := range o.senders {
		if s == nil || s.count == 0 {
			continue
		}
		if err := s.flush(); err != nil {
			return err
		}
	}
	o.used = 0
	return nil
}

// frame sends one frame of the device on its way.
func (o *outward) frame(frame []byte) error {
	if len(frame) <= packet.VnetLen {
		return nil
	}
	v := packet.DecodeVnet(frame)
	p, ok := packet.Parse(frame[packet.VnetLen:])
	if !ok {
		o.udp.counters.malformed.Add(1)
		return nil
	}
	to := o.table.find(p)
	if to == nil || o.senders[p.Family()] == nil {
		o.udp.counters.noLease.Add(1)
		o.session.report(packet.NoRoute, p, 0)
		return nil
	}
	if !p.Hop() {
		o.udp.counters.expired.Add(1)
		o.session.report(packet.TimeExceeded, p, 0)
		return nil
	}
	if v.Whole() {
		if !v.Complete(p) {
			o.udp.counters.malformed.Add(1)
			return nil
		}
		return o.whole(to, p)
	}
	return o.segments(to, p, v)
}

// whole sends a packet as it is.
func (o *outward) whole(to *peer, p packet.Packet) error {
	if limit := to.path.limit(o.now); limit != 0 && len(p) > limit {
		return o.tooBig(to, p, limit)
	}
	return o.add(to, p.Outer(to.ecn), p, nil)
}

// segments sends a packet that the kernel has left to us to take apart.
func (o *outward) segments(to *peer, p packet.Packet, v packet.Vnet) error {
	if o.splitter.Start(p, v) != nil {
		o.udp.counters.malformed.Add(1)
		return nil
	}
	if limit := to.path.limit(o.now); limit != 0 && o.splitter.SegmentLen() > limit {
		return o.tooBig(to, p, limit)
	}
	tos, n := p.Outer(to.ecn), o.splitter.Headers()
	for {
		if len(o.arena)-o.used < n {
			if err := o.flush(); err != nil {
				return err
			}
		}
		header := o.arena[o.used : o.used+n : o.used+n]
		body := o.splitter.Next(header)
		if body == nil {
			return nil
		}
		o.used += n
		if err := o.add(to, tos, header, body); err != nil {
			return err
		}
	}
}

func (o *outward) add(to *peer, tos byte, header, body []byte) error {
	s := o.senders[ipfam.Of(to.path.addr)]
	s.add(to, tos, header, body)
	if s.full() {
		return o.flush()
	}
	return nil
}

// tooBig reports to the sender of a packet what fits, or sends the packet in parts
// when its sender allows that.
func (o *outward) tooBig(to *peer, p packet.Packet, limit int) error {
	o.udp.counters.tooBig.Add(1)
	o.session.report(packet.TooBig, p, limit)
	for _, part := range packet.Fragments(p, limit) {
		if err := o.add(to, p.Outer(to.ecn), part, nil); err != nil {
			return err
		}
	}
	return nil
}

// refused is called for a message that the kernel does not send.
func (o *outward) refused(s *sender, m *message, err error) {
	switch {
	case errors.Is(err, unix.EMSGSIZE), errors.Is(err, unix.EINVAL) && m.count > 1:
		o.learnPath(s, m)
	case errors.Is(err, unix.EIO) && m.count > 1:
		o.sendSingly(s)
	default:
		o.unsent(m.peer, m.count, err)
		return
	}
	for _, p := range s.datagrams(m) {
		o.again(s, m.peer, p)
	}
}

// sendSingly is called for each message of many datagrams that was on its way
// when the driver turned out not to take such.
func (o *outward) sendSingly(s *sender) {
	if s.socket.gso {
		s.socket.gso = false
		o.udp.env.Log.Warn("the uplink's driver has no checksum offload, so datagrams are sent one by one", "dev", o.session.setup.uplink)
	}
}

// again sends one packet of a refused message by itself.
func (o *outward) again(s *sender, to *peer, p packet.Packet) {
	limit := to.path.limit(o.now)
	if limit == 0 || len(p) <= limit {
		o.alone(s, to, p)
		return
	}
	o.udp.counters.tooBig.Add(1)
	o.session.report(packet.TooBig, p, limit)
	for _, part := range packet.Fragments(p, limit) {
		o.alone(s, to, part)
	}
}

// alone sends one datagram at once.
func (o *outward) alone(s *sender, to *peer, p packet.Packet) {
	if err := s.socket.sendOne(to, p.Outer(to.ecn), p); err != nil {
		o.unsent(to, 1, err)
	}
}

// unsent counts datagrams that the kernel does not send, and logs once for each
// address why.
func (o *outward) unsent(to *peer, count int, err error) {
	o.udp.counters.unsent.Add(uint64(count))
	if o.udp.sendErrors.First(to.path.addr) {
		o.udp.env.Log.Warn("packets not sent", "dst", to.path.addr, "err", err)
	}
}

// learnPath asks the kernel what fits, which it has learnt from a router.
func (o *outward) learnPath(s *sender, m *message) {
	mtu, err := pathMTU(s.socket.family, m.peer.to)
	if err != nil {
		o.udp.env.Log.Debug("MTU of a path not known", "dst", m.peer.path.addr, "err", err)
		return
	}
	limit := mtu - overhead[s.socket.family]
	if o.session.setup.mtu <= limit {
		return // It was something else that did not fit.
	}
	m.peer.path.learn(limit, o.now)
	o.udp.env.Log.Debug("path with a smaller MTU", "dst", m.peer.path.addr, "mtu", mtu)
}
