package firewall

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"
)

var (
	families    = ipfam.Pair[byte]{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}
	nftFamilies = ipfam.Pair[string]{"ip", "ip6"}
)

// NFTables are the rules in nf_tables, among them those of iptables-nft. They are read
// without a library: an expression that one leaves out would be a condition that is
// not noticed.
type NFTables struct {
	conn *rtnl.Conn
	base []nftBase
	// rules are those of the chains that packets have come to.
	rules map[chainKey][]rule
	sets  map[setKey]*elements
}

// nftBase is a base chain of nf_tables.
type nftBase struct {
	table    nftTable
	name     string
	hook     Hook
	priority int
	drops    bool
	// devices are those of a chain at a device.
	devices []string
}

// nftTable names a table.
type nftTable struct {
	family byte
	name   string
}

// String names the table as nft does.
func (t nftTable) String() string { return tableFamilies[t.family] + " " + t.name }

var tableFamilies = map[byte]string{
	unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet", unix.NFPROTO_NETDEV: "netdev",
}

// chainKey names a chain; family is that of the packets, which inet has both of.
type chainKey struct {
	table  nftTable
	chain  string
	family ipfam.Family
}

type setKey struct {
	table  nftTable
	name   string
	field  Field
	family ipfam.Family
}

// ReadNFTables lists the base chains of a network namespace; 0 is the current one. The
// rules of the chains that a packet comes to are read later, each once. The error wraps
// that of the kernel.
func ReadNFTables(namespace int) (*NFTables, error) {
	conn, err := rtnl.DialNetfilter(namespace)
	if err != nil {
		return nil, fmt.Errorf("open nf_tables: %w", err)
	}
	n := &NFTables{conn: conn, rules: map[chainKey][]rule{}, sets: map[setKey]*elements{}}
	err = rtnl.Retry(func() error {
		n.base = nil
		return n.dump(unix.NFT_MSG_GETCHAIN, unix.NFPROTO_UNSPEC, func(*rtnl.Batch) {}, func(family byte, b []byte) {
			if c, ok := parseBase(family, b); ok {
				n.base = append(n.base, c)
			}
		})
	})
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("list chains of nf_tables: %w", err)
	}
	return n, nil
}

// Close ends the connection to the kernel.
func (n *NFTables) Close() { _ = n.conn.Close() } // nothing was written

// nfgenSize is that of struct nfgenmsg.
const nfgenSize = 4

// dump asks for a list and visits the attributes of each item, which are valid during
// the call only.
func (n *NFTables) dump(message int, family byte, ask func(*rtnl.Batch), visit func(family byte, attrs []byte)) error {
	return n.conn.Dump(func(b *rtnl.Batch) {
		b.Begin(uint16(unix.NFNL_SUBSYS_NFTABLES<<8|message), unix.NLM_F_DUMP, []byte{family, 0, 0, 0})
		ask(b)
	}, func(m rtnl.Message) {
		if len(m.Body) >= nfgenSize {
			visit(m.Body[0], m.Body[nfgenSize:])
		}
	})
}

// be32 reads a number in the byte order of the network; 0 if b is too short.
func be32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// nftaHookDevs is not in package unix (linux/netfilter/nf_tables.h).
const nftaHookDevs = 4

// parseBase reads a base chain whose rules filter.
func parseBase(family byte, b []byte) (nftBase, bool) {
	c := nftBase{table: nftTable{family: family}}
	filters, hooked := false, false
	for typ, v := range rtnl.Attrs(b) {
		switch typ {
		case unix.NFTA_CHAIN_TABLE:
			c.table.name = string(text(v))
		case unix.NFTA_CHAIN_NAME:
			c.name = string(text(v))
		case unix.NFTA_CHAIN_TYPE:
			kind := string(text(v))
			filters = kind == "filter" || kind == "route"
		case unix.NFTA_CHAIN_POLICY:
			c.drops = be32(v) == 0
		case unix.NFTA_CHAIN_HOOK:
			hooked = true
			c.readHook(v)
		}
	}
	return c, filters && hooked && tableFamilies[family] != ""
}

func (c *nftBase) readHook(b []byte) {
	for typ, v := range rtnl.Attrs(b) {
		switch typ {
		case unix.NFTA_HOOK_HOOKNUM:
			c.hook = Hook(be32(v))
			if c.table.family == unix.NFPROTO_NETDEV {
				c.hook += Ingress // they are numbered from 0
			}
		case unix.NFTA_HOOK_PRIORITY:
			c.priority = int(int32(be32(v)))
		case unix.NFTA_HOOK_DEV:
			c.devices = append(c.devices, string(text(v)))
		case nftaHookDevs:
			for _, dev := range rtnl.Attrs(v) {
				c.devices = append(c.devices, string(text(dev)))
			}
		}
	}
}

// sees reports whether a packet comes to the chain at a hook.
func (c *nftBase) sees(p Packet, h Hook) bool {
	f := c.table.family
	if c.hook != h || f != families[p.Family] && f != unix.NFPROTO_INET && f != unix.NFPROTO_NETDEV {
		return false
	}
	switch h {
	case Ingress:
		return slices.Contains(c.devices, p.In.Name)
	case Egress:
		return slices.Contains(c.devices, p.Out.Name)
	}
	return true
}

// iptablesChains are the base chains of iptables, iptablesTables its tables that
// filter.
var (
	iptablesChains = map[Hook]string{
		Prerouting: "PREROUTING", Input: "INPUT", Forward: "FORWARD", Output: "OUTPUT", Postrouting: "POSTROUTING",
	}
	iptablesTables = map[string]int{"raw": -300, "mangle": -150, defaultTable: 0, "security": 50}
)

// programs are those of iptables, without the suffix that tells the kinds apart.
var programs = ipfam.Pair[string]{"iptables", "ip6tables"}

// bases implements Rules.
func (n *NFTables) bases(p Packet, h Hook) []base {
	var out []base
	for i := range n.base {
		c := &n.base[i]
		if !c.sees(p, h) {
			continue
		}
		b := Base{Chain: c.name, Table: c.table.String()}
		if _, ok := iptablesTables[c.table.name]; ok && c.name == iptablesChains[h] && c.table.family == families[p.Family] {
			b.Program = programs[p.Family] + "-nft" // without the suffix it may be the legacy one
		}
		out = append(out, base{Base: b, priority: c.priority, chain: nftChain{n, c.table, c.name, p.Family, c.drops}})
	}
	return out
}

// nftChain is a chain of nf_tables.
type nftChain struct {
	tables *NFTables
	table  nftTable
	label  string
	family ipfam.Family
	// drops is the policy of a base chain.
	drops bool
}

func (c nftChain) name() string { return c.label }

func (c nftChain) rules() iter.Seq[*rule] {
	key := chainKey{c.table, c.label, c.family}
	list, known := c.tables.rules[key]
	if !known {
		list = c.read()
		c.tables.rules[key] = list
	}
	return func(yield func(*rule) bool) {
		for i := range list {
			if !yield(&list[i]) {
				return
			}
		}
	}
}

// read reads the rules. Those that cannot be read may accept some packets.
func (c nftChain) read() []rule {
	var out []rule
	p := parser{chain: c}
	err := rtnl.Retry(func() error {
		out = out[:0]
		return c.tables.dump(unix.NFT_MSG_GETRULE, c.table.family, func(b *rtnl.Batch) {
			b.Text(unix.NFTA_RULE_TABLE, c.table.name)
			b.Text(unix.NFTA_RULE_CHAIN, c.label)
		}, func(_ byte, b []byte) {
			r := p.rule(b)
			r.position = len(out) + 1
			out = append(out, r)
		})
	})
	if err != nil {
		return []rule{{more: true, verdict: Accept}}
	}
	if c.drops {
		out = append(out, rule{verdict: Drop})
	}
	return out
}

// elements returns those of a set, which are read when they are needed first.
func (c nftChain) elements(set string, f Field) *elements {
	key := setKey{c.table, set, f, c.family}
	e := c.tables.sets[key]
	if e == nil {
		e = &elements{read: func() ([]element, bool) { return c.readSet(set, f) }}
		c.tables.sets[key] = e
	}
	return e
}

// Flags of elements.
const (
	elementIntervalEnd = 1
	elementCatchAll    = 2
	nftaElemKeyEnd     = 10
)

// readSet reads the elements of a set. It reports false if they are not values of the
// field alone.
func (c nftChain) readSet(set string, f Field) ([]element, bool) {
	var list []element
	var ends []bool // which of the list only end a range
	ok := true
	err := rtnl.Retry(func() error {
		list, ends = list[:0], ends[:0]
		return c.tables.dump(unix.NFT_MSG_GETSETELEM, c.table.family, func(b *rtnl.Batch) {
			b.Text(unix.NFTA_SET_ELEM_LIST_TABLE, c.table.name)
			b.Text(unix.NFTA_SET_ELEM_LIST_SET, set)
		}, func(_ byte, b []byte) {
			for typ, elems := range rtnl.Attrs(b) {
				if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
					continue
				}
				for _, attrs := range rtnl.Attrs(elems) {
					e, end, good := c.element(f, attrs)
					ok = ok && good
					list, ends = append(list, e), append(ends, end)
				}
			}
		})
	})
	if err != nil || !ok {
		return nil, false
	}
	return ranges(f, list, ends), true
}

// element reads one element. It reports false if it is not understood.
func (c nftChain) element(f Field, attrs []byte) (e element, end, ok bool) {
	size := f.size(c.family)
	for typ, v := range rtnl.Attrs(attrs) {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			key := dataValue(v)
			ok = len(key) == size
			if ok && f >= mark {
				e.number = binary.NativeEndian.Uint32(key)
			} else if ok {
				value := f.values(c.family, key, 8*len(key))
				e.span = span{value.Addr(), lastOf(value)}
			}
		case unix.NFTA_SET_ELEM_FLAGS:
			flags := be32(v)
			end = flags&elementIntervalEnd != 0
			if flags&elementCatchAll != 0 {
				return e, end, false
			}
		case unix.NFTA_SET_ELEM_DATA:
			e.outcome = c.outcome(v)
		case nftaElemKeyEnd, unix.NFTA_SET_ELEM_EXPR:
			return e, end, false
		}
	}
	return e, end, ok
}

// ranges joins the beginnings and ends of ranges. Sets without ranges have no ends.
func ranges(f Field, list []element, ends []bool) []element {
	if f >= mark || !slices.Contains(ends, true) {
		return list
	}
	order := make([]int, len(list))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		// Where one range ends and the next begins, the end comes first.
		return cmp.Or(list[a].first.Compare(list[b].first), -boolCompare(ends[a], ends[b]))
	})
	var out []element
	for n, i := range order {
		if ends[i] {
			continue
		}
		e := list[i]
		e.last = highest(e.first)
		if n+1 < len(order) {
			e.last = list[order[n+1]].first.Prev()
		}
		out = append(out, e)
	}
	return out
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
