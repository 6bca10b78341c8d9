package kube

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flannel/internal/ipfam"
	"flannel/subnet"
	"flannel/subnet/subnettest"
)

var both = ipfam.Pair[bool]{true, true}

// nodeOf returns a Node that publishes a.
func nodeOf(t *testing.T, a subnet.Attrs, podCIDRs ...string) *Node {
	t.Helper()
	k := keysOf(t)
	n := &Node{PodCIDRs: podCIDRs}
	n.Name, n.Annotations = "n1", apply(nil, k.encode(a))
	n.CreationTimestamp = metav1.Unix(1700000000, 0)
	return n
}

func TestLeaseOfANode(t *testing.T) {
	k := keysOf(t)
	n := nodeOf(t, attrs46(), "10.244.3.0/24", "fd00:10:244:3::/64")
	l, ok := decodeLease(n, &k, both)
	want := subnet.Lease{
		Name: "n1", Subnet: subnettest.Subnets("10.244.3.0/24", "fd00:10:244:3::/64"), Attrs: attrs46(),
		Precedence: subnet.Precedence{Age: 1700000000 * int64(time.Second), Name: "n1"},
	}
	if !ok || !l.Equal(want) {
		t.Errorf("got %+v, %t, want %+v", l, ok, want)
	}
	if l, _ := decodeLease(n, &k, ipfam.Pair[bool]{true, false}); l.Subnet != subnettest.Subnets("10.244.3.0/24") {
		t.Errorf("with IPv6 off the subnet is %v", l.Subnet)
	}
	n.PodCIDR, n.PodCIDRs = "10.244.3.0/24", nil
	if l, _ := decodeLease(n, &k, both); l.Subnet != subnettest.Subnets("10.244.3.0/24") || l.Invalid != "" {
		t.Errorf("with podCIDR alone the lease is %+v", l)
	}
	// What flannel writes for IPv4 if IPv4 is off, and what an earlier run has left.
	only6 := nodeOf(t, attrs46(), "fd00:10:244:3::/64")
	only6.Annotations[k.publicIP[ipfam.V4]], only6.Annotations[k.data[ipfam.V4]] = "0.0.0.0", "{"
	if l, _ := decodeLease(only6, &k, ipfam.Pair[bool]{false, true}); l.Invalid != "" || l.Attrs.PublicIP[ipfam.V4].IsValid() ||
		l.Attrs.PublicIP[ipfam.V6] != attrs46().PublicIP[ipfam.V6] {
		t.Errorf("with IPv4 off the lease is %+v", l)
	}
	n.Annotations[k.managed] = "false"
	if _, ok := decodeLease(n, &k, both); ok {
		t.Error("a Node that is not managed takes part")
	}
}

func TestNodesThatAreNoUsableLease(t *testing.T) {
	k := keysOf(t)
	tests := map[string]struct {
		podCIDRs []string
		want     string
	}{
		"no pod CIDR":          {nil, "no pod CIDR"},
		"not a subnet":         {[]string{"10.244.3.0"}, "is not a subnet"},
		"two of one family":    {[]string{"10.244.3.0/24", "10.244.4.0/24"}, "two ipv4 pod CIDRs"},
		"three":                {[]string{"10.244.3.0/24", "fd00::/64", "10.244.4.0/24"}, "3 pod CIDRs"},
		"an IPv4-mapped range": {[]string{"::ffff:10.244.3.0/120"}, "is not a subnet"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l, ok := decodeLease(nodeOf(t, attrs4(), test.podCIDRs...), &k, both)
			if !ok || !strings.Contains(l.Invalid, test.want) {
				t.Errorf("got %+v, %t, want %q", l, ok, test.want)
			}
		})
	}
	n := nodeOf(t, attrs4(), "10.244.3.0/24")
	n.Annotations[k.data[ipfam.V4]] = "{"
	if l, ok := decodeLease(n, &k, both); !ok || !strings.Contains(l.Invalid, "is not JSON") {
		t.Errorf("got %+v, %t", l, ok)
	}
}

func TestOwnSubnets(t *testing.T) {
	network := subnettest.Subnets("10.244.0.0/16", "fd00:10:244::/56")
	only4 := ipfam.Pair[netip.Prefix]{network[ipfam.V4]}
	tests := map[string]struct {
		podCIDRs []string
		network  ipfam.Pair[netip.Prefix]
		want     string // of the error
	}{
		"both families":            {[]string{"10.244.3.0/24", "fd00:10:244:3::/64"}, network, ""},
		"a family that is off":     {[]string{"10.244.3.0/24", "fd00::/64"}, only4, ""},
		"none":                     {nil, network, `Node "n1" has no pod CIDR: give the cluster one with kubeadm init --pod-network-cidr`},
		"no IPv6":                  {[]string{"10.244.3.0/24"}, network, `Node "n1" has no IPv6 pod CIDR`},
		"no IPv4":                  {[]string{"fd00:10:244:3::/64"}, only4, `Node "n1" has no IPv4 pod CIDR`},
		"outside the network":      {[]string{"10.9.3.0/24"}, only4, `pod CIDR 10.9.3.0/24 of Node "n1" is outside the Network 10.244.0.0/16`},
		"IPv6 outside the network": {[]string{"10.244.3.0/24", "fd01::/64"}, network, `is outside the IPv6Network fd00:10:244::/56`},
		"all of the network":       {[]string{"10.244.0.0/16"}, only4, ""},
		"more than the network":    {[]string{"10.244.0.0/15"}, only4, "is outside the Network"},
		"nonsense":                 {[]string{"x"}, only4, "is not a subnet"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ownSubnets(nodeOf(t, attrs4(), test.podCIDRs...), test.network)
			switch {
			case test.want == "" && (err != nil || !got[ipfam.V4].IsValid()):
				t.Errorf("got %v, %v", got, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "see: kubectl")):
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestServedNetwork(t *testing.T) {
	network := subnettest.Subnets("10.244.0.0/16", "fd00:10:244::/56")
	tests := map[string]struct {
		podCIDRs []string
		want     ipfam.Pair[netip.Prefix]
		missing  string // of the note
		err      string
	}{
		"both":                     {[]string{"10.244.3.0/24", "fd00:10:244:3::/64"}, network, "", ""},
		"IPv4":                     {[]string{"10.244.3.0/24"}, ipfam.Pair[netip.Prefix]{0: network[ipfam.V4]}, `Node "n1" has no IPv6 pod CIDR, and runs without IPv6: give the cluster one`, ""},
		"IPv6":                     {[]string{"fd00:10:244:3::/64"}, ipfam.Pair[netip.Prefix]{1: network[ipfam.V6]}, `Node "n1" has no IPv4 pod CIDR, and runs without IPv4: give the cluster one`, ""},
		"none":                     {nil, network, "", `Node "n1" has no pod CIDR`},
		"IPv6 outside the network": {[]string{"10.244.3.0/24", "fd01::/64"}, network, "", "is outside the IPv6Network"},
		"nonsense":                 {[]string{"x"}, network, "", "is not a subnet"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := servedNetwork(nodeOf(t, attrs4(), tt.podCIDRs...), network)
			if got != tt.want || errorText(err) != tt.err && (tt.err == "" || !strings.Contains(errorText(err), tt.err)) {
				t.Errorf("got %v, %v", got, err)
			}
			if missing := errorText(missingFamily("n1", got)); !strings.HasPrefix(missing, tt.missing) || tt.missing == "" && missing != "" {
				t.Errorf("missing: %s", missing)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestNodeName(t *testing.T) {
	tests := map[string]struct {
		env  map[string]string
		want nodeName
	}{
		"NODE_NAME alone":    {map[string]string{"NODE_NAME": "n1"}, nodeName{name: "n1"}},
		"NODE_NAME wins":     {map[string]string{"NODE_NAME": "n1", "POD_NAME": "p", "POD_NAMESPACE": "ns"}, nodeName{name: "n1"}},
		"the pod":            {map[string]string{"POD_NAME": "p", "POD_NAMESPACE": "ns"}, nodeName{pod: "p", namespace: "ns"}},
		"half of a pod":      {map[string]string{"POD_NAME": "p"}, nodeName{name: "host1"}},
		"only the host name": {nil, nodeName{name: "host1"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := chooseName(func(key string) string { return test.env[key] }, "Host1"); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestCloseMatches(t *testing.T) {
	names := []string{"web1.example.com", "web2", "db", "web10"}
	tests := map[string]string{
		"web1":           "but web1.example.com: set NODE_NAME",
		"Web2":           "but web2: set NODE_NAME",
		"WEB2.Local":     "but web2: set NODE_NAME",
		"mail":           "the kubelet creates it when it registers",
		"db.example.com": "but db: set NODE_NAME",
	}
	for name, want := range tests {
		if got := notFound(name, names).Error(); !strings.Contains(got, want) || !strings.HasPrefix(got, `there is no Node "`+name+`"`) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
