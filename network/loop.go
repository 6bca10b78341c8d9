package network

import (
	"context"
	"io/fs"
	"math/rand/v2"
	"sync"
	"time"

	"flannel/internal/loop"
	"flannel/subnet"
)

// loop makes passes: at once if something changed, again with backoff if one
// was incomplete, and on a slow timer.
func (n *Network) loop(ctx context.Context) error {
	l := &passState{Network: n, report: newReporter(n.Log), lists: make(chan listing, 1)}
	defer l.readers.Wait()
	if held, err := n.kernel.Held(ctx); err == nil && n.needs.Peers {
		l.guard.start(held, n.config.Network)
	} else if err != nil {
		n.Log.Warn("routes of an earlier run not read", "err", err)
	}
	resync := time.NewTicker(ResyncPeriod)
	defer resync.Stop()
	file := time.NewTicker(subnetFileEvery)
	defer file.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case list := <-l.lists:
			l.listing = false
			l.listed(list)
		case <-resync.C:
			n.kernel.Invalidate()
			l.looked = false
		case <-n.kick:
		case <-l.passes.Again():
		case <-file.C:
			if !l.subnetFileDue(time.Now()) {
				continue
			}
		}
		if err := l.passes.Pass(ctx, l.passAndList); err != nil {
			return err
		}
	}
}

// passAndList makes a pass, and reads the store if the guard wants to know.
func (l *passState) passAndList(ctx context.Context) error {
	err := l.pass(ctx)
	l.askForList(ctx)
	return err
}

// passState is what the loop remembers between passes.
type passState struct {
	*Network
	// passes paces the passes.
	passes    loop.Loop
	guard     guard
	validator subnet.Validator
	// site is what is known of this host; looked is whether it is up to date.
	site   site
	looked bool
	report reporter
	// lists delivers a list that the guard has asked for; listing is whether one
	// is being read.
	lists   chan listing
	listing bool
	// listRetry paces lists that fail; none is read before listAfter.
	listRetry loop.Backoff
	listAfter time.Time
	readers   sync.WaitGroup
	// bridgeSeen is whether the pods' bridge was checked since the start.
	bridgeSeen bool
	// subnetFile is subnet.env as it was when it was last correct, nil if others
	// wrote it at the same moment; subnetFileWritten is whether writing it
	// succeeded.
	subnetFile        fs.FileInfo
	subnetFileWritten bool
	// fileRetry paces what restores it; it is not checked before fileAfter.
	fileRetry loop.Backoff
	fileAfter time.Time
	// fileNotified is whether Options.SubnetFileWritten has returned nil.
	fileNotified bool
	// held is whether it is logged that peers are kept.
	held bool
}

// listing is a list of the store and when it was read.
type listing struct {
	leases []*subnet.Lease
	at     time.Time
	err    error
}

func (l *passState) logHeld() {
	if l.held {
		l.Log.Warn("leases are gone from the store; their peers are kept until two lists agree",
			"kept", len(l.guard.kept)+len(l.guard.inKernel), "apart", agreeAfter)
		return
	}
	l.Log.Info("no peer is kept any more that the store does not show")
}

// askForList has the store read, if the guard wants that, without delaying the
// passes. The reader ends with ctx; the channel has room for its list.
func (l *passState) askForList(ctx context.Context) {
	at, wanted := l.guard.nextList()
	if doubts := l.guard.doubts(); doubts != l.held {
		l.held = doubts
		l.logHeld()
	}
	if !wanted || l.listing {
		return
	}
	l.listing = true
	if at.Before(l.listAfter) {
		at = l.listAfter
	}
	delay := max(0, time.Until(at)) + rand.N(listSpread)
	l.readers.Go(func() {
		if loop.Wait(ctx, delay) != nil {
			return
		}
		leases, err := l.Manager.List(ctx)
		l.lists <- listing{leases, time.Now(), err}
	})
}

// listed takes what the reader has read.
func (l *passState) listed(list listing) {
	l.listing = false
	if list.err != nil {
		l.Log.Debug("leases not listed", "err", list.err)
		l.listAfter = time.Now().Add(l.listRetry.Next())
		return
	}
	l.listRetry.Reset()
	if own := l.own.Load(); own != nil {
		l.guard.listed(list.leases, own.Subnet, list.at)
	}
}
