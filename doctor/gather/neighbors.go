package gather

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/kernel/rtnl"
)

// Attributes and the last field of struct ndt_stats (linux/neighbour.h).
const (
	ndtaName     = 1
	ndtaStats    = 7
	tableFullsAt = 80
)

// overflows reads how often the neighbor tables of the kernel had no place for an
// entry. The tables and their limits are those of all namespaces together, and only
// entries that are not permanent count against the limit.
func overflows() (out ipfam.Pair[uint64], err error) {
	conn, err := rtnl.Dial(0)
	if err != nil {
		return out, fmt.Errorf("list neighbor tables: %w", err)
	}
	defer func() { _ = conn.Close() }()
	err = rtnl.Retry(func() error {
		return conn.Dump(func(b *rtnl.Batch) {
			b.Begin(unix.RTM_GETNEIGHTBL, unix.NLM_F_DUMP, []byte{unix.AF_UNSPEC, 0, 0, 0})
		}, func(m rtnl.Message) { addOverflows(&out, m.Body) })
	})
	if err != nil {
		err = fmt.Errorf("list neighbor tables: %w", err)
	}
	return out, err
}

// addOverflows takes them from a message about a whole table; others are about its
// settings for one device.
func addOverflows(to *ipfam.Pair[uint64], body []byte) {
	const header = 4
	if len(body) < header {
		return
	}
	families := map[string]ipfam.Family{"arp_cache": ipfam.V4, "ndisc_cache": ipfam.V6}
	family, known := ipfam.V4, false
	for typ, value := range rtnl.Attrs(body[header:]) {
		switch {
		case typ == ndtaName:
			family, known = families[rtnl.Text(value)]
		case typ == ndtaStats && known && len(value) >= tableFullsAt+8:
			to[family] = binary.NativeEndian.Uint64(value[tableFullsAt:])
		}
	}
}
