package uplink

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/internal/testkit/nstest"
)

// following is a watcher that runs in a namespace.
type following struct {
	t *testing.T
	*Watcher
	ns      *nstest.NS
	changes chan backend.Host
	log     *logBuffer
}

type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// openTest opens the kernel of a namespace until the test ends.
func openTest(t testing.TB, ns *nstest.NS) host {
	t.Helper()
	h, err := openHost(int(ns.Namespace))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	return h
}

func newWatcher(t *testing.T, ns *nstest.NS, families ipfam.Pair[bool], change func(*Config)) *following {
	log := &logBuffer{}
	c := Config{
		Options: Options{Families: families}, Namespace: int(ns.Namespace),
		Log: slog.New(slog.NewTextHandler(log, nil)),
	}
	if change != nil {
		change(&c)
	}
	return &following{t: t, Watcher: NewWatcher(c), ns: ns, changes: make(chan backend.Host, 1000), log: log}
}

// start waits for the uplink and follows it until the test ends.
func (f *following) start() backend.Host {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	view, err := f.Wait(ctx)
	if err != nil {
		cancel()
		f.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- f.Run(ctx, func() {
			view, _ := f.Current()
			f.changes <- view
		})
	}()
	f.t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			f.t.Errorf("got %v, want context canceled", err)
		}
		if f.t.Failed() {
			f.t.Log(f.log)
		}
	})
	// The call at the start means that events are being followed.
	f.next()
	return view
}

// next waits for a call of changed.
func (f *following) next() backend.Host {
	f.t.Helper()
	select {
	case view := <-f.changes:
		return view
	case <-time.After(20 * time.Second):
		f.t.Fatalf("no change within 20 s\n%s", f.log)
		return backend.Host{}
	}
}

// until waits for calls of changed until the uplink looks like this.
func (f *following) until(want string) {
	f.t.Helper()
	for {
		if got := text(f.next().Uplink); got == want {
			return
		}
	}
}

// untilGone waits for calls of changed until there is an error, or is none.
func (f *following) untilGone(want bool) error {
	f.t.Helper()
	for {
		f.next()
		if _, err := f.Current(); (err != nil) == want {
			return err
		}
	}
}

// untilLinks waits for calls of changed until the links are these: the kernel
// adds an IPv6 route a moment after its address.
func (f *following) untilLinks(view backend.Host, want string) {
	f.t.Helper()
	for linkText(view.OnLinkRoutes) != want {
		view = f.next()
	}
}

// nothingElse checks that nothing was called before a change of the MTU is.
func (f *following) nothingElse(dev string) {
	f.t.Helper()
	before, _ := f.Current()
	f.ns.IP("link set mtu 1400 dev", dev)
	want := before.Uplink
	want.MTU = 1400
	if got := f.next(); got.Uplink != want {
		f.t.Errorf("got %+v, want %+v", got.Uplink, want)
	}
	if n := len(f.changes); n != 0 {
		f.t.Errorf("got %d more changes, want none", n)
	}
}

func TestWhatDoesNotMatterChangesNothing(t *testing.T) {
	for name, track := range map[string]bool{"without links": false, "with links": true} {
		t.Run(name, func(t *testing.T) {
			ns := nstest.New(t)
			ns.AddUplink("eth0", "10.0.0.2/24", "2001:db8::2/64")
			ns.AddUplink("eth1", "10.1.0.2/24", "2001:db8:1::2/64")
			ns.IP("route add default via 10.0.0.1")
			ns.IP("-6 route add default via 2001:db8::1")
			f := newWatcher(t, ns, dual, func(c *Config) { c.TrackLinks = track })
			view := f.start()
			if got, want := text(view.Uplink), "eth0 10.0.0.2 2001:db8::2"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if track {
				f.untilLinks(view, "2001:db8::/64 true;10.0.0.0/24 true;")
			}

			ns.IP("address add 10.0.0.100/32 dev eth0")
			ns.IP("address add 2001:db8::100/128 dev eth0 nodad")
			ns.IP("address add 10.0.0.1/24 dev eth0")
			ns.IP("route replace default via 10.1.0.1")
			ns.IP("-6 route del default")
			ns.IP("route add 172.16.0.0/16 via 10.1.0.1")
			ns.IP("address del 10.0.0.100/32 dev eth0")
			ns.IP("address del 2001:db8::100/128 dev eth0")
			ns.DelLink("eth1")
			f.nothingElse("eth0")
		})
	}
}

func TestTheUplinkIsFollowed(t *testing.T) {
	ns := nstest.New(t)
	index := ns.AddUplink("eth0", "10.0.0.2/24")
	f := newWatcher(t, ns, v4, func(c *Config) { c.Options.Ifaces = []string{"eth0"} })
	f.start()

	t.Log("the address changes")
	ns.IP("address del 10.0.0.2/24 dev eth0")
	ns.AddAddr("eth0", "10.0.0.3/24")
	f.until("eth0 10.0.0.3")

	t.Log("the address goes and comes back")
	ns.IP("address del 10.0.0.3/24 dev eth0")
	err := f.untilGone(true)
	if view, _ := f.Current(); text(view.Uplink) != "eth0 10.0.0.3" {
		t.Errorf("got %s, want the former uplink", text(view.Uplink))
	}
	if want := "address 10.0.0.3 of eth0 is gone: no uplink: --iface=eth0: eth0 has no usable ipv4 address"; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	ns.AddAddr("eth0", "10.0.0.3/24")
	f.untilGone(false)

	t.Log("the interface is made again")
	ns.DelLink("eth0")
	f.untilGone(true)
	again := ns.AddUplink("eth0", "10.0.0.3/24")
	// There may be a look at the interface before it has its address.
	f.untilGone(false)
	if view, err := f.Current(); err != nil || view.Uplink.Index != again || again == index {
		t.Errorf("got index %d, %v; want %d", view.Uplink.Index, err, again)
	}
	f.nothingElse("eth0")
}

func TestADefaultRouteThatCameLaterIsFoundWhenTheUplinkGoes(t *testing.T) {
	ns := nstest.New(t)
	ns.AddUplink("eth0", "10.0.0.2/24")
	ns.AddUplink("eth1", "10.1.0.2/24")
	ns.IP("route add default via 10.0.0.1")
	f := newWatcher(t, ns, v4, nil)
	f.start()
	ns.DelLink("eth0")
	f.untilGone(true)
	ns.IP("route add default via 10.1.0.1")
	f.until("eth1 10.1.0.2")
}

func TestDownAndUpKeepsTheUplink(t *testing.T) {
	ns := nstest.New(t)
	ns.AddUplink("eth0", "10.0.0.2/24", "2001:db8::2/64")
	f := newWatcher(t, ns, dual, func(c *Config) {
		c.Options.Ifaces = []string{"eth0"}
		c.TrackLinks = true
		c.Grace = time.Hour
	})
	before := f.start()
	ns.Down("eth0")
	ns.Up("eth0")
	ns.AddAddr("eth0", "2001:db8::2/64")
	// A look may fall between down and up and miss the address: the next one does
	// not.
	f.untilLinks(f.next(), "2001:db8::/64 true;10.0.0.0/24 true;")
	for _, err := f.Current(); err != nil; _, err = f.Current() {
		f.next()
	}
	if after, err := f.Current(); err != nil || after.Uplink != before.Uplink {
		t.Errorf("got %+v, %v; want %+v", after.Uplink, err, before.Uplink)
	}
}

func TestAfterTheGraceTimeAnotherAddressIsUsed(t *testing.T) {
	ns := nstest.New(t)
	ns.AddUplink("eth0", "2001:db8::2/64")
	ns.AddUplink("eth1", "2001:db8:1::2/64")
	f := newWatcher(t, ns, v6, func(c *Config) {
		c.Options.Ifaces = []string{"eth0", "eth1"}
		c.Grace = 300 * time.Millisecond
	})
	f.start()
	ns.Down("eth0")
	f.until("eth1 2001:db8:1::2")
}

// TestAGapChangesNothing takes the address in use away for a moment, beside all
// that could take its place.
func TestAGapChangesNothing(t *testing.T) {
	ns := nstest.New(t)
	// The kernel lists the IPv6 address that came last first.
	ns.AddUplink("eth0", "10.0.0.2/24", "10.0.0.100/32", "2001:db8::100/128", "2001:db8::2/64")
	ns.AddUplink("eth1", "10.1.0.2/24", "2001:db8:1::2/64")
	for _, dev := range []string{"eth0", "eth1"} {
		ns.IP("route append default dev", dev, "metric", dev[3:])
		ns.IP("-6 route append default dev", dev, "metric 10"+dev[3:])
	}
	f := newWatcher(t, ns, dual, func(c *Config) { c.Grace = time.Hour })
	before := f.start()
	for _, address := range []string{"10.0.0.2/24", "2001:db8::2/64"} {
		// What comes just before, between two looks, is not a replacement.
		ns.AddAddr("eth0", "10.0.0.101/32")
		ns.IP("address del", address, "dev eth0")
		f.untilGone(true)
		if now, _ := f.Current(); now.Uplink != before.Uplink {
			t.Errorf("without %s: got %s, want %s", address, text(now.Uplink), text(before.Uplink))
		}
		ns.AddAddr("eth0", address)
		f.untilGone(false)
		if now, _ := f.Current(); now.Uplink != before.Uplink {
			t.Errorf("with %s again: got %s, want %s", address, text(now.Uplink), text(before.Uplink))
		}
		ns.IP("address del 10.0.0.101/32 dev eth0")
	}
	f.nothingElse("eth0")
}

func TestALinkLocalAddressIsReplaced(t *testing.T) {
	ns := nstest.New(t)
	ns.AddUplink("eth0")
	ns.IP("address flush dev eth0")
	ns.AddAddr("eth0", "fe80::7/64")
	f := newWatcher(t, ns, v6, func(c *Config) {
		c.Options.Ifaces = []string{"eth0"}
		c.Grace = 300 * time.Millisecond
	})
	if got, want := text(f.start().Uplink), "eth0 fe80::7"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	ns.AddAddr("eth0", "2001:db8::2/64")
	f.until("eth0 2001:db8::2")
	f.nothingElse("eth0")
}

func TestTheLastResortIsReplaced(t *testing.T) {
	ns := nstest.New(t)
	ns.AddUplink("eth0", "10.0.0.2/24")
	ns.AddUplink("eth1", "10.1.0.2/24")
	f := newWatcher(t, ns, v4, func(c *Config) {
		c.Options.Ifaces = []string{"eth0", "eth1"}
		c.Grace = 300 * time.Millisecond
	})
	f.choice.stable = 300 * time.Millisecond
	f.start()
	ns.IP("address del 10.0.0.2/24 dev eth0")
	f.until("eth1 10.1.0.2")
	ns.AddAddr("eth0", "10.0.0.2/24")
	f.until("eth0 10.0.0.2")
	f.nothingElse("eth0")
}

func TestTheUplinkIsWaitedFor(t *testing.T) {
	ns := nstest.New(t)
	f := newWatcher(t, ns, v4, nil)
	if _, err := f.Current(); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v, want %v", err, ErrUnknown)
	}
	done := make(chan backend.Host, 1)
	go func() {
		view, _ := f.Wait(t.Context())
		done <- view
	}()
	for !strings.Contains(f.log.String(), "none for ipv4") {
		waitABit(t, done)
	}
	ns.AddUplink("eth0", "10.0.0.2/24")
	ns.IP("route add default via 10.0.0.1")
	select {
	case view := <-done:
		if got, want := text(view.Uplink), "eth0 10.0.0.2"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the uplink is not noticed")
	}
	if n := strings.Count(f.log.String(), "waiting for an uplink"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, f.log)
	}
}

// waitABit gives the other side a moment while a condition is polled.
func waitABit(t *testing.T, failed <-chan backend.Host) {
	t.Helper()
	select {
	case <-failed:
		t.Fatal("the wait ended although there is no uplink")
	case <-time.After(5 * time.Millisecond):
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	f := newWatcher(t, nstest.New(t), v4, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context canceled", err)
	}
}

func TestCanReachTakesTheSourceOfTheRoute(t *testing.T) {
	ns := nstest.New(t)
	ns.AddUplink("eth0", "10.0.0.2/24", "10.0.0.9/24")
	ns.IP("route add 192.0.2.0/24 via 10.0.0.1 src 10.0.0.9")
	f := newWatcher(t, ns, v4, func(c *Config) { c.Options.CanReach = netip.MustParseAddr("192.0.2.1") })
	if got, want := text(f.start().Uplink), "eth0 10.0.0.9"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTemporaryAndUncheckedAddressesAreNotUsed(t *testing.T) {
	ns := nstest.New(t)
	ns.AddUplink("eth0", "2001:db8::2/64")
	ns.IP("address add 2001:db8::1/64 dev eth0 preferred_lft 0 nodad")
	ns.IP("address add 2001:db8::3/64 dev eth0 valid_lft 1000 preferred_lft 1000 nodad")
	s, err := openTest(t, ns).interfaces()
	if err != nil {
		t.Fatal(err)
	}
	link, _ := s.linkByName("eth0")
	var got []string
	for _, ip := range s.usable(link.Index, ipfam.V6) {
		if !ip.IsLinkLocalUnicast() {
			got = append(got, ip.String())
		}
	}
	if want := "2001:db8::2 2001:db8::3"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestTheFirstHopOfSeveralIsTheDefaultRoute(t *testing.T) {
	ns := nstest.New(t)
	ns.AddUplink("eth0", "10.0.0.2/24")
	ns.AddUplink("eth1", "10.1.0.2/24")
	ns.IP("route add default metric 50 nexthop via 10.1.0.1 nexthop via 10.0.0.1")
	ns.IP("route add default via 10.0.0.1 metric 100")
	f := newWatcher(t, ns, v4, nil)
	if got, want := text(f.start().Uplink), "eth1 10.1.0.2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLinksFollowTheRoutes(t *testing.T) {
	ns := nstest.New(t)
	ns.AddUplink("eth0", "10.0.0.2/16", "2001:db8::2/64")
	ns.AddUplink("eth1")
	f := newWatcher(t, ns, dual, func(c *Config) {
		c.Options.Ifaces = []string{"eth0"}
		c.TrackLinks = true
	})
	want := func(view backend.Host, want string) {
		t.Helper()
		if got := linkText(view.OnLinkRoutes); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	const alone = "2001:db8::/64 true;10.0.0.0/16 true;"
	f.untilLinks(f.start(), alone)
	ns.IP("route add 10.0.5.0/24 via 10.0.0.1")
	want(f.next(), "2001:db8::/64 true;10.0.5.0/24 false;10.0.0.0/16 true;")
	ns.IP("route del 10.0.5.0/24")
	want(f.next(), alone)
	ns.AddAddr("eth1", "10.0.6.1/24")
	want(f.next(), "2001:db8::/64 true;10.0.6.0/24 false;10.0.0.0/16 true;")
	ns.IP("route add 10.0.7.0/24 via 10.0.0.1 proto 70")
	ns.Down("eth1")
	want(f.next(), alone)
	ns.IP("-6 route add 2001:db8:5::/64 dev eth0")
	want(f.next(), "2001:db8:5::/64 true;"+alone)
	f.nothingElse("eth0")
}

func TestLostEventsLeadToALook(t *testing.T) {
	ns := nstest.New(t)
	ns.AddUplink("eth0", "10.0.0.2/24")
	f := newWatcher(t, ns, v4, func(c *Config) {
		c.Options.Ifaces = []string{"eth0"}
		c.ReceiveBuffer = 1
	})
	f.start()
	ns.Do(func() {
		for i := range 200 {
			mtu := 1300 + i
			if err := ns.Handle.LinkSetMTU(ns.Link("eth0"), mtu); err != nil {
				t.Error(err)
			}
		}
	})
	for f.next().Uplink.MTU != 1499 {
		continue
	}
}
