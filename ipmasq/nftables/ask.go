package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
)

// ask sends one request about nf_tables and returns the attributes of the answers.
// The error wraps that of the kernel.
func (d *Driver) ask(message int, family byte, attrs ...netlink.Attribute) ([]*netlink.AttributeDecoder, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: d.Namespace})
	if err != nil {
		return nil, fmt.Errorf("open nf_tables: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return nil, err
	}
	header := make([]byte, headerSize)
	header[0] = family
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message), Flags: netlink.Request},
		Data:   append(header, data...),
	})
	if err != nil {
		return nil, err
	}
	var out []*netlink.AttributeDecoder
	for _, m := range answers {
		if len(m.Data) < headerSize {
			continue
		}
		attrs, err := netlink.NewAttributeDecoder(m.Data[headerSize:])
		if err != nil {
			return nil, err
		}
		attrs.ByteOrder = binary.BigEndian
		out = append(out, attrs)
	}
	return out, nil
}

// Generation returns a number that changes with every change to nf_tables. An
// error means that the kernel has no nf_tables.
func (d *Driver) Generation() (uint32, error) {
	answers, err := d.ask(unix.NFT_MSG_GETGEN, unix.AF_UNSPEC)
	if err != nil {
		return 0, fmt.Errorf("read the generation of nf_tables: %w%s", err, remedy(err))
	}
	for _, attrs := range answers {
		for attrs.Next() {
			if attrs.Type() == unix.NFTA_GEN_ID {
				return attrs.Uint32(), nil
			}
		}
	}
	return 0, errors.New("read the generation of nf_tables: no answer")
}

// remedy returns what helps if the kernel has no nf_tables, or no netlink of
// netfilter at all; nothing for other errors.
func remedy(err error) string {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return ": this kernel has no nf_tables; load it with: modprobe nf_tables; or use legacy iptables, as the image with iptables does"
	}
	return ""
}

// chain reports whether a chain exists, and whether it is a base chain.
func (d *Driver) chain(f ipfam.Family, table, name string) (exists, hooked bool, err error) {
	answers, err := d.ask(unix.NFT_MSG_GETCHAIN, byte(families[f]),
		netlink.Attribute{Type: unix.NFTA_CHAIN_TABLE, Data: []byte(table + "\x00")},
		netlink.Attribute{Type: unix.NFTA_CHAIN_NAME, Data: []byte(name + "\x00")})
	if errors.Is(err, unix.ENOENT) {
		return false, false, nil
	}
	for _, attrs := range answers {
		for attrs.Next() {
			exists = true
			hooked = hooked || attrs.Type() == unix.NFTA_CHAIN_HOOK
		}
	}
	return exists, hooked, err
}
