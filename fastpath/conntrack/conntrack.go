// Package conntrack reads and relaxes entries of the kernel's connection tracking.
package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"flannel/kernel/rtnl"
)

// Messages, attributes and bits of linux/netfilter/nfnetlink_conntrack.h and
// nf_conntrack_common.h.
const (
	messageNew    = unix.NFNL_SUBSYS_CTNETLINK << 8
	messageGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	messageDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	attrOrig      = 1
	attrReply     = 2
	attrStatus    = 3
	attrProtoInfo = 4
	attrHelp      = 5
	attrTimeout   = 7
	attrZone      = 18

	tupleIP    = 1
	tupleProto = 2

	addrV4 = 1 // the source; the destination follows
	addrV6 = 3

	protoNumber      = 1
	protoSource      = 2
	protoDestination = 3

	infoTCP = 1

	tcpState      = 1
	tcpFlagsOrig  = 4
	tcpFlagsReply = 5

	beLiberal = 0x08
	maxAckSet = 0x20

	headerSize = 4
)

// Status holds the bits of an entry (enum ip_conntrack_status).
type Status uint32

// The bits that matter here.
const (
	SeenReply Status = 1 << 1
	Assured   Status = 1 << 2
	Confirmed Status = 1 << 3
	// Changed are those of a flow whose packets are rewritten, or are not the
	// stack's: NAT in either direction, adjusted sequence numbers, a helper, an
	// entry that is being deleted, a flow in a flowtable.
	Changed Status = 1<<4 | 1<<5 | 1<<6 | 1<<9 | 1<<13 | 1<<14 | 1<<15
)

// Established is the state of a TCP connection in Entry.TCPState.
const Established = 3

// ErrNotFound means that there is no such entry.
var ErrNotFound = errors.New("no such conntrack entry")

// Tuple is a flow in one direction. Its addresses are never IPv4 in IPv6.
type Tuple struct {
	Src, Dst netip.AddrPort
	Protocol uint8
}

// Reverse returns the other direction.
func (t Tuple) Reverse() Tuple { return Tuple{t.Dst, t.Src, t.Protocol} }

// Entry is what conntrack knows of a flow.
type Entry struct {
	Orig, Reply Tuple
	Status      Status
	TCPState    uint8
	Zone        uint16
	Helper      bool
	// Timeout is how long the entry lives without packets.
	Timeout time.Duration
}

// Conn asks the kernel. It can be used by several goroutines at once.
type Conn struct{ conn *rtnl.Conn }

// Dial opens a socket in a namespace. The zero namespace is the current one.
func Dial(namespace int) (*Conn, error) {
	conn, err := rtnl.DialNetfilter(namespace)
	if err != nil {
		return nil, fmt.Errorf("open socket for conntrack: %w", err)
	}
	return &Conn{conn}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Get returns the entry without a zone that has the tuple in either direction.
func (c *Conn) Get(t Tuple) (entry Entry, err error) {
	found := false
	err = c.conn.Dump(func(b *rtnl.Batch) { begin(b, messageGet, t) }, func(m rtnl.Message) {
		entry, found = parse(m.Body)
	})
	switch {
	case err != nil:
		return entry, notFound(err)
	case !found:
		return entry, fmt.Errorf("read entry: %w", unix.EBADMSG)
	}
	return entry, nil
}

// List passes all entries.
func (c *Conn) List(each func(Entry)) error {
	return c.conn.Dump(func(b *rtnl.Batch) {
		b.Begin(messageGet, unix.NLM_F_DUMP, []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0})
	}, func(m rtnl.Message) {
		if e, ok := parse(m.Body); ok {
			each(e)
		}
	})
}

// Relax makes conntrack accept TCP packets of the entry whatever it has missed, as
// the kernel does for flows in a flowtable: windows are not checked, and nor is a
// RST against the last acknowledgment. It changes nothing of other protocols.
func (c *Conn) Relax(t Tuple) error {
	if t.Protocol != unix.IPPROTO_TCP {
		return nil
	}
	flags := []byte{beLiberal, beLiberal | maxAckSet} // value, mask
	return notFound(c.conn.One(func(b *rtnl.Batch) {
		begin(b, messageNew, t)
		b.Nest(attrProtoInfo|unix.NLA_F_NESTED, func() {
			b.Nest(infoTCP|unix.NLA_F_NESTED, func() {
				b.Bytes(tcpFlagsOrig, flags)
				b.Bytes(tcpFlagsReply, flags)
			})
		})
	}))
}

// SetTimeout makes the entry live that long without packets.
func (c *Conn) SetTimeout(t Tuple, d time.Duration) error {
	return notFound(c.conn.One(func(b *rtnl.Batch) {
		begin(b, messageNew, t)
		b.Bytes(attrTimeout, binary.BigEndian.AppendUint32(nil, uint32(d/time.Second)))
	}))
}

// Delete removes the entry.
func (c *Conn) Delete(t Tuple) error {
	return notFound(c.conn.One(func(b *rtnl.Batch) { begin(b, messageDelete, t) }))
}

func notFound(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return ErrNotFound
	}
	return err
}

// begin starts a request about an entry.
func begin(b *rtnl.Batch, typ uint16, t Tuple) {
	family, first := byte(unix.AF_INET), uint16(addrV4)
	if t.Src.Addr().Is6() {
		family, first = unix.AF_INET6, addrV6
	}
	port := func(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }
	b.Begin(typ, 0, []byte{family, unix.NFNETLINK_V0, 0, 0})
	b.Nest(attrOrig|unix.NLA_F_NESTED, func() {
		b.Nest(tupleIP|unix.NLA_F_NESTED, func() {
			b.Addr(first, t.Src.Addr())
			b.Addr(first+1, t.Dst.Addr())
		})
		b.Nest(tupleProto|unix.NLA_F_NESTED, func() {
			b.Bytes(protoNumber, []byte{t.Protocol})
			b.Bytes(protoSource, port(t.Src.Port()))
			b.Bytes(protoDestination, port(t.Dst.Port()))
		})
	})
}

// parse reads an entry as the kernel describes it.
func parse(body []byte) (e Entry, ok bool) {
	if len(body) < headerSize {
		return e, false
	}
	for typ, value := range rtnl.Attrs(body[headerSize:]) {
		switch typ {
		case attrOrig:
			e.Orig = parseTuple(value)
		case attrReply:
			e.Reply = parseTuple(value)
		case attrStatus:
			e.Status = Status(number(value))
		case attrProtoInfo:
			e.TCPState = parseState(value)
		case attrHelp:
			e.Helper = true
		case attrTimeout:
			e.Timeout = time.Duration(number(value)) * time.Second
		case attrZone:
			e.Zone = uint16(number(value))
		}
	}
	return e, e.Orig.Src.IsValid() && e.Orig.Dst.IsValid()
}

// number reads a number as it lies on the wire.
func number(b []byte) (n uint64) {
	for _, each := range b {
		n = n<<8 | uint64(each)
	}
	return n
}

func parseState(info []byte) (state uint8) {
	for typ, value := range rtnl.Attrs(info) {
		if typ != infoTCP {
			continue
		}
		for typ, value := range rtnl.Attrs(value) {
			if typ == tcpState {
				state = uint8(number(value))
			}
		}
	}
	return state
}

func parseTuple(b []byte) (t Tuple) {
	var addrs [2]netip.Addr
	var ports [2]uint16
	for typ, value := range rtnl.Attrs(b) {
		for inner, value := range rtnl.Attrs(value) {
			switch {
			case typ == tupleIP && inner >= addrV4 && inner <= addrV6+1:
				addrs[(inner-addrV4)%2] = rtnl.Addr(value)
			case typ == tupleProto && inner == protoNumber:
				t.Protocol = uint8(number(value))
			case typ == tupleProto && inner == protoSource:
				ports[0] = uint16(number(value))
			case typ == tupleProto && inner == protoDestination:
				ports[1] = uint16(number(value))
			}
		}
	}
	t.Src, t.Dst = netip.AddrPortFrom(addrs[0], ports[0]), netip.AddrPortFrom(addrs[1], ports[1])
	return t
}
