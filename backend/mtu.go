package backend

import (
	"fmt"

	"flannel/internal/ipfam"
)

// minIPv6MTU is the smallest MTU a link may have for IPv6 (RFC 8200, section 5).
const minIPv6MTU = 1280

// CheckMTU refuses an MTU of the overlay with which IPv6, if it is on, cannot
// work. The remedy ends the error.
func CheckMTU(mtu int, families ipfam.Pair[bool], remedy string) error {
	if families[ipfam.V6] && mtu < minIPv6MTU {
		return fmt.Errorf("MTU %d of the overlay is below %d, the least for IPv6: %s", mtu, minIPv6MTU, remedy)
	}
	return nil
}
