package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

// connectHealth opens a connection to the first host's health port.
func connectHealth(t *testing.T, from *lab.Host, addr string) net.Conn {
	t.Helper()
	conn, err := from.Dial(t.Context(), "tcp", net.JoinHostPort(addr, "8081"))
	lab.Must(t, err)
	lab.Must(t, conn.SetDeadline(time.Now().Add(waitLimit)))
	t.Cleanup(func() { conn.Close() })
	return conn
}

// readyz asks on a connection of its own.
func readyz(t *testing.T, from *lab.Host, addr string) string {
	t.Helper()
	conn := connectHealth(t, from, addr)
	_, err := io.WriteString(conn, "GET /readyz HTTP/1.0\r\n\r\n")
	lab.Must(t, err)
	text, _ := io.ReadAll(conn) // reset when it was refused
	_, body, _ := strings.Cut(string(text), "\r\n\r\n")
	return body
}

func TestHealthPortAndOtherHosts(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2, Flags: []string{"--healthz-ip=0.0.0.0"}})
	h, other := l.Hosts[0], l.Hosts[1]
	h.Flags = []string{"--etcd-prefix=/missing"}
	lab.Must(t, h.StartFlanneld())
	addr := h.Addr(ipfam.V4).String()
	eventually.Says(t, func() (string, bool) {
		_, body, err := h.Flanneld().Get(t.Context(), "/readyz")
		return fmt.Sprint(body, err), strings.Contains(body, "\nnetwork configuration: ")
	})
	if body := readyz(t, h, addr); !strings.Contains(body, "\nnetwork configuration: ") {
		t.Errorf("this host over its address reads\n%s", body)
	}
	if body := readyz(t, other, addr); !strings.Contains(body, "\nnetwork configuration\n") || strings.Contains(body, ": ") {
		t.Errorf("another host reads\n%s", body)
	}

	var open []net.Conn
	for range 8 {
		open = append(open, connectHealth(t, other, addr))
	}
	if body := readyz(t, other, addr); body != "" {
		t.Errorf("with 8 connections open, another host still reads\n%s", body)
	}
	if body := readyz(t, h, addr); body == "" {
		t.Error("this host gets no answer while another one holds its connections open")
	}
	open[0].Close()
	eventually.Says(t, func() (string, bool) { return "no answer", readyz(t, other, addr) != "" })
}
