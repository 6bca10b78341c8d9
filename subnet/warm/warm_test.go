package warm

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/statedir"
	"flannel/subnet"
	"flannel/subnet/subnettest"
)

const network = `{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}`

// published is what node n publishes; the blank is part of it.
func published(n byte) subnet.Attrs {
	return subnet.Attrs{
		BackendType: "vxlan",
		PublicIP:    ipfam.Pair[netip.Addr]{netip.AddrFrom4([4]byte{192, 0, 2, n})},
		Data:        ipfam.Pair[string]{fmt.Sprintf(` {"VNI":1,"n":%d}`, n)},
	}
}

// identified is a store with an identity.
type identified struct {
	*subnettest.Manager
	identity string
	addrs    []netip.Addr
}

func (s identified) StoreAddrs() []netip.Addr { return s.addrs }

func (s identified) Identity() string { return s.identity }

// world is what lasts over the runs of one node.
type world struct {
	t     *testing.T
	store *subnettest.Store
	dir   string
	down  atomic.Bool
	// What the next run has.
	identity, where string
	publishes       subnet.Attrs
	addrs           []netip.Addr
}

// newWorld returns one in which another node has a lease.
func newWorld(t *testing.T) *world {
	w := &world{t: t, store: subnettest.NewStore(), dir: t.TempDir(), identity: "one", where: "here", publishes: published(1)}
	w.store.SetConfig(network)
	if _, err := w.store.Manager(7).Acquire(t.Context(), published(2), ipfam.Pair[netip.Prefix]{}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) reachable(yes bool) {
	w.down.Store(!yes)
	w.store.SetReachable(yes)
}

// started is one run of the node, as the network loop makes it.
type started struct {
	*Manager
	stop func()

	mu sync.Mutex
	// own is nil until there is a lease; since is what Running was called with.
	own       *subnet.Lease
	snapshots []subnet.Snapshot
	since     []time.Time
	changed   bool
}

func (w *world) start() *started {
	s := &started{}
	s.Manager = New(identified{w.store.Manager(1), w.identity, w.addrs}, Options{
		Log: slog.New(slog.DiscardHandler), Where: w.where,
		Dir:     statedir.Open(slog.New(slog.DiscardHandler), w.dir, "", "node"),
		Check:   func(*subnet.Config) error { return nil },
		Away:    w.down.Load,
		Running: func(since time.Time) { s.set(func() { s.since = append(s.since, since) }) },
	})
	ctx, cancel := context.WithCancel(w.t.Context())
	var group sync.WaitGroup
	s.stop = func() { cancel(); group.Wait() }
	group.Go(func() { _ = s.Run(ctx) })
	group.Go(func() {
		err := s.Changed(ctx)
		s.set(func() { s.changed = err == nil })
	})
	group.Go(func() { s.work(ctx, &group, w.publishes) })
	synctest.Wait()
	return s
}

// work ends with ctx.
func (s *started) work(ctx context.Context, group *sync.WaitGroup, a subnet.Attrs) {
	setOwn := func(l subnet.Lease) { s.set(func() { s.own = &l }) }
	if _, err := s.Config(ctx); err != nil {
		return
	}
	_, _ = s.Overrides(ctx)
	_, _ = s.Previous(ctx, a.PublicIP, ipfam.Pair[netip.Prefix]{})
	own, err := s.Acquire(ctx, a, ipfam.Pair[netip.Prefix]{})
	if err != nil {
		return
	}
	setOwn(own)
	group.Go(func() {
		_ = s.Watch(ctx, func(now subnet.Snapshot) { s.set(func() { s.snapshots = append(s.snapshots, now) }) })
	})
	for {
		_ = s.Keep(ctx, own, setOwn)
		if own, err = s.Acquire(ctx, a, own.Subnet); err != nil || ctx.Err() != nil {
			return
		}
		setOwn(own)
	}
}

func (s *started) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// lease returns the node's, after this time.
func (s *started) lease(after time.Duration) *subnet.Lease {
	time.Sleep(after)
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.own
}

func (s *started) last() subnet.Snapshot {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.snapshots) == 0 {
		return subnet.Snapshot{}
	}
	return s.snapshots[len(s.snapshots)-1]
}

func in(t *testing.T, test func(*testing.T, *world)) {
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t)) })
}

func TestANodeRunsFromItsStateUntilTheStoreAnswers(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		first := w.start()
		before, all := first.lease(0), first.last()
		if before == nil || len(all.Leases) != 2 || all.Unconfirmed {
			t.Fatalf("lease %v, snapshot %+v", before, all)
		}
		first.stop()
		w.reachable(false)
		contact := time.Now()
		time.Sleep(time.Hour)

		s := w.start()
		if own := s.lease(patience - time.Second); own != nil {
			t.Errorf("lease %v before the store had time to answer", own)
		}
		own := s.lease(2 * time.Second)
		if own == nil || !own.Equal(*before) {
			t.Fatalf("lease %v, want %v", own, before)
		}
		if got := s.last(); !got.Unconfirmed || !subnet.EqualLeases(got.Leases, all.Leases) {
			t.Errorf("got %+v, want %+v, held", got, all)
		}
		if len(s.since) != 1 || !s.since[0].Equal(contact) {
			t.Errorf("runs from %v, want %v", s.since, contact)
		}
		w.reachable(true)
		if got := s.last(); got.Unconfirmed || got.Epoch != 0 || !subnet.EqualLeases(got.Leases, all.Leases) {
			t.Errorf("got %+v, want %+v", got, all)
		}
		if len(s.since) != 2 || !s.since[1].IsZero() {
			t.Errorf("runs from %v, want the store", s.since)
		}
		// What is lost later is waited out as by any daemon.
		w.reachable(false)
		time.Sleep(time.Hour)
		w.reachable(true)
		s.stop()
		if len(s.since) != 2 || s.changed {
			t.Errorf("runs from %v, changed %t", s.since, s.changed)
		}
	})
}

// A subnet that holds the address of the store is refused; so it must be after a
// reboot, when no connection has shown the address.
func TestTheAddressOfTheStoreIsKnownWithoutIt(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		want := netip.MustParseAddr("10.5.9.1")
		w.addrs = []netip.Addr{want}
		first := w.start()
		first.stop()
		w.reachable(false)
		w.addrs = nil
		s := w.start()
		if s.lease(2*patience) == nil {
			t.Fatal("the node does not run from its state")
		}
		if got := s.StoreAddrs(); len(got) != 1 || got[0] != want {
			t.Errorf("got %v, want %v", got, want)
		}
		s.stop()
	})
}

func TestWhatDiffersWaitsForTheStore(t *testing.T) {
	tests := map[string]func(*world){
		"the last contact is too long ago": func(*world) { time.Sleep(outage) },
		"the store is slow, not away":      func(w *world) { w.down.Store(false) },
		"another store":                    func(w *world) { w.where = "there" },
		"another address":                  func(w *world) { w.publishes = published(3) },
		"no state":                         func(w *world) { w.dir = w.t.TempDir() },
		"half a document": func(w *world) {
			files, _ := filepath.Glob(w.dir + "/" + ownDocument + "-*")
			if len(files) != 1 || os.Truncate(files[0], 50) != nil {
				w.t.Error(files)
			}
		},
	}
	for name, differ := range tests {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				first := w.start()
				first.stop()
				w.reachable(false)
				differ(w)
				s := w.start()
				if own := s.lease(time.Hour); own != nil || s.last().Unconfirmed {
					t.Errorf("lease %v, snapshot %v", own, s.last())
				}
				w.reachable(true)
				if own := s.lease(0); own == nil || s.last().Unconfirmed {
					t.Errorf("no lease when the store answers: %v", s.last())
				}
				s.stop()
			})
		})
	}
}

func TestTheEndOfALeaseAndTheClock(t *testing.T) {
	c, err := subnet.ParseConfig([]byte(network), true)
	if err != nil {
		t.Fatal(err)
	}
	contact := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	own := subnet.Lease{Name: "a", Subnet: ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.5.1.0/24")}, Expires: contact.Add(time.Hour)}
	s := state{Format: format, Contact: contact, Config: c, Own: own}
	other, err := subnet.ParseConfig([]byte(`{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "VNI": 7}}`), true)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Check: func(*subnet.Config) error { return nil }}
	for name, tt := range map[string]struct {
		config *subnet.Config
		at     time.Duration
		good   bool
	}{
		"before the end":     {nil, time.Hour - 1, true},
		"at the end":         {nil, time.Hour, false},
		"the same network":   {c, time.Minute, true},
		"another network":    {other, time.Minute, false},
		"a little behind":    {nil, -time.Minute, true},
		"before its contact": {nil, -time.Hour, false},
	} {
		if err := s.check(o, tt.config, nil, contact.Add(tt.at)); (err == nil) != tt.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheStoreWins(t *testing.T) {
	away := func(w *world) (*started, *subnet.Lease) {
		first := w.start()
		before := first.lease(0)
		first.stop()
		w.reachable(false)
		s := w.start()
		if own := s.lease(time.Minute); own == nil {
			t.Fatal("no lease")
		}
		return s, before
	}
	t.Run("the subnet is another node's", func(t *testing.T) {
		in(t, func(t *testing.T, w *world) {
			s, before := away(w)
			w.store.Delete(before.Subnet)
			w.store.Put(subnet.Lease{Subnet: before.Subnet, Attrs: published(9)}, false)
			w.reachable(true)
			if own := s.lease(0); own.Subnet == before.Subnet || s.last().Unconfirmed {
				t.Errorf("lease %v, as before", own)
			}
			s.stop()
		})
	})
	t.Run("another network configuration", func(t *testing.T) {
		in(t, func(t *testing.T, w *world) {
			s, _ := away(w)
			w.store.SetConfig(`{"Network": "10.6.0.0/16", "Backend": {"Type": "vxlan"}}`)
			w.reachable(true)
			synctest.Wait()
			if s.stop(); !s.changed || len(s.since) != 1 {
				t.Errorf("changed %t, %v", s.changed, s.since)
			}
			w.reachable(false)
			next := w.start()
			if own := next.lease(time.Minute); own != nil {
				t.Errorf("lease %v from a state that was given up", own)
			}
			w.reachable(true)
			if own := next.lease(0); own == nil || own.Subnet[ipfam.V4].Addr().As4()[1] != 6 {
				t.Errorf("lease %v, want one of the new network", own)
			}
			next.stop()
		})
	})
	t.Run("another store", func(t *testing.T) {
		in(t, func(t *testing.T, w *world) {
			first := w.start()
			first.stop()
			w.reachable(false)
			w.identity = "two"
			s := w.start()
			if own := s.lease(time.Minute); own == nil {
				t.Error("no lease")
			}
			held := s.last()
			w.reachable(true)
			if got := s.last(); !held.Unconfirmed || got.Unconfirmed || got.Epoch == held.Epoch {
				t.Errorf("epoch %d after %d: the guard believes it", got.Epoch, held.Epoch)
			}
			s.stop()
		})
	})
}

// A disk is spared: changes of many nodes are gathered, and a document that
// has the same content is not touched.
func TestLittleIsWritten(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		s := w.start()
		peers := func() (os.FileInfo, int) {
			files, _ := filepath.Glob(w.dir + "/" + peersDocument + "-*")
			if len(files) == 0 {
				return nil, 0
			}
			info, err := os.Stat(files[0])
			if err != nil {
				t.Fatal(err)
			}
			return info, len(files)
		}
		for n := range 20 {
			w.store.Put(subnet.Lease{Subnet: ipfam.Pair[netip.Prefix]{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, 200 + byte(n), 0}), 24)}, Attrs: published(20 + byte(n))}, false)
			synctest.Wait()
		}
		if info, n := peers(); n != 0 {
			t.Errorf("written at once: %v", info)
		}
		time.Sleep(peersDelay)
		synctest.Wait()
		first, n := peers()
		if n != 1 {
			t.Fatal("not written")
		}
		s.stop()
		s = w.start()
		time.Sleep(time.Hour)
		s.stop()
		if again, _ := peers(); !os.SameFile(first, again) {
			t.Error("written although nothing has changed")
		}
	})
}
