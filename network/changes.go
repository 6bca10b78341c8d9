package network

import (
	"maps"

	"flannel/backend"
	"flannel/internal/ends"
)

// peerChanges are the peers about which something has changed since the pass
// before.
type peerChanges struct{ added, changed, removed []backend.PeerStatus }

// peerKey names a peer in one family.
type peerKey struct {
	name   string
	family string
}

func keyOf(p backend.PeerStatus) peerKey { return peerKey{p.Name, p.Family.String()} }

// compare returns what has changed about the peers since the pass before, and
// notes since when each is reached as it is. Of many peers few change at a time.
func (r *result) compare(before *result) (c peerChanges) {
	if before == nil {
		before = &result{}
	}
	head, tail := ends.Common(before.peers, r.peers)
	if head == len(r.peers) && head == len(before.peers) {
		r.since = before.since
		return c
	}
	known := map[peerKey]int{}
	for i := head; i < len(before.peers)-tail; i++ {
		known[keyOf(before.peers[i])] = i
	}
	removed := maps.Clone(known)
	r.since = make([]int64, len(r.peers))
	copy(r.since, before.since[:head])
	copy(r.since[len(r.since)-tail:], before.since[len(before.since)-tail:])
	for i := head; i < len(r.peers)-tail; i++ {
		p := r.peers[i]
		r.since[i] = r.at.Unix()
		was, ok := known[keyOf(p)]
		delete(removed, keyOf(p))
		switch {
		case !ok:
			c.added = append(c.added, p)
			continue
		case before.peers[was] != p:
			c.changed = append(c.changed, p)
		}
		if before.peers[was].How == p.How {
			r.since[i] = before.since[was]
		}
	}
	for _, i := range removed {
		c.removed = append(c.removed, before.peers[i])
	}
	return c
}
