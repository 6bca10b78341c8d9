package cniplugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/golden"
	"flannel/subnet/env"
)

func testEnv() env.Env {
	return env.Env{
		Network: ipfam.Pair[[]netip.Prefix]{{netip.MustParsePrefix("10.244.0.0/16")}, nil},
		Subnet:  ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.244.17.1/24"), {}},
		MTU:     1450,
		IPMasq:  true,
	}
}

func dualEnv() env.Env {
	e := testEnv()
	e.Network[ipfam.V4] = append(e.Network[ipfam.V4], netip.MustParsePrefix("192.168.0.0/16"))
	e.Network[ipfam.V6] = []netip.Prefix{netip.MustParsePrefix("fd00:10:244::/56")}
	e.Subnet[ipfam.V6] = netip.MustParsePrefix("fd00:10:244:3::1/64")
	e.IPMasq = false
	return e
}

func TestDelegateConfiguration(t *testing.T) {
	tests := []struct {
		name, conf string
		env        env.Env
	}{
		{"kubernetes", `{"name": "cbr0", "cniVersion": "0.3.1", "type": "flannel",
			"delegate": {"hairpinMode": true, "isDefaultGateway": true}}`, testEnv()},
		{"least", `{"name": "n", "type": "flannel"}`, testEnv()},
		{"dual_stack", `{"name": "n", "cniVersion": "1.0.0", "type": "flannel"}`, dualEnv()},
		{"own_choices", `{"name": "n", "cniVersion": "1.1.0",
			"delegate": {"type": "bridge", "bridge": "br1", "mtu": 9000000000, "ipMasq": true, "isGateway": false, "cniVersion": "0.1.0"},
			"ipam": {"type": "other", "dataDir": "/d", "ranges": [], "routes": [{"dst": "0.0.0.0/0", "gw": "10.244.17.1"}]},
			"runtimeConfig": {"portMappings": [{"hostPort": 8080}]}}`, testEnv()},
		{"ptp", `{"name": "n", "delegate": {"type": "ptp"}, "ipam": {"routes": null}, "runtimeConfig": null}`, testEnv()},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := parseConfig([]byte(test.conf))
			if err != nil {
				t.Fatal(err)
			}
			conf, err := c.delegate(test.env)
			if err != nil {
				t.Fatal(err)
			}
			var text bytes.Buffer
			if err := json.Indent(&text, conf, "", "  "); err != nil {
				t.Fatal(err)
			}
			golden.Equal(t, text.String()+"\n", filepath.Join("testdata", test.name+".json"))
		})
	}
}

func TestConfigurationErrorsAreOneLineWithARemedy(t *testing.T) {
	const bridge = "use the name of a plugin such as bridge"
	tests := []struct {
		name, conf, want string
		code             uint
	}{
		{"no JSON", `{`, "read the network configuration", types.ErrDecodingFailure},
		{"a delegate that is no object", `{"delegate": 1}`, "read the network configuration", types.ErrDecodingFailure},
		{"delegate.name", `{"delegate": {"name": "x"}}`, "delegate.name is not allowed: flannel sets it", types.ErrInvalidNetworkConfig},
		{"delegate.ipam", `{"delegate": {"ipam": {}}}`, "put it beside delegate", types.ErrInvalidNetworkConfig},
		{"a type that is a number", `{"delegate": {"type": 1}}`, bridge, types.ErrInvalidNetworkConfig},
		{"a type that is null", `{"delegate": {"type": null}}`, bridge, types.ErrInvalidNetworkConfig},
		{"an empty type", `{"delegate": {"type": ""}}`, bridge, types.ErrInvalidNetworkConfig},
		{"flannel itself", `{"delegate": {"type": "flannel"}}`, "flannel cannot call itself", types.ErrInvalidNetworkConfig},
		{"an address plugin that is a number", `{"ipam": {"type": 1}}`, "such as host-local", types.ErrInvalidNetworkConfig},
		{"routes that are no list", `{"ipam": {"routes": {}}}`, "use a list", types.ErrInvalidNetworkConfig},
		{"a route that is none", `{"ipam": {"routes": [{"dst": "x"}]}}`, "use a list", types.ErrInvalidNetworkConfig},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseConfig([]byte(test.conf))
			var e *types.Error
			if !errors.As(err, &e) || e.Code != test.code || !strings.Contains(e.Msg, test.want) || strings.Contains(e.Error(), "\n") {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestAttachmentsTellNoneFromUnknown(t *testing.T) {
	tests := []struct {
		name, conf string
		found      bool
		count      int
	}{
		{"no list", `{}`, false, 0},
		{"an empty list", `{"cni.dev/valid-attachments": []}`, true, 0},
		{"null, as Go writes an empty list", `{"cni.dev/valid-attachments": null}`, true, 0},
		{"one", `{"cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}]}`, true, 1},
		{"the early name", `{"cni.dev/attachments": [{"containerID": "a", "ifname": "eth0"}]}`, true, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := parseConfig([]byte(test.conf))
			if err != nil {
				t.Fatal(err)
			}
			list, found, err := c.attachments()
			if err != nil || found != test.found || len(list) != test.count {
				t.Errorf("got %v, %t, %v, want %d, %t", list, found, err, test.count, test.found)
			}
		})
	}
}
