package doctor

import (
	"fmt"
	"slices"
	"strings"

	"flannel/internal/ipfam"
	"flannel/kernel"
)

var podBridge = Check{
	Name:  "bridge",
	About: "The pods' bridge, `cni0`, has the first address of this node's subnet in each family in which it has an address.",
	Means: "Another plugin created the bridge, or this node used to have another subnet. New pods do not start, or other nodes cannot reach them.",
	More:  "troubleshooting.md#this-host",
	Find: func(f *Facts) []Finding {
		const name = "cni0"
		if _, ok := f.link(name); !ok || f.SubnetFile.Env == nil {
			return nil
		}
		var out []Finding
		for family, right := range ipfam.Prefixes(f.SubnetFile.Env.Subnet) {
			var have []string
			found := slices.ContainsFunc(f.Addrs, func(a kernel.HostAddr) bool {
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
