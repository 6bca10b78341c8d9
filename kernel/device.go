package kernel

import "fmt"

// vxlanPort is the kernel's default UDP port, not the one that IANA assigned.
const vxlanPort = 8472

// port returns the UDP port that the kernel uses.
func (v VXLAN) port() int {
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

// decideLink says how have becomes what want says. have is nil when no device
// has the name. alias is our mark; taken says that a running daemon has another.
func decideLink(want Device, have *link, alias string, taken bool) (linkAction, linkChange, error) {
	switch {
	case have == nil:
		return linkCreate, linkChange{}, nil
	case taken:
		return linkKeep, linkChange{}, fmt.Errorf("device %s belongs to another daemon that is running (its alias is %q)", want.Name, have.alias)
	case want.TUN && !isMark(have.alias):
		return linkKeep, linkChange{}, fmt.Errorf("device %s is there and not ours", want.Name)
	case !compatible(want, *have):
		return linkReplace, linkChange{}, nil
	}
	c := difference(want, *have, alias)
	if c == (linkChange{}) {
		return linkKeep, c, nil
	}
	return linkAdjust, c, nil
}

// compatible reports whether the device can be made the wanted one without
// creating it again.
func compatible(want Device, have link) bool {
	if want.TUN {
		return have.kind == kindTUN
	}
	if want.VXLAN == nil {
		return true
	}
	w := *want.VXLAN
	w.Port = w.port()
	return have.kind == kindVXLAN && have.vxlan == w
}

// difference says what to change on a compatible device.
func difference(want Device, have link, alias string) linkChange {
	var c linkChange
	if have.mtu != want.MTU {
		c.mtu = want.MTU
	}
	if !want.MAC.IsZero() && have.mac != want.MAC {
		c.mac = want.MAC
	}
	if have.alias != alias {
		c.alias = alias
	}
	c.up, c.free = !have.up, have.master != 0
	return c
}

// after returns the device as it is once the change has been made.
func (c linkChange) after(l link) link {
	if c.mtu != 0 {
		l.mtu = c.mtu
	}
	if !c.mac.IsZero() {
		l.mac = c.mac
	}
	if c.alias != "" {
		l.alias = c.alias
	}
	l.up = l.up || c.up
	if c.free {
		l.master = 0
	}
	return l
}

// inTheWay reports whether l keeps the wanted vxlan device from being created:
// the kernel allows a VNI once per port and family.
func inTheWay(want Device, l link) bool {
	if want.VXLAN == nil || l.kind != kindVXLAN {
		return false
	}
	return l.vxlan.VNI == want.VXLAN.VNI && l.vxlan.Port == want.VXLAN.port() &&
		l.vxlan.Local.Is4() == want.VXLAN.Local.Is4()
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
