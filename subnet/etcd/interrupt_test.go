package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flannel/internal/ipfam"
	"flannel/internal/statedir"
	"flannel/internal/testkit/etcdtest"
	"flannel/subnet"
)

// fault is what happens to one request of a manager.
type fault struct {
	// at is the number of the request. With lost it arrives and its answer does
	// not; with crash the daemon ends there.
	at          int
	lost, crash bool

	count int
	died  context.CancelFunc
}

// fail makes a request, or does not.
func (f *fault) fail(request func() error) error {
	f.count++
	if f.count != f.at {
		return request()
	}
	if f.lost {
		if err := request(); err != nil {
			return err
		}
	}
	if f.crash {
		f.died()
	}
	return status.Error(codes.Unavailable, "interrupted")
}

type faultyKV struct {
	clientv3.KV
	f *fault
}

func (kv faultyKV) Get(ctx context.Context, key string, o ...clientv3.OpOption) (resp *clientv3.GetResponse, err error) {
	err = kv.f.fail(func() (err error) {
		resp, err = kv.KV.Get(ctx, key, o...)
		return err
	})
	return resp, err
}

func (kv faultyKV) Txn(ctx context.Context) clientv3.Txn { return &faultyTxn{kv.KV.Txn(ctx), kv.f} }

type faultyTxn struct {
	clientv3.Txn
	f *fault
}

func (t *faultyTxn) If(c ...clientv3.Cmp) clientv3.Txn  { t.Txn = t.Txn.If(c...); return t }
func (t *faultyTxn) Then(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Then(o...); return t }
func (t *faultyTxn) Else(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(o...); return t }

func (t *faultyTxn) Commit() (resp *clientv3.TxnResponse, err error) {
	err = t.f.fail(func() (err error) {
		resp, err = t.Txn.Commit()
		return err
	})
	return resp, err
}

type faultyLease struct {
	clientv3.Lease
	f *fault
}

func (l faultyLease) Grant(ctx context.Context, ttl int64) (resp *clientv3.LeaseGrantResponse, err error) {
	err = l.f.fail(func() (err error) {
		resp, err = l.Lease.Grant(ctx, ttl)
		return err
	})
	return resp, err
}

// TestInterruptionsAnywhere has every single request of a node's life lose its
// answer, or be the last one of the daemon, which starts again. In that life the
// address changes, and the record is deleted and garbled.
func TestInterruptionsAnywhere(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	for _, kind := range []string{"vxlan, dual", "host-gw"} {
		none := &fault{}
		newLife(t, newHarness(t, server, ownPrefix()), kinds[kind], none).run(t)
		for at := range none.count {
			for _, f := range []fault{{lost: true}, {crash: true}, {lost: true, crash: true}} {
				f.at = at + 1
				t.Run(fmt.Sprintf("%s/request %d, lost %t, crash %t", kind, f.at, f.lost, f.crash), func(t *testing.T) {
					t.Parallel()
					newLife(t, newHarness(t, server, ownPrefix()), kinds[kind], &f).run(t)
				})
			}
		}
	}
}

// life is a node, its restarts included.
type life struct {
	h           *harness
	m           *Manager
	f           *fault
	ctx         context.Context
	folder      string
	book        *logBook
	here, there subnet.Attrs
	subnet      ipfam.Pair[netip.Prefix]
}

func newLife(t *testing.T, h *harness, attrs func(int) subnet.Attrs, f *fault) *life {
	l := &life{h: h, f: f, folder: t.TempDir(), book: &logBook{}, here: attrs(1), there: attrs(2)}
	l.there.Data = l.here.Data
	h.SetConfig(t, configOf(l.here))
	return l
}

func (l *life) start(t *testing.T) {
	t.Helper()
	o := l.h.options()
	o.State, o.Log = statedir.Open(slog.New(slog.DiscardHandler), l.folder, "", "node"), l.book.logger()
	l.m = newManager(t, o)
	l.m.kv, l.m.leases = faultyKV{l.m.kv, l.f}, faultyLease{l.m.leases, l.f}
	l.ctx, l.f.died = context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(l.f.died)
}

// acquire asks for the subnet that subnet.env has, again after a crash.
func (l *life) acquire(t *testing.T, a subnet.Attrs) {
	t.Helper()
	own, err := l.m.Acquire(l.ctx, a, l.subnet)
	if l.ctx.Err() != nil && l.f.crash {
		l.start(t)
		own, err = l.m.Acquire(l.ctx, a, l.subnet)
	}
	if err != nil || l.subnet[ipfam.V4].IsValid() && own.Subnet != l.subnet {
		t.Errorf("Acquire = %v, %v; want %v", own.Subnet, err, l.subnet)
	}
	l.subnet = own.Subnet
}

func (l *life) run(t *testing.T) {
	l.start(t)
	l.acquire(t, l.here)
	l.acquire(t, l.there)
	l.h.Delete(t, l.subnet)
	l.acquire(t, l.there)
	l.h.Put(t, subnet.Lease{Subnet: l.subnet, Invalid: "odd on purpose"}, false)
	l.acquire(t, l.there)
	l.acquire(t, l.here)
	leases, err := l.m.List(t.Context())
	if err != nil || len(leases) != 1 || leases[0].Subnet != l.subnet || leases[0].Attrs != l.here {
		t.Errorf("the store holds %v, %v", leases, err)
	}
	if _, id := l.h.stored(t, l.subnet); id == clientv3.NoLease {
		t.Error("the record has become a reservation")
	}
	if n := l.book.count("again and again") + l.book.count("two "); n != 0 {
		t.Errorf("%d disputes:\n%s", n, l.book)
	}
}
