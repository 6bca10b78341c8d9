package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Root is a folder that every host of a lab sees, with Dir below it.
const Root = "/run/lab"

// dirVar names the environment variable that holds Dir.
const dirVar = "FLANNEL_LAB_DIR"

// innerName is the mount point for the folder of a sandbox inside this one.
const innerName = "inner"

// Dir returns a folder that is private to the sandbox and vanishes with it.
// Temporary files are below it.
func Dir() string { return os.Getenv(dirVar) }

// lifelineFD is the descriptor of PID 1 that ends with the outer program. The
// passed files follow it, or begin there when there is no lifeline.
const lifelineFD = 3

// notInherited are variables that would make programs inside talk to the
// world outside.
var notInherited = []string{"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}

// runInit is the life of PID 1: it returns the exit code of the program
// inside, and with it everything in the sandbox ends.
func runInit(outerNet string, firstFile int) int {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		return 1
	}
	cmd, err := startInside(outerNet, firstFile)
	if err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		return 1
	}
	stop := forward(signals, cmd.Process.Signal)
	defer stop()
	return reap(cmd.Process.Pid)
}

// watchLifeline ends the sandbox when the outer program is gone. The parent
// death signal alone would miss a parent that dies before it is armed.
func watchLifeline() {
	_, _ = os.NewFile(lifelineFD, "lifeline").Read(make([]byte, 1))
	os.Exit(1)
}

// prepare makes the mounts of the sandbox its own and its loopback usable.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := makeDir(); err != nil {
		return err
	}
	for _, name := range notInherited {
		os.Unsetenv(name)
	}
	return loopbackUp()
}

// makeDir makes Dir. A sandbox inside another keeps the outer one's /run, where
// the programs may be that it is to run.
func makeDir() error {
	mount, dir := "/run", Root
	if inner := filepath.Join(Dir(), innerName); Dir() != "" && isDir(inner) {
		mount, dir = inner, inner
	}
	if err := unix.Mount("tmpfs", mount, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", mount, err)
	}
	tmp := filepath.Join(dir, "tmp")
	for _, folder := range []string{tmp, filepath.Join(dir, innerName)} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("make the folder of the sandbox: %w", err)
		}
	}
	// For programs that run as somebody else.
	if err := os.Chmod(tmp, 0o777|os.ModeSticky); err != nil {
		return err
	}
	return errors.Join(os.Setenv(dirVar, dir), os.Setenv("TMPDIR", tmp))
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func loopbackUp() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	return nil
}

func startInside(outerNet string, firstFile int) (*exec.Cmd, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = passedFiles(firstFile)
	cmd.Env = stageEnv(stageInside, outerNet, len(cmd.ExtraFiles))
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the program inside: %w", err)
	}
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	return cmd, nil
}

// reap collects every process that ends until it is main, and returns main's
// exit code.
func reap(main int) int {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1
		case pid == main && status.Signaled():
			return 128 + int(status.Signal())
		case pid == main:
			return status.ExitStatus()
		}
	}
}

// Files returns the files that Options.Files passed, in their order. It is
// called once, inside.
func Files() []*os.File {
	files := passedFiles(lifelineFD)
	os.Unsetenv(filesVar)
	return files
}

func passedFiles(first int) []*os.File {
	n, _ := strconv.Atoi(os.Getenv(filesVar))
	var files []*os.File
	for fd := first; fd < first+n; fd++ {
		// Programs started here must not keep them open.
		unix.CloseOnExec(fd)
		files = append(files, os.NewFile(uintptr(fd), "passed"))
	}
	return files
}

// Active reports whether this process is inside a sandbox: PID 1 is then this
// same program.
func Active() bool {
	first, err := os.Readlink("/proc/1/exe")
	if err != nil || os.Getpid() == 1 {
		return false
	}
	own, err := os.Readlink("/proc/self/exe")
	return err == nil && first == own
}
