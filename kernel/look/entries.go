package look

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/kernel/rtnl"
)

// Neighbor returns the MAC that a device sends to for an address; the zero MAC if
// there is no entry.
func (r *Reader) Neighbor(dev string, addr netip.Addr) (found kernel.MAC, err error) {
	err = r.entries(dev, uint8(ipfam.Of(addr).AF()), func(n rtnl.Neigh) {
		if n.Addr == addr {
			found = n.MAC
		}
	})
	return found, err
}

// FDB returns the host that a vxlan device sends a MAC to; the zero Addr if there is
// no entry.
func (r *Reader) FDB(dev string, mac kernel.MAC) (found netip.Addr, err error) {
	err = r.entries(dev, unix.AF_BRIDGE, func(n rtnl.Neigh) {
		if n.MAC == mac && n.Addr.IsValid() {
			found = n.Addr
		}
	})
	return found, err
}

// entries visits the neighbors of a device, or the FDB entries with AF_BRIDGE.
func (r *Reader) entries(dev string, family uint8, visit func(rtnl.Neigh)) error {
	link, ok := r.links.ByName(dev)
	if !ok {
		return nil
	}
	err := rtnl.Retry(func() error {
		return r.conn.Dump(func(b *rtnl.Batch) {
			b.Neigh(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, unix.NdMsg{Family: family})
			b.Uint32(unix.NDA_IFINDEX, uint32(link.Index))
		}, func(m rtnl.Message) {
			if n, ok := rtnl.ParseNeigh(m.Body); ok && n.Dev == link.Index && n.Family == family {
				visit(n)
			}
		})
	})
	if err != nil {
		return fmt.Errorf("list entries of %s: %w", dev, err)
	}
	return nil
}
