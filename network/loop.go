package network

import (
	"context"
	"io/fs"
	"math/rand/v2"
	"sync"
	"time"

	"flannel/internal/wait"
	"flannel/subnet"
)

// restFactor bounds what passes may cost while events keep coming: after a
// pass the loop rests this many times as long as the pass took, at most
// maxRest.
const (
	restFactor = 4
	maxRest    = time.Second
)

// loop makes passes: at once when something changed, again with backoff when
// one was incomplete, and on a slow timer.
func (n *Network) loop(ctx context.Context) error {
	l := &looper{
		Network: n, retry: newBackoff(), report: newReporter(n.Log),
		lists: make(chan listing, 1), listRetry: newBackoff(), fileRetry: newBackoff(),
	}
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
	var again <-chan time.Time
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
		case <-again:
		case <-file.C:
			if !l.subnetFileDue(time.Now()) {
				continue
			}
		}
		started := time.Now()
		again = l.pass(ctx)
		l.askForList(ctx)
		if err := wait.For(ctx, min(restFactor*time.Since(started), maxRest)); err != nil {
			return err
		}
	}
}

// looper is what the loop remembers between passes.
type looper struct {
	*Network
	guard     guard
	validator subnet.Validator
	// site is what is known of this host; looked says that it is up to date.
	site   site
	looked bool
	retry  *backoff
	report reporter
	// lists brings a list that the guard has asked for; listing says that one
	// is under way.
	lists   chan listing
	listing bool
	// listRetry paces lists that fail; before listAfter there is no other.
	listRetry *backoff
	listAfter time.Time
	readers   sync.WaitGroup
	// bridgeSeen says that the pods' bridge was looked at since the start.
	bridgeSeen bool
	// subnetFile is subnet.env as it was found to be in order, nil when others
	// wrote it at the same moment; subnetFileWritten is false when that failed.
	subnetFile        fs.FileInfo
	subnetFileWritten bool
	// fileRetry paces what restores it; before fileAfter it is not looked at.
	fileRetry *backoff
	fileAfter time.Time
	// subnetFileTold says that Options.SubnetFileWritten has returned nil.
	subnetFileTold bool
	// held says that the log has told of kept peers.
	held bool
}

// listing is a list of the store and when it was read.
type listing struct {
	leases []*subnet.Lease
	at     time.Time
	err    error
}

func (l *looper) sayHeld() {
	if l.held {
		l.Log.Warn("leases are gone from the store; their peers are kept until two lists agree",
			"kept", len(l.guard.kept)+len(l.guard.inKernel), "apart", agreeAfter)
		return
	}
	l.Log.Info("no peer is kept any more that the store does not show")
}

// askForList reads the store, when the guard wants to know, without holding up
// the passes. The reader ends with ctx; its answer fits into the channel.
func (l *looper) askForList(ctx context.Context) {
	at, wanted := l.guard.nextList()
	if doubts := l.guard.doubts(); doubts != l.held {
		l.held = doubts
		l.sayHeld()
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
		if wait.For(ctx, delay) != nil {
			return
		}
		leases, err := l.Manager.List(ctx)
		l.lists <- listing{leases, time.Now(), err}
	})
}

// listed takes what the reader has brought.
func (l *looper) listed(list listing) {
	l.listing = false
	if list.err != nil {
		l.Log.Debug("leases not listed", "err", list.err)
		l.listAfter = time.Now().Add(l.listRetry.fail())
		return
	}
	l.listRetry.reset()
	if own := l.own.Load(); own != nil {
		l.guard.listed(list.leases, own.Subnet, list.at)
	}
}
