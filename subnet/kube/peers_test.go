package kube

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"flannel/internal/health"
	"flannel/internal/ipfam"
	"flannel/subnet"
)

// watched runs peers inside a bubble of synctest and returns the sets of leases.
func watched(t *testing.T, p *peers) (last func() []*subnet.Lease, sets *int) {
	t.Helper()
	var told atomic.Pointer[subnet.Snapshot]
	told.Store(&subnet.Snapshot{})
	sets = new(int)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.notify(ctx, func(s subnet.Snapshot) { told.Store(&s); *sets++ })
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return func() []*subnet.Lease {
		synctest.Wait()
		return told.Load().Leases
	}, sets
}

func put(t *testing.T, p *peers, n *Node) {
	t.Helper()
	p.put(clone(n))
}

func clone(n *Node) *Node { return n.DeepCopyObject().(*Node) }

func TestEachPartOfAPeerIsCompared(t *testing.T) {
	mac := `{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}`
	key := `{"PublicKey":"k"}`
	parts := map[string]func(f ipfam.Family, n *Node, a *subnet.Attrs){
		"MAC": func(f ipfam.Family, _ *Node, a *subnet.Attrs) { a.Data[f] = mac },
		"key": func(f ipfam.Family, _ *Node, a *subnet.Attrs) { a.Data[f] = key },
		"public IP": func(f ipfam.Family, _ *Node, a *subnet.Attrs) {
			a.PublicIP[f] = ipfam.Pair[netip.Addr]{netip.MustParseAddr("192.0.2.99"), netip.MustParseAddr("2001:db8::99")}[f]
		},
		"pod CIDR": func(f ipfam.Family, n *Node, _ *subnet.Attrs) {
			n.PodCIDRs[f] = []string{"10.244.9.0/24", "fd00:10:244:9::/64"}[f]
		},
		"backend type": func(_ ipfam.Family, _ *Node, a *subnet.Attrs) { a.BackendType = "host-gw" },
	}
	families := map[string]ipfam.Pair[bool]{"IPv4": {true, false}, "IPv6": {false, true}, "both": {true, true}}
	for part, change := range parts {
		for name, on := range families {
			t.Run(part+" of "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPeers(keysOf(t), both, time.Minute)
					last, sets := watched(t, p)
					n := nodeOf(t, attrs46(), "10.244.3.0/24", "fd00:10:244:3::/64")
					p.replace([]*Node{n}, "1")
					before := last()[0]
					a := attrs46()
					for f, on := range on.Each() {
						if on {
							change(f, n, &a)
						}
					}
					n.Annotations = apply(n.Annotations, p.keys.patch(n.Annotations, p.keys.encode(a)))
					put(t, p, n)
					if after := last()[0]; after.Equal(*before) || after.Attrs != a || *sets != 2 {
						t.Errorf("got %+v after %+v, %d sets", after, before, *sets)
					}
					n.ResourceVersion += "1"
					put(t, p, n)
					if last(); *sets != 2 {
						t.Error("a Node that changes in nothing else makes a set")
					}
				})
			})
		}
	}
}

func TestAPeerWithoutAnnotationsIsKeptForAWhile(t *testing.T) {
	k := keysOf(t)
	hostgw := attrs46()
	hostgw.BackendType, hostgw.Data = "host-gw", ipfam.Pair[string]{}
	wipes := map[string]struct {
		attrs subnet.Attrs
		wipe  func(n *Node)
	}{
		"all":             {attrs4(), func(n *Node) { n.Annotations = nil }},
		"the mark":        {attrs4(), func(n *Node) { n.Annotations[k.managed] = "" }},
		"the address":     {attrs4(), func(n *Node) { delete(n.Annotations, k.publicIP[ipfam.V4]) }},
		"the type":        {attrs4(), func(n *Node) { delete(n.Annotations, k.backendType) }},
		"an empty type":   {attrs4(), func(n *Node) { n.Annotations[k.backendType] = "" }},
		"host-gw's type":  {hostgw, func(n *Node) { delete(n.Annotations, k.backendType) }},
		"the data":        {attrs4(), func(n *Node) { delete(n.Annotations, k.data[ipfam.V4]) }},
		"data as null":    {attrs4(), func(n *Node) { n.Annotations[k.data[ipfam.V4]] = "null" }},
		"IPv4 of two":     {attrs46(), func(n *Node) { wipeFamily(n, k, ipfam.V4) }},
		"IPv6":            {attrs46(), func(n *Node) { wipeFamily(n, k, ipfam.V6) }},
		"IPv6 of host-gw": {hostgw, func(n *Node) { wipeFamily(n, k, ipfam.V6) }},
		"IPv6 and type":   {attrs46(), func(n *Node) { wipeFamily(n, k, ipfam.V6); delete(n.Annotations, k.backendType) }},
	}
	for name, tt := range wipes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeers(k, both, 5*time.Minute)
				last, _ := watched(t, p)
				whole := nodeOf(t, tt.attrs, "10.244.3.0/24", "fd00:10:244:3::/64")
				p.replace([]*Node{clone(whole)}, "1")
				last()
				wiped := clone(whole)
				tt.wipe(wiped)
				put(t, p, wiped)
				<-time.After(4 * time.Minute)
				put(t, p, wiped)
				p.replace([]*Node{clone(wiped)}, "2")
				if l := last(); len(l) != 1 || !l[0].Precedence.Grace || l[0].Attrs != tt.attrs {
					t.Fatalf("after four minutes: %+v", l)
				}
				put(t, p, whole)
				if l := last(); len(l) != 1 || l[0].Precedence.Grace {
					t.Fatalf("after it came back: %+v", l)
				}
				put(t, p, wiped)
				for range 2 {
					<-time.After(5*time.Minute + time.Second)
					var rest []*subnet.Lease
					if l, ok := decodeLease(wiped, &k, both); ok {
						rest = append(rest, &l)
					}
					if l := last(); !subnet.EqualLeases(l, rest) {
						t.Fatalf("after the grace time: %+v", l)
					}
					put(t, p, wiped)
				}
			})
		})
	}
}

func wipeFamily(n *Node, k annotations, f ipfam.Family) {
	delete(n.Annotations, k.publicIP[f])
	delete(n.Annotations, k.data[f])
}

// TestWhatIsLeftOfAPeerIsFollowed changes one family while the other is kept.
func TestWhatIsLeftOfAPeerIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keysOf(t)
		p := newPeers(k, both, 5*time.Minute)
		last, _ := watched(t, p)
		n := nodeOf(t, attrs46(), "10.244.3.0/24", "fd00:10:244:3::/64")
		put(t, p, n)
		p.replace([]*Node{clone(n)}, "1")
		wipeFamily(n, k, ipfam.V6)
		put(t, p, n)
		<-time.After(4 * time.Minute)
		n.Annotations[k.publicIP[ipfam.V4]] = "192.0.2.99"
		put(t, p, n)
		want := attrs46()
		want.PublicIP[ipfam.V4] = netip.MustParseAddr("192.0.2.99")
		if l := last(); len(l) != 1 || l[0].Attrs != want {
			t.Fatalf("while IPv6 is kept: %+v", l)
		}
		<-time.After(time.Minute + time.Second)
		want.PublicIP[ipfam.V6], want.Data[ipfam.V6] = netip.Addr{}, ""
		if l := last(); len(l) != 1 || l[0].Attrs != want || l[0].Precedence.Grace {
			t.Errorf("after the grace time: %+v", l)
		}
	})
}

// TestAnotherBackendIsTakenAtOnce changes to flannel's udp backend, which has an
// empty type, and to one without data.
func TestAnotherBackendIsTakenAtOnce(t *testing.T) {
	for from, data := range map[string]ipfam.Pair[string]{"vxlan": attrs46().Data, "host-gw": {}} {
		for _, to := range []string{"", "alloc"} {
			t.Run(from+" to "+to, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					k := keysOf(t)
					p := newPeers(k, both, 5*time.Minute)
					last, _ := watched(t, p)
					a := attrs46()
					a.BackendType, a.Data = from, data
					n := nodeOf(t, a, "10.244.3.0/24", "fd00:10:244:3::/64")
					p.replace([]*Node{clone(n)}, "1")
					last()
					n.Annotations[k.backendType] = to
					n.Annotations[k.data[ipfam.V4]], n.Annotations[k.data[ipfam.V6]] = "null", "null"
					put(t, p, n)
					want, _ := decodeLease(n, &k, both)
					if l := last(); len(l) != 1 || !l[0].Equal(want) {
						t.Errorf("got %+v, want %+v", l, want)
					}
				})
			})
		}
	}
}

func TestGraceEnds(t *testing.T) {
	ends := map[string]func(t *testing.T, p *peers, n *Node){
		"with the Node": func(t *testing.T, p *peers, n *Node) {
			p.remove(n)
		},
		"with another pod CIDR": func(t *testing.T, p *peers, n *Node) {
			n.PodCIDRs = []string{"10.244.9.0/24"}
			put(t, p, n)
		},
		"when another list lacks the Node": func(t *testing.T, p *peers, _ *Node) {
			p.replace(nil, "3")
		},
		"when the Node is another one": func(t *testing.T, p *peers, n *Node) {
			n.CreationTimestamp.Time = n.CreationTimestamp.Add(time.Second)
			put(t, p, n)
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeers(keysOf(t), both, 5*time.Minute)
				last, _ := watched(t, p)
				n := nodeOf(t, attrs4(), "10.244.3.0/24")
				p.replace([]*Node{clone(n)}, "1")
				n.Annotations = nil
				put(t, p, n)
				if l := last(); len(l) != 1 {
					t.Fatalf("got %+v", l)
				}
				end(t, p, n)
				if l := last(); len(l) != 0 {
					t.Errorf("got %+v", l)
				}
			})
		})
	}
}

func TestManyChangesBecomeFewSets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(keysOf(t), both, time.Minute)
		p.replace(nil, "1")
		for i := range 200 {
			n := nodeOf(t, attrs4(), fmt.Sprintf("10.244.%d.0/24", i))
			n.Name = fmt.Sprintf("n%03d", i)
			put(t, p, n)
		}
		last, sets := watched(t, p)
		l := last()
		if len(l) != 200 || l[0].Name != "n000" || l[199].Name != "n199" || *sets > 2 {
			t.Errorf("%d leases in %d sets", len(l), *sets)
		}
	})
}

func TestARestoredStoreIsAnotherOne(t *testing.T) {
	p := newPeers(keysOf(t), both, time.Minute)
	for i, version := range []string{"10", "20", "15"} {
		p.replace(nil, version)
		if want := uint64(i / 2); p.epoch != want {
			t.Errorf("epoch %d after version %s, want %d", p.epoch, version, want)
		}
	}
	// What came by a watch counts as well.
	p.advance("30")
	if p.replace(nil, "25"); p.epoch != 2 {
		t.Errorf("epoch %d", p.epoch)
	}
}

// following is what a reflector calls, held up by a test.
type following struct {
	*peers
	until chan struct{}
}

func (f following) put(*Node) { <-f.until }

// TestAWatchThatHangs shows in /healthz; one that waits for the API server does not.
func TestAWatchThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := health.New(nil)
		until := make(chan struct{})
		p := newPeers(keysOf(t), both, time.Minute)
		p.loop = registry.AddLoop("leases")
		store := reflectorStore{following{p, until}, registry.AddLoop("watch of Nodes")}
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { _ = p.notify(ctx, func(subnet.Snapshot) { <-until }) })
		<-time.After(time.Hour)
		if got := registry.Hanging(); len(got) > 0 {
			t.Errorf("at rest: %q", got)
		}
		n := nodeOf(t, attrs4(), "10.244.3.0/24")
		if err := store.Replace([]any{n}, "1"); err != nil {
			t.Error(err)
		}
		group.Go(func() { _ = store.Add(n) })
		<-time.After(6 * time.Minute)
		if got := registry.Hanging(); len(got) != 2 {
			t.Errorf("got %q, want both loops", got)
		}
		close(until)
		synctest.Wait()
		if got := registry.Hanging(); len(got) > 0 {
			t.Errorf("later: %q", got)
		}
		cancel()
		group.Wait()
	})
}
