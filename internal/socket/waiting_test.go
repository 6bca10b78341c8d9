package socket

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatExplainsTheRest(t *testing.T) {
	const unready = "flanneld is not ready yet"
	for body, want := range map[string]string{
		unready: unready,
		unready + "\nrules: not written yet\nlease: waiting for a subnet\ndevice: not made yet":                    unready + ": lease: waiting for a subnet",
		unready + "\nstore: cannot be reached: EOF\nwaiting for: a pod CIDR: none\nnetwork configuration: waiting": unready + ": store: cannot be reached: EOF; waiting for: a pod CIDR: none",
		unready + "\nleases: running from state":                                                                   unready,
		"flanneld is ready\npeers: 1 left out":                                                                     "flanneld is ready",
	} {
		if got := Cause(body); got != want {
			t.Errorf("%q: got %q, want %q", body, got, want)
		}
	}
}

func TestWaiting(t *testing.T) {
	dir := folder(t)
	if got := Waiting(t.Context(), filepath.Join(dir, "none.sock")); !strings.HasPrefix(got, "no flanneld answers on "+dir) {
		t.Errorf("got %q", got)
	}
	path := filepath.Join(dir, "subnet.sock")
	listen(t, path, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "flanneld is not ready yet\nuplink: waiting for an interface and its address")
	})
	if got, want := Waiting(t.Context(), path), "flanneld is not ready yet: uplink: waiting for an interface and its address"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
