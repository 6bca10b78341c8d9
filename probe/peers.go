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
	c.index = nil
	suspects := make(map[int32]struct{}, len(c.suspects))
	for i := range c.suspects {
		if to := moved[i]; to >= 0 {
			suspects[to] = struct{}{}
		}
	}
	c.suspects = suspects
	c.asked = remap(c.asked, moved, func(i *int32) *int32 { return i })
	c.touched = remap(c.touched, moved, func(t *touched) *int32 { return &t.peer })
	c.flying = remap(c.flying, moved, func(f *flight) *int32 { return &f.peer })
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
			p.forgetFull(true)
		}
		c.peers[i], moved[from] = p, int32(i)
	}
	return moved
}

// remap gives everything in a list the new place of its peer, and drops what is about
// none that is left.
func remap[T any](list []T, moved []int32, peerOf func(*T) *int32) []T {
	out := list[:0]
	for _, e := range list {
		at := peerOf(&e)
		if *at = moved[*at]; *at >= 0 {
			out = append(out, e)
		}
	}
	return out
}

// find returns the peer that has an address: the first of its subnet, or that of the
// host if packets go there without a tunnel.
func (c *core) find(addr netip.Addr) (int32, bool) {
	if c.index == nil {
		c.index = make(map[netip.Addr]int32, len(c.status))
		for i := range c.status {
			s := &c.status[i]
			if !probed(s) {
				continue
			}
			c.index[s.Subnet.Masked().Addr()] = int32(i)
			if s.How == backend.Direct {
				c.index[s.Via] = int32(i)
			}
		}
	}
	i, ok := c.index[addr]
	return i, ok
}

// findStatus returns the peer that a status is about.
func (c *core) findStatus(s *backend.PeerStatus) (int32, bool) {
	i, ok := c.findSubnet(s.Subnet)
	return i, ok && probed(s) && c.status[i].Name == s.Name
}

// findSubnet returns the peer that has a subnet.
func (c *core) findSubnet(subnet netip.Prefix) (int32, bool) {
	i, ok := c.find(subnet.Masked().Addr())
	return i, ok && c.status[i].Subnet == subnet
}
