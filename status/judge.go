package status

import (
	"cmp"
	"net/netip"
	"time"

	"flannel/backend"
	"flannel/network"
)

// Judgement is what people look for first in a long list of peers.
type Judgement int

// The judgements, worst first.
const (
	Bad Judgement = iota
	Unsure
	Good
)

// Judge judges how a peer is reached.
func Judge(p network.Peer) Judgement {
	how := backend.How(p.How)
	switch {
	case how != backend.Tunnel && how != backend.Direct, p.Probe != nil && p.Probe.Verdict == backend.Broken:
		return Bad
	case p.Probe != nil && p.Probe.Verdict == backend.Silent:
		return Unsure
	}
	return Good
}

// IsUsed reports whether the kernel has the way to a peer, whether or not it works.
func IsUsed(p network.Peer) bool {
	how := backend.How(p.How)
	return how == backend.Tunnel || how == backend.Direct
}

// Compare orders two peers by a column.
func (c Column) Compare(a, b network.Peer) int {
	if c.Name == "for" {
		return b.Since.Compare(a.Since)
	}
	x, y := c.Of(a, time.Time{}), c.Of(b, time.Time{})
	return cmp.Or(order(x).Compare(order(y)), cmp.Compare(x, y))
}

// order is the address that a text stands for or begins with, so that 10.5.9.0/24
// comes before 10.5.10.0/24.
func order(text string) netip.Addr {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Addr()
	}
	a, _ := netip.ParseAddr(text)
	return a
}
