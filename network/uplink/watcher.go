package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"flannel/backend"
	"flannel/internal/wait"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// settle is how long events are collected before the host is looked at:
	// many changes come in several steps.
	settle = 100 * time.Millisecond
	// poll is how often the host is looked at while there is no uplink, in
	// case that an event says too little.
	poll = 5 * time.Second
	// defaultGrace is how long addresses may be missing after the uplink was
	// down: the kernel drops IPv6 addresses then, and they come back late.
	defaultGrace = 10 * time.Second
	reopenAfter  = time.Second
)

// Config is what a Watcher is made from.
type Config struct {
	Options Options
	// Handle reads the network namespace; Namespace is that namespace, or
	// netns.None() for the one of the process.
	Handle    *netlink.Handle
	Namespace netns.NsHandle
	Log       *slog.Logger
	// TrackLinks says that View.Links is wanted. Without it routes are neither
	// read nor followed.
	TrackLinks bool
	// Grace and ReceiveBuffer (bytes) replace the defaults when they are set.
	Grace         time.Duration
	ReceiveBuffer int
}

// Watcher knows the uplink and follows it.
type Watcher struct {
	Config
	host host

	// The loop in Wait or Run owns these.
	missingSince time.Time // the address in use is missing and may come back
	wasDown      bool      // the uplink was down since all was well
	table        *linkTable
	said         string // the last cause that was logged

	mu    sync.Mutex
	view  backend.View
	err   error
	cause string // of err, without what varies from look to look
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
	return &Watcher{Config: c, host: host{c.Handle, c.Namespace}, err: ErrUnknown}
}

// Current returns the uplink in use. An error says what of it is gone, while
// nothing on the host can take its place; the view is then the last one.
func (w *Watcher) Current() (backend.View, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.view, w.err
}

// Wait blocks until there is an uplink, or ctx ends. It logs what it waits
// for, once per cause.
func (w *Watcher) Wait(ctx context.Context) (backend.View, error) {
	err := w.follow(ctx, func() {}, w.known)
	if err != nil {
		return backend.View{}, err
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

// follow looks and follows events until enough says so or ctx ends.
func (w *Watcher) follow(ctx context.Context, changed func(), enough func() bool) error {
	for size := w.ReceiveBuffer; ; size = min(2*size, maxBufferSize) {
		err := w.session(ctx, size, changed, enough)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		w.say("following the uplink fails, will retry", err, err.Error())
		_ = wait.For(ctx, reopenAfter) // the loop sees when ctx has ended
	}
}

// session is the life of one event socket.
func (w *Watcher) session(ctx context.Context, size int, changed func(), enough func() bool) error {
	events, err := w.host.openEvents(size)
	if err != nil {
		return err
	}
	defer events.close()
	// What happened before the subscription is found by looking, but for what
	// was gone for a moment only.
	for n := (news{look: true, kick: true}); ; {
		var err error
		if n.look {
			err = w.look(n, changed)
		}
		if enough() {
			return nil
		}
		interest := w.interest()
		missed, watchErr := events.watchRoutes(interest.wantsRoutes())
		if err = errors.Join(err, watchErr); err != nil {
			return err
		}
		if n = (news{look: true}); !missed {
			if n, err = w.nextNews(ctx, events, interest); err != nil {
				return err
			}
		}
	}
}

// nextNews waits for events, lets them settle and says what they mean.
func (w *Watcher) nextNews(ctx context.Context, events *events, i interest) (news, error) {
	deadline := w.deadline()
	n, err := events.wait(ctx, deadline, i)
	if err != nil {
		return n, err
	}
	// The pause comes after any event: a stream of events that do not matter
	// then costs a few wake-ups per second and not one each.
	_ = wait.For(ctx, settle) // whoever calls sees when ctx has ended
	late, err := events.drain(i)
	n.merge(late)
	if !deadline.IsZero() && !time.Now().Before(deadline) {
		n.look = true
	}
	return n, errors.Join(err, ctx.Err())
}

// deadline is when to look although nothing happens; zero means never.
func (w *Watcher) deadline() time.Time {
	_, err := w.Current()
	switch {
	case !w.missingSince.IsZero():
		return w.missingSince.Add(w.grace())
	case err != nil:
		return time.Now().Add(poll)
	}
	return time.Time{}
}

// interest says which events matter at present.
func (w *Watcher) interest() interest {
	view, err := w.Current()
	searching := err != nil
	return interest{
		index:     view.Uplink.Index,
		addrs:     view.Uplink.Addr,
		any:       searching,
		routes:    searching && w.Options.byRoute(),
		allRoutes: searching && w.Options.CanReach.IsValid(),
		table:     w.table,
	}
}

func (i interest) wantsRoutes() bool { return i.routes || i.table != nil }

// look reads the host, decides and keeps the result.
func (w *Watcher) look(n news, changed func()) error {
	w.wasDown = w.wasDown || n.down
	snapshot, err := w.host.interfaces()
	if err != nil {
		return err
	}
	was, wasErr := w.Current()
	d, err := w.decide(was.Uplink, wasErr != nil, snapshot)
	if err != nil {
		return err
	}
	view := backend.View{Uplink: d.up, Links: was.Links}
	if w.TrackLinks && d.whole {
		if view.Links, err = w.readLinks(d.up.Index, was.Links); err != nil {
			return err
		}
	}
	if w.keep(view, d.gone) || n.kick || d.upAgain {
		changed()
	}
	return nil
}

// readLinks reads the links of the uplink. An interface that goes down or
// vanishes meanwhile takes its routes with it: then the former ones stay, and
// its event leads to another look.
func (w *Watcher) readLinks(index int, former backend.Links) (backend.Links, error) {
	table, err := w.host.linkTable(index, w.Options.Families)
	if errors.Is(err, unix.ENODEV) {
		return former, nil
	}
	if err != nil {
		return nil, err
	}
	w.table = table
	if !w.host.isUp(index) {
		return former, nil
	}
	return table.links(), nil
}

// decision is what a look at the host leads to.
type decision struct {
	up backend.Uplink
	// gone says what of the uplink is gone for good.
	gone error
	// whole says that nothing is missing for the moment, so that the routes
	// say what they say when all is well.
	whole bool
	// upAgain says that the uplink is up after having been down.
	upAgain bool
}

func (w *Watcher) decide(cur backend.Uplink, searching bool, s Snapshot) (decision, error) {
	var missing error
	if cur.Index != 0 {
		var linkGone bool
		link, _ := s.linkByIndex(cur.Index)
		w.wasDown = w.wasDown || !link.Up
		if cur, linkGone, missing = keep(cur, s); missing == nil {
			d := decision{up: cur, whole: link.Up, upAgain: w.wasDown && link.Up}
			w.wasDown, w.missingSince = !link.Up, time.Time{}
			return d, nil
		}
		if !linkGone && !searching && w.inGrace() {
			return decision{up: cur}, nil
		}
	}
	w.missingSince = time.Time{}
	if err := w.host.addRoutes(&s, w.Options); err != nil {
		return decision{}, err
	}
	next, err := choose(cur, w.Options, s)
	switch {
	case err == nil:
		w.wasDown = false
		return decision{up: next, whole: true}, nil
	case missing != nil:
		err = fmt.Errorf("%w: %w", missing, err)
	}
	return decision{up: cur, gone: err}, nil
}

// inGrace reports whether to go on waiting for an address that is missing.
func (w *Watcher) inGrace() bool {
	if w.missingSince.IsZero() {
		w.missingSince = time.Now()
	}
	return time.Since(w.missingSince) < w.grace()
}

// grace is how long an address may be missing. Even when all seems well
// otherwise it is looked for twice: the event that says that the uplink went
// down may be on its way.
func (w *Watcher) grace() time.Duration {
	if w.wasDown {
		return w.Grace
	}
	return settle
}

// keep takes the result over, logs what people should know and reports whether
// anything changed.
func (w *Watcher) keep(view backend.View, gone error) bool {
	cause := causeOf(gone)
	w.mu.Lock()
	was, wasCause := w.view, w.cause
	w.view, w.err, w.cause = view, gone, cause
	w.mu.Unlock()
	moved := was.Uplink != view.Uplink
	switch {
	case gone != nil && view.Uplink.Index == 0:
		w.say("waiting for an uplink", gone, cause)
	case gone != nil:
		w.say("uplink gone, going on as before", gone, cause)
	case moved && was.Uplink.Index != 0:
		w.Log.Info("uplink changed", "dev", view.Uplink.Name, "mtu", view.Uplink.MTU,
			"addr", view.Uplink.Addr, "public", view.Uplink.Public)
	case wasCause != "" && was.Uplink.Index != 0:
		w.Log.Info("uplink is back", "dev", view.Uplink.Name)
	}
	if gone == nil {
		w.said = ""
	}
	return moved || cause != wasCause || !slices.Equal(was.Links, view.Links)
}

// causeOf is the part of an error that stays the same while interfaces that do
// not matter come and go.
func causeOf(gone error) string {
	var notFound *NotFoundError
	switch {
	case errors.As(gone, &notFound):
		return notFound.Cause
	case gone != nil:
		return gone.Error()
	}
	return ""
}

// say logs a trouble once per cause.
func (w *Watcher) say(message string, err error, cause string) {
	if w.said != cause {
		w.said = cause
		w.Log.Warn(message, "err", err)
	}
}
