package sdnotify

import (
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestMessages(t *testing.T) {
	sockets := map[string]string{
		"a socket file":      filepath.Join(t.TempDir(), "notify"),
		"an abstract socket": fmt.Sprintf("@flannel-test-%d", time.Now().UnixNano()),
	}
	for name, socket := range sockets {
		t.Run(name, func(t *testing.T) {
			server, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			n := New(func(key string) string { return map[string]string{Variable: socket}[key] })
			tests := []struct {
				send func() error
				want string
			}{
				{n.Ready, "READY=1"},
				{n.Stopping, "STOPPING=1"},
				{func() error { return n.Status("waiting\nfor a lease") }, "STATUS=waiting; for a lease"},
				{func() error { return n.ExtendTimeout(90 * time.Second) }, "EXTEND_TIMEOUT_USEC=90000000"},
			}
			for _, test := range tests {
				if err := test.send(); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 256)
				size, err := server.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				if got := string(buf[:size]); got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
			}
		})
	}
}

func TestWithoutTheVariableNothingIsSent(t *testing.T) {
	n := New(func(string) string { return "" })
	if err := n.Ready(); err != nil {
		t.Error(err)
	}
}

func TestAMissingSocketIsAnError(t *testing.T) {
	n := New(func(string) string { return filepath.Join(t.TempDir(), "none") })
	if err := n.Ready(); err == nil {
		t.Error("got no error")
	}
}
