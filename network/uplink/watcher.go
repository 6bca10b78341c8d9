package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"flannel/backend"
	"flannel/internal/logonce"
	"flannel/internal/loop"
	"flannel/kernel/rtnl"
)

const (
	// collectFor is how long events are collected before the host is looked at:
	// many changes come in several steps.
	collectFor = 100 * time.Millisecond
	// poll is how often the host is looked at while something is missing or
	// only a last resort, in case no event reports the change.
	poll = 5 * time.Second
	// defaultGrace is how long addresses may be missing before another one is
	// used in their place: a DHCP client or an administrator may be
	// about to restore them, and the kernel drops IPv6 addresses when the
	// interface goes down.
	defaultGrace = 10 * time.Second
	// stableAfter is how long a better uplink must be there before it is used in
	// place of one that was the last resort.
	stableAfter = 60 * time.Second
	reopenAfter = time.Second
	// bufferSize is what the kernel keeps of events, in bytes, to begin with.
	bufferSize = 1 << 20
)

// Config is what a Watcher is made from.
type Config struct {
	Options Options
	// Namespace is the open network namespace to work in; zero is that of the
	// process.
	Namespace int
	Log       *slog.Logger
	// TrackLinks means that Host.OnLinkRoutes is wanted. Without it routes are neither
	// read nor followed.
	TrackLinks bool
	// Grace and ReceiveBuffer (bytes) replace the defaults when they are set.
	Grace         time.Duration
	ReceiveBuffer int
}

// Watcher knows the uplink and follows it.
type Watcher struct {
	Config

	// The loop in Wait or Run owns these.
	choice  choice
	looked  time.Time // when the host was looked at last
	wasDown bool      // the uplink was down at the last look, or since
	table   *linkTable
	logged  logonce.Last[string] // cause of the last warning, "" since all is well

	mu   sync.Mutex
	view backend.Host
	err  error
}

// ErrUnknown is returned by Current before Wait has returned.
var ErrUnknown = errors.New("the uplink is not known yet")

// NewWatcher returns a watcher that knows nothing yet. Wait comes first, then
// Run; they do not run at the same time.
func NewWatcher(c Config) *Watcher {
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	if c.ReceiveBuffer == 0 {
		c.ReceiveBuffer = bufferSize
	}
	return &Watcher{
		Config: c, err: ErrUnknown,
		choice: choice{options: c.Options, grace: c.Grace, stable: stableAfter},
	}
}

// Current returns the uplink in use. The error names the part of it that is
// gone while nothing on the host can take its place; the view is then the last one.
func (w *Watcher) Current() (backend.Host, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.view, w.err
}

// Wait blocks until there is an uplink, or ctx ends. It logs what it waits
// for, once per cause.
func (w *Watcher) Wait(ctx context.Context) (backend.Host, error) {
	err := w.follow(ctx, func() {}, w.known)
	if err != nil {
		return backend.Host{}, err
	}
	return w.Current()
}

// Run follows the uplink until ctx ends. changed is called once at the start,
// then when Current has changed and when routes over the uplink may have
// vanished; it must not block. The addresses in use stay in use as long as they
// are on their interface.
func (w *Watcher) Run(ctx context.Context, changed func()) error {
	return w.follow(ctx, changed, func() bool { return false })
}

func (w *Watcher) known() bool {
	view, _ := w.Current()
	return view.Uplink.Index != 0
}

// follow looks and follows events until enough reports true or ctx ends.
func (w *Watcher) follow(ctx context.Context, changed func(), enough func() bool) error {
	for {
		err := w.session(ctx, changed, enough)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if w.logged.Changed(err.Error()) {
			w.Log.Warn("uplink cannot be followed, will retry", "err", err)
		}
		_ = loop.Wait(ctx, reopenAfter) // the loop sees when ctx has ended
	}
}

// The groups whose events matter always, and those that matter at times.
var (
	linkGroups  = []int{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR}
	routeGroups = []int{unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE}
)

// session is the life of its sockets.
func (w *Watcher) session(ctx context.Context, changed func(), enough func() bool) error {
	host, err := openHost(w.Namespace)
	if err != nil {
		return err
	}
	defer host.close()
	events, err := rtnl.Listen(w.Namespace, w.ReceiveBuffer, linkGroups...)
	if err != nil {
		return fmt.Errorf("subscribe to events: %w", err)
	}
	defer func() { _ = events.Close() }()
	withRoutes := false
	// What happened before the subscription is found by looking, but for what
	// was gone for a moment only.
	for s := (eventSummary{look: true, kick: true}); ; {
		if s.look {
			if err := w.look(host, s, changed); err != nil {
				return err
			}
		}
		if enough() {
			return nil
		}
		sub := w.subscription()
		if on := sub.wantsRoutes(); on != withRoutes {
			subscribe := events.Leave
			if on {
				subscribe = events.Join
			}
			if err := subscribe(routeGroups...); err != nil {
				return err
			}
			if withRoutes = on; on {
				// What happened to routes before is found by looking, too.
				s = eventSummary{look: true}
				continue
			}
		}
		if s, err = w.await(ctx, events, sub); err != nil {
			return err
		}
	}
}

// await waits for events or the time for a look, and sums up the events.
func (w *Watcher) await(ctx context.Context, events *rtnl.Events, sub subscription) (s eventSummary, err error) {
	until := ctx
	if deadline := w.deadline(); !deadline.IsZero() {
		var cancel context.CancelFunc
		until, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	add := func(m rtnl.Message) { s.merge(sub.classify(m)) }
	first := events.Read(until, add)
	// The pause comes after any event: a stream of events that do not matter
	// then costs a few wake-ups per second and not one each.
	_ = loop.Wait(ctx, collectFor) // the end of ctx is seen below
	for _, err := range []error{first, events.Drain(add)} {
		switch {
		case errors.Is(err, rtnl.ErrOverrun):
			// Any of the lost events may have mattered.
			s.merge(eventSummary{look: true, kick: true})
		case err != nil && until.Err() == nil:
			return s, err
		}
	}
	s.look = s.look || until.Err() != nil
	return s, ctx.Err()
}

// deadline is when to look although nothing happens; zero means never.
func (w *Watcher) deadline() time.Time {
	_, err := w.Current()
	if err == nil && !w.choice.open() {
		return time.Time{}
	}
	deadline := w.looked.Add(poll)
	if next := w.choice.next(w.looked); !next.IsZero() && next.Before(deadline) {
		return next
	}
	return deadline
}

// subscription returns which events matter at present.
func (w *Watcher) subscription() subscription {
	view, err := w.Current()
	// What a last resort is given up for must not vanish unnoticed.
	searching := err != nil || w.choice.waits()
	return subscription{
		index:         view.Uplink.Index,
		addrs:         view.Uplink.Addr,
		any:           searching,
		defaultRoutes: searching && w.Options.byRoute(),
		allRoutes:     searching && w.Options.CanReach.IsValid(),
		table:         w.table,
	}
}

// look reads the host, decides and keeps the result.
func (w *Watcher) look(host host, s eventSummary, changed func()) error {
	snapshot, err := host.interfaces()
	if err != nil {
		return err
	}
	if w.choice.needsRoutes(snapshot) {
		if err := host.addRoutes(&snapshot, w.Options); err != nil {
			return err
		}
	}
	w.looked = time.Now()
	w.choice.remember(s.added)
	gone := w.choice.look(snapshot, w.looked)
	link, _ := snapshot.linkByIndex(w.choice.up.Index)
	upAgain := link.Up && (w.wasDown || s.down)
	w.wasDown = !link.Up
	was, _ := w.Current()
	view := backend.Host{Uplink: w.choice.up, OnLinkRoutes: was.OnLinkRoutes}
	// While something is missing the routes are not those of normal operation.
	if w.TrackLinks && gone == nil && link.Up {
		if view.OnLinkRoutes, err = w.readLinks(host, link.Index, was.OnLinkRoutes); err != nil {
			return err
		}
	}
	if w.keep(view, gone) || s.kick || upAgain {
		changed()
	}
	return nil
}

// readLinks reads the links of the uplink. An interface that goes down or
// vanishes meanwhile takes its routes with it: then the former ones stay, and
// its event leads to another look.
func (w *Watcher) readLinks(host host, index int, former backend.OnLinkRoutes) (backend.OnLinkRoutes, error) {
	table, err := host.linkTable(index, w.Options.Families)
	if errors.Is(err, unix.ENODEV) {
		return former, nil
	}
	if err != nil {
		return nil, err
	}
	w.table = table
	if !host.isUp(index) {
		return former, nil
	}
	return table.links(), nil
}

// keep stores the result, logs what people should know and reports whether
// anything changed.
func (w *Watcher) keep(view backend.Host, gone error) bool {
	w.mu.Lock()
	was := w.view
	w.view, w.err = view, gone
	w.mu.Unlock()
	moved, newCause := was.Uplink != view.Uplink, w.logged.Changed(logonce.CauseOf(gone))
	switch {
	case gone != nil && !newCause:
	case gone != nil && view.Uplink.Index == 0:
		w.Log.Warn("waiting for an uplink", "err", gone)
	case gone != nil:
		w.Log.Warn("uplink lost, its last state stays in use", "err", gone)
	case was.Uplink.Index == 0:
	case moved:
		w.Log.Info("uplink changed", "dev", view.Uplink.Name, "mtu", view.Uplink.MTU,
			"addr", view.Uplink.Addr, "public", view.Uplink.Public)
	case newCause:
		w.Log.Info("uplink restored", "dev", view.Uplink.Name)
	}
	return moved || newCause || !slices.Equal(was.OnLinkRoutes, view.OnLinkRoutes)
}
