package backend

import (
	"regexp"
	"slices"

	"flannel/internal/ipfam"
	"flannel/kernel"
)

// Traits are what programs that look at a host must know of a type of backend. The
// zero Traits are those of a type that has no device and puts nothing into the kernel.
type Traits struct {
	Devices Devices
	// Overhead is what a tunnel adds to each packet on the underlay, in bytes.
	Overhead ipfam.Pair[int]
	// PeerEntries are the tables of the kernel, named as in package kernel, that hold
	// an entry for each peer that is in use.
	PeerEntries []string
}

// Devices are those of a type of backend.
type Devices struct {
	// Kind is what the kernel calls them; empty if there are none.
	Kind string
	// Name matches their names.
	Name *regexp.Regexp
}

// match reports whether a device is one of them: it has our mark, or a name that
// flannel, which makes no marks, uses too.
func (d Devices) match(l kernel.Link) bool {
	return d.Kind != "" && l.Kind == d.Kind && (kernel.Marked(l.Alias) || d.Name.MatchString(l.Name))
}

// Encapsulation is what a configuration makes of the tunnel. It is zero for a
// backend without one.
type Encapsulation struct {
	// Port is the UDP port of all nodes.
	Port int
	// VXLAN is what the devices have, but for what depends on the uplink; nil for
	// other kinds.
	VXLAN *kernel.VXLAN
}

// flannels are the devices of those types that only flannel has.
var flannels = []Devices{
	{"wireguard", regexp.MustCompile(`^flannel-wg(-v6)?$`)},
	{"ipip", regexp.MustCompile(`^flannel\.ipip$`)},
}

// Find returns the type with a name.
func (t Table) Find(name string) (Type, bool) {
	i := slices.IndexFunc(t, func(t Type) bool { return t.Name == name })
	if i < 0 {
		return Type{}, false
	}
	return t[i], true
}

// OfDevice returns the type to which a device of this host belongs.
func (t Table) OfDevice(l kernel.Link) (Type, bool) {
	i := slices.IndexFunc(t, func(t Type) bool { return t.Traits.Devices.match(l) })
	if i < 0 {
		return Type{}, false
	}
	return t[i], true
}

// IsOverlay reports whether a device of this host is one of an overlay, ours or
// flannel's.
func (t Table) IsOverlay(l kernel.Link) bool {
	_, ok := t.OfDevice(l)
	return ok || slices.ContainsFunc(flannels, func(d Devices) bool { return d.match(l) })
}

// IsOverlayName does so if only the name of the device is known.
func (t Table) IsOverlayName(device string) bool {
	named := func(d Devices) bool { return d.Kind != "" && d.Name.MatchString(device) }
	return slices.ContainsFunc(t, func(t Type) bool { return named(t.Traits.Devices) }) || slices.ContainsFunc(flannels, named)
}
