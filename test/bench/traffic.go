package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/internal/ipfam"
	"flannel/lab"
	"flannel/lab/node"
)

// end is where traffic begins or ends: a network with an address.
type end struct {
	node *node.Node
	addr netip.Addr
}

func endOf(p *lab.Pod) end { return end{p.Node, p.Addr(ipfam.V4)} }

// at is the end's address with a port that it uses for nothing else.
func (e end) at() string {
	const port = 5201
	return netip.AddrPortFrom(e.addr, port).String()
}

func (e end) listen() (l net.Listener, err error) {
	err = e.node.Do(func() (err error) {
		l, err = net.Listen("tcp", e.at())
		return err
	})
	return l, err
}

// talk runs both ends of one TCP connection; client begins.
func talk(ctx context.Context, from, to end, client func(net.Conn) error, server func(net.Listener) error) error {
	listener, err := to.listen()
	if err != nil {
		return err
	}
	defer listener.Close()
	conn, err := from.node.Dial(ctx, "tcp", to.at())
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.Go(func() error {
		defer conn.Close()
		return client(conn)
	})
	group.Go(func() error { return server(listener) })
	return group.Wait()
}

// stream sends as much as one TCP connection takes and returns the speed in
// Gbit/s.
func stream(ctx context.Context, from, to end) (speed float64, err error) {
	err = talk(ctx, from, to, func(conn net.Conn) error {
		return sendUntil(conn, time.Now().Add(lasting+lasting/4))
	}, func(l net.Listener) (err error) {
		speed, err = receive(l)
		return err
	})
	return speed, err
}

func sendUntil(conn net.Conn, end time.Time) error {
	if err := conn.SetDeadline(end); err != nil {
		return err
	}
	b := make([]byte, 256<<10)
	for {
		if _, err := conn.Write(b); err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				return nil
			}
			return err
		}
	}
}

// receive counts what comes after the connection has found its speed.
func receive(l net.Listener) (float64, error) {
	conn, err := l.Accept()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	b := make([]byte, 1<<20)
	total, start := 0, time.Now()
	warm := start.Add(lasting / 4)
	for {
		n, err := conn.Read(b)
		now := time.Now()
		if now.Before(warm) {
			start = now
		} else {
			total += n
		}
		if errors.Is(err, io.EOF) {
			return float64(total) * 8 / 1e9 / now.Sub(start).Seconds(), nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// flood sends datagrams of 1200 bytes as fast as one program can, and returns
// how many arrive per second and how many of them overtook others.
func flood(from, to end) (perSecond, disorder float64, err error) {
	var sink net.PacketConn
	err = to.node.Do(func() (err error) {
		sink, err = net.ListenPacket("udp", to.at())
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	defer sink.Close()
	if err := sink.(*net.UDPConn).SetReadBuffer(8 << 20); err != nil {
		return 0, 0, err
	}
	var conn net.Conn
	err = from.node.Do(func() (err error) {
		conn, err = net.Dial("udp", to.at())
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	var done atomic.Bool
	var group errgroup.Group
	group.Go(func() error {
		number := uint64(0)
		b := make([]byte, 1200)
		for !done.Load() {
			number++
			binary.BigEndian.PutUint64(b, number)
			if _, err := conn.Write(b); err != nil {
				return err
			}
		}
		return nil
	})
	group.Go(func() (err error) {
		defer done.Store(true)
		perSecond, disorder, err = countDatagrams(sink)
		return err
	})
	return perSecond, disorder, group.Wait()
}

func countDatagrams(sink net.PacketConn) (perSecond, disorder float64, err error) {
	b := make([]byte, 2000)
	last, received, start := uint64(0), 0, time.Now()
	if err := sink.SetReadDeadline(start.Add(lasting)); err != nil {
		return 0, 0, err
	}
	for {
		_, _, err := sink.(*net.UDPConn).ReadFromUDPAddrPort(b)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return float64(received) / time.Since(start).Seconds(), disorder, nil
		}
		if err != nil {
			return 0, 0, err
		}
		received++
		number := binary.BigEndian.Uint64(b)
		if number < last {
			disorder++
		}
		last = number
	}
}
