package doctor

import (
	"fmt"
	"strings"
)

var peerRecords = Check{
	Name:  "peers",
	About: "No two nodes publish the same public address.",
	Means: "Packets for both nodes go to one of them. Usually one machine is a copy of the other, a `--public-ip` is wrong, or a record is left over.",
	More:  "troubleshooting.md#a-peer",
	Find: func(f *Facts) []Finding {
		var out []Finding
		if f.Daemon.Status == nil {
			return nil
		}
		for _, p := range f.Daemon.Status.Peers {
			if strings.HasSuffix(p.Note, " too") {
				out = append(out, Finding{
					Problem: fmt.Sprintf("%s (%s): %s", p.Subnet, p.Name, p.Note),
					Command: "flanneld status -o wide, then correct --public-ip or delete the record of the node that is gone",
				})
			}
		}
		return shorten(out)
	},
}
