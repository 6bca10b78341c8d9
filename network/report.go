package network

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"flannel/backend"
)

// fewPeers is up to how many peers a change is logged line by line.
const fewPeers = 8

// logPass logs a pass that changed something or whose outcome changed.
func (p *passState) logPass(r *result, c peerChanges) {
	logPeers(p.n.Log, "peer added", c.added)
	logPeers(p.n.Log, "peer changed", c.changed)
	logPeers(p.n.Log, "peer removed", c.removed)
	if n := r.stats.Changed(); n > 0 {
		p.n.Log.Info("kernel updated", "put", sum(r.stats.Put), "deleted", sum(r.stats.Deleted),
			"drift", sum(r.stats.Drift), "peers", len(r.peers), "took", r.took)
	}
	p.failures.Fail("pass", r.err)
}

func sum(m map[string]int) int {
	n := 0
	for _, v := range m {
		n += v
	}
	return n
}

// logPeers logs to which peers something has happened: single ones when they are
// few, numbers when they are many.
func logPeers(log *slog.Logger, msg string, peers []backend.PeerStatus) {
	usable := slices.DeleteFunc(slices.Clone(peers), func(s backend.PeerStatus) bool { return s.How == backend.LeftOut })
	if len(usable) > fewPeers {
		log.Info(msg, "peers", len(usable))
		usable = nil
	}
	for _, s := range usable {
		log.Info(msg, "peer", s.Name, "subnet", s.Subnet, "via", s.Via, "how", s.How)
	}
	if msg != "peer removed" {
		logLeftOut(log, peers)
	}
}

func logLeftOut(log *slog.Logger, peers []backend.PeerStatus) {
	n := 0
	for _, s := range peers {
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
