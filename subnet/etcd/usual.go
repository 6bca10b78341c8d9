package etcd

import (
	"bytes"
	"net/netip"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// decodeUsual reads a value as every node with vxlan or host-gw writes it, without
// a general parser: a node that starts reads thousands.
func decodeUsual(value []byte) (a subnet.Attrs, ok bool) {
	rest, ok := bytes.CutPrefix(value, []byte(`{"PublicIP":`))
	v4, rest, found := bytes.Cut(rest, []byte(`,"PublicIPv6":`))
	v6, rest, typed := bytes.Cut(rest, []byte(`,"BackendType":"`))
	name, rest, named := bytes.Cut(rest, []byte(`"`))
	rest, ended := bytes.CutSuffix(rest, []byte(`}`))
	if !ok || !found || !typed || !named || !ended || len(name) == 0 || a.SetBackendType(string(name)) != nil {
		return a, false
	}
	for f, raw := range (ipfam.Pair[[]byte]{v4, v6}).Each() {
		if a.PublicIP[f], ok = usualAddr(f, raw); !ok {
			return a, false
		}
	}
	if len(rest) == 0 {
		return a, true
	}
	rest, ok = bytes.CutPrefix(rest, []byte(`,"BackendData":`))
	data, data6, dual := bytes.Cut(rest, []byte(`,"BackendV6Data":`))
	a.Data[ipfam.V4] = string(data)
	if _, usual := subnet.ParseUsualData(a.Data[ipfam.V4]); !ok || !usual {
		return a, false
	}
	if dual {
		a.Data[ipfam.V6] = string(data6)
		_, ok = subnet.ParseUsualData(a.Data[ipfam.V6])
	}
	return a, ok
}

// usualAddr reads what decodeAddr reads, unless the text is an unusual one.
func usualAddr(f ipfam.Family, raw []byte) (netip.Addr, bool) {
	if string(raw) == noAddr[f] {
		return netip.Addr{}, true
	}
	text, opened := bytes.CutPrefix(raw, []byte(`"`))
	text, closed := bytes.CutSuffix(text, []byte(`"`))
	a, err := netip.ParseAddr(string(text))
	usual := opened && closed && err == nil && ipfam.Of(a) == f && !a.Is4In6() && a.Zone() == "" && !a.IsUnspecified()
	return a, usual
}
