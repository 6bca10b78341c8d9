package network

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"flannel/backend"
	"flannel/internal/logonce"
	"flannel/kernel"
)

// fewPeers is up to how many peers a change is logged line by line.
const fewPeers = 8

// reporter logs what changed from pass to pass.
type reporter struct {
	log    *slog.Logger
	repeat *logonce.Failures
	peers  []backend.PeerStatus
}

func newReporter(log *slog.Logger) reporter {
	return reporter{log: log, repeat: logonce.NewFailures(log, slog.LevelWarn)}
}

// pass logs a pass that changed something or whose outcome changed.
func (p *reporter) pass(r *result) {
	p.logPeers(r.peers)
	if n := r.stats.Changed(); n > 0 {
		p.log.Info("kernel updated", "put", sum(r.stats.Put), "deleted", sum(r.stats.Deleted),
			"drift", sum(r.stats.Drift), "peers", len(r.peers), "took", r.took)
	}
	p.repeat.Fail("pass", r.err)
}

func sum(m map[string]int) int {
	n := 0
	for _, v := range m {
		n += v
	}
	return n
}

// peerKey names a peer in one family.
type peerKey struct {
	name   string
	family string
}

// logPeers logs the difference to the peers of the last pass: single peers when
// they are few, numbers when they are many.
func (p *reporter) logPeers(peers []backend.PeerStatus) {
	all := peers
	// Of many peers few change at a time.
	was, peers := kernel.Trim(p.peers, peers)
	before := make(map[peerKey]backend.PeerStatus, len(was))
	for _, s := range was {
		before[peerKey{s.Name, s.Family.String()}] = s
	}
	var added, changed, removed []backend.PeerStatus
	for _, s := range peers {
		key := peerKey{s.Name, s.Family.String()}
		old, known := before[key]
		delete(before, key)
		switch {
		case !known:
			added = append(added, s)
		case old != s:
			changed = append(changed, s)
		}
	}
	for _, s := range before {
		removed = append(removed, s)
	}
	logGroup(p.log, "peer added", added)
	logGroup(p.log, "peer changed", changed)
	logGroup(p.log, "peer removed", removed)
	p.peers = all
}

func logGroup(log *slog.Logger, msg string, group []backend.PeerStatus) {
	usable := slices.DeleteFunc(slices.Clone(group), func(s backend.PeerStatus) bool { return s.How == backend.LeftOut })
	if len(usable) > fewPeers {
		log.Info(msg, "peers", len(usable))
		usable = nil
	}
	for _, s := range usable {
		log.Info(msg, "peer", s.Name, "subnet", s.Subnet, "via", s.Via, "how", s.How)
	}
	if msg != "peer removed" {
		logLeftOut(log, group)
	}
}

func logLeftOut(log *slog.Logger, group []backend.PeerStatus) {
	n := 0
	for _, s := range group {
		if s.How != backend.LeftOut {
			continue
		}
		if n++; n <= fewPeers {
			log.Warn("peer left out", "peer", s.Name, "family", s.Family, "why", s.Why)
		}
	}
	if n > fewPeers {
		log.Warn("more peers left out; /status names them", "peers", n-fewPeers)
	}
}

// countPeers counts the peers by family and by how they are reached. States
// without peers are counted too, so that a gauge goes back to zero.
func countPeers(r *result) map[peerState]int {
	counts := map[peerState]int{}
	for _, d := range []backend.How{backend.Tunnel, backend.Direct, backend.Unreachable, backend.LeftOut} {
		for f, s := range r.own.Subnet.Each() {
			if s.IsValid() {
				counts[peerState{f.String(), string(d)}] = 0
			}
		}
	}
	for _, s := range r.peers {
		counts[peerState{s.Family.String(), string(s.How)}]++
	}
	return counts
}

type peerState struct{ family, state string }

// peersProblem returns what is wrong with peers.
func peersProblem(r *result) error {
	n := 0
	for _, s := range r.peers {
		if s.How == backend.LeftOut || s.How == backend.Unreachable {
			n++
		}
	}
	var problems []error
	if n > 0 {
		problems = append(problems, fmt.Errorf("%d left out or unreachable; /status names them", n))
	}
	if r.kept+r.stats.Held > 0 {
		problems = append(problems, fmt.Errorf("%d kept although the store does not show them", r.kept+r.stats.Held))
	}
	return errors.Join(problems...)
}
