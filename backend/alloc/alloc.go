// Package alloc is the backend of a node that leases a subnet and leaves all
// routes to somebody else.
package alloc

import (
	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/internal/options"
	"flannel/kernel"
	"flannel/subnet"
)

const typeName = "alloc"

// Type has no keys of its own.
var Type = backend.Type{
	Name: typeName,
	Keys: func(*options.Object, ipfam.Pair[bool]) backend.Config { return config{} },
}

type config struct{}

// Needs implements backend.Config.
func (config) Needs() backend.Needs { return backend.Needs{} }

// Encapsulation implements backend.Config.
func (config) Encapsulation() backend.Encapsulation { return backend.Encapsulation{} }

// New implements backend.Config.
func (config) New(env backend.Env) (backend.Backend, error) { return &alloc{env}, nil }

// alloc plans nothing.
type alloc struct{ env backend.Env }

// Attrs implements backend.Backend.
func (b *alloc) Attrs(up backend.Uplink) subnet.Attrs { return b.env.Attrs(typeName, up) }

// MTU implements backend.Backend: nothing is added to a packet.
func (b *alloc) MTU(up backend.Uplink) int { return up.MTU }

// Plan implements backend.Backend: the kernel holds nothing, and no peer has a
// status.
func (b *alloc) Plan(subnet.Lease, []subnet.Lease, backend.Host) (kernel.State, []backend.PeerStatus, error) {
	return kernel.State{}, nil, nil
}
