package kernel

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"
)

// Host is what this host has beside the overlay, or is part of it.
type Host struct {
	// Addrs are the addresses of all interfaces with their prefix lengths.
	Addrs []HostAddr
	// Gateways are those of the default routes in the main table.
	Gateways []netip.Addr
}

// HostAddr is an address of an interface.
type HostAddr struct {
	Addr netip.Prefix
	Dev  string
}

func (t netlinkTables) readHost() (h Host, err error) {
	if h.Addrs, err = ReadAddrs(t.handle); err != nil {
		return h, err
	}
	err = rtnl.Retry(func() error {
		h.Gateways = nil
		for _, f := range ipfam.All() {
			if err := t.dump(f, unix.RTPROT_UNSPEC, func(m rtnl.Message) { h.addGateways(m.Body) }); err != nil {
				return err
			}
		}
		return nil
	})
	return h, err
}

// addGateways adds those of a default route of the main table.
func (h *Host) addGateways(body []byte) {
	r, ok := rtnl.ParseRoute(body)
	if !ok || r.Dst.Bits() != 0 || r.Table != unix.RT_TABLE_MAIN || r.TOS != 0 {
		return
	}
	for hop := range r.NextHops() {
		if hop.Gateway.IsValid() {
			h.Gateways = append(h.Gateways, hop.Gateway)
		}
	}
}

// ReadAddrs lists the addresses that a handle sees.
func ReadAddrs(handle *netlink.Handle) ([]HostAddr, error) {
	var addrs []netlink.Addr
	links, err := ReadLinks(handle)
	if err == nil {
		err = rtnl.Retry(func() (err error) { addrs, err = handle.AddrList(nil, netlink.FAMILY_ALL); return err })
	}
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Index] = l.Name
	}
	var list []HostAddr
	for _, a := range addrs {
		if p := rtnl.PrefixOf(a); p.IsValid() {
			list = append(list, HostAddr{p, names[a.LinkIndex]})
		}
	}
	return list, nil
}
