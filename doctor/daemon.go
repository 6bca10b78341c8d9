package doctor

import (
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
		if !f.Daemon.Runs && f.SubnetFile.Env != nil {
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

// commandIn returns the command that a message of the daemon ends with.
func commandIn(line string) string {
	for _, before := range []string{"; see: ", "with: "} {
		if _, command, ok := strings.Cut(line, before); ok {
			return command
		}
	}
	return status.Logs
}
