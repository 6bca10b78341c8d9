package fastpath

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"flannel/fastpath/conntrack"
	"flannel/kernel"
	"flannel/kernel/rtnl"
)

// tracking is what the tracker needs of conntrack.
type tracking interface {
	Get(conntrack.Tuple) (conntrack.Entry, error)
	Relax(conntrack.Tuple) error
	SetTimeout(conntrack.Tuple, time.Duration) error
	List(func(conntrack.Entry)) error
}

// flowMaps is what the tracker needs of the programs' maps.
type flowMaps interface {
	permit(k bpfKey, f bpfFlow) error
	revoke(k bpfKey) error
	// way returns what the stack did with the last packet; it reports false if
	// that is not known any more.
	way(k bpfKey) (bpfWay, bool)
	forget(k bpfKey)
}

// tracker decides which flows may be fast. A flow is named by the tuple of its
// packets from the pod of this host to the peer.
type tracker struct {
	log   *slog.Logger
	hold  time.Duration
	table tracking
	maps  flowMaps

	mu    sync.Mutex
	peers *peerTable
	flows map[conntrack.Tuple]*flow
	// settle are the flows that conntrack has to be told of again, the next first.
	settle []settling
	// silent are the entries that may end without an event, by their original
	// tuple: they are older than the subscription.
	silent map[conntrack.Tuple]struct{}
}

// flow is one that is permitted.
type flow struct {
	peer    bpfFlow
	timeout time.Duration
	// relaxed is when conntrack was told last, refreshed until when the timeout of
	// its entry counts, in the time of the programs.
	relaxed, refreshed time.Duration
	// silent is whether the entry may end without an event.
	silent bool
	// pod is the device of the pod, zero until a packet to the pod was seen.
	pod uint32
}

type settling struct {
	at    time.Duration
	tuple conntrack.Tuple
}

// settleAfter is when conntrack is told again after a packet of a flow has left the
// stack: what follows that packet is fast, and conntrack does not see it.
const settleAfter = 100 * time.Millisecond

// shortTimeout is the longest timeout that is refreshed: the error with those that
// are longer is less than what they are worth.
const shortTimeout = 10 * time.Minute

func newTracker(log *slog.Logger, hold time.Duration, table tracking, maps flowMaps, peers *peerTable) *tracker {
	return &tracker{log: log, hold: hold, table: table, maps: maps, peers: peers, flows: map[conntrack.Tuple]*flow{}}
}

// eligible returns why the packets of an entry cannot be fast.
func eligible(e conntrack.Entry) error {
	const needed = conntrack.SeenReply | conntrack.Assured | conntrack.Confirmed
	switch {
	case e.Status&needed != needed:
		return errors.New("not seen in both directions for long enough")
	case e.Status&conntrack.Changed != 0 || e.Helper || e.Reply != e.Orig.Reverse():
		return errors.New("its packets are changed on this host")
	case e.Zone != 0:
		return errors.New("it is in a conntrack zone")
	case e.Orig.Protocol == protocolTCP && e.TCPState != conntrack.Established:
		return errors.New("the connection is not established")
	}
	return nil
}

const protocolTCP = 6

// seen takes a report of the programs: a packet has left the stack. A flow whose
// entry in conntrack suits may be fast from then on.
func (t *tracker) seen(r bpfReport, now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tuple := tupleOf(r.Key)
	peer, ok := t.peers.find(tuple.Dst.Addr())
	out := ok && peer.value.Out == r.Device
	if !out {
		tuple = tuple.Reverse()
		peer, ok = t.peers.find(tuple.Dst.Addr())
	}
	if !ok {
		return
	}
	if err := t.seenLocked(tuple, peer, r, now); err != nil {
		t.log.Debug("flow not fast", "src", tuple.Src, "dst", tuple.Dst, "err", err)
		t.revokeLocked(tuple)
		return
	}
	if f := t.flows[tuple]; !out {
		f.pod = r.Device
	}
}

func (t *tracker) seenLocked(tuple conntrack.Tuple, peer peerEntry, r bpfReport, now time.Duration) error {
	entry, err := t.table.Get(tuple)
	if err != nil {
		return err
	}
	if err := eligible(entry); err != nil {
		return err
	}
	if r.Closed != 0 {
		// The end was none, or it was that of an earlier connection.
		t.maps.forget(keyOf(tuple))
		t.maps.forget(keyOf(tuple.Reverse()))
		return errors.New("begins anew")
	}
	if err := t.table.Relax(tuple); err != nil {
		return fmt.Errorf("relax conntrack: %w", err)
	}
	want := bpfFlow{Peer: peer.place, Generation: peer.generation}
	f := t.flows[tuple]
	if f == nil {
		// It is there before its permissions, so that one of two is revoked too.
		f = &flow{}
		t.flows[tuple] = f
	}
	if f.peer != want {
		for _, k := range []bpfKey{keyOf(tuple), keyOf(tuple.Reverse())} {
			if err := t.maps.permit(k, want); err != nil {
				return err
			}
		}
	}
	_, f.silent = t.silent[entry.Orig]
	f.peer, f.timeout, f.relaxed, f.refreshed = want, entry.Timeout, now, now
	t.settleLocked(tuple, now+settleAfter)
	return nil
}

func (t *tracker) settleLocked(tuple conntrack.Tuple, at time.Duration) {
	t.settle = append(t.settle, settling{at, tuple}) // in order: the delay is always the same
}

// due tells conntrack again of the flows of which packets have left the stack since,
// and returns when to call it next; zero if there is nothing to do.
func (t *tracker) due(now time.Duration) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.settle) > 0 && t.settle[0].at <= now {
		tuple := t.settle[0].tuple
		t.settle = t.settle[1:]
		f := t.flows[tuple]
		if f == nil {
			continue
		}
		left := t.lastLocked(tuple, func(w bpfWay) uint64 { return w.Left })
		if left < f.relaxed-coarse {
			continue
		}
		f.relaxed = now
		if err := t.table.Relax(tuple); err != nil {
			t.revokeLocked(tuple)
			continue
		}
		t.settleLocked(tuple, now+settleAfter)
	}
	if len(t.settle) == 0 {
		return 0
	}
	return t.settle[0].at
}

// coarse is how far the clock of the programs is behind at most.
const coarse = 20 * time.Millisecond

// lastLocked returns the later time of both directions.
func (t *tracker) lastLocked(tuple conntrack.Tuple, of func(bpfWay) uint64) (last time.Duration) {
	for _, k := range []bpfKey{keyOf(tuple), keyOf(tuple.Reverse())} {
		if w, ok := t.maps.way(k); ok {
			last = max(last, time.Duration(of(w)))
		}
	}
	return last
}

// start takes note of the entries that are there when events begin to arrive.
func (t *tracker) start() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.silent = map[conntrack.Tuple]struct{}{}
	return rtnl.Retry(func() error {
		return t.table.List(func(e conntrack.Entry) {
			_, to := t.peers.find(e.Orig.Dst.Addr())
			_, from := t.peers.find(e.Orig.Src.Addr())
			if to != from && eligible(e) == nil {
				t.silent[e.Orig] = struct{}{}
			}
		})
	})
}

// poll ends the permissions of flows whose entries have ended without an event.
func (t *tracker) poll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for tuple, f := range t.flows {
		if !f.silent {
			continue
		}
		if _, err := t.table.Get(tuple); err != nil {
			t.destroyedLocked(tuple)
		}
	}
}

// sweep refreshes the entries of the flows that conntrack does not see, and ends the
// permission of those that are not used.
func (t *tracker) sweep(now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for tuple, f := range t.flows {
		used := t.lastLocked(tuple, func(w bpfWay) uint64 { return max(w.Left, w.Used) })
		if now-used > 5*t.hold {
			t.revokeLocked(tuple)
			continue
		}
		if f.timeout > shortTimeout || used <= f.refreshed {
			continue
		}
		f.refreshed = used
		if err := t.table.SetTimeout(tuple, max(f.timeout-(now-used), time.Second)); err != nil {
			t.revokeLocked(tuple)
		}
	}
}

// destroyed takes the original tuple of an entry that ends.
func (t *tracker) destroyed(orig conntrack.Tuple) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.destroyedLocked(orig)
}

func (t *tracker) destroyedLocked(orig conntrack.Tuple) {
	for _, tuple := range []conntrack.Tuple{orig, orig.Reverse()} {
		t.revokeLocked(tuple)
		delete(t.silent, tuple)
	}
}

// clear ends all permissions: what is known is in doubt.
func (t *tracker) clear() { t.revokeIf(func(conntrack.Tuple, *flow) bool { return true }) }

// podsChanged ends the permissions of flows whose pod's device is gone, or whose
// address another pod has.
func (t *tracker) podsChanged(gone map[uint32]bool, moved map[netip.Addr]kernel.MAC) {
	if len(gone)+len(moved) == 0 {
		return
	}
	t.revokeIf(func(tuple conntrack.Tuple, f *flow) bool {
		_, other := moved[tuple.Src.Addr()]
		return other || gone[f.pod]
	})
}

func (t *tracker) revokeIf(match func(conntrack.Tuple, *flow) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for tuple, f := range t.flows {
		if match(tuple, f) {
			t.revokeLocked(tuple)
			t.maps.forget(keyOf(tuple))
			t.maps.forget(keyOf(tuple.Reverse()))
		}
	}
}

func (t *tracker) revokeLocked(tuple conntrack.Tuple) {
	if t.flows[tuple] == nil {
		return
	}
	delete(t.flows, tuple)
	for _, k := range []bpfKey{keyOf(tuple), keyOf(tuple.Reverse())} {
		if err := t.maps.revoke(k); err != nil {
			t.log.Error("flow still fast: restart the daemon", "src", tuple.Src, "dst", tuple.Dst, "err", err)
		}
	}
}

// setPeers makes the peers these; write is called with each change.
func (t *tracker) setPeers(want map[netip.Prefix]bpfPeer, write func(peerChange) error) (full bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	changes, full := t.peers.set(want)
	for _, c := range changes {
		err = errors.Join(err, write(c))
	}
	return full, err
}

func (t *tracker) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.flows)
}
