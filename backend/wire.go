package backend

import (
	"net/netip"
	"unique"

	"flannel/internal/ipfam"
	"flannel/kernel"
)

// Format is how the packets of pods look on the underlay.
type Format uint8

// The formats. The packets of the first can only be made by the kernel's device or
// by the daemon.
const (
	Opaque Format = iota
	// Plain: as they are.
	Plain
	// VXLAN: RFC 7348, without extensions.
	VXLAN
)

// Wire is what peers that are reached in the same way have in common, for those who
// make and read the packets on the underlay beside the kernel's own device.
type Wire struct {
	Format Format
	// Dev is the device that the routes to the peers lead to, MTU the largest
	// packet that it takes, and MAC its own address.
	Dev string
	MTU int
	MAC kernel.MAC
	// Uplink is the index of the interface that the packets leave through, and
	// Local their source outside.
	Uplink int
	Local  netip.Addr
	// VNI and Port are those of VXLAN.
	VNI, Port int
}

// Wire is that of peers which the uplink's routes lead to, without a tunnel.
func (up Uplink) Wire(f ipfam.Family) Wire {
	return Wire{Format: Plain, Dev: up.Name, MTU: up.MTU, Uplink: up.Index, Local: up.Addr[f]}
}

// Carried is how the packets of one peer are made. The zero Carried is Opaque.
type Carried struct {
	wire unique.Handle[Wire]
	// MAC is that of the peer's device, if Dev has neighbors.
	MAC kernel.MAC
}

// Over returns how the packets of a peer are made whose device has this MAC.
func (w Wire) Over(mac kernel.MAC) Carried { return Carried{unique.Make(w), mac} }

// Wire returns what the peer has in common with others; it reports false if its
// packets are Opaque.
func (c Carried) Wire() (Wire, bool) {
	if c.wire == (unique.Handle[Wire]{}) {
		return Wire{}, false
	}
	w := c.wire.Value()
	return w, w.Format != Opaque
}
