// Package nstest gives a test a network namespace of its own.
package nstest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NS is a network namespace without a name. It ends with its test.
type NS struct {
	// Handle talks to the kernel inside the namespace.
	Handle *netlink.Handle
	// Namespace is the open namespace itself.
	Namespace netns.NsHandle

	t testing.TB
}

// New makes a namespace in which only the loopback device exists, and is up.
// The test is skipped when the process may not make namespaces.
func New(t testing.TB) *NS {
	t.Helper()
	ns, err := open()
	if errors.Is(err, os.ErrPermission) {
		t.Skipf("no right to make a network namespace: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatalf("open netlink in the namespace: %v", err)
	}
	t.Cleanup(handle.Close)
	n := &NS{Handle: handle, Namespace: ns, t: t}
	n.Up("lo")
	return n
}

// open makes the namespace on a thread of its own. The thread ends with the
// goroutine, because it stays locked: nothing can inherit its namespace.
func open() (netns.NsHandle, error) {
	type result struct {
		ns  netns.NsHandle
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.New()
		done <- result{ns, err}
	}()
	r := <-done
	if r.err != nil {
		return netns.None(), fmt.Errorf("make a network namespace: %w", r.err)
	}
	return r.ns, nil
}

// Do runs f on a thread inside the namespace and waits for it. Goroutines that
// f starts are not inside. f must not end the test with FailNow.
func (n *NS) Do(f func()) {
	n.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(n.Namespace)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		n.t.Fatalf("enter the namespace: %v", err)
	}
}

// IP runs the ip tool inside the namespace and returns what it prints. The
// arguments may be given as words or as one line.
func (n *NS) IP(args ...string) string {
	n.t.Helper()
	return n.run("ip", args)
}

// Bridge runs the bridge tool inside the namespace, as IP does.
func (n *NS) Bridge(args ...string) string {
	n.t.Helper()
	return n.run("bridge", args)
}

// Tool runs another tool inside the namespace, as IP does.
func (n *NS) Tool(name string, args ...string) string {
	n.t.Helper()
	return n.run(name, args)
}

func (n *NS) run(tool string, args []string) string {
	n.t.Helper()
	args = strings.Fields(strings.Join(args, " "))
	var out []byte
	var err error
	// A child process inherits the namespace of the thread that starts it.
	n.Do(func() { out, err = exec.Command(tool, args...).CombinedOutput() })
	if err != nil {
		n.t.Fatalf("%s %s: %v\n%s", tool, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// AddUplink makes a device that is up, has a carrier and these addresses, and
// stands for the host's way out: one end of a veth pair. The other end is
// named name-peer. It returns the device's index.
func (n *NS) AddUplink(name string, addrs ...string) int {
	n.t.Helper()
	n.AddVeth(name, name+"-peer")
	for _, a := range addrs {
		n.AddAddr(name, a)
	}
	return n.Index(name)
}

// AddVeth makes a veth pair with both ends up.
func (n *NS) AddVeth(name, peer string) {
	n.t.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer}
	n.check(n.Handle.LinkAdd(veth), "add veth "+name)
	n.Up(name)
	n.Up(peer)
}

// AddBridge makes a bridge that is up, with these addresses.
func (n *NS) AddBridge(name string, addrs ...string) {
	n.t.Helper()
	n.check(n.Handle.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}), "add bridge "+name)
	n.Up(name)
	for _, a := range addrs {
		n.AddAddr(name, a)
	}
}

// AddAddr gives a device an address with prefix length. IPv6 addresses are
// usable at once.
func (n *NS) AddAddr(dev, addr string) {
	n.t.Helper()
	parsed, err := netlink.ParseAddr(addr)
	n.check(err, "parse address "+addr)
	if netip.MustParsePrefix(addr).Addr().Is6() {
		parsed.Flags |= unix.IFA_F_NODAD
	}
	n.check(n.Handle.AddrAdd(n.Link(dev), parsed), "add address "+addr)
}

// Link returns a device that must exist.
func (n *NS) Link(name string) netlink.Link {
	n.t.Helper()
	link, err := n.Handle.LinkByName(name)
	n.check(err, "find device "+name)
	return link
}

// HasLink reports whether a device exists.
func (n *NS) HasLink(name string) bool {
	_, err := n.Handle.LinkByName(name)
	return err == nil
}

// Index returns the index of a device that must exist.
func (n *NS) Index(name string) int {
	n.t.Helper()
	return n.Link(name).Attrs().Index
}

// Up sets a device up.
func (n *NS) Up(name string) {
	n.t.Helper()
	n.check(n.Handle.LinkSetUp(n.Link(name)), "set up "+name)
}

// Down sets a device down.
func (n *NS) Down(name string) {
	n.t.Helper()
	n.check(n.Handle.LinkSetDown(n.Link(name)), "set down "+name)
}

// DelLink deletes a device that must exist.
func (n *NS) DelLink(name string) {
	n.t.Helper()
	n.check(n.Handle.LinkDel(n.Link(name)), "delete device "+name)
}

func (n *NS) check(err error, doing string) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("%s: %v", doing, err)
	}
}
