package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// intro is the documentation ahead of the checks.
const intro = "# flanneld doctor\n" + `
` + "`flanneld doctor`" + ` examines this host and its daemon, and reports what prevents pods from
reaching each other. It changes nothing.

` + "```sh" + `
kubectl -n kube-flannel exec ds/kube-flannel-ds -- /opt/bin/flanneld doctor   # in the pod of a node
flanneld doctor                                                               # on the host, as root
flanneld doctor -o json
flanneld doctor --preflight --config net-conf.json                             # before an installation
` + "```" + `

` + "```" + `
1. routes: packets for 10.244.3.0/24 (node-c) take a route of others: 10.244.3.0/24 via 192.0.2.1 dev eth0 proto static
   Packets for pods of that node take another path and are lost. ...
   Run: ip route del 10.244.3.0/24 via 192.0.2.1 dev eth0 proto static
   See: flanneld doctor -explain routes

node-a: 1 finding in 15 checks
` + "```" + `

| flag | |
|---|---|
| ` + "`-o`" + ` | ` + "`text`" + ` or ` + "`json`" + ` |
| ` + "`-preflight`" + ` | check whether flanneld can be installed on this host, instead of examining one that runs; needs ` + "`-config`" + ` |
| ` + "`-config`" + ` | the network configuration that is to be used, the file that becomes ` + "`net-conf.json`" + ` or etcd's ` + "`config`" + ` |
| ` + "`-v`" + ` | also show what may be harmless, such as packet filter rules with conditions that doctor does not understand |
| ` + "`-explain`" + ` | print the section of this page about a check, and examine nothing: ` + "`-explain routes`" + ` |
| ` + "`-bundle`" + ` | write what an issue report needs to this tar.gz file, which must not exist yet: the report; devices, addresses, routes, rules and neighbors; the daemon's pages, command line, configuration file and the last 1000 lines of its log, which can usually be read only on the host, not in the pod. It contains names and addresses of nodes, but no keys, tokens or passwords |
| ` + "`-daemon`" + ` | address of the daemon's health port, such as ` + "`127.0.0.1:8081`" + `, to ask instead of the socket beside ` + "`subnet.env`" + ` |
| ` + "`-cni-conf-dir`" + ` | the runtime's folder of network configurations, ` + "`/etc/cni/net.d`" + ` by default; our manifest and chart mount it read-only |
| ` + "`-subnet-file`" + ` | the daemon's ` + "`--subnet-file`" + ` |

| exit code | |
|---|---|
| 0 | nothing was found |
| 1 | there are findings |
| 2 | nothing was found, but not everything could be read; or the command line is wrong |

What cannot be read is reported, and the other checks still run. The JSON has a
` + "`version`" + `, which changes if a field is removed or its meaning changes.

## Checks
`

// before is the documentation ahead of the checks of a preflight.
const before = "\n## Before an installation\n" + `
` + "`flanneld doctor --preflight --config FILE`" + ` examines a host on which flanneld is to be
installed, or replaced. It changes nothing, but it tries to open the backend's UDP port, and
the kernel may load the modules that are queried. In addition to the checks below it runs
[cni-conf](#cni-conf) and [filter](#filter). A drop in the chain FORWARD of iptables is a
note, because the daemon adds a rule there that accepts the packets of pods; with legacy
iptables, only if the program iptables-legacy is installed.
`

// Document returns the page of the documentation.
func Document(checks, preflight []Check) string {
	var b strings.Builder
	b.WriteString(intro)
	for _, c := range checks {
		c.write(&b)
	}
	b.WriteString(before)
	for _, c := range preflight {
		if !slices.ContainsFunc(checks, func(o Check) bool { return o.Name == c.Name }) {
			c.write(&b)
		}
	}
	return b.String()
}

func (c Check) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n### %s\n\n%s\n\n%s\n\nMore: [%s](%s)\n", c.Name, c.About, c.Means, title(c.More), c.More)
}

// title is the name of a page: masquerading.md#firewalls is masquerading.
func title(link string) string {
	name, _, _ := strings.Cut(link, ".md")
	return name
}
