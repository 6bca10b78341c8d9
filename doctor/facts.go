// Package doctor finds out what is wrong with the overlay network on a host, from
// facts that were gathered before. It does no I/O; package gather does.
package doctor

import (
	"net/netip"
	"slices"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/internal/passage"
	"flannel/kernel"
	"flannel/kernel/look"
	"flannel/network"
	"flannel/status"
	"flannel/subnet/env"
)

// Facts are what was found on a host. What could not be read is left empty, and
// its source is in Unread.
type Facts struct {
	// Backends are the types whose devices are the overlay's.
	Backends   backend.Table
	SubnetFile SubnetFile
	Daemon     Daemon
	// Store is nil if only the daemon can look at it, from its container.
	Store *Store
	// Host has the routes of all routing tables that lead somewhere inside the overlay
	// networks, without those of this host's own addresses.
	Host look.Host
	// Lookups are what the kernel answers for Destinations.
	Lookups []status.Lookup
	// Underlay are its answers for UnderlayDestinations.
	Underlay []status.Lookup
	// Settings are the values of sysctls, by their names as sysctl writes them.
	Settings  map[string]string
	Overflows Overflows
	Checksums Checksums
	// KubeProxy is set if rules of kube-proxy are on this host.
	KubeProxy bool
	// Drops are the rules of the packet filter that may drop one of Packets.
	Drops []passage.Drop
	// Pods are those whose namespaces could be entered.
	Pods []Pod
	// CNIConfs are the names of the network configurations in CNIConfDir, in the
	// order in which runtimes take them.
	CNIConfDir string
	CNIConfs   []string
	// Reservations are those of this node's subnet.
	Reservations []Reservation
	// Wanted is what is to be installed; nil if flannel is installed already. What
	// follows is known only if it is set.
	Wanted *Wanted
	Kernel Kernel
	// PortTaken are the families in which a program has the UDP port that is wanted;
	// PortOwner is its name, if that could be found.
	PortTaken ipfam.Pair[bool]
	PortOwner string
	// DefaultDev is the device of the default route, by which the tunnel will send.
	DefaultDev string

	Unread []Unread
}

// Unread is a source that could not be read.
type Unread struct {
	Source  string `json:"source"`
	Problem string `json:"problem"`
}

// SubnetFile is subnet.env.
type SubnetFile struct {
	Path string
	// Env is nil if there is no file that can be read, which Err explains.
	Env *env.Env
	Err error
}

// Daemon is what the daemon of this host reports.
type Daemon struct {
	// Asked is where it was asked.
	Asked string
	// Ready are the lines of /readyz behind the first, Status is /status; nil until
	// a pass has ended, and without a daemon.
	Ready  []string
	Status *network.Status
	// Absent is set if no daemon of this software runs in this network namespace, and
	// not if that could not be found out.
	Absent bool
}

// overlays returns the devices of this overlay: those that its daemon names, or else
// those with an address in this node's subnet. A host may have several overlays.
func (f *Facts) overlays() []kernel.Link {
	var all, own []kernel.Link
	subnets := f.own()
	for _, l := range f.Host.Links {
		if _, ok := f.Backends.OfDevice(l); !ok {
			continue
		}
		all = append(all, l)
		if slices.ContainsFunc(f.Host.Addrs, func(a kernel.HostAddr) bool {
			return a.Dev == l.Name && subnets[ipfam.Of(a.Addr.Addr())].Contains(a.Addr.Addr())
		}) {
			own = append(own, l)
		}
	}
	switch s := f.Daemon.Status; {
	case s != nil && s.Devices != nil: // null is no list
		return slices.DeleteFunc(all, func(l kernel.Link) bool {
			return !slices.ContainsFunc(s.Devices, func(d network.DeviceStatus) bool { return d.Name == l.Name })
		})
	case len(own) > 0:
		return own
	}
	return all
}

// uplink returns the interface that carries the overlay, as far as that is known.
func (f *Facts) uplink() (kernel.Link, bool) {
	if s := f.Daemon.Status; s != nil {
		return f.Host.Links.ByName(s.Uplink.Name)
	}
	for _, l := range f.overlays() {
		if up, ok := f.Host.Links.ByIndex(l.VXLAN.Uplink); ok {
			return up, true
		}
	}
	return kernel.Link{}, false
}

// Networks returns the overlay networks.
func (f *Facts) Networks() []netip.Prefix {
	if w := f.Wanted; w != nil {
		return w.Network
	}
	if s := f.Daemon.Status; s != nil {
		return s.Network
	}
	if e := f.SubnetFile.Env; e != nil {
		return e.Networks()
	}
	return nil
}

// own returns this node's subnets.
func (f *Facts) own() ipfam.Pair[netip.Prefix] {
	if e := f.SubnetFile.Env; e != nil {
		return e.Masked()
	}
	return ipfam.Pair[netip.Prefix]{}
}

// families returns those that are on.
func (f *Facts) families() ipfam.Pair[bool] {
	var on ipfam.Pair[bool]
	for _, n := range f.Networks() {
		on[ipfam.Of(n.Addr())] = true
	}
	return on
}

// bridges returns the bridges that have an address in this node's subnet: those of
// the pods or of Docker's containers.
func (f *Facts) bridges() []kernel.Link { return f.Host.Bridges(f.own()) }

// PodSource returns the address of this host in the pods' subnet, if it has one.
func (f *Facts) PodSource(family ipfam.Family) netip.Addr { return f.Host.PodSource(f.own(), family) }
