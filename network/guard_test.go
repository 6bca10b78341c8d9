package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// some returns the leases number from to below to; number 0 is this node's.
func some(from, to int) []*subnet.Lease {
	var out []*subnet.Lease
	for i := from; i < to; i++ {
		l := &subnet.Lease{Name: fmt.Sprintf("node%03d", i)}
		l.Subnet[ipfam.V4] = netip.MustParsePrefix(fmt.Sprintf("10.5.%d.0/24", i))
		l.Precedence.Age = 1
		out = append(out, l)
	}
	return out
}

// ownSubnet is the subnet of this node, number 0.
var ownSubnet = some(0, 1)[0].Subnet

// guarded is the network of these leases.
var guarded = ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.5.0.0/16")}

func held(leases []*subnet.Lease) []netip.Prefix {
	var out []netip.Prefix
	for _, l := range leases {
		out = append(out, l.Subnet[ipfam.V4])
	}
	return out
}

// node returns the names of leases, sorted.
func node(leases []*subnet.Lease) []string {
	var out []string
	for _, l := range leases {
		out = append(out, l.Name)
	}
	slices.Sort(out)
	return out
}

func wantLeases(t *testing.T, got, want []*subnet.Lease) {
	t.Helper()
	if got, want := node(got), node(want); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestGuardBelievesASmallLoss(t *testing.T) {
	var g guard
	g.admit(subnet.Snapshot{Leases: some(0, 20)}, ownSubnet)
	wantLeases(t, g.admit(subnet.Snapshot{Leases: some(0, 13)}, ownSubnet), some(0, 13))
	if g.holding() {
		t.Error("holding after a small loss")
	}
}

func TestGuardKeepsAllWhileOurRecordIsMissing(t *testing.T) {
	var g guard
	g.admit(subnet.Snapshot{Leases: some(0, 4)}, ownSubnet)
	got := g.admit(subnet.Snapshot{Leases: some(1, 2)}, ownSubnet)
	wantLeases(t, got, some(0, 4))
	for _, l := range got {
		if live := l.Name == "node001"; l.Precedence.Grace == live {
			t.Errorf("%s: grace %t", l.Name, l.Precedence.Grace)
		}
	}
	// Others come back one by one; none is given up in between.
	wantLeases(t, g.admit(subnet.Snapshot{Leases: some(0, 2)}, ownSubnet), some(0, 4))
	wantLeases(t, g.admit(subnet.Snapshot{Leases: some(0, 4)}, ownSubnet), some(0, 4))
	if g.holding() {
		t.Error("holding although all are back")
	}
}

func TestGuardKeepsWhatARestoredStoreLacks(t *testing.T) {
	var g guard
	g.admit(subnet.Snapshot{Leases: some(0, 4)}, ownSubnet)
	wantLeases(t, g.admit(subnet.Snapshot{Leases: some(0, 2), Epoch: 1}, ownSubnet), some(0, 4))
	wantLeases(t, g.admit(subnet.Snapshot{Leases: some(0, 3), Epoch: 1}, ownSubnet), some(0, 4))
	g.admit(subnet.Snapshot{Leases: some(0, 4), Epoch: 1}, ownSubnet)
	if g.holding() {
		t.Error("holding although all are back")
	}
}

func TestGuardKeepsAllWhenOurRecordIsCreatedAgain(t *testing.T) {
	var g guard
	g.admit(subnet.Snapshot{Leases: some(0, 4)}, ownSubnet)
	again := some(0, 2)
	again[0].Precedence.Age = 99
	wantLeases(t, g.admit(subnet.Snapshot{Leases: again}, ownSubnet), some(0, 4))
}

func TestGuardGivesUpWhenTwoListsAgree(t *testing.T) {
	var g guard
	start := time.Unix(1000, 0)
	g.admit(subnet.Snapshot{Leases: some(0, 20)}, ownSubnet)
	wantLeases(t, g.admit(subnet.Snapshot{Leases: some(0, 5)}, ownSubnet), some(0, 20))
	if at, ok := g.nextList(); !ok || !at.IsZero() {
		t.Fatalf("next list at %v %t, want one at once", at, ok)
	}
	g.listed(some(0, 5), ownSubnet, start)
	if at, _ := g.nextList(); at != start.Add(agreeAfter) {
		t.Fatalf("next list at %v, want %v later", at, agreeAfter)
	}
	g.listed(some(0, 5), ownSubnet, start.Add(agreeAfter-1))
	wantLeases(t, g.admit(subnet.Snapshot{Leases: some(0, 5)}, ownSubnet), some(0, 20))
	// Two of them are in the second list: only the others are given up.
	g.listed(some(0, 7), ownSubnet, start.Add(agreeAfter))
	wantLeases(t, g.admit(subnet.Snapshot{Leases: some(0, 7)}, ownSubnet), some(0, 7))
	if g.holding() {
		t.Error("still holding")
	}
}

func TestGuardGivesNothingUpForListsWithoutOurRecord(t *testing.T) {
	var running, starting guard
	running.admit(subnet.Snapshot{Leases: some(0, 20)}, ownSubnet)
	starting.start(held(some(1, 20)), guarded)
	for _, g := range []*guard{&running, &starting} {
		g.admit(subnet.Snapshot{Epoch: 1}, ownSubnet)
		at := time.Unix(1000, 0)
		for range 3 {
			g.listed(nil, ownSubnet, at)
			at = at.Add(agreeAfter)
			if next, ok := g.nextList(); !ok || next != at {
				t.Errorf("next list at %v %t, want %v", next, ok, at)
			}
		}
	}
	wantLeases(t, running.admit(subnet.Snapshot{Epoch: 1}, ownSubnet), some(0, 20))
	if !starting.holdDeletions() {
		t.Error("deletes although the store does not show our record")
	}
}

func TestGuardHoldsDeletionsAtStart(t *testing.T) {
	var g guard
	g.start(held(some(1, 20)), guarded)
	g.admit(subnet.Snapshot{Leases: nil}, ownSubnet)
	if !g.holdDeletions() {
		t.Error("deletes without its own record")
	}
	g.admit(subnet.Snapshot{Leases: some(0, 3)}, ownSubnet)
	if !g.holdDeletions() {
		t.Error("deletes after a mass loss")
	}
	g.listed(some(0, 3), ownSubnet, time.Unix(1000, 0))
	g.listed(some(0, 3), ownSubnet, time.Unix(1000, 0).Add(agreeAfter))
	if g.holdDeletions() {
		t.Error("holds although two lists agree")
	}
}

func TestGuardDeletesAFewStaleOnesAtStart(t *testing.T) {
	var g guard
	g.start(held(some(1, 20)), guarded)
	g.admit(subnet.Snapshot{Leases: some(0, 15)}, ownSubnet)
	if g.holdDeletions() {
		t.Error("holds after a small loss")
	}
}

func TestGuardDoubtsNoStoreItHasNotSeen(t *testing.T) {
	var g guard
	g.start(held(some(1, 20)), guarded)
	if !g.holding() || g.doubts() {
		t.Errorf("before the first snapshot: holding %t, doubts %t", g.holding(), g.doubts())
	}
	g.admit(subnet.Snapshot{Leases: some(0, 20)}, ownSubnet)
	if g.holding() || g.doubts() {
		t.Errorf("after a complete one: holding %t, doubts %t", g.holding(), g.doubts())
	}
	var other guard
	other.start(held(some(1, 20)), guarded)
	other.admit(subnet.Snapshot{Leases: some(0, 2)}, ownSubnet)
	if !other.doubts() {
		t.Error("a store that has lost most is not doubted")
	}
}

func TestGuardHoldsNothingOfAnotherNetwork(t *testing.T) {
	var g guard
	g.start(held(some(1, 20)), ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.6.0.0/16")})
	g.admit(subnet.Snapshot{Leases: some(0, 1)}, ownSubnet)
	if g.holdDeletions() {
		t.Error("holds routes that no lease can bring back")
	}
}

func TestGuardDropsWhatALiveLeaseHas(t *testing.T) {
	var g guard
	g.admit(subnet.Snapshot{Leases: some(0, 20)}, ownSubnet)
	now := some(0, 5)
	heir := *some(10, 11)[0]
	heir.Name = "heir"
	now = append([]*subnet.Lease{&heir}, now...)
	got := g.admit(subnet.Snapshot{Leases: now}, ownSubnet)
	want := slices.Concat(now, some(5, 10), some(11, 20))
	wantLeases(t, got, want)
	at := time.Unix(1000, 0)
	g.listed(now, ownSubnet, at)
	g.listed(now, ownSubnet, at.Add(agreeAfter))
	wantLeases(t, g.admit(subnet.Snapshot{Leases: now}, ownSubnet), now)
	if g.holding() {
		t.Error("still holding")
	}
}

// TestGuardCountsNames lets another lease have part of the subnet of one that
// is gone.
func TestGuardCountsNames(t *testing.T) {
	var g guard
	g.admit(subnet.Snapshot{Leases: some(0, 20)}, ownSubnet)
	now := some(0, 5)
	heir := *some(10, 11)[0]
	heir.Name, heir.Subnet[ipfam.V4] = "heir", netip.MustParsePrefix("10.5.10.0/25")
	now = append([]*subnet.Lease{&heir}, now...)
	g.admit(subnet.Snapshot{Leases: now}, ownSubnet)
	g.listed(now, ownSubnet, time.Unix(1000, 0))
	g.listed(now, ownSubnet, time.Unix(1000, 0).Add(agreeAfter))
	if g.holding() {
		t.Error("still holding")
	}
}

// lister is a store that answers lists only, with an error.
type lister struct {
	subnet.Manager
	times []time.Time
}

func (l *lister) List(context.Context) ([]*subnet.Lease, error) {
	l.times = append(l.times, time.Now())
	return nil, errors.New("bad request")
}

// afterMassLoss returns a loop whose guard wants a list.
func afterMassLoss(store subnet.Manager) *passState {
	p := &passState{
		n:     &Network{Options: Options{Manager: store, Log: slog.New(slog.DiscardHandler)}},
		lists: make(chan storeList, 1),
	}
	p.guard.admit(subnet.Snapshot{Leases: some(0, 20)}, ownSubnet)
	p.guard.admit(subnet.Snapshot{Leases: some(0, 2)}, ownSubnet)
	return p
}

func TestListsThatFailAreAskedForMoreAndMoreRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &lister{}
		p := afterMassLoss(store)
		start := time.Now()
		for time.Since(start) < 10*time.Minute {
			p.askForList(t.Context())
			p.listed(<-p.lists)
		}
		p.readers.Wait()
		if n := len(store.times); n < 15 || n > 40 {
			t.Errorf("%d lists in ten minutes", n)
		}
	})
}

func TestFirstListsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var first, last time.Duration = listSpread, 0
		for range 50 {
			began := time.Now()
			store := &lister{}
			p := afterMassLoss(store)
			p.askForList(t.Context())
			<-p.lists
			delay := store.times[0].Sub(began)
			first, last = min(first, delay), max(last, delay)
		}
		if last > listSpread || last-first < listSpread/4 {
			t.Errorf("lists from %v to %v after the loss (in %v)", first, last, time.Since(start))
		}
	})
}
