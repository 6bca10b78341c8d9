package sysctl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flannel/internal/ipfam"
)

// good are settings that are as pods need them.
var good = map[string]string{
	"net/ipv4/ip_forward":                  "1",
	"net/ipv6/conf/all/forwarding":         "1",
	"net/bridge/bridge-nf-call-iptables":   "1",
	"net/bridge/bridge-nf-call-ip6tables":  "1",
	"net/ipv4/conf/all/rp_filter":          "0",
	"net/ipv4/conf/eth0.5/rp_filter":       "0",
	"net/ipv4/conf/somewhere/else/ignored": "x",
}

func TestCheck(t *testing.T) {
	both, v4, v6 := ipfam.Pair[bool]{true, true}, ipfam.Pair[bool]{true, false}, ipfam.Pair[bool]{false, true}
	tests := map[string]struct {
		families ipfam.Pair[bool]
		set      map[string]string // empty takes the file away
		want     string
	}{
		"all is well":          {both, nil, ""},
		"no IPv4 forwarding":   {both, map[string]string{"net/ipv4/ip_forward": "0"}, "sysctl -w net.ipv4.ip_forward=1"},
		"no IPv6 forwarding":   {both, map[string]string{"net/ipv6/conf/all/forwarding": "0"}, "sysctl -w net.ipv6.conf.all.forwarding=1"},
		"IPv6 is off":          {v4, map[string]string{"net/ipv6/conf/all/forwarding": "0"}, ""},
		"IPv4 is off":          {v6, map[string]string{"net/ipv4/ip_forward": "0"}, ""},
		"no module":            {both, map[string]string{"net/bridge/bridge-nf-call-iptables": "", "net/bridge/bridge-nf-call-ip6tables": ""}, "modprobe br_netfilter"},
		"no module, IPv6":      {v6, map[string]string{"net/bridge/bridge-nf-call-ip6tables": ""}, "modprobe br_netfilter"},
		"bridge passes by":     {both, map[string]string{"net/bridge/bridge-nf-call-ip6tables": "0"}, "sysctl -w net.bridge.bridge-nf-call-ip6tables=1"},
		"strict for all":       {v4, map[string]string{"net/ipv4/conf/all/rp_filter": "1"}, "sysctl -w net.ipv4.conf.all.rp_filter=2"},
		"strict on the uplink": {v4, map[string]string{"net/ipv4/conf/eth0.5/rp_filter": "1"}, "sysctl -w net.ipv4.conf.eth0/5.rp_filter=2"},
		"strict but loose":     {v4, map[string]string{"net/ipv4/conf/all/rp_filter": "2", "net/ipv4/conf/eth0.5/rp_filter": "1"}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			write(t, root, good)
			write(t, root, tt.set)
			var got []string
			for _, p := range Check(root, tt.families, "eth0.5") {
				got = append(got, p.Command)
			}
			if strings.Join(got, "; ") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func write(t *testing.T, root string, settings map[string]string) {
	t.Helper()
	for name, value := range settings {
		path := filepath.Join(root, name)
		if value == "" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
