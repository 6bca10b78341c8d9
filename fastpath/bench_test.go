package fastpath

import (
	"io"
	"net"
	"testing"

	"flannel/internal/ipfam"
)

// benchHosts are two hosts with a connection that is fast, or not.
func benchHosts(b *testing.B, fast bool) (client, server *net.TCPConn) {
	hosts := twoHosts(b, overVXLAN)
	if fast {
		for _, h := range hosts {
			h.run(b, Options{})
		}
	}
	client, server = connect(b, hosts[0], hosts[1], ipfam.V4)
	if fast {
		untilFast(b, hosts, client, server)
	}
	return client, server
}

func BenchmarkStream(b *testing.B) {
	for _, fast := range []bool{false, true, false, true} {
		b.Run(map[bool]string{false: "stack", true: "fast"}[fast], func(b *testing.B) {
			client, server := benchHosts(b, fast)
			const size = 1 << 20
			data := make([]byte, size)
			b.SetBytes(size)
			go func() {
				for {
					if _, err := client.Write(data); err != nil {
						return
					}
				}
			}()
			buffer := make([]byte, size)
			for b.Loop() {
				if _, err := io.ReadFull(server, buffer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRequests(b *testing.B) {
	for _, fast := range []bool{false, true, false, true} {
		b.Run(map[bool]string{false: "stack", true: "fast"}[fast], func(b *testing.B) {
			client, server := benchHosts(b, fast)
			go func() { _, _ = io.Copy(server, server) }()
			message := make([]byte, 1)
			for b.Loop() {
				if _, err := client.Write(message); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(client, message); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
