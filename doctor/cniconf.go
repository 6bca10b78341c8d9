package doctor

import (
	"fmt"
	"slices"
	"strings"

	"flannel/internal/install"
	"flannel/internal/printable"
)

var cniConf = Check{
	Name:  "cni-conf",
	About: "The network configuration of flannel is the first in `/etc/cni/net.d`: the runtime takes the first file in alphabetical order. Multus may be ahead of it.",
	Means: "New pods get their network from another plugin, and addresses that other nodes do not know.",
	More:  "cni.md",
	Find: func(f *Facts) []Finding {
		if f.Wanted == nil && !slices.Contains(f.CNIConfs, install.ConfName) {
			return nil // this may be a host without Kubernetes
		}
		// Multus takes the first place on purpose, and asks the next one.
		first := slices.DeleteFunc(slices.Clone(f.CNIConfs), func(name string) bool {
			return name >= install.ConfName || strings.Contains(name, "multus")
		})
		if len(first) == 0 {
			return nil
		}
		file := f.CNIConfDir + "/" + first[0]
		return []Finding{{
			Problem: fmt.Sprintf("%s is ahead of %s in %s", strings.Join(first, ", "), install.ConfName, f.CNIConfDir),
			Command: fmt.Sprintf("mv %s %s", printable.Word(file), printable.Word(file+".disabled")),
		}}
	},
}
