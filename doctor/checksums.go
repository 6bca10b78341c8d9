package doctor

import (
	"fmt"
)

// Checksums counts the TCP segments that this host itself got with a wrong checksum,
// since the start, when the facts were begun and at their end.
type Checksums struct{ Before, After uint64 }

var checksums = Check{
	Name:  "checksums",
	About: "No TCP segments with wrong checksums arrive. A finding is only a note, because the kernel counts neither by device nor the segments that pods receive.",
	Means: "If pings of a peer's pods are answered and connections to them hang, the NIC or its driver on that node may compute wrong checksums for packets in a tunnel. " +
		"The command only lasts until the device is created again; to make it permanent, set `ChecksumOffload: false` in the backend.",
	More: "backends.md",
	Find: func(f *Facts) []Finding {
		grown := int64(f.Checksums.After - f.Checksums.Before)
		if grown <= 0 || len(f.overlays()) == 0 {
			return nil
		}
		return []Finding{{
			Problem: fmt.Sprintf("%d TCP segments with wrong checksums have come in while this ran, %d since this host was started", grown, f.Checksums.After),
			Command: fmt.Sprintf("ethtool -K %s tx-checksum-ip-generic off, on the node whose pods are not reached", f.overlays()[0].Name), Note: true,
		}}
	},
}
