package kernel

import "fmt"

// vxlanPort is the kernel's default UDP port, not the one that IANA assigned.
const vxlanPort = 8472

// UDPPort returns the UDP port that the kernel uses.
func (v VXLAN) UDPPort() int {
	if v.Port == 0 {
		return vxlanPort
	}
	return v.Port
}

// linkAction is what a pass does with one wanted device.
type linkAction uint8

const (
	linkKeep linkAction = iota
	linkCreate
	linkReplace
	linkAdjust
)

// decideLink returns how have becomes want. have is nil when no device
// has the name. alias is our mark; taken means that a running daemon has another.
func decideLink(want Device, have *Link, alias string, taken bool) (linkAction, LinkChange, error) {
	switch {
	case have == nil:
		return linkCreate, LinkChange{}, nil
	case taken:
		return linkKeep, LinkChange{}, fmt.Errorf("device %s belongs to another daemon that is running (its alias is %q)", want.Name, have.Alias)
	case want.TUN && !Marked(have.Alias):
		return linkKeep, LinkChange{}, fmt.Errorf("device %s exists and is not ours", want.Name)
	case !compatible(want, *have):
		return linkReplace, LinkChange{}, nil
	}
	c := difference(want, *have, alias)
	if c == (LinkChange{}) {
		return linkKeep, c, nil
	}
	return linkAdjust, c, nil
}

// compatible reports whether the device can be made the wanted one without
// creating it again.
func compatible(want Device, have Link) bool {
	if want.TUN {
		return have.Kind == KindTUN
	}
	if want.VXLAN == nil {
		return true
	}
	w := *want.VXLAN
	w.Port = w.UDPPort()
	return have.Kind == KindVXLAN && have.VXLAN == w
}

// difference returns what to change on a compatible device.
func difference(want Device, have Link, alias string) LinkChange {
	var c LinkChange
	if have.MTU != want.MTU {
		c.MTU = want.MTU
	}
	if !want.MAC.IsZero() && have.MAC != want.MAC {
		c.MAC = want.MAC
	}
	if have.Alias != alias {
		c.Alias = alias
	}
	c.Up, c.Free = !have.Up, have.Master != 0
	return c
}

// After returns the device as it is once the change has been made.
func (c LinkChange) After(l Link) Link {
	if c.MTU != 0 {
		l.MTU = c.MTU
	}
	if !c.MAC.IsZero() {
		l.MAC = c.MAC
	}
	if c.Alias != "" {
		l.Alias = c.Alias
	}
	l.Up = l.Up || c.Up
	if c.Free {
		l.Master = 0
	}
	return l
}

// InTheWay reports whether l keeps the wanted vxlan device from being created:
// the kernel allows a VNI once per port and family.
func InTheWay(want Device, l Link) bool {
	if want.VXLAN == nil || l.Kind != KindVXLAN {
		return false
	}
	return l.VXLAN.VNI == want.VXLAN.VNI && l.VXLAN.Port == want.VXLAN.UDPPort() &&
		l.VXLAN.Local.Is4() == want.VXLAN.Local.Is4()
}

// sameDevice compares two wanted devices.
func sameDevice(a, b Device) bool {
	if a.Name != b.Name || a.MTU != b.MTU || a.MAC != b.MAC || a.TxChecksumOff != b.TxChecksumOff || a.TUN != b.TUN {
		return false
	}
	if (a.VXLAN == nil) != (b.VXLAN == nil) {
		return false
	}
	return a.VXLAN == nil || *a.VXLAN == *b.VXLAN
}
