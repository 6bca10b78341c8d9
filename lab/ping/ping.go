// Package ping sends echo requests and counts exactly which were answered.
package ping

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
)

// Conn is a raw ICMP socket. It stays in the network namespace it was opened
// in.
type Conn struct {
	conn   *net.IPConn
	family ipfam.Family
	cookie uint64
}

// Open opens a socket in the network namespace of the calling thread.
func Open(f ipfam.Family) (*Conn, error) {
	network := ipfam.Pair[string]{"ip4:icmp", "ip6:ipv6-icmp"}[f]
	any := ipfam.Pair[string]{"0.0.0.0", "::"}[f]
	pc, err := net.ListenPacket(network, any)
	if err != nil {
		return nil, fmt.Errorf("open an ICMP socket: %w", err)
	}
	c := &Conn{conn: pc.(*net.IPConn), family: f, cookie: rand.Uint64()}
	if err := c.onlyReplies(); err != nil {
		c.Close()
		return nil, fmt.Errorf("filter the ICMP socket: %w", err)
	}
	return c, nil
}

// onlyReplies lets the kernel drop everything but echo replies, so that other
// traffic cannot fill the receive buffer.
func (c *Conn) onlyReplies() error {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return err
	}
	var opt error
	err = raw.Control(func(fd uintptr) {
		if c.family == ipfam.V4 {
			const icmpFilter = 1 // ICMP_FILTER of linux/icmp.h
			opt = unix.SetsockoptInt(int(fd), unix.SOL_RAW, icmpFilter, ^(1 << echoReply[c.family]))
			return
		}
		block := unix.ICMPv6Filter{}
		for i := range block.Data {
			block.Data[i] = ^uint32(0)
		}
		block.Data[echoReply[c.family]/32] &^= 1 << (echoReply[c.family] % 32)
		opt = unix.SetsockoptICMPv6Filter(int(fd), unix.SOL_ICMPV6, unix.ICMPV6_FILTER, &block)
	})
	return errors.Join(err, opt)
}

func (c *Conn) send(to netip.Addr, seq uint32) error {
	_, err := c.conn.WriteToIP(encode(c.family, c.cookie, seq), &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()})
	return err
}

// receive waits for the next reply to this socket's requests.
func (c *Conn) receive(buf []byte) (seq uint32, err error) {
	for {
		n, _, err := c.conn.ReadFromIP(buf)
		if err != nil {
			return 0, err
		}
		if seq, ok := decode(c.family, c.cookie, buf[:n]); ok {
			return seq, nil
		}
	}
}

// Close closes the socket.
func (c *Conn) Close() error { return c.conn.Close() }

// Once sends one request and returns how long the reply took. It waits until
// ctx ends, for one second at most.
func Once(ctx context.Context, c *Conn, to netip.Addr) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Now()) })
	defer stop()
	if ctx.Err() != nil {
		return 0, fmt.Errorf("ping %s: %w", to, ctx.Err())
	}
	start := time.Now()
	if err := c.send(to, 0); err != nil {
		return 0, fmt.Errorf("ping %s: %w", to, err)
	}
	if _, err := c.receive(make([]byte, 1500)); err != nil {
		return 0, fmt.Errorf("ping %s: no reply after %s", to, time.Since(start).Round(time.Millisecond))
	}
	return time.Since(start), nil
}

// Stats are the counts of a Series. Sent is always Received + Lost + Pending.
type Stats struct {
	Sent, Received int
	// Lost counts requests that could not be sent, and those that nobody
	// answered in time.
	Lost int
	// Pending counts requests that may still be answered.
	Pending int
	// LongestGap is the longest time without a reply while requests were sent.
	LongestGap time.Duration
	// Last is when the last reply came; zero when none came.
	Last time.Time
	// SendErr is the last error of sending.
	SendErr error
}

// String returns the counts for people.
func (s Stats) String() string {
	return fmt.Sprintf("%d sent, %d lost, longest gap %s", s.Sent, s.Lost, s.LongestGap.Round(time.Millisecond))
}

// usualPatience is how long a reply may take before the request counts as lost.
const usualPatience = time.Second

// Series sends requests at an interval until Stop.
type Series struct {
	conn     *Conn
	to       netip.Addr
	patience time.Duration

	cancel             context.CancelFunc
	sending, receiving sync.WaitGroup

	mu    sync.Mutex
	start time.Time
	stats Stats
	// answered and sentAt have one element per request.
	answered []bool
	sentAt   []time.Time
	// settled counts the leading requests that are counted as received or
	// lost and will not change.
	settled int
}

// Start begins a series; it owns c. The caller stops it.
func Start(c *Conn, to netip.Addr, interval time.Duration) *Series {
	return StartPatient(c, to, interval, usualPatience)
}

// StartPatient is Start for a machine so busy that a reply may take longer than
// usual before its request counts as lost.
func StartPatient(c *Conn, to netip.Addr, interval, patience time.Duration) *Series {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Series{conn: c, to: to, patience: patience, cancel: cancel, start: time.Now()}
	s.sending.Go(func() { s.sendAll(ctx, interval) })
	s.receiving.Go(s.receiveAll)
	return s
}

func (s *Series) sendAll(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		s.sendNext()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Series) sendNext() {
	s.mu.Lock()
	seq := uint32(len(s.answered))
	s.answered = append(s.answered, false)
	s.sentAt = append(s.sentAt, time.Now())
	s.stats.Sent++
	s.mu.Unlock()
	// Outside the lock: the reply may come before send returns.
	if err := s.conn.send(s.to, seq); err != nil {
		s.mu.Lock()
		s.stats.SendErr = err
		s.mu.Unlock()
	}
}

func (s *Series) receiveAll() {
	buf := make([]byte, 1500)
	for {
		seq, err := s.conn.receive(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			s.reply(seq)
		}
	}
}

func (s *Series) reply(seq uint32) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if int(seq) >= len(s.answered) || s.answered[seq] || now.Sub(s.sentAt[seq]) >= s.patience {
		return
	}
	s.answered[seq] = true
	s.stats.Received++
	s.stats.LongestGap = max(s.stats.LongestGap, now.Sub(s.lastLocked()))
	s.stats.Last = now
}

func (s *Series) lastLocked() time.Time {
	if s.stats.Last.IsZero() {
		return s.start
	}
	return s.stats.Last
}

// Stats returns the counts so far.
func (s *Series) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for ; s.settled < len(s.answered); s.settled++ {
		if s.answered[s.settled] {
			continue
		}
		if now.Sub(s.sentAt[s.settled]) < s.patience {
			break
		}
		s.stats.Lost++
	}
	got := s.stats
	got.Pending = got.Sent - got.Received - got.Lost
	if n := len(s.sentAt); n > 0 {
		got.LongestGap = max(got.LongestGap, s.sentAt[n-1].Sub(s.lastLocked()))
	}
	return got
}

// Stop sends no more, waits until every request is answered or lost, and
// returns the counts.
func (s *Series) Stop() Stats {
	s.cancel()
	s.sending.Wait()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(s.patience + 100*time.Millisecond)
	got := s.Stats()
	for got.Pending > 0 && time.Now().Before(deadline) {
		<-tick.C
		got = s.Stats()
	}
	s.conn.Close()
	s.receiving.Wait()
	return got
}
