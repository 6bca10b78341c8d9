package udp

import (
	"net"
	"net/netip"
	"testing"

	"flannel/backend/backendtest"
	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
)

// A peer's public address may lie inside Network, where it is routed to our own
// device: what is sent there comes back once and goes nowhere.
func TestAPeerInsideTheNetworkMakesNoLoop(t *testing.T) {
	const each = 20
	far := node(9)
	for f, network := range ipfam.Prefixes(backendtest.Env(true, true).Network) {
		last := network.Addr().AsSlice()
		last[len(last)-2], last[len(last)-1] = 200, 9
		far.Attrs.PublicIP[f], _ = netip.AddrFromSlice(last)
	}
	e := newEnds(t)[0]
	b := e.moveTo(t, all, far)
	for f, s := range ipfam.Prefixes(far.Subnet) {
		before := b.counters.noLease.Load()
		var out net.Conn
		var err error
		e.Do(func() { out, err = net.Dial("udp", netip.AddrPortFrom(s.Addr().Next(), 9).String()) })
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		for range each {
			_, _ = out.Write([]byte("x")) // a report of an earlier one is an error, too
		}
		eventually.True(t, "the packets that came back in "+f.String(), func() bool { return b.counters.noLease.Load() > before })
	}
	if got := e.Link("flannel0").Attrs().Statistics.TxPackets; got > 2*2*each+20 {
		t.Errorf("%d packets went to the device: a loop", got)
	}
}
