package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/kubeplane"
	"flannel/lab/cgroup"
)

// Worker is what makes a host a node that runs pods.
type Worker struct {
	host                       *Host
	plan                       kubeplane.Worker
	containerd, kubelet, proxy process
}

// debianPlugins is where the package containernetworking-plugins puts them.
const debianPlugins = "/usr/lib/cni"

// ownFolders are the folders in which a node's programs write.
var ownFolders = []string{"/etc", "/opt", "/var"}

// buildWorkers makes every host a node.
func (l *Lab) buildWorkers(ctx context.Context) error {
	if b := l.options.Binaries; b.Scheduler == "" || b.Kubelet == "" || b.KubeProxy == "" || b.Kubectl == "" {
		return errNoKubernetes
	}
	sweep(ctx)
	var err error
	if l.cgroups, err = cgroup.New(); err != nil {
		return fmt.Errorf("make the control groups of the lab: %w", err)
	}
	for _, h := range l.Hosts {
		if err := h.makeWorker(); err != nil {
			return fmt.Errorf("make %s a node: %w", h.Name, err)
		}
	}
	if err := l.eachHost(func(h *Host) error { return h.Worker.Start(ctx) }); err != nil {
		return err
	}
	if err := l.Kubernetes.waitNodes(ctx); err != nil {
		return err
	}
	if err := l.Kubernetes.reachPods(); err != nil {
		return err
	}
	if l.options.DNS {
		return l.Kubernetes.applyDNS(ctx)
	}
	return nil
}

// waitNodes waits until every host is a Node.
func (k *Kubernetes) waitNodes(ctx context.Context) error {
	return k.api.waitReady(ctx, func(ctx context.Context) error {
		nodes, err := k.API.Nodes(ctx)
		if err == nil && len(nodes) != len(k.lab.Hosts) {
			err = fmt.Errorf("%d of %d hosts are Nodes", len(nodes), len(k.lab.Hosts))
		}
		return err
	})
}

// reachPods lets the API server reach pods, through the first host.
func (k *Kubernetes) reachPods() error {
	link, err := k.Node.Handle.LinkByName(Uplink)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", Uplink, err)
	}
	for _, r := range k.Plane.PodRanges {
		f := ipfam.Of(r.Addr())
		route := &netlink.Route{
			LinkIndex: link.Attrs().Index, Family: f.AF(), Gw: k.lab.Hosts[0].Addr(f).AsSlice(),
			Dst: &net.IPNet{IP: r.Addr().AsSlice(), Mask: net.CIDRMask(r.Bits(), f.Bits())},
		}
		if err := k.Node.Handle.RouteReplace(route); err != nil {
			return fmt.Errorf("add a route to %s: %w", r, err)
		}
	}
	return nil
}

// sweep removes what other labs have left. One that just ends does it itself.
func sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = cgroup.Sweep(ctx)
}

func (h *Host) makeWorker() error {
	k := h.lab.Kubernetes
	program := func(name string) process {
		return process{name: name, node: h.Node, logPath: "/run/log/" + name + ".log"}
	}
	w := &Worker{
		host: h, containerd: program("containerd"), kubelet: program("kubelet"), proxy: program("kube-proxy"),
		plan: kubeplane.Worker{
			Name: h.Name, Addrs: h.addrs(), Dir: "/run", Cgroup: h.lab.cgroups.Path(h.Name),
			Kubeconfig: k.Plane.Kubeconfig(kubeplane.Admin), PodRanges: k.Plane.PodRanges,
		},
	}
	if h.lab.options.DNS {
		w.plan.DNS = k.Plane.DNS()
	}
	h.Worker = w
	if err := h.lab.cgroups.Make(w.group()); err != nil {
		return err
	}
	if err := h.ShareMounts(); err != nil {
		return err
	}
	if err := h.CopyOnWrite(ownFolders...); err != nil {
		return err
	}
	// kubelet insists on them, and they are the whole machine's.
	for path, value := range kubeplane.KernelDefaults() {
		if err := h.Cover(path, value); err != nil {
			return err
		}
	}
	return h.Do(w.writeFiles)
}

// addrs are the host's addresses.
func (h *Host) addrs() (addrs []netip.Addr) {
	for _, f := range ipfam.All() {
		if a := h.Addr(f); a.IsValid() {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// group holds the programs themselves.
func (w *Worker) group() string { return filepath.Join(w.host.Name, "system") }

// writeFiles runs on the node.
func (w *Worker) writeFiles() error {
	files, err := w.plan.Files()
	if err != nil {
		return err
	}
	for path, text := range files {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	// What the machine may have is not this node's.
	for _, dir := range []string{kubeplane.CNIPlugins, kubeplane.CNIConfig, kubeplane.StaticPods, "/var/lib/cni"} {
		if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
			return err
		}
	}
	plugins, err := os.ReadDir(debianPlugins)
	if err != nil {
		return fmt.Errorf("find the CNI plugins of containernetworking-plugins: %w", err)
	}
	for _, p := range plugins {
		if err := os.Symlink(filepath.Join(debianPlugins, p.Name()), filepath.Join(kubeplane.CNIPlugins, p.Name())); err != nil {
			return err
		}
	}
	return nil
}

// Start starts the programs that run pods.
func (w *Worker) Start(ctx context.Context) error {
	if err := w.run(&w.containerd, append([]string{"containerd"}, w.plan.Containerd()...)); err != nil {
		return err
	}
	for _, archive := range w.host.lab.options.Images {
		if err := w.load(ctx, archive); err != nil {
			return err
		}
	}
	if err := w.run(&w.kubelet, append([]string{w.host.lab.options.Binaries.Kubelet}, w.plan.Kubelet()...)); err != nil {
		return err
	}
	if w.host.lab.options.NoProxy {
		return nil
	}
	return w.StartProxy()
}

// run starts a program in the node's control group, and with it all that it
// starts.
func (w *Worker) run(p *process, args []string) error {
	if err := p.start(args, nil); err != nil {
		return err
	}
	return w.host.lab.cgroups.Add(w.group(), p.pid())
}

// load makes the images of an archive known, as soon as containerd listens.
func (w *Worker) load(ctx context.Context, archive string) error {
	return w.containerd.waitReady(ctx, func(ctx context.Context) error {
		_, err := w.host.Exec(ctx, append([]string{"ctr"}, w.plan.Import(archive)...)...)
		return err
	})
}

// StartProxy starts what makes Services reachable from this node.
func (w *Worker) StartProxy() error {
	return w.run(&w.proxy, append([]string{w.host.lab.options.Binaries.KubeProxy}, w.plan.KubeProxy()...))
}

// runtimeDirs are where containerd keeps all that it knows, and the network
// namespaces of pods.
var runtimeDirs = []string{"/run/containerd", "/run/netns"}

// Crash ends the programs and all pods as a power cut does: nobody detaches a
// pod from the network, and containerd forgets everything. Start starts them
// again.
func (w *Worker) Crash(ctx context.Context) error {
	err := errors.Join(w.kubelet.kill(), w.proxy.kill(), w.containerd.kill(), w.host.lab.cgroups.Kill(ctx, w.host.Name))
	if err != nil {
		return err
	}
	return w.host.Do(func() error {
		if err := unmountBelow(runtimeDirs); err != nil {
			return err
		}
		for _, dir := range runtimeDirs {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
		return nil
	})
}

// unmountBelow unmounts what is mounted below these folders.
func unmountBelow(dirs []string) error {
	text, err := os.ReadFile("/proc/thread-self/mounts")
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		below := func(dir string) bool { return strings.HasPrefix(fields[1], dir+"/") }
		if len(fields) > 1 && slices.ContainsFunc(dirs, below) {
			if err := unix.Unmount(fields[1], unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
				errs = append(errs, fmt.Errorf("unmount %s: %w", fields[1], err))
			}
		}
	}
	return errors.Join(errs...)
}

func (w *Worker) logTails(lines int) string {
	var b strings.Builder
	for _, p := range []*process{&w.containerd, &w.kubelet, &w.proxy} {
		fmt.Fprintf(&b, "%s:\n%s\n", p.name, lastLines(p.log(), lines))
	}
	return b.String()
}

// close ends the programs, and then the pods.
func (w *Worker) close() error {
	errs := []error{w.kubelet.kill(), w.proxy.kill(), w.containerd.kill()}
	errs = append(errs, w.host.lab.cgroups.Kill(context.Background(), w.host.Name))
	return errors.Join(errs...)
}
