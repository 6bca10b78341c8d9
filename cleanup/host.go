package cleanup

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/kernel/look"
	"flannel/kernel/rtnl"
)

// host is this host's network as it is.
type host struct {
	now      look.Host
	options  Options
	handle   *netlink.Handle
	networks []netip.Prefix
}

// open reads devices, addresses and the routes that may be ours or flannel's.
func open(o Options) (*host, error) {
	r, err := look.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	h := &host{options: o, networks: networks(o)}
	if h.now, err = r.Host(look.Route.IsMain); err != nil {
		return nil, err
	}
	h.handle, err = rtnl.NewHandle(0)
	return h, err
}

func (h *host) close() { h.handle.Close() }

// isOurs reports whether a device is one of this software or of flannel. flannel's
// TUN device ends with its daemon.
func (h *host) isOurs(l kernel.Link) bool {
	return h.options.Backends.IsOverlay(l) && (l.Kind != kernel.KindTUN || kernel.Marked(l.Alias))
}

func (h *host) devices() []Thing {
	var out []Thing
	for _, l := range h.now.Links {
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
func (h *host) isOurRoute(r look.Route) bool {
	return r.IsOurs() && (h.overOurs(r) || ipfam.WithinAny(h.networks, r.Dst))
}

func (h *host) overOurs(r look.Route) bool {
	l, _ := h.now.Links.ByName(r.Dev)
	return h.isOurs(l)
}

func (h *host) routes() []Thing {
	var out []Thing
	for _, r := range h.now.Routes {
		if h.isOurRoute(r) {
			out = append(out, Thing{"route " + describe(r), func() error { return h.deleteRoute(r) }})
		}
	}
	return out
}

// deleteRoute deletes a route of the main table, of whatever scope.
func (h *host) deleteRoute(r look.Route) error {
	l, _ := h.now.Links.ByName(r.Dev)
	gone := netlink.Route{
		Dst: rtnl.IPNet(r.Dst), Gw: r.Via.AsSlice(), LinkIndex: l.Index, Priority: r.Metric,
		Protocol: netlink.RouteProtocol(r.Protocol), Scope: unix.RT_SCOPE_NOWHERE,
	}
	if err := h.handle.RouteDel(&gone); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// leftRoutes describes routes that may be flannel's, which does not mark them, and
// those with our mark outside our networks, with the command that deletes them.
// flannel's routes over its device end with it.
func (h *host) leftRoutes() []string {
	var out []string
	for _, r := range h.now.Routes {
		flannels := r.Protocol == unix.RTPROT_BOOT && r.Via.IsValid() && ipfam.WithinAny(h.networks, r.Dst)
		if !h.overOurs(r) && !h.isOurRoute(r) && (r.IsOurs() || flannels) {
			text := describe(r)
			out = append(out, fmt.Sprintf("route %s, which may be flannel's or yours; delete it with: ip route del %s", text, text))
		}
	}
	return out
}

// describe writes a route without who made it: that is why it is listed.
func describe(r look.Route) string {
	r.Protocol = 0
	return r.String()
}
