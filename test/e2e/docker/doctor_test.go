package docker

import (
	"strings"
	"testing"

	"flannel/internal/testkit/eventually"
	"flannel/lab"
	"flannel/lab/cgroup"
)

// doctorReports waits until doctor has these findings on a host; without any, until
// it finds nothing.
func doctorReports(t *testing.T, h *lab.Host, findings ...string) {
	t.Helper()
	eventually.Says(t, func() (string, bool) {
		out, code, err := h.Doctor(t.Context())
		lab.Must(t, err)
		for _, words := range findings {
			if !strings.Contains(out, words) {
				return "lacks " + words + "\n" + out, false
			}
		}
		return out, code == min(len(findings), 1)
	})
}

// TestDoctorNamesWhatDockerDoes has a Docker of each kind drop what is forwarded,
// which the daemons may not lift here, and then one that was started without this
// node's subnet.
func TestDoctorNamesWhatDockerDoes(t *testing.T) {
	p, err := built()
	lab.Must(t, err)
	lab.Must(t, cgroup.Sweep(t.Context()))
	groups := newGroups(t)
	l := lab.ForTest(t, lab.Options{Hosts: 2, Binaries: p.Binaries, Flags: []string{"--ip-masq", "--iptables-forward-rules=false"}})
	for i, docker := range []struct{ kind, chain string }{{"-nft", "chain FORWARD of table ip filter"}, {"-legacy", "chain FORWARD of iptables-legacy"}} {
		h := l.Hosts[i]
		startDaemon(t, h, nil)
		doctorReports(t, h)
		dropsByDefault(t, h)
		e := startDocker(t, h, groups, docker.kind)
		// Docker itself accepts what its containers send.
		doctorReports(t, h, "filter: "+docker.chain+" drops packets to pods that come in by flannel.1 (its policy is drop)", "Run: iptables"+docker.kind+" -I FORWARD -i flannel.1 ")
		e.exec("sh", "-ec", "iptables"+docker.kind+" -P FORWARD ACCEPT")
		doctorReports(t, h)
		e.stop()
		e.exec("sh", "-ec", "ip link del docker0; echo DOCKER_OPT_BIP=--bip=172.17.0.1/16 >/run/docker_opts.env")
		e.start()
		doctorReports(t, h, "bridge: docker0 has 172.17.0.1/16, outside of this node's subnet ", "Run: mk-docker-opts.sh ")
	}
}
