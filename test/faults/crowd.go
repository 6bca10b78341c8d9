package main

import (
	"context"
	"fmt"
	"net/netip"

	"flannel/internal/ipfam"
)

// crowd is how many peers come and go in a burst.
const (
	crowd     = 2000
	crowdName = "2000 peers come and go"
)

// crowdSubnets are those of a peer: hosts of the lab have none like them.
func crowdSubnets(n int) ipfam.Pair[netip.Prefix] {
	return ipfam.Pair[netip.Prefix]{
		netip.MustParsePrefix(fmt.Sprintf("10.244.%d.%d/30", 205+n/64, n%64*4)),
		netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%x::/64", 0x1000+n)),
	}
}

func peerAttrs(n int) attrs {
	return attrs{
		public: ipfam.Pair[string]{fmt.Sprintf("172.31.1.%d", 100+n%100), fmt.Sprintf("fd00:31:0:1::%d", 1000+n)},
		mac:    both(fmt.Sprintf("02:00:00:01:%02x:%02x", n>>8, n&0xff)),
	}
}

func usedCrowd(s scene) (out []use, _ error) {
	for n := range crowd {
		out = append(out, use{key: s.key(crowdNode(n), crowdSubnets(n)), except: nobody})
	}
	return out, nil
}

func crowdNode(n int) string { return fmt.Sprintf("peer%d", n) }

// crowdOfNodes makes or deletes the Nodes of the peers.
func crowdOfNodes(there bool) act {
	return func(ctx context.Context, s scene) error {
		api := s.lab.Kubernetes.API
		return parallel(crowd, func(n int) error {
			name, subnets := crowdNode(n), crowdSubnets(n)
			if !there {
				return api.DeleteNode(ctx, name)
			}
			return api.CreateAnnotatedNode(ctx, name, peerAttrs(n).annotations(s.backend), subnets[ipfam.V4].String(), subnets[ipfam.V6].String())
		})
	}
}
