package passage

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"flannel/internal/firewall"
	"flannel/internal/ipfam"
)

// Read returns the rules of the current network namespace that may drop packets. The
// error is what could not be read; the rest counts.
func Read(packets []Packet) ([]Drop, error) {
	var errs []error
	var filters []firewall.Rules
	nft, err := NFTables()
	if err != nil {
		errs = append(errs, fmt.Errorf("nf_tables: %w", err))
	}
	if nft != nil {
		defer nft.Close()
		filters = append(filters, nft)
	}
	for _, family := range ipfam.All() {
		tables, err := firewall.ReadLegacyFilters(family)
		if err != nil {
			errs = append(errs, fmt.Errorf("legacy iptables: %w", err))
		}
		filters = append(filters, tables...)
	}
	var out []Drop
	var look func(p Packet)
	look = func(p Packet) {
		found := firewall.Drops(p.Packet, false, filters...)
		if len(found) > 0 && len(p.each) > 0 {
			for _, one := range p.each {
				look(one)
			}
			return
		}
		for _, f := range found {
			out = append(out, Drop{p, f})
		}
	}
	for _, p := range packets {
		look(p)
	}
	return out, errors.Join(errs...)
}

// NFTables is nil if the kernel has no nf_tables: nothing drops there.
func NFTables() (*firewall.NFTables, error) {
	rules, err := firewall.ReadNFTables(0)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	return rules, err
}
