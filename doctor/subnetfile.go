package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"flannel/status"
)

var subnetFile = Check{
	Name:  "subnet-file",
	About: "`subnet.env`, from which the CNI plugin and Docker learn the subnet of this node, exists and can be read.",
	Means: "Without it no pod gets an address. The daemon writes it as soon as it has a lease.",
	More:  "troubleshooting.md#this-host",
	Find: func(f *Facts) []Finding {
		switch {
		case f.SubnetFile.Env != nil:
			return nil
		case !errors.Is(f.SubnetFile.Err, fs.ErrNotExist):
			return []Finding{{Problem: f.SubnetFile.Err.Error(), Command: restart}}
		}
		found := Finding{Problem: f.SubnetFile.Path + " is missing", Command: status.Logs}
		switch {
		case len(f.Daemon.Ready) > 0:
			found.Problem = fmt.Sprintf("%s is missing: flanneld waits: %s", f.SubnetFile.Path, strings.Join(f.Daemon.Ready, "; "))
		case f.Daemon.Absent:
			found.Problem += ": flanneld does not run"
			found.Command = start
		}
		return []Finding{found}
	},
}

// Commands that help with the daemon itself, with its DaemonSet and its unit.
const (
	start   = "kubectl -n kube-flannel get pods -o wide; or: systemctl restart flanneld"
	restart = "kubectl -n kube-flannel rollout restart ds/kube-flannel-ds; or: systemctl restart flanneld"
)
