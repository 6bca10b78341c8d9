package docker

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"flannel/internal/testkit/eventually"
	"flannel/lab"
	"flannel/lab/cgroup"
	"flannel/lab/node"
)

// client is Docker's command line, as Debian installs it.
const client = "/usr/bin/docker"

// engine is the Docker of one host.
type engine struct {
	*lab.Host
	t      *testing.T
	groups *cgroup.Tree
	// programs is a folder with the iptables that Docker uses.
	programs string
	// stop ends what was launched last.
	stop func()
}

// newGroups makes the control groups that hold dockerd and its containers;
// removing them ends all of these.
func newGroups(t *testing.T) *cgroup.Tree {
	t.Helper()
	groups, err := cgroup.New()
	lab.Must(t, err)
	t.Cleanup(func() {
		if err := groups.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return groups
}

// script writes the options of dockerd, as Documentation/docker.md has it.
const script = "../../../dist/mk-docker-opts.sh"

// startDocker starts dockerd with the options that the script makes of
// subnet.env, as the drop-in for systemd does, and loads the image. It uses the
// iptables of this kind.
func startDocker(t *testing.T, h *lab.Host, groups *cgroup.Tree, kind string) *engine {
	t.Helper()
	e := &engine{Host: h, t: t, groups: groups, programs: t.TempDir()}
	for _, name := range []string{"iptables", "ip6tables"} {
		program, err := exec.LookPath(name + kind)
		lab.Must(t, err)
		lab.Must(t, os.Symlink(program, filepath.Join(e.programs, name)))
	}
	path, err := filepath.Abs(script)
	lab.Must(t, err)
	e.exec("sh", path, "-i")
	lab.Must(t, groups.Make(h.Name+"/containers"))
	lab.Must(t, h.CopyOnWrite("/etc"))
	e.start()
	p, err := built()
	lab.Must(t, err)
	e.docker("load", "--input="+p.image)
	return e
}

// start starts dockerd and waits until it answers.
func (e *engine) start() {
	e.t.Helper()
	log := e.launch(`. /run/docker_opts.env; PATH=` + e.programs + `:$PATH exec dockerd --host=unix:///run/docker.sock --pidfile=/run/docker.pid \
		--data-root=/run/docker-data --exec-root=/run/docker-exec --storage-driver=vfs --oom-score-adjust=0 \
		--cgroup-parent=` + e.groups.Path(e.Name+"/containers") + ` $DOCKER_OPT_BIP $DOCKER_OPT_IPMASQ $DOCKER_OPT_MTU`)
	eventually.Says(e.t, func() (string, bool) {
		_, err := e.Exec(e.t.Context(), client, "--host=unix:///run/docker.sock", "version")
		text, _ := os.ReadFile(log)
		return fmt.Sprintf("%v\n%s", err, text), err == nil
	})
}

// restart ends dockerd with its containers, and starts it again.
func (e *engine) restart() {
	e.t.Helper()
	e.stop()
	e.start()
}

// launch starts a program in a control group of its own, and with it all that
// it starts. The file has what it prints.
func (e *engine) launch(command string) (log string) {
	e.t.Helper()
	log = filepath.Join(e.t.TempDir(), e.Name+".log")
	f, err := os.Create(log)
	lab.Must(e.t, err)
	defer f.Close()
	// The shell waits until it is in its group.
	r, w, err := os.Pipe()
	lab.Must(e.t, err)
	defer r.Close()
	defer w.Close()
	cmd, err := e.Start(context.Background(), []string{"sh", "-c", "read line; " + command}, func(cmd *exec.Cmd) error {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = r, f, f
		return nil
	})
	lab.Must(e.t, err)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	e.stop = func() {
		_ = e.groups.Kill(context.Background(), e.Name)
		<-ended
	}
	e.t.Cleanup(e.stop)
	lab.Must(e.t, e.groups.Make(e.Name+"/engine"))
	lab.Must(e.t, e.groups.Add(e.Name+"/engine", cmd.Process.Pid))
	_, err = w.WriteString("go\n")
	lab.Must(e.t, err)
	return log
}

func (e *engine) exec(args ...string) string {
	e.t.Helper()
	out, err := e.Exec(limited(e.t), args...)
	lab.Must(e.t, err)
	return strings.TrimSpace(out)
}

func (e *engine) docker(args ...string) string {
	e.t.Helper()
	return e.exec(append([]string{client, "--host=unix:///run/docker.sock"}, args...)...)
}

// container is a running container as a node of the lab.
type container struct {
	*node.Node
	addr netip.Addr
}

// run starts a container.
func (e *engine) run(name string) container {
	e.t.Helper()
	e.docker("run", "--detach", "--name="+name, testpodImage)
	return e.open(name)
}

// open returns a container that runs.
func (e *engine) open(name string) container {
	e.t.Helper()
	pid, text, _ := strings.Cut(e.docker("inspect", "--format={{.State.Pid}} {{.NetworkSettings.IPAddress}}", name), " ")
	addr, err := netip.ParseAddr(text)
	lab.Must(e.t, err)
	n, err := node.OpenNetwork(e.Name+"/"+name, "/proc/"+pid+"/ns/net", e.Node)
	lab.Must(e.t, err)
	e.t.Cleanup(func() { n.Close() })
	return container{n, addr}
}
