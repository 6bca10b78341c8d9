package main

import (
	"context"
	"errors"
	"io"
	"net"
	"time"
)

// requests sends one byte over a TCP connection and waits for one byte, over and
// over, and returns how often per second: what latency leaves of a connection.
func requests(ctx context.Context, from, to end) (perSecond float64, err error) {
	err = talk(ctx, from, to, func(conn net.Conn) (err error) {
		perSecond, err = ask(conn)
		return err
	}, answer)
	return perSecond, err
}

func ask(conn net.Conn) (perSecond float64, err error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	b := make([]byte, 1)
	done, start := 0, time.Now()
	for ; time.Since(start) < lasting; done++ {
		if _, err := conn.Write(b); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(conn, b); err != nil {
			return 0, err
		}
	}
	return float64(done) / time.Since(start).Seconds(), nil
}

// answer returns every byte until the other end closes the connection.
func answer(l net.Listener) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	b := make([]byte, 1)
	for {
		if _, err := conn.Read(b); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if _, err := conn.Write(b); err != nil {
			return err
		}
	}
}
