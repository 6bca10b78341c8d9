// Package lab is a cluster on one machine: hosts as namespaces on a bridge, a
// real etcd, flanneld as a real process per host, and pods. It works inside a
// sandbox only, see Main, so nothing of it can stay behind.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"flannel/lab/cgroup"
	"flannel/lab/node"
	"flannel/lab/sandbox"
)

// Limits of the address plan, see plan.go.
const (
	maxHosts = 200
	maxLinks = 100
)

// Options define what a lab consists of. The zero value of a field is its
// default.
type Options struct {
	// Hosts is the number of hosts. Their names are host1, host2, ...
	Hosts int
	// Families of the underlay and of the default network configuration;
	// default IPv4.
	Families Families
	// Links is the number of underlay links, default 1. A router joins them.
	Links int
	// LinkOf returns the link of a host, both counted from 1. By default the
	// hosts are spread over the links in turn.
	LinkOf func(host int) int
	// MTU of the underlay, default 1500.
	MTU int
	// Network is the network configuration; default one for the families
	// with Backend.
	Network string
	// Backend is the Backend object of the default network configuration;
	// default vxlan.
	Backend string
	// NoConfig starts etcd without a network configuration.
	NoConfig bool
	// NoEtcd starts no etcd; Lab.Etcd is there and can be started.
	NoEtcd bool
	// EtcdMembers is the number of servers of the store, default 1.
	EtcdMembers int
	// Kubernetes makes Node objects the store of the leases: an API server and
	// a controller manager run in a namespace of their own, every host is a
	// Node, and the network configuration is a file.
	Kubernetes bool
	// Kubelets makes every host a node that runs pods, with containerd, kubelet
	// and kube-proxy; it implies Kubernetes. No network is installed: flanneld
	// is a pod like others. It needs the machine's own root.
	Kubelets bool
	// DNS gives such a cluster CoreDNS; its image must be among Images.
	DNS bool
	// NoProxy leaves out kube-proxy; Worker.StartProxy starts it.
	NoProxy bool
	// Images are archives of images that every such node has.
	Images []string
	// Flags are further flags of every flanneld, see also Host.Flags.
	Flags []string
	// Binaries are the programs to run.
	Binaries Binaries
}

// Binaries are paths of programs. Only those that are used are needed.
type Binaries struct {
	Flanneld string
	// Etcd has etcdutl beside it.
	Etcd string
	// For a lab with Kubernetes.
	APIServer, ControllerManager string
	// For nodes that run pods.
	Scheduler, Kubelet, KubeProxy, Kubectl string
}

// Lab is a running lab. Close ends it.
type Lab struct {
	Hosts []*Host
	// Etcd is the cluster's store.
	Etcd *Etcd
	// Kubernetes is the cluster's control plane, nil without one.
	Kubernetes *Kubernetes
	// Router joins the links.
	Router *node.Node

	options Options
	// dir holds etcd's data, its log and other files of the lab.
	dir string
	// cgroups are those of nodes that run pods, nil without such.
	cgroups *cgroup.Tree
	// underlay holds the bridges.
	underlay *node.Node
	// closing makes Close run once.
	closing func() error
}

// New makes the namespaces, starts etcd and writes the network configuration.
// It starts no flanneld. The caller closes the lab.
func New(ctx context.Context, o Options) (*Lab, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if !sandbox.Active() {
		return nil, errors.New("a lab runs inside a sandbox only; call lab.Main or sandbox.Run first")
	}
	l := &Lab{options: o}
	l.closing = sync.OnceValue(l.close)
	if err := l.build(ctx); err != nil {
		l.Close()
		return nil, fmt.Errorf("build the lab: %w", err)
	}
	return l, nil
}

func (o Options) withDefaults() (Options, error) {
	if o.Families == 0 {
		o.Families = IPv4
	}
	o.Kubernetes = o.Kubernetes || o.Kubelets
	if o.Links == 0 {
		o.Links = 1
	}
	if o.LinkOf == nil {
		o.LinkOf = func(host int) int { return (host-1)%o.Links + 1 }
	}
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if o.EtcdMembers == 0 {
		o.EtcdMembers = 1
	}
	if o.Network == "" {
		o.Network = o.Families.config(o.Backend)
	}
	if o.Hosts < 0 || o.Hosts > maxHosts {
		return o, fmt.Errorf("%d hosts: 0 to %d are possible", o.Hosts, maxHosts)
	}
	if o.Links < 1 || o.Links > maxLinks {
		return o, fmt.Errorf("%d links: 1 to %d are possible", o.Links, maxLinks)
	}
	return o, nil
}

func (l *Lab) build(ctx context.Context) error {
	var err error
	if l.dir, err = os.MkdirTemp(sandbox.Dir(), "cluster-"); err != nil {
		return err
	}
	if err := l.buildUnderlay(); err != nil {
		return err
	}
	if l.Etcd, err = newEtcd(l); err != nil {
		return err
	}
	// etcd starts while the hosts are made.
	if !l.options.NoEtcd {
		if err := l.Etcd.launch(); err != nil {
			return err
		}
	}
	for i := range l.options.Hosts {
		h, err := newHost(l, i+1)
		if err != nil {
			return err
		}
		l.Hosts = append(l.Hosts, h)
	}
	if l.options.NoEtcd {
		return nil
	}
	if err := l.Etcd.waitReady(ctx); err != nil {
		return err
	}
	if l.options.Kubernetes {
		return l.buildKubernetes(ctx)
	}
	if l.options.NoConfig {
		return nil
	}
	return l.Etcd.Put(ctx, DefaultPrefix+"/config", l.options.Network)
}

// Up starts flanneld on every host, waits until all are ready, and adds a pod
// named pod1 to every host.
func (l *Lab) Up(ctx context.Context) error {
	for _, h := range l.Hosts {
		if err := h.StartFlanneld(); err != nil {
			return err
		}
	}
	return l.eachHost(func(h *Host) error {
		if err := h.WaitReady(ctx); err != nil {
			return err
		}
		_, err := h.AddPod("pod1")
		return err
	})
}

// eachHost runs fn for all hosts at once and joins the errors.
func (l *Lab) eachHost(fn func(*Host) error) error { return each(l.Hosts, fn) }

// each runs fn for all items at once and joins the errors.
func each[T any](items []T, fn func(T) error) error {
	errs := make([]error, len(items))
	var wg sync.WaitGroup
	for i, item := range items {
		wg.Go(func() { errs[i] = fn(item) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Node returns the machine with this name: a host like host1, a pod like
// host1/pod1, or the control plane of Kubernetes.
func (l *Lab) Node(name string) (*node.Node, error) {
	if l.Kubernetes != nil && l.Kubernetes.Node.Name == name {
		return l.Kubernetes.Node, nil
	}
	for _, h := range l.Hosts {
		if h.Name == name {
			return h.Node, nil
		}
		for _, p := range h.Pods() {
			if p.Name == name {
				return p.Node, nil
			}
		}
	}
	return nil, fmt.Errorf("there is no host or pod %q in this lab", name)
}

// Close stops the programs of the lab and removes its namespaces and files.
// Further calls do nothing.
func (l *Lab) Close() error { return l.closing() }

func (l *Lab) close() error {
	errs := []error{l.eachHost((*Host).close)}
	if l.Kubernetes != nil {
		errs = append(errs, l.Kubernetes.close())
	}
	if l.Etcd != nil {
		errs = append(errs, l.Etcd.close())
	}
	if l.cgroups != nil {
		errs = append(errs, l.cgroups.Remove(context.Background()))
	}
	for _, n := range []*node.Node{l.Router, l.underlay} {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	if l.dir != "" {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	return errors.Join(errs...)
}
