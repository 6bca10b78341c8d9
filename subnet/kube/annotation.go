package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"strings"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// annotations are the keys of what nodes publish, and of what an operator may set
// for them.
type annotations struct {
	// prefix is the beginning of all keys.
	prefix string
	// managed is "true" on the Nodes that take part.
	managed     string
	backendType string
	publicIP    ipfam.Pair[string]
	data        ipfam.Pair[string]
	// overwrite is published instead of the node's own address.
	overwrite ipfam.Pair[string]
	// nodePublicIP replaces the flags public-ip and public-ipv6.
	nodePublicIP ipfam.Pair[string]
}

// prefixForm is what the keys of annotations may start with: a lower-case
// domain, a slash, and perhaps the beginning of the name.
var prefixForm = regexp.MustCompile(`^([a-z0-9_-]+\.)+[a-z0-9_-]+/([a-z0-9_-]+-)?$`)

func newAnnotations(prefix string) (annotations, error) {
	full := prefix
	if !strings.Contains(full, "/") {
		full += "/"
	}
	if !strings.HasSuffix(full, "/") && !strings.HasSuffix(full, "-") {
		full += "-"
	}
	if !prefixForm.MatchString(full) {
		return annotations{}, fmt.Errorf("%q is not allowed: use a lower-case domain with at most one slash, "+
			"such as flannel.alpha.coreos.com or example.com/overlay", prefix)
	}
	return annotations{
		prefix:       full,
		managed:      full + "kube-subnet-manager",
		backendType:  full + "backend-type",
		publicIP:     ipfam.Pair[string]{full + "public-ip", full + "public-ipv6"},
		data:         ipfam.Pair[string]{full + "backend-data", full + "backend-v6-data"},
		overwrite:    ipfam.Pair[string]{full + "public-ip-overwrite", full + "public-ipv6-overwrite"},
		nodePublicIP: ipfam.Pair[string]{full + "node-public-ip", full + "node-public-ipv6"},
	}, nil
}

// noData is what a backend without data publishes.
const noData = "null"

// encode returns the annotations that publish a; those that must not exist are
// nil. The data of IPv4 are always written, as flannel does.
func (k *annotations) encode(a subnet.Attrs) map[string]*string {
	out := map[string]*string{k.managed: text("true"), k.backendType: text(a.BackendType)}
	for f, key := range k.publicIP.Each() {
		out[key] = nil
		if a.PublicIP[f].IsValid() {
			out[key] = text(a.PublicIP[f].String())
		}
	}
	for f, key := range k.data.Each() {
		switch {
		case len(a.Data[f]) > 0:
			out[key] = text(a.Data[f])
		case f == ipfam.V4 || a.PublicIP[f].IsValid():
			out[key] = text(noData)
		default:
			out[key] = nil
		}
	}
	return out
}

func text(s string) *string { return &s }

// matches reports whether a Node has the wanted annotations. Blanks around data do
// not count.
func matches(have map[string]string, want map[string]*string) bool {
	for key, value := range want {
		if !matchesKey(have, key, value) {
			return false
		}
	}
	return true
}

func matchesKey(have map[string]string, key string, want *string) bool {
	value, there := have[key]
	if want == nil {
		return !there
	}
	return there && strings.TrimSpace(value) == strings.TrimSpace(*want)
}

// patch returns the annotations to write so that a Node that has these gets the
// wanted ones. A flannel peer in dual stack takes a change only if both families
// have changed: if one has not, a blank before its data is added or removed,
// which changes the text and not its meaning.
func (k *annotations) patch(have map[string]string, want map[string]*string) map[string]*string {
	out := maps.Clone(want)
	dual := want[k.publicIP[ipfam.V4]] != nil && want[k.publicIP[ipfam.V6]] != nil
	if !dual || !matchesKey(have, k.backendType, want[k.backendType]) {
		return out
	}
	var changed ipfam.Pair[bool]
	for _, f := range ipfam.All() {
		changed[f] = !matchesKey(have, k.publicIP[f], want[k.publicIP[f]]) || !matchesKey(have, k.data[f], want[k.data[f]])
	}
	for f, c := range changed.Each() {
		if other := 1 - f; !c && changed[other] {
			out[k.data[f]] = text(toggleBlank(have[k.data[f]]))
		}
	}
	return out
}

func toggleBlank(data string) string {
	if rest, ok := strings.CutPrefix(data, " "); ok {
		return rest
	}
	return " " + data
}

// maxData is far more than real records have, in bytes. They are hostile input.
const maxData = 8192

// decode reads what a Node publishes in the families that are on. With an error
// it returns what could be read. In the other families anything may be published:
// by flannel the public address 0.0.0.0, or what was true before.
func (k *annotations) decode(have map[string]string, families ipfam.Pair[bool]) (subnet.Attrs, error) {
	a := subnet.Attrs{BackendType: subnet.DefaultBackend}
	if err := a.SetBackendType(have[k.backendType]); err != nil {
		return a, fmt.Errorf("annotation %s is %w", k.backendType, err)
	}
	for f, on := range families.Each() {
		if !on {
			continue
		}
		var err error
		if a.PublicIP[f], err = decodeAddr(f, k.publicIP[f], have); err != nil {
			return a, err
		}
		if a.Data[f], err = decodeData(k.data[f], have[k.data[f]]); err != nil {
			return a, err
		}
	}
	return a, nil
}

// restore returns what a Node publishes, with those parts of what it published
// before whose annotations are gone, and reports whether there are any. A peer
// always has an address, and a backend that publishes data does so in each family
// that has one.
func (k *annotations) restore(is, was subnet.Attrs, have map[string]string) (subnet.Attrs, bool) {
	if is.PublicIP == (ipfam.Pair[netip.Addr]{}) {
		return was, true
	}
	lost := k.typeGone(is, was, have)
	if lost {
		is.BackendType, is.Untyped = was.BackendType, was.Untyped
	}
	if is.BackendType != was.BackendType {
		return is, false // another backend has data of its own
	}
	for f := range is.PublicIP.Each() {
		if !is.PublicIP[f].IsValid() && was.PublicIP[f].IsValid() {
			is.PublicIP[f], lost = was.PublicIP[f], true
		}
		if is.Data[f] == "" && was.Data[f] != "" {
			is.Data[f], lost = was.Data[f], true
		}
	}
	return is, lost
}

// typeGone reports whether the backend type alone is gone. A node without a type
// by intention, as with flannel's udp backend, writes an empty one and other data.
func (k *annotations) typeGone(is, was subnet.Attrs, have map[string]string) bool {
	if !is.Untyped || was.Untyped {
		return false
	}
	if _, there := have[k.backendType]; !there {
		return true
	}
	for f, data := range is.Data.Each() {
		if data != "" && data == was.Data[f] {
			return true
		}
	}
	return false
}

func decodeAddr(f ipfam.Family, key string, have map[string]string) (netip.Addr, error) {
	value := have[key]
	if value == "" {
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(value)
	if addr = addr.Unmap(); err != nil || addr.Zone() != "" || ipfam.Of(addr) != f {
		return netip.Addr{}, fmt.Errorf("annotation %s: %q is not an %s address", key, cut(value), f)
	}
	return addr, nil
}

func decodeData(key, value string) (string, error) {
	if len(value) > maxData {
		return "", fmt.Errorf("annotation %s has %d bytes, at most %d are allowed", key, len(value), maxData)
	}
	data := strings.TrimSpace(value)
	if data == "" || data == noData {
		return "", nil
	}
	if !json.Valid([]byte(data)) {
		return "", fmt.Errorf("annotation %s is not JSON", key)
	}
	return data, nil
}

// cut prevents that a hostile record fills the log.
func cut(value string) string {
	const most = 64
	return value[:min(len(value), most)]
}

// addresses reads two annotations with addresses. An error names those that an
// operator has to correct; their families are left out.
func (k *annotations) addresses(keys ipfam.Pair[string], have map[string]string) (out ipfam.Pair[netip.Addr], err error) {
	var errs ipfam.Pair[error]
	for f, key := range keys.Each() {
		out[f], errs[f] = decodeAddr(f, key, have)
	}
	return out, errors.Join(errs[:]...)
}
