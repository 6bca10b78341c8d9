package main

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"flannel/kernel/rtnl"
	"flannel/lab"
)

// routeEvents is a subscription to the IPv4 routes of a host.
type routeEvents struct{ *rtnl.Events }

// eventBuffer holds, in bytes, the events of a whole large network.
const eventBuffer = 16 << 20

func listenRoutes(h *lab.Host) (routeEvents, error) {
	events, err := rtnl.Listen(int(h.NetNS().Fd()), eventBuffer, unix.RTNLGRP_IPV4_ROUTE)
	if err != nil {
		return routeEvents{}, fmt.Errorf("listen for routes of %s: %w", h.Name, err)
	}
	return routeEvents{events}, nil
}

// follow notes the name of each route that is added until ctx ends.
func (e routeEvents) follow(ctx context.Context, added *moments) {
	for ctx.Err() == nil {
		// What an overrun has lost is missed by the caller.
		_ = e.Read(ctx, func(m rtnl.Message) {
			if name, ok := routeName(m); ok {
				added.note(name)
			}
		})
	}
}

// routeName returns the destination of an added route as the name of a record.
func routeName(m rtnl.Message) (string, bool) {
	if m.Type != unix.RTM_NEWROUTE || len(m.Body) < unix.SizeofRtMsg {
		return "", false
	}
	for typ, value := range rtnl.Attrs(m.Body[unix.SizeofRtMsg:]) {
		if typ == unix.RTA_DST {
			return fmt.Sprintf("%s-%d", rtnl.Addr(value), m.Body[1]), true
		}
	}
	return "", false
}
