package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"flannel/internal/ipfam"
	"flannel/internal/sysctl"
	"flannel/kernel"
	"flannel/status"
)

var settings = Check{
	Name: "settings",
	About: "The kernel settings (`sysctl`) are as pods need them: forwarding for the host and for each device on the path, " +
		"`br_netfilter` where kube-proxy is, the check of source addresses if packets to a peer leave by another interface than the uplink, the limit of the neighbor tables, if they are " +
		"full at the time of the check.",
	Means: "This host silently drops packets of pods. The command only lasts until the next boot; also put the setting into `/etc/sysctl.d`.",
	More:  "troubleshooting.md#this-host",
	Find: func(f *Facts) []Finding {
		var out []Finding
		up, _ := f.uplink()
		for _, p := range sysctl.Find(f.setting, f.families(), up.Name) {
			out = append(out, Finding{Problem: p.Text, Command: p.Command, Note: !f.matters(p.Where, up)})
		}
		return slices.Concat(out, f.deviceSettings(), f.neighborLimit())
	},
}

// matters reports whether a setting does so on this host.
func (f *Facts) matters(where sysctl.Where, up kernel.Link) bool {
	switch where {
	case sysctl.WithServices:
		return f.KubeProxy
	case sysctl.WithSeveralUplinks:
		// The answers to a peer's packets go out by another interface.
		return slices.ContainsFunc(f.Underlay, func(l status.Lookup) bool {
			return l.Err == nil && l.Route.Type == "" && up.Name != "" && l.Route.Dev != up.Name
		})
	}
	return true
}

// UnderlayDestinations are the IPv4 addresses of peers to which this host sends.
func (f *Facts) UnderlayDestinations() []netip.Addr {
	var out []netip.Addr
	for _, p := range f.peers() {
		if p.Via.Is4() {
			out = append(out, p.Via)
		}
	}
	return out
}

// UplinkSource returns the IPv4 address of the uplink, if it is known.
func (f *Facts) UplinkSource() netip.Addr {
	if s := f.Daemon.Status; s != nil {
		for _, a := range s.Uplink.Addr {
			if a.Is4() {
				return a
			}
		}
	}
	return netip.Addr{}
}

func (f *Facts) setting(name string) string { return f.Settings[name] }

// SettingNames are those that the checks look at.
func (f *Facts) SettingNames() []string {
	names := []string{
		"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.all.rp_filter",
		"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables",
		neighborLimits[ipfam.V4], neighborLimits[ipfam.V6], "net.ipv6.conf.all.disable_ipv6",
	}
	for _, dev := range f.path() {
		names = append(names,
			sysctl.Of(ipfam.V4, dev, "rp_filter"), sysctl.Of(ipfam.V4, dev, "forwarding"), sysctl.Of(ipfam.V6, dev, "disable_ipv6"))
	}
	return names
}

// path names the devices that packets of pods pass on this host.
func (f *Facts) path() []string {
	var names []string
	if up, ok := f.uplink(); ok {
		names = append(names, up.Name)
	}
	for _, l := range slices.Concat(f.overlays(), f.bridges()) {
		names = append(names, l.Name)
	}
	return names
}

// deviceSettings finds devices that do not forward although the host does: the
// kernel copies the setting of the host to each device only when that changes. With
// IPv4 the device that a packet comes in by decides, with IPv6 only the host.
func (f *Facts) deviceSettings() []Finding {
	var out []Finding
	if !f.families()[ipfam.V4] || f.setting("net.ipv4.ip_forward") == "0" {
		return nil
	}
	for _, dev := range f.inward() {
		name := sysctl.Of(ipfam.V4, dev, "forwarding")
		if f.setting(name) == "0" {
			out = append(out, Finding{
				Problem: fmt.Sprintf("%s is 0: the host forwards no packets that come in by %s", name, dev),
				Command: "sysctl -w " + name + "=1",
			})
		}
	}
	return out
}

// inward names the devices by which IPv4 packets that are forwarded come in: with a
// tunnel the uplink has only packets for the host itself.
func (f *Facts) inward() []string {
	var names []string
	for _, l := range f.overlays() {
		if !l.VXLAN.Local.IsValid() || ipfam.Of(l.VXLAN.Local) == ipfam.V4 {
			names = append(names, l.Name)
		}
	}
	if up, ok := f.uplink(); ok && len(names) == 0 {
		names = append(names, up.Name)
	}
	for _, l := range f.bridges() {
		names = append(names, l.Name)
	}
	return names
}
