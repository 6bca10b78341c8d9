// Package fastpath carries packets of established flows between pods past the stack
// of this host, with eBPF programs that are attached while it runs.
package fastpath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"flannel/backend"
	"flannel/internal/logonce"
	"flannel/internal/loop"
)

// DefaultHold is for how long packets are fast after one of their flow and direction
// has left the stack.
const DefaultHold = 30 * time.Second

// Options is what New needs.
type Options struct {
	Log *slog.Logger
	// Bridge is the name of the pods' bridge.
	Bridge string
	// Hold is the longest time for which a rule of the host that was added does
	// not count; zero means DefaultHold.
	Hold time.Duration
	// Namespace is the open network namespace to work in; zero is the current one.
	Namespace int
}

// FastPath carries packets while Run runs. Nothing stays attached afterwards.
type FastPath struct {
	options Options
	// kick is sent when something about the peers or the host is another.
	kick loop.Signal

	mu     sync.Mutex
	status []backend.PeerStatus

	// open is held while the maps of a session are read or closed. It guards the
	// fields below.
	open sync.Mutex
	// session is nil while nothing is attached.
	session *session
	// former is what earlier sessions have carried.
	former totals
}

// New returns a FastPath that does nothing until Run.
func New(o Options) *FastPath {
	if o.Hold == 0 {
		o.Hold = DefaultHold
	}
	return &FastPath{options: o, kick: loop.NewSignal()}
}

// SetPeers takes the peers of a pass, which nobody may change afterwards. It does
// not block.
func (f *FastPath) SetPeers(status []backend.PeerStatus) {
	f.mu.Lock()
	f.status = status
	f.mu.Unlock()
	f.kick.Send()
}

func (f *FastPath) peers() []backend.PeerStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

// errChanged ends a session whose programs were loaded for another host.
var errChanged = errors.New("the host has changed")

// Run attaches the programs and keeps them so until ctx ends. What keeps it from
// that is logged once and tried again.
func (f *FastPath) Run(ctx context.Context) error {
	failures := logonce.Words{
		Level: slog.LevelWarn, Begins: "no fast path; all packets go through the stack", Ends: "fast path works again",
	}.NewFailures(f.options.Log)
	retry := loop.Backoff{First: time.Second, Last: lookEvery}
	for ctx.Err() == nil {
		err := f.runOnce(ctx, func() {
			failures.OK("fast path")
			retry.Reset()
		})
		switch {
		case ctx.Err() != nil:
			continue
		case errors.Is(err, errChanged):
			f.options.Log.Debug("programs are loaded anew", "why", err)
			continue
		case errors.Is(err, errNothing):
			select {
			case <-ctx.Done():
			case <-f.kick:
			case <-time.After(lookEvery):
			}
			continue
		}
		failures.Fail("fast path", err)
		_ = retry.Wait(ctx)
	}
	return ctx.Err()
}

// runOnce is one session; attached is called when its programs carry packets.
func (f *FastPath) runOnce(ctx context.Context, attached func()) error {
	look, err := newLook(f.options.Namespace)
	if err != nil {
		return err
	}
	defer look.Close()
	want, err := look.setup(f.options, f.peers())
	if err != nil {
		return err
	}
	s, err := newSession(f, look, want)
	if err != nil {
		return fmt.Errorf("load the programs: %w", err)
	}
	f.use(s)
	defer f.drop()
	return s.run(ctx, attached)
}

func (f *FastPath) use(s *session) {
	f.open.Lock()
	defer f.open.Unlock()
	f.session = s
}

// drop detaches everything and keeps what was counted.
func (f *FastPath) drop() {
	f.open.Lock()
	defer f.open.Unlock()
	s := f.session
	s.detachAll()
	if t, err := s.totals(); err == nil {
		f.former.add(t)
	}
	s.Close()
	f.session = nil
}
