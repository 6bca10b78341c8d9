package etcd

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/internal/logonce"
	"flannel/subnet"
)

// exampleConfig is shown to a person who has to create one.
const exampleConfig = `{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}`

// Config implements subnet.Manager.
func (m *Manager) Config(ctx context.Context) (*subnet.Config, error) {
	raw, err := do(ctx, m, m.readConfig)
	if err != nil {
		return nil, err
	}
	if c, err := m.usable(raw); err == nil {
		return m.useConfig(raw, c), nil
	}
	return m.awaitConfig(ctx)
}

// awaitConfig reads the configuration after each change until it can be used,
// and logs once per cause why it waits.
func (m *Manager) awaitConfig(ctx context.Context) (*subnet.Config, error) {
	changed, stop := m.watchKey(ctx, m.configKey())
	defer stop()
	var logged logonce.Last[string]
	for {
		raw, err := do(ctx, m, m.readConfig)
		if err != nil {
			return nil, err
		}
		c, why := m.usable(raw)
		if why == nil {
			return m.useConfig(raw, c), nil
		}
		if logged.Changed(why.Error()) {
			m.logWaiting(raw, why)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		}
	}
}

func (m *Manager) logWaiting(raw []byte, why error) {
	if raw != nil {
		m.o.Waiting(why)
		m.log.Error("network configuration cannot be used, waiting for another", "key", m.configKey(), "err", why)
		return
	}
	m.o.Waiting(fmt.Errorf("%w; create it: %s", why, m.putCommand()))
	m.log.Warn("no network configuration, waiting for it", "key", m.configKey(), "create", m.putCommand())
}

// putCommand is the command that creates a configuration.
func (m *Manager) putCommand() string {
	return fmt.Sprintf("etcdctl --endpoints=%s put %s '%s'", strings.Join(m.o.Endpoints, ","), m.configKey(), exampleConfig)
}

// readConfig returns the text of the configuration, nil if there is none.
func (m *Manager) readConfig(ctx context.Context) ([]byte, error) {
	_, answers, err := m.read(ctx, clientv3.OpGet(m.configKey()))
	if err != nil {
		return nil, err
	}
	return value(answers[0].Kvs), nil
}

func value(kvs []*mvccpb.KeyValue) []byte {
	if len(kvs) == 0 {
		return nil
	}
	return append([]byte{}, kvs[0].Value...) // not nil, even if empty
}

func (m *Manager) usable(raw []byte) (*subnet.Config, error) {
	if raw == nil {
		return nil, fmt.Errorf("%s does not exist", m.configKey())
	}
	return m.o.parse(raw)
}

func (m *Manager) useConfig(raw []byte, c *subnet.Config) *subnet.Config {
	m.o.Waiting(nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.config, m.configRaw, m.configSeen = c, raw, raw
	return c
}

// currentConfig returns the configuration in use, and waits for one when
// Config has not been called.
func (m *Manager) currentConfig(ctx context.Context) (*subnet.Config, error) {
	m.mu.Lock()
	c := m.config
	m.mu.Unlock()
	if c != nil {
		return c, nil
	}
	return m.Config(ctx)
}

// compareConfig logs, once per change, that the configuration in use is not the
// stored one.
func (m *Manager) compareConfig(kvs []*mvccpb.KeyValue) {
	raw := value(kvs)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.configRaw == nil || raw == nil || bytes.Equal(raw, m.configSeen) {
		return
	}
	m.configSeen = raw
	if bytes.Equal(raw, m.configRaw) {
		m.log.Info("network configuration is the one in use again", "key", m.configKey())
		return
	}
	m.log.Warn("network configuration changed, takes effect at restart", "key", m.configKey())
}
