package network

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// A loss of more than half of the peers, and of at least massLoss of them, is
// believed only when two lists agreeAfter apart both show it: an emptied or
// restored store must not cut a network that works.
const (
	massLoss   = 8
	agreeAfter = 30 * time.Second
	// listSpread spreads the lists of many nodes that have lost the same.
	listSpread = 5 * time.Second
)

func isMassLoss(lost, of int) bool { return lost >= massLoss && 2*lost > of }

// prefixSet holds single subnets, whatever their family.
type prefixSet map[netip.Prefix]bool

// guard decides which leases a pass works with when a snapshot has lost many
// of them. The zero guard knows nothing and holds nothing.
type guard struct {
	// known are the leases that the last pass worked with, kept ones included.
	known []*subnet.Lease
	// kept are those of them that the store no longer shows and that are kept
	// until two lists agree.
	kept []*subnet.Lease
	// inKernel are the subnets that the kernel reached when the daemon started
	// and that the store has not shown since; nothing is deleted while there
	// are any. heldAtStart is how many there were.
	inKernel    prefixSet
	heldAtStart int
	// started is whether inKernel was compared with a snapshot.
	started bool
	// epoch is that of the last snapshot, own the precedence of this node's record.
	epoch uint64
	own   subnet.Precedence
	// missing is what the last list lacked; before next there is no other.
	missing absence
	next    time.Time
}

// absence is what is kept and a list lacks: leases by their names, and routes
// of an earlier run by their destinations.
type absence struct {
	leases map[string]bool
	routes prefixSet
}

// start takes the subnets that the kernel holds from an earlier run.
// Those outside the network are of another configuration: no lease can bring
// them back.
func (g *guard) start(held []netip.Prefix, network ipfam.Pair[netip.Prefix]) {
	g.inKernel = prefixSet{}
	for _, p := range held {
		if network[ipfam.Of(p.Addr())].Overlaps(p) {
			g.inKernel[p] = true
		}
	}
	g.heldAtStart = len(g.inKernel)
}

// holding reports whether something waits for two lists to agree.
func (g *guard) holding() bool { return len(g.kept) > 0 || g.holdDeletions() }

// doubts reports whether the store was seen to lack something that is kept.
// Before the first snapshot everything is held, and nothing is known yet.
func (g *guard) doubts() bool { return g.holding() && (g.started || len(g.kept) > 0) }

// holdDeletions reports whether the kernel may hold what must not be deleted
// although no lease is known for it.
func (g *guard) holdDeletions() bool { return len(g.inKernel) > 0 }

// admit takes a snapshot and returns the leases to work with: those of the
// snapshot and those that are kept. Nothing is given up while the snapshot
// lacks the record of our subnet, when that record was created again, or when
// the store is another one than before: then the others may not have
// published theirs again yet.
func (g *guard) admit(s subnet.Snapshot, own ipfam.Pair[netip.Prefix]) []*subnet.Lease {
	snapshot := s.Leases
	ownIndex := indexOf(snapshot, own)
	ownListed := ownIndex >= 0
	believed := ownListed && s.Epoch == g.epoch
	if ownListed {
		precedence := snapshot[ownIndex].Precedence
		believed = believed && (g.own == subnet.Precedence{} || g.own == precedence)
		g.own = precedence
	}
	g.epoch = s.Epoch
	if g.holdDeletions() && !s.Unconfirmed {
		g.compareKernel(snapshot, ownListed)
	}
	lost := dropTaken(missing(g.known, snapshot), snapshot)
	if believed && len(g.kept) == 0 && !isMassLoss(len(lost), len(g.known)) {
		lost = nil
	}
	g.kept = lost
	g.known = snapshot
	if len(lost) > 0 {
		g.known = slices.Concat(snapshot, lost)
	}
	g.forgetList()
	return g.known
}

// missing returns the usable leases of known whose name the snapshot does not
// have, marked as kept. Both are in the order of names, known up to its kept
// leases, so one walk over both is enough.
func missing(known, snapshot []*subnet.Lease) []*subnet.Lease {
	var lost []*subnet.Lease
	i := 0
	for _, l := range known {
		if i > 0 && l.Name <= snapshot[i-1].Name {
			i = 0 // known starts over with its kept leases
		}
		for i < len(snapshot) && snapshot[i].Name < l.Name {
			i++
		}
		there := i < len(snapshot) && snapshot[i].Name == l.Name
		if !there && l.Invalid == "" {
			kept := *l
			kept.Precedence.Grace = true
			lost = append(lost, &kept)
		}
	}
	return lost
}

// dropTaken leaves out the kept leases whose subnet a live lease has: that node
// will not come back under it.
func dropTaken(kept, live []*subnet.Lease) []*subnet.Lease {
	if len(kept) == 0 {
		return nil
	}
	taken := make(prefixSet, len(live))
	for _, l := range live {
		for _, p := range ipfam.Prefixes(l.Subnet) {
			taken[p] = taken[p] || l.Invalid == ""
		}
	}
	return slices.DeleteFunc(kept, func(l *subnet.Lease) bool {
		return taken[l.Subnet[ipfam.V4]] || taken[l.Subnet[ipfam.V6]]
	})
}

// indexOf finds the lease of a subnet, or returns -1.
func indexOf(leases []*subnet.Lease, s ipfam.Pair[netip.Prefix]) int {
	return slices.IndexFunc(leases, func(l *subnet.Lease) bool { return l.Invalid == "" && l.Subnet == s })
}

// compareKernel strikes from inKernel what the store shows. The first snapshot
// that can be trusted decides whether the rest is a mass loss.
func (g *guard) compareKernel(snapshot []*subnet.Lease, ownListed bool) {
	for _, l := range snapshot {
		for _, p := range ipfam.Prefixes(l.Subnet) {
			delete(g.inKernel, p)
		}
	}
	if g.started || !ownListed {
		return
	}
	g.started = true
	if !isMassLoss(len(g.inKernel), g.heldAtStart) {
		g.inKernel = nil
	}
}

// forgetList forgets the first list when nothing waits for the second.
func (g *guard) forgetList() {
	if !g.holding() {
		g.next, g.missing = time.Time{}, absence{}
	}
}

// nextList returns when the guard wants to see a list: at once, or agreeAfter
// past the last one. It reports false when it wants none.
func (g *guard) nextList() (time.Time, bool) {
	return g.next, g.holding()
}

// listed takes a list that was read from the store at this time. What it lacks
// and an earlier list, at least agreeAfter older, lacked too is given up: the
// next pass deletes it. A list without the record of our subnet is ignored:
// such a store is broken.
func (g *guard) listed(leases []*subnet.Lease, own ipfam.Pair[netip.Prefix], at time.Time) {
	if at.Before(g.next) {
		return
	}
	g.next = at.Add(agreeAfter)
	if indexOf(leases, own) < 0 {
		g.missing = absence{}
		return
	}
	absent := g.absent(leases)
	for p := range absent.routes {
		if g.missing.routes[p] {
			delete(g.inKernel, p)
		}
	}
	givenUp := func(l *subnet.Lease) bool {
		return l.Precedence.Grace && absent.leases[l.Name] && g.missing.leases[l.Name]
	}
	g.kept = slices.DeleteFunc(slices.Clone(g.kept), givenUp)
	g.known = slices.DeleteFunc(slices.Clone(g.known), givenUp)
	g.missing = absent
	g.forgetList()
}

// absent returns what is held and a list lacks.
func (g *guard) absent(leases []*subnet.Lease) absence {
	out := absence{leases: map[string]bool{}, routes: maps.Clone(g.inKernel)}
	for _, l := range g.kept {
		out.leases[l.Name] = true
	}
	for _, l := range leases {
		delete(out.leases, l.Name)
		for _, p := range ipfam.Prefixes(l.Subnet) {
			delete(out.routes, p)
		}
	}
	return out
}
