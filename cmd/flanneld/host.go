package main

import (
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"flannel/kernel"
)

// deviceMAC returns a look-up of the MAC of a device.
func deviceMAC(handle *netlink.Handle) func(string) kernel.MAC {
	return func(name string) kernel.MAC {
		link, err := handle.LinkByName(name)
		if err != nil || len(link.Attrs().HardwareAddr) != len(kernel.MAC{}) {
			return kernel.MAC{}
		}
		return kernel.MAC(link.Attrs().HardwareAddr)
	}
}

// tunName returns a look-up of the TUN device with our alias, whose number may
// be any, else of the first number that no device has.
func tunName(handle *netlink.Handle, alias string) func(string) string {
	return func(prefix string) string {
		links, _ := handle.LinkList() // without a list the first number is tried
		taken := map[string]bool{}
		for _, link := range links {
			name := link.Attrs().Name
			if strings.HasPrefix(name, prefix) && link.Attrs().Alias == alias && link.Type() == "tuntap" {
				return name
			}
			taken[name] = true
		}
		for n := 0; ; n++ {
			if name := prefix + strconv.Itoa(n); !taken[name] {
				return name
			}
		}
	}
}
