// Package look reads the network of this host: devices, addresses, routes and
// rules, and where a packet goes. It changes nothing.
package look

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"

	"flannel/internal/sysctl"
	"flannel/kernel"
	"flannel/kernel/rtnl"
)

// Reader asks the kernel of one network namespace.
type Reader struct {
	handle *netlink.Handle
	conn   *rtnl.Conn
	links  Links
	names  map[int]string
}

// Open returns a Reader of the current namespace. It reads the devices, once.
func Open() (*Reader, error) {
	handle, err := rtnl.NewHandle(0)
	if err != nil {
		return nil, err
	}
	conn, err := rtnl.Dial(0)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	r := &Reader{handle: handle, conn: conn, names: map[int]string{}}
	if r.links, err = kernel.ReadLinks(handle); err != nil {
		r.Close()
		return nil, err
	}
	for _, l := range r.links {
		r.names[l.Index] = l.Name
	}
	return r, nil
}

// Close ends a Reader.
func (r *Reader) Close() {
	r.handle.Close()
	_ = r.conn.Close()
}

// Links returns the devices of this host.
func (r *Reader) Links() Links { return r.links }

// Setting returns the value of a setting that is named as sysctl does, or nothing if the
// kernel does not have it.
func (r *Reader) Setting(name string) string { return sysctl.Read(sysctl.Root, name) }

// Host is what a network namespace holds.
type Host struct {
	Links Links
	Addrs []kernel.HostAddr
	// Routes are those that were asked for.
	Routes []Route
	Rules  []Rule
}

// Host returns the devices, the addresses, the rules, and those routes of all tables
// that are wanted. With an error it is what could be read.
func (r *Reader) Host(wanted func(Route) bool) (Host, error) {
	addrs, addrErr := kernel.ReadAddrs(r.handle)
	routes, routeErr := r.Routes(wanted)
	rules, ruleErr := r.Rules()
	return Host{r.links, addrs, routes, rules}, errors.Join(addrErr, routeErr, ruleErr)
}

// Links are the devices of a host.
type Links []kernel.Link

// ByName returns a device.
func (list Links) ByName(name string) (kernel.Link, bool) {
	return list.find(func(l kernel.Link) bool { return l.Name == name })
}

// ByIndex returns a device.
func (list Links) ByIndex(index int) (kernel.Link, bool) {
	return list.find(func(l kernel.Link) bool { return l.Index == index })
}

func (list Links) find(is func(kernel.Link) bool) (kernel.Link, bool) {
	if i := slices.IndexFunc(list, is); i >= 0 {
		return list[i], true
	}
	return kernel.Link{}, false
}

// Traffic is what a device has counted.
type Traffic struct{ RxPackets, RxBytes, TxPackets, TxBytes uint64 }

// Traffic returns what a device has counted until now.
func (r *Reader) Traffic(l kernel.Link) (Traffic, error) {
	now, err := r.handle.LinkByIndex(l.Index)
	if err != nil {
		return Traffic{}, fmt.Errorf("read the counters of %s: %w", l.Name, err)
	}
	s := now.Attrs().Statistics
	if s == nil {
		return Traffic{}, nil
	}
	return Traffic{RxPackets: s.RxPackets, RxBytes: s.RxBytes, TxPackets: s.TxPackets, TxBytes: s.TxBytes}, nil
}
