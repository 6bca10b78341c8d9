// Package alloc is the backend of a node that leases a subnet and leaves all
// routes to somebody else.
package alloc

import (
	"flannel/backend"
	"flannel/kernel"
	"flannel/subnet"
)

// Type is the backend type in records and configuration.
const Type = "alloc"

// Backend plans nothing.
type Backend struct{ env backend.Env }

// New checks the configuration; the backend has no keys of its own.
func New(env backend.Env) (backend.Backend, error) {
	if err := env.OnlyType(); err != nil {
		return nil, err
	}
	return &Backend{env}, nil
}

// Attrs implements backend.Backend.
func (b *Backend) Attrs(up backend.Uplink) subnet.Attrs {
	return b.env.Attrs(Type, up)
}

// MTU implements backend.Backend: nothing is added to a packet.
func (b *Backend) MTU(up backend.Uplink) int { return up.MTU }

// Plan implements backend.Backend: the kernel holds nothing, and nothing is
// said about peers.
func (b *Backend) Plan(subnet.Lease, []subnet.Lease, backend.View) (kernel.State, []backend.PeerStatus, error) {
	return kernel.State{}, nil, nil
}

// IgnoresPeers implements backend.Loner.
func (b *Backend) IgnoresPeers() bool { return true }
