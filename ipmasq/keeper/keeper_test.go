package keeper

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flannel/internal/health"
	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// fake is a kernel that remembers what it should hold. Whoever uses it holds
// the mutex; a test holds it but for the time that it lets pass.
type fake struct {
	sync.Mutex
	held    *ipmasq.Config
	applies int
	chosen  int
	removed int
	err     error
	lines   []string
	vanish  bool // the rules vanish during the next look
	told    []string
	own     func()
	other   func()
	checked []error
	drift   int
	log     bytes.Buffer
}

func (f *fake) Apply(_ context.Context, c ipmasq.Config) (ipmasq.Changes, error) {
	f.Lock()
	defer f.Unlock()
	f.applies++
	if f.err != nil {
		return nil, f.err
	}
	if f.held != nil && f.held.Equal(c) {
		return nil, nil
	}
	f.held = &c
	return ipmasq.Changes{ipmasq.Nat: {Put: 3}}, nil
}

func (f *fake) Remove(context.Context, ipmasq.Config) (ipmasq.Changes, error) {
	f.Lock()
	defer f.Unlock()
	if f.held == nil {
		return nil, errors.New("removed before the rules were in place")
	}
	f.removed++
	if f.removed == 1 {
		return nil, errors.New("busy")
	}
	return nil, nil
}

func (f *fake) watch(ctx context.Context, own, other func()) error {
	f.Lock()
	f.own, f.other = own, other
	f.Unlock()
	<-ctx.Done()
	return ctx.Err()
}

var subnet = ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.244.17.0/24")}

func (f *fake) choose(context.Context) (Mode, error) {
	f.Lock()
	defer f.Unlock()
	if f.chosen++; f.chosen == 1 {
		return Mode{}, errors.New("not yet")
	}
	return Mode{Driver: f, Resync: 5 * time.Second, Watch: f.watch, Former: []Remover{f}, Blocked: f.blocked}, nil
}

func (f *fake) blocked(context.Context, ipmasq.Config) ([]string, error) {
	f.Lock()
	defer f.Unlock()
	if f.held == nil {
		return []string{"looked at before the rules were restored"}, nil
	}
	if f.vanish {
		f.held, f.vanish = nil, false
		return []string{"our rules vanished during the look"}, nil
	}
	return f.lines, nil
}

func (f *fake) check(err error) {
	f.Lock()
	defer f.Unlock()
	f.checked = append(f.checked, err)
}

func (f *fake) tell(lines []string) {
	f.Lock()
	defer f.Unlock()
	f.told = lines
}

func (f *fake) wrote(_ ipmasq.Table, _, _, drift int) {
	f.Lock()
	defer f.Unlock()
	f.drift += drift
}

// wait lets time pass.
func (f *fake) wait(d time.Duration) {
	f.Unlock()
	time.Sleep(d)
	synctest.Wait()
	f.Lock()
}

// Write takes the log.
func (f *fake) Write(p []byte) (int, error) {
	f.Lock()
	defer f.Unlock()
	return f.log.Write(p)
}

// run runs a keeper on a fake inside a bubble of time.
func run(t *testing.T, test func(t *testing.T, f *fake, k *Keeper)) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		k := New(Options{
			Log: slog.New(slog.NewTextHandler(f, nil)), Choose: f.choose,
			Config:       ipmasq.Config{Masquerade: true, Forward: true},
			ExcludeNodes: true, Checked: f.check, Wrote: f.wrote, Dropped: f.tell,
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		f.Lock()
		f.wait(2 * time.Second)
		if len(f.checked) != 1 || f.checked[0] == nil {
			t.Errorf("checked %v before there is a mode", f.checked)
		}
		f.checked = nil
		f.log.Reset()
		test(t, f, k)
		f.Unlock()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestNothingBeforeThereIsASubnet(t *testing.T) {
	run(t, func(t *testing.T, f *fake, k *Keeper) {
		f.wait(time.Minute)
		if f.applies > 0 || len(f.checked) > 0 {
			t.Errorf("%d applied, checked %v", f.applies, f.checked)
		}
		k.SetSubnet(subnet)
		f.wait(time.Millisecond)
		if f.held == nil || f.held.Subnet != subnet || len(f.checked) != 1 {
			t.Errorf("holds %v, checked %v", f.held, f.checked)
		}
	})
}

func TestHealingAndDrift(t *testing.T) {
	run(t, func(t *testing.T, f *fake, k *Keeper) {
		k.SetSubnet(subnet)
		f.wait(time.Millisecond)
		f.held = nil
		f.own()
		f.wait(time.Millisecond)
		if f.held == nil || f.drift != 3 {
			t.Errorf("holds %v after an event, drift %d", f.held, f.drift)
		}
		f.held = nil
		f.wait(5 * time.Second)
		if f.held == nil || f.drift != 6 {
			t.Errorf("holds %v after a resync, drift %d", f.held, f.drift)
		}
		before := f.log.Len()
		f.wait(time.Hour)
		if f.log.Len() > before {
			t.Errorf("checks that find nothing log %s", f.log.String()[before:])
		}
	})
}

func TestFailuresAreRetriedAndSaidOnce(t *testing.T) {
	run(t, func(t *testing.T, f *fake, k *Keeper) {
		f.err = errors.New("locked")
		k.SetSubnet(subnet)
		f.wait(time.Minute)
		if n := strings.Count(f.log.String(), "locked"); n != 1 || f.checked[0] == nil {
			t.Errorf("said %d times; checked %v", n, f.checked)
		}
		f.err = nil
		f.wait(10 * time.Second)
		if f.held == nil || f.checked[len(f.checked)-1] != nil || f.drift != 0 {
			t.Errorf("holds %v, checked %v, drift %d", f.held, f.checked, f.drift)
		}
	})
}

func TestWhatAnEarlierRunLeftGoesAfterTheRulesAreIn(t *testing.T) {
	run(t, func(t *testing.T, f *fake, k *Keeper) {
		k.SetSubnet(subnet)
		f.wait(time.Minute)
		if f.removed != 2 {
			t.Errorf("removed %d times, want one failure and one success", f.removed)
		}
	})
}

func TestNodesAreExcluded(t *testing.T) {
	run(t, func(t *testing.T, f *fake, k *Keeper) {
		k.SetSubnet(subnet)
		a, b := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.1")
		k.SetNodes([]netip.Addr{a, b, a})
		f.wait(2 * time.Second)
		if len(f.held.Exclude) != 2 || f.held.Exclude[0] != ipfam.Host(b) {
			t.Errorf("excludes %v", f.held.Exclude)
		}
		applies := f.applies
		k.SetNodes([]netip.Addr{b, a})
		f.wait(time.Second)
		if f.applies != applies || f.drift != 0 {
			t.Errorf("%d applied for the same nodes, drift %d", f.applies-applies, f.drift)
		}
	})
}

func TestDropsOfOthersAreSaidOnce(t *testing.T) {
	run(t, func(t *testing.T, f *fake, k *Keeper) {
		k.SetSubnet(subnet)
		f.lines = []string{"chain FORWARD drops"}
		for range 20 {
			f.other()
			f.wait(time.Second)
		}
		if !slices.Equal(f.told, f.lines) {
			t.Errorf("told %q", f.told)
		}
		f.lines = nil
		f.other()
		f.wait(11 * time.Second)
		text := f.log.String()
		if len(f.told) > 0 || strings.Count(text, "chain FORWARD drops") != 1 || strings.Count(text, "no longer dropped") != 1 {
			t.Errorf("log\n%s", text)
		}
	})
}

func TestRulesThatVanishDuringALookAreNoDropOfOthers(t *testing.T) {
	run(t, func(t *testing.T, f *fake, k *Keeper) {
		f.vanish = true
		k.SetSubnet(subnet)
		f.wait(time.Minute)
		if text := f.log.String(); f.vanish || f.held == nil || strings.Contains(text, "dropped") {
			t.Errorf("holds %v, log\n%s", f.held, text)
		}
	})
}

func TestWhatIsMissingOfOursIsNoDropOfOthers(t *testing.T) {
	run(t, func(t *testing.T, f *fake, k *Keeper) {
		k.SetSubnet(subnet)
		f.wait(time.Millisecond)
		f.other()
		f.wait(blockedEvery - 500*time.Millisecond) // between two resyncs
		f.held = nil
		f.wait(time.Second)
		if text := f.log.String(); f.held == nil || strings.Contains(text, "dropped") {
			t.Errorf("holds %v, log\n%s", f.held, text)
		}
	})
}

// driver is one that a test holds up.
type driver func(context.Context) error

func (d driver) Apply(ctx context.Context, _ ipmasq.Config) (ipmasq.Changes, error) {
	return nil, d(ctx)
}

// TestAPassThatHangs shows in /healthz, and a command that does not.
func TestAPassThatHangs(t *testing.T) {
	for name, c := range map[string]struct {
		outside bool
		want    int
	}{"the driver hangs": {false, 1}, "a command hangs": {true, 0}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				registry := health.New(nil)
				hang := driver(func(ctx context.Context) error {
					if c.outside {
						defer health.Outside(ctx)()
					}
					<-ctx.Done()
					return ctx.Err()
				})
				k := New(Options{
					Log: slog.New(slog.DiscardHandler), Checked: func(error) {}, Loop: registry.AddLoop("rules"),
					Choose: func(context.Context) (Mode, error) { return Mode{Driver: hang, Resync: time.Minute}, nil },
				})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- k.Run(ctx) }()
				time.Sleep(time.Hour)
				if got := registry.Hanging(); len(got) > 0 {
					t.Errorf("without a pass: %q", got)
				}
				k.SetSubnet(subnet)
				time.Sleep(6 * time.Minute)
				if got := registry.Hanging(); len(got) != c.want {
					t.Errorf("got %q, want %d loops", got, c.want)
				}
				cancel()
				<-done
				if got := registry.Hanging(); len(got) > 0 {
					t.Errorf("after the pass: %q", got)
				}
			})
		})
	}
}
