package doctor

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"flannel/backend"
	"flannel/backend/vxlan"
	"flannel/kernel"
	"flannel/kernel/trace"
	"flannel/network"
)

// crowd are the facts of a node with this many peers, all of them reached.
func crowd(n int) *Facts {
	s := &network.Status{Network: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	f := &Facts{Backends: backend.Table{vxlan.Type}, Links: []kernel.Link{{Index: 1, Name: "flannel.1", Kind: kernel.KindVXLAN}, {Index: 2, Name: "eth0"}}}
	for i := range n {
		subnet := fmt.Sprintf("10.%d.%d.0/24", i/250, i%250)
		s.Peers = append(s.Peers, network.Peer{Name: fmt.Sprint("node", i), Subnet: subnet, How: "tunnel"})
		f.Lookups = append(f.Lookups, Lookup{
			Dst:   netip.MustParsePrefix(subnet).Addr().Next(),
			Route: trace.Route{Dst: netip.MustParsePrefix(subnet), Dev: "flannel.1", Protocol: kernel.RouteProtocol, Table: unix.RT_TABLE_MAIN},
		})
	}
	f.Daemon.Status = s
	return f
}

func TestRoutesToManyPeers(t *testing.T) {
	f := crowd(5000)
	began := time.Now()
	if found := routes.Find(f); len(found) != 0 {
		t.Errorf("got %v", found)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %s", took)
	}
	f.Lookups[4999].Route.Dev = "eth0"
	found := routes.Find(f)
	if len(found) != 1 || !strings.HasPrefix(found[0].Problem, "packets for 10.19.249.0/24 (node4999) take a route of others") {
		t.Errorf("got %v", found)
	}
}
