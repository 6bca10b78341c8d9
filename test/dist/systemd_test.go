package dist

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
	"flannel/lab/cgroup"
)

// built are the programs; the daemon is as it is installed.
var built = sync.OnceValues(func() (lab.Binaries, error) {
	b, err := lab.Servers()
	if err != nil {
		return b, err
	}
	dir, err := lab.BuildStatic("flannel/cmd/flanneld")
	b.Flanneld = filepath.Join(dir, "flanneld")
	return b, err
})

// newLab returns a cluster of two hosts, without any flanneld.
func newLab(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	b, err := built()
	lab.Must(t, err)
	o.Hosts, o.Binaries = 2, b
	return lab.ForTest(t, o)
}

func limited(t *testing.T) context.Context { return lab.Limited(t, 40*time.Second) }

// booted is a host on which systemd runs the unit.
type booted struct {
	*lab.Host
	t *testing.T
	// boot is the process whose child systemd is.
	boot int
}

// targets are what the unit asks of the rest of a system.
var targets = []string{"sysinit.target", "basic.target", "shutdown.target", "network-online.target", "multi-user.target"}

// boot installs the unit on a host and starts a real systemd there. files are
// what else an administrator installs, by their paths.
func boot(t *testing.T, h *lab.Host, files map[string]string) *booted {
	t.Helper()
	const units = "/run/units"
	b, err := built()
	lab.Must(t, err)
	lab.Must(t, h.CopyOnWrite("/etc", "/usr/local", "/var/lib"))
	files[units+"/flanneld.service"] = read(t, unit)
	for _, name := range targets {
		files[units+"/"+name] = "[Unit]\nDefaultDependencies=no\n"
	}
	files[units+"/test.target"] = "[Unit]\nDefaultDependencies=no\nRequires=flanneld.service\n"
	program := read(t, b.Flanneld)
	script := read(t, "testdata/boot.sh")
	lab.Must(t, h.Do(func() error {
		for path, text := range files {
			mode := os.FileMode(0o644)
			if strings.HasPrefix(text, "#!") {
				mode = 0o755
			}
			if err := install(path, text, mode); err != nil {
				return err
			}
		}
		return install("/usr/local/bin/flanneld", program, 0o755)
	}))

	groups, err := cgroup.New()
	lab.Must(t, err)
	var log strings.Builder
	var input io.WriteCloser
	cmd, err := h.Start(context.Background(), []string{"sh", "-c", script, "boot", units, "test.target"}, func(cmd *exec.Cmd) (err error) {
		cmd.Stdout, cmd.Stderr = &log, &log
		input, err = cmd.StdinPipe()
		return err
	})
	lab.Must(t, err)
	t.Cleanup(func() {
		if err := groups.Remove(context.Background()); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("systemd said:\n%s", log.String())
		}
	})
	lab.Must(t, groups.Add("", cmd.Process.Pid))
	_, err = fmt.Fprintln(input)
	lab.Must(t, err)
	return &booted{Host: h, t: t, boot: cmd.Process.Pid}
}

// systemctl runs it where systemd is PID 1.
func (b *booted) systemctl(args ...string) (string, error) {
	child, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", b.boot))
	if err != nil {
		return "", err
	}
	if len(child) == 0 {
		return "", errors.New("systemd does not run")
	}
	enter := []string{"nsenter", "--target=" + strings.TrimSpace(string(child)), "--pid", "--mount", "systemctl"}
	return b.Exec(b.t.Context(), append(enter, args...)...)
}

func install(path, text string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), mode)
}

// property returns one of the unit's.
func (b *booted) property(name string) string {
	out, err := b.systemctl("show", "--value", "--property="+name, "flanneld.service")
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(out)
}

// await waits for a property of the unit; of the status in words a part is
// enough.
func (b *booted) await(name, text string) {
	b.t.Helper()
	eventually.Says(b.t, func() (string, bool) {
		got := b.property(name)
		ok := got == text || name == "StatusText" && strings.Contains(got, text)
		return fmt.Sprintf("%s is %q, want %q\n%s", name, got, text, b.journal()), ok
	})
}

// journal is what the daemon has written.
func (b *booted) journal() string {
	text, _ := b.ReadFile("/run/log/unit.log") // not there before the first line
	return string(text)
}

// restricted checks that the daemon has no more rights than the unit gives.
func (b *booted) restricted() {
	b.t.Helper()
	out, err := b.Exec(b.t.Context(), "sh", "-c", `
		for p in /proc/[0-9]*; do
			[ "$(cat $p/comm 2>/dev/null)" = flanneld ] && [ "$(readlink $p/ns/net)" = "$(readlink /proc/self/ns/net)" ] &&
				grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' $p/status && exit
		done`)
	want := []string{"CapEff: 0000000000003000", "CapBnd: 0000000000003000", "NoNewPrivs: 1", "Seccomp: 2"}
	got := strings.Split(strings.TrimSpace(strings.ReplaceAll(out, ":\t", ": ")), "\n")
	if err != nil || strings.Join(got, ", ") != strings.Join(want, ", ") {
		b.t.Errorf("the daemon has %q, want %q: %v", got, want, err)
	}
}

// logged is a drop-in that keeps the daemon's log in a file.
const logged = "[Service]\nStandardOutput=append:/run/log/unit.log\nStandardError=append:/run/log/unit.log\n"

// join brings up flanneld on the other host, and a pod on each.
func join(t *testing.T, l *lab.Lab) {
	t.Helper()
	lab.Must(t, l.Hosts[0].StartFlanneld())
	lab.Must(t, l.Hosts[0].WaitReady(limited(t)))
	for _, h := range l.Hosts {
		_, err := h.AddPod("pod1")
		lab.Must(t, err)
	}
	connected(t, l)
}

func connected(t *testing.T, l *lab.Lab) {
	t.Helper()
	if err := l.WaitConnected(limited(t)); err != nil {
		t.Fatalf("%v\n%s", err, l.PingAll(t.Context()))
	}
}

// TestUnderSystemd runs the unit, with all its restrictions, under a real
// systemd: it waits for its cluster, becomes active when the node is ready,
// heals, is started again after a crash, leaves the network when it stops, and
// starts without its cluster.
func TestUnderSystemd(t *testing.T) {
	l := newLab(t, lab.Options{Kubernetes: true})
	h, api := l.Hosts[1], l.Kubernetes.API
	lab.Must(t, api.DeleteNode(t.Context(), h.Name))
	b := boot(t, h, map[string]string{
		"/run/units/flanneld.service.d/log.conf": logged,
		"/etc/default/flanneld":                  "NODE_NAME=" + h.Name + "\n",
		"/etc/flannel/kubeconfig":                read(t, l.Kubernetes.Plane.Kubeconfig("flannel")),
		"/etc/flannel/net-conf.json":             `{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}`,
	})
	b.await("StatusText", `there is no Node "host2"`)
	b.await("ActiveState", "activating")
	lab.Must(t, api.CreateNode(t.Context(), h.Name))
	b.await("ActiveState", "active")
	b.await("StatusText", "ready")
	b.restricted()
	join(t, l)
	b.masquerades("iptables-nft-save")
	_, err := h.Exec(t.Context(), "ip", "link", "del", "flannel.1")
	lab.Must(t, err)
	connected(t, l)

	_, err = b.systemctl("kill", "--kill-whom=main", "--signal=KILL", "flanneld.service")
	lab.Must(t, err)
	b.await("NRestarts", "1")
	b.await("ActiveState", "active")
	connected(t, l)

	_, err = b.systemctl("stop", "flanneld.service")
	lab.Must(t, err)
	if got := b.property("Result"); got != "success" {
		t.Errorf("stopped with %s\n%s", got, b.journal())
	}
	if _, err := h.Subnet(); err != nil {
		t.Errorf("subnet.env is gone: %v", err)
	}
	connected(t, l)

	// After a reboot without the API server it runs from its state.
	lab.Must(t, l.Kubernetes.Stop())
	_, err = h.Exec(t.Context(), "sh", "-c", "ip link del flannel.1; iptables-nft -t nat -F; rm -r /run/flannel; stat -c %a%u /var/lib/flannel | grep -x 7000")
	lab.Must(t, err)
	_, err = b.systemctl("start", "flanneld.service")
	lab.Must(t, err)
	b.await("StatusText", "leases: running from state of 20")
	b.masquerades("iptables-nft-save")
	connected(t, l)
	lab.Must(t, l.Kubernetes.Start(limited(t)))
	eventually.Says(t, func() (string, bool) {
		text := b.property("StatusText")
		return text, strings.HasPrefix(text, "ready") && !strings.Contains(text, "state of")
	})
	connected(t, l)
}

// masquerades checks that the rules are written: that needs a file outside of
// the unit's own folder, and a program that the daemon starts.
func (b *booted) masquerades(save string) {
	b.t.Helper()
	eventually.Says(b.t, func() (string, bool) {
		rules, err := b.Exec(b.t.Context(), save, "-t", "nat")
		return rules + b.journal(), err == nil && strings.Contains(rules, "FLANNEL-POSTRTG")
	})
}

// startedDocker checks that the drop-in has given Docker this host's subnet,
// beside the options of the administrator.
func (b *booted) startedDocker() {
	b.t.Helper()
	eventually.Says(b.t, func() (string, bool) {
		got, err := b.ReadFile("/run/log/docker.started")
		if err != nil {
			return err.Error(), false
		}
		e, err := b.Env()
		if err != nil {
			return err.Error(), false
		}
		want := fmt.Sprintf("-H fd:// --containerd=/run/containerd/containerd.sock --debug --live-restore --bip=%s --ip-masq=false --mtu=%d\n",
			e.Subnet[ipfam.V4], e.MTU)
		return fmt.Sprintf("started with %swant %s", got, want), string(got) == want
	})
}

// TestUnderSystemdWithEtcd runs the etcd flavour, with a backend that needs its
// device, and on a host whose rules are legacy ones, which need a lock. Docker
// starts when it is ready.
func TestUnderSystemdWithEtcd(t *testing.T) {
	l := newLab(t, lab.Options{Backend: `{"Type": "udp"}`})
	for _, command := range []string{"iptables-legacy -t mangle -N KUBE-IPTABLES-HINT", "rm -f /run/xtables.lock"} {
		_, err := l.Hosts[1].Exec(t.Context(), strings.Fields(command)...)
		lab.Must(t, err)
	}
	b := boot(t, l.Hosts[1], map[string]string{
		"/run/units/flanneld.service.d/etcd.conf": read(t, etcdDropIn),
		"/run/units/flanneld.service.d/log.conf":  logged,
		"/etc/default/flanneld":                   "FLANNELD_ETCD_ENDPOINTS=" + l.Etcd.Endpoint() + "\n",
		// Docker itself is tested elsewhere; this one tells how it was started.
		"/run/units/docker.service":                    "[Service]\nEnvironmentFile=-/etc/default/docker\nExecStart=/bin/false\n",
		"/run/units/docker.service.d/flannel.conf":     read(t, dockerDropIn),
		"/etc/default/docker":                          "DOCKER_OPTS=\"--debug --live-restore\"\n",
		"/usr/local/libexec/flannel/mk-docker-opts.sh": read(t, mkDockerOpts),
		"/usr/local/bin/dockerd":                       "#!/bin/sh\necho \"$@\" >/run/log/docker.started\nexec sleep infinity\n",
	})
	b.await("LoadState", "loaded")
	_, err := b.systemctl("start", "docker.service")
	lab.Must(t, err)
	b.startedDocker()
	b.await("ActiveState", "active")
	b.restricted()
	join(t, l)
	b.masquerades("iptables-legacy-save")
}
