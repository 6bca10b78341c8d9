package kernel

import (
	"fmt"
	"net"
)

// MAC is an Ethernet address (EUI-48) that can be compared and used as a key.
// The zero MAC means none.
type MAC [6]byte

// ParseMAC reads an address in any of the notations of net.ParseMAC. It
// accepts only six bytes.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != len(MAC{}) {
		return MAC{}, fmt.Errorf("%q is not an Ethernet address", s)
	}
	return MAC(hw), nil
}

// String returns the address in lower case with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// IsZero reports whether the address is all zeros.
func (m MAC) IsZero() bool { return m == MAC{} }

// IsUnicast reports whether a single host can have this address: it is not
// zero and the group bit is clear (IEEE 802, I/G bit).
func (m MAC) IsUnicast() bool { return !m.IsZero() && m[0]&1 == 0 }

// MarshalText makes JSON and slog print the address and not six numbers.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }
