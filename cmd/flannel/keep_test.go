package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

func TestCheck(t *testing.T) {
	tests := []struct{ name, delegates, cniVersion string }{
		{"0.4.0", debian, "0.4.0"}, {"1.0.0", debian, "1.0.0"}, {"built 1.0.0", built(t), "1.0.0"}, {"built 1.1.0", built(t), "1.1.0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHostWith(t, test.delegates, test.cniVersion)
			h.writeSubnet(subnetDual)
			p := newPod(t, "a")
			h.mustAdd(p)
			var warnings bytes.Buffer
			h.Stderr = &warnings
			check := func() error { return h.cni.CheckNetworkList(t.Context(), h.list(), p.runtime) }
			if err := check(); err != nil || warnings.Len() > 0 {
				t.Fatalf("got %v and %q, want neither", err, warnings.String())
			}
			h.writeSubnet(strings.Replace(subnetDual, "10.244.17", "10.244.99", 1))
			if err := check(); err != nil {
				t.Fatal(err)
			}
			const outside = "flannel: 10.244.17.2 is outside this node's subnet 10.244.99.0/24: other nodes do not reach it; recreate the pod\n"
			if got := warnings.String(); got != outside {
				t.Errorf("got %q, want %q", got, outside)
			}
			p.DelLink("eth0")
			if err := check(); err == nil || !strings.Contains(err.Error(), "delegate bridge") {
				t.Errorf("got %v, want the delegate's error", err)
			}
			if err := os.Remove(filepath.Join(h.scratchDir(), "a")); err != nil {
				t.Fatal(err)
			}
			wantError(t, check(), types.ErrUnknownContainer, "recreate the pod")
		})
	}
}

func TestStatus(t *testing.T) {
	t.Run("Debian", func(t *testing.T) { t.Parallel(); status(t, debian) })
	t.Run("built", func(t *testing.T) { t.Parallel(); status(t, built(t)) })
}

func status(t *testing.T, delegates string) {
	h := newHostWith(t, delegates, "1.1.0")
	status := func() error { return h.cni.GetStatusNetworkList(t.Context(), h.list()) }
	wantError(t, status(), 50, "flanneld writes it once it has a subnet")
	h.writeSubnet("FLANNEL_MTU=1450\n")
	wantError(t, status(), 50, "FLANNEL_SUBNET is missing")
	h.writeSubnet(subnetV4)
	// Debian's bridge does not know STATUS.
	if err := status(); err != nil {
		t.Error(err)
	}
	h.script("bridge", `if [ $CNI_COMMAND = VERSION ]; then
			echo '{"cniVersion": "1.1.0", "supportedVersions": ["1.0.0", "1.1.0"]}'
			exit
		fi
		echo '{"code": 50, "msg": "no bridge today"}'
		exit 1`)
	wantError(t, status(), 50, "delegate bridge: no bridge today")
	h.conf = strings.Replace(h.conf, "isDefaultGateway", `type": "nowhere", "isDefaultGateway`, 1)
	wantError(t, status(), 50, "plugin nowhere is not in")
}

func TestGCGivesBackWhatIsGone(t *testing.T) { eachDelegates(t, gcGivesBack) }

func gcGivesBack(t *testing.T, delegates, cniVersion string) {
	h := newHostWith(t, delegates, cniVersion)
	h.writeSubnet(subnetDual)
	kept, gone := newPod(t, "kept"), newPod(t, "gone")
	h.mustAdd(kept)
	h.mustAdd(gone)
	h.upgrade("1.1.0")
	// The runtime has lost its own notes: it will never call DEL.
	if err := os.RemoveAll(filepath.Join(h.dir, "cache")); err != nil {
		t.Fatal(err)
	}
	h.leave("scratch/other", `{"name": "another", "type": "bridge"}`)
	h.leave("scratch/.gone.123", `{"na`)
	h.leave("scratch/empty", "")
	h.leave("networks/cbr0/10.244.17.77", "early")
	h.leave("networks/cbr0/10.244.17.78", "")
	h.leave("networks/cbr0/10.244.17.79", "kept")
	h.leave("networks/cbr0/10.244.17.80", "kept\r\neth1")
	h.leave("networks/another/10.244.17.99", "gone\r\neth0")
	if err := h.gc(kept); err != nil {
		t.Fatal(err)
	}
	want(t, "scratch", names(t, h.scratchDir()), "kept", "other")
	want(t, "reserved", h.reserved(), "10.244.17.2", "10.244.17.79", "fd00:10:244:3::2")
	want(t, "another network", names(t, filepath.Join(h.dir, "networks/another")), "10.244.17.99")
	if err := h.gc(); err != nil {
		t.Fatal(err)
	}
	want(t, "scratch", names(t, h.scratchDir()), "other")
	want(t, "reserved", h.reserved())
}

func TestGCWithoutAListRemovesNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t, "1.0.0")
	h.writeSubnet(subnetV4)
	h.mustAdd(newPod(t, "a"))
	h.upgrade("1.1.0")
	text := h.list().Plugins[0].Bytes
	stdin := strings.Replace(string(text), "{", `{"name": "cbr0", "cniVersion": "1.1.0", `, 1)
	_, err := h.ExecPlugin(t.Context(), filepath.Join(h.dir, "flannel"), []byte(stdin),
		append(os.Environ(), "CNI_COMMAND=GC", "CNI_PATH="+h.dir+":"+h.delegates))
	if err != nil {
		t.Fatal(err)
	}
	want(t, "reserved", h.reserved(), "10.244.17.2")
	want(t, "scratch", h.scratch(), "a")
}

func TestGCWaitsForHostLocal(t *testing.T) {
	t.Parallel()
	h := newHost(t, "1.1.0")
	h.leave("networks/cbr0/10.244.17.2", "gone\r\neth0")
	lock, err := os.Create(filepath.Join(h.dir, "networks/cbr0/lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- h.gc() }()
	select {
	case err := <-done:
		t.Fatalf("got %v, want it to wait for the lock", err)
	case <-time.After(200 * time.Millisecond):
	}
	want(t, "reserved", h.reserved(), "10.244.17.2")
	lock.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want(t, "reserved", h.reserved())
}

// leave writes a file as somebody left it an hour ago.
func (h *host) leave(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		h.t.Fatal(err)
	}
}
