package network

import (
	"net/netip"
	"strings"
	"testing"

	"flannel/backend"
	"flannel/backend/hostgw"
	"flannel/internal/ipfam"
)

const unsuitable = "public ipv4 address 203.0.113.9 is not the address 192.0.2.1 of eth0"

func newHostGWNode(t *testing.T) *testNode {
	n := newNode(t)
	n.store.SetConfig(`{"Network": "10.5.0.0/16", "Backend": {"Type": "host-gw"}}`)
	n.Backends = backend.Table{hostgw.Type}
	return n
}

func (n *testNode) setPublic(a string) {
	n.uplink.move(func() { n.uplink.host.Uplink.Public[ipfam.V4] = netip.MustParseAddr(a) })
}

func TestAnUplinkThatDoesNotSuitEndsTheStart(t *testing.T) {
	n := newHostGWNode(t)
	n.setPublic("203.0.113.9")
	if err := n.Run(t.Context()); err == nil || !strings.Contains(err.Error(), unsuitable) {
		t.Errorf("got %v, want %s", err, unsuitable)
	}
}

func TestAnUplinkThatDoesNotSuitAnyMoreIsReported(t *testing.T) {
	n := newHostGWNode(t)
	n.start()
	n.setPublic("203.0.113.9")
	n.await("the error", func() bool { return strings.Contains(n.last(), unsuitable) })
	n.setPublic("192.0.2.1")
	n.await("no error", func() bool { return !strings.Contains(n.last(), unsuitable) })
}
