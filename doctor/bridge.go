package doctor

import (
	"fmt"
	"slices"
	"strings"

	"flannel/internal/ipfam"
	"flannel/internal/printable"
	"flannel/kernel"
	"flannel/status"
)

var podBridge = Check{
	Name: "bridge",
	About: "The pods' bridge, `cni0`, has the first address of this node's subnet in each family in which it has an address. No other bridge has an address of the " +
		"overlay network, except where Docker's `docker0` takes the place of `cni0`: then its address is in this node's subnet.",
	Means: "Another plugin created the bridge, this node used to have another subnet, or the Docker daemon was started with another one. New pods or containers do not " +
		"start, or other nodes cannot reach them.",
	More: "troubleshooting.md#this-host",
	Find: func(f *Facts) []Finding {
		const name = "cni0"
		if f.SubnetFile.Env == nil {
			return nil
		}
		out := f.otherBridges()
		for family, right := range ipfam.Prefixes(f.SubnetFile.Env.Subnet) {
			var have []string
			found := slices.ContainsFunc(f.Host.Addrs, func(a kernel.HostAddr) bool {
				if a.Dev != name || ipfam.Of(a.Addr.Addr()) != family || a.Addr.Addr().IsLinkLocalUnicast() {
					return false
				}
				have = append(have, a.Addr.String())
				return a.Addr.Addr() == right.Addr()
			})
			if !found && len(have) > 0 {
				out = append(out, Finding{
					Problem: fmt.Sprintf("%s has %s, but this node's subnet gives it %s", name, strings.Join(have, ", "), right),
					Command: "delete the pods of this node, then: ip link delete " + name + "; the next pod makes it again",
				})
			}
		}
		return out
	},
}

// dockerOptions is what gives Docker this node's subnet.
const dockerOptions = "mk-docker-opts.sh -d /run/docker_opts.env -c; have dockerd started with these options, then: systemctl restart docker"

// otherBridges finds bridges whose addresses are where the pods of this or another
// node are, and Docker's where it should be inside and is not. Hosts may have their
// own addresses in the overlay network: only bridges are looked at.
func (f *Facts) otherBridges() []Finding {
	const docker = "docker0"
	pods := f.hasPodBridge() || len(f.CNIConfs) > 0
	s := f.Daemon.Status
	inEtcd := s != nil && s.Lease.Expires != nil // others have no Docker in their overlay
	inOwn := slices.ContainsFunc(f.bridges(), func(l kernel.Link) bool { return l.Name != docker })
	own := f.own()
	var out []Finding
	for _, a := range f.Host.Addrs {
		l, _ := f.Host.Links.ByName(a.Dev)
		subnet := own[ipfam.Of(a.Addr.Addr())]
		within := subnet.Contains(a.Addr.Addr())
		up, _ := f.uplink()
		if l.Kind != "bridge" || l.Name == "cni0" || l.Index == up.Index || !subnet.IsValid() || a.Addr.Addr().IsLinkLocalUnicast() {
			continue
		}
		switch {
		case within && f.hasPodBridge(): // the delegate may give the bridge another name
			out = append(out, Finding{
				Problem: fmt.Sprintf("%s has %s, an address of this node's subnet %s, which the pods use", l.Name, a.Addr, subnet),
				Command: remove(l.Name),
			})
		case !within && f.Inside(ipfam.Host(a.Addr.Addr())):
			out = append(out, Finding{
				Problem: fmt.Sprintf("%s has %s: inside the overlay network, but outside of this node's subnet %s", l.Name, a.Addr, subnet),
				Command: remove(l.Name),
				// No node may ever get that subnet.
				Note: !slices.ContainsFunc(f.peers(), func(p status.Target) bool { return p.Subnet.Overlaps(a.Addr) }),
			})
		case !within && l.Name == docker && inEtcd && !pods && !inOwn && ipfam.Of(a.Addr.Addr()) == ipfam.V4:
			out = append(out, Finding{
				Problem: fmt.Sprintf("%s has %s, outside of this node's subnet %s: dockerd was not started with it", l.Name, a.Addr, subnet),
				Command: dockerOptions,
			})
		}
	}
	return out
}

// remove returns how a bridge gets out of the way.
func remove(bridge string) string {
	if bridge == "docker0" {
		return "set another bip in /etc/docker/daemon.json, outside of the overlay network; then: systemctl restart docker"
	}
	return fmt.Sprintf("docker network ls; ip address show dev %s; remove it or give it addresses outside of the overlay network", printable.Word(bridge))
}
