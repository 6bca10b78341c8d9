package etcd

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// proxy stands between a manager and etcd, and can cut them off.
type proxy struct {
	listener net.Listener
	target   string

	mu  sync.Mutex
	cut bool
	// refused counts the connections that came while cut.
	refused int
	conns   map[net.Conn]bool
	group   sync.WaitGroup
}

func newProxy(t *testing.T, endpoint string) *proxy {
	t.Helper()
	u, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: u.Host, conns: map[net.Conn]bool{}}
	p.group.Go(p.serve)
	t.Cleanup(func() {
		l.Close()
		p.Cut()
		p.group.Wait()
	})
	return p
}

func (p *proxy) Endpoint() string { return "http://" + p.listener.Addr().String() }

func (p *proxy) serve() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.target)
		if err != nil || !p.add(near, far) {
			near.Close()
			continue
		}
		for _, c := range [][2]net.Conn{{near, far}, {far, near}} {
			p.group.Go(func() {
				_, _ = io.Copy(c[0], c[1])
				near.Close()
				far.Close()
			})
		}
	}
}

func (p *proxy) add(near, far net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		far.Close()
		p.refused++
		return false
	}
	p.conns[near], p.conns[far] = true, true
	return true
}

// Cut closes all connections and refuses others until Mend.
func (p *proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for c := range p.conns {
		c.Close()
	}
	clear(p.conns)
}

// Refused returns how many connections came while cut.
func (p *proxy) Refused() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

func (p *proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}
