package gather

import (
	"errors"
	"net/netip"
	"slices"

	"flannel/internal/ipfam"
	"flannel/kernel/look"
	"flannel/status"
)

// network reads devices, addresses, routes and rules, and asks for the routes to peers
// and to their pods. Packets of pods are like those of this host from its address in the
// pods' subnet: rules may look at where they come from.
func (g gatherer) network() error {
	k, err := look.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	f := g.facts
	f.Host, err = k.Host(func(r look.Route) bool { return f.Inside(r.Dst) })
	if f.Wanted != nil {
		var failed error
		f.DefaultDev, failed = defaultDev(k, f.Networks())
		err = errors.Join(err, failed)
	}
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

// defaultDev returns the device of the default route with the lowest metric, in the
// family of the first network; empty if there is none.
func defaultDev(k *look.Reader, networks []netip.Prefix) (string, error) {
	list, err := k.Routes(func(r look.Route) bool {
		return r.Dst.Bits() == 0 && r.Type == "" && r.IsMain() && len(networks) > 0 && ipfam.Of(r.Dst.Addr()) == ipfam.Of(networks[0].Addr())
	})
	if len(list) == 0 {
		return "", err
	}
	return slices.MinFunc(list, func(a, b look.Route) int { return a.Metric - b.Metric }).Dev, err
}
