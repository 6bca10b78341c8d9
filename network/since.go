package network

import "flannel/backend"

// dated is how a peer is reached, and since when, in seconds of Unix.
type dated struct {
	how   backend.How
	since int64
}

// date notes since when each peer is reached as it is: by what the pass before
// found, or else from this pass on. Of many peers few change at a time.
func (r *result) date(before *result) {
	if before == nil {
		before = &result{}
	}
	head, tail := common(before.peers, r.peers)
	if head == len(r.peers) && head == len(before.peers) {
		r.since = before.since
		return
	}
	known := map[peerKey]dated{}
	for i := head; i < len(before.peers)-tail; i++ {
		p := before.peers[i]
		known[peerKey{p.Name, p.Family.String()}] = dated{p.How, before.since[i]}
	}
	r.since = make([]int64, len(r.peers))
	copy(r.since, before.since[:head])
	copy(r.since[len(r.since)-tail:], before.since[len(before.since)-tail:])
	for i := head; i < len(r.peers)-tail; i++ {
		p := r.peers[i]
		r.since[i] = r.at.Unix()
		if d := known[peerKey{p.Name, p.Family.String()}]; d.how == p.How {
			r.since[i] = d.since
		}
	}
}

// common returns how many peers two lists have in common at the start, and how
// many of the rest at the end.
func common(a, b []backend.PeerStatus) (head, tail int) {
	n := min(len(a), len(b))
	for head < n && a[head] == b[head] {
		head++
	}
	for tail < n-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	return head, tail
}
