package udp

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"

	"flannel/internal/ipfam"
)

// BenchmarkStream moves one TCP stream from node to node, both of which are in
// this process. Its CPU profile shows where the time goes.
func BenchmarkStream(b *testing.B) {
	ends := newEnds(b)
	for _, e := range ends {
		e.move(b, all)
	}
	var listener net.Listener
	var conn net.Conn
	var err error
	ends[1].Do(func() { listener, err = net.Listen("tcp", netip.AddrPortFrom(ends[1].addr(ipfam.V4), 0).String()) })
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	ends[0].Do(func() { conn, err = net.DialTimeout("tcp", listener.Addr().String(), patience) })
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	server, err := listener.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	const chunk = 1 << 20
	b.SetBytes(chunk)
	written := make(chan error, 1)
	data := make([]byte, chunk)
	b.ResetTimer()
	go func() {
		for range b.N {
			if _, err := conn.Write(data); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	_, err = io.CopyN(io.Discard, server, int64(b.N)*chunk)
	if err := errors.Join(err, <-written); err != nil {
		b.Fatal(err)
	}
}
