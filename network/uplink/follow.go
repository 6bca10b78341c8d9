package uplink

import (
	"fmt"

	"flannel/backend"
	"flannel/internal/ipfam"
)

// keep returns the uplink in use as it is at present: its MTU or name may have
// changed. An error says which part of it is gone; linkGone tells whether it
// is the interface itself.
func keep(cur backend.Uplink, s Snapshot) (now backend.Uplink, linkGone bool, err error) {
	link, ok := s.linkByIndex(cur.Index)
	if !ok {
		return cur, true, fmt.Errorf("interface %s is gone", cur.Name)
	}
	if link.MTU != 0 {
		cur.MTU = link.MTU
	}
	cur.Name = link.Name
	for _, ip := range ipfam.Addrs(cur.Addr) {
		if !s.has(cur.Index, ip) {
			return cur, false, fmt.Errorf("address %s of %s is gone", ip, cur.Name)
		}
	}
	return cur, false, nil
}

// choose runs the selection while an uplink is in use. When the choice falls
// on the same interface, the addresses that are still there stay in use.
func choose(cur backend.Uplink, o Options, s Snapshot) (backend.Uplink, error) {
	next, err := Select(o, s)
	if err != nil || next.Index != cur.Index {
		return next, err
	}
	for f, ip := range ipfam.Addrs(cur.Addr) {
		if s.has(next.Index, ip) {
			next.Addr[f] = ip
		}
	}
	next.Public = o.public(next.Addr)
	return next, nil
}
