package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"flannel/backend"
	"flannel/internal/printable"
	"flannel/kernel"
)

// Wanted is a network configuration that is to be used on this host.
type Wanted struct {
	File string
	// Err is why it cannot be used; Unknown are lines about keys without an effect.
	Err           error
	Unknown       []string
	Network       []netip.Prefix
	Backend       backend.Type
	Encapsulation backend.Encapsulation
}

// Kind is that of the backend's devices, empty if it has none.
func (w *Wanted) Kind() string { return w.Backend.Traits.Devices.Kind }

// Kernel is what the kernel of this host offers, and to this process.
type Kernel struct {
	// Missing are features that it lacks.
	VXLAN, TUN, PacketFilter Feature
	// LegacyTool is set if there is a program for legacy iptables.
	LegacyTool bool
	// Lacks are capabilities that this process lacks.
	Lacks []string
}

// Feature is whether the kernel has something.
type Feature string

// The zero Feature is not known.
const (
	Present Feature = "present"
	Absent  Feature = "absent"
)

var configuration = Check{
	Name:  "configuration",
	About: "The network configuration that `-config` names can be used: each value is allowed, the type of the backend is supported, and each key has an effect.",
	Means: "The daemon does not start with a wrong value, and ignores what it does not know.",
	More:  "configuration.md",
	Find: func(f *Facts) []Finding {
		var out []Finding
		if err := f.Wanted.Err; err != nil {
			out = append(out, Finding{Problem: err.Error(), Command: "correct " + f.Wanted.File})
		}
		for _, line := range f.Wanted.Unknown {
			out = append(out, Finding{Problem: line, Command: "correct " + f.Wanted.File})
		}
		return out
	},
}

var rights = Check{
	Name:  "rights",
	About: "This process has the capabilities that the daemon needs: `NET_ADMIN` and `NET_RAW`.",
	Means: "The daemon cannot write to the kernel. Without them, some of the other checks cannot run either.",
	More:  "running.md",
	Find: func(f *Facts) []Finding {
		if len(f.Kernel.Lacks) == 0 {
			return nil
		}
		return []Finding{{Problem: "this process lacks " + strings.Join(f.Kernel.Lacks, ", "), Command: "sudo flanneld doctor --preflight --config " + printable.Word(f.Wanted.File)}}
	},
}

var kernelFeatures = Check{
	Name:  "kernel",
	About: "The kernel supports what the configuration needs: vxlan or TUN devices for these backends, nf_tables or iptables for the rules.",
	Means: "The daemon cannot create its device, or cannot masquerade and accept what pods send.",
	More:  "backends.md",
	Find: func(f *Facts) []Finding {
		var out []Finding
		w, k := f.Wanted, f.Kernel
		if w.Kind() == kernel.KindVXLAN && k.VXLAN == Absent {
			out = append(out, Finding{Problem: "this kernel has no vxlan devices", Command: "modprobe vxlan; or install the kernel's extra modules; or use another Backend.Type"})
		}
		if w.Kind() == kernel.KindTUN && k.TUN == Absent {
			out = append(out, Finding{Problem: "this kernel has no TUN devices, or /dev/net/tun is missing", Command: "modprobe tun; or use another Backend.Type"})
		}
		if k.PacketFilter == Absent {
			out = append(out, Finding{Problem: "this kernel has neither nf_tables nor legacy iptables", Command: "modprobe nf_tables; or: modprobe iptable_filter iptable_nat"})
		}
		return out
	},
}

var port = Check{
	Name:  "port",
	About: "The UDP port of the backend, and with vxlan the VNI, are free.",
	Means: "The kernel refuses the daemon's device or socket, or gives it the packets of another network.",
	More:  "backends.md",
	Find: func(f *Facts) []Finding {
		port, wanted := f.Wanted.Encapsulation.Port, f.Wanted.Encapsulation.VXLAN
		if port == 0 {
			return nil
		}
		vxlan := func(l kernel.Link) bool { return l.Kind == kernel.KindVXLAN && l.VXLAN.Port == port }
		var out []Finding
		for _, l := range f.Host.Links {
			switch {
			case !vxlan(l) || f.Backends.IsOverlay(l):
			case wanted == nil && l.Up:
				out = append(out, Finding{Problem: fmt.Sprintf("device %s has UDP port %d", l.Name, port), Command: another(l, "set another Backend.Port")})
			case l.VXLAN.VNI == wanted.VNI:
				out = append(out, Finding{
					Problem: fmt.Sprintf("device %s has VNI %d on UDP port %d", l.Name, wanted.VNI, port),
					Command: another(l, "set another Backend.VNI or Backend.Port"),
				})
			case l.Up && (l.VXLAN.VNI == 0 || l.VXLAN.GBP != wanted.GBP):
				// The kernel shares a port among devices that are alike: not with
				// one that takes every VNI.
				out = append(out, Finding{
					Problem: fmt.Sprintf("device %s has UDP port %d and does not share it", l.Name, port),
					Command: another(l, "set another Backend.Port"),
				})
			}
		}
		ours := f.PortOwner == "flanneld"
		byKernel := slices.ContainsFunc(f.Host.Links, func(l kernel.Link) bool { return vxlan(l) && l.Up })
		for family, taken := range f.PortTaken.Each() {
			if !taken || ours || byKernel || len(out) > 0 {
				continue
			}
			owner := "something"
			if f.PortOwner != "" {
				owner = f.PortOwner
			}
			out = append(out, Finding{
				Problem: fmt.Sprintf("%s has UDP port %d (%s)", owner, port, family),
				Command: fmt.Sprintf("ss -ulnp sport = :%d shows who; stop it, or set another Backend.Port", port),
			})
		}
		return out
	},
}

// another returns what to do about a device that is in the way.
func another(l kernel.Link, or string) string {
	return fmt.Sprintf("ip link del %s, if its plugin is gone; or %s on all nodes", printable.Word(l.Name), or)
}
