package doctor

import (
	"cmp"
	"fmt"
	"strings"

	"flannel/backend"
	"flannel/network"
)

var peerRecords = Check{
	Name:  "peers",
	About: "The daemon uses the records of all peers: no two nodes publish the same public address, MAC or subnet, and no record is rejected for another reason.",
	Means: "Packets for one of the nodes go to the other, or nowhere. Usually two machines are copies of each other, one has the wrong `--public-ip`, a record is left over, or a route of another program is in the way.",
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
			case how == backend.LeftOut:
				out = append(out, Finding{Problem: describe(s, p, p.How+": "+p.Why), Command: remedy(p.Why, p.Subnet)})
			case how == backend.Unreachable:
				out = append(out, Finding{Problem: describe(s, p, p.How+": "+p.Why), Command: cmp.Or(inBackticks(p.Why), remedy(p.Why, p.Subnet))})
			case strings.HasSuffix(p.Note, " too"):
				out = append(out, Finding{Problem: describe(s, p, p.Note), Command: remedy(p.Note, p.Subnet)})
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

// inBackticks returns the command that the daemon's text ends with. That of a peer that
// is left out may quote the peer's record: whatever is there is no command.
func inBackticks(why string) string {
	parts := strings.Split(why, "`")
	if len(parts) < 3 {
		return ""
	}
	return parts[len(parts)-2]
}

// remedy is what helps if two nodes have the same, or a route of others is in the way.
func remedy(why, subnet string) string {
	first, _, _ := strings.Cut(subnet, "/")
	const stale = "delete the record of the node that is gone"
	switch {
	case strings.Contains(why, "taken by a network of this host"):
		return "ip route get " + first + " shows the device; give it addresses outside of the overlay network, or remove it if it is left over"
	case strings.Contains(why, "VtepMAC"):
		return "ip link del DEVICE on the machine that is the copy (its flannel device, which gets another MAC); or " + stale
	case strings.Contains(why, "subnet") && strings.Contains(why, "overlaps"):
		return "delete the record of the node that has the wrong subnet; its daemon gets another one"
	case strings.Contains(why, "public address"):
		return "flanneld status -o wide, then correct --public-ip or " + stale
	}
	return "flanneld status -o wide"
}
