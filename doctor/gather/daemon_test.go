package gather

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"flannel/doctor"
	"flannel/internal/socket"
)

// TestAUserWithoutRights cannot find out whether a daemon runs.
func TestAUserWithoutRights(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs to be root, to become somebody else")
	}
	locks := t.TempDir()
	if err := os.Chmod(locks, 0o700); err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/subnet.env"
	listener, err := socket.Listen(t.Context(), socket.Path(file))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for name, o := range map[string]Options{
		"a socket of root": {SubnetFile: file, LockDir: locks},
		"no socket":        {SubnetFile: "/none/subnet.env", LockDir: locks},
	} {
		g := gatherer{o, &doctor.Facts{}}
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // and not unlocked: the thread ends with what it has become
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
				t.Error(errno)
			}
			done <- g.daemon(t.Context())
		}()
		if err := <-done; err == nil || !strings.Contains(err.Error(), "run this as root") || g.facts.Daemon.Absent {
			t.Errorf("%s: got %v, absent %v", name, err, g.facts.Daemon.Absent)
		}
	}
}

func TestADaemonThatDoesNotRun(t *testing.T) {
	dir := t.TempDir()
	for _, locks := range []string{dir, dir + "/none"} {
		g := gatherer{Options{SubnetFile: dir + "/subnet.env", LockDir: locks}, &doctor.Facts{}}
		if err := g.daemon(t.Context()); err != nil || !g.facts.Daemon.Absent {
			t.Errorf("got %v, absent %v", err, g.facts.Daemon.Absent)
		}
	}
}

// TestNobodyElseIsAsked: without a socket any user may listen at the usual port.
func TestNobodyElseIsAsked(t *testing.T) {
	file := t.TempDir() + "/subnet.env"
	if at, asked := (Options{SubnetFile: file}).asked(); at.Daemon != "" || asked != socket.Path(file) {
		t.Errorf("got %+v, %s", at, asked)
	}
	if at, asked := (Options{SubnetFile: file, Daemon: "127.0.0.1:9"}).asked(); at.Daemon != asked || asked != "127.0.0.1:9" {
		t.Errorf("got %+v, %s", at, asked)
	}
}
