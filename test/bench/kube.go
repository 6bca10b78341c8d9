package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/internal/testkit/kubeplane"
	"flannel/lab"
)

const (
	// kubeHost is the pod CIDR of the host that is measured.
	kubeHost = "10.1.1.0/24"
	// updateWindow is how long other Nodes are updated, updatesPerSecond times
	// a second.
	updateWindow     = 2500 * time.Millisecond
	updatesPerSecond = 100
	// kubeWriters write Nodes at the same time.
	kubeWriters = 8
)

// kube measures the large network with Node objects as its store: a join, its
// memory, and the load of updates that do not matter.
func (b *bench) kube(ctx context.Context) (rows []row, err error) {
	c, err := b.kubeCrowd(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.lab.Close()) }()
	title := fmt.Sprintf("join of %d Nodes", b.peers)
	r := joinRows{
		took:   row{Measure: title + ", start to last entry", Unit: seconds, Limit: atMost(0.45), Flannel: "3.2 s"},
		memory: row{Measure: "  peak memory", Unit: megabytes, Limit: atMost(60), Flannel: "232 MB"},
		cpu:    row{Measure: "  CPU time of the daemon", Unit: seconds},
		log:    row{Measure: "  log", Unit: kilobytes, Flannel: "5.4 MB"},
	}
	for range b.roundsOr(4) {
		if err := c.leaveKube(ctx); err != nil {
			return nil, err
		}
		if _, err := r.round(ctx, c); err != nil {
			return nil, err
		}
	}
	if err := c.settle(ctx); err != nil {
		return nil, err
	}
	updates := row{Measure: fmt.Sprintf("  %d status updates per second, of one core", updatesPerSecond), Unit: percent, Limit: atMost(2)}
	for range b.roundsOr(4) {
		used, err := c.load(ctx, updateWindow, c.updateNodes)
		if err != nil {
			return nil, err
		}
		updates.Samples = append(updates.Samples, used)
	}
	return []row{r.took, r.memory, r.cpu, r.log, updates}, nil
}

// kubeCrowd makes a cluster of one host and many Nodes without a machine.
// Nobody looks after the Nodes: a controller would find them dead.
func (b *bench) kubeCrowd(ctx context.Context) (*crowd, error) {
	l, err := lab.New(ctx, lab.Options{Hosts: 1, Kubernetes: true, Network: crowdConfig, Binaries: b.kubeBinaries()})
	if err != nil {
		return nil, err
	}
	c := &crowd{lab: l, host: l.Hosts[0], peers: b.peers}
	if err := c.fillNodes(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return c, nil
}

// kubeBinaries are the programs of a lab with an API server.
func (b *bench) kubeBinaries() lab.Binaries {
	binaries := b.binaries
	dir := filepath.Dir(binaries.Etcd)
	binaries.APIServer, binaries.ControllerManager = filepath.Join(dir, "kube-apiserver"), filepath.Join(dir, "kube-controller-manager")
	return binaries
}

func (c *crowd) fillNodes(ctx context.Context) error {
	if err := c.lab.Kubernetes.StopControllerManager(); err != nil {
		return err
	}
	if err := c.renewNode(ctx); err != nil {
		return err
	}
	return createNodes(ctx, c.lab.Kubernetes.API, c.peers)
}

// createNodes makes Nodes without a machine.
func createNodes(ctx context.Context, api *kubeplane.API, n int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(kubeWriters)
	for i := range n {
		group.Go(func() error {
			_, err := api.Do(ctx, http.MethodPost, "/api/v1/nodes", kubeplane.JSON, kubeNode(kubeNodeName(i), nthPeer(i)))
			return err
		})
	}
	return group.Wait()
}

// renewNode gives the host a Node that nobody has written to.
func (c *crowd) renewNode(ctx context.Context) error {
	api := c.lab.Kubernetes.API
	if err := api.DeleteNode(ctx, c.host.Name); err != nil {
		return err
	}
	return api.CreateNode(ctx, c.host.Name, kubeHost)
}

func kubeNodeName(i int) string { return fmt.Sprintf("node-%05d.example.com", i) }

// kubeNode is a Node of realistic size: 8.6 kB as JSON, most of it images.
func kubeNode(name string, p peer) map[string]any {
	var images []any
	for n := range 25 {
		digest := sha256.Sum256(fmt.Appendf(nil, "%d", n))
		image := fmt.Sprintf("registry.example.com/some-team/some-application-%02d", n)
		images = append(images, map[string]any{
			"names":     []string{fmt.Sprintf("%s@sha256:%x", image, digest), image + ":v1.2.3"},
			"sizeBytes": 123456789 + n,
		})
	}
	return map[string]any{
		"metadata": map[string]any{
			"name":   name,
			"labels": map[string]string{"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": name},
			"annotations": map[string]string{
				"flannel.alpha.coreos.com/kube-subnet-manager": "true",
				"flannel.alpha.coreos.com/backend-type":        "vxlan",
				"flannel.alpha.coreos.com/public-ip":           p.public.String(),
				"flannel.alpha.coreos.com/backend-data":        fmt.Sprintf(`{"VNI":1,"VtepMAC":"%s"}`, p.mac),
				"node.alpha.kubernetes.io/ttl":                 "300",
			},
		},
		"spec": map[string]any{"podCIDR": p.subnet.String(), "podCIDRs": []string{p.subnet.String()}},
		"status": map[string]any{
			"addresses":   []any{map[string]string{"type": "InternalIP", "address": p.public.String()}, map[string]string{"type": "Hostname", "address": name}},
			"capacity":    map[string]string{"cpu": "64", "memory": "263000000Ki", "pods": "110", "ephemeral-storage": "1000000000Ki"},
			"allocatable": map[string]string{"cpu": "63", "memory": "262000000Ki", "pods": "110", "ephemeral-storage": "900000000"},
			"conditions":  kubeConditions(time.Now()),
			"images":      images,
		},
	}
}

func kubeConditions(at time.Time) []any {
	var out []any
	for _, kind := range []string{"MemoryPressure", "DiskPressure", "PIDPressure", "Ready"} {
		out = append(out, map[string]string{
			"type": kind, "status": "False", "reason": "Kubelet" + kind, "message": "kubelet says something about " + kind,
			"lastHeartbeatTime": at.UTC().Format(time.RFC3339), "lastTransitionTime": "2026-01-01T00:00:00Z",
		})
	}
	return out
}

// updateNodes writes the conditions of other Nodes, as their kubelets do.
func (c *crowd) updateNodes(ctx context.Context) error {
	return paceUpdates(ctx, updateWindow, time.Second/updatesPerSecond, func(ctx context.Context, i int) error {
		return updateNode(ctx, c.lab.Kubernetes.API, i%c.peers, i)
	})
}

// paceUpdates makes an update each time an interval has passed, until the
// window ends; slow updates do not delay the next.
func paceUpdates(ctx context.Context, window, interval time.Duration, update func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(kubeWriters)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for i := range int(window / interval) {
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), group.Wait())
		case <-tick.C:
		}
		group.Go(func() error { return update(ctx, i) })
	}
	return group.Wait()
}

// updateNode writes the conditions of a Node as of a number of seconds from
// now: each write is a change.
func updateNode(ctx context.Context, api *kubeplane.API, node, ahead int) error {
	body := map[string]any{"status": map[string]any{"conditions": kubeConditions(time.Now().Add(time.Duration(ahead) * time.Second))}}
	_, err := api.Do(ctx, http.MethodPatch, "/api/v1/nodes/"+kubeNodeName(node)+"/status", kubeplane.StrategicPatch, body)
	return err
}

// leaveKube ends the daemon and removes what it has left behind, on the host
// and on its Node.
func (c *crowd) leaveKube(ctx context.Context) error {
	if !c.running() {
		return nil
	}
	if err := c.host.Stop(); err != nil {
		return err
	}
	if _, err := c.host.Exec(ctx, "ip", "link", "del", device); err != nil {
		return err
	}
	if err := c.renewNode(ctx); err != nil {
		return err
	}
	_, err := c.host.Exec(ctx, "rm", "-f", lab.DefaultSubnetFile)
	return err
}
