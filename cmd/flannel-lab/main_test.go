package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"flannel/internal/testkit/eventually"
	"flannel/lab"
	"flannel/lab/sandbox"
)

// asProgram makes the test binary flannel-lab itself.
const asProgram = "FLANNEL_LAB_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run(os.Args[1:]))
	}
	lab.Main(m)
}

// programs are the flags that name flanneld and etcd.
func programs(t *testing.T) []string {
	t.Helper()
	if !sandbox.Active() {
		t.Skip("no rights to make namespaces")
	}
	b, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return []string{"--etcd=" + b.Etcd, "--flanneld=" + b.Flanneld}
}

var binaries = sync.OnceValues(func() (lab.Binaries, error) { return lab.BuildBinaries() })

func selfCommand(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	// The race detector would wait a second at each exit.
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// result is how a run of flannel-lab ended.
type result struct {
	code        int
	out, errOut string
}

func flannelLab(t *testing.T, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := selfCommand(args...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

func (r result) want(t *testing.T, code int, out string) {
	t.Helper()
	if r.code != code || !strings.Contains(r.out+r.errOut, out) {
		t.Errorf("code %d, want %d; no %q in:\n%s%s", r.code, code, out, r.out, r.errOut)
	}
	if n := strings.Count(r.errOut, "\n"); n > 1 {
		t.Errorf("%d lines of error, want one:\n%s", n, r.errOut)
	}
}

func TestWrongUseIsOneClearLine(t *testing.T) {
	for _, test := range []struct {
		args string
		code int
		out  string
	}{
		{"frob", 2, `no command "frob"`},
		{"up", 2, "0 arguments, want 1"},
		{"up three", 2, `"three" is not a number of hosts`},
		{"up 0", 1, "at least 1"},
		{"up 3 --frob", 2, "-frob"},
		{"up 3 --ipv6 --dual", 1, "exclude each other"},
		{"up 3 --backend {", 1, "JSON object"},
		{"up 3 --flanneld /does/not/exist", 1, "flanneld is missing at /does/not/exist"},
		{"up 3", 1, "run make build assets"},
		{"demo --hosts 1 --flanneld /bin/sh --etcd /bin/sh", 2, "at least 2 hosts"},
		{"up 3 --kubernetes --backend {}", 1, "the manifest says"},
		{"up 3 --dns", 1, "needs --kubernetes"},
		{"kubectl get nodes", 1, `lab "lab" is not up`},
		{"kubectl --name nobody -n x get pods", 1, `lab "nobody" is not up`},
		{"exec host1", 2, "write it after --"},
		{"exec host1 -- true", 1, `lab "lab" is not up`},
		{"status --name A/b", 2, "lower-case"},
		{"status --name nobody", 1, `lab "nobody" is not up`},
		{"down", 0, "is not up"},
		{"hold 1", 2, "up only"},
	} {
		t.Run(test.args, func(t *testing.T) {
			flannelLab(t, strings.Fields(test.args)...).want(t, test.code, test.out)
		})
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	for _, c := range commands() {
		flannelLab(t, c.name, "--help").want(t, 0, "usage: flannel-lab "+c.name)
		flannelLab(t, "--help").want(t, 0, "flannel-lab "+c.usage)
	}
}

func TestLabStaysUpUntilDown(t *testing.T) {
	given := programs(t)
	t.Cleanup(func() { flannelLab(t, "down") })
	flannelLab(t, append([]string{"up", "2", "--dual"}, given...)...).want(t, 0, "host2")
	flannelLab(t, append([]string{"up", "2"}, given...)...).want(t, 1, "is already up")
	got := flannelLab(t, "status")
	got.want(t, 0, "HOST")
	if n := strings.Count(got.out, "   yes   "); n != 2 || !strings.Contains(got.out, "fd00:10:244:") {
		t.Errorf("status:\n%s", got.out)
	}
	flannelLab(t, "exec", "host2", "--", "uname", "-n").want(t, 0, "host2\n")
	flannelLab(t, "exec", "host1/pod1", "--", "ip", "route").want(t, 0, "default via 10.244.")
	flannelLab(t, "exec", "host1", "--", "sh", "-c", "exit 7").want(t, 7, "")
	flannelLab(t, "exec", "host3", "--", "true").want(t, 1, `no host or pod "host3"`)

	flannelLab(t, append([]string{"up", "1", "--name", "second"}, given...)...).want(t, 0, "host1")
	flannelLab(t, "down").want(t, 0, "")
	flannelLab(t, "status").want(t, 1, "is not up")
	flannelLab(t, "status", "--name", "second").want(t, 0, "host1")
	flannelLab(t, "down", "--name", "second").want(t, 0, "")
	wantNothingLeft(t)
}

func TestNodesOfKubernetes(t *testing.T) {
	given := programs(t)
	built, err := lab.BuildPrograms()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { flannelLab(t, "down") })
	flannelLab(t, append([]string{"up", "2", "--kubernetes", "--dns"}, append(given, "--flanneld="+built.Flanneld)...)...).
		want(t, 0, "flannel-lab kubectl apply -f Documentation/kube-flannel.yml")
	flannelLab(t, "kubectl", "get", "nodes").want(t, 0, "host2")
	flannelLab(t, "kubectl", "-n", "kube-system", "get", "service", "kube-dns").want(t, 0, "10.96.0.10")
	flannelLab(t, "exec", "host1", "--", "ctr", "-n", "k8s.io", "images", "ls", "-q").want(t, 0, lab.DNSImage)
	flannelLab(t, "kubectl", "--name=lab", "-n", "kube-flannel", "get", "pods").want(t, 0, "No resources found")
	flannelLab(t, "exec", "host1", "--", "ctr", "-n", "k8s.io", "images", "ls", "-q").want(t, 0, "localhost/flanneld:devel")
	flannelLab(t, "down").want(t, 0, "")
	wantNothingLeft(t)
}

func TestNameOfKilledLabIsFree(t *testing.T) {
	given := programs(t)
	flannelLab(t, append([]string{"up", "1"}, given...)...).want(t, 0, "host1")
	pid, err := place{name: "lab", dir: "/run/flannel-lab"}.holder()
	if err != nil || pid == 0 {
		t.Fatalf("process %d has the name: %v", pid, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the lab ended", func() bool { return len(labProcesses(t)) == 0 })
	flannelLab(t, "status").want(t, 1, "is not up")
	flannelLab(t, append([]string{"up", "1"}, given...)...).want(t, 0, "host1")
	flannelLab(t, "down").want(t, 0, "")
	wantNothingLeft(t)
}

func TestFailedUpShowsTheLogAndLeavesNothing(t *testing.T) {
	given := programs(t)
	got := flannelLab(t, append([]string{"up", "1", "--backend", `{"Type": "nonsense"}`, "--timeout", "5s"}, given...)...)
	if got.code != 1 || !strings.Contains(got.errOut, "end of flanneld's log") || !strings.Contains(got.errOut, "nonsense") {
		t.Errorf("code %d:\n%s", got.code, got.errOut)
	}
	wantNothingLeft(t)
}

func TestDemosRunSideBySide(t *testing.T) {
	given := programs(t)
	families := []string{"--ipv6=false", "--dual"}
	results := make(chan result, len(families))
	for _, f := range families {
		go func() { results <- flannelLab(t, append([]string{"demo", f}, given...)...) }()
	}
	for range families {
		got := <-results
		got.want(t, 0, "Everything works.")
		for _, text := range []string{"LEASE", "host3/pod1", "flannel.1 is back after"} {
			got.want(t, 0, text)
		}
	}
	wantNothingLeft(t)
}

func TestDemoLetsOthersInUnderItsName(t *testing.T) {
	cmd, out := startDemo(t, "--name=show")
	// The leases are shown when the hosts are ready.
	readUntil(t, out, "HOST")
	flannelLab(t, "exec", "--name=show", "host3", "--", "uname", "-n").want(t, 0, "host3")
	flannelLab(t, "down", "--name=show").want(t, 0, "")
	_ = cmd.Wait()
	wantNothingLeft(t)
}

func TestInterruptedDemoLeavesNothing(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		for _, stage := range []string{"A cluster", "HOST", "Delete"} {
			t.Run(fmt.Sprint(s, " at ", stage), func(t *testing.T) {
				cmd, out := startDemo(t)
				readUntil(t, out, stage)
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
				rest, _ := io.ReadAll(out)
				_ = cmd.Wait()
				if code := cmd.ProcessState.ExitCode(); s != syscall.SIGKILL && code != 130 {
					t.Errorf("code %d, want 130:\n%s", code, rest)
				}
				wantNothingLeft(t)
			})
		}
	}
}

func startDemo(t *testing.T, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := selfCommand(append(append([]string{"demo"}, args...), programs(t)...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out)
}

func readUntil(t *testing.T, r *bufio.Reader, text string) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if strings.Contains(line, text) {
			return
		}
		if err != nil {
			t.Fatalf("no %q: %v", text, err)
		}
	}
}

// wantNothingLeft checks that no process of a lab, no socket and no lock is
// left. Without processes there are no namespaces.
func wantNothingLeft(t *testing.T) {
	t.Helper()
	eventually.True(t, "no process of a lab", func() bool { return len(labProcesses(t)) == 0 })
	if entries, err := os.ReadDir("/run/flannel-lab"); err == nil {
		t.Errorf("left in /run/flannel-lab: %v", entries)
	}
}

// labProcesses lists the programs that run beside this test. The sandbox has a
// PID namespace of its own, so they all come from the labs.
func labProcesses(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(name string) bool {
		env, _ := os.ReadFile(name)
		return !bytes.Contains(env, []byte(asProgram+"=1"))
	})
}
