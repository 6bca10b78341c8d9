package socket

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// folder returns one with a path short enough for a socket.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// listen listens and answers until the test ends.
func listen(t *testing.T, path string, h http.HandlerFunc) net.Listener {
	t.Helper()
	listener, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return listener
}

func TestThePathIsThatOfTheSubnetFile(t *testing.T) {
	for file, want := range map[string]string{
		"/run/flannel/subnet.env": "/run/flannel/subnet.sock",
		"/run/flannel/blue.env":   "/run/flannel/blue.sock",
		"/run/flannel/subnet":     "/run/flannel/subnet.sock",
	} {
		if got := Path(file); got != want {
			t.Errorf("%s: got %s, want %s", file, got, want)
		}
	}
}

func TestAsking(t *testing.T) {
	path := filepath.Join(folder(t), "made", "subnet.sock")
	long := strings.Repeat("0123456789\n", 100_000)
	listen(t, path, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, long)
	})
	code, body, err := Get(t.Context(), path, "/readyz")
	if code != http.StatusServiceUnavailable || string(body) != long || err != nil {
		t.Errorf("got %d, %d bytes, %v", code, len(body), err)
	}
	if code, body, err := Get(t.Context(), path, "/none"); code != http.StatusNotFound || len(body) != 0 || err != nil {
		t.Errorf("got %d, %q, %v", code, body, err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|mode {
		t.Errorf("got %v, %v, want a socket for root alone", info, err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	dir := folder(t)
	stale := filepath.Join(dir, "stale.sock")
	listener, err := Listen(t.Context(), stale)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = listener.Close()
	for _, path := range []string{stale, filepath.Join(dir, "none.sock")} {
		if _, _, err := Get(t.Context(), path, "/readyz"); !errors.Is(err, ErrNoDaemon) {
			t.Errorf("%s: got %v, want no daemon", path, err)
		}
	}
}

func TestADaemonThatDoesNotAnswer(t *testing.T) {
	path := filepath.Join(folder(t), "subnet.sock")
	listener, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, _, err := Get(ctx, path, "/readyz"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that the time is over", err)
	}
}

func TestAnswersThatAreNotHTTP(t *testing.T) {
	for _, answer := range []string{"", "SSH-2.0-x\r\n\r\n", "HTTP/1.0 200 OK\r\n", "HTTP/1.0\r\n\r\n", "HTTP/1.0 OK OK\r\n\r\n"} {
		if _, _, err := parse([]byte(answer)); err == nil {
			t.Errorf("%q is taken for an answer", answer)
		}
	}
}

func TestTheSocketOfADaemonThatEndedIsReplaced(t *testing.T) {
	path := filepath.Join(folder(t), "subnet.sock")
	first, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false) // as one that was killed
	_ = first.Close()
	listen(t, path, func(http.ResponseWriter, *http.Request) {})
	if code, _, err := Get(t.Context(), path, "/"); code != http.StatusOK || err != nil {
		t.Errorf("got %d, %v", code, err)
	}
}

func TestWhatIsNotReplaced(t *testing.T) {
	dir := folder(t)
	file, link := filepath.Join(dir, "file.sock"), filepath.Join(dir, "link.sock")
	if err := os.WriteFile(file, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	used := filepath.Join(dir, "used.sock")
	listen(t, used, func(http.ResponseWriter, *http.Request) {})
	for path, want := range map[string]string{
		file: "is not a socket", link: "is not a socket", used: "another flanneld answers",
	} {
		listener, err := Listen(t.Context(), path)
		if err == nil {
			_ = listener.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
	if code, _, err := Get(t.Context(), used, "/"); code != http.StatusOK || err != nil {
		t.Errorf("the daemon that was there: got %d, %v", code, err)
	}
}

func TestASocketThatEndsIsRemoved(t *testing.T) {
	path := filepath.Join(folder(t), "subnet.sock")
	listener, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that it is gone", err)
	}
}
