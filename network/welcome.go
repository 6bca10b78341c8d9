package network

import (
	"context"
	"slices"

	"flannel/backend"
	"flannel/subnet"
)

// fewNew is how many peers at once count as single newcomers.
const fewNew = 16

// welcome puts the entries of single peers that have just come into the
// kernel, ahead of the pass, which looks at all peers and has the last word.
// It does so only when the rest is as the last pass has left it and the
// newcomer wants nothing that another lease names.
func (l *looper) welcome(ctx context.Context, snapshot *subnet.Snapshot, own *subnet.Lease, view backend.View) {
	last := l.last.Load()
	calm := last != nil && last.err == nil && !l.guard.holding() && snapshot.Epoch == l.guard.epoch
	if !calm || last.own.Subnet != own.Subnet || !last.own.Attrs.Equal(own.Attrs) || !sameView(last.view, view) {
		return
	}
	var peers []subnet.Lease
	for _, i := range newcomers(l.guard.known, snapshot.Leases) {
		if subnet.Uncontested(&l.site.vet, own, snapshot.Leases, i) {
			peers = append(peers, *snapshot.Leases[i])
		}
	}
	if len(peers) == 0 {
		return
	}
	if state, _, err := l.backend.Plan(*own, peers, view); err == nil {
		l.kernel.Add(ctx, state)
	}
}

func sameView(a, b backend.View) bool {
	return a.Uplink == b.Uplink && slices.Equal(a.Links, b.Links)
}

// newcomers returns the positions of the leases whose names are not known, or
// none when they are many. Both lists are in the order of the names.
func newcomers(known, leases []*subnet.Lease) []int {
	if n := len(leases) - len(known); n > fewNew {
		return nil
	}
	var found []int
	k := 0
	for i := range leases {
		name := leases[i].Name
		for k < len(known) && known[k].Name < name {
			k++
		}
		if k < len(known) && known[k].Name == name {
			continue
		}
		if found = append(found, i); len(found) > fewNew {
			return nil
		}
	}
	return found
}
