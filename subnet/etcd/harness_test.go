package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/etcdtest"
	"flannel/subnet"
	"flannel/subnet/subnettest"
)

// harness is one prefix in a real etcd.
type harness struct {
	server *etcdtest.Server
	client *clientv3.Client
	prefix string
}

func newHarness(t *testing.T, server *etcdtest.Server, prefix string) *harness {
	t.Helper()
	h := &harness{server: server, client: server.Client(), prefix: prefix}
	t.Cleanup(func() { h.checkKeys(t) })
	return h
}

// options are those of a manager in tests; change them before newManager.
func (h *harness) options() Options {
	return Options{
		Endpoints: []string{h.server.Endpoint()}, Prefix: h.prefix, RenewMargin: time.Hour,
		Log: slog.New(slog.DiscardHandler),
	}
}

func newManager(t *testing.T, o Options) *Manager {
	t.Helper()
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return m
}

func (h *harness) Manager(t *testing.T, beforeCreate func(ipfam.Pair[netip.Prefix])) subnet.Manager {
	m := newManager(t, h.options())
	if beforeCreate != nil {
		m.beforeCreate = beforeCreate
	}
	return m
}

func (h *harness) key(subnets ipfam.Pair[netip.Prefix]) string {
	return h.prefix + "/subnets/" + encodeName(subnets)
}

// ctx is for the test's own requests, also while it cleans up.
func (h *harness) ctx(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (h *harness) SetConfig(t *testing.T, text string) {
	t.Helper()
	if _, err := h.client.Put(h.ctx(t), h.prefix+"/config", text); err != nil {
		t.Fatal(err)
	}
}

func (h *harness) Put(t *testing.T, l subnet.Lease, reservation bool) {
	t.Helper()
	h.put(t, l, reservation, nil)
}

func (h *harness) Create(t *testing.T, l subnet.Lease) bool {
	t.Helper()
	return h.put(t, l, false, []clientv3.Cmp{clientv3.Compare(clientv3.Version(h.key(l.Subnet)), "=", 0)})
}

func (h *harness) put(t *testing.T, l subnet.Lease, reservation bool, onlyIf []clientv3.Cmp) bool {
	t.Helper()
	value, err := encodeValue(l.Attrs)
	if err != nil {
		t.Fatal(err)
	}
	if l.Invalid != "" {
		value = []byte(l.Invalid)
	}
	var options []clientv3.OpOption
	if !reservation {
		grant, err := h.client.Grant(h.ctx(t), 86400)
		if err != nil {
			t.Fatal(err)
		}
		options = append(options, clientv3.WithLease(grant.ID))
	}
	resp, err := h.client.Txn(h.ctx(t)).If(onlyIf...).
		Then(clientv3.OpPut(h.key(l.Subnet), string(value), options...)).Commit()
	if err != nil {
		t.Fatal(err)
	}
	return resp.Succeeded
}

func (h *harness) Delete(t *testing.T, subnets ipfam.Pair[netip.Prefix]) {
	t.Helper()
	if _, err := h.client.Delete(h.ctx(t), h.key(subnets)); err != nil {
		t.Fatal(err)
	}
}

func (h *harness) Get(t *testing.T, subnets ipfam.Pair[netip.Prefix]) (subnet.Lease, bool, bool) {
	t.Helper()
	resp, err := h.client.Get(h.ctx(t), h.key(subnets))
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return subnet.Lease{}, false, false
	}
	kv := resp.Kvs[0]
	return decode(encodeName(subnets), kv.Value, kv.CreateRevision), kv.Lease == 0, true
}

func (h *harness) SetReachable(t *testing.T, reachable bool) {
	t.Helper()
	if reachable {
		h.server.Start()
		return
	}
	h.server.Kill() // an orderly end waits for the watches of others
}

// checkKeys looks at everything that was ever written under the folder of the
// leases, as far as etcd remembers: flannel must be able to read it all.
func (h *harness) checkKeys(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(h.ctx(t))
	defer cancel()
	client, end := h.server.Client(), h.prefix+"/end"
	if _, err := client.Put(ctx, end, ""); err != nil {
		t.Errorf("check keys: %v", err)
		return
	}
	for resp := range client.Watch(ctx, h.prefix, clientv3.WithPrefix(), clientv3.WithRev(1)) {
		for _, e := range resp.Events {
			if string(e.Kv.Key) == end {
				return
			}
			if name, isLease := strings.CutPrefix(string(e.Kv.Key), h.prefix+"/subnets"); isLease {
				checkKey(t, strings.TrimPrefix(name, "/"), e)
			}
		}
	}
}

func checkKey(t *testing.T, name string, e *clientv3.Event) {
	t.Helper()
	l := decode(name, e.Kv.Value, 1)
	readable := encodeName(l.Subnet) == l.Name && (e.Type == clientv3.EventTypeDelete || l.Invalid == "")
	onPurpose := l.Name == oddName || strings.Contains(string(e.Kv.Value), "odd on purpose")
	if !readable && !onPurpose {
		t.Errorf("%s of %q, value %q", e.Type, e.Kv.Key, e.Kv.Value)
	}
}

// oddName is a key that tests write as a stranger.
const oddName = "something odd"

var prefixes atomic.Int64

// ownPrefix gives each test a part of a shared etcd.
func ownPrefix() string { return fmt.Sprintf("/test/%d/network", prefixes.Add(1)) }

// logBook keeps the log of a manager.
type logBook struct {
	mu    sync.Mutex
	lines strings.Builder
}

func (b *logBook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines.Write(p)
}

func (b *logBook) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.lines.String(), text)
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines.String()
}

func TestConformance(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	subnettest.Conformance(t, func(t *testing.T) subnettest.Harness {
		return newHarness(t, server, ownPrefix())
	})
}
