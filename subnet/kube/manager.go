// Package kube keeps leases in the Node objects of Kubernetes, in the same
// annotations as flannel.
package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"flannel/internal/ipfam"
	"flannel/internal/logonce"
	"flannel/internal/wait"
	"flannel/subnet"
)

// Options say which cluster is used, and how.
type Options struct {
	// Kubeconfig is a file and APIURL a URL. Without both, what every pod has
	// is used; a URL alone inside a pod goes with the pod's credentials.
	Kubeconfig, APIURL string
	// AnnotationPrefix is how the annotations start.
	AnnotationPrefix string
	// NetConfigPath is the file with the network configuration.
	NetConfigPath string
	// Getenv reads NODE_NAME, POD_NAME and POD_NAMESPACE; without them
	// Hostname in lower case is the name of the Node.
	Getenv   func(string) string
	Hostname string
	// Version is told to the API server.
	Version string
	// SetNetworkUnavailable asks for the condition NetworkUnavailable of the
	// Node to be false once NetworkReady was called.
	SetNetworkUnavailable bool
	Log                   *slog.Logger
	// Check refuses a network configuration, beyond what subnet.ParseConfig
	// refuses. It may be nil.
	Check func(*subnet.Config) error
	// Reachable is called with the cause when the API server becomes
	// unreachable and with nil when it is reachable again. Waiting is called
	// with all else that is waited for, nil when nothing is. They must not
	// block and may be nil.
	Reachable func(error)
	Waiting   func(error)
	// Conflict is called with an error when somebody else changes this node's
	// annotations again and again, and with nil when that has ended. It must
	// not block and may be nil.
	Conflict func(error)
	// Grace is how long a peer is kept whose annotations are gone; five
	// minutes when zero.
	Grace time.Duration
}

const (
	defaultGrace = 5 * time.Minute
	// configEvery is how often the file of the network configuration is
	// looked at.
	configEvery = time.Minute
)

// Manager is a subnet.Manager for one node. Run must run while its other
// methods are used; they may be called at the same time.
type Manager struct {
	o      Options
	log    *slog.Logger
	keys   annotations
	client *client
	access access
	gate   *gate
	voice  *voice
	config *subnet.Config
	// configRaw is the text of config.
	configRaw []byte
	// used is what Config has returned: config, in the families that this
	// node's Node has pod CIDRs in.
	used latest[*subnet.Config]
	odd  *logonce.Failures // mistakes of operators that nothing waits for

	name latest[string]
	// own is this node's Node, nil while there is none.
	own latest[*Node]
	// ready is closed by NetworkReady.
	ready     chan struct{}
	readyOnce sync.Once
	events    chan event
	// outage is why the API server could not be reached the last time that
	// this was so for long.
	outage latest[error]
	// asked are the attributes of the last Acquire, before overwriting;
	// overridden is what Overrides has returned.
	asked      atomic.Pointer[subnet.Attrs]
	overridden atomic.Pointer[ipfam.Pair[netip.Addr]]
}

var _ subnet.Manager = (*Manager)(nil)

// New returns a manager and reads the network configuration. It does not wait
// for the API server. An error names the flag or the file and what is allowed.
func New(o Options) (*Manager, error) {
	keys, err := newAnnotations(o.AnnotationPrefix)
	if err != nil {
		return nil, fmt.Errorf("--kube-annotation-prefix: %w", err)
	}
	have, err := readAccess(o)
	if err != nil {
		return nil, err
	}
	c, err := newClient(o, keys.prefix)
	if err != nil {
		return nil, err
	}
	if o.Grace == 0 {
		o.Grace = defaultGrace
	}
	if o.Reachable == nil {
		o.Reachable = func(error) {}
	}
	if o.Conflict == nil {
		o.Conflict = func(error) {}
	}
	m := &Manager{
		o: o, log: o.Log, keys: keys, client: c, access: have,
		voice:  newVoice(o.Log, o.Waiting),
		odd:    logonce.NewFailures(o.Log, slog.LevelWarn),
		ready:  make(chan struct{}),
		events: make(chan event, 8),
	}
	m.gate = newGate(c.probe, m.serverGone, m.serverBack)
	c.lost = m.gate.lost
	if err := m.readConfig(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Manager) serverGone(err error) {
	cause := m.client.server.explainUnanswered(err)
	if m.voice.say(topicServer, cause) {
		m.o.Reachable(cause)
	}
}

func (m *Manager) serverBack() {
	if after, was := m.voice.cause(topicServer); after >= longOutage || errors.Is(was, errNoAnswer) {
		m.outage.update(func(error, bool) (error, bool) { return was, true })
	}
	m.voice.say(topicServer, nil)
	m.o.Reachable(nil)
}

// Run finds this node's Node and follows it until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	ctx = klog.NewContext(ctx, quietLogger(m.log))
	defer m.client.close()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.followOwn(ctx) })
	group.Go(func() error { return m.postEvents(ctx) })
	group.Go(func() error { return m.postOutages(ctx) })
	group.Go(func() error { return m.followConfig(ctx) })
	if m.o.SetNetworkUnavailable {
		group.Go(func() error { return m.keepCondition(ctx) })
	}
	return group.Wait()
}

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

// Config implements subnet.Manager: what New has read. In dual stack it waits
// for this node's pod CIDRs and leaves out a family that has none.
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
		if m.voice.say(topicFamily, missing) && missing != nil {
			m.tell(n, missing)
		}
	}
	m.used.update(func(*subnet.Config, bool) (*subnet.Config, bool) { return &used, true })
	return &used, nil
}

// FamiliesChanged blocks until the Node has pod CIDRs in other families than
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

// followConfig says when the file has changed.
func (m *Manager) followConfig(ctx context.Context) error {
	for said := m.configRaw; ; {
		if err := wait.For(ctx, configEvery); err != nil {
			return err
		}
		raw, err := os.ReadFile(m.o.NetConfigPath)
		if err == nil && !bytes.Equal(raw, said) {
			said = raw
			if !bytes.Equal(raw, m.configRaw) {
				m.log.Warn("network configuration changed; it is used after a restart", "path", m.o.NetConfigPath)
			}
		}
	}
}

func (m *Manager) network() ipfam.Pair[netip.Prefix] {
	if used, known, _ := m.used.get(); known {
		return used.Network
	}
	return m.config.Network
}

func (m *Manager) families() ipfam.Pair[bool] { return enabled(m.network()) }

// Overrides implements subnet.Manager: the addresses that replace the flags.
// It waits for this node's Node.
func (m *Manager) Overrides(ctx context.Context) (ipfam.Pair[netip.Addr], error) {
	n, err := m.awaitNode(ctx)
	if err != nil {
		return ipfam.Pair[netip.Addr]{}, err
	}
	addrs := m.overrides(n)
	m.overridden.Store(&addrs)
	return addrs, nil
}

func (m *Manager) overrides(n *Node) ipfam.Pair[netip.Addr] {
	addrs, problems := m.keys.addresses(m.keys.nodePublicIP, n.Annotations)
	m.sayOdd("public address of the node", problems)
	return addrs
}

func (m *Manager) sayOdd(what string, problems []string) {
	if len(problems) == 0 {
		m.odd.OK(what)
		return
	}
	m.odd.Fail(what, errors.New(strings.Join(problems, "; ")))
}

// OverridesChanged blocks until Overrides would say something else than it has
// said. An error means that ctx has ended.
func (m *Manager) OverridesChanged(ctx context.Context) error {
	_, err := m.own.await(ctx, func(n *Node) bool {
		told := m.overridden.Load()
		return n != nil && told != nil && m.overrides(n) != *told
	})
	return err
}

// Previous implements subnet.Manager: what the Node says at present.
func (m *Manager) Previous(ctx context.Context, _ ipfam.Pair[netip.Addr], _ ipfam.Pair[netip.Prefix]) (subnet.Attrs, error) {
	n, err := m.awaitNode(ctx)
	if err != nil || n.Annotations[m.keys.managed] != "true" {
		return subnet.Attrs{}, err
	}
	a, err := m.keys.decode(n.Annotations, m.families())
	if err != nil {
		m.log.Warn("annotations of an earlier run not understood", "err", err)
		return subnet.Attrs{}, nil
	}
	return a, nil
}

// List implements subnet.Manager.
func (m *Manager) List(ctx context.Context) ([]*subnet.Lease, error) {
	families := m.families()
	leases := []*subnet.Lease{}
	err := m.try(ctx, topicPeers, rule{"list", "nodes"}, func(ctx context.Context) error {
		leases = leases[:0]
		return m.client.listAll(ctx, func(n *Node) {
			if l, ok := decodeLease(n, &m.keys, families); ok {
				leases = append(leases, &l)
			}
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list Nodes: %w", err)
	}
	slices.SortFunc(leases, func(a, b *subnet.Lease) int { return strings.Compare(a.Name, b.Name) })
	return leases, nil
}

// Reconnect implements subnet.Manager.
func (m *Manager) Reconnect() { m.client.close() }

// try makes a request until the server has taken it or given an answer that
// the caller must deal with. It waits out a server that does not answer and
// one that does not allow it.
func (m *Manager) try(ctx context.Context, topic string, need rule, request func(context.Context) error) error {
	for retry := newRetry(); ; {
		err := m.gate.do(ctx, request)
		if !refused(err) {
			if ctx.Err() == nil {
				m.voice.say(topic+", "+need.String(), nil)
			}
			return err
		}
		cause := m.client.server.explainRefusal(err, need)
		if m.voice.say(topic+", "+need.String(), cause) {
			if n, known, _ := m.own.get(); known && n != nil {
				m.tell(n, cause)
			}
		}
		if err := retry.wait(ctx); err != nil {
			return err
		}
	}
}

// mergePatch is the JSON of a strategic merge patch of a Node.
type mergePatch struct {
	Metadata struct {
		// UID makes the server refuse the patch when the Node is another one.
		UID         string             `json:"uid,omitempty"`
		Annotations map[string]*string `json:"annotations,omitempty"`
	} `json:"metadata"`
	Status json.RawMessage `json:"status,omitempty"`
}
