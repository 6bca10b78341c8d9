package kernel

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"flannel/internal/ipfam"
)

// failures collects errors and keeps their text short.
type failures struct {
	count int
	first []error
	// families are those that the errors are about.
	families ipfam.Pair[bool]
}

const shownFailures = 5

// add adds an error about these families.
func (f *failures) add(err error, families ipfam.Pair[bool]) {
	for family, on := range families.Each() {
		f.families[family] = f.families[family] || on
	}
	f.count++
	if len(f.first) < shownFailures {
		f.first = append(f.first, err)
	}
}

func (f *failures) err() error {
	if f.count > len(f.first) {
		return errors.Join(append(slices.Clip(f.first), fmt.Errorf("and %d more", f.count-len(f.first)))...)
	}
	return errors.Join(f.first...)
}

func (p *pass) addrFailed(c Change[AddrKey, struct{}], err error) {
	p.deviceFailures.add(fmt.Errorf("put address %s: %w", c.Key.Prefix, err), familyOf(c.Key.Prefix.Addr()))
}

func (p *pass) fdbFailed(c Change[FDBKey, FDBValue], err error) {
	err = fmt.Errorf("put fdb entry %s dst %s: %w", c.Key.MAC, c.Want.Dst, err)
	p.failures.add(err, familyOf(c.Want.Dst))
	for k, mac := range entries(p.want.Neighbors, p.neighborEntry) {
		if mac == c.Key.MAC && k.Dev == c.Key.Dev {
			p.failServed(k, err)
		}
	}
}

func (p *pass) neighborFailed(c Change[NeighborKey, MAC], err error) {
	err = fmt.Errorf("put neighbor %s: %w", c.Key.Addr, err)
	p.failures.add(err, familyOf(c.Key.Addr))
	p.failServed(c.Key, err)
}

func (p *pass) routeFailed(c Change[RouteKey, RouteValue], err error) {
	err = fmt.Errorf("put route %s: %w", c.Key.Dst, err)
	p.failures.add(err, familyOf(c.Key.Dst.Addr()))
	p.fail(c.Key.Dst, err)
}

// failServed reports an error for the destinations that use a gateway.
func (p *pass) failServed(gateway NeighborKey, err error) {
	if p.served == nil {
		p.served = make(map[NeighborKey][]netip.Prefix)
		for k, v := range entries(p.want.Routes, p.routeEntry) {
			g := NeighborKey{v.Dev, v.Via}
			p.served[g] = append(p.served[g], k.Dst)
		}
	}
	for _, dst := range p.served[gateway] {
		p.fail(dst, err)
	}
}

func (p *pass) fail(dst netip.Prefix, err error) {
	if p.stats.Failed == nil {
		p.stats.Failed = make(map[netip.Prefix]error)
	}
	p.stats.Failed[dst] = err
}

// failMissing reports each device that does not exist, and each route that
// needs it. Without its device an entry looks stale although it is
// wanted, so the families that the device should carry are held.
func (p *pass) failMissing() {
	for _, name := range slices.Sorted(maps.Keys(p.missing)) {
		err := fmt.Errorf("device %s does not exist or is not ours", name)
		var families ipfam.Pair[bool]
		for _, r := range p.want.Routes {
			if r.Dev == name && !r.Blackhole {
				p.fail(r.Dst, err)
				families[ipfam.Of(r.Dst.Addr())] = true
			}
		}
		if i := slices.IndexFunc(p.want.Devices, func(d Device) bool { return d.Name == name }); i >= 0 {
			families = p.want.Devices[i].families()
			p.deviceFailures.add(err, families)
		} else {
			p.failures.add(err, families)
		}
		for f, on := range families.Each() {
			p.hold[f] = p.hold[f] || on
		}
	}
}

func familyOf(a netip.Addr) (families ipfam.Pair[bool]) {
	families[ipfam.Of(a)] = true
	return families
}

// both is for what belongs to either family.
func both() ipfam.Pair[bool] { return ipfam.Pair[bool]{true, true} }

// families returns those that the device has addresses of; both if it has none.
func (d Device) families() (families ipfam.Pair[bool]) {
	if len(d.Addrs) == 0 {
		return both()
	}
	for _, a := range d.Addrs {
		families[ipfam.Of(a.Addr())] = true
	}
	return families
}
