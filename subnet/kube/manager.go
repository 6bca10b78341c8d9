// Package kube keeps leases in the Node objects of Kubernetes, in the same
// annotations as flannel.
package kube

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"flannel/internal/health"
	"flannel/internal/ipfam"
	"flannel/internal/logonce"
	"flannel/subnet"
)

// Options define which cluster is used, and how.
type Options struct {
	// Kubeconfig is a file and APIURL a URL. Without both, what every pod has
	// is used; a URL alone inside a pod is used with the pod's credentials.
	Kubeconfig, APIURL string
	// AnnotationPrefix is the beginning of the annotations' keys.
	AnnotationPrefix string
	// NetConfigPath is the file with the network configuration.
	NetConfigPath string
	// Getenv reads NODE_NAME, POD_NAME and POD_NAMESPACE; without them
	// Hostname in lower case is the name of the Node.
	Getenv   func(string) string
	Hostname string
	// Version is sent to the API server.
	Version string
	// SetNetworkUnavailable asks that the condition NetworkUnavailable of the
	// Node be false once NetworkReady was called.
	SetNetworkUnavailable bool
	Log                   *slog.Logger
	// Check rejects a network configuration, beyond what subnet.ParseConfig
	// rejects. It may be nil.
	Check func(*subnet.Config) error
	// Reachable is called with the cause when the API server becomes
	// unreachable and with nil when it is reachable again. Waiting is called
	// with all else that is waited for, nil if nothing is. They must not block
	// and may be nil.
	Reachable func(error)
	Waiting   func(error)
	// Conflict is called with an error when somebody else changes our
	// annotations again and again, and with nil when that has ended. It must
	// not block and may be nil.
	Conflict func(error)
	// AddLoop returns what a loop of this name is told of what it does; it may be nil,
	// and return nil.
	AddLoop func(name string) *health.Loop
	// Grace is how long a peer is kept whose annotations are gone; five
	// minutes when zero.
	Grace time.Duration
}

const defaultGrace = 5 * time.Minute

// Manager is a subnet.Manager for one node. Run must run while its other
// methods are used; they may be called at the same time.
type Manager struct {
	o          Options
	log        *slog.Logger
	keys       annotations
	client     *client
	access     access
	breaker    *apiBreaker
	conditions *conditions
	mistakes   *logonce.Failures // of operators, which nothing waits for
	config     *subnet.Config
	configRaw  []byte // the text of config

	// used is what Config has returned: config, in the families in which our
	// Node has pod CIDRs.
	used latest[*subnet.Config]
	// own is our Node, nil if there is none. Its name is known before.
	own  latest[*Node]
	name atomic.Pointer[string]
	// ready is closed by NetworkReady.
	ready     chan struct{}
	readyOnce sync.Once
	events    chan event
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
	if o.Grace == 0 {
		o.Grace = defaultGrace
	}
	if o.AddLoop == nil {
		o.AddLoop = func(string) *health.Loop { return nil }
	}
	for _, f := range []*func(error){&o.Waiting, &o.Reachable, &o.Conflict} {
		if *f == nil {
			*f = func(error) {}
		}
	}
	m := &Manager{
		o: o, log: o.Log, keys: keys, access: have,
		conditions: newConditions(o.Log, o.Waiting),
		mistakes: logonce.Words{
			Level: slog.LevelWarn, Begins: "annotation of our Node ignored", Key: "what", Ends: "annotation of our Node used again",
		}.NewFailures(o.Log),
		ready:  make(chan struct{}),
		events: make(chan event, maxEvents),
	}
	if m.client, err = newClient(o, keys.prefix, func(err error) { m.breaker.lost(err) }); err != nil {
		return nil, err
	}
	m.breaker = newAPIBreaker(m.client.probe, m.serverDown, m.serverUp)
	if err := m.readConfig(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Manager) serverDown(err error) {
	cause := m.client.server.explainUnanswered(err)
	if m.conditions.Set(condServer, cause) {
		m.o.Reachable(cause)
	}
}

func (m *Manager) serverUp() {
	m.notifyOutage(m.conditions.causes.Cause(condServer))
	m.conditions.Set(condServer, nil)
	m.o.Reachable(nil)
}

// Run finds our Node and follows it until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	defer m.client.close()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.followOwn(ctx) })
	group.Go(func() error { return m.postEvents(ctx) })
	group.Go(func() error { return m.followConfig(ctx) })
	if m.o.SetNetworkUnavailable {
		group.Go(func() error { return m.keepCondition(ctx) })
	}
	return group.Wait()
}

// Previous implements subnet.Manager: it returns what our Node publishes.
func (m *Manager) Previous(ctx context.Context, _ ipfam.Pair[netip.Addr], _ ipfam.Pair[netip.Prefix]) (subnet.Attrs, error) {
	n, err := m.awaitNode(ctx)
	if err != nil || n.Annotations[m.keys.managed] != "true" {
		return subnet.Attrs{}, err
	}
	a, err := m.keys.decode(n.Annotations, m.families())
	if err != nil {
		m.log.Warn("annotations of an earlier run ignored", "err", err)
		return subnet.Attrs{}, nil
	}
	return a, nil
}

// List implements subnet.Manager.
func (m *Manager) List(ctx context.Context) ([]*subnet.Lease, error) {
	families := m.families()
	leases := []*subnet.Lease{}
	err := m.try(ctx, condPeers, rule{"list", "nodes"}, func(ctx context.Context) error {
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
	slices.SortFunc(leases, byName)
	return leases, nil
}

func byName(a, b *subnet.Lease) int { return strings.Compare(a.Name, b.Name) }

// Reconnect implements subnet.Manager.
func (m *Manager) Reconnect() { m.client.close() }

// StoreAddrs implements subnet.Manager.
func (m *Manager) StoreAddrs() []netip.Addr {
	if a := m.client.remote.Load(); a != nil {
		return []netip.Addr{*a}
	}
	return nil
}

// ask makes a request and returns any answer. It waits out a server that does not
// answer.
func (m *Manager) ask(ctx context.Context, request func(context.Context) error) error {
	return m.breaker.do(klog.NewContext(ctx, quietLogger(m.log)), request)
}

// try makes a request until the server has accepted it or returned an error that
// the caller must handle. It waits out a server that does not answer, and one
// that does not allow the request.
func (m *Manager) try(ctx context.Context, condition string, need rule, request func(context.Context) error) error {
	var answer error
	if err := m.repeat(ctx, condition+", "+need.String(), func() error {
		if answer = m.ask(ctx, request); refused(answer) {
			return m.client.server.explainRefusal(answer, need)
		}
		return nil
	}); err != nil {
		return err
	}
	return answer
}

// repeat calls attempt until it succeeds, and reports why it does not under the
// condition, if an operator can correct it also as an Event. An error means that
// ctx has ended.
func (m *Manager) repeat(ctx context.Context, condition string, attempt func() error) error {
	for backoff := newBackoff(); ; {
		err := attempt()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if m.conditions.Set(condition, err) {
			m.notify(err)
		}
		if err == nil {
			return nil
		}
		if err := backoff.Wait(ctx); err != nil {
			return err
		}
	}
}
