package health

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func page(t *testing.T, h http.Handler, path, remote string) (int, string) {
	t.Helper()
	req := httptest.NewRequest(http.MethodGet, path, nil)
	req.RemoteAddr, req.Host = remote, "localhost:8081"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w.Code, w.Body.String()
}

func wantPage(t *testing.T, h http.Handler, path string, code int, lines ...string) {
	t.Helper()
	gotCode, got := page(t, h, path, "127.0.0.1:5000")
	if want := strings.Join(lines, "\n"); gotCode != code || got != want {
		t.Errorf("%s: got %d %q, want %d %q", path, gotCode, got, code, want)
	}
}

func TestReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes atomic.Int64 // a grace time ends on a goroutine of its own
		r := New(func() { changes.Add(1) })
		h := Handler(r, Pages{})
		const ready, notReady = "flanneld is ready", "flanneld is not ready yet"
		wantPage(t, h, "/readyz", 503, notReady)

		lease := r.Require("lease", "waiting for the store")
		device := r.Require("device", "")
		store := r.Note("store", "")
		wantPage(t, h, "/healthz", 200, "flanneld is running")
		wantPage(t, h, "/readyz", 503, notReady, "lease: waiting for the store")

		lease.OK()
		wantPage(t, h, "/readyz", 200, ready)

		store.Fail("no answer\nsince a while")
		time.Sleep(time.Hour)
		wantPage(t, h, "/readyz", 200, ready, "store: no answer since a while")
		store.OK()

		device.Fail("gone")
		time.Sleep(Grace - time.Second)
		device.Fail("still gone")
		wantPage(t, h, "/readyz", 200, ready, "device: still gone")
		before := changes.Load()
		time.Sleep(time.Second)
		synctest.Wait()
		if got := changes.Load(); got != before+1 {
			t.Errorf("got %d changes when the grace time ended, want 1", got-before)
		}
		wantPage(t, h, "/readyz", 503, notReady, "device: still gone")

		device.OK()
		wantPage(t, h, "/readyz", 200, ready)
		before = changes.Load()
		device.OK()
		store.OK()
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := changes.Load(); got != before {
			t.Errorf("got %d changes although nothing changed", got-before)
		}
	})
}

func TestShortFailuresDoNotAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(nil)
		c := r.Require("rules", "")
		for range 5 {
			c.Fail("changed by somebody")
			time.Sleep(Grace - time.Millisecond)
			c.OK()
		}
		synctest.Wait()
		if !r.Ready() {
			t.Error("not ready after troubles that were all shorter than the grace time")
		}
	})
}

func TestPagesThatNamePeers(t *testing.T) {
	status := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { text(w, 200, "peers") })
	tests := []struct {
		name, remote string
		open         bool
		code         int
		want         string
	}{
		{"from this host", "127.0.0.1:4000", false, 200, "peers"},
		{"from this host over IPv6", "[::1]:4000", false, 200, "peers"},
		{"from this host, mapped", "[::ffff:127.0.0.1]:4000", false, 200, "peers"},
		{"from elsewhere", "192.0.2.7:4000", false, 403, "/status answers on loopback only; --status-remote opens it"},
		{"from elsewhere when opened", "192.0.2.7:4000", true, 200, "peers"},
		{"from nowhere", "@", false, 403, "/status answers on loopback only; --status-remote opens it"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := Handler(New(nil), Pages{Status: status, Page: status, StatusRemote: test.open, Metrics: status, Probe: status})
			if code, body := page(t, h, "/status", test.remote); code != test.code || body != test.want {
				t.Errorf("got %d %q, want %d %q", code, body, test.code, test.want)
			}
			if code, _ := page(t, h, "/", test.remote); code != test.code {
				t.Errorf("got %d for /, want %d", code, test.code)
			}
			if code, _ := page(t, h, "/metrics", test.remote); code != 200 {
				t.Errorf("got %d for /metrics, want 200", code)
			}
			// It sends packets: --status-remote does not open it.
			here := strings.HasPrefix(test.name, "from this host")
			if code, body := page(t, h, "/probe", test.remote); (code == 200) != here || !here && body != "/probe answers on loopback only" {
				t.Errorf("got %d %q for /probe", code, body)
			}
		})
	}
}

func TestPagesOfOthersInABrowserOnThisHost(t *testing.T) {
	status := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { text(w, 200, "peers") })
	h := Handler(New(nil), Pages{Status: status, Page: status, Probe: status})
	for _, test := range []struct {
		host, origin string
		code         int
	}{
		{"localhost:8081", "", 200},
		{"127.0.0.1:8081", "", 200},
		{"[::1]:8081", "", 200},
		{"[::1]", "", 200},
		{"127.0.0.1:8081", "http://127.0.0.1:8081", 200},
		{"rebound.example:8081", "", 403},
		{"rebound.example:8081", "http://rebound.example:8081", 403},
		{"127.0.0.1:8081", "http://elsewhere.example", 403},
		{"127.0.0.1:8081", "null", 403},
		{"", "", 403},
	} {
		for _, path := range []string{"/", "/status", "/probe"} {
			req := httptest.NewRequest(http.MethodPost, path, nil)
			req.RemoteAddr, req.Host = "127.0.0.1:5000", test.host
			if test.origin != "" {
				req.Header.Set("Origin", test.origin)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			if w.Code != test.code {
				t.Errorf("%s, host %q, origin %q: got %d %q, want %d", path, test.host, test.origin, w.Code, w.Body, test.code)
			}
		}
	}
}

func TestPagesThatAreNotThere(t *testing.T) {
	h := Handler(New(nil), Pages{})
	for _, path := range []string{"/status", "/metrics", "/"} {
		if code, _ := page(t, h, path, "127.0.0.1:4000"); code != 404 {
			t.Errorf("got %d for %s, want 404", code, path)
		}
	}
}
