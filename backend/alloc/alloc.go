// Package alloc is the backend of a node that leases a subnet and leaves all
// routes to somebody else.
package alloc

import (
	"fmt"

	"flannel/backend"
	"flannel/internal/options"
	"flannel/network/kernel"
	"flannel/subnet"
)

// Type is the backend type in records and configuration.
const Type = "alloc"

// Backend plans nothing.
type Backend struct{ env backend.Env }

// New checks the configuration; the backend has no keys of its own.
func New(env backend.Env) (backend.Backend, error) {
	warnings, err := options.OnlyType(env.Options)
	if err != nil {
		return nil, fmt.Errorf("Backend: %w", err)
	}
	for _, w := range warnings {
		env.Log.Warn("backend configuration", "problem", w)
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
