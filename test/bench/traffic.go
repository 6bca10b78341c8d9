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
	"flannel/internal/lab"
)

// at is an address of a pod with a port that the pod uses for nothing else.
func at(p *lab.Pod) netip.AddrPort {
	const port = 5201
	return netip.AddrPortFrom(p.Addr(ipfam.V4), port)
}

// stream sends as much as one TCP connection takes and returns the speed in
// Gbit/s.
func stream(ctx context.Context, from, to *lab.Pod) (float64, error) {
	var listener net.Listener
	err := to.Do(func() (err error) {
		listener, err = net.Listen("tcp", at(to).String())
		return err
	})
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	conn, err := from.Dial(ctx, "tcp", at(to).String())
	if err != nil {
		return 0, err
	}
	var group errgroup.Group
	group.Go(func() error {
		defer conn.Close()
		return sendUntil(conn, time.Now().Add(lasting+lasting/4))
	})
	var speed float64
	group.Go(func() (err error) {
		speed, err = receive(listener)
		return err
	})
	return speed, group.Wait()
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
func flood(from, to *lab.Pod) (perSecond, disorder float64, err error) {
	var sink net.PacketConn
	err = to.Do(func() (err error) {
		sink, err = net.ListenPacket("udp", at(to).String())
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
	err = from.Do(func() (err error) {
		conn, err = net.Dial("udp", at(to).String())
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
