package udp

import (
	"errors"
	"io"
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
	client, server := stream(b, ends[0], ends[1], ipfam.V4)
	data := make([]byte, 1<<20)
	b.SetBytes(int64(len(data)))
	written := make(chan error, 1)
	b.ResetTimer()
	go func() {
		for range b.N {
			if _, err := client.Write(data); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	_, err := io.CopyN(io.Discard, server, int64(b.N)*int64(len(data)))
	if err := errors.Join(err, <-written); err != nil {
		b.Fatal(err)
	}
}
