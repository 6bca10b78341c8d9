package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/internal/testkit/kubeplane"
	"flannel/subnet"
	"flannel/subnet/subnettest"
)

// reports collect what a manager waits for.
type reports struct{ waiting, reachable latest[error] }

func (r *reports) listen(o *Options) {
	o.Waiting, o.Reachable = r.waiting.set, r.reachable.set
}

// await waits until the cause contains the text; an empty text means none.
func await(t *testing.T, l *latest[error], want string) {
	t.Helper()
	eventually.True(t, fmt.Sprintf("the cause %q", want), func() bool {
		if err, _, _ := l.get(); err != nil {
			return want != "" && strings.Contains(err.Error(), want)
		}
		return want == ""
	})
}

// acquiring starts Acquire for a node; the channel gives the lease.
func acquiring(t *testing.T, m *Manager) <-chan subnet.Lease {
	leases := make(chan subnet.Lease, 1)
	subnettest.Background(t, func(ctx context.Context) error {
		l, err := m.Acquire(ctx, attrs4(), ipfam.Pair[netip.Prefix]{})
		if err == nil {
			leases <- l
		}
		return err
	})
	return leases
}

// quickly returns the lease, which must be there within two seconds.
func quickly(t *testing.T, leases <-chan subnet.Lease) subnet.Lease {
	t.Helper()
	start := time.Now()
	select {
	case l := <-leases:
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("went on after %v", took)
		}
		return l
	case <-time.After(30 * time.Second):
		t.Fatal("does not go on")
		return subnet.Lease{}
	}
}

func (h *harness) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// causes are what a manager waits for, entered and left.
func causes() map[string]func(t *testing.T, h *harness) {
	return map[string]func(t *testing.T, h *harness){
		"there is no Node, but one that comes close": func(t *testing.T, h *harness) {
			h.must(t, h.server.API.CreateNode(h.ctx(t), "web1.example.com"))
			reported, m := h.listening(t, "Web1")
			acquiring(t, m)
			await(t, &reported.waiting, `there is no Node "Web1", but web1.example.com: set NODE_NAME`)
		},
		"the Node comes late": func(t *testing.T, h *harness) {
			reported, m := h.listening(t, "late")
			leases := acquiring(t, m)
			await(t, &reported.waiting, `there is no Node "late": the kubelet creates it`)
			h.must(t, h.server.API.CreateNode(h.ctx(t), "late", "10.5.1.0/24"))
			quickly(t, leases)
			await(t, &reported.waiting, "")
		},
		"the pod CIDR comes late": func(t *testing.T, h *harness) {
			h.must(t, h.server.API.CreateNode(h.ctx(t), "bare"))
			reported, m := h.listening(t, "bare")
			leases := acquiring(t, m)
			await(t, &reported.waiting, `Node "bare" has no pod CIDR: give the cluster one with kubeadm init --pod-network-cidr`)
			h.awaitEvent(t, "bare", "NoPodCIDR")
			h.patch(t, "bare", `{"spec":{"podCIDR":"10.5.2.0/24","podCIDRs":["10.5.2.0/24"]}}`)
			quickly(t, leases)
			await(t, &reported.waiting, "")
		},
		"the pod CIDR is outside Network": func(t *testing.T, h *harness) {
			h.must(t, h.server.API.CreateNode(h.ctx(t), "outside", "10.9.2.0/24"))
			reported, m := h.listening(t, "outside")
			leases := acquiring(t, m)
			await(t, &reported.waiting, `pod CIDR 10.9.2.0/24 of Node "outside" is outside the Network 10.5.0.0/16`)
			h.awaitEvent(t, "outside", "PodCIDROutsideNetwork")
			h.must(t, h.server.API.DeleteNode(h.ctx(t), "outside"))
			await(t, &reported.waiting, "there is no Node")
			h.must(t, h.server.API.CreateNode(h.ctx(t), "outside", "10.5.2.0/24"))
			quickly(t, leases)
		},
		"it is forbidden": func(t *testing.T, h *harness) {
			h.must(t, h.server.API.CreateNode(h.ctx(t), "forbidden", "10.5.3.0/24"))
			h.must(t, h.server.API.ForbidDaemon(h.ctx(t)))
			t.Cleanup(func() { h.must(t, h.server.API.AllowDaemon(h.ctx(t))) })
			reported, m := h.listening(t, "forbidden")
			leases := acquiring(t, m)
			await(t, &reported.waiting, `not allowed to list nodes: give the ClusterRole of this daemon the rule apiGroups [""], resources ["nodes"], verbs ["list"]`)
			h.must(t, h.server.API.AllowDaemon(h.ctx(t)))
			<-leases
			await(t, &reported.waiting, "")
		},
		"publishing is forbidden": func(t *testing.T, h *harness) {
			h.must(t, h.server.API.CreateNode(h.ctx(t), "mute", "10.5.3.0/24"))
			h.must(t, h.server.API.AllowDaemonOnly(h.ctx(t), `[
				{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}]`, kubeplane.EventRules))
			t.Cleanup(func() { h.must(t, h.server.API.AllowDaemon(h.ctx(t))) })
			o := h.options(t, "mute")
			o.SetNetworkUnavailable = true
			reported := &reports{}
			reported.listen(&o)
			m := start(t, o)
			m.NetworkReady()
			leases := acquiring(t, m)
			await(t, &reported.waiting, `not allowed to patch nodes/status: give the ClusterRole of this daemon the rule apiGroups [""], resources ["nodes/status"], verbs ["patch"]`)
			h.awaitEvent(t, "mute", "Forbidden")
			h.must(t, h.server.API.AllowDaemon(h.ctx(t)))
			<-leases
			eventually.True(t, "the condition", func() bool { return strings.HasPrefix(h.condition(t, "mute"), "False FlannelIsUp") })
			await(t, &reported.waiting, "")
		},
		"an Event waits for the Node": func(t *testing.T, h *harness) {
			m := start(t, h.options(t, "late"))
			posted := make(chan error, 1)
			subnettest.Background(t, func(ctx context.Context) error {
				err := m.PostEvent(ctx, "HostSettings", "net.ipv4.ip_forward is 0")
				posted <- err
				return err
			})
			h.must(t, h.server.API.CreateNode(h.ctx(t), "late"))
			h.must(t, <-posted)
			h.awaitEvent(t, "late", "HostSettings")
		},
		"Events are forbidden": func(t *testing.T, h *harness) {
			h.must(t, h.server.API.CreateNode(h.ctx(t), "eventless"))
			h.must(t, h.server.API.AllowDaemonOnly(h.ctx(t), `[
				{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
				{"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]}]`, kubeplane.NoRules))
			t.Cleanup(func() { h.must(t, h.server.API.AllowDaemon(h.ctx(t))) })
			reported, m := h.listening(t, "eventless")
			leases := acquiring(t, m)
			await(t, &reported.waiting, "has no pod CIDR")
			h.patch(t, "eventless", `{"spec":{"podCIDR":"10.5.2.0/24","podCIDRs":["10.5.2.0/24"]}}`)
			quickly(t, leases)
			await(t, &reported.waiting, "")
		},
		"the pod does not exist": func(t *testing.T, h *harness) {
			reported := &reports{}
			o := h.options(t, "")
			o.Getenv = func(name string) string {
				return map[string]string{"POD_NAME": "gone", "POD_NAMESPACE": "default"}[name]
			}
			reported.listen(&o)
			start(t, o)
			await(t, &reported.waiting, "there is no pod default/gone, as POD_NAMESPACE and POD_NAME name it: set both to this daemon's pod")
		},
		"the credentials are wrong": func(t *testing.T, h *harness) {
			reported := &reports{}
			o := h.options(t, "unknown")
			reported.listen(&o)
			h.must(t, h.server.WriteKubeconfig(o.Kubeconfig, "https://"+h.front.addr, "nobody"))
			acquiring(t, start(t, o))
			await(t, &reported.waiting, "the API server does not accept this node's credentials")
		},
		"the API server cannot be reached": func(t *testing.T, h *harness) {
			h.must(t, h.server.API.CreateNode(h.ctx(t), "alone", "10.5.4.0/24"))
			h.SetReachable(t, false)
			reported, m := h.listening(t, "alone")
			leases := acquiring(t, m)
			await(t, &reported.reachable, "cannot be reached: dial "+h.front.addr+": connection refused; see: curl -k https://"+h.front.addr+"/version")
			h.SetReachable(t, true)
			<-leases
			await(t, &reported.reachable, "")
		},
		"the certificate is not trusted": func(t *testing.T, h *harness) {
			reported := &reports{}
			o := h.options(t, "distrustful")
			reported.listen(&o)
			other := &kubeplane.Plane{Dir: t.TempDir(), Addr: h.server.Addr}
			h.must(t, other.Write())
			h.must(t, other.WriteKubeconfig(o.Kubeconfig, "https://"+h.front.addr, kubeplane.Daemon))
			acquiring(t, start(t, o))
			await(t, &reported.reachable, "the certificate of API server https://"+h.front.addr+" is not trusted")
		},
	}
}

// listening starts a manager whose causes are collected.
func (h *harness) listening(t *testing.T, node string) (*reports, *Manager) {
	t.Helper()
	reported := &reports{}
	o := h.options(t, node)
	reported.listen(&o)
	return reported, start(t, o)
}

func (h *harness) patch(t *testing.T, node, text string) {
	t.Helper()
	_, err := h.server.API.Do(h.ctx(t), http.MethodPatch, "/api/v1/nodes/"+node, kubeplane.MergePatch, text)
	h.must(t, err)
}

// awaitEvent waits until there is an Event about a Node.
func (h *harness) awaitEvent(t *testing.T, node, reason string) {
	t.Helper()
	eventually.True(t, "an Event "+reason, func() bool {
		var list struct {
			Items []struct{ Reason, Message string }
		}
		h.must(t, h.server.API.Get(h.ctx(t), "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name="+node, &list))
		for _, e := range list.Items {
			if e.Reason == reason && e.Message != "" {
				return true
			}
		}
		return false
	})
}

func TestAddressOfTheService(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	for url, want := range map[string]bool{"https://10.96.0.1:443": true, "https://192.0.2.1:6443": false} {
		s := server{url: url, service: isService(url)}
		text := s.explainUnanswered(errors.New("timeout")).Error()
		if got := strings.Contains(text, "kube-proxy must serve it on this node, or --kube-api-url"); got != want {
			t.Errorf("%s: %s", url, text)
		}
	}
}

func TestWhereTheAPIServerIs(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := restConfig(Options{}); err == nil || !strings.Contains(err.Error(), "--kubeconfig-file: missing") {
		t.Errorf("outside a pod: %v", err)
	}
	if c, err := restConfig(Options{APIURL: "http://192.0.2.1:8080"}); err != nil || c.Host != "http://192.0.2.1:8080" {
		t.Errorf("a URL alone: %+v, %v", c, err)
	}
	bad := t.TempDir() + "/kubeconfig"
	if err := os.WriteFile(bad, []byte("]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := restConfig(Options{Kubeconfig: bad}); err == nil || !strings.HasPrefix(err.Error(), "--kubeconfig-file: ") {
		t.Errorf("a broken kubeconfig: %v", err)
	}
}

func TestAKubeconfigThatIsIncomplete(t *testing.T) {
	const rest = `
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://192.0.2.1:6443"}}]
contexts: [{name: b, context: {cluster: c, user: u}}, {name: a, context: {cluster: c}}]
users: [{name: u, user: {}}]`
	path := t.TempDir() + "/kubeconfig"
	for text, want := range map[string]string{
		rest: "--kubeconfig-file: PATH has no current-context (its contexts: a, b); set one: kubectl --kubeconfig PATH config use-context NAME",
		"":   "--kubeconfig-file: PATH has no current-context (it has no contexts); set one: kubectl --kubeconfig PATH config use-context NAME",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := restConfig(Options{Kubeconfig: path}); err == nil || err.Error() != strings.ReplaceAll(want, "PATH", path) {
			t.Errorf("%v", err)
		}
	}
	for context, want := range map[string]string{
		`""`: "requests are anonymous, because PATH has no current-context (its contexts: a, b); set one: kubectl --kubeconfig PATH config use-context NAME",
		"a":  "requests are anonymous, because the current context of PATH has no user; set one: kubectl --kubeconfig PATH config set-context --current --user=NAME",
		"b":  "requests are anonymous, because user \"u\" of PATH has no credentials; set them: kubectl --kubeconfig PATH config set-credentials u",
	} {
		if err := os.WriteFile(path, []byte("current-context: "+context+rest), 0o600); err != nil {
			t.Fatal(err)
		}
		o := Options{Kubeconfig: path, APIURL: "https://192.0.2.2:6443"}
		config, err := restConfig(o)
		if err != nil {
			t.Fatal(err)
		}
		s := server{anonymous: checkCredentials(o, config)}
		got := s.explainRefusal(errors.New("forbidden"), rule{"list", "nodes"}).Error()
		if !strings.HasPrefix(got, "not allowed to list nodes: "+strings.ReplaceAll(want, "PATH", path)) || strings.Contains(got, "ClusterRole") {
			t.Errorf("context %s: %s", context, got)
		}
	}
}

func TestTimeoutsAreOneCause(t *testing.T) {
	s := server{url: "https://192.0.2.1:6443"}
	want := s.explainUnanswered(context.DeadlineExceeded).Error()
	for _, err := range []error{
		&url.Error{Op: "Get", URL: s.url, Err: context.DeadlineExceeded},
		&net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded},
		&net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)},
	} {
		if got := s.explainUnanswered(err).Error(); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}
