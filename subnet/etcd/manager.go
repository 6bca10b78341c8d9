// Package etcd keeps leases in etcd, in the same keys and values as flannel.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"path"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/semaphore"

	"flannel/internal/health"
	"flannel/internal/ipfam"
	"flannel/internal/logonce"
	"flannel/internal/loop"
	"flannel/internal/secret"
	"flannel/internal/statedir"
	"flannel/subnet"
)

// Options define which etcd is used, and how.
type Options struct {
	// Endpoints are URLs. The scheme of the first one decides for all whether
	// TLS is used.
	Endpoints []string
	// Prefix is the folder of all keys; a slash at its end does not matter.
	Prefix string
	// Files for TLS, in PEM. They are read again for every connection. A CA
	// alone is enough; without one the system's is used.
	KeyFile, CertFile, CAFile string
	// Username and Password are used when Username is not empty.
	Username string
	Password secret.String
	// RenewMargin is how long before its end a lease is renewed.
	RenewMargin time.Duration
	// CheckEvery is how often Keep reads our key, to notice an etcd that was
	// wiped or restored; a minute if zero.
	CheckEvery time.Duration
	Log        *slog.Logger
	// State keeps what this node has published, to know it again after a
	// restart. It may be nil.
	State *statedir.Dir
	// Check rejects a network configuration, beyond what subnet.ParseConfig
	// rejects. It may be nil.
	Check func(*subnet.Config) error
	// Waiting is called with what is missing while Config waits, and with nil
	// when it is there. It must not block. It may be nil.
	Waiting func(why error)
	// Reachable is called with an error when the store becomes unreachable and
	// with nil when it is reachable again. It must not block. It may be nil.
	Reachable func(err error)
	// Conflict is called with an error when somebody else changes this node's
	// record again and again, and with nil when that has ended. It must not
	// block. It may be nil.
	Conflict func(err error)
	// Watching is told what Watch does; it may be nil.
	Watching *health.Loop
}

// leaseTTL is how long a lease outlives its node.
const leaseTTL = 24 * time.Hour

// checkEvery is the default of Options.CheckEvery.
const checkEvery = time.Minute

// Manager is a subnet.Manager for one node. Its methods may be called at the
// same time.
type Manager struct {
	o      Options
	log    *slog.Logger
	client *clientv3.Client
	kv     clientv3.KV
	leases clientv3.Lease
	token  *token // nil without a user
	state  *reachability
	saving *logonce.Failures
	rnd    *rand.Rand
	ttl    time.Duration
	// deferral is letOthers, but for tests.
	deferral time.Duration
	// beforeCreate and afterCreate are called around the transaction that
	// creates a lease; tests play another node in them.
	beforeCreate, afterCreate func(ipfam.Pair[netip.Prefix])

	// version is the last revision of the store that was seen, and relist
	// asks Watch to begin from a fresh list. recheck asks Keep to check again.
	version         version
	relist, recheck loop.Signal
	// epoch counts how often the store was found to be another one.
	epoch       atomic.Uint64
	connections connections
	// recent is a list that the next user need not read again.
	recent atomic.Pointer[snapshot]

	// writing is held while our record is changed, from the request until own
	// is set. It guards the fields up to mu.
	writing    *semaphore.Weighted
	contention loop.Contention
	// checkedRecord is the record that was compared with all others, in
	// checkedEpoch, and did not have to give way; see noteChecked.
	checkedRecord subnet.Precedence
	checkedEpoch  uint64

	// mu guards the fields below.
	mu     sync.Mutex
	own    *record
	past   published
	config *subnet.Config
	// configRaw is the text of config, configSeen the text that was last read.
	configRaw, configSeen []byte
}

var _ subnet.Manager = (*Manager)(nil)

// New returns a manager. It does not wait for the store. The caller closes it.
func New(o Options) (*Manager, error) {
	if len(o.Endpoints) == 0 {
		return nil, errors.New("etcd: no endpoints")
	}
	if o.RenewMargin <= 0 || o.RenewMargin >= leaseTTL {
		return nil, fmt.Errorf("etcd: renew margin %s: more than 0 and less than %s is allowed", o.RenewMargin, leaseTTL)
	}
	if o.CheckEvery == 0 {
		o.CheckEvery = checkEvery
	}
	for _, f := range []*func(error){&o.Waiting, &o.Reachable, &o.Conflict} {
		if *f == nil {
			*f = func(error) {}
		}
	}
	m := &Manager{
		o:            o,
		log:          o.Log,
		state:        newReachability(o.Log, o.Reachable),
		saving:       logonce.NewFailures(o.Log, slog.LevelWarn),
		rnd:          rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
		ttl:          leaseTTL,
		deferral:     letOthers,
		beforeCreate: func(ipfam.Pair[netip.Prefix]) {},
		afterCreate:  func(ipfam.Pair[netip.Prefix]) {},
		relist:       loop.NewSignal(),
		recheck:      loop.NewSignal(),
		writing:      semaphore.NewWeighted(1),
	}
	m.recall()
	if err := m.dial(); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	return m, nil
}

// parse reads a network configuration and rejects what cannot work.
func (o Options) parse(raw []byte) (*subnet.Config, error) {
	c, err := subnet.ParseConfig(raw, true)
	if err == nil && o.Check != nil {
		err = o.Check(c)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Close ends the connections. No method may be running or be called after.
func (m *Manager) Close() error {
	if err := m.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close etcd client: %w", err)
	}
	return nil
}

func (m *Manager) configKey() string { return path.Join(m.o.Prefix, "config") }

// subnetsKey is the folder of the leases, with the slash at its end.
func (m *Manager) subnetsKey() string { return path.Join(m.o.Prefix, "subnets") + "/" }

func (m *Manager) leaseKey(name string) string { return m.subnetsKey() + name }

// Overrides implements subnet.Manager: etcd has no place for them.
func (m *Manager) Overrides(context.Context) (ipfam.Pair[netip.Addr], error) {
	return ipfam.Pair[netip.Addr]{}, nil
}
