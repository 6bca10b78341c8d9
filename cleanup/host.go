package cleanup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/kernel/rtnl"
)

// host is this host's network as it is.
type host struct {
	options  Options
	handle   *netlink.Handle
	networks []netip.Prefix
	links    []kernel.Link
	table    []netlink.Route
}

// open reads devices and routes.
func open(o Options) (*host, error) {
	handle, err := rtnl.NewHandle(0)
	if err != nil {
		return nil, err
	}
	h := &host{options: o, handle: handle, networks: networks(o)}
	if h.links, err = kernel.ReadLinks(handle); err == nil {
		h.table, err = mainTable(handle)
	}
	if err != nil {
		handle.Close()
		return nil, err
	}
	return h, nil
}

func (h *host) close() { h.handle.Close() }

func mainTable(handle *netlink.Handle) ([]netlink.Route, error) {
	var out []netlink.Route
	for _, f := range ipfam.All() {
		var list []netlink.Route
		err := rtnl.Retry(func() (err error) { list, err = handle.RouteList(nil, f.AF()); return err })
		if err != nil && !errors.Is(err, unix.ENOENT) { // the kernel makes the table with its first route
			return nil, fmt.Errorf("list routes: %w", err)
		}
		out = append(out, list...)
	}
	return out, nil
}

// isOurs reports whether a device is one of this software or of flannel. flannel's
// TUN device ends with its daemon.
func (h *host) isOurs(l kernel.Link) bool {
	return h.options.Backends.IsOverlay(l) && (l.Kind != kernel.KindTUN || kernel.Marked(l.Alias))
}

func (h *host) devices() []Thing {
	var out []Thing
	for _, l := range h.links {
		if h.isOurs(l) {
			out = append(out, Thing{"device " + l.Name, func() error { return h.deleteLink(l.Index) }})
		}
	}
	return out
}

func (h *host) deleteLink(index int) error {
	err := h.handle.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}})
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// isOurRoute reports whether a route is ours: it has our protocol number, and is over
// a device of ours or inside our networks.
func (h *host) isOurRoute(r netlink.Route) bool {
	return r.Protocol == kernel.RouteProtocol && (h.overOurs(r) || ipfam.WithinAny(h.networks, rtnl.NetworkOf(r.Dst)))
}

func (h *host) overOurs(r netlink.Route) bool {
	return slices.ContainsFunc(h.links, func(l kernel.Link) bool { return l.Index == r.LinkIndex && h.isOurs(l) })
}

func (h *host) routes() []Thing {
	var out []Thing
	for _, r := range h.table {
		if h.isOurRoute(r) {
			out = append(out, Thing{"route " + h.describe(r), func() error {
				if err := h.handle.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
					return err
				}
				return nil
			}})
		}
	}
	return out
}

// leftRoutes describes routes that may be flannel's, which does not mark them, and
// those with our mark outside our networks, with the command that deletes them.
// flannel's routes over its device end with it.
func (h *host) leftRoutes() []string {
	var out []string
	for _, r := range h.table {
		marked := r.Protocol == kernel.RouteProtocol
		flannels := r.Protocol == unix.RTPROT_BOOT && r.Gw != nil && ipfam.WithinAny(h.networks, rtnl.NetworkOf(r.Dst))
		if !h.overOurs(r) && !h.isOurRoute(r) && (marked || flannels) {
			text := h.describe(r)
			out = append(out, fmt.Sprintf("route %s, which may be flannel's or yours; delete it with: ip route del %s", text, text))
		}
	}
	return out
}

// describe writes a route as ip takes it.
func (h *host) describe(r netlink.Route) string {
	text := "default"
	if dst := rtnl.NetworkOf(r.Dst); dst.IsValid() {
		text = dst.String()
	}
	if r.Type == unix.RTN_BLACKHOLE {
		text = "blackhole " + text
	}
	if via, ok := netip.AddrFromSlice(r.Gw); ok {
		text += " via " + via.Unmap().String()
	}
	for _, l := range h.links {
		if l.Index == r.LinkIndex && r.Type != unix.RTN_BLACKHOLE {
			text += " dev " + l.Name
		}
	}
	if r.Priority != 0 {
		text += fmt.Sprintf(" metric %d", r.Priority)
	}
	return text
}
