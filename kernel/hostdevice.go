package kernel

import (
	"strconv"
	"strings"

	"flannel/kernel/rtnl"
)

// DeviceMAC returns the MAC of a device of this host; the zero MAC if there is
// none.
func DeviceMAC(name string) MAC {
	handle, err := rtnl.NewHandle(0)
	if err != nil {
		return MAC{}
	}
	defer handle.Close()
	l, err := handle.LinkByName(name)
	if err != nil {
		return MAC{}
	}
	return linkOf(l).MAC
}

// TUNName returns the name of the TUN device that the daemon with this
// Scope.Instance has made, whatever its number, else the prefix with the first
// number that no device of this host has. Without a list of devices that is 0.
func TUNName(prefix, instance string) string {
	var links []Link
	if handle, err := rtnl.NewHandle(0); err == nil {
		defer handle.Close()
		links, _ = ReadLinks(handle)
	}
	taken := map[string]bool{}
	for _, l := range links {
		if strings.HasPrefix(l.Name, prefix) && l.Alias == Alias(instance) && l.Kind == KindTUN {
			return l.Name
		}
		taken[l.Name] = true
	}
	for n := 0; ; n++ {
		if name := prefix + strconv.Itoa(n); !taken[name] {
			return name
		}
	}
}
