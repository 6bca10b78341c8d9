package etcd

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/etcdtest"
	"flannel/internal/testkit/eventually"
	"flannel/subnet"
	"flannel/subnet/subnettest"
)

const (
	v4   = subnettest.IPv4Config
	dual = subnettest.DualConfig
)

func acquire(t *testing.T, m *Manager, a subnet.Attrs) subnet.Lease {
	t.Helper()
	l, err := m.Acquire(t.Context(), a, ipfam.Pair[netip.Prefix]{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// runningNode is a node that keeps its lease and watches the others'.
type runningNode struct {
	m     *Manager
	own   subnet.Lease
	watch *subnettest.Watching
	kept  <-chan error
}

func runNode(t *testing.T, o Options, n int) *runningNode {
	t.Helper()
	m := newManager(t, o)
	r := &runningNode{m: m, own: acquire(t, m, subnettest.Attrs(v4, n))}
	r.watch = subnettest.Watch(t, m)
	r.kept, _ = subnettest.Background(t, subnettest.Keep(m, r.own))
	return r
}

func runNodes(t *testing.T, o Options, count int) ([]*runningNode, []ipfam.Pair[netip.Prefix]) {
	t.Helper()
	var nodes []*runningNode
	var subnets []ipfam.Pair[netip.Prefix]
	for n := 1; n <= count; n++ {
		r := runNode(t, o, n)
		nodes, subnets = append(nodes, r), append(subnets, r.own.Subnet)
	}
	for _, r := range nodes {
		r.watch.AwaitSubnets(subnets...)
	}
	return nodes, subnets
}

// stranger is a record of somebody whom no manager speaks for.
func stranger(subnets string, n int) subnet.Lease {
	return subnet.Lease{Subnet: pair(subnets), Attrs: subnettest.Attrs(v4, n)}
}

// awaitAll waits until every node sees exactly these subnets, and then until
// every node sees a later change.
func awaitAll(t *testing.T, h *harness, nodes []*runningNode, subnets []ipfam.Pair[netip.Prefix]) {
	t.Helper()
	for _, r := range nodes {
		r.watch.AwaitSubnets(subnets...)
	}
	late := stranger("10.5.0.0/24", 250) // never drawn: it is below SubnetMin
	h.Put(t, late, false)
	for _, r := range nodes {
		r.watch.AwaitSubnets(append(slices.Clone(subnets), late.Subnet)...)
		select {
		case err := <-r.kept:
			t.Errorf("Keep = %v", err)
		default:
		}
	}
	h.Delete(t, late.Subnet)
}

func TestWipedStoreIsFilledAgain(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{}), "/coreos.com/network")
	h.SetConfig(t, v4)
	nodes, subnets := runNodes(t, h.options(), 5)
	h.server.Kill()
	h.server.Wipe()
	h.server.Start()
	h.SetConfig(t, v4)
	awaitAll(t, h, nodes, subnets)
}

func TestAllKeysDeletedAreWrittenAgain(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{}), "/coreos.com/network")
	h.SetConfig(t, v4)
	nodes, subnets := runNodes(t, h.options(), 5)
	if _, err := h.client.Delete(h.ctx(t), h.prefix, clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	awaitAll(t, h, nodes, subnets)
}

func TestRestoredStoreIsBroughtUpToDate(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{}), "/coreos.com/network")
	h.SetConfig(t, v4)
	gone := stranger("10.5.240.0/24", 240)
	h.Put(t, gone, false)
	nodes, subnets := runNodesBeside(t, h, 2, gone)
	snapshot := h.server.Snapshot()

	h.Delete(t, gone.Subnet)
	third := runNode(t, h.options(), 3)
	nodes, subnets = append(nodes, third), append(subnets, third.own.Subnet)
	moved := subnettest.Attrs(v4, 1)
	moved.PublicIP[ipfam.V4] = netip.MustParseAddr("192.0.2.77")
	if _, err := nodes[0].m.Acquire(t.Context(), moved, subnets[0]); err != nil {
		t.Fatal(err)
	}
	h.server.Kill()
	h.server.Restore(snapshot)
	h.server.Start()
	// What was deleted after the snapshot is back in the store.
	awaitAll(t, h, nodes, append(subnets, gone.Subnet))
	eventually.True(t, "the attributes of the first node are published again", func() bool {
		l, _, found := h.Get(t, subnets[0])
		return found && l.Attrs == moved
	})
}

// A node that has another subnet than in the restored state, or had another
// address then, ends with one record: the older one would be believed.
func TestEarlierRecordsOfANodeDoNotComeBack(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{}), "/coreos.com/network")
	h.SetConfig(t, v4)
	here, there, moved := stranger("10.5.10.0/24", 1), stranger("10.5.20.0/24", 1), stranger("10.5.30.0/24", 2)
	there.Attrs.PublicIP = addrs("192.0.2.99")
	reserved := stranger("10.5.40.0/24", 2)
	for _, l := range []subnet.Lease{there, here, moved} {
		h.Put(t, l, false)
	}
	h.Put(t, reserved, true)
	snapshot := h.server.Snapshot()

	h.Delete(t, moved.Subnet)
	h.Delete(t, reserved.Subnet)
	nodes, subnets := runNodes(t, h.options(), 2)
	if subnets[0] != here.Subnet {
		t.Fatalf("the nodes have %v", subnets)
	}
	h.server.Kill()
	h.server.Restore(snapshot)
	h.server.Start()
	awaitAll(t, h, nodes, append(subnets, reserved.Subnet))
}

func runNodesBeside(t *testing.T, h *harness, count int, other subnet.Lease) ([]*runningNode, []ipfam.Pair[netip.Prefix]) {
	t.Helper()
	var nodes []*runningNode
	var subnets []ipfam.Pair[netip.Prefix]
	for n := 1; n <= count; n++ {
		r := runNode(t, h.options(), n)
		nodes, subnets = append(nodes, r), append(subnets, r.own.Subnet)
	}
	for _, r := range nodes {
		r.watch.AwaitSubnets(append(slices.Clone(subnets), other.Subnet)...)
	}
	return nodes, subnets
}

// The store that comes back is another one, but its revision is ahead of what
// the node had seen: counting revisions is not enough.
func TestWipedStoreIsNoticedWhenItsRevisionIsAhead(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{}), "/coreos.com/network")
	h.SetConfig(t, v4)
	former := stranger("10.5.240.0/24", 240)
	h.Put(t, former, false)
	p := newProxy(t, h.server.Endpoint())
	o := h.options()
	o.Endpoints = []string{p.Endpoint()}
	m := newManager(t, o)
	w := subnettest.Watch(t, m)
	w.AwaitSubnets(former.Subnet)
	p.Cut()
	h.server.Kill()
	h.server.Wipe()
	h.server.Start()
	h.SetConfig(t, v4)
	later := stranger("10.5.241.0/24", 241)
	h.Put(t, later, false)
	for range 50 {
		h.SetConfig(t, v4)
	}
	p.Mend()
	w.AwaitSubnets(later.Subnet)
}

func TestChangesDuringACompactedOutageArrive(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{}), "/coreos.com/network")
	h.SetConfig(t, v4)
	p := newProxy(t, h.server.Endpoint())
	o := h.options()
	o.Endpoints = []string{p.Endpoint()}
	r := runNode(t, o, 1)
	gone, stays, comes := stranger("10.5.240.0/24", 240), stranger("10.5.241.0/24", 241), stranger("10.5.242.0/24", 242)
	h.Put(t, gone, false)
	h.Put(t, stays, false)
	r.watch.AwaitSubnets(r.own.Subnet, gone.Subnet, stays.Subnet)
	p.Cut()
	h.Delete(t, gone.Subnet)
	h.Put(t, comes, false)
	for n := range 10 {
		h.SetConfig(t, v4+strings.Repeat(" ", n))
	}
	h.server.Compact()
	p.Mend()
	awaitAll(t, h, []*runningNode{r}, []ipfam.Pair[netip.Prefix]{r.own.Subnet, stays.Subnet, comes.Subnet})
}

func TestCompactedRevisionEndsAStream(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{}), "/coreos.com/network")
	for range 5 {
		h.SetConfig(t, v4)
	}
	h.server.Compact()
	m := newManager(t, h.options())
	if err := m.stream(t.Context(), m.configKey(), "", 2, func(*pb.WatchResponse) {}); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("stream = %v, want ErrCompacted", err)
	}
}

func TestReconnectIsPromptAndLoggedOnce(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{}), "/coreos.com/network")
	h.SetConfig(t, v4)
	p := newProxy(t, h.server.Endpoint())
	reached := make(chan error, 100)
	var book logBook
	o := h.options()
	o.Endpoints = []string{p.Endpoint()}
	o.Reachable, o.Log = func(err error) { reached <- err }, book.logger()
	r := runNode(t, o, 1)
	p.Cut()
	if err := <-reached; err == nil {
		t.Fatal("the store is reported reachable when it went away")
	}
	eventually.True(t, "six vain attempts to connect", func() bool { return p.Refused() >= 6 })
	p.Mend()
	began := time.Now()
	if err := <-reached; err != nil {
		t.Errorf("Reachable(%v), want nil", err)
	}
	took := time.Since(began)
	t.Logf("reachable after %s", took)
	if took > 5*time.Second {
		t.Errorf("it took %s to reconnect", took)
	}
	awaitAll(t, h, []*runningNode{r}, []ipfam.Pair[netip.Prefix]{r.own.Subnet})
	if book.count("etcd cannot be used") != 1 || book.count("etcd answers again") != 1 {
		t.Errorf("log:\n%s", book.String())
	}
}

func TestOddRecordsHarmNobody(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{}), "/coreos.com/network")
	h.SetConfig(t, v4)
	good := stranger("10.5.241.0/24", 241)
	h.Put(t, good, false)
	for name, value := range map[string]string{
		oddName:           "odd on purpose",
		"10.5.7.0-24":     "odd on purpose",
		"10.0.0.0-8":      `{"PublicIP":"192.0.2.200"}`,
		"10.5.0.0-16":     `{"PublicIP":"192.0.2.201"}`,
		"10.5.9.9-24":     `{"PublicIP":"192.0.2.202","X":"odd on purpose"}`,
		"10.5.8.0-24/sub": `{"PublicIP":"192.0.2.1","X":"odd on purpose"}`,
	} {
		if _, err := h.client.Put(h.ctx(t), h.prefix+"/subnets/"+name, value); err != nil {
			t.Fatal(err)
		}
	}
	r := runNode(t, h.options(), 1)
	eventually.True(t, "own lease", func() bool { return len(r.watch.Last()) == 8 })
	invalid := 0
	for _, l := range r.watch.Last() {
		if l.Invalid != "" {
			invalid++
		}
	}
	if invalid != 4 {
		t.Errorf("%d records are invalid, want 4: %v", invalid, r.watch.Last())
	}
	// Deleting and changing them harms nobody either.
	if _, err := h.client.Delete(h.ctx(t), h.prefix+"/subnets/"+oddName); err != nil {
		t.Fatal(err)
	}
	if _, err := h.client.Put(h.ctx(t), h.prefix+"/subnets/10.5.7.0-24", `{"PublicIP":"192.0.2.203"}`); err != nil {
		t.Fatal(err)
	}
	r.watch.Await("the repaired record", func(leases []*subnet.Lease) bool {
		return len(leases) == 7 && slices.ContainsFunc(leases, func(l *subnet.Lease) bool {
			return l.Name == "10.5.7.0-24" && l.Invalid == ""
		})
	})
}

func records(n int) []*mvccpb.KeyValue {
	kvs := make([]*mvccpb.KeyValue, n)
	for i := range kvs {
		s := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		value, err := encodeValue(vxlan(fmt.Sprintf("02:00:00:00:%02x:%02x", i>>8, i&0xff), fmt.Sprintf("172.16.%d.%d", i>>8, i&0xff)))
		if err != nil {
			panic(err) // the test's own records are valid
		}
		kvs[i] = &mvccpb.KeyValue{
			Key:   []byte("/coreos.com/network/subnets/" + encodeName(ipfam.Pair[netip.Prefix]{s})),
			Value: value, CreateRevision: int64(i + 1), ModRevision: int64(i + 1),
		}
	}
	return kvs
}

func BenchmarkDecode5000(b *testing.B) {
	kvs := records(5000)
	b.ReportAllocs()
	for b.Loop() {
		for _, kv := range kvs {
			readRecord(strings.TrimPrefix(string(kv.Key), "/coreos.com/network/subnets/"), kv)
		}
	}
}

func BenchmarkList5000(b *testing.B) {
	server := etcdtest.Start(b, etcdtest.Options{})
	client := server.Client()
	for batch := range slices.Chunk(records(5000), 100) {
		var puts []clientv3.Op
		for _, kv := range batch {
			puts = append(puts, clientv3.OpPut(string(kv.Key), string(kv.Value)))
		}
		if _, err := client.Txn(b.Context()).Then(puts...).Commit(); err != nil {
			b.Fatal(err)
		}
	}
	m, err := New(Options{
		Endpoints: []string{server.Endpoint()}, Prefix: "/coreos.com/network",
		RenewMargin: time.Hour, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	b.ReportAllocs()
	for b.Loop() {
		if leases, err := m.List(b.Context()); err != nil || len(leases) != 5000 {
			b.Fatalf("%d leases, %v", len(leases), err)
		}
	}
}
