package backend_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"flannel/backend"
	"flannel/backend/alloc"
	"flannel/backend/vxlan"
	"flannel/internal/ipfam"
	"flannel/subnet"
)

func TestTheBackendObjectIsParsed(t *testing.T) {
	table := backend.Table{vxlan.Type, alloc.Type}
	tests := map[string]struct {
		typ, object   string
		err, warnings string
	}{
		"all is well":     {"vxlan", `{"Type": "vxlan", "VNI": 7}`, "", ""},
		"no object":       {"vxlan", "", "", ""},
		"an unknown type": {"ipsec", `{"Type": "ipsec"}`, `network configuration: Backend.Type: "ipsec" is not allowed: use alloc, vxlan`, ""},
		"a wrong value":   {"vxlan", `{"VNI": 0}`, "network configuration: Backend: VNI: 0 is not allowed: use a whole number from 1 to 16777215", ""},
		"not an object":   {"alloc", `[]`, `network configuration: Backend: not a JSON object: use {"Key": value, ...}`, ""},
		"an unknown key":  {"alloc", `{"Type": "alloc", "VNI": 7}`, "", `key "VNI" is not known and has no effect`},
		"a similar key":   {"vxlan", `{"type": "vxlan", "Porrt": 7}`, "", `key "Porrt" is not known and has no effect; did you mean "Port"?`},
	}
	for name, tt := range tests {
		c := &subnet.Config{
			BackendType: tt.typ, Backend: json.RawMessage(tt.object),
			Network: ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.5.0.0/16")},
		}
		config, warnings, err := table.Parse(c)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != tt.err || (config == nil) != (err != nil) {
			t.Errorf("%s: got %v, %q, want %q", name, config, text, tt.err)
		}
		if got := strings.Join(warnings, "\n"); got != tt.warnings {
			t.Errorf("%s: got %q, want %q", name, got, tt.warnings)
		}
	}
}

func TestTheMostSpecificRouteDecidesWhatIsOnLink(t *testing.T) {
	routes := backend.OnLinkRoutes{
		{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Direct: true},
		{Prefix: netip.MustParsePrefix("192.0.2.128/25")},
		{Prefix: netip.MustParsePrefix("192.0.2.130/32"), Direct: true},
	}
	var direct []string
	for _, a := range []string{"192.0.2.1", "192.0.2.129", "192.0.2.130", "198.51.100.1"} {
		if routes.Direct(netip.MustParseAddr(a)) {
			direct = append(direct, a)
		}
	}
	if want := []string{"192.0.2.1", "192.0.2.130"}; !slices.Equal(direct, want) {
		t.Errorf("got %v, want %v", direct, want)
	}
}
