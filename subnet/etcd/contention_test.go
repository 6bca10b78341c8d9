package etcd

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/internal/ipfam"
	"flannel/internal/loop"
	"flannel/internal/testkit/etcdtest"
	"flannel/internal/testkit/eventually"
	"flannel/subnet"
	"flannel/subnet/subnettest"
)

// contender is a node that keeps its lease and reports conflicts.
type contender struct {
	own       subnet.Lease
	conflicts chan error
	book      *logBook
	stop      func()
}

func newContender(t *testing.T, h *harness, a subnet.Attrs, first time.Duration) *contender {
	t.Helper()
	d := &contender{conflicts: make(chan error, 100), book: &logBook{}}
	o := h.options()
	o.Conflict, o.Log = func(err error) { d.conflicts <- err }, d.book.logger()
	m := newManager(t, o)
	m.contention, m.deferral = loop.Contention{First: first, Last: first}, 0
	own, err := m.Acquire(t.Context(), a, pair("10.5.10.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	d.own = own
	_, d.stop = subnettest.Background(t, subnettest.Keep(m, own))
	return d
}

// conflict waits for the next report.
func (d *contender) conflict(t *testing.T) error {
	t.Helper()
	select {
	case err := <-d.conflicts:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("no conflict reported")
		return nil
	}
}

func TestTwoNodesWithOneAddressDoNotWriteWithoutEnd(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{}), "/coreos.com/network")
	h.SetConfig(t, v4)
	one, other := subnettest.Attrs(v4, 1), subnettest.Attrs(v4, 2)
	other.PublicIP = one.PublicIP
	a := newContender(t, h, one, time.Hour)
	b := newContender(t, h, other, time.Hour)
	if a.own.Subnet != b.own.Subnet {
		t.Fatalf("the nodes have %v and %v", a.own.Subnet, b.own.Subnet)
	}
	// The one that wrote last has nothing to restore.
	var err error
	select {
	case err = <-a.conflicts:
	case err = <-b.conflicts:
	case <-time.After(30 * time.Second):
		t.Fatal("no conflict reported")
	}
	for _, want := range []string{"192.0.2.1", "02:00:00:00:00:01", "02:00:00:00:00:02", "--public-ip"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the conflict %q does not name %s", err, want)
		}
	}
	a.stop()
	b.stop()
	if n := h.version(t, a.own.Subnet); n > 2+2*3 {
		t.Errorf("the record was written %d times", n)
	}
	if a.book.count("level=ERROR")+b.book.count("level=ERROR") > 2 {
		t.Errorf("log:\n%s\n%s", a.book, b.book)
	}
}

// version counts the writes of a record since it was created.
func (h *harness) version(t *testing.T, subnets ipfam.Pair[netip.Prefix]) int64 {
	t.Helper()
	resp, err := h.client.Get(h.ctx(t), h.key(subnets), clientv3.WithKeysOnly())
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("Get = %v, %v", resp, err)
	}
	return resp.Kvs[0].Version
}

func TestContentionEnds(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{}), "/coreos.com/network")
	h.SetConfig(t, v4)
	d := newContender(t, h, subnettest.Attrs(v4, 1), 50*time.Millisecond)
	isOurs := func() bool {
		l, _, found := h.Get(t, d.own.Subnet)
		return found && l.Attrs == d.own.Attrs
	}
	theirs := d.own
	theirs.Attrs.Data = subnettest.Attrs(v4, 2).Data
	until := func(change func()) error {
		for {
			change()
			eventually.True(t, "the record is restored", isOurs)
			select {
			case err := <-d.conflicts:
				return err
			default:
			}
		}
	}
	if err := until(func() { h.Put(t, theirs, false) }); err == nil {
		t.Error("the end of a conflict that was not reported")
	}
	if err := d.conflict(t); err != nil {
		t.Errorf("conflict %v, want the end of it", err)
	}
	if err := until(func() { h.Delete(t, d.own.Subnet) }); !errors.Is(err, errDeleted) {
		t.Errorf("conflict %v, want %v", err, errDeleted)
	}
	if n := d.book.count("level=ERROR"); n != 2 {
		t.Errorf("log:\n%s", d.book)
	}
}
