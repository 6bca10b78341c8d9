package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"flannel/internal/ipfam"
)

const holdFight = "annotations changed again and again are written ever more rarely, after a minute at most"

// kubernetesFaults happen to the API server and the Nodes.
func kubernetesFaults() []fault {
	table := []fault{
		{name: "API server stopped", deadline: away, hold: holdAway, longest: 5 * time.Second, inject: serverStop, undo: serverStart},
		{name: "API server cut off", deadline: away, hold: holdAway, longest: 10 * time.Second,
			inject: onServer("nft 'table inet cut { chain in { type filter hook input priority -400; iifname eth0 tcp dport 6443 drop; }; }'"), undo: onServer("nft delete table inet cut")},
		{name: "API server refuses connections", deadline: away, hold: holdAway, longest: 5 * time.Second,
			inject: onServer("nft 'table inet cut { chain in { type filter hook input priority -400; iifname eth0 tcp dport 6443 reject with tcp reset; }; }'"), undo: onServer("nft delete table inet cut")},
		{name: "store of the API server restored from an older snapshot", deadline: away, hold: holdAway, cuts: deadline,
			inject: all(serverStop, etcdRestore, serverStart)},
		{name: "Node deleted and made again", longest: 3 * time.Second, cutsAll: true, cuts: repair, inject: deleteNode, undo: makeNode},
		{name: "pod CIDR changed", shortest: 2 * time.Second, longest: 5 * time.Second, cutsAll: true, cuts: deadline,
			inject: all(deleteNode, makeOtherNode), undo: all(deleteNode, makeNode)},
		{name: "annotations wiped", deadline: 70 * time.Second, hold: holdFight,
			inject: annotate(func(s scene, _ int) map[string]any { return each(s.ownAnnotations(), nil) })},
		{name: "annotations corrupted", deadline: 70 * time.Second, hold: holdFight, cutsAll: true, cuts: 70 * time.Second,
			inject: annotate(func(s scene, _ int) map[string]any {
				return each(s.ownAnnotations(), corrupt[s.drawn.number%len(corrupt)])
			})},
		{name: "annotations fought over", deadline: 70 * time.Second, hold: holdFight, cutsAll: true, cuts: 70 * time.Second,
			inject: repeatedly(5, 200*time.Millisecond, func(s scene, n int) map[string]any { return peerAttrs(n).annotations(s.backend) })},
		{name: "hostile Nodes", longest: 2 * time.Second, inject: hostileNodes, undo: deleteHostileNodes},
		{name: "200 peers come and go", deadline: 70 * time.Second, hold: holdGuard, longest: 5 * time.Second, inject: manyNodes(true), undo: manyNodes(false)},
	}
	for i := range table {
		table[i].store = kubernetes
	}
	return table
}

// corrupt are what somebody writes into every annotation.
var corrupt = []any{"", "not JSON", "{", "127.0.0.1", "::", "null", strings.Repeat("x", 50_000)}

func serverStop(_ context.Context, s scene) error { return s.lab.Kubernetes.Stop() }

func serverStart(ctx context.Context, s scene) error { return s.lab.Kubernetes.Start(ctx) }

func onServer(line string) act {
	return func(ctx context.Context, s scene) error {
		_, err := s.lab.Kubernetes.Node.Exec(ctx, "sh", "-c", line)
		return err
	}
}

func deleteNode(ctx context.Context, s scene) error {
	return s.lab.Kubernetes.API.DeleteNode(ctx, s.host.Name)
}

// makeNode makes the Node with the subnets that the pods have addresses of.
func makeNode(ctx context.Context, s scene) error {
	subnets, err := s.subnetsAtStart(s.drawn.victim)
	if err != nil {
		return err
	}
	return s.lab.Kubernetes.API.CreateNode(ctx, s.host.Name, subnets[ipfam.V4].String(), subnets[ipfam.V6].String())
}

func makeOtherNode(ctx context.Context, s scene) error {
	return s.lab.Kubernetes.API.CreateNode(ctx, s.host.Name, fmt.Sprintf("10.244.%d.0/24", 240+s.drawn.victim), fmt.Sprintf("fd00:10:244:ee0%d::/64", s.drawn.victim))
}

// ownAnnotations are the keys that a daemon writes, with values.
func (s scene) ownAnnotations() map[string]any { return peerAttrs(0).annotations(s.backend) }

// each gives all keys of m the same value.
func each(m map[string]any, value any) map[string]any {
	for key := range m {
		m[key] = value
	}
	return m
}

func annotate(what func(scene, int) map[string]any) act { return repeatedly(1, 0, what) }

func repeatedly(times int, every time.Duration, what func(scene, int) map[string]any) act {
	return func(ctx context.Context, s scene) error {
		for n := range times {
			if err := s.lab.Kubernetes.API.Annotate(ctx, s.host.Name, what(s, n)); err != nil {
				return err
			}
			if err := pause(ctx, every); err != nil {
				return err
			}
		}
		return nil
	}
}

// hostileNode is a Node that no daemon has annotated: its pod CIDRs, and what
// differs from the annotations of a good one.
type hostileNode struct {
	cidrs   []string
	changes map[string]any
}

func (s scene) hostileNodes() (out []hostileNode, err error) {
	own, err := s.subnetsAtStart(s.drawn.victim)
	if err != nil {
		return nil, err
	}
	peer, err := s.subnetsAtStart(s.drawn.peer)
	for i, value := range corrupt {
		for j, key := range []string{"public-ip", "backend-data", "backend-type", "public-ipv6"} {
			out = append(out, hostileNode{[]string{fmt.Sprintf("10.244.%d.0/24", 200+4*i+j)}, map[string]any{annotation + key: value}})
		}
	}
	mine := map[string]any{annotation + "public-ip": s.host.Addr(ipfam.V4).String(), annotation + "public-ipv6": s.host.Addr(ipfam.V6).String()}
	return append(out,
		hostileNode{[]string{"10.244.230.0/24"}, mine},
		hostileNode{[]string{own[ipfam.V4].String()}, nil},
		hostileNode{[]string{own[ipfam.V4].String(), own[ipfam.V6].String()}, mine},
		hostileNode{[]string{peer[ipfam.V4].String()}, nil},
		hostileNode{[]string{own[ipfam.V4].Addr().String() + "/25"}, nil},
		hostileNode{[]string{"10.244.0.0/16"}, nil},
		hostileNode{[]string{"172.31.0.0/16"}, nil},
		hostileNode{[]string{"0.0.0.0/0"}, nil},
		hostileNode{[]string{"10.244.231.0/24", "::/0"}, nil},
		hostileNode{[]string{"fd00:31::/64"}, nil},
		hostileNode{[]string{"127.0.0.0/8"}, nil},
	), err
}

func hostileName(n int) string { return fmt.Sprintf("hostile%d", n) }

func hostileNodes(ctx context.Context, s scene) error {
	nodes, err := s.hostileNodes()
	if err != nil {
		return err
	}
	return parallel(len(nodes), func(n int) error {
		api := s.lab.Kubernetes.API
		if err := api.CreateNode(ctx, hostileName(n), nodes[n].cidrs...); err != nil {
			return err
		}
		annotations := peerAttrs(n).annotations(s.backend)
		maps.Copy(annotations, nodes[n].changes)
		return api.Annotate(ctx, hostileName(n), annotations)
	})
}

func deleteHostileNodes(ctx context.Context, s scene) error {
	nodes, err := s.hostileNodes()
	return errors.Join(err, parallel(len(nodes), func(n int) error { return s.lab.Kubernetes.API.DeleteNode(ctx, hostileName(n)) }))
}

// manyNodes makes or deletes 200 peers.
func manyNodes(there bool) act {
	return func(ctx context.Context, s scene) error {
		return parallel(200, func(n int) error {
			api, name := s.lab.Kubernetes.API, fmt.Sprintf("peer%d", n)
			if !there {
				return api.DeleteNode(ctx, name)
			}
			if err := api.CreateNode(ctx, name, fmt.Sprintf("10.244.%d.0/24", 20+n), fmt.Sprintf("fd00:10:244:%x::/64", 0x1000+n)); err != nil {
				return err
			}
			return api.Annotate(ctx, name, peerAttrs(n).annotations(s.backend))
		})
	}
}
