package uplink

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"
)

// host reads the kernel of one network namespace.
type host struct {
	handle *netlink.Handle
	conn   *rtnl.Conn
}

// openHost opens a namespace; zero is that of the process.
func openHost(namespace int) (host, error) {
	handle, err := rtnl.NewHandle(namespace)
	if err != nil {
		return host{}, err
	}
	conn, err := rtnl.Dial(namespace)
	if err != nil {
		handle.Close()
		return host{}, fmt.Errorf("open netlink: %w", err)
	}
	return host{handle, conn}, nil
}

func (h host) close() {
	h.handle.Close()
	_ = h.conn.Close() // nothing was written
}

// interfaces reads links and addresses.
func (h host) interfaces() (Snapshot, error) {
	var links []netlink.Link
	err := rtnl.Retry(func() (err error) { links, err = h.handle.LinkList(); return err })
	if err != nil {
		return Snapshot{}, fmt.Errorf("list interfaces: %w", err)
	}
	var addrs []netlink.Addr
	err = rtnl.Retry(func() (err error) { addrs, err = h.handle.AddrList(nil, netlink.FAMILY_ALL); return err })
	if err != nil {
		return Snapshot{}, fmt.Errorf("list addresses: %w", err)
	}
	var s Snapshot
	for _, l := range links {
		a := l.Attrs()
		s.Links = append(s.Links, Link{Index: a.Index, Name: a.Name, MTU: a.MTU, Up: a.RawFlags&unix.IFF_UP != 0})
	}
	for _, a := range addrs {
		if addr, ok := fromNetlink(a); ok {
			s.Addrs = append(s.Addrs, addr)
		}
	}
	return s, nil
}

func (h host) isUp(index int) bool {
	link, err := h.handle.LinkByIndex(index)
	return err == nil && link.Attrs().RawFlags&unix.IFF_UP != 0
}

func fromNetlink(a netlink.Addr) (Addr, bool) {
	prefix := rtnl.PrefixOf(a)
	if !prefix.IsValid() {
		return Addr{}, false
	}
	ip := prefix.Addr()
	unfit := unix.IFA_F_DEPRECATED | unix.IFA_F_DADFAILED
	if ip.Is6() {
		// The bit of a temporary address means secondary for IPv4.
		unfit |= unix.IFA_F_TEMPORARY
		if a.Flags&unix.IFA_F_OPTIMISTIC == 0 {
			unfit |= unix.IFA_F_TENTATIVE
		}
	}
	return Addr{
		Link: a.LinkIndex, IP: ip,
		Dynamic: a.Flags&unix.IFA_F_PERMANENT == 0,
		Unfit:   a.Flags&unfit != 0,
	}, true
}

// addRoutes completes a snapshot with what the options need of the routes.
func (h host) addRoutes(s *Snapshot, o Options) error {
	if o.CanReach.IsValid() {
		s.Reach = h.reach(o.CanReach)
	}
	if !o.byDefaultRoute() {
		return nil
	}
	for f, on := range o.Families.Each() {
		if !on {
			continue
		}
		defaults, err := h.defaults(f)
		if err != nil {
			return err
		}
		s.Defaults[f] = defaults
	}
	return nil
}

func (h host) reach(dst netip.Addr) Reach {
	routes, err := h.handle.RouteGet(dst.AsSlice())
	if err != nil {
		return Reach{Err: err}
	}
	if len(routes) == 0 {
		return Reach{Err: unix.ENETUNREACH}
	}
	source, _ := netip.AddrFromSlice(routes[0].Src)
	return Reach{Link: routes[0].LinkIndex, Source: source.Unmap()}
}

// defaults lists the interfaces of the default routes, the best first.
func (h host) defaults(f ipfam.Family) ([]int, error) {
	type candidate struct{ dev, metric int }
	var found []candidate
	err := h.routes(f, 0, func(r rtnl.Route) {
		if dev := firstDev(r); r.Dst.Bits() == 0 && r.Type == unix.RTN_UNICAST && dev != 0 {
			found = append(found, candidate{dev, r.Metric})
		}
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return cmp.Compare(a.metric, b.metric) })
	devs := make([]int, len(found))
	for i, c := range found {
		devs[i] = c.dev
	}
	return devs, nil
}

// linkTable reads the routes around the links of an interface.
func (h host) linkTable(index int, families ipfam.Pair[bool]) (*linkTable, error) {
	t := newLinkTable(index)
	for f, on := range families.Each() {
		if !on {
			continue
		}
		if err := h.routes(f, index, t.addOnLink); err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(t.onLink, func(p netip.Prefix) bool { return ipfam.Of(p.Addr()) == f }) {
			continue
		}
		if err := h.routes(f, 0, t.add); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// routes visits the main table, or what of it leaves by one interface. The
// kernel does the filtering, so that other tables cost nothing. An interrupted
// dump visits routes a second time.
func (h host) routes(f ipfam.Family, dev int, visit func(rtnl.Route)) error {
	err := rtnl.Retry(func() error {
		return h.conn.Dump(func(b *rtnl.Batch) {
			b.Route(unix.RTM_GETROUTE, unix.NLM_F_DUMP, unix.RtMsg{Family: uint8(f.AF()), Table: unix.RT_TABLE_MAIN})
			if dev != 0 {
				b.Uint32(unix.RTA_OIF, uint32(dev))
			}
		}, func(m rtnl.Message) {
			// A kernel without strict checking sends more.
			r, ok := rtnl.ParseRoute(m.Body)
			if ok && r.Table == unix.RT_TABLE_MAIN && (dev == 0 || r.Dev == dev) {
				visit(r)
			}
		})
	})
	// The kernel makes the table with its first route.
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("list routes: %w", err)
	}
	return nil
}
