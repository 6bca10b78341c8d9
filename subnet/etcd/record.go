package etcd

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// Records are hostile input. Real ones are far below these sizes, in bytes.
const (
	maxName  = 128
	maxValue = 8192
)

// encodeName returns the last element of a lease's key:
// "10.244.17.0-24", with IPv6 "10.244.17.0-24&fd00:10:244:3::-64", and for
// IPv6 alone "fd00:10:244:3::-64".
func encodeName(subnets ipfam.Pair[netip.Prefix]) string {
	return string(appendName(nil, subnets))
}

func appendName(name []byte, subnets ipfam.Pair[netip.Prefix]) []byte {
	for _, s := range ipfam.Prefixes(subnets) {
		if len(name) > 0 {
			name = append(name, '&')
		}
		name = append(s.Addr().AppendTo(name), '-')
		name = strconv.AppendInt(name, int64(s.Bits()), 10)
	}
	return name
}

// firstSubnet is what the name of every lease begins with that has the same first
// subnet: two keys with the same one must never be created.
func firstSubnet(subnets ipfam.Pair[netip.Prefix]) string {
	name, _, _ := strings.Cut(encodeName(subnets), "&")
	return name
}

// decodeName is the inverse of encodeName. With an error it returns the
// subnets as far as they could be read.
func decodeName(name string) (ipfam.Pair[netip.Prefix], error) {
	var subnets ipfam.Pair[netip.Prefix]
	if len(name) > maxName {
		return subnets, fmt.Errorf("key of %d bytes, at most %d are allowed", len(name), maxName)
	}
	for part := range strings.SplitSeq(name, "&") {
		s, err := decodeSubnet(part)
		if err != nil {
			return subnets, err
		}
		f := ipfam.Of(s.Addr())
		if subnets[f].IsValid() {
			return subnets, fmt.Errorf("key with two %s subnets", f)
		}
		subnets[f] = s
	}
	var written [maxName]byte
	if string(appendName(written[:0], subnets)) != name {
		return subnets, fmt.Errorf("key %q is not written as %q", name, encodeName(subnets))
	}
	return subnets, nil
}

// decodeSubnet reads "ADDRESS-BITS"; host bits are cleared.
func decodeSubnet(text string) (netip.Prefix, error) {
	addr, bits, found := strings.Cut(text, "-")
	if !found {
		return netip.Prefix{}, fmt.Errorf("key %q is not a subnet", text)
	}
	s, err := netip.ParsePrefix(addr + "/" + bits)
	if err != nil || s.Bits() == 0 || s.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("key %q is not a subnet", text)
	}
	return s.Masked(), nil
}

// recordValue is the value of a lease. The order of the fields is part of the
// format.
type recordValue struct {
	PublicIP      json.RawMessage
	PublicIPv6    json.RawMessage
	BackendType   string          `json:",omitempty"`
	BackendData   json.RawMessage `json:",omitempty"`
	BackendV6Data json.RawMessage `json:",omitempty"`
}

// noAddr is how the absence of a public address is written.
var noAddr = ipfam.Pair[string]{`"0.0.0.0"`, "null"}

func encodeAddr(f ipfam.Family, a netip.Addr) json.RawMessage {
	if !a.IsValid() {
		return json.RawMessage(noAddr[f])
	}
	return json.RawMessage(strconv.Quote(a.String()))
}

func decodeAddr(f ipfam.Family, raw json.RawMessage) (netip.Addr, error) {
	if raw == nil || string(raw) == noAddr[f] {
		return netip.Addr{}, nil
	}
	text, _ := strconv.Unquote(string(raw)) // an address is quoted in Go as in JSON
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil || ipfam.Of(a) != f || a.Is4In6() || a.Zone() != "":
		return a, fmt.Errorf("%s is not an %s address", ipfam.Pair[string]{"PublicIP", "PublicIPv6"}[f], f.Name())
	case a.IsUnspecified():
		return netip.Addr{}, nil
	}
	return a, nil
}

// encodeValue returns the text that is stored for attributes.
func encodeValue(a subnet.Attrs) ([]byte, error) {
	value, err := json.Marshal(recordValue{
		PublicIP:      encodeAddr(ipfam.V4, a.PublicIP[ipfam.V4]),
		PublicIPv6:    encodeAddr(ipfam.V6, a.PublicIP[ipfam.V6]),
		BackendType:   a.BackendType,
		BackendData:   json.RawMessage(a.Data[ipfam.V4]),
		BackendV6Data: json.RawMessage(a.Data[ipfam.V6]),
	})
	if err != nil {
		return nil, fmt.Errorf("encode lease: %w", err)
	}
	// What would be rejected from others is not written either.
	if _, err := decodeValue(value); err != nil {
		return nil, fmt.Errorf("encode lease: %w", err)
	}
	return value, nil
}

// decodeValue reads the text of a lease. Fields that it does not know are
// left to later versions.
func decodeValue(value []byte) (subnet.Attrs, error) {
	if len(value) > maxValue {
		return subnet.Attrs{}, fmt.Errorf("value of %d bytes, at most %d are allowed", len(value), maxValue)
	}
	if a, ok := decodeUsual(value); ok {
		return a, nil
	}
	var r recordValue
	if err := json.Unmarshal(value, &r); err != nil {
		return subnet.Attrs{}, fmt.Errorf("value: %w", err)
	}
	a := subnet.Attrs{Data: ipfam.Pair[string]{present(r.BackendData), present(r.BackendV6Data)}}
	for f, raw := range (ipfam.Pair[json.RawMessage]{r.PublicIP, r.PublicIPv6}).Each() {
		var err error
		if a.PublicIP[f], err = decodeAddr(f, raw); err != nil {
			return subnet.Attrs{}, err
		}
	}
	if err := a.SetBackendType(r.BackendType); err != nil {
		return subnet.Attrs{}, fmt.Errorf("BackendType is %w", err)
	}
	return a, nil
}

func present(data json.RawMessage) string {
	if string(data) == "null" {
		return ""
	}
	return string(data)
}

// decode reads a whole record. It always returns a lease; what could not be
// read is in Invalid.
func decode(name string, value []byte, createRevision int64) subnet.Lease {
	subnets, nameErr := decodeName(name)
	attrs, valueErr := decodeValue(value)
	l := subnet.Lease{Name: name, Subnet: subnets, Attrs: attrs}
	if len(name) > maxName {
		l.Name = name[:maxName]
	}
	l.Precedence = subnet.Precedence{Age: createRevision, Name: l.Name}
	if err := errors.Join(nameErr, valueErr); err != nil {
		l.Invalid = oneLine(err)
	}
	return l
}

// oneLine keeps a hostile record from filling the log.
func oneLine(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", ", ")
	return text[:min(len(text), 2*maxName)]
}
