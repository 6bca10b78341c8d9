// Package hostgw plans an overlay without encapsulation: a route to each
// peer's subnet over the peer's own address, on a common link.
package hostgw

import (
	"fmt"

	"flannel/backend"
	"flannel/subnet"
)

// Type is the backend type in records and configuration.
const Type = "host-gw"

// Backend plans plain routes.
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

// UsesLinks implements backend.LinkUser.
func (b *Backend) UsesLinks() bool { return true }

// CheckUplink implements backend.UplinkChecker: the others route to the public
// address, so this host itself must have it.
func (b *Backend) CheckUplink(up backend.Uplink) error {
	for f, on := range b.env.Families.Each() {
		if on && up.Public[f] != up.Addr[f] {
			return fmt.Errorf("public %s address %s is not the address %s of %s: %s needs the interface's own",
				f, up.Public[f], up.Addr[f], up.Name, Type)
		}
	}
	return backend.CheckMTU(up.MTU, b.env.Families, up)
}
