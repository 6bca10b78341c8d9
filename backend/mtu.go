package backend

import (
	"fmt"

	"flannel/internal/ipfam"
)

// minIPv6MTU is the smallest MTU a link may have for IPv6 (RFC 8200, section 5).
const minIPv6MTU = 1280

// CheckMTU refuses an MTU of the overlay with which IPv6, if it is on, cannot
// work over this uplink.
func CheckMTU(mtu int, families ipfam.Pair[bool], up Uplink) error {
	if families[ipfam.V6] && mtu < minIPv6MTU {
		return fmt.Errorf("MTU %d of the overlay is below %d, the least for IPv6: raise the MTU of %s", mtu, minIPv6MTU, up.Name)
	}
	return nil
}
