package doctor

import (
	"fmt"

	"flannel/internal/ipfam"
	"flannel/kernel"
)

var mtu = Check{
	Name: "mtu",
	About: "The MTUs of the uplink, the overlay's device, `subnet.env`, the pods' bridge and the host's side of the pods' interfaces are consistent; " +
		"the tunnel needs 50 bytes (IPv6: 70) with vxlan, 28 (48) with udp.",
	Means: "Small packets pass, but large ones do not: connections open and then hang.",
	More:  "backends.md",
	Find: func(f *Facts) []Finding {
		e := f.SubnetFile.Env
		if e == nil {
			return nil
		}
		var out []Finding
		add := func(command, format string, args ...any) {
			out = append(out, Finding{Problem: fmt.Sprintf(format, args...), Command: command})
		}
		up, known := f.uplink()
		for _, l := range f.overlays() {
			if known && l.MTU+f.overhead(l) > up.MTU {
				add(fmt.Sprintf("ip link set %s mtu %d", l.Name, up.MTU-f.overhead(l)),
					"%s has MTU %d and needs %d bytes for the tunnel, but %s has MTU %d", l.Name, l.MTU, f.overhead(l), up.Name, up.MTU)
			}
			if l.MTU < e.MTU {
				add(restart, "%s gives pods MTU %d, but %s has MTU %d", f.SubnetFile.Path, e.MTU, l.Name, l.MTU)
			}
		}
		if known && len(f.overlays()) == 0 && up.MTU < e.MTU {
			add(restart, "%s gives pods MTU %d, but %s has MTU %d", f.SubnetFile.Path, e.MTU, up.Name, up.MTU)
		}
		return append(out, f.podMTU(e.MTU)...)
	},
}

// overhead is what the tunnel of a device takes. A vxlan device carries one family,
// another one all.
func (f *Facts) overhead(l kernel.Link) int {
	typ, _ := f.Backends.OfDevice(l)
	if l.Kind == kernel.KindVXLAN {
		return typ.Traits.Overhead[ipfam.Of(l.VXLAN.Local)]
	}
	most := 0
	for family, on := range f.families().Each() {
		if on {
			most = max(most, typ.Traits.Overhead[family])
		}
	}
	return most
}

// podMTU finds pods that were made with another MTU: they keep it.
func (f *Facts) podMTU(right int) []Finding {
	var out []Finding
	for _, bridge := range f.bridges() {
		n, most, name := 0, 0, ""
		for _, l := range f.Host.Links {
			if l.Master == bridge.Index && l.MTU > right {
				if n++; l.MTU > most {
					most, name = l.MTU, l.Name
				}
			}
		}
		if n > 0 {
			out = append(out, Finding{
				Problem: fmt.Sprintf("%d interfaces of pods on %s have an MTU of more than %d, for example %s with %d: they are older than this MTU", n, bridge.Name, right, name, most),
				Command: "kubectl delete pod for the pods of this node, or restart the containers",
			})
		}
	}
	return out
}
