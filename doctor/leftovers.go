package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/internal/printable"
)

var leftovers = Check{
	Name: "leftovers",
	About: "Nothing of another network plugin is inside the configured network: no addresses of its devices, no routes, no rules that send the network's " +
		"packets to a table of their own. What may not belong to a plugin is only a note.",
	Means: "Packets of pods take the path of the other plugin and are lost. If that plugin is in use on this host, choose another `Network`.",
	More:  "troubleshooting.md#a-peer",
	Find: func(f *Facts) []Finding {
		return shorten(slices.Concat(f.leftDevices(), f.leftRoutes(), f.leftRules()))
	},
}

// plugins are devices by the first letters of their names.
var plugins = []struct{ device, plugin string }{
	{"cilium_", "Cilium"},
	{"vxlan.calico", "Calico"}, {"vxlan-v6.calico", "Calico"}, {"wireguard.cali", "Calico"}, {"cali", "Calico"}, {"tunl0", "Calico"},
	{"weave", "Weave Net"},
	{"kube-bridge", "kube-router"},
	{"antrea-", "Antrea"},
	{"ovn-k8s-", "OVN-Kubernetes"},
	{"cbr0", "kubenet"},
}

// pluginOf names the plugin that makes such devices; empty if none is known.
func pluginOf(device string) string {
	for _, p := range plugins {
		if strings.HasPrefix(device, p.device) {
			return p.plugin
		}
	}
	return ""
}

// wanted reports whether a prefix lies in a network that is wanted.
func (f *Facts) wanted(p netip.Prefix) bool {
	return ipfam.WithinAny(f.Networks(), p)
}

func (f *Facts) leftDevices() []Finding {
	var out []Finding
	for _, a := range f.Host.Addrs {
		plugin := pluginOf(a.Dev)
		if plugin != "" && f.wanted(ipfam.Host(a.Addr.Addr())) {
			out = append(out, Finding{
				Problem: fmt.Sprintf("%s of %s has the address %s inside the network", a.Dev, plugin, a.Addr),
				Command: fmt.Sprintf("ip link del %s, if its plugin is gone", printable.Word(a.Dev)),
			})
		}
	}
	return out
}

// routers are the daemons of plugins that mark their routes.
var routers = map[int]string{unix.RTPROT_BIRD: "Calico", protocolCalico: "Calico", unix.RTPROT_BGP: "a BGP daemon"}

// protocolCalico is the number that Felix gives its routes.
const protocolCalico = 80

func (f *Facts) leftRoutes() []Finding {
	var out []Finding
	for _, r := range f.Host.Routes {
		dev, _ := f.Host.Links.ByName(r.Dev)
		if !f.wanted(r.Dst) || r.IsOurs() || f.Backends.IsOverlay(dev) || r.Protocol == unix.RTPROT_KERNEL {
			continue
		}
		if r.Dst.IsSingleIP() && r.Type == "" && strings.HasPrefix(r.Dev, "cali") {
			continue // a pod of Canal, which is Calico's rules over this network
		}
		found := Finding{Problem: fmt.Sprintf("a route of others is inside the network: %s", r), Command: fmt.Sprintf("ip route del %s", r)}
		plugin := pluginOf(r.Dev)
		if plugin == "" {
			plugin = routers[r.Protocol]
		}
		if plugin == "" {
			found.Note = true
		} else {
			found.Problem = fmt.Sprintf("a route of %s is inside the network: %s", plugin, r)
		}
		out = append(out, found)
	}
	return out
}

func (f *Facts) leftRules() []Finding {
	var out []Finding
	for _, r := range f.Host.Rules {
		// A rule of Cilium is for packets with its mark, of which there are none
		// without it.
		if !f.wanted(r.Src) && !f.wanted(r.Dst) || r.Table == unix.RT_TABLE_MAIN || r.Table == unix.RT_TABLE_LOCAL || r.Table == 0 {
			continue
		}
		ip := ipfam.Pair[string]{"ip", "ip -6"}[r.Family]
		out = append(out, Finding{
			Problem: fmt.Sprintf("a rule sends packets of the network to another table: %s", r),
			// Others may have the same preference.
			Command: fmt.Sprintf("%s rule del pref %s", ip, strings.Replace(r.String(), ":", "", 1)),
		})
	}
	return out
}
