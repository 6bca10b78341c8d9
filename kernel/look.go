package kernel

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"flannel/kernel/rtnl"
)

// ReadLinks lists the devices that a handle sees, for programs that only look.
func ReadLinks(handle *netlink.Handle) ([]Link, error) {
	var list []netlink.Link
	err := rtnl.Retry(func() (err error) { list, err = handle.LinkList(); return err })
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	out := make([]Link, len(list))
	for i, l := range list {
		out[i] = linkOf(l)
	}
	return out, nil
}

// ReadAddrs lists the addresses that a handle sees.
func ReadAddrs(handle *netlink.Handle) ([]HostAddr, error) {
	list, err := hostAddrs(handle)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return list, nil
}

// AnyInstanceRuns reports whether a daemon of this software runs in the current
// network namespace, as far as its lock shows.
func AnyInstanceRuns(dir string) bool { return slices.ContainsFunc(locks(dir), locked) }

// FreeLocks returns the locks of daemons in the current network namespace that have
// ended without removing theirs.
func FreeLocks(dir string) []string { return slices.DeleteFunc(locks(dir), locked) }

// locks returns the files of all instances in the current network namespace.
func locks(dir string) []string {
	path, err := lockPath(dir, 0, "")
	if err != nil {
		return nil
	}
	files, _ := filepath.Glob(path[:strings.LastIndex(path, "-")+1] + "*")
	return files
}
