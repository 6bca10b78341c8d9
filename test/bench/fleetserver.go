package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/kubeplane"
	"flannel/lab"
)

// fleetServer is the store of a fleet.
type fleetServer interface {
	// fill makes all but the fleet's own records.
	fill(ctx context.Context) error
	// programs are those that the daemons' requests cost CPU time.
	programs() []process
	// counters returns how many requests it has got since it started, how many
	// records were changed, and how many watches are open.
	counters(ctx context.Context) (requests, writes, watches float64, err error)
	// interval is the time between two changes of records in a cluster of the
	// fleet's size in which nothing happens.
	interval() time.Duration
	// update changes a record, with one request.
	update(ctx context.Context, i int) error
	// stop ends it, start starts it again and waits until it serves.
	stop() error
	start(ctx context.Context) error
	close() error
}

// kubeFleet has the Nodes of an API server as its store.
type kubeFleet struct {
	lab *lab.Lab
	// ghosts is how many Nodes have no machine.
	ghosts int
}

// statusInterval is how often a kubelet writes the status of its Node if
// nothing changes (nodeStatusReportFrequency in the kubelet's configuration).
const statusInterval = 5 * time.Minute

func (k *kubeFleet) fill(ctx context.Context) error {
	if err := k.lab.Kubernetes.StopControllerManager(); err != nil {
		return err
	}
	api := k.lab.Kubernetes.API
	group, nodes := errgroup.WithContext(ctx)
	group.SetLimit(kubeWriters)
	for i, h := range k.lab.Hosts {
		group.Go(func() error {
			if err := api.DeleteNode(nodes, h.Name); err != nil {
				return err
			}
			node := kubeNode(h.Name, fleetPeer(h, k.ghosts+i))
			_, err := api.Do(nodes, http.MethodPost, "/api/v1/nodes", kubeplane.JSON, node)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return createNodes(ctx, api, k.ghosts)
}

// fleetPeer is the i-th host of a fleet beside ghosts. The store knows its record
// before its daemon starts, so that the first start of a fleet, which is not
// measured, is not told to all daemons that run already.
func fleetPeer(h *lab.Host, i int) peer {
	p := nthPeer(i)
	p.subnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(h.Number), 0}), 24)
	p.public = h.Addr(ipfam.V4)
	return p
}

func (k *kubeFleet) programs() []process {
	return []process{process(k.lab.Kubernetes.PID()), process(k.lab.Etcd.PID())}
}

func (k *kubeFleet) counters(ctx context.Context) (requests, writes, watches float64, err error) {
	text, err := k.lab.Kubernetes.API.Do(ctx, http.MethodGet, "/metrics", "", nil)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("read the API server's metrics: %w", err)
	}
	n := parseNumbers(string(text))
	// A watch is counted as a request when it ends.
	watches = n.total("apiserver_longrunning_requests", `resource="nodes"`)
	// /version is what a daemon asks to learn whether the server is back.
	for _, asked := range []string{`resource="nodes"`, `resource="events"`, `subresource="/version"`} {
		requests += n.total("apiserver_request_total", asked)
	}
	writes = n.total("apiserver_request_total", `resource="nodes"`, `verb="PATCH"`)
	return requests + watches, writes, watches, nil
}

func (k *kubeFleet) interval() time.Duration {
	return statusInterval / time.Duration(k.ghosts+len(k.lab.Hosts))
}

func (k *kubeFleet) update(ctx context.Context, i int) error {
	return updateNode(ctx, k.lab.Kubernetes.API, i%k.ghosts, i)
}

func (k *kubeFleet) stop() error                     { return k.lab.Kubernetes.KillAPIServer() }
func (k *kubeFleet) start(ctx context.Context) error { return k.lab.Kubernetes.StartAPIServer(ctx) }
func (k *kubeFleet) close() error                    { return nil }

// etcdFleet has the records of an etcd as its store.
type etcdFleet struct {
	lab    *lab.Lab
	store  *store
	ghosts int
}

func (e *etcdFleet) fill(ctx context.Context) error {
	for i, h := range e.lab.Hosts {
		if err := e.store.putPeer(ctx, fleetPeer(h, e.ghosts+i)); err != nil {
			return err
		}
	}
	return e.store.putPeers(ctx, 0, e.ghosts)
}

func (e *etcdFleet) programs() []process { return []process{process(e.lab.Etcd.PID())} }

func (e *etcdFleet) counters(ctx context.Context) (requests, writes, watches float64, err error) {
	client := http.Client{Transport: &http.Transport{DialContext: e.lab.Etcd.Node.Dial, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.lab.Etcd.Endpoint()+"/metrics", nil)
	if err != nil {
		return 0, 0, 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("read etcd's metrics: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("read etcd's metrics: %w", err)
	}
	n := parseNumbers(string(text))
	return n.total("grpc_server_msg_received_total"), n.total("etcd_mvcc_put_total"), n.total("etcd_debugging_mvcc_watcher_total"), nil
}

// A record is renewed an hour before its day is over.
func (e *etcdFleet) interval() time.Duration {
	return (leaseSeconds*time.Second - time.Hour) / time.Duration(e.ghosts+len(e.lab.Hosts))
}

func (e *etcdFleet) update(ctx context.Context, i int) error {
	return e.store.putPeer(ctx, nthPeer(i%e.ghosts))
}

func (e *etcdFleet) stop() error                     { return e.lab.Etcd.Kill() }
func (e *etcdFleet) start(ctx context.Context) error { return e.lab.Etcd.Start(ctx) }
func (e *etcdFleet) close() error                    { return e.store.Close() }
