package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"

	"flannel/internal/ipfam"
)

// hostileNode is a Node that no daemon has annotated: its pod CIDRs, what differs
// from the annotations of a good one, and whether hosts use it nevertheless.
type hostileNode struct {
	cidrs   []string
	changes map[string]any
	used    bool
	use     use
}

// hostileNodes are always the same for the same hosts, in the same order.
func (s scene) hostileNodes() (out []hostileNode, err error) {
	own, peer, err := s.subnetsOfBoth()
	if err != nil {
		return nil, err
	}
	free := func() ipfam.Pair[netip.Prefix] { return hostileSubnets(len(out)) }
	for _, key := range []string{"public-ip", "backend-data", "backend-type", "public-ipv6", "backend-v6-data"} {
		for _, value := range corrupt {
			out = append(out, hostileNode{
				cidrs: []string{free()[ipfam.V4].String()}, changes: map[string]any{annotation + key: value},
				used: s.mayBe(key, value), use: use{except: nobody},
			})
		}
	}
	for _, cidrs := range [][]string{
		{own[ipfam.V4].String()}, {peer[ipfam.V4].String()}, {own[ipfam.V4].Addr().String() + "/25"},
		{own[ipfam.V4].String(), own[ipfam.V6].String()},
		{"10.244.0.0/16"}, {"172.31.0.0/16"}, {"0.0.0.0/0"}, {"10.244.249.0/24", "::/0"}, {"fd00:31::/64"}, {"127.0.0.0/8"},
	} {
		out = append(out, hostileNode{cidrs: cidrs})
	}
	data, err := s.hostileData()
	if err != nil {
		return nil, err
	}
	// Of a Node whose data of one family are wrong the other one is used.
	for f, list := range data.Each() {
		for _, text := range list {
			n := hostileNode{
				cidrs:   []string{free()[ipfam.V4].String(), free()[ipfam.V6].String()},
				changes: map[string]any{annotation + dataKeys[f]: text}, used: true, use: use{except: nobody},
			}
			n.use.without[f] = true
			out = append(out, n)
		}
	}
	// Nobody can tell that these are wrong, but for the host whose address it is.
	for _, host := range []int{s.drawn.victim, s.drawn.peer} {
		out = append(out, hostileNode{
			cidrs: []string{free()[ipfam.V4].String()}, used: true, use: use{except: host},
			changes: map[string]any{annotation + "public-ip": s.lab.Hosts[host].Addr(ipfam.V4).String()},
		})
	}
	return out, nil
}

// mayBe reports whether a Node without IPv6 may have such an annotation.
func (s scene) mayBe(key string, value any) bool {
	switch key {
	case "public-ipv6":
		return value == ""
	case "backend-type":
		return s.backend == udp && value == "" // as flannel's udp writes it
	case "backend-v6-data":
		return value == "" || value == "null"
	case "backend-data":
		return s.backend != vxlan && (value == "" || value == "null")
	}
	return false
}

func hostileName(n int) string { return fmt.Sprintf("hostile%d", n) }

func makeHostileNodes(ctx context.Context, s scene) error {
	nodes, err := s.hostileNodes()
	if err != nil {
		return err
	}
	for n, node := range nodes {
		annotations := hostileAttrs(n).annotations(s.backend)
		maps.Copy(annotations, node.changes)
		if err := s.lab.Kubernetes.API.CreateAnnotatedNode(ctx, hostileName(n), annotations, node.cidrs...); err != nil {
			return err
		}
	}
	return nil
}

func deleteHostileNodes(ctx context.Context, s scene) error {
	nodes, err := s.hostileNodes()
	if err != nil {
		return err
	}
	return parallel(len(nodes), func(n int) error { return s.lab.Kubernetes.API.DeleteNode(ctx, hostileName(n)) })
}

func usedHostileNodes(s scene) (out []use, err error) {
	nodes, err := s.hostileNodes()
	for i, n := range nodes {
		if n.used {
			n.use.key = hostileName(i)
			out = append(out, n.use)
		}
	}
	return out, err
}
