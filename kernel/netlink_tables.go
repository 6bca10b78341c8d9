package kernel

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// netlinkTables are the four tables of entries in the kernel.
type netlinkTables struct {
	conn      *rtnl.Conn
	handle    *netlink.Handle
	namespace int
	locks     string
}

func (t netlinkTables) edge(links linkTable) backing {
	return backing{
		links:      links,
		addrs:      table[addrKey, struct{}]{TableAddresses, t.listAddrs, t.putAddrs, t.delAddrs},
		fdb:        table[fdbKey, fdbValue]{TableFDB, t.listFDB, t.putFDB, t.delFDB},
		neighbors:  table[neighKey, MAC]{TableNeighbors, t.listNeighbors, t.putNeighbors, t.delNeighbors},
		routes:     table[routeKey, routeValue]{TableRoutes, t.listRoutes, t.putRoutes, t.delRoutes},
		alive:      func(instance string) bool { return alive(t.locks, t.namespace, instance) },
		fdbAges:    t.fdbAges,
		release:    t.release,
		host:       t.readHost,
		findRoutes: t.findRoutes,
	}
}

func family(a netip.Addr) uint8 { return uint8(ipfam.Of(a).AF()) }

// gone makes "it is not there" of a deletion a success.
func gone(fail func(int, error)) func(int, error) {
	return func(i int, err error) {
		for _, errno := range []syscall.Errno{unix.ESRCH, unix.ENOENT, unix.EADDRNOTAVAIL, unix.ENODEV} {
			if errors.Is(err, errno) {
				return
			}
		}
		fail(i, err)
	}
}

func (t netlinkTables) listAddrs(s selection, each func(addrKey, struct{})) error {
	addrs, err := t.handle.AddrList(nil, netlink.FAMILY_ALL)
	for _, a := range addrs {
		if p := rtnl.PrefixOf(a); p.IsValid() && slices.Contains(s.devices, a.LinkIndex) {
			each(addrKey{a.LinkIndex, p}, struct{}{})
		}
	}
	return err
}

func (t netlinkTables) putAddrs(changes []change[addrKey, struct{}], fail func(int, error)) {
	for i, c := range changes {
		if err := rtnl.PutAddr(t.handle, c.key.dev, c.key.prefix); err != nil {
			fail(i, err)
		}
	}
}

func (t netlinkTables) delAddrs(entries []entry[addrKey, struct{}], fail func(int, error)) {
	fail = gone(fail)
	for i, e := range entries {
		if err := t.handle.AddrDel(nil, rtnl.AddrOf(e.key.dev, e.key.prefix)); err != nil {
			fail(i, err)
		}
	}
}

// dumpNeigh lists neighbours, or FDB entries for the family AF_BRIDGE.
func (t netlinkTables) dumpNeigh(family uint8, dev int, each func(rtnl.Neigh)) error {
	return t.conn.Dump(func(b *rtnl.Batch) {
		b.Neigh(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, unix.NdMsg{Family: family})
		b.Uint32(unix.NDA_IFINDEX, uint32(dev))
	}, func(m rtnl.Message) {
		if n, ok := rtnl.ParseNeigh(m.Body); ok && n.Dev == dev && n.Family == family && isPermanent(n.State) {
			each(n)
		}
	})
}

func fdbHeader(dev int) unix.NdMsg {
	return unix.NdMsg{Family: unix.AF_BRIDGE, Ifindex: int32(dev), State: unix.NUD_PERMANENT, Flags: unix.NTF_SELF}
}

func neighHeader(k neighKey) unix.NdMsg {
	return unix.NdMsg{Family: family(k.addr), Ifindex: int32(k.dev), State: unix.NUD_PERMANENT}
}

func fdbValueOf(n rtnl.Neigh) fdbValue { return fdbValue{n.Addr, n.Other} }

func (t netlinkTables) listFDB(s selection, each func(fdbKey, fdbValue)) error {
	for _, dev := range s.devices {
		err := t.dumpNeigh(unix.AF_BRIDGE, dev, func(n rtnl.Neigh) { each(fdbKey{dev, n.MAC}, fdbValueOf(n)) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (t netlinkTables) putFDB(changes []change[fdbKey, fdbValue], fail func(int, error)) {
	t.delNexthops(changes)
	t.conn.Do(len(changes), func(b *rtnl.Batch, i int) {
		c := changes[i]
		b.Neigh(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, fdbHeader(c.key.dev))
		b.Bytes(unix.NDA_LLADDR, c.key.mac[:])
		b.Addr(unix.NDA_DST, c.want.dst)
	}, fail)
}

// delNexthops deletes the entries with a nexthop object that are to change:
// the kernel acknowledges their replacement and does nothing.
func (t netlinkTables) delNexthops(changes []change[fdbKey, fdbValue]) {
	var stuck []entry[fdbKey, fdbValue]
	for _, c := range changes {
		if c.exists && !c.have.dst.IsValid() {
			stuck = append(stuck, entry[fdbKey, fdbValue]{c.key, c.have})
		}
	}
	// What stays is seen by the next list.
	t.delFDB(stuck, func(int, error) {})
}

func (t netlinkTables) delFDB(entries []entry[fdbKey, fdbValue], fail func(int, error)) {
	t.conn.Do(len(entries), func(b *rtnl.Batch, i int) {
		k := entries[i].key
		b.Neigh(unix.RTM_DELNEIGH, 0, fdbHeader(k.dev))
		b.Bytes(unix.NDA_LLADDR, k.mac[:])
	}, gone(fail))
}

func (t netlinkTables) listNeighbors(s selection, each func(neighKey, MAC)) error {
	for _, dev := range s.devices {
		for _, f := range ipfam.All() {
			err := t.dumpNeigh(uint8(f.AF()), dev, func(n rtnl.Neigh) { each(neighKey{dev, n.Addr}, n.MAC) })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (t netlinkTables) putNeighbors(changes []change[neighKey, MAC], fail func(int, error)) {
	t.conn.Do(len(changes), func(b *rtnl.Batch, i int) {
		c := &changes[i]
		b.Neigh(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, neighHeader(c.key))
		b.Addr(unix.NDA_DST, c.key.addr)
		b.Bytes(unix.NDA_LLADDR, c.want[:])
	}, fail)
}

func (t netlinkTables) delNeighbors(entries []entry[neighKey, MAC], fail func(int, error)) {
	t.conn.Do(len(entries), func(b *rtnl.Batch, i int) {
		k := entries[i].key
		b.Neigh(unix.RTM_DELNEIGH, 0, neighHeader(k))
		b.Addr(unix.NDA_DST, k.addr)
	}, gone(fail))
}
