package doctor

import (
	"fmt"
	"slices"
	"strings"

	"flannel/internal/install"
)

var cniConf = Check{
	Name:  "cni-conf",
	About: "flannel's network configuration is the first in `/etc/cni/net.d`. The runtime uses the first file in alphabetical order.",
	Means: "New pods get their network from another plugin, and addresses that other nodes do not know.",
	More:  "cni.md",
	Find: func(f *Facts) []Finding {
		at := slices.Index(f.CNIConfs, install.ConfName)
		if at <= 0 {
			return nil // without the file this may be a host without Kubernetes
		}
		first := f.CNIConfs[:at]
		return []Finding{{
			Problem: fmt.Sprintf("%s is ahead of %s in %s", strings.Join(first, ", "), install.ConfName, f.CNIConfDir),
			Command: fmt.Sprintf("mv %s/%s{,.disabled}", f.CNIConfDir, first[0]),
		}}
	},
}
