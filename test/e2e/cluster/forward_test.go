package cluster

import (
	"fmt"
	"net/netip"
	"testing"

	"flannel/internal/ipfam"
	"flannel/lab"
)

// liftsDrops runs on nodes that drop what is forwarded, as Docker's do, and leaves
// that so. The image has no iptables.
func liftsDrops(t *testing.T, c *cluster) {
	for _, h := range c.Hosts {
		lab.Must(t, h.Sysctl("net/bridge/bridge-nf-call-iptables", "1"))
	}
	c.onEvery(t, contains(""), "sh", "-c", "iptables -P FORWARD DROP && iptables -F FORWARD")
	lifted := func() {
		t.Helper()
		c.onEvery(t, contains(`-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD`), "iptables", "-S", "FORWARD")
		c.connected(t)
		neighborsTalk(t, c)
	}
	lifted()
	// Fresh: nothing has lifted the drop before.
	c.kubectl(t, "delete", "--filename="+manifest)
	c.onEvery(t, contains(""), "sh", "-c", "nft delete table ip flannel-ipv4; iptables -D FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD; iptables -F FLANNEL-FWD; iptables -X FLANNEL-FWD")
	c.renewed(t, func() { c.kubectl(t, "apply", "--filename="+manifest) })
	lifted()
	// From flannel: its rules are of iptables.
	c.undisturbed(t, func() {
		c.kubectl(t, "delete", "--filename="+manifest)
		c.onEvery(t, contains(""), "sh", "-c", flannelsRules)
		c.renewed(t, func() { c.kubectl(t, "apply", "--filename="+manifest) })
	})
	c.onEvery(t, lacks("FLANNEL-POSTRTG"), "iptables-save")
	lifted()
}

// liftsLegacyDrops runs on nodes whose other rules are of iptables-nft, and that
// drop what is forwarded in legacy tables. The image has iptables.
func liftsLegacyDrops(t *testing.T, c *cluster) {
	c.onEvery(t, contains(""), "iptables-legacy", "-P", "FORWARD", "DROP")
	lifted := contains(`-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD`)
	c.onEvery(t, lifted, "iptables-legacy", "-S", "FORWARD")
	c.undisturbed(t, func() {
		c.renewed(t, func() { c.deleteDaemons(t) })
	})
	c.onEvery(t, contains(""), "iptables-legacy", "-F", "FORWARD")
	c.onEvery(t, lifted, "iptables-legacy", "-S", "FORWARD")
	c.connected(t)
	neighborsTalk(t, c)
	// Where nothing is dropped they are removed.
	c.onEvery(t, contains(""), "iptables-legacy", "-P", "FORWARD", "ACCEPT")
	c.onEvery(t, lacks("FLANNEL-FWD"), "iptables-legacy", "-S")
}

// flannelsRules writes those of flannel, but for those that are there, in place of
// those of nftables.
const flannelsRules = `. /run/flannel/subnet.env
for rule in "-s $FLANNEL_NETWORK ! -d 224.0.0.0/4 -j MASQUERADE" "! -s $FLANNEL_NETWORK -d $FLANNEL_NETWORK -j MASQUERADE" \
	"-s $FLANNEL_NETWORK -d $FLANNEL_NETWORK -j RETURN"; do
	iptables -t nat -N FLANNEL-POSTRTG 2>/dev/null || :
	iptables -t nat -I FLANNEL-POSTRTG $rule -m comment --comment "flanneld masq" || exit
done
iptables -t nat -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG && nft delete table ip flannel-ipv4`

// neighborsTalk lets two pods of one node reach each other.
func neighborsTalk(t *testing.T, c *cluster) {
	t.Helper()
	c.kubectl(t, "apply", "--filename=testdata/neighbor.yml")
	h := c.Hosts[0]
	var addr netip.Addr
	soon(t, func() (string, bool) {
		pods, err := c.k.API.Pods(t.Context(), "default", "app=neighbor")
		ok := err == nil && len(pods) == 1 && pods[0].Ready()
		if ok {
			addr, err = netip.ParseAddr(pods[0].Status.PodIP)
		}
		return fmt.Sprint(pods, err), ok && err == nil
	})
	neighbor, err := h.FindPod(addr)
	lab.Must(t, err)
	defer neighbor.Close()
	for _, pod := range c.testpods(t) {
		if pod.Host == h {
			reaches(t, pod, addr)
			reaches(t, neighbor, pod.Addr(ipfam.V4))
		}
	}
	c.kubectl(t, "delete", "--filename=testdata/neighbor.yml")
}
