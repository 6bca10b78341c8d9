package rtnl

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrInterrupted is returned by a dump, ours or that of a Handle, when the
// kernel's table changed so much meanwhile that the result may be incomplete.
var ErrInterrupted error = netlink.ErrDumpInterrupted

// A batch is small enough that the answers to all its requests fit into the
// default receive buffer, should all of them fail.
const batchSize = 64

// The kernel fills up to 32 KiB per read of a dump.
const receiveSize = 32 << 10

// Conn sends requests and waits for their answers. It can be used by several
// goroutines at once.
type Conn struct {
	mu    sync.Mutex
	fd    int
	port  uint32
	seq   uint32
	batch Batch
	recv  []byte
}

// Dial opens a socket in a namespace. The zero namespace is the current one.
func Dial(namespace int) (*Conn, error) { return dial(namespace, unix.NETLINK_ROUTE) }

// DialNetfilter opens a socket for the messages of netfilter.
func DialNetfilter(namespace int) (*Conn, error) { return dial(namespace, unix.NETLINK_NETFILTER) }

func dial(namespace, protocol int) (*Conn, error) {
	fd, err := socket(namespace, unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, err
	}
	// All three are missing on old kernels, which then send more than asked
	// for or say less in errors.
	for _, option := range []int{unix.NETLINK_GET_STRICT_CHK, unix.NETLINK_CAP_ACK, unix.NETLINK_EXT_ACK} {
		_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, option, 1)
	}
	port, err := bind(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &Conn{fd: fd, port: port, recv: make([]byte, receiveSize)}, nil
}

// Port is what Message.Port holds in events that this connection causes.
func (c *Conn) Port() uint32 { return c.port }

// Close ends the connection. Nobody may use it afterwards.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return os.NewSyscallError("close", unix.Close(c.fd))
}

// Do sends n requests and waits until all have been carried out. build adds
// request i with Begin; fail is called for each request that the kernel
// refuses. The error wraps an errno.
func (c *Conn) Do(n int, build func(b *Batch, i int), fail func(i int, err error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for first := 0; first < n; first += batchSize {
		last := min(first+batchSize, n)
		c.batch.reset()
		for i := first; i < last; i++ {
			build(&c.batch, i)
		}
		answered, err := c.exchangeLocked(func(i int, err error) { fail(first+i, err) })
		for i := first + answered; err != nil && i < last; i++ {
			fail(i, err)
		}
	}
}

// One sends a single request.
func (c *Conn) One(build func(b *Batch)) error {
	var failed error
	c.Do(1, func(b *Batch, _ int) { build(b) }, func(_ int, err error) { failed = err })
	return failed
}

// exchangeLocked sends the batch and reads answers up to the one of its last
// request. With an error it returns how many requests have been answered.
func (c *Conn) exchangeLocked(fail func(i int, err error)) (int, error) {
	count := len(c.batch.starts)
	first := c.sendLocked()
	if first.err != nil {
		return 0, first.err
	}
	for next := 0; ; {
		n, err := c.receiveLocked()
		if err != nil {
			return next, err
		}
		for m := range Messages(c.recv[:n]) {
			i := int(m.Seq - first.seq)
			if m.Type != unix.NLMSG_ERROR || i < 0 || i >= count {
				continue
			}
			if err := answer(m); err != nil {
				fail(i, err)
			}
			next = i + 1
			if next == count {
				return next, nil
			}
		}
	}
}

type sent struct {
	seq uint32
	err error
}

func (c *Conn) sendLocked() sent {
	first := c.seq + 1
	c.seq += uint32(len(c.batch.starts))
	c.batch.number(first)
	for {
		err := unix.Sendto(c.fd, c.batch.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return sent{first, os.NewSyscallError("sendto", err)}
		}
	}
}

func (c *Conn) receiveLocked() (int, error) {
	for {
		n, err := unix.Read(c.fd, c.recv)
		if !errors.Is(err, unix.EINTR) {
			return n, os.NewSyscallError("read", err)
		}
	}
}

// Dump asks for a table and passes each message of the answer. The message is
// valid during the call only.
func (c *Conn) Dump(build func(b *Batch), each func(m Message)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batch.reset()
	build(&c.batch)
	first := c.sendLocked()
	if first.err != nil {
		return first.err
	}
	interrupted := false
	for {
		n, err := c.receiveLocked()
		if err != nil {
			return err
		}
		for m := range Messages(c.recv[:n]) {
			if m.Seq != first.seq {
				continue
			}
			interrupted = interrupted || m.Flags&unix.NLM_F_DUMP_INTR != 0
			switch m.Type {
			case unix.NLMSG_DONE:
				if err := answer(m); err != nil {
					return err
				}
				if interrupted {
					return ErrInterrupted
				}
				return nil
			case unix.NLMSG_ERROR:
				return answer(m)
			default:
				each(m)
			}
		}
	}
}

// answer returns the error of an answer: nil, or an errno with the kernel's
// own words.
func answer(m Message) error {
	code := int32(Uint32(m.Body))
	if code == 0 {
		return nil
	}
	errno := syscall.Errno(-code)
	const header = 4 + unix.SizeofNlMsghdr // The code and the head of the request.
	if m.Flags&unix.NLM_F_ACK_TLVS == 0 || len(m.Body) < header {
		return errno
	}
	for typ, value := range Attrs(m.Body[header:]) {
		if typ == unix.NLMSGERR_ATTR_MSG {
			return fmt.Errorf("%w (%s)", errno, Text(value))
		}
	}
	return errno
}
