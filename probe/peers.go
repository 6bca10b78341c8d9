package probe

import (
	"net/netip"

	"flannel/backend"
	"flannel/internal/ends"
	"flannel/internal/ipfam"
)

// setPeers takes the peers of a pass. What is known of those that stay is kept.
func (c *core) setPeers(status []backend.PeerStatus) {
	head, tail := ends.Common(c.status, status)
	was, is := c.status[head:len(c.status)-tail], status[head:len(status)-tail]
	if len(was) == 0 && len(is) == 0 {
		c.status = status
		return
	}
	moved := c.move(status, head, was, is)
	c.suspects, c.asked, c.touched = remap(c.suspects, moved), remap(c.asked, moved), remap(c.touched, moved)
	flying := c.flying[:0]
	for _, f := range c.flying {
		if f.peer = moved[f.peer]; f.peer >= 0 {
			flying = append(flying, f)
		}
	}
	c.flying = flying
	c.count, c.fresh, c.families = [verdicts]int{}, 0, ipfam.Pair[bool]{}
	for i := range c.peers {
		if !probed(&c.status[i]) {
			continue
		}
		c.families[c.status[i].Family] = true
		c.common = c.status[i].Probe
		c.count[c.peers[i].verdict]++
		if c.peers[i].sent == 0 {
			c.fresh++
		}
	}
}

// move puts what is known of the peers at their new places. Only those in was and
// is, which begin at head, differ. It returns the new place of each former one, -1 for none.
func (c *core) move(status []backend.PeerStatus, head int, was, is []backend.PeerStatus) []int32 {
	before, peers := c.status, c.peers
	at := make(map[netip.Prefix]int, len(was))
	for i := range was {
		if probed(&was[i]) {
			at[was[i].Subnet] = head + i
		}
	}
	moved := make([]int32, len(before))
	for i := range moved {
		moved[i] = -1
	}
	c.status, c.peers = status, make([]peer, len(status))
	for i := range status {
		from, known := i, true
		switch {
		case i >= head+len(is):
			from = i - len(is) + len(was)
		case i >= head:
			from, known = at[status[i].Subnet]
			known = known && before[from].Name == status[i].Name && probed(&status[i])
		}
		if !known {
			c.peers[i].fullDue = true
			continue
		}
		p := peers[from]
		if s, o := &status[i], &before[from]; s.Via != o.Via || s.Probe != o.Probe || s.How != o.How {
			p.fullDue, p.fullLost, p.low, p.high = true, 0, 0, 0
		}
		c.peers[i], moved[from] = p, int32(i)
	}
	return moved
}

func remap(set map[int32]struct{}, moved []int32) map[int32]struct{} {
	out := make(map[int32]struct{}, len(set))
	for i := range set {
		if to := moved[i]; to >= 0 {
			out[to] = struct{}{}
		}
	}
	return out
}
