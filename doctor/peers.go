package doctor

import (
	"fmt"
	"strings"

	"flannel/backend"
	"flannel/network"
)

var peerRecords = Check{
	Name:  "peers",
	About: "The daemon uses the records of all peers: no two nodes publish the same public address, MAC or subnet, and no record is rejected for another reason.",
	Means: "Packets for one of the nodes go to the other, or nowhere. Usually two machines are copies of each other, one has the wrong `--public-ip`, or a record is left over.",
	More:  "troubleshooting.md#a-peer",
	Find: func(f *Facts) []Finding {
		var out []Finding
		s := f.Daemon.Status
		if s == nil {
			return nil
		}
		for _, p := range s.Peers {
			how := backend.How(p.How)
			switch {
			case how == backend.LeftOut || how == backend.Unreachable:
				out = append(out, Finding{Problem: describe(s, p, p.How+": "+p.Why), Command: remedy(p.Why)})
			case strings.HasSuffix(p.Note, " too"):
				out = append(out, Finding{Problem: describe(s, p, p.Note), Command: remedy(p.Note)})
			}
		}
		return shorten(out)
	},
}

// describe names the peer, and this node where the daemon does not.
func describe(s *network.Status, p network.Peer, why string) string {
	if own := s.Lease.Name; own != "" {
		why = strings.ReplaceAll(why, "this node's", fmt.Sprintf("this node's (%s)", own))
	}
	if p.Subnet == "" {
		return fmt.Sprintf("%s: %s", p.Name, why)
	}
	return fmt.Sprintf("%s (%s): %s", p.Subnet, p.Name, why)
}

// remedy is what helps if two nodes have the same.
func remedy(why string) string {
	const stale = "delete the record of the node that is gone"
	switch {
	case strings.Contains(why, "VtepMAC"):
		return "ip link del DEVICE on the machine that is the copy (its flannel device, which gets another MAC); or " + stale
	case strings.Contains(why, "subnet") && strings.Contains(why, "overlaps"):
		return "delete the record of the node that has the wrong subnet; its daemon gets another one"
	case strings.Contains(why, "public address"):
		return "flanneld status -o wide, then correct --public-ip or " + stale
	}
	return "flanneld status -o wide"
}
