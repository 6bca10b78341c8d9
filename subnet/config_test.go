package subnet_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

func TestParseConfigFillsInDefaults(t *testing.T) {
	tests := map[string]struct {
		text     string
		subnets  ipfam.Pair[string] // length, first and last subnet
		backend  string
		nftables bool
	}{
		"only a network": {
			text:    `{"Network": "10.5.0.0/16"}`,
			subnets: ipfam.Pair[string]{"/24 10.5.1.0 10.5.255.0", "/0 invalid IP invalid IP"}, backend: "udp",
		},
		"keys match in any case, host bits are cleared": {
			text:    `{"network": "10.5.7.1/16", "SUBNETLEN": 26, "backend": {"type": "VXLAN"}, "enablenftables": true}`,
			subnets: ipfam.Pair[string]{"/26 10.5.0.64 10.5.255.192", "/0 invalid IP invalid IP"}, backend: "vxlan", nftables: true,
		},
		"a network longer than /22": {
			text:    `{"Network": "10.5.0.0/23"}`,
			subnets: ipfam.Pair[string]{"/25 10.5.0.128 10.5.1.128", "/0 invalid IP invalid IP"}, backend: "udp",
		},
		"the smallest network": {
			text:    `{"Network": "10.5.0.0/28"}`,
			subnets: ipfam.Pair[string]{"/30 10.5.0.4 10.5.0.12", "/0 invalid IP invalid IP"}, backend: "udp",
		},
		"dual stack": {
			text:    `{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fc00::/48", "Backend": {"Type": "vxlan"}}`,
			subnets: ipfam.Pair[string]{"/24 10.5.1.0 10.5.255.0", "/64 fc00:0:0:1:: fc00:0:0:ffff::"}, backend: "vxlan",
		},
		"only IPv6, a long network": {
			text:    `{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fc00::/124"}`,
			subnets: ipfam.Pair[string]{"/0 invalid IP invalid IP", "/126 fc00::4 fc00::c"}, backend: "udp",
		},
		"range given": {
			text:    `{"Network": "10.0.0.0/8", "SubnetLen": 20, "SubnetMin": "10.10.0.0", "SubnetMax": "10.99.0.0"}`,
			subnets: ipfam.Pair[string]{"/20 10.10.0.0 10.99.0.0", "/0 invalid IP invalid IP"}, backend: "udp",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := subnet.ParseConfig([]byte(tt.text), true)
			if err != nil {
				t.Fatal(err)
			}
			for f, want := range tt.subnets.Each() {
				got := netip.PrefixFrom(netip.IPv6Unspecified(), c.SubnetLen[f]).String()
				got = got[2:] + " " + c.SubnetMin[f].String() + " " + c.SubnetMax[f].String()
				if got != want {
					t.Errorf("%s: got %s, want %s", f, got, want)
				}
			}
			if c.BackendType != tt.backend || c.EnableNFTables != tt.nftables {
				t.Errorf("got %s %t, want %s %t", c.BackendType, c.EnableNFTables, tt.backend, tt.nftables)
			}
		})
	}
}

func TestParseConfigNamesWhatIsWrong(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"no JSON":                {"{\n \"Network\": x}", "line 2, column 13"},
		"not an object":          {`[1]`, "not a JSON object"},
		"no network":             {`{}`, "Network: missing: use a network such as 10.244.0.0/16"},
		"no IPv6 network":        {`{"Network":"10.5.0.0/16","EnableIPv6":true}`, "IPv6Network: missing"},
		"no family":              {`{"EnableIPv4":false}`, "both are false"},
		"bad network":            {`{"Network":"10.5.0.0"}`, `Network: "10.5.0.0" is not allowed: use a network`},
		"empty network":          {`{"Network":""}`, `Network: "" is not allowed`},
		"empty SubnetMin":        {`{"Network":"10.5.0.0/16","SubnetMin":""}`, `SubnetMin: "" is not allowed: use an IP address`},
		"IPv6 as Network":        {`{"Network":"fc00::/48"}`, "use an IPv4 network"},
		"IPv4 as IPv6Network":    {`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"10.5.0.0/16"}`, "use an IPv6 network"},
		"network too small":      {`{"Network":"10.5.0.0/29"}`, "Network: 10.5.0.0/29 is not allowed: use a network of at most /28"},
		"IPv6 network too small": {`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/125"}`, "at most /124"},
		"SubnetLen too long":     {`{"Network":"10.5.0.0/16","SubnetLen":31}`, "SubnetLen: 31 is not allowed: use a whole number from 18 to 30"},
		"SubnetLen too short":    {`{"Network":"10.5.0.0/16","SubnetLen":17}`, "from 18 to 30"},
		"SubnetLen text":         {`{"Network":"10.5.0.0/16","SubnetLen":"24"}`, `SubnetLen: "24" is not allowed`},
		"SubnetMin outside":      {`{"Network":"10.5.0.0/16","SubnetMin":"10.6.0.0"}`, "SubnetMin: 10.6.0.0 is not allowed: use an address inside 10.5.0.0/16 on a /24 boundary"},
		"SubnetMax off boundary": {`{"Network":"10.5.0.0/16","SubnetMax":"10.5.9.1"}`, "SubnetMax: 10.5.9.1 is not allowed"},
		"SubnetMin above max":    {`{"Network":"10.5.0.0/16","SubnetMin":"10.5.9.0","SubnetMax":"10.5.8.0"}`, "not above SubnetMax 10.5.8.0"},
		"EnableIPv6 text":        {`{"Network":"10.5.0.0/16","EnableIPv6":"yes"}`, `EnableIPv6: "yes" is not allowed: use true or false`},
		"Backend without Type":   {`{"Network":"10.5.0.0/16","Backend":{"VNI":1}}`, "Backend.Type: missing"},
		"Backend not an object":  {`{"Network":"10.5.0.0/16","Backend":"vxlan"}`, "Backend:"},
		"a type of flannel's":    {`{"Network":"10.5.0.0/16","Backend":{"Type":"IPsec"}}`, `Backend.Type: "IPsec" is not allowed`},
		"several things at once": {`{"Network":"10.5.0.0/29","EnableIPv6":3}`, "; "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := subnet.ParseConfig([]byte(tt.text), true)
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q, want one line with %q", err, tt.want)
			}
		})
	}
}

func TestParseConfigWithoutSubnetsIgnoresTheirKeys(t *testing.T) {
	c, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/30","SubnetLen":99,"SubnetMin":"x"}`), false)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Network[ipfam.V4].String(), "10.5.0.0/30"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if len(c.Warnings) > 0 {
		t.Errorf("warnings for keys that are known: %v", c.Warnings)
	}
}

func TestParseConfigNamesTheNearestKey(t *testing.T) {
	c, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16","SubnetLenght":24,"zzz":1}`), true)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(c.Warnings, "\n")
	want := "key \"SubnetLenght\" is not known and has no effect; did you mean \"SubnetLen\"?\n" +
		"key \"zzz\" is not known and has no effect"
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"Network":"10.5.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan","VNI":1}}`))
	f.Add([]byte(`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/48","IPv6SubnetMin":"fc00:0:0:9::"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := subnet.ParseConfig(raw, true)
		if err != nil {
			return
		}
		for fam, network := range ipfam.Prefixes(c.Network) {
			low, high := c.SubnetMin[fam], c.SubnetMax[fam]
			if !network.Contains(low) || !network.Contains(high) || high.Less(low) {
				t.Errorf("range %s to %s in %s", low, high, network)
			}
			if c.SubnetLen[fam] < network.Bits()+2 {
				t.Errorf("subnet length %d in %s", c.SubnetLen[fam], network)
			}
		}
	})
}

func TestMasqueradeExclude(t *testing.T) {
	parse := func(value string) (*subnet.Config, error) {
		return subnet.ParseConfig([]byte(`{"Network": "10.5.0.0/16", "masqueradeexclude": `+value+`}`), true)
	}
	c, err := parse(`["192.0.2.9/24", "2001:db8::/32", "198.51.100.7", "nodes"]`)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.MasqueradeExclude, c.ExcludeNodes); got != "[192.0.2.0/24 2001:db8::/32 198.51.100.7/32] true" {
		t.Errorf("got %s", got)
	}
	if c, err = parse("null"); err != nil || c.MasqueradeExclude != nil || c.ExcludeNodes {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, value := range []string{`"192.0.2.0/24"`, `["everything"]`, `["192.0.2.0/33"]`, `["fe80::1%eth0"]`, `["::ffff:192.0.2.1"]`, `[7]`} {
		if _, err := parse(value); err == nil || !strings.Contains(err.Error(), "MasqueradeExclude: ") || !strings.Contains(err.Error(), "use a list of networks") {
			t.Errorf("%s: got %v", value, err)
		}
	}
}
