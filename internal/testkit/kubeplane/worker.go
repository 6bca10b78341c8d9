package kubeplane

import (
	"encoding/json"
	"net/netip"
)

// Pause is the image that keeps the namespaces of a pod; nodes must have it.
const Pause = "docker.io/library/testpod:lab"

// Where the programs of a node keep what is theirs.
const (
	CNIPlugins = "/opt/cni/bin"
	CNIConfig  = "/etc/cni/net.d"
	kubeletDir = "/var/lib/kubelet"
	// StaticPods is the folder of pods that kubelet runs without the API server.
	StaticPods = "/etc/kubernetes/manifests"
	// socket is where containerd listens.
	socket = "/run/containerd/containerd.sock"
)

// Worker is a node that runs pods. All paths are as the node sees them.
type Worker struct {
	Name string
	// Addrs are those of the node, one per family.
	Addrs []netip.Addr
	// Cgroup is below which the pods' control groups are; no two nodes of a
	// machine share it.
	Cgroup string
	// Dir is where the configuration of the programs is.
	Dir string
	// Kubeconfig of kubelet and kube-proxy.
	Kubeconfig string
	// PodRanges are those of the cluster.
	PodRanges []netip.Prefix
	// DNS is the address by which pods resolve names; none when it is not
	// valid.
	DNS netip.Addr
}

// Files returns the configuration of the programs, by path.
func (w *Worker) Files() (map[string]string, error) {
	kubelet, err := json.Marshal(w.kubelet())
	return map[string]string{w.containerdFile(): containerdConfig, w.kubeletFile(): string(kubelet)}, err
}

func (w *Worker) containerdFile() string { return w.Dir + "/containerd.toml" }
func (w *Worker) kubeletFile() string    { return w.Dir + "/kubelet.json" }

// containerdConfig keeps everything below /run. A machine without
// CAP_SYS_RESOURCE must not lower the scores of the pods for the OOM killer.
const containerdConfig = `version = 2
root = "/run/containerd/root"
state = "/run/containerd/state"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "` + socket + `"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + Pause + `"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "` + CNIPlugins + `"
    conf_dir = "` + CNIConfig + `"
`

// kubelet is kubelet's configuration. Disks and memory of the machine are not
// the pods' alone, so nothing is evicted for them.
func (w *Worker) kubelet() map[string]any {
	config := map[string]any{
		"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
		"containerRuntimeEndpoint": "unix://" + socket,
		"authentication":           map[string]any{"anonymous": map[string]any{"enabled": true}, "webhook": map[string]any{"enabled": false}},
		"authorization":            map[string]any{"mode": "AlwaysAllow"},
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               w.Cgroup,
		"failCgroupV1":             false,
		"enforceNodeAllocatable":   []string{},
		"evictionHard":             map[string]string{"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
		"failSwapOn":               false,

		"imageGCHighThresholdPercent":   100,
		"localStorageCapacityIsolation": false,
		"oomScoreAdj":                   0,
		"protectKernelDefaults":         true,
		"resolvConf":                    "/dev/null",
		"staticPodPath":                 StaticPods,
		"volumePluginDir":               kubeletDir + "/plugins-of-volumes",
	}
	if w.DNS.IsValid() {
		config["clusterDNS"], config["clusterDomain"] = []string{w.DNS.String()}, "cluster.local"
	}
	return config
}

// KernelDefaults returns the settings of the machine that kubelet asks for.
func KernelDefaults() map[string]string {
	return map[string]string{
		"/proc/sys/vm/overcommit_memory":      "1",
		"/proc/sys/vm/panic_on_oom":           "0",
		"/proc/sys/kernel/panic":              "10",
		"/proc/sys/kernel/panic_on_oops":      "1",
		"/proc/sys/kernel/keys/root_maxkeys":  "1000000",
		"/proc/sys/kernel/keys/root_maxbytes": "25000000",
	}
}

// Containerd returns the arguments of containerd.
func (w *Worker) Containerd() []string { return []string{"--config=" + w.containerdFile()} }

// Import returns the arguments of ctr that load an archive of images.
func (w *Worker) Import(archive string) []string {
	return []string{"--address=" + socket, "--namespace=k8s.io", "images", "import", archive}
}

// Kubelet returns the arguments of kubelet.
func (w *Worker) Kubelet() []string {
	return []string{
		"--kubeconfig=" + w.Kubeconfig, "--config=" + w.kubeletFile(),
		"--hostname-override=" + w.Name, "--node-ip=" + join(w.Addrs),
		"--root-dir=" + kubeletDir, "--cert-dir=" + kubeletDir + "/pki",
	}
}

// KubeProxy returns the arguments of kube-proxy. It leaves alone what belongs
// to the whole machine.
func (w *Worker) KubeProxy() []string {
	return []string{
		"--kubeconfig=" + w.Kubeconfig, "--hostname-override=" + w.Name,
		"--proxy-mode=iptables", "--cluster-cidr=" + join(w.PodRanges),
		"--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
		"--oom-score-adj=0",
	}
}
