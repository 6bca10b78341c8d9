package kube

import (
	"context"
	"net"
	"time"

	"flannel/internal/loop"
)

// In a large cluster some Node changes all the time, and hardly ever in what a
// lease is made of. Waking up for each change costs more than decoding it, so a
// busy connection is read only a few times per second.
const (
	// readBuffer is how much one read takes, in bytes. A read that fills it
	// leaves more behind: then the next one follows at once.
	readBuffer = 64 << 10
	// paceWindow is how long reads are counted, busyReads how many of them in
	// the last window make the connection busy, and restBetween how long a busy
	// one rests after a read. It rests so briefly that it still counts as busy.
	paceWindow  = time.Second
	busyReads   = 8
	restBetween = paceWindow / 10
)

// pacedConn is a connection with one reader.
type pacedConn struct {
	net.Conn
	// lost is called with the error if the connection ends because nothing came
	// back over it.
	lost   func(error)
	closed context.Context
	close  context.CancelFunc

	// Only the reader uses what follows. rest is the part of buffer that was
	// received and not yet asked for.
	rest, buffer []byte
	pace         pace
}

func newPacedConn(c net.Conn, lost func(error)) *pacedConn {
	p := &pacedConn{Conn: c, lost: lost}
	p.closed, p.close = context.WithCancel(context.Background())
	return p
}

// Read implements net.Conn.
func (c *pacedConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *pacedConn) fill() error {
	if rest := c.pace.rest(time.Now()); rest > 0 {
		_ = loop.Wait(c.closed, rest) // a closed connection reports it when read
	}
	if c.buffer == nil {
		c.buffer = make([]byte, readBuffer)
	}
	n, err := c.Conn.Read(c.buffer)
	c.pace.read(time.Now(), n == len(c.buffer))
	c.rest = c.buffer[:n]
	if n > 0 {
		return nil
	}
	if isDeadPath(err) {
		c.lost(err)
	}
	return err
}

// Close implements net.Conn.
func (c *pacedConn) Close() error {
	c.close()
	return c.Conn.Close()
}

// pace decides when to read next. The zero pace is that of a quiet connection.
type pace struct {
	began time.Time // of the current window
	reads int
	busy  bool
	last  time.Time
	full  bool // the last read has left more behind
}

// read notes a read.
func (p *pace) read(now time.Time, full bool) {
	if over := now.Sub(p.began); over >= paceWindow {
		p.busy = p.reads >= busyReads && over < 2*paceWindow
		p.began, p.reads = now, 0
	}
	p.reads++
	p.last, p.full = now, full
}

// rest returns how long to wait before the next read.
func (p *pace) rest(now time.Time) time.Duration {
	if !p.busy || p.full {
		return 0
	}
	return max(0, restBetween-now.Sub(p.last))
}
