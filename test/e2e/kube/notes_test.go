package kube

import (
	"strings"
	"testing"

	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

// shell runs a command on a host.
func shell(t *testing.T, h *lab.Host, command string) string {
	t.Helper()
	out, err := h.Exec(t.Context(), "sh", "-c", command)
	lab.Must(t, err)
	return out
}

// awaitEvent waits until the Node of a host has an Event with this reason whose
// message has the text.
func awaitEvent(t *testing.T, l *lab.Lab, h *lab.Host, reason, text string) {
	t.Helper()
	eventually.Says(t, func() (string, bool) {
		var list struct {
			Items []struct{ Reason, Message string }
		}
		lab.Must(t, l.Kubernetes.API.Get(t.Context(), "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name="+h.Name, &list))
		var said []string
		for _, e := range list.Items {
			said = append(said, e.Reason+": "+e.Message)
			if e.Reason == reason && strings.Contains(e.Message, text) {
				return "", true
			}
		}
		return strings.Join(said, "\n"), false
	})
}

// TestDropsThatNobodyCanLiftAreNotes begins with a host on which flannel has
// run: only its rules in a legacy table let packets pass.
func TestDropsThatNobodyCanLiftAreNotes(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 1, Network: `{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan"}}`})
	h := l.Hosts[0]
	const comment = " -m comment --comment 'flanneld forward' -j "
	for _, rule := range []string{
		"-P FORWARD DROP", "-N FLANNEL-FWD", "-A FORWARD" + comment + "FLANNEL-FWD",
		"-A FLANNEL-FWD -s 10.244.0.0/16" + comment + "ACCEPT", "-A FLANNEL-FWD -d 10.244.0.0/16" + comment + "ACCEPT",
	} {
		shell(t, h, "iptables-legacy "+rule)
	}
	before := shell(t, h, "iptables-legacy -S")
	// As in the image without iptables.
	d, err := h.StartDaemon(lab.DaemonOptions{Env: []string{"PATH=/nowhere"}})
	lab.Must(t, err)
	ready(t, h)
	said := func(what, text string) {
		t.Helper()
		says(t, h, "/readyz", "forwarding: "+what)
		says(t, h, "/status", what)
		awaitEvent(t, l, h, "PacketsDropped", text)
		ready(t, h)
	}
	const remedy = "let them pass with: iptables-legacy -I FORWARD -s 10.244.0.0/16 -j ACCEPT && iptables-legacy -I FORWARD -d 10.244.0.0/16 -j ACCEPT"
	said("chain FORWARD of iptables-legacy drops forwarded packets of 10.244.0.0/16, but for what an earlier run has left", remedy)
	if now := shell(t, h, "iptables-legacy -S"); now != before || strings.Contains(d.Log(), "remove the rules") {
		t.Errorf("rules\n%s\nlog\n%s", now, d.Log())
	}
	_, command, _ := strings.Cut(remedy, ": ")
	shell(t, h, command)
	shell(t, h, "nft add table ip mine") // legacy tables have no events
	says(t, h, "/readyz", "!forwarding")

	// A jump behind a drop stays where it is.
	shell(t, h, "iptables-nft -A FORWARD -i eth9 -j ACCEPT")
	eventually.Says(t, func() (string, bool) {
		now := shell(t, h, "iptables-nft -S FORWARD")
		return now, strings.HasSuffix(strings.TrimSpace(now), "-j FLANNEL-FWD")
	})
	shell(t, h, "iptables-nft -I FORWARD 2 -j REJECT")
	says(t, h, "/readyz", "forwarding: chain FORWARD of table ip filter drops forwarded packets of 10.244.0.0/16")
	if now := shell(t, h, "iptables-nft -S FORWARD | tail -n1"); !strings.HasSuffix(strings.TrimSpace(now), "-j FLANNEL-FWD") {
		t.Error(now)
	}
	shell(t, h, "iptables-nft -D FORWARD -j REJECT")
	says(t, h, "/readyz", "!forwarding")

	lab.Must(t, h.Sysctl("net/ipv4/ip_forward", "0"))
	awaitEvent(t, l, h, "HostSettings", "sysctl -w net.ipv4.ip_forward=1")
}
