package doctor

import (
	"fmt"
	"slices"
	"strings"

	"flannel/backend"
)

var overlay = Check{
	Name: "overlay",
	About: "Echo requests reach the peers through the overlay and are answered, small ones and those of the full size: the daemon probes 20 peers " +
		"at once, and all that it suspects. A peer that has never answered is a note: it may drop echo requests.",
	Means: "Pods of this node do not reach those of the peer, or with small packets only. If nothing else is found on either node, something on the way drops the packets of the backend.",
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
			found := Finding{Problem: fmt.Sprintf("%s at %s (%s): %s", p.Subnet, p.Via, p.Name, p.Probe.Why), Command: "flanneld status " + p.Name}
			switch p.Probe.Verdict {
			case backend.Broken:
				if _, remedy, ok := strings.Cut(p.Probe.Why, ": set "); ok {
					found.Command = "set " + remedy
				} else if port := f.port(); port != 0 {
					found.Command = fmt.Sprintf("tcpdump -ni any udp port %d and host %s, on both nodes", port, p.Via)
				}
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
		if port := backendPort(l); port != 0 {
			return port
		}
	}
	return 0
}
