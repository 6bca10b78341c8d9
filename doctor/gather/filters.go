package gather

import (
	"errors"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"flannel/doctor"
	"flannel/internal/firewall"
	"flannel/internal/ipfam"
)

// filters reads what the packet filters do with packets that matter.
func (g gatherer) filters() {
	packets := g.facts.Packets()
	rules, err := nfTables()
	g.source("nf_tables", err)
	if err == nil && rules != nil {
		g.drops(rules, packets)
	}
	for _, family := range ipfam.All() {
		table, err := firewall.ReadLegacy(family, "filter")
		g.source("legacy iptables", err)
		if err != nil {
			continue
		}
		var same []doctor.Packet
		for _, p := range packets {
			if p.Family == family {
				same = append(same, p)
			}
		}
		g.drops(table, same)
	}
}

// nfTables is nil if the kernel has no nf_tables: nothing drops there.
func nfTables() (firewall.Rules, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	rules, err := firewall.ReadNFTables(conn)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	return rules, err
}

func (g gatherer) drops(rules firewall.Rules, packets []doctor.Packet) {
	for _, p := range packets {
		for _, found := range rules.Drops(p.Packet) {
			// firewalld lets answers pass, and the zone of a packet depends on its
			// source alone.
			if found.Firewalld && p.Dst.IsValid() {
				continue
			}
			g.facts.Drops = append(g.facts.Drops, doctor.Drop{Packet: p, Finding: found})
		}
	}
}
