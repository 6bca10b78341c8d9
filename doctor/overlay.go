package doctor

import (
	"cmp"
	"fmt"
	"slices"

	"flannel/backend"
	"flannel/status"
)

var overlay = Check{
	Name: "overlay",
	About: "Echo requests through the overlay, both small and of the full size, reach the peers and are answered. The daemon probes 20 peers, " +
		"and all those suspected to be broken. A peer that has never answered is only a note, because it may drop echo requests.",
	Means: "Pods of this node cannot reach those of the peer, or only with small packets. If nothing else is found on either node, something on the path drops the backend's packets.",
	More:  "troubleshooting.md#a-peer-does-not-answer",
	Find: func(f *Facts) []Finding {
		var broken, silent []Finding
		s := f.Daemon.Status
		if s == nil {
			return nil
		}
		for _, p := range s.Peers {
			if p.Probe == nil {
				continue
			}
			ends, command := status.Remedy(s, p, f.port())
			found := Finding{
				Problem: fmt.Sprintf("%s at %s (%s): %s", p.Subnet, p.Via, p.Name, p.Probe.Why),
				Command: cmp.Or(command, "flanneld status "+p.Subnet),
			}
			if ends != "" {
				found.Problem += "; " + ends
			}
			switch p.Probe.Verdict {
			case backend.Broken:
				broken = append(broken, found)
			case backend.Silent:
				found.Note = true
				silent = append(silent, found)
			}
		}
		return slices.Concat(shorten(broken), silent)
	},
}

// port returns the UDP port of the backend, 0 if it has none.
func (f *Facts) port() int {
	for _, l := range f.overlays() {
		if port := status.PortOf(l, f.Daemon.Status); port != 0 {
			return port
		}
	}
	return 0
}
