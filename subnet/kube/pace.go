package kube

import (
	"context"
	"net"
	"sync"
	"time"
)

// In a large cluster some Node changes all the time, and hardly ever in what
// matters here. To wake up for each of them costs more than to decode it, so a
// connection on which much happens is read some times a second only.
const (
	// readBuffer is how much one read takes, in bytes. A read that fills it
	// leaves more behind: then the next one follows at once.
	readBuffer = 64 << 10
	// paceWindow is how long reads are counted, busyReads how many of them in
	// the last window make the connection busy, and restBetween how long a busy
	// one rests after a read: less than makes it count as quiet.
	paceWindow  = time.Second
	busyReads   = 8
	restBetween = paceWindow / 10
)

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// paced makes connections that are read some times a second at most. lost is
// called with the error of a connection that ends because nothing came back
// over it.
func paced(dial dialFunc, lost func(error)) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &pacedConn{Conn: c, lost: lost, closed: make(chan struct{})}, nil
	}
}

// pacedConn is a connection with one reader.
type pacedConn struct {
	net.Conn
	lost    func(error)
	closed  chan struct{}
	closing sync.Once

	// The reader owns what follows. rest is what was read and not yet asked
	// for; it lies in buffer.
	rest, buffer []byte
	pace         pace
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
		timer := time.NewTimer(rest)
		select {
		case <-timer.C:
		case <-c.closed: // the read says so
		}
		timer.Stop()
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
	c.closing.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// pace says when to read next. The zero pace is that of a quiet connection.
type pace struct {
	began time.Time // the present window
	reads int
	busy  bool
	last  time.Time
	full  bool // the last read left more behind
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
