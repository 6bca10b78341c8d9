package kernel

import (
	"errors"
	"net/netip"
	"syscall"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"

	"golang.org/x/sys/unix"
)

// netlinkTables are the four tables of entries in the kernel.
type netlinkTables struct {
	conn      *rtnl.Conn
	namespace int
	locks     string
}

func (t netlinkTables) edge(links linkTable) edge {
	return edge{
		links:      links,
		addrs:      table[addrKey, struct{}]{TableAddresses, t.listAddrs, t.putAddrs, t.delAddrs},
		fdb:        table[fdbKey, fdbValue]{TableFDB, t.listFDB, t.putFDB, t.delFDB},
		neighbors:  table[neighKey, MAC]{TableNeighbors, t.listNeighbors, t.putNeighbors, t.delNeighbors},
		routes:     table[routeKey, routeValue]{TableRoutes, t.listRoutes, t.putRoutes, t.delRoutes},
		alive:      func(instance string) bool { return alive(t.locks, t.namespace, instance) },
		fdbAges:    t.fdbAges,
		release:    t.release,
		host:       func() (Host, error) { return t.host(links) },
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
	for _, dev := range s.devices {
		for _, f := range ipfam.All() {
			err := t.conn.Dump(func(b *rtnl.Batch) {
				b.Begin(unix.RTM_GETADDR, unix.NLM_F_DUMP, addrHeader(uint8(f.AF()), 0, dev))
			}, func(m rtnl.Message) {
				if k, ok := parseAddr(m.Body); ok {
					each(k, struct{}{})
				}
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (t netlinkTables) putAddrs(changes []change[addrKey, struct{}], fail func(int, error)) {
	t.conn.Do(len(changes), func(b *rtnl.Batch, i int) {
		k := changes[i].key
		t.addr(b, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, k)
		if k.prefix.Addr().Is6() {
			// The tunnel has no second owner of the address to ask for.
			b.Uint32(unix.IFA_FLAGS, unix.IFA_F_NODAD|unix.IFA_F_PERMANENT)
		}
	}, fail)
}

func (t netlinkTables) delAddrs(entries []entry[addrKey, struct{}], fail func(int, error)) {
	t.conn.Do(len(entries), func(b *rtnl.Batch, i int) {
		t.addr(b, unix.RTM_DELADDR, 0, entries[i].key)
	}, gone(fail))
}

func (t netlinkTables) addr(b *rtnl.Batch, typ, flags uint16, k addrKey) {
	a := k.prefix.Addr()
	b.Begin(typ, flags, addrHeader(family(a), k.prefix.Bits(), k.dev))
	b.Addr(unix.IFA_LOCAL, a)
	b.Addr(unix.IFA_ADDRESS, a)
}

// dumpNeigh lists neighbours, or FDB entries for the family AF_BRIDGE.
func (t netlinkTables) dumpNeigh(family uint8, dev int, each func(neighMessage)) error {
	return t.conn.Dump(func(b *rtnl.Batch) {
		var h [unix.SizeofNdMsg]byte
		h[0] = family
		b.Begin(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, h[:])
		b.Uint32(unix.NDA_IFINDEX, uint32(dev))
	}, func(m rtnl.Message) {
		if n, ok := parseNeigh(m.Body); ok && n.dev == dev && n.family == family && isPermanent(n.state) {
			each(n)
		}
	})
}

func (t netlinkTables) listFDB(s selection, each func(fdbKey, fdbValue)) error {
	for _, dev := range s.devices {
		err := t.dumpNeigh(unix.AF_BRIDGE, dev, func(n neighMessage) { each(fdbKey{dev, n.mac}, n.fdbValue()) })
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
		var h [unix.SizeofNdMsg]byte
		b.Begin(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE,
			neighHeader(&h, unix.AF_BRIDGE, c.key.dev, unix.NTF_SELF))
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
		var h [unix.SizeofNdMsg]byte
		b.Begin(unix.RTM_DELNEIGH, 0, neighHeader(&h, unix.AF_BRIDGE, k.dev, unix.NTF_SELF))
		b.Bytes(unix.NDA_LLADDR, k.mac[:])
	}, gone(fail))
}

func (t netlinkTables) listNeighbors(s selection, each func(neighKey, MAC)) error {
	for _, dev := range s.devices {
		for _, f := range ipfam.All() {
			err := t.dumpNeigh(uint8(f.AF()), dev, func(n neighMessage) { each(neighKey{dev, n.addr}, n.mac) })
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
		var h [unix.SizeofNdMsg]byte
		b.Begin(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, neighHeader(&h, family(c.key.addr), c.key.dev, 0))
		b.Addr(unix.NDA_DST, c.key.addr)
		b.Bytes(unix.NDA_LLADDR, c.want[:])
	}, fail)
}

func (t netlinkTables) delNeighbors(entries []entry[neighKey, MAC], fail func(int, error)) {
	t.conn.Do(len(entries), func(b *rtnl.Batch, i int) {
		k := entries[i].key
		var h [unix.SizeofNdMsg]byte
		b.Begin(unix.RTM_DELNEIGH, 0, neighHeader(&h, family(k.addr), k.dev, 0))
		b.Addr(unix.NDA_DST, k.addr)
	}, gone(fail))
}
