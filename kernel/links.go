package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"flannel/internal/ipfam"
)

// applyLinks makes our devices what they should be. Each round lists the
// devices, so that what it did is checked; the last round does nothing.
func (p *pass) applyLinks() error {
	const rounds = 4
	r := p.r
	failed := make(map[string]error)
	for range rounds {
		if err := r.listLinks(); err != nil {
			return err
		}
		if err := r.decideAdoption(); err != nil {
			return err
		}
		r.owned = r.owned[:0]
		acted := false
		for _, d := range p.want.Devices {
			if failed[d.Name] != nil {
				continue
			}
			did, err := p.applyLink(d)
			if err != nil {
				failed[d.Name] = err
			}
			acted = acted || did
		}
		more, err := p.watchOwned()
		if err != nil {
			return err
		}
		if !acted && !more {
			break
		}
		// A device that was created or set up has lost what was on it, and
		// one with another MAC its neighbors.
		p.mode = min(p.mode, suspect)
	}
	r.former = slices.DeleteFunc(r.former, func(l Link) bool {
		return slices.ContainsFunc(p.want.Devices, func(d Device) bool { return d.Name == l.Name })
	})
	for _, d := range p.want.Devices {
		if err := failed[d.Name]; err != nil {
			p.deviceFailures.add(err, d.families())
			delete(r.links, d.Name)
		}
	}
	return nil
}

// listLinks reads all devices, and which of them carry our mark.
func (r *Reconciler) listLinks() error {
	r.links = make(map[string]Link)
	r.former = r.former[:0]
	err := r.backing.Links.List(func(l Link) {
		r.links[l.Name] = l
		if l.Alias == r.scope.alias() {
			r.former = append(r.former, l)
		}
	})
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	slices.SortFunc(r.former, func(a, b Link) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

// applyLink does the next step for one device and reports whether it did
// anything. A device that needs nothing more is then among the owned.
func (p *pass) applyLink(d Device) (bool, error) {
	var have *Link
	if l, ok := p.r.links[d.Name]; ok {
		have = &l
	}
	action, c, err := decideLink(d, have, p.r.scope.alias(), have != nil && p.r.belongsToOther(*have))
	if err != nil {
		return false, err
	}
	if have != nil && Marked(have.Alias) && have.Alias != p.r.scope.alias() {
		p.r.log.Info("device taken over from a daemon that is gone", "dev", d.Name, "alias", have.Alias)
	}
	switch action {
	case linkCreate:
		return true, p.createLink(d)
	case linkReplace:
		p.r.forgetLink(have.Index)
		if err := p.r.backing.Links.Delete(have.Index); err != nil {
			return false, fmt.Errorf("delete device %s, which has other attributes: %w", d.Name, err)
		}
		p.r.log.Info("device replaced", "dev", d.Name, "kind", have.Kind)
		return true, p.createLink(d)
	case linkAdjust:
		p.r.expectLink(d, c.After(*have))
		if err := p.r.backing.Links.Change(have.Index, c); err != nil {
			return false, fmt.Errorf("change device %s: %w", d.Name, p.explain(d, err))
		}
		p.countLink(d)
		return true, nil
	}
	p.r.expectLink(d, *have)
	p.r.owned = append(p.r.owned, *have)
	p.prepare(d, *have)
	return p.turnOffTxChecksum(d)
}

// createLink makes the device after it has removed what is in the way, if that
// is ours or that of a daemon that is gone.
func (p *pass) createLink(d Device) error {
	for _, name := range slices.Sorted(maps.Keys(p.r.links)) {
		if l := p.r.links[name]; InTheWay(d, l) && l.Name != d.Name && Marked(l.Alias) && !p.r.belongsToOther(l) {
			p.r.forgetLink(l.Index)
			if err := p.r.backing.Links.Delete(l.Index); err != nil {
				return fmt.Errorf("delete device %s, which is in the way of %s: %w", l.Name, d.Name, err)
			}
			p.stats.Deleted[TableDevices]++
		}
	}
	if err := p.r.backing.Links.Add(d, p.r.scope.alias()); err != nil {
		return fmt.Errorf("create device %s: %w", d.Name, p.explain(d, err))
	}
	p.countLink(d)
	return nil
}

// explain adds to the kernel's refusal of a vxlan device which device of others
// has what it needs. The kernel allows a VNI once per port when a device is
// created, and when it comes up a port only to devices that are alike.
func (p *pass) explain(d Device, err error) error {
	if d.VXLAN == nil {
		return err
	}
	port := d.VXLAN.UDPPort()
	var has, none string
	inTheWay := func(l Link) bool { return l.VXLAN.Port == port }
	switch {
	case errors.Is(err, syscall.EEXIST):
		has = fmt.Sprintf("VNI %d on UDP port %d", d.VXLAN.VNI, port)
		none = "a vxlan device that was made here and moved to another network namespace has it"
		inTheWay = func(l Link) bool { return l.VXLAN.VNI == d.VXLAN.VNI && l.VXLAN.Port == port }
	case errors.Is(err, syscall.EADDRINUSE):
		has = fmt.Sprintf("UDP port %d", port)
		none = fmt.Sprintf("`ss -ulnp sport = :%d` shows the program that has it", port)
	default:
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(p.r.links)) {
		if l := p.r.links[name]; l.Kind == KindVXLAN && l.Alias != p.r.scope.alias() && l.Name != d.Name && inTheWay(l) {
			return fmt.Errorf("%w: device %s has %s, as `ip -d link show type vxlan` shows; "+
				"remove that device, or use another VNI or port for this network", err, l.Name, has)
		}
	}
	return fmt.Errorf("%w: something else has %s; %s", err, has, none)
}

// countLink counts a write, and the device as drifted when nobody asked for a
// change.
func (p *pass) countLink(d Device) {
	p.stats.Put[TableDevices]++
	if p.mode != unlisted && !p.drifted[d.Name] && slices.ContainsFunc(p.before.Devices, func(b Device) bool { return sameDevice(b, d) }) {
		p.stats.Drift[TableDevices]++
		p.drifted[d.Name] = true
	}
}

// prepare does what a device needs once. Nothing of it is needed for traffic.
func (p *pass) prepare(d Device, l Link) {
	if p.r.prepared[l.Index] {
		return
	}
	p.r.prepared[l.Index] = true
	if err := p.r.backing.Links.Prepare(l, d); err != nil {
		p.r.log.Debug("device not fully prepared", "dev", d.Name, "err", err)
	}
}

// turnOffTxChecksum leaves a device alone that may keep the offload: an
// operator may have turned it off by hand.
func (p *pass) turnOffTxChecksum(d Device) (bool, error) {
	if !d.TxChecksumOff {
		return false, nil
	}
	on, err := p.r.backing.Links.TxChecksum(d.Name)
	if err == nil && on {
		err = p.r.backing.Links.TxChecksumOff(d.Name)
	}
	if err != nil {
		return false, fmt.Errorf("turn off tx checksum offload of %s: %w", d.Name, err)
	}
	if on {
		p.countLink(d)
	}
	return on, nil
}

// deleteFormer removes the devices of earlier configurations, once everything is
// in order in the families that they carry. What is on them is removed with them.
func (p *pass) deleteFormer() error {
	var kept []Link
	var errs []error
	for _, l := range p.r.former {
		if p.needsFormer(l) {
			kept = append(kept, l)
			continue
		}
		p.r.forgetLink(l.Index)
		if err := p.r.backing.Links.Delete(l.Index); err != nil {
			kept = append(kept, l)
			errs = append(errs, fmt.Errorf("delete device %s of an earlier configuration: %w", l.Name, err))
			continue
		}
		p.stats.Deleted[TableDevices]++
		p.r.log.Info("device of an earlier configuration deleted", "dev", l.Name)
	}
	p.r.former = kept
	return errors.Join(errs...)
}

// needsFormer reports whether packets may need a device of an earlier
// configuration. A vxlan device carries one family, that of its own address.
func (p *pass) needsFormer(l Link) bool {
	needed := func(f ipfam.Family) bool {
		return p.hold[f] || p.failures.families[f] || p.deviceFailures.families[f]
	}
	if l.Kind == KindVXLAN && l.VXLAN.Local.IsValid() {
		return needed(ipfam.Of(l.VXLAN.Local))
	}
	return needed(ipfam.V4) || needed(ipfam.V6)
}
