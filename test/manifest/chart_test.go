package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"

	"flannel/internal/testkit/assets"
	"flannel/internal/testkit/golden"
	"flannel/internal/testkit/kubeplane"
	"flannel/internal/testkit/kubetest"
)

const chart = "../../dist/chart/kube-flannel"

// helm runs the real one, which its module pins.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	program, err := assets.Path("helm")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	dir := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+dir, "HELM_CONFIG_HOME="+dir, "HELM_DATA_HOME="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = errors.New(err.Error() + ": " + stderr.String())
	}
	return string(out), err
}

// render returns what the chart makes of values.
func render(t *testing.T, values string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o644); err != nil {
		t.Fatal(err)
	}
	return helm(t, "template", "flannel", chart, "--namespace", "kube-flannel", "-f", file)
}

func TestChartIsWellFormed(t *testing.T) {
	if out, err := helm(t, "lint", "--strict", chart); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// objects reads manifests; the key is kind and name. What a chart may write
// differently is made the same.
func objects(t *testing.T, manifests string) map[string]any {
	t.Helper()
	out := map[string]any{}
	for d := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifests), 4096); ; {
		var o map[string]any
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if o == nil {
			continue
		}
		if data, ok := o["data"].(map[string]any); ok {
			for key, text := range data {
				var value any
				if err := json.Unmarshal([]byte(text.(string)), &value); err != nil {
					t.Fatal(err)
				}
				data[key] = value
			}
		}
		out[o["kind"].(string)+" "+o["metadata"].(map[string]any)["name"].(string)] = o
	}
}

func TestChartIsTheManifest(t *testing.T) {
	raw, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	text, err := render(t, "createNamespace: true")
	if err != nil {
		t.Fatal(err)
	}
	got, want := objects(t, text), objects(t, string(raw))
	// The checksum makes pods restart when helm changes their configuration.
	spec := got["DaemonSet kube-flannel-ds"].(map[string]any)["spec"].(map[string]any)
	delete(spec["template"].(map[string]any)["metadata"].(map[string]any), "annotations")
	// The selector cannot change: it is that of flannel's chart.
	labels := spec["selector"].(map[string]any)["matchLabels"].(map[string]any)
	if want := map[string]any{"app": "flannel"}; !reflect.DeepEqual(labels, want) {
		t.Errorf("selector %v, want %v", labels, want)
	}
	labels["k8s-app"] = "flannel"
	for name := range want {
		if !reflect.DeepEqual(got[name], want[name]) {
			t.Errorf("%s:\ngot  %v\nwant %v", name, got[name], want[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d objects, want %d", len(got), len(want))
	}
	without, err := render(t, "")
	if n := len(objects(t, without)); err != nil || n != len(want)-1 {
		t.Errorf("without the namespace: %d objects, %v", n, err)
	}
}

func TestChartRefusesWhatItDoesNotKnow(t *testing.T) {
	for values, want := range map[string]string{
		"podCIDR: 10.1.0.0/16":           "podCIDR",
		"flannel: {vin: 5}":              "vin",
		"flannel: {vni: five}":           "vni",
		"netpol: {enabled: true}":        "netpol",
		"flannel: {cniBinDir: opt}":      "cniBinDir",
		"flannel: {args: --ip-masq}":     "args",
		"flannel: {backend: wireguard}":  "backend",
		"flannel: {healthz: {port: -1}}": "port",
	} {
		if _, err := render(t, values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", values, err)
		}
	}
}

func TestChartForThePrometheusOperator(t *testing.T) {
	text, err := render(t, "flannel: {healthz: {port: 9000}, podMonitor: {enabled: true, labels: {release: prometheus}}, serviceMonitor: {enabled: true, interval: 1m}}")
	if err != nil {
		t.Fatal(err)
	}
	got := objects(t, text)
	for _, name := range []string{"PodMonitor flannel", "ServiceMonitor flannel", "Service flannel-metrics"} {
		if got[name] == nil {
			t.Errorf("no %s", name)
		}
	}
	for _, want := range []string{"release: prometheus", "interval: 1m", "name: health\n          containerPort: 9000", "name: health\n    port: 9000"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if _, err := render(t, "flannel: {healthz: {port: 0}, podMonitor: {enabled: true}}"); err == nil || !strings.Contains(err.Error(), "healthz.port") {
		t.Errorf("without a port: %v", err)
	}
}

// combinations are values that people set, and what must come of them.
var combinations = map[string]struct {
	values string
	check  func(pod podSpec) bool
}{
	"chart-default": {"", func(pod podSpec) bool {
		return pod.NodeSelector["kubernetes.io/os"] == "linux" && len(pod.Tolerations) == 2 && len(pod.InitContainers) == 2
	}},
	"chart-dual-stack": {`podCidrv6: "fd00:10:244::/56"`, nil},
	"chart-ipv6":       {"podCidr: \"\"\npodCidrv6: fd00:10:244::/56", nil},
	"chart-host-gw":    {`flannel: {backend: host-gw, vni: 7, mtu: 1400, psk: "1234", tunnelMode: auto, backendPortv6: 51821, keepaliveInterval: 25}`, nil},
	"chart-vxlan": {`flannel: {backendPort: 4789, mtu: 1400, vni: 4096, GBP: true, directRouting: true, enableNFTables: true,
		backendOptions: {ChecksumOffload: false}}`, nil},
	"chart-udp": {`flannel: {backend: UDP, backendPort: 8285}`, func(pod podSpec) bool {
		return slices.ContainsFunc(pod.Volumes, func(v volume) bool { return v.HostPath.Path == "/dev/net/tun" })
	}},
	"chart-placed": {`
global: {imagePullSecrets: [{name: registry}]}
flannel:
  image: {repository: registry.example.com/flannel, tag: v1, pullPolicy: Always, iptables: true}
  flannel_cni: {image: {repository: other, tag: v2}}
  cniBinDir: /var/lib/cni/bin
  cniConfDir: /var/lib/cni/net.d
  args: [--ip-masq, --kube-subnet-mgr, --iface=eth1, "--public-ip=192.0.2.1"]
  resources: {limits: {memory: 200Mi}}
  tolerations: [{key: only, operator: Exists, effect: NoSchedule}]
  nodeSelector: {zone: a}`, func(pod podSpec) bool {
		c := pod.Containers[0]
		return c.Image == "registry.example.com/flannel:v1-iptables" && pod.InitContainers[0].Image == c.Image &&
			slices.Equal(c.Args, []string{"--ip-masq", "--kube-subnet-mgr", "--iface=eth1", "--public-ip=192.0.2.1", "--healthz-port=8081"}) &&
			slices.ContainsFunc(pod.Volumes, func(v volume) bool { return v.HostPath.Path == "/var/lib/cni/net.d" }) &&
			len(pod.Tolerations) == 1 && len(pod.ImagePullSecrets) == 1 &&
			reflect.DeepEqual(pod.NodeSelector, map[string]string{"zone": "a", "kubernetes.io/os": "linux"})
	}},
	"chart-without-cni": {`flannel: {skipCNIConfigInstallation: true, healthz: {port: 0}, tolerations: [], resources: {}}`, func(pod podSpec) bool {
		c := pod.Containers[0]
		return len(pod.InitContainers) == 1 && c.LivenessProbe == nil && c.ReadinessProbe == nil &&
			!slices.ContainsFunc(c.Args, func(a string) bool { return strings.Contains(a, "healthz") }) &&
			!slices.ContainsFunc(pod.Volumes, func(v volume) bool { return v.Name == "cni" })
	}},
}

// chartApplies applies what the chart makes of values.
func chartApplies(t *testing.T, s *kubetest.Server) {
	for name, c := range combinations {
		t.Run(name, func(t *testing.T) {
			text, err := render(t, "createNamespace: true\n"+c.values)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "chart.yml")
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			apply(t, s, "--server-side", "--force-conflicts", "-f", file)
			data := get(t, s, configMapPath).Data
			goodConfig(t, data)
			golden.Equal(t, data["net-conf.json"]+"\n", "testdata/"+name+".json")
			leastRights(t, s)
			if pod := get(t, s, daemonSetPath).Spec.Template.Spec; c.check != nil && !c.check(pod) {
				t.Errorf("got %+v", pod)
			}
		})
	}
}

// chartInstalls goes the way of people: install, upgrade, uninstall.
func chartInstalls(t *testing.T, s *kubetest.Server) {
	run := func(args ...string) {
		t.Helper()
		if out, err := helm(t, append(args, "--kubeconfig", s.Kubeconfig(kubeplane.Admin), "--namespace", "chart")...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	const path = "/apis/apps/v1/namespaces/chart/daemonsets/kube-flannel-ds"
	run("install", "flannel", chart, "--create-namespace")
	before := get(t, s, path).Spec.Template.Metadata.Annotations
	run("upgrade", "flannel", chart, "--set", "flannel.backend=host-gw")
	if after := get(t, s, path).Spec.Template.Metadata.Annotations; reflect.DeepEqual(before, after) {
		t.Errorf("another backend does not restart the pods: %v", after)
	}
	run("uninstall", "flannel")
	var gone object
	if err := s.API.Get(t.Context(), path, &gone); !kubeplane.IsCode(err, 404) {
		t.Errorf("uninstalled and still there: %v", err)
	}
}
