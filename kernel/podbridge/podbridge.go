// Package podbridge gives the pods' bridge the address of this node's present
// subnet, if the node had another subnet when the bridge was made. The daemon
// and the CNI plugin use it.
package podbridge

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"
)

// Name is that which the CNI plugin's bridge has by default.
const Name = "cni0"

// Readdress looks at the bridge of this name in the current network namespace.
// Addresses inside the overlay networks that are not the present one are
// replaced by it, as long as the bridge has no ports. present is the subnet's
// first usable address with the subnet's length. If the bridge has ports nothing
// is changed, and the addresses are returned. No such bridge is no error.
func Readdress(name string, networks ipfam.Pair[[]netip.Prefix], present ipfam.Pair[netip.Prefix]) (former []netip.Prefix, err error) {
	handle, err := rtnl.NewHandle(0)
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	bridge, inUse, err := find(handle, name)
	if err != nil || bridge == nil {
		return nil, err
	}
	have, err := addrs(handle, bridge)
	if err != nil {
		return nil, err
	}
	former = outdated(have, networks, present)
	if len(former) == 0 || inUse {
		return former, nil
	}
	return nil, replace(handle, bridge, former, present)
}

// outdated lists the addresses that are ours, because they lie inside the
// networks, and that the present subnet does not explain.
func outdated(have []netip.Prefix, networks ipfam.Pair[[]netip.Prefix], present ipfam.Pair[netip.Prefix]) []netip.Prefix {
	var list []netip.Prefix
	for _, a := range have {
		f := ipfam.Of(a.Addr())
		ours := slices.ContainsFunc(networks[f], func(n netip.Prefix) bool { return n.Contains(a.Addr()) })
		if ours && present[f].IsValid() && a != present[f] {
			list = append(list, a)
		}
	}
	return list
}

// find returns the bridge, or nil, and whether it has ports.
func find(handle *netlink.Handle, name string) (bridge netlink.Link, inUse bool, err error) {
	var links []netlink.Link
	err = rtnl.Retry(func() (err error) { links, err = handle.LinkList(); return err })
	if err != nil {
		return nil, false, fmt.Errorf("list devices: %w", err)
	}
	i := slices.IndexFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == name })
	if i < 0 {
		return nil, false, nil
	}
	isPort := func(l netlink.Link) bool { return l.Attrs().MasterIndex == links[i].Attrs().Index }
	return links[i], slices.ContainsFunc(links, isPort), nil
}

// addrs lists a device's addresses.
func addrs(handle *netlink.Handle, dev netlink.Link) ([]netip.Prefix, error) {
	var all []netlink.Addr
	err := rtnl.Retry(func() (err error) { all, err = handle.AddrList(dev, netlink.FAMILY_ALL); return err })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var list []netip.Prefix
	for _, a := range all {
		if p := rtnl.PrefixOf(a); p.IsValid() {
			list = append(list, p)
		}
	}
	return list, nil
}

// replace adds the present addresses, then deletes the former ones. Another
// plugin may be doing the same.
func replace(handle *netlink.Handle, dev netlink.Link, former []netip.Prefix, present ipfam.Pair[netip.Prefix]) error {
	var errs []error
	for f, p := range ipfam.Prefixes(present) {
		if !slices.ContainsFunc(former, func(a netip.Prefix) bool { return ipfam.Of(a.Addr()) == f }) {
			continue
		}
		if err := rtnl.PutAddr(handle, dev.Attrs().Index, p); err != nil {
			errs = append(errs, fmt.Errorf("add address %s: %w", p, err))
		}
	}
	for _, a := range former {
		if err := handle.AddrDel(dev, rtnl.AddrOf(0, a)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("delete address %s: %w", a, err))
		}
	}
	return errors.Join(errs...)
}
