package kernel_test

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"flannel/kernel"
)

// overTUN is a state in which user space moves the packets.
func overTUN() kernel.State {
	return kernel.State{
		Devices: []kernel.Device{{
			Name: "flannel0", MTU: 1472, TUN: true, Addrs: []netip.Prefix{netip.MustParsePrefix("10.5.1.0/32")},
		}},
		Routes: []kernel.Route{{Dst: netip.MustParsePrefix("10.5.0.0/16"), Dev: "flannel0", Metric: 100}},
	}
}

func TestATUNDeviceStaysWithoutAProgram(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		apply(t, m, overTUN())
		for _, want := range []string{"flannel0 ", "tun", "mtu 1472", kernel.Alias(scope.Instance), "10.5.1.0/32 dev flannel0", "10.5.0.0/16 dev flannel0"} {
			if !strings.Contains(m.text(), want) {
				t.Errorf("lacks %q:\n%s", want, m.text())
			}
		}
		before := m.text()
		if stats := apply(t, m.again(scope), overTUN()); stats.Changed() != 0 || m.text() != before {
			t.Errorf("a restart changed %+v:\n%s", stats, m.text())
		}
		m.remove("link flannel0")
		m.Invalidate()
		apply(t, m, overTUN())
		if m.text() != before {
			t.Errorf("before:\n%s\nnow:\n%s", before, m.text())
		}
	})
}

func TestATUNDeviceOfOthersIsLeftAlone(t *testing.T) {
	n := newNode(t)
	n.IP("tuntap add dev flannel0 mode tun")
	before := n.Dump()
	_, err := n.Apply(t.Context(), overTUN(), false)
	if err == nil || !strings.Contains(err.Error(), "device flannel0 exists and is not ours") {
		t.Errorf("got %v", err)
	}
	if n.Dump() != before {
		t.Errorf("before:\n%s\nnow:\n%s", before, n.Dump())
	}
}

func TestADeviceOfAnEarlierBackendGoes(t *testing.T) {
	onBoth(t, func(t *testing.T, m machine) {
		apply(t, m, overTUN())
		apply(t, m.again(scope), kernel.State{})
		if strings.Contains(m.text(), "flannel0") {
			t.Errorf("left:\n%s", m.text())
		}
	})
}

// attach attaches to flannel0 as a local user who can open /dev/net/tun.
func (n *node) attach(t *testing.T, uid uintptr) (fd int, err error) {
	t.Helper()
	n.Do(func() {
		fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return
		}
		// Of this thread alone, which ends with the function.
		for _, call := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} {
			if _, _, errno := unix.RawSyscall(call, uid, uid, uid); errno != 0 {
				err = errno
				return
			}
		}
		var request *unix.Ifreq
		if request, err = unix.NewIfreq("flannel0"); err == nil {
			request.SetUint16(kernel.TUNFlags)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
	})
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd, err
}

const nobody = 65534

func TestOnlyRootAttachesToTheTUNDevice(t *testing.T) {
	t.Run("made here", func(t *testing.T) {
		n := newNode(t)
		apply(t, n, overTUN())
		if _, err := n.attach(t, nobody); !errors.Is(err, syscall.EPERM) {
			t.Errorf("as uid %d: got %v, want EPERM", nobody, err)
		}
		if _, err := n.attach(t, 0); err != nil {
			t.Errorf("as root: %v", err)
		}
	})
	t.Run("made by an earlier version", func(t *testing.T) {
		n := newNode(t)
		n.IP("tuntap add dev flannel0 mode tun vnet_hdr")
		fd, err := n.attach(t, nobody)
		if err != nil {
			t.Fatalf("the device is not open to everybody: %v", err)
		}
		open := func() (fd int, err error) {
			n.Do(func() { fd, err = kernel.OpenTUN("flannel0", kernel.TUNFlags) })
			return fd, err
		}
		if _, err := open(); err == nil || !strings.Contains(err.Error(), "`ip link del flannel0`") {
			t.Errorf("beside a stranger: got %v, want an error with the remedy", err)
		}
		if err := unix.Close(fd); err != nil {
			t.Fatal(err)
		}
		fd, err = open()
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Close(fd); err != nil {
			t.Fatal(err)
		}
		if _, err := n.attach(t, nobody); !errors.Is(err, syscall.EPERM) {
			t.Errorf("afterwards: got %v, want EPERM", err)
		}
	})
}
