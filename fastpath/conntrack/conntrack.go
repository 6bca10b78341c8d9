// Package conntrack reads and relaxes entries of the kernel's connection tracking.
package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Messages, attributes and bits of linux/netfilter/nfnetlink_conntrack.h and
// nf_conntrack_common.h.
const (
	messageNew    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 0
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
type Conn struct{ conn *netlink.Conn }

// Dial opens a socket in a namespace. The zero namespace is the current one.
func Dial(namespace int) (*Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: namespace})
	if err != nil {
		return nil, fmt.Errorf("open socket for conntrack: %w", err)
	}
	return &Conn{conn}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Get returns the entry without a zone that has the tuple in either direction.
func (c *Conn) Get(t Tuple) (Entry, error) {
	answer, err := c.request(messageGet, 0, t, nil)
	if err != nil {
		return Entry{}, err
	}
	if len(answer) == 0 {
		return Entry{}, fmt.Errorf("read entry: %w", unix.EBADMSG)
	}
	return parse(answer[0].Data)
}

// Relax makes conntrack accept TCP packets of the entry whatever it has missed, as
// the kernel does for flows in a flowtable: windows are not checked, and nor is a
// RST against the last acknowledgment. It changes nothing of other protocols.
func (c *Conn) Relax(t Tuple) error {
	if t.Protocol != unix.IPPROTO_TCP {
		return nil
	}
	flags := []byte{beLiberal, beLiberal | maxAckSet} // value, mask
	_, err := c.request(messageNew, netlink.Acknowledge, t, func(e *netlink.AttributeEncoder) {
		e.Nested(attrProtoInfo, func(e *netlink.AttributeEncoder) error {
			e.Nested(infoTCP, func(e *netlink.AttributeEncoder) error {
				e.Bytes(tcpFlagsOrig, flags)
				e.Bytes(tcpFlagsReply, flags)
				return nil
			})
			return nil
		})
	})
	return err
}

// SetTimeout makes the entry live that long without packets.
func (c *Conn) SetTimeout(t Tuple, d time.Duration) error {
	_, err := c.request(messageNew, netlink.Acknowledge, t, func(e *netlink.AttributeEncoder) {
		e.Uint32(attrTimeout, uint32(d/time.Second))
	})
	return err
}

// Delete removes the entry.
func (c *Conn) Delete(t Tuple) error {
	_, err := c.request(messageDelete, netlink.Acknowledge, t, nil)
	return err
}

func (c *Conn) request(typ uint16, flags netlink.HeaderFlags, t Tuple, more func(*netlink.AttributeEncoder)) ([]netlink.Message, error) {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	e.Nested(attrOrig, t.encode)
	if more != nil {
		more(e)
	}
	attrs, err := e.Encode()
	if err != nil {
		return nil, err
	}
	family := byte(unix.AF_INET)
	if t.Src.Addr().Is6() {
		family = unix.AF_INET6
	}
	answer, err := c.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, ErrNotFound
	}
	return answer, err
}

func (t Tuple) encode(e *netlink.AttributeEncoder) error {
	e.Nested(tupleIP, func(e *netlink.AttributeEncoder) error {
		first := uint16(1) // IPv4 source, destination; the same of IPv6
		if t.Src.Addr().Is6() {
			first = 3
		}
		e.Bytes(first, t.Src.Addr().AsSlice())
		e.Bytes(first+1, t.Dst.Addr().AsSlice())
		return nil
	})
	e.Nested(tupleProto, func(e *netlink.AttributeEncoder) error {
		e.Uint8(protoNumber, t.Protocol)
		e.Uint16(protoSource, t.Src.Port())
		e.Uint16(protoDestination, t.Dst.Port())
		return nil
	})
	return nil
}

// parse reads an entry as the kernel describes it.
func parse(message []byte) (Entry, error) {
	var entry Entry
	if len(message) < headerSize {
		return entry, fmt.Errorf("read entry: %w", unix.EBADMSG)
	}
	d, err := netlink.NewAttributeDecoder(message[headerSize:])
	if err != nil {
		return entry, fmt.Errorf("read entry: %w", err)
	}
	d.ByteOrder = binary.BigEndian
	for d.Next() {
		switch d.Type() {
		case attrOrig:
			d.Nested(entry.Orig.decode)
		case attrReply:
			d.Nested(entry.Reply.decode)
		case attrStatus:
			entry.Status = Status(d.Uint32())
		case attrProtoInfo:
			d.Nested(entry.decodeInfo)
		case attrHelp:
			entry.Helper = true
		case attrTimeout:
			entry.Timeout = time.Duration(d.Uint32()) * time.Second
		case attrZone:
			entry.Zone = d.Uint16()
		}
	}
	if err := d.Err(); err != nil {
		return entry, fmt.Errorf("read entry: %w", err)
	}
	return entry, nil
}

func (e *Entry) decodeInfo(d *netlink.AttributeDecoder) error {
	for d.Next() {
		if d.Type() == infoTCP {
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					if d.Type() == tcpState {
						e.TCPState = d.Uint8()
					}
				}
				return nil
			})
		}
	}
	return nil
}

func (t *Tuple) decode(d *netlink.AttributeDecoder) error {
	var addrs [2]netip.Addr
	var ports [2]uint16
	for d.Next() {
		switch d.Type() {
		case tupleIP:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					if n := d.Type(); n >= 1 && n <= 4 {
						addrs[(n-1)%2], _ = netip.AddrFromSlice(d.Bytes())
					}
				}
				return nil
			})
		case tupleProto:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					switch d.Type() {
					case protoNumber:
						t.Protocol = d.Uint8()
					case protoSource:
						ports[0] = d.Uint16()
					case protoDestination:
						ports[1] = d.Uint16()
					}
				}
				return nil
			})
		}
	}
	t.Src, t.Dst = netip.AddrPortFrom(addrs[0], ports[0]), netip.AddrPortFrom(addrs[1], ports[1])
	return nil
}
