package doctor

import (
	"regexp"
	"strings"

	"flannel/status"
)

// checkedHere are the notes of the daemon whose causes other checks look at.
var checkedHere = []string{"settings: ", "forwarding: ", "overlay: "}

// peersLine is the note about peers that the check of their records names.
const peersLine = "left out or unreachable; /status names them"

var daemon = Check{
	Name:  "daemon",
	About: "The daemon is running and neither waits for anything nor reports a problem (`/readyz`).",
	Means: "The daemon reports in these words what prevents it from working, or what is unusual. While it is not running, this node does not learn of new peers.",
	More:  "monitoring.md#readiness",
	Find: func(f *Facts) []Finding {
		var out []Finding
		if f.Daemon.Absent && f.SubnetFile.Env != nil {
			out = append(out, Finding{Problem: "flanneld does not run", Command: start})
		}
		for _, line := range f.Daemon.Ready {
			if f.SubnetFile.Env != nil && !startsWithAny(line, checkedHere) && !(f.Daemon.Status != nil && strings.HasSuffix(line, peersLine)) {
				out = append(out, Finding{Problem: line, Command: commandIn(line)})
			}
		}
		return out
	},
}

func startsWithAny(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// objectName matches the name of a namespace, a Node or a pod.
const objectName = `[a-z0-9][-.a-z0-9]*`

// commands are those that messages of the daemon end with. None of them changes
// anything, but for the kernel module that is loaded.
var commands = regexp.MustCompile(`(?:; see|with): (` + strings.Join([]string{
	`kubectl(?: -n ` + objectName + `)? (?:get|describe) (?:node|pod)s?(?: ` + objectName + `)?(?: -o (?:wide|yaml|jsonpath='\{\.spec\.podCIDRs\}')| -l k8s-app=kube-proxy| --show-managed-fields)*`,
	`kubectl auth (?:whoami|can-i [a-z]+ [a-z/]+)`,
	`modprobe nf_tables`,
	`nft list table ip6? [a-z]+`,
}, "|") + `)(?:$|[ ;,])`)

// commandIn returns the command that a message of the daemon names. The message may quote
// others, such as the store: no more is taken for a command than the daemon writes.
func commandIn(line string) string {
	if found := commands.FindAllStringSubmatch(line, -1); len(found) > 0 {
		return found[len(found)-1][1]
	}
	return status.Logs
}
