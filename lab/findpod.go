package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"

	"flannel/internal/ipfam"
	"flannel/lab/node"
)

// podNetworks is where containerd keeps the networks of pods.
const podNetworks = "/run/netns"

// FindPod returns the pod of a host that runs pods by one of its addresses. The
// caller closes it.
func (h *Host) FindPod(addr netip.Addr) (*Pod, error) {
	var files []os.DirEntry
	err := h.Do(func() (err error) {
		files, err = os.ReadDir(podNetworks)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the pods of %s: %w", h.Name, err)
	}
	for _, f := range files {
		n, err := node.OpenNetwork(h.Name+"/"+f.Name(), filepath.Join(podNetworks, f.Name()), h.Node)
		if err != nil {
			continue // a pod that comes or goes
		}
		addrs, err := addressesOf(n.Handle)
		if err == nil && addrs[ipfam.Of(addr)].Addr() == addr {
			return &Pod{Node: n, Host: h, addrs: addrs}, nil
		}
		n.Close()
	}
	return nil, fmt.Errorf("no pod on %s has the address %s", h.Name, addr)
}

// addressesOf returns the global addresses of a pod.
func addressesOf(h *netlink.Handle) (addrs ipfam.Pair[netip.Prefix], err error) {
	for _, f := range ipfam.All() {
		list, err := h.AddrList(nil, f.AF())
		if err != nil {
			return addrs, err
		}
		for _, a := range list {
			ip, _ := netip.AddrFromSlice(a.IP)
			bits, _ := a.Mask.Size()
			if ip = ip.Unmap(); ip.IsGlobalUnicast() {
				addrs[f] = netip.PrefixFrom(ip, bits)
			}
		}
	}
	return addrs, nil
}
