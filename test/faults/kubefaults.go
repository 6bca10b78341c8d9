package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"flannel/internal/ipfam"
)

// kubernetesFaults happen to the API server and the Nodes.
func kubernetesFaults() []fault {
	table := []fault{
		{name: "API server stopped", wait: waitOutage(forMinutes), longest: 5 * time.Second, inject: serverStop, undo: serverStart},
		{name: "API server cut off", wait: waitOutage(forMinutes), longest: 10 * time.Second,
			inject: onServer("nft 'table inet cut { chain in { type filter hook input priority -400; iifname eth0 tcp dport 6443 drop; }; }'"), undo: onServer("nft delete table inet cut")},
		{name: "API server refuses connections", wait: waitOutage(forMinutes), longest: 5 * time.Second,
			inject: onServer("nft 'table inet cut { chain in { type filter hook input priority -400; iifname eth0 tcp dport 6443 reject with tcp reset; }; }'"), undo: onServer("nft delete table inet cut")},
		{name: "store of the API server restored from an older snapshot", wait: waitOutage(forMinutes), cuts: again,
			inject: all(serverStop, etcdRestore, serverStart)},
		{name: "Node deleted and created again", longest: 3 * time.Second, cutsAll: true, cuts: repair, inject: deleteNode, undo: makeNode},
		{name: "pod CIDR changed", shortest: 2 * time.Second, longest: 5 * time.Second, cutsAll: true, cuts: again,
			inject: all(deleteNode, makeOtherNode), undo: all(deleteNode, makeNode)},
		{name: "annotations wiped", wait: waitAnnotations(),
			inject: annotate(func(s scene, _ int) map[string]any { return each(s.ownAnnotations(), nil) })},
		{name: "annotations corrupted", wait: waitAnnotations(), cutsAll: true, cuts: again,
			inject: annotate(func(s scene, _ int) map[string]any {
				return each(s.ownAnnotations(), corrupt[s.drawn.number%len(corrupt)])
			})},
		{name: "annotations changed again and again", wait: waitAnnotations(), cutsAll: true, cuts: again,
			inject: repeatedly(5, 200*time.Millisecond, func(s scene, n int) map[string]any { return peerAttrs(n).annotations(s.backend) })},
		{name: "hostile Nodes", wait: waitGuard(), shortest: time.Second, longest: 2 * time.Second, inject: makeHostileNodes, undo: deleteHostileNodes, uses: usedHostileNodes},
		{name: crowdName, wait: waitGuard(), longest: 5 * time.Second, inject: crowdOfNodes(true), undo: crowdOfNodes(false), uses: usedCrowd},
	}
	for i := range table {
		table[i].store = kubernetes
	}
	return table
}

// corrupt are what somebody writes into every annotation; together they may have
// 256 KiB.
var corrupt = []any{"", "not JSON", "{", "127.0.0.1", "::", "null", strings.Repeat("x", 40_000)}

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
