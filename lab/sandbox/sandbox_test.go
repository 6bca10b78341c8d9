package sandbox_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"flannel/internal/testkit/eventually"
	"flannel/lab/sandbox"
)

// helperVar makes the test binary a program that uses the sandbox. Its value
// is the name of the program and a token that tells runs apart.
const helperVar = "SANDBOX_TEST_HELPER"

func TestMain(m *testing.M) {
	if name, _, ok := strings.Cut(os.Getenv(helperVar), " "); ok {
		os.Exit(helper(name))
	}
	code, err := sandbox.Run(m.Run)
	if errors.Is(err, sandbox.ErrUnavailable) {
		code = m.Run()
	}
	os.Exit(code)
}

func helper(name string) int {
	if name == "detach" {
		return detach()
	}
	programs := map[string]func() int{"echo": echo, "wait": wait, "tidy": tidy, "files": files}
	code, err := sandbox.Run(programs[name])
	if err != nil {
		fmt.Println(err)
		return 99
	}
	return code
}

// echo shows where it runs and returns a code of its own.
func echo() int {
	in, _ := io.ReadAll(os.Stdin)
	links, _ := os.ReadFile("/proc/net/dev")
	fmt.Printf("args %v stdin %s links %d uid %d active %t stage %q\n", os.Args[1:], in,
		bytes.Count(links, []byte(":")), os.Getuid(), sandbox.Active(), os.Getenv("FLANNEL_LAB_STAGE"))
	return 7
}

// wait runs for ever with a child and leaves a file and a mount.
func wait() int {
	dir, _ := os.MkdirTemp("", "")
	_ = syscall.Mount("tmpfs", dir, "tmpfs", 0, "")
	_ = exec.Command("sleep", "1000").Start()
	fmt.Println("ready")
	select {}
}

// tidy ends in its own way after SIGINT.
func tidy() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fmt.Println("ready")
	<-ctx.Done()
	return 5
}

func detach() int {
	r, w, err := os.Pipe()
	if err != nil {
		return 98
	}
	os.Setenv(helperVar, strings.Replace(os.Getenv(helperVar), "detach", "files", 1))
	p, err := sandbox.Start(sandbox.Options{Args: []string{"other"}, Files: []*os.File{w}, Detach: true})
	if err != nil {
		return 97
	}
	w.Close()
	line, err := bufio.NewReader(r).ReadString('\n')
	fmt.Print(p.PID(), " ", line)
	if err != nil {
		return 96
	}
	return 0
}

func files() int {
	passed := sandbox.Files()
	if len(passed) != 1 || len(sandbox.Files()) != 0 {
		return 95
	}
	fmt.Fprintln(passed[0], os.Args[0])
	passed[0].Close()
	return wait()
}

// run is one run of a helper.
type run struct {
	*exec.Cmd
	token string
	out   *bufio.Reader
}

func start(t *testing.T, name string, prepare func(*exec.Cmd)) *run {
	t.Helper()
	if !sandbox.Active() {
		t.Skip("no rights to make namespaces")
	}
	r := &run{Cmd: exec.Command("/proc/self/exe", "a", "b"), token: name + " " + strconv.FormatInt(time.Now().UnixNano(), 36)}
	r.Env = append(os.Environ(), helperVar+"="+r.token)
	r.Stderr = os.Stderr
	if prepare != nil {
		prepare(r.Cmd)
	}
	out, err := r.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.out = bufio.NewReader(out)
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *run) line(t *testing.T) string {
	t.Helper()
	line, err := r.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// processes returns the processes of a run, by the token in their
// environment. A process that has ended but was not reaped has none.
func (r *run) processes(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	_, number, _ := strings.Cut(r.token, " ")
	return slices.DeleteFunc(names, func(name string) bool {
		env, _ := os.ReadFile(name)
		return !bytes.Contains(env, []byte(number))
	})
}

func (r *run) code() int {
	err := r.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -2
	}
	return 0
}

func TestProgramRunsInsideWithItsArgumentsStreamsAndCode(t *testing.T) {
	r := start(t, "echo", func(c *exec.Cmd) { c.Stdin = strings.NewReader("hello") })
	want := `args [a b] stdin hello links 1 uid 0 active true stage ""`
	if got := r.line(t); got != want {
		t.Errorf("the program says %s, want %s", got, want)
	}
	if code := r.code(); code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
}

func TestUserWithoutRightsGetsAUserNamespace(t *testing.T) {
	r := start(t, "echo", func(c *exec.Cmd) {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	})
	if got := r.line(t); !strings.Contains(got, "links 1 uid 0 active true") {
		t.Errorf("the program says %s", got)
	}
	if code := r.code(); code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
}

func TestNothingIsLeftAfterTheEnd(t *testing.T) {
	for _, test := range []struct {
		name, helper string
		signal       syscall.Signal
		code         int
	}{
		{"killed parent", "wait", syscall.SIGKILL, -1},
		{"interrupt of a program that does not care", "wait", syscall.SIGINT, 130},
		{"interrupt of a program that cleans up", "tidy", syscall.SIGINT, 5},
		{"terminate", "wait", syscall.SIGTERM, 143},
	} {
		t.Run(test.name, func(t *testing.T) {
			mounts, files := read(t, "/proc/self/mountinfo"), list(t, os.TempDir())
			r := start(t, test.helper, nil)
			r.line(t)
			if n := len(r.processes(t)); n < 3 {
				t.Fatalf("%d processes, want outside, PID 1 and inside", n)
			}
			if err := r.Process.Signal(test.signal); err != nil {
				t.Fatal(err)
			}
			eventually.True(t, "no process left", func() bool { return len(r.processes(t)) == 0 })
			// go test's interrupt handler ends a test binary with code 2.
			if got := r.code(); got != test.code && !(test.code == 130 && got == 2) {
				t.Errorf("exit code %d, want %d", got, test.code)
			}
			if got := read(t, "/proc/self/mountinfo"); got != mounts {
				t.Errorf("mounts are left: %s", got)
			}
			if got := list(t, os.TempDir()); got != files {
				t.Errorf("files are left: %s, want %s", got, files)
			}
		})
	}
}

func TestKilledInitTakesEverythingWithIt(t *testing.T) {
	r := start(t, "wait", nil)
	r.line(t)
	child := strings.TrimSpace(read(t, fmt.Sprintf("/proc/%d/task/%d/children", r.Process.Pid, r.Process.Pid)))
	pid, err := strconv.Atoi(child)
	if err != nil {
		t.Fatalf("children of the outer program: %q", child)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := r.code(); code != 137 {
		t.Errorf("exit code %d, want 137", code)
	}
	eventually.True(t, "no process left", func() bool { return len(r.processes(t)) == 0 })
}

func TestDetachedSandboxOutlivesItsCaller(t *testing.T) {
	r := start(t, "detach", nil)
	pid, args, _ := strings.Cut(r.line(t), " ")
	if code := r.code(); code != 0 || args != "other" {
		t.Fatalf("exit code %d, arguments inside %q", code, args)
	}
	if n := len(r.processes(t)); n < 2 {
		t.Errorf("%d processes are left, want PID 1 and inside", n)
	}
	number, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(number, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "no process left", func() bool { return len(r.processes(t)) == 0 })
}

func TestLeakedVariableIsNoSandbox(t *testing.T) {
	netns, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, "echo", func(c *exec.Cmd) { c.Env = append(c.Env, "FLANNEL_LAB_STAGE=inside:"+netns) })
	if got := r.line(t); !strings.Contains(got, "links 1 uid 0 active true") {
		t.Errorf("the program says %s", got)
	}
	r.code()
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func list(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(entries)
}
