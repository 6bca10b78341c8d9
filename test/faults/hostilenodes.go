package main

import (
	"context"
	"fmt"
	"maps"

	"flannel/internal/ipfam"
)

// hostileNode is a Node that no daemon has annotated: its pod CIDRs, what differs
// from the annotations of a good one, and whether hosts use it nevertheless, all
// but the one with the number except.
type hostileNode struct {
	cidrs   []string
	changes map[string]any
	used    bool
	except  int
}

// hostileNodes are always the same for the same hosts, in the same order.
func (s scene) hostileNodes() (out []hostileNode, err error) {
	own, err := s.subnetsAtStart(s.drawn.victim)
	if err != nil {
		return nil, err
	}
	peer, err := s.subnetsAtStart(s.drawn.peer)
	if err != nil {
		return nil, err
	}
	for _, key := range []string{"public-ip", "backend-data", "backend-type", "public-ipv6"} {
		for _, value := range corrupt {
			out = append(out, hostileNode{
				cidrs: []string{fmt.Sprintf("10.244.%d.0/24", 200+len(out))}, changes: map[string]any{annotation + key: value},
				used: s.mayBe(key, value), except: nobody,
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
	// Nobody can tell that it is wrong, but for the host whose address it is.
	return append(out, hostileNode{
		cidrs: []string{"10.244.248.0/24"}, used: true, except: s.drawn.victim,
		changes: map[string]any{annotation + "public-ip": s.host.Addr(ipfam.V4).String()},
	}), nil
}

// mayBe reports whether a Node without IPv6 may have such an annotation.
func (s scene) mayBe(key string, value any) bool {
	switch key {
	case "public-ipv6":
		return value == ""
	case "backend-type":
		return s.backend == udp && value == "" // as flannel's udp writes it
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
			out = append(out, use{hostileName(i), n.except})
		}
	}
	return out, err
}
