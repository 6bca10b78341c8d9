// Package node makes the machines of a lab: sets of namespaces in which code
// and programs run.
package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"flannel/lab/sandbox"
)

// Namespace is one namespace of a node.
type Namespace struct {
	// Kind is the unix.CLONE_NEW* flag of the namespace.
	Kind int
	// File keeps the namespace alive; it belongs to the node.
	File *os.File
}

// Node is a machine. It lives until Close, and as long as programs run in it.
type Node struct {
	Name string
	// Handle is a netlink handle in the node's network namespace.
	Handle *netlink.Handle
	// base has the namespaces that this node did not make.
	base *Node

	// mu guards own: a Do that nobody waits for any more, like that of an
	// abandoned Dial, may meet a Close.
	mu sync.RWMutex
	// own are the namespaces that this node made; nil after Close.
	own []Namespace
}

// nsFiles are the names of the namespaces below /proc/thread-self/ns.
var nsFiles = map[int]string{
	unix.CLONE_NEWNET: "net",
	unix.CLONE_NEWNS:  "mnt",
	unix.CLONE_NEWUTS: "uts",
}

// NewHost makes a node with its own network, host name and mounts. Its /run is
// empty but for the sandbox's folder.
func NewHost(name string) (*Node, error) {
	kinds := []int{unix.CLONE_NEWNET, unix.CLONE_NEWUTS, unix.CLONE_NEWNS}
	return create(name, nil, kinds, func() error {
		if err := unix.Sethostname([]byte(name)); err != nil {
			return fmt.Errorf("set the host name: %w", err)
		}
		return mountRun()
	})
}

// NewNetwork makes a node with its own network only; it sees the files of
// base, or the caller's when base is nil.
func NewNetwork(name string, base *Node) (*Node, error) {
	return create(name, base, []int{unix.CLONE_NEWNET}, func() error { return nil })
}

// OpenNetwork makes a node of a network that is there, like that of a pod: base
// has it as a file. The node sees the files of base.
func OpenNetwork(name, path string, base *Node) (*Node, error) {
	n := &Node{Name: name, base: base}
	var f *os.File
	err := base.Do(func() (err error) {
		f, err = os.Open(path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make node %s: %w", name, err)
	}
	n.own = []Namespace{{Kind: unix.CLONE_NEWNET, File: f}}
	if err := n.Do(n.openHandle); err != nil {
		n.Close()
		return nil, fmt.Errorf("make node %s: %w", name, err)
	}
	return n, nil
}

func create(name string, base *Node, kinds []int, setup func() error) (*Node, error) {
	n := &Node{Name: name, base: base}
	err := onThread(func() error {
		// The thread needs working directory and root of its own before it
		// may change its mounts.
		flags := unix.CLONE_FS
		for _, k := range kinds {
			flags |= k
		}
		if err := unix.Unshare(flags); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := setup(); err != nil {
			return err
		}
		if err := skipDAD(); err != nil {
			return err
		}
		if err := n.open(kinds); err != nil {
			return err
		}
		return n.openHandle()
	})
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("make node %s: %w", name, err)
	}
	return n, nil
}

func (n *Node) open(kinds []int) error {
	for _, k := range kinds {
		f, err := os.Open("/proc/thread-self/ns/" + nsFiles[k])
		if err != nil {
			return fmt.Errorf("open own namespace: %w", err)
		}
		n.own = append(n.own, Namespace{Kind: k, File: f})
	}
	return nil
}

func (n *Node) openHandle() error {
	h, err := netlink.NewHandleAt(netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	n.Handle = h
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	return nil
}

// skipDAD makes link-local addresses usable at once. Otherwise the first
// neighbor solicitations are lost, and with them a second each.
func skipDAD() error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without IPv6
	}
	return err
}

// mountRun gives the calling thread's mount namespace an empty /run and puts
// the sandbox's folder back into it.
func mountRun() error {
	fd, err := unix.Open(sandbox.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", sandbox.Root, err)
	}
	defer unix.Close(fd)
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, dir := range []string{sandbox.Root, "/run/log"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
	}
	from := fmt.Sprintf("/proc/thread-self/fd/%d", fd)
	if err := unix.Mount(from, sandbox.Root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", sandbox.Root, err)
	}
	return nil
}

// Namespaces returns every namespace that a program on this node runs in and
// that differs from the caller's. The files belong to the node.
func (n *Node) Namespaces() []Namespace {
	n.mu.RLock()
	all := slices.Clone(n.own)
	n.mu.RUnlock()
	if n.base == nil {
		return all
	}
	for _, b := range n.base.Namespaces() {
		if b.Kind != unix.CLONE_NEWNET {
			all = append(all, b)
		}
	}
	return all
}

// NetNS returns the network namespace. The file belongs to the node.
func (n *Node) NetNS() *os.File { return n.own[0].File }

// Do runs fn on a thread that is inside the node. Goroutines that fn starts
// are outside. fn must return: it must not call t.FailNow.
func (n *Node) Do(fn func() error) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := n.enter(); err != nil {
			return err
		}
		return fn()
	})
}

// enter moves the calling thread into the node's namespaces. The own network
// replaces that of the base.
func (n *Node) enter() error {
	if n.base != nil {
		if err := n.base.enter(); err != nil {
			return err
		}
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.own == nil {
		return fmt.Errorf("node %s: %w", n.Name, os.ErrClosed)
	}
	for _, ns := range n.own {
		if err := unix.Setns(int(ns.File.Fd()), ns.Kind); err != nil {
			return fmt.Errorf("enter %s of %s: %w", nsFiles[ns.Kind], n.Name, err)
		}
	}
	return nil
}

// Dial connects from inside the node. The connection is used from anywhere.
// The address must be numeric.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	addr, err := net.ResolveTCPAddr(network, address)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	err = n.Do(func() (err error) {
		// One address and no resolver: the socket is made on this thread.
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, addr.String())
		return err
	})
	return conn, err
}

// Sysctl sets a setting of the node's network, with slashes: "net/ipv4/...".
func (n *Node) Sysctl(name, value string) error {
	return n.Do(func() error {
		return os.WriteFile("/proc/sys/"+name, []byte(value), 0o644)
	})
}

// ReadFile reads a file as the node sees it.
func (n *Node) ReadFile(path string) (data []byte, err error) {
	err = n.Do(func() (err error) {
		data, err = os.ReadFile(path)
		return err
	})
	return data, err
}

// Close lets go of the node. What still runs in it keeps its namespaces.
func (n *Node) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	if n.Handle != nil {
		n.Handle.Close()
	}
	for _, ns := range n.own {
		errs = append(errs, ns.File.Close())
	}
	n.own = nil
	return errors.Join(errs...)
}
