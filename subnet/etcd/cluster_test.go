package etcd

import (
	"net/netip"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/etcdtest"
	"flannel/internal/testkit/eventually"
	"flannel/subnet"
)

// runInCluster runs a node that knows all members of a cluster. The leader is
// the first of them.
func runInCluster(t *testing.T) (*harness, []*etcdtest.Server, *runningNode, <-chan error) {
	t.Helper()
	servers := etcdtest.StartCluster(t, 3)
	for i, s := range servers {
		if s.IsLeader() {
			servers[0], servers[i] = servers[i], servers[0]
			break
		}
	}
	h := newHarness(t, servers[1], "/coreos.com/network")
	h.SetConfig(t, v4)
	reached := make(chan error, 100)
	o := h.options()
	o.Reachable = func(err error) { reached <- err }
	o.Endpoints = nil
	for _, s := range servers {
		o.Endpoints = append(o.Endpoints, s.Endpoint())
	}
	r := runNode(t, o, 1)
	r.watch.AwaitSubnets(r.own.Subnet)
	return h, servers, r, reached
}

func TestAnotherLeaderIsElected(t *testing.T) {
	h, servers, r, _ := runInCluster(t)
	servers[0].Kill()
	eventually.True(t, "another leader", func() bool { return servers[1].IsLeader() || servers[2].IsLeader() })
	awaitAll(t, h, []*runningNode{r}, []ipfam.Pair[netip.Prefix]{r.own.Subnet})
	h.Delete(t, r.own.Subnet)
	eventually.True(t, "the lease is there again", func() bool {
		_, _, found := h.Get(t, r.own.Subnet)
		return found
	})
}

// A member that lost the others answers, but its answers are not up to date.
func TestAMemberWithoutLeaderIsNoStore(t *testing.T) {
	h, servers, r, reached := runInCluster(t)
	servers[0].Kill()
	servers[2].Kill()
	select {
	case err := <-reached:
		if err == nil {
			t.Fatal("the store is reported reachable again when it went away")
		}
	case <-time.After(time.Minute):
		t.Fatal("nobody notices that there is no leader")
	}
	r.watch.Await("this node's lease", func(leases []*subnet.Lease) bool { return len(leases) == 1 })
	servers[2].Start()
	awaitAll(t, h, []*runningNode{r}, []ipfam.Pair[netip.Prefix]{r.own.Subnet})
}
