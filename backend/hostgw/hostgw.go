// Package hostgw plans an overlay without encapsulation: a route to each
// peer's subnet over the peer's own address, on a common link.
package hostgw

import (
	"fmt"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/internal/options"
	"flannel/kernel"
	"flannel/subnet"
)

const typeName = "host-gw"

// Type has no keys of its own.
var Type = backend.Type{
	Name:   typeName,
	Keys:   func(_ *options.Object, families ipfam.Pair[bool]) backend.Config { return config{families} },
	Traits: backend.Traits{PeerEntries: []string{kernel.TableRoutes}},
}

type config struct{ families ipfam.Pair[bool] }

// Needs implements backend.Config.
func (c config) Needs() backend.Needs {
	return backend.Needs{Peers: true, OnLinkRoutes: true, Uplink: c.checkUplink}
}

// Encapsulation implements backend.Config.
func (config) Encapsulation() backend.Encapsulation { return backend.Encapsulation{} }

// checkUplink: the other nodes route to the public address, so this host itself
// must have it.
func (c config) checkUplink(up backend.Uplink) error {
	for f, on := range c.families.Each() {
		if on && up.Public[f] != up.Addr[f] {
			return fmt.Errorf("public %s address %s is not the address %s of %s: %s needs the interface's own",
				f, up.Public[f], up.Addr[f], up.Name, typeName)
		}
	}
	return backend.CheckMTU(up.MTU, c.families, "raise the MTU of "+up.Name)
}

// New implements backend.Config.
func (c config) New(env backend.Env) (backend.Backend, error) { return &hostgw{env}, nil }

// hostgw plans plain routes.
type hostgw struct{ env backend.Env }

// Attrs implements backend.Backend.
func (b *hostgw) Attrs(up backend.Uplink) subnet.Attrs { return b.env.Attrs(typeName, up) }

// MTU implements backend.Backend: nothing is added to a packet.
func (b *hostgw) MTU(up backend.Uplink) int { return up.MTU }
