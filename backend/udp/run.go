package udp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"flannel/backend"
	"flannel/internal/ipfam"
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

var errStarting = errors.New("starting to move packets")

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
func (b *udp) use(s setup) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.setup == nil || *b.setup != s || b.problem != nil {
		b.setup = &s
		b.kick.Send()
	}
	return b.problem
}

func (b *udp) wanted() *setup {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.setup
}

// Run implements backend.Runner.
func (b *udp) Run(ctx context.Context, changed func()) error {
	// The device is there soon after the first pass.
	retry := loop.Backoff{First: 50 * time.Millisecond, Last: 5 * time.Second}
	for {
		want := b.wanted()
		if want == nil {
			if err := b.wait(ctx, nil); err != nil {
				return err
			}
			continue
		}
		s, err := b.open(*want)
		if err == nil {
			retry.Reset()
			b.settle(nil, changed)
			err = b.session(ctx, s)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			continue // Another setup.
		}
		b.settle(err, changed)
		if err := b.wait(ctx, time.After(retry.Next())); err != nil {
			return err
		}
	}
}

func (b *udp) wait(ctx context.Context, timer <-chan time.Time) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-b.kick:
	case <-timer:
	}
	return nil
}

// settle remembers what is wrong, and calls changed if that is something else.
func (b *udp) settle(err error, changed func()) {
	b.mu.Lock()
	before := b.problem
	if err != nil {
		err = fmt.Errorf("packets are not moved: %w", err)
	}
	b.problem = err
	b.mu.Unlock()
	switch {
	case err == nil:
		b.env.Log.Info("moving packets", "dev", b.device, "port", b.config.Port)
	case before == nil || before.Error() != err.Error():
		b.env.Log.Warn("packets are not moved, will retry", "err", err)
	default:
		return
	}
	changed()
}

// session runs a session until it fails, ctx ends, or another setup is wanted;
// then it returns nil.
func (b *udp) session(ctx context.Context, s *session) error {
	done := make(chan error, 1) // closed by nobody: one send
	go func() { done <- s.run() }()
	for {
		select {
		case err := <-done:
			return errors.Join(err, s.close())
		case <-ctx.Done():
		case <-b.kick:
			if want := b.wanted(); *want == s.setup {
				continue
			}
		}
		s.interrupt()
		return errors.Join(<-done, s.close())
	}
}
