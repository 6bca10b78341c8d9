package kube

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/kubeplane"
	"flannel/internal/testkit/kubetest"
	"flannel/subnet"
	"flannel/subnet/subnettest"
)

const prefix = "flannel.alpha.coreos.com/"

// harness is the Nodes of a real API server.
type harness struct {
	server *kubetest.Server
	front  *front
	keys   annotations

	mu     sync.Mutex
	config string
	nodes  int
	// peers are the Nodes that no manager of the test stands for.
	peers map[string]bool
}

func newHarness(t *testing.T, server *kubetest.Server) *harness {
	t.Helper()
	keys, err := newAnnotations(prefix)
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{
		server: server, keys: keys, front: newFront(t, netip.AddrPortFrom(server.Addr, kubeplane.Port).String()),
		config: subnettest.IPv4Config, peers: map[string]bool{},
	}
	t.Cleanup(func() { h.deleteAll(t) })
	return h
}

// ctx is for the test's own requests, also while it cleans up.
func (h *harness) ctx(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (h *harness) deleteAll(t *testing.T) {
	nodes, err := h.server.API.Nodes(h.ctx(t))
	if err != nil {
		t.Error(err)
	}
	for _, n := range nodes {
		if err := h.server.API.DeleteNode(h.ctx(t), n.Metadata.Name); err != nil {
			t.Error(err)
		}
	}
}

// options are those of a manager in tests, for a Node of this name. The
// manager reaches the API server by the front.
func (h *harness) options(t *testing.T, node string) Options {
	t.Helper()
	dir := t.TempDir()
	kubeconfig, config := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "net-conf.json")
	if err := h.server.WriteKubeconfig(kubeconfig, "https://"+h.front.addr, kubeplane.Daemon); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := os.WriteFile(config, []byte(h.config), 0o644); err != nil {
		t.Fatal(err)
	}
	return Options{
		Kubeconfig: kubeconfig, AnnotationPrefix: prefix, NetConfigPath: config, Version: "test",
		Getenv: func(name string) string { return map[string]string{"NODE_NAME": node}[name] },
		Log:    slog.New(slog.DiscardHandler),
	}
}

// start runs a manager.
func start(t *testing.T, o Options) *Manager {
	t.Helper()
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	subnettest.Background(t, m.Run)
	return m
}

// Manager makes a Node with pod CIDRs of its own, and its manager.
func (h *harness) Manager(t *testing.T, _ func(ipfam.Pair[netip.Prefix])) subnet.Manager {
	t.Helper()
	h.mu.Lock()
	h.nodes++
	n := h.nodes
	h.mu.Unlock()
	name := fmt.Sprintf("node%d", n)
	err := h.server.API.CreateNode(h.ctx(t), name, fmt.Sprintf("10.5.%d.0/24", n), fmt.Sprintf("fd00:5:0:%d::/64", n))
	if err != nil {
		t.Fatal(err)
	}
	return start(t, h.options(t, name))
}

func (h *harness) SetConfig(_ *testing.T, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.config = text
}

// Put makes a Node publish a lease.
func (h *harness) Put(t *testing.T, l subnet.Lease, _ bool) {
	t.Helper()
	name, found := h.find(t, l.Subnet)
	if !found {
		name = fmt.Sprintf("peer-%d", time.Now().UnixNano())
		h.mu.Lock()
		h.peers[name] = true
		h.mu.Unlock()
		var texts []string
		for _, s := range ipfam.Prefixes(l.Subnet) {
			texts = append(texts, s.String())
		}
		if err := h.server.API.CreateNode(h.ctx(t), name, texts...); err != nil {
			t.Fatal(err)
		}
	}
	annotations := map[string]any{}
	for key, value := range h.keys.encode(l.Attrs) {
		annotations[key] = value
	}
	if err := h.server.API.Annotate(h.ctx(t), name, annotations); err != nil {
		t.Fatal(err)
	}
}

func (h *harness) Create(t *testing.T, l subnet.Lease) bool {
	if _, found := h.find(t, l.Subnet); found {
		return false
	}
	h.Put(t, l, false)
	return true
}

// Delete deletes a Node. That of a manager comes back with the same pod CIDRs,
// as it does when its kubelet registers again.
func (h *harness) Delete(t *testing.T, subnets ipfam.Pair[netip.Prefix]) {
	t.Helper()
	name, found := h.find(t, subnets)
	if !found {
		return
	}
	n, err := h.server.API.GetNode(h.ctx(t), name)
	if err == nil {
		err = h.server.API.DeleteNode(h.ctx(t), name)
	}
	h.mu.Lock()
	peer := h.peers[name]
	h.mu.Unlock()
	if err == nil && !peer {
		err = h.server.API.CreateNode(h.ctx(t), name, n.Spec.PodCIDRs...)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (h *harness) Get(t *testing.T, subnets ipfam.Pair[netip.Prefix]) (l subnet.Lease, reservation, found bool) {
	t.Helper()
	name, found := h.find(t, subnets)
	if !found {
		return subnet.Lease{}, false, false
	}
	n, err := h.server.API.GetNode(h.ctx(t), name)
	if err != nil {
		t.Fatal(err)
	}
	attrs, err := h.keys.decode(n.Metadata.Annotations, both)
	if err != nil {
		t.Fatal(err)
	}
	return subnet.Lease{Name: name, Subnet: subnets, Attrs: attrs}, false, n.Metadata.Annotations[h.keys.managed] == "true"
}

// find returns the name of the Node that has one of the subnets.
func (h *harness) find(t *testing.T, subnets ipfam.Pair[netip.Prefix]) (string, bool) {
	t.Helper()
	nodes, err := h.server.API.Nodes(h.ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		for _, text := range n.Spec.PodCIDRs {
			for _, s := range ipfam.Prefixes(subnets) {
				if s.String() == text {
					return n.Metadata.Name, true
				}
			}
		}
	}
	return "", false
}

func (h *harness) SetReachable(_ *testing.T, reachable bool) { h.front.set(reachable) }

// front stands before an API server and can cut all connections to it.
type front struct {
	addr, to string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	group    sync.WaitGroup
}

func newFront(t *testing.T, to string) *front {
	f := &front{to: to, addr: "127.0.0.1:0", conns: map[net.Conn]bool{}}
	f.set(true)
	t.Cleanup(func() {
		f.set(false)
		f.group.Wait()
	})
	return f
}

// set lets connections through, or cuts those that there are and refuses
// others.
func (f *front) set(through bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !through {
		f.listener.Close()
		for c := range f.conns {
			c.Close()
		}
		return
	}
	var err error
	if f.listener, err = net.Listen("tcp", f.addr); err != nil {
		panic(err) // loopback of the test
	}
	f.addr = f.listener.Addr().String()
	listener := f.listener
	f.group.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			f.group.Go(func() { f.serve(c) })
		}
	})
}

func (f *front) serve(c net.Conn) {
	up, err := net.Dial("tcp", f.to)
	if err != nil {
		c.Close()
		return
	}
	both := []net.Conn{c, up}
	f.mu.Lock()
	for _, each := range both {
		f.conns[each] = true
	}
	f.mu.Unlock()
	var group sync.WaitGroup
	for i, each := range both {
		group.Go(func() {
			_, _ = io.Copy(each, both[1-i]) // ends when one side is closed
			each.Close()
			both[1-i].Close()
		})
	}
	group.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, each := range both {
		delete(f.conns, each)
	}
}

// book is a log that several goroutines write.
type book struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
