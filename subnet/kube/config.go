package kube

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/loop"
	"flannel/subnet"
)

// configEvery is how often the file of the network configuration is read.
const configEvery = time.Minute

func (m *Manager) readConfig() error {
	raw, err := os.ReadFile(m.o.NetConfigPath)
	if err != nil {
		return fmt.Errorf("--net-config-path: %w", err)
	}
	c, err := subnet.ParseConfig(raw, false)
	if err == nil && m.o.Check != nil {
		err = m.o.Check(c)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", m.o.NetConfigPath, err)
	}
	m.config, m.configRaw = c, raw
	return nil
}

// followConfig logs that the file has changed.
func (m *Manager) followConfig(ctx context.Context) error {
	for last := m.configRaw; ; {
		if err := loop.Wait(ctx, configEvery); err != nil {
			return err
		}
		raw, err := os.ReadFile(m.o.NetConfigPath)
		if err != nil || bytes.Equal(raw, last) {
			continue
		}
		last = raw
		if !bytes.Equal(raw, m.configRaw) {
			m.log.Warn("network configuration changed; it is used after a restart", "path", m.o.NetConfigPath)
		}
	}
}

// Config implements subnet.Manager: it returns what New has read. In dual stack
// it waits for the pod CIDRs of our Node and leaves out a family without one.
func (m *Manager) Config(ctx context.Context) (*subnet.Config, error) {
	used := *m.config
	if m.config.Enabled() == (ipfam.Pair[bool]{true, true}) {
		n, err := m.awaitOwn(ctx, func(n *Node) (err error) {
			used.Network, err = servedNetwork(n, m.config.Network)
			return err
		})
		if err != nil {
			return nil, err
		}
		missing := missingFamily(n.Name, used.Network)
		if m.conditions.Set(condFamily, missing) {
			m.notify(missing)
		}
	}
	m.used.set(&used)
	return &used, nil
}

// FamiliesChanged blocks until our Node has pod CIDRs in other families than
// those that Config has returned. An error means that ctx has ended.
func (m *Manager) FamiliesChanged(ctx context.Context) error {
	used, err := m.used.await(ctx, func(*subnet.Config) bool { return true })
	if err != nil {
		return err
	}
	_, err = m.own.await(ctx, func(n *Node) bool {
		if n == nil {
			return false
		}
		network, err := servedNetwork(n, m.config.Network)
		return err == nil && network != used.Network
	})
	return err
}

// network returns the networks in the families that are on.
func (m *Manager) network() ipfam.Pair[netip.Prefix] {
	if used, known, _ := m.used.get(); known {
		return used.Network
	}
	return m.config.Network
}

func (m *Manager) families() ipfam.Pair[bool] { return ipfam.Enabled(m.network()) }

// Overrides implements subnet.Manager: it returns the addresses that replace the
// flags. It waits for our Node.
func (m *Manager) Overrides(ctx context.Context) (ipfam.Pair[netip.Addr], error) {
	n, err := m.awaitNode(ctx)
	if err != nil {
		return ipfam.Pair[netip.Addr]{}, err
	}
	addrs := m.overrides(n)
	m.overridden.Store(&addrs)
	return addrs, nil
}

// OverridesChanged blocks until Overrides would return something else than it has
// returned. An error means that ctx has ended.
func (m *Manager) OverridesChanged(ctx context.Context) error {
	_, err := m.own.await(ctx, func(n *Node) bool {
		last := m.overridden.Load()
		return n != nil && last != nil && m.overrides(n) != *last
	})
	return err
}

func (m *Manager) overrides(n *Node) ipfam.Pair[netip.Addr] {
	addrs, err := m.keys.addresses(m.keys.nodePublicIP, n.Annotations)
	m.mistakes.Fail("public address of the node", err)
	return addrs
}
