package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/kubeplane"
	"flannel/lab/node"
)

// Control is the name of the node with the control plane.
const Control = "control"

// Kubernetes is a control plane in a network namespace of its own on the first
// link. Its store is the lab's etcd.
type Kubernetes struct {
	// Node is the machine that the programs run on.
	Node *node.Node
	// Plane knows where its files are.
	Plane *kubeplane.Plane
	// API makes requests that may do everything.
	API *kubeplane.API

	lab                      *Lab
	api, managers, scheduler process
}

// buildKubernetes starts a control plane and makes every host a Node. The
// daemons may do what the manifest lets them do.
func (l *Lab) buildKubernetes(ctx context.Context) error {
	n, err := node.NewNetwork(Control, nil)
	if err != nil {
		return err
	}
	program := func(name string) process {
		return process{name: name, node: n, logPath: filepath.Join(l.dir, name+".log")}
	}
	k := &Kubernetes{
		Node: n, lab: l,
		api: program("kube-apiserver"), managers: program("kube-controller-manager"), scheduler: program("kube-scheduler"),
	}
	l.Kubernetes = k
	if err := k.setup(); err != nil {
		return fmt.Errorf("set up the control plane: %w", err)
	}
	if err := k.Start(ctx); err != nil {
		return err
	}
	if l.options.Kubelets {
		return l.buildWorkers(ctx)
	}
	if err := k.API.AllowDaemon(ctx); err != nil {
		return err
	}
	for _, h := range l.Hosts {
		if err := k.API.CreateNode(ctx, h.Name); err != nil {
			return err
		}
	}
	return nil
}

func (k *Kubernetes) setup() error {
	fs := k.lab.options.Families
	if err := k.lab.connect(cable{link: 1, port: "control", node: k.Node, name: Uplink}); err != nil {
		return err
	}
	if err := addAddresses(k.Node.Handle, Uplink, fs.addresses(1, controlNumber)); err != nil {
		return err
	}
	if err := addDefaultRoutes(k.Node.Handle, fs.addresses(1, routerNumber)); err != nil {
		return err
	}
	k.Plane = &kubeplane.Plane{
		Dir: filepath.Join(k.lab.dir, "kubernetes"), Addr: k.Addr(), Etcd: k.lab.Etcd.Endpoint(), PodRanges: fs.podRanges(),
		Pods: k.lab.options.Kubelets,
	}
	if err := os.Mkdir(k.Plane.Dir, 0o755); err != nil {
		return err
	}
	if err := k.Plane.Write(); err != nil {
		return err
	}
	if err := k.SetConfig(k.lab.options.Network); err != nil {
		return err
	}
	var err error
	k.API, err = k.Plane.API(kubeplane.Admin, k.Node.Dial)
	return err
}

// Addr is the address of the API server.
func (k *Kubernetes) Addr() netip.Addr {
	for _, a := range ipfam.Prefixes(k.lab.options.Families.addresses(1, controlNumber)) {
		return a.Addr()
	}
	return netip.Addr{}
}

func (k *Kubernetes) configFile() string { return filepath.Join(k.Plane.Dir, "net-conf.json") }

// SetConfig writes the network configuration that daemons read when they start.
func (k *Kubernetes) SetConfig(text string) error {
	return os.WriteFile(k.configFile(), []byte(text), 0o644)
}

// daemonArgs are the flags of every flanneld. NODE_NAME is in its environment.
func (k *Kubernetes) daemonArgs() []string {
	return []string{
		"--kube-subnet-mgr",
		"--kubeconfig-file=" + k.Plane.Kubeconfig(kubeplane.Daemon),
		"--net-config-path=" + k.configFile(),
	}
}

var errNoKubernetes = errors.New("the lab was made without the binaries of Kubernetes: run make assets")

// Start starts the control plane and waits until it serves.
func (k *Kubernetes) Start(ctx context.Context) error {
	binaries := k.lab.options.Binaries
	if binaries.APIServer == "" || binaries.ControllerManager == "" {
		return errNoKubernetes
	}
	if err := k.StartAPIServer(ctx); err != nil {
		return err
	}
	if err := k.StartControllerManager(); err != nil || !k.lab.options.Kubelets {
		return err
	}
	return k.scheduler.start(append([]string{binaries.Scheduler}, k.Plane.Scheduler()...), nil)
}

// StartControllerManager starts what gives Nodes their pod CIDRs.
func (k *Kubernetes) StartControllerManager() error {
	return k.managers.start(append([]string{k.lab.options.Binaries.ControllerManager}, k.Plane.ControllerManager()...), nil)
}

// StopControllerManager ends it again.
func (k *Kubernetes) StopControllerManager() error { return k.managers.kill() }

// PID returns the process ID of the API server, 0 before its first start.
func (k *Kubernetes) PID() int { return k.api.pid() }

// Log returns everything the API server has written.
func (k *Kubernetes) Log() string { return k.api.log() }

// KillAPIServer ends the API server alone, at once.
func (k *Kubernetes) KillAPIServer() error { return k.api.kill() }

// StartAPIServer starts the API server and waits until it serves.
func (k *Kubernetes) StartAPIServer(ctx context.Context) error {
	if err := k.api.start(append([]string{k.lab.options.Binaries.APIServer}, k.Plane.APIServer()...), nil); err != nil {
		return err
	}
	return k.waitReady(ctx)
}

func (k *Kubernetes) waitReady(ctx context.Context) error { return k.api.waitReady(ctx, k.API.Ready) }

// Stop ends the control plane at once; its data stay in etcd.
func (k *Kubernetes) Stop() error {
	return errors.Join(k.scheduler.kill(), k.managers.kill(), k.api.kill())
}

func (k *Kubernetes) close() error {
	if k.API != nil {
		k.API.Close()
	}
	return errors.Join(k.Stop(), k.Node.Close())
}
