// Package manifest applies the manifests of Documentation/ to a real API
// server.
package manifest

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"flannel/internal/testkit/assets"
	"flannel/internal/testkit/golden"
	"flannel/internal/testkit/kubeplane"
	"flannel/internal/testkit/kubetest"
	"flannel/subnet"
)

const (
	docs     = "../../Documentation"
	manifest = docs + "/kube-flannel.yml"
	variants = docs + "/kustomization"
)

// kubectl runs the real one against a server and returns what it prints.
func kubectl(t *testing.T, s *kubetest.Server, args ...string) (string, error) {
	t.Helper()
	path, err := assets.Path("kubectl")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, append([]string{"--kubeconfig=" + s.Kubeconfig(kubeplane.Admin)}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "KUBECACHEDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func apply(t *testing.T, s *kubetest.Server, args ...string) {
	t.Helper()
	out, err := kubectl(t, s, append([]string{"apply", "--validate=strict"}, args...)...)
	if err != nil || strings.Contains(strings.ToLower(out), "warning") {
		t.Fatalf("apply %v: %v\n%s", args, err, out)
	}
}

// object is what is looked at of what the server holds.
type object struct {
	Rules []any
	Data  map[string]string
	Spec  struct {
		Template struct {
			Metadata struct{ Annotations map[string]string }
			Spec     podSpec
		}
	}
}

type podSpec struct {
	Affinity         any
	Containers       []container
	InitContainers   []container
	Volumes          []volume
	NodeSelector     map[string]string
	Tolerations      []any
	ImagePullSecrets []any
}

type volume struct {
	Name     string
	HostPath struct{ Path string }
}

type mount struct {
	MountPath string
	ReadOnly  bool
}

type container struct {
	Name, Image                   string
	Args                          []string
	VolumeMounts                  []mount
	Env                           []struct{ Name string }
	LivenessProbe, ReadinessProbe any
	SecurityContext               struct {
		Privileged, ReadOnlyRootFilesystem bool
		Capabilities                       struct{ Add, Drop []string }
	}
}

func get(t *testing.T, s *kubetest.Server, path string) object {
	t.Helper()
	var o object
	if err := s.API.Get(t.Context(), path, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

const (
	daemonSetPath = "/apis/apps/v1/namespaces/kube-flannel/daemonsets/kube-flannel-ds"
	configMapPath = "/api/v1/namespaces/kube-flannel/configmaps/kube-flannel-cfg"
	rolePath      = "/apis/rbac.authorization.k8s.io/v1/clusterroles/flannel"
	eventRolePath = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles/flannel"
)

func TestManifest(t *testing.T) {
	s := kubetest.Start(t, kubetest.Options{})
	t.Run("over objects of the shape of flannel's repository", func(t *testing.T) { replacesRepository(t, s) })
	t.Run("over objects of the shape of flannel's release", func(t *testing.T) {
		apply(t, s, "-f", "testdata/before.yml")
		apply(t, s, "-f", manifest)
		pod := get(t, s, daemonSetPath).Spec.Template.Spec
		if pod.Affinity != nil || len(pod.Containers[0].Env) != 1 || len(pod.InitContainers) != 2 {
			t.Errorf("something of the former one is left: %+v", pod)
		}
	})
	t.Run("server-side with strict validation", func(t *testing.T) {
		apply(t, s, "--server-side", "--force-conflicts", "-f", manifest)
	})
	t.Run("it asks for no more than it needs", func(t *testing.T) { leastRights(t, s) })
	t.Run("its configuration is good", func(t *testing.T) { goodConfig(t, get(t, s, configMapPath).Data) })
	for _, variant := range []string{"base", "dual-stack", "host-gw", "iptables", "late-cni", "nftables", "udp"} {
		t.Run(variant, func(t *testing.T) {
			apply(t, s, "--server-side", "--force-conflicts", "-k", filepath.Join(variants, variant))
			data := get(t, s, configMapPath).Data
			goodConfig(t, data)
			golden.Equal(t, data["net-conf.json"], "testdata/"+variant+".json")
		})
	}
	t.Run("udp has its device", func(t *testing.T) {
		volumes := get(t, s, daemonSetPath).Spec.Template.Spec.Volumes
		for _, v := range volumes {
			if v.Name == "tun" {
				return
			}
		}
		t.Errorf("no volume tun in %v", volumes)
	})
	t.Run("iptables is another image", func(t *testing.T) {
		apply(t, s, "--server-side", "--force-conflicts", "-k", filepath.Join(variants, "iptables"))
		pod := get(t, s, daemonSetPath).Spec.Template.Spec
		for _, c := range append(pod.InitContainers, pod.Containers...) {
			if c.Image != "localhost/flanneld:devel-iptables" {
				t.Errorf("%s has the image %s", c.Name, c.Image)
			}
		}
	})
	t.Run("late-cni leaves the configuration to the daemon", func(t *testing.T) {
		apply(t, s, "--server-side", "--force-conflicts", "-k", filepath.Join(variants, "late-cni"))
		pod := get(t, s, daemonSetPath).Spec.Template.Spec
		c := pod.Containers[0]
		if !slices.Contains(c.Args, "--cni-conf=/etc/kube-flannel/cni-conf.json") || len(pod.InitContainers) != 1 ||
			!slices.Contains(c.SecurityContext.Capabilities.Add, "DAC_OVERRIDE") || !slices.Contains(c.VolumeMounts, mount{"/etc/cni/net.d", false}) {
			t.Errorf("got %+v", pod)
		}
	})
	t.Run("cleanup", func(t *testing.T) { cleansUp(t, s) })
	// The chart has another selector.
	deleteDaemonSet(t, s)
	t.Run("chart", func(t *testing.T) { chartApplies(t, s) })
	deleteDaemonSet(t, s)
	t.Run("chart, by helm", func(t *testing.T) {
		apply(t, s, "--server-side", "--force-conflicts", "-f", manifest)
		if out, err := kubectl(t, s, "delete", "-f", manifest, "--wait=false"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		chartInstalls(t, s)
	})
}

// replacesRepository applies over a DaemonSet that has one label less in its
// selector, which cannot change.
func replacesRepository(t *testing.T, s *kubetest.Server) {
	raw, err := os.ReadFile("testdata/before.yml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "repository.yml")
	text := strings.ReplaceAll(string(raw), "app: flannel, k8s-app: flannel", "app: flannel")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	apply(t, s, "-f", file)
	if out, err := kubectl(t, s, "apply", "-f", manifest); err == nil || !strings.Contains(out, "field is immutable") {
		t.Errorf("applied over another selector: %v\n%s", err, out)
	}
	apply(t, s, "-k", filepath.Join(variants, "from-repository"))
	apply(t, s, "-f", file) // and back
	deleteDaemonSet(t, s)
}

func deleteDaemonSet(t *testing.T, s *kubetest.Server) {
	t.Helper()
	if out, err := kubectl(t, s, "delete", "--namespace=kube-flannel", "daemonset/kube-flannel-ds"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func leastRights(t *testing.T, s *kubetest.Server) {
	pod := get(t, s, daemonSetPath).Spec.Template.Spec
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		sc := c.SecurityContext
		if sc.Privileged || !sc.ReadOnlyRootFilesystem || !reflect.DeepEqual(sc.Capabilities.Drop, []string{"ALL"}) {
			t.Errorf("%s: %+v", c.Name, sc)
		}
	}
	adds := func(c container, want ...string) {
		if got := c.SecurityContext.Capabilities.Add; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: capabilities %v, want %v", c.Name, got, want)
		}
	}
	adds(pod.Containers[0], "NET_ADMIN", "NET_RAW")
	mounted := []string{"/var/lib/cni"}
	if len(pod.InitContainers) > 1 { // the chart can leave the configuration to others
		mounted = append(mounted, "/etc/cni/net.d")
	}
	for _, path := range mounted {
		if !slices.Contains(pod.Containers[0].VolumeMounts, mount{path, true}) {
			t.Errorf("%s is not mounted read-only", path)
		}
	}
	for _, c := range pod.InitContainers {
		adds(c, "DAC_OVERRIDE")
	}
	for path, rules := range map[string]string{rolePath: kubeplane.DaemonRules, eventRolePath: kubeplane.EventRules} {
		var want []any
		if err := json.Unmarshal([]byte(rules), &want); err != nil {
			t.Fatal(err)
		}
		if got := get(t, s, path).Rules; !sameRules(got, want) {
			t.Errorf("%s: rules %v, want those that the tests run with: %v", path, got, want)
		}
	}
}

// sameRules compares what is in two lists of rules.
func sameRules(a, b []any) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		left, right := a[i].(map[string]any), b[i].(map[string]any)
		for _, key := range []string{"apiGroups", "resources", "verbs"} {
			if !reflect.DeepEqual(left[key], right[key]) {
				return false
			}
		}
	}
	return true
}

func goodConfig(t *testing.T, data map[string]string) {
	t.Helper()
	if c, err := subnet.ParseConfig([]byte(data["net-conf.json"]), false); err != nil || len(c.Warnings) > 0 {
		t.Errorf("net-conf.json: %v %+v", err, c)
	}
	var cni struct{ Name, CNIVersion string }
	if err := json.Unmarshal([]byte(data["cni-conf.json"]), &cni); err != nil || cni.Name != "cbr0" || cni.CNIVersion != "0.3.1" {
		t.Errorf("cni-conf.json: %v %+v", err, cni)
	}
}

// TestBaseIsTheManifest keeps the copy that kustomize needs.
func TestBaseIsTheManifest(t *testing.T) {
	want, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(variants+"/base/kube-flannel.yml", want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(variants + "/base/kube-flannel.yml")
	if err != nil || string(got) != string(want) {
		t.Errorf("kustomization/base/kube-flannel.yml is not kube-flannel.yml (-update makes it so): %v", err)
	}
}
