package kernel

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"
)

// netlinkTables are the tables of entries in the kernel.
type netlinkTables struct {
	conn   *rtnl.Conn
	handle *netlink.Handle
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

func (t netlinkTables) listAddrs(s Selection, each func(AddrKey, struct{})) error {
	addrs, err := t.handle.AddrList(nil, netlink.FAMILY_ALL)
	for _, a := range addrs {
		if p := rtnl.PrefixOf(a); p.IsValid() && slices.Contains(s.Devices, a.LinkIndex) {
			each(AddrKey{a.LinkIndex, p}, struct{}{})
		}
	}
	return err
}

func (t netlinkTables) putAddrs(changes []Change[AddrKey, struct{}], fail func(int, error)) {
	for i, c := range changes {
		if err := rtnl.PutAddr(t.handle, c.Key.Dev, c.Key.Prefix); err != nil {
			fail(i, err)
		}
	}
}

func (t netlinkTables) delAddrs(entries []Entry[AddrKey, struct{}], fail func(int, error)) {
	fail = gone(fail)
	for i, e := range entries {
		if err := t.handle.AddrDel(nil, rtnl.AddrOf(e.Key.Dev, e.Key.Prefix)); err != nil {
			fail(i, err)
		}
	}
}

// dumpNeigh lists neighbors, or FDB entries for the family AF_BRIDGE.
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

func neighHeader(k NeighborKey) unix.NdMsg {
	return unix.NdMsg{Family: family(k.Addr), Ifindex: int32(k.Dev), State: unix.NUD_PERMANENT}
}

func fdbValueOf(n rtnl.Neigh) FDBValue { return FDBValue{n.Addr, n.Other} }

func (t netlinkTables) listFDB(s Selection, each func(FDBKey, FDBValue)) error {
	for _, dev := range s.Devices {
		err := t.dumpNeigh(unix.AF_BRIDGE, dev, func(n rtnl.Neigh) { each(FDBKey{dev, n.MAC}, fdbValueOf(n)) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (t netlinkTables) putFDB(changes []Change[FDBKey, FDBValue], fail func(int, error)) {
	t.delNexthops(changes)
	t.conn.Do(len(changes), func(b *rtnl.Batch, i int) {
		c := changes[i]
		b.Neigh(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, fdbHeader(c.Key.Dev))
		b.Bytes(unix.NDA_LLADDR, c.Key.MAC[:])
		b.Addr(unix.NDA_DST, c.Want.Dst)
	}, fail)
}

// delNexthops deletes the entries with a nexthop object that are to change:
// the kernel acknowledges their replacement and does nothing.
func (t netlinkTables) delNexthops(changes []Change[FDBKey, FDBValue]) {
	var stuck []Entry[FDBKey, FDBValue]
	for _, c := range changes {
		if c.Exists && !c.Have.Dst.IsValid() {
			stuck = append(stuck, Entry[FDBKey, FDBValue]{c.Key, c.Have})
		}
	}
	// What stays is seen by the next list.
	t.delFDB(stuck, func(int, error) {})
}

func (t netlinkTables) delFDB(entries []Entry[FDBKey, FDBValue], fail func(int, error)) {
	t.conn.Do(len(entries), func(b *rtnl.Batch, i int) {
		k := entries[i].Key
		b.Neigh(unix.RTM_DELNEIGH, 0, fdbHeader(k.Dev))
		b.Bytes(unix.NDA_LLADDR, k.MAC[:])
	}, gone(fail))
}

func (t netlinkTables) listNeighbors(s Selection, each func(NeighborKey, MAC)) error {
	for _, dev := range s.Devices {
		for _, f := range ipfam.All() {
			err := t.dumpNeigh(uint8(f.AF()), dev, func(n rtnl.Neigh) { each(NeighborKey{dev, n.Addr}, n.MAC) })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (t netlinkTables) putNeighbors(changes []Change[NeighborKey, MAC], fail func(int, error)) {
	t.conn.Do(len(changes), func(b *rtnl.Batch, i int) {
		c := &changes[i]
		b.Neigh(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, neighHeader(c.Key))
		b.Addr(unix.NDA_DST, c.Key.Addr)
		b.Bytes(unix.NDA_LLADDR, c.Want[:])
	}, fail)
}

func (t netlinkTables) delNeighbors(entries []Entry[NeighborKey, MAC], fail func(int, error)) {
	t.conn.Do(len(entries), func(b *rtnl.Batch, i int) { delNeighbor(b, entries[i].Key) }, gone(fail))
}

func delNeighbor(b *rtnl.Batch, k NeighborKey) {
	b.Neigh(unix.RTM_DELNEIGH, 0, neighHeader(k))
	b.Addr(unix.NDA_DST, k.Addr)
}

func (t netlinkTables) fdbAges(dev int, each func(k FDBKey, unused time.Duration)) error {
	return t.dumpNeigh(unix.AF_BRIDGE, dev, func(n rtnl.Neigh) { each(FDBKey{dev, n.MAC}, n.Unused) })
}

// release resolves the addresses that have a MAC, which sends the packets that
// wait, then removes all of them: an entry per pod address would fill the
// kernel's table. Packets to an address that is not resolved are dropped.
func (t netlinkTables) release(list []Waiting) {
	ignore := func(int, error) {}
	t.conn.Do(len(list), func(b *rtnl.Batch, i int) {
		w := &list[i]
		if w.MAC.IsZero() {
			delNeighbor(b, w.Key)
			return
		}
		h := neighHeader(w.Key)
		h.State = unix.NUD_REACHABLE
		b.Neigh(unix.RTM_NEWNEIGH, unix.NLM_F_REPLACE, h)
		b.Addr(unix.NDA_DST, w.Key.Addr)
		b.Bytes(unix.NDA_LLADDR, w.MAC[:])
	}, ignore)
	t.conn.Do(len(list), func(b *rtnl.Batch, i int) { delNeighbor(b, list[i].Key) }, ignore)
}
