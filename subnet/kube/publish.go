package kube

import (
	"context"
	"fmt"
	"net/netip"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// Acquire implements subnet.Manager. The cluster chooses the subnets; those of
// an earlier run do not matter.
func (m *Manager) Acquire(ctx context.Context, a subnet.Attrs, _ ipfam.Pair[netip.Prefix]) (subnet.Lease, error) {
	m.asked.Store(&a)
	var l subnet.Lease
	err := m.repeat(ctx, condPublish, func() error {
		var have ipfam.Pair[netip.Prefix]
		n, err := m.own.await(ctx, func(n *Node) (ok bool) {
			have, ok = m.usableSubnets(ctx, n)
			return ok
		})
		if err != nil {
			return err
		}
		l = subnet.Lease{Name: n.Name, Subnet: have, Attrs: m.overwrite(n, a), Precedence: precedence(n)}
		return m.publish(ctx, n, l.Attrs)
	})
	return l, err
}

// overwrite replaces public addresses by those that an operator has set on the
// Node.
func (m *Manager) overwrite(n *Node, a subnet.Attrs) subnet.Attrs {
	addrs, err := m.keys.addresses(m.keys.overwrite, n.Annotations)
	m.mistakes.Fail("overwritten public address", err)
	for f, addr := range ipfam.Addrs(addrs) {
		if a.PublicIP[f].IsValid() {
			a.PublicIP[f] = addr
		}
	}
	return a
}

// publish writes a to a Node, unless it is there.
func (m *Manager) publish(ctx context.Context, n *Node, a subnet.Attrs) error {
	want := m.keys.encode(a)
	if matches(n.Annotations, want) {
		return nil
	}
	var patch nodePatch
	patch.Metadata.Annotations = m.keys.patch(n.Annotations, want)
	err := m.try(ctx, condPublish, rule{"patch", "nodes/status"}, func(ctx context.Context) error {
		result, err := m.client.patchStatus(ctx, n, patch)
		if err == nil {
			m.observe(result)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("annotations of Node %q not written: %w; see: kubectl get node %s -o yaml", n.Name, plain(err), n.Name)
	}
	return nil
}
