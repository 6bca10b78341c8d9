package gather

import (
	"flannel/internal/ipfam"
	"flannel/kernel/look"
	"flannel/status"
)

// network reads devices, addresses, routes and rules, and asks for the routes to peers
// and to their pods.
// Packets of pods are like those of this host from its address in the pods' subnet: rules
// may look at where they come from.
func (g gatherer) network() error {
	k, err := look.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	f := g.facts
	f.Host, err = k.Host(func(r look.Route) bool { return f.Inside(r.Dst) })
	for _, dst := range f.Destinations() {
		r, failed := k.Lookup(dst, f.PodSource(ipfam.Of(dst)))
		f.Lookups = append(f.Lookups, status.Lookup{Dst: dst, Route: r, Err: failed})
	}
	for _, dst := range f.UnderlayDestinations() {
		r, failed := k.Lookup(dst, f.UplinkSource())
		f.Underlay = append(f.Underlay, status.Lookup{Dst: dst, Route: r, Err: failed})
	}
	return err
}
