package udp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/internal/logonce"
	"flannel/internal/loop"
	"flannel/subnet"
)

// setup is what a session is opened with; another one needs another session.
type setup struct {
	device string
	mtu    int
	uplink string
	addrs  ipfam.Pair[netip.Addr]
}

// source is what a table was made from.
type source struct {
	own   subnet.Lease
	peers []subnet.Lease
	up    backend.Uplink
}

func (s *source) same(own subnet.Lease, peers []subnet.Lease, up backend.Uplink) bool {
	return s.up == up && s.own.Equal(own) && slices.EqualFunc(s.peers, peers, subnet.Lease.Equal)
}

// forwarder runs one session after the other.
type forwarder struct {
	env    backend.Env
	log    *slog.Logger
	config Config
	device string
	may    offloads

	// last is what the table was made from; only Use knows it.
	last     source
	tables   atomic.Pointer[table]
	counters counters
	// unknownSources have sent packets and are named by no lease. sendErrors are
	// the addresses to which the kernel does not send.
	unknownSources, sendErrors *logonce.Set[netip.Addr]
	// kick is signalled when setup is another one, or the device may be there.
	kick loop.Signal

	mu      sync.Mutex
	setup   *setup // nil until the first Use
	problem error
}

var errStarting = errors.New("starting to move packets")

func newForwarder(env backend.Env, config Config, device string) *forwarder {
	return &forwarder{
		env: env, log: env.Log, config: config, device: device, may: all,
		kick: loop.NewSignal(), problem: errStarting, counters: newCounters(env.Counter),
		unknownSources: logonce.NewSet[netip.Addr](maxLogged), sendErrors: logonce.NewSet[netip.Addr](maxLogged),
	}
}

// Use implements backend.Runner.
func (b *udp) Use(own subnet.Lease, peers []subnet.Lease, h backend.Host) error {
	if !b.last.same(own, peers, h.Uplink) {
		b.last = source{own, slices.Clone(peers), h.Uplink}
		b.tables.Store(newTable(b.env, b.config.Port, own, peers, h.Uplink, b.tables.Load()))
	}
	return b.use(setup{b.device, b.MTU(h.Uplink), h.Uplink.Name, h.Uplink.Addr})
}

// use asks for a session with this setup and returns what is wrong with the
// present one.
func (f *forwarder) use(s setup) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.setup == nil || *f.setup != s || f.problem != nil {
		f.setup = &s
		f.kick.Send()
	}
	return f.problem
}

func (f *forwarder) wanted() *setup {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.setup
}

// Run implements backend.Runner.
func (f *forwarder) Run(ctx context.Context, changed func()) error {
	// The device is there soon after the first pass.
	retry := loop.Backoff{First: 50 * time.Millisecond, Last: 5 * time.Second}
	for {
		want := f.wanted()
		if want == nil {
			if err := f.wait(ctx, nil); err != nil {
				return err
			}
			continue
		}
		s, err := f.open(*want)
		if err == nil {
			retry.Reset()
			f.settle(nil, changed)
			err = f.session(ctx, s)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			continue // Another setup.
		}
		f.settle(err, changed)
		timer := time.NewTimer(retry.Next())
		err = f.wait(ctx, timer.C)
		timer.Stop()
		if err != nil {
			return err
		}
	}
}

func (f *forwarder) wait(ctx context.Context, timer <-chan time.Time) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.kick:
	case <-timer:
	}
	return nil
}

// settle remembers what is wrong, and calls changed if that is something else.
func (f *forwarder) settle(err error, changed func()) {
	f.mu.Lock()
	before := f.problem
	if err != nil {
		err = fmt.Errorf("packets are not moved: %w", err)
	}
	f.problem = err
	f.mu.Unlock()
	switch {
	case err == nil:
		f.log.Info("moving packets", "dev", f.device, "port", f.config.Port)
	case before == nil || before.Error() != err.Error():
		f.log.Warn("packets are not moved, will retry", "err", err)
	default:
		return
	}
	changed()
}

// session runs a session until it fails, ctx ends, or another setup is wanted;
// then it returns nil.
func (f *forwarder) session(ctx context.Context, s *session) error {
	done := make(chan error, 1) // closed by nobody: one send
	go func() { done <- s.run() }()
	for {
		select {
		case err := <-done:
			return errors.Join(err, s.close())
		case <-ctx.Done():
		case <-f.kick:
			if want := f.wanted(); *want == s.setup {
				continue
			}
		}
		s.interrupt()
		return errors.Join(<-done, s.close())
	}
}
