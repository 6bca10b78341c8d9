package kube

import (
	"context"
	"fmt"
	"net/netip"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// Acquire implements subnet.Manager. The cluster chooses the subnets; an
// earlier run's do not matter.
func (m *Manager) Acquire(ctx context.Context, a subnet.Attrs, _ ipfam.Pair[netip.Prefix]) (subnet.Lease, error) {
	m.asked.Store(&a)
	for retry := newRetry(); ; {
		n, have, err := m.awaitUsable(ctx)
		if err != nil {
			return subnet.Lease{}, err
		}
		want := m.overwrite(n, a)
		err = m.publish(ctx, n, want)
		if err == nil {
			m.voice.say(topicPublish, nil)
			return subnet.Lease{Name: n.Name, Subnet: have, Attrs: want, Precedence: claim(n)}, nil
		}
		if ctx.Err() != nil {
			return subnet.Lease{}, ctx.Err()
		}
		m.sayPublish(n, err)
		if err := retry.wait(ctx); err != nil {
			return subnet.Lease{}, err
		}
	}
}

func (m *Manager) sayPublish(n *Node, err error) {
	m.voice.say(topicPublish, fmt.Errorf("annotations of Node %q not written: %w; see: kubectl get node %s -o yaml", n.Name, plain(err), n.Name))
}

// overwrite replaces public addresses by those that an operator has set on the
// Node.
func (m *Manager) overwrite(n *Node, a subnet.Attrs) subnet.Attrs {
	addrs, problems := m.keys.addresses(m.keys.overwrite, n.Annotations)
	m.sayOdd("overwritten public address", problems)
	for f, addr := range ipfam.Addrs(addrs) {
		if a.PublicIP[f].IsValid() {
			a.PublicIP[f] = addr
		}
	}
	return a
}

// publish makes a Node say a, if it does not.
func (m *Manager) publish(ctx context.Context, n *Node, a subnet.Attrs) error {
	want := m.keys.encode(a)
	if says(n.Annotations, want) {
		return nil
	}
	var patch mergePatch
	patch.Metadata.UID = string(n.UID)
	patch.Metadata.Annotations = m.keys.patch(n.Annotations, want)
	var result *Node
	err := m.try(ctx, topicPublish, rule{"patch", "nodes/status"}, func(ctx context.Context) (err error) {
		result, err = m.client.patchStatus(ctx, n.Name, patch)
		return err
	})
	if err != nil {
		return err
	}
	result.strip(m.keys.prefix)
	m.observe(result)
	return nil
}
