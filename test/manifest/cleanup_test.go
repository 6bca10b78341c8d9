package manifest

import (
	"reflect"
	"slices"
	"testing"

	"flannel/internal/testkit/kubetest"
)

// cleansUp applies the manifest that removes everything, beside the others.
func cleansUp(t *testing.T, s *kubetest.Server) {
	apply(t, s, "--server-side", "-f", docs+"/kube-flannel-cleanup.yml")
	pod := get(t, s, "/apis/apps/v1/namespaces/kube-flannel-cleanup/daemonsets/kube-flannel-cleanup").Spec.Template.Spec
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		sc := c.SecurityContext
		if sc.Privileged || !sc.ReadOnlyRootFilesystem || !reflect.DeepEqual(sc.Capabilities.Drop, []string{"ALL"}) {
			t.Errorf("%s: %+v", c.Name, sc)
		}
	}
	if len(pod.InitContainers) != 1 || slices.Contains(pod.InitContainers[0].Args, "--cni") {
		t.Errorf("got %+v", pod.InitContainers)
	}
	// What the daemon's manifest mounts must be cleaned as well.
	paths := func(volumes []volume) (list []string) {
		for _, v := range volumes {
			list = append(list, v.HostPath.Path)
		}
		return list
	}
	have := paths(pod.Volumes)
	for _, path := range paths(get(t, s, daemonSetPath).Spec.Template.Spec.Volumes) {
		if path != "" && path != "/dev/net/tun" && !slices.Contains(have, path) {
			t.Errorf("the daemon has %s, which is not mounted", path)
		}
	}
}
