package network

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"flannel/internal/logonce"
	"flannel/internal/loop"
	"flannel/subnet"
)

// loop makes passes: at once if something changed, again with backoff if one
// was incomplete, and on a slow timer.
func (n *Network) loop(ctx context.Context) error {
	p := &passState{n: n, failures: logonce.NewFailures(n.Log, slog.LevelWarn), lists: make(chan storeList, 1)}
	defer p.readers.Wait()
	if held, err := n.kernel.Destinations(ctx); err == nil && n.needs.Peers {
		p.guard.start(held, n.config.Network)
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
		case list := <-p.lists:
			p.listed(list)
		case <-resync.C:
			n.kernel.Invalidate()
			p.siteKnown = false
		case <-n.kick:
		case <-p.passes.Again():
		case <-file.C:
			if !n.file.due(time.Now()) {
				continue
			}
		}
		if err := p.passes.Pass(ctx, p.passAndList); err != nil {
			return err
		}
	}
}

// passAndList makes a pass, and reads the store if the guard wants to know.
func (p *passState) passAndList(ctx context.Context) error {
	p.n.checks.passes.Works()
	defer p.n.checks.passes.Waits()
	err := p.pass(ctx)
	p.askForList(ctx)
	return err
}

// passState is what the loop remembers between passes; nothing else uses it.
type passState struct {
	n *Network
	// passes paces the passes.
	passes    loop.Loop
	guard     guard
	validator subnet.Validator
	// siteKnown is whether site is up to date.
	site      site
	siteKnown bool
	failures  *logonce.Failures
	// lists delivers a list that the guard has asked for; listing is whether one
	// is being read.
	lists   chan storeList
	listing bool
	// listRetry paces lists that fail; none is read before listAfter.
	listRetry loop.Backoff
	listAfter time.Time
	readers   sync.WaitGroup
	// bridgeChecked is whether the pods' bridge was checked since the start.
	bridgeChecked bool
	// fileNotified is whether Options.SubnetFileWritten has returned nil.
	fileNotified bool
	// keepLogged is whether it is logged that peers are kept.
	keepLogged logonce.Last[bool]
}

// storeList is a list of the store and when it was read.
type storeList struct {
	leases []*subnet.Lease
	at     time.Time
	err    error
}

// askForList has the store read, if the guard wants that, without delaying the
// passes. The reader ends with ctx; the channel has room for its list.
func (p *passState) askForList(ctx context.Context) {
	at, wanted := p.guard.nextList()
	p.logKept()
	if !wanted || p.listing {
		return
	}
	p.listing = true
	if at.Before(p.listAfter) {
		at = p.listAfter
	}
	delay := max(0, time.Until(at)) + rand.N(listSpread)
	p.readers.Go(func() {
		if loop.Wait(ctx, delay) != nil {
			return
		}
		leases, err := p.n.Manager.List(ctx)
		p.lists <- storeList{leases, time.Now(), err}
	})
}

// listed takes what the reader has read.
func (p *passState) listed(list storeList) {
	p.listing = false
	if list.err != nil {
		p.n.Log.Debug("leases not listed", "err", list.err)
		p.listAfter = time.Now().Add(p.listRetry.Next())
		return
	}
	p.listRetry.Reset()
	if own := p.n.own.Load(); own != nil {
		p.guard.listed(list.leases, own.Subnet, list.at)
	}
}

// logKept logs when the guard begins and ends to keep peers.
func (p *passState) logKept() {
	doubts := p.guard.doubts()
	switch {
	case !p.keepLogged.Changed(doubts):
	case doubts:
		p.n.Log.Warn("leases are gone from the store; their peers are kept until two lists agree",
			"kept", len(p.guard.kept)+len(p.guard.inKernel), "apart", agreeAfter)
	default:
		p.n.Log.Info("peers missing from the store are no longer kept")
	}
}
