package uplink

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"

	"flannel/internal/ipfam"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// host reads the kernel of one network namespace.
type host struct {
	handle *netlink.Handle
	// namespace is netns.None() for that of the process.
	namespace netns.NsHandle
}

// dump runs a dump again when the kernel says that it changed meanwhile.
func dump(run func() error) error {
	const tries = 10
	var err error
	for range tries {
		if err = run(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return err
		}
	}
	return err
}

// interfaces reads links and addresses.
func (h host) interfaces() (Snapshot, error) {
	var links []netlink.Link
	err := dump(func() (err error) { links, err = h.handle.LinkList(); return err })
	if err != nil {
		return Snapshot{}, fmt.Errorf("list interfaces: %w", err)
	}
	var addrs []netlink.Addr
	err = dump(func() (err error) { addrs, err = h.handle.AddrList(nil, netlink.FAMILY_ALL); return err })
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
	if a.IPNet == nil {
		return Addr{}, false
	}
	ip, ok := netip.AddrFromSlice(a.IP)
	if !ok {
		return Addr{}, false
	}
	ip = ip.Unmap()
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

func (h host) defaults(f ipfam.Family) ([]int, error) {
	var found []route
	err := h.routes(f, 0, func(r route) {
		if r.dst.Bits() == 0 && r.unicast && r.first != 0 {
			found = append(found, r)
		}
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(found, func(a, b route) int { return cmp.Compare(a.metric, b.metric) })
	indexes := make([]int, len(found))
	for i, r := range found {
		indexes[i] = r.first
	}
	return indexes, nil
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
func (h host) routes(f ipfam.Family, index int, visit func(route)) error {
	socket, err := nl.GetNetlinkSocketAt(h.namespace, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	defer socket.Close()
	// A kernel without strict checking sends more, which is filtered again.
	_ = unix.SetsockoptInt(socket.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	err = dump(func() error {
		req := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
		req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}
		req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(f.AF()), Table: unix.RT_TABLE_MAIN}})
		if index != 0 {
			req.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
		}
		return req.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE, func(m []byte) bool {
			r, ok := parseRoute(m)
			if ok && r.table == unix.RT_TABLE_MAIN && (index == 0 || r.link == index) {
				visit(r)
			}
			return true
		})
	})
	// The kernel makes the table with its first route.
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("list routes: %w", err)
	}
	return nil
}

// inside runs act in the namespace.
func (h host) inside(act func() error) error {
	if !h.namespace.IsOpen() {
		return act()
	}
	result := make(chan error)
	go func() {
		// The thread stays locked and so ends with the goroutine: it never
		// runs other code in this namespace.
		runtime.LockOSThread()
		if err := netns.Set(h.namespace); err != nil {
			result <- err
			return
		}
		result <- act()
	}()
	return <-result
}
