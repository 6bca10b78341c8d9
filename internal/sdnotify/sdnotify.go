// Package sdnotify tells systemd how the service is doing, as sd_notify(3)
// describes.
package sdnotify

import (
	"fmt"
	"net"
	"strings"
	"time"
)

// Variable is the environment variable that names systemd's socket.
const Variable = "NOTIFY_SOCKET"

// Notifier sends to one socket. The zero Notifier sends nothing.
type Notifier struct {
	socket string
}

// New returns a notifier for the socket named by Variable; getenv is usually
// os.Getenv. Without the variable nothing is ever sent.
func New(getenv func(string) string) Notifier {
	return Notifier{socket: getenv(Variable)}
}

// Ready reports that the service has started.
func (n Notifier) Ready() error { return n.send("READY=1") }

// Status reports in one line for people what the service is doing.
func (n Notifier) Status(text string) error {
	return n.send("STATUS=" + strings.ReplaceAll(text, "\n", "; "))
}

// Stopping reports that the service is about to end.
func (n Notifier) Stopping() error { return n.send("STOPPING=1") }

// ExtendTimeout asks systemd not to give up on a start or a stop for d, counted
// from this moment. It is sent again before d is over.
func (n Notifier) ExtendTimeout(d time.Duration) error {
	return n.send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds()))
}

func (n Notifier) send(state string) error {
	if n.socket == "" {
		return nil
	}
	// A leading @ means an abstract socket, for systemd and for package net.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
