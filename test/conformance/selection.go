package main

import (
	"regexp"
	"strings"

	"flannel/lab"
)

// minutesPerRun is what the first line promises.
const minutesPerRun = 6

// run is one cluster that the suite is run against.
type run struct {
	name     string
	families lab.Families
	// variant is a folder of Documentation/kustomization, base without one.
	variant string
}

func runs() []run {
	return []run{
		{"vxlan", lab.IPv4, "base"},
		{"host-gw", lab.IPv4, "host-gw"},
		{"udp", lab.IPv4, "udp"},
		{"dual stack", lab.Dual, "dual-stack"},
	}
}

func runNames() (names []string) {
	for _, r := range runs() {
		names = append(names, r.name)
	}
	return names
}

// focus selects which tests of the suite belong to a run.
func (r run) focus() string {
	tests := []string{`\[sig-network\].*\[Conformance\]`, `\[sig-network\] Networking `}
	if r.families == lab.Dual {
		tests = append(tests, `\[sig-network\] \[Feature:IPv6DualStack\]`)
	}
	return strings.Join(tests, "|")
}

// left are tests of the focus that do not run, and why.
var left = []struct{ pattern, reason string }{
	{`\[Feature:SCTPConnectivity\]`, "needs SCTP in the kernel, which not every machine has"},
	{`\[Feature:Networking-(IPv4|IPv6|DNS)\]`, "needs the Internet, which the lab does not have"},
	{`\[Feature:Networking-Performance\]`, "reads the reports of iperf 2.2.0 and later; Debian 12 has 2.1.8, and iperf is no Go module. performance.md measures throughput"},
	{`\[Disruptive\]`, "logs in to nodes by SSH, which nodes of the lab do not have"},
}

func skip() string {
	var patterns []string
	for _, l := range left {
		patterns = append(patterns, l.pattern)
	}
	return strings.Join(patterns, "|")
}

// reason is why a test of the focus does not run, and whether it may be left
// out at all: for a reason of ours, or one that the suite gives.
func reason(name, message string) (why string, allowed bool) {
	for _, l := range left {
		if regexp.MustCompile(l.pattern).MatchString(name) {
			return l.reason, true
		}
	}
	return strings.CutPrefix(message, "skipped - ")
}
