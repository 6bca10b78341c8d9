package kube

import (
	"maps"
	"net/netip"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

func keysOf(t *testing.T) annotations {
	t.Helper()
	k, err := newAnnotations("flannel.alpha.coreos.com")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestPrefixOfAnnotations(t *testing.T) {
	tests := map[string]string{
		"flannel.alpha.coreos.com":  "flannel.alpha.coreos.com/",
		"flannel.alpha.coreos.com/": "flannel.alpha.coreos.com/",
		"example.com/overlay":       "example.com/overlay-",
		"example.com/overlay-":      "example.com/overlay-",
		"a/b/c":                     "",
		"Example.com":               "",
		"localhost":                 "",
		"":                          "",
		"example.com/a b":           "",
	}
	for prefix, want := range tests {
		k, err := newAnnotations(prefix)
		if k.prefix != want || (err != nil) != (want == "") {
			t.Errorf("%q: got %q, %v; want %q", prefix, k.prefix, err, want)
		}
	}
}

// attrs4 and attrs46 are what a vxlan node publishes.
func attrs4() subnet.Attrs {
	a := subnet.Attrs{BackendType: "vxlan"}
	a.PublicIP[ipfam.V4] = netip.MustParseAddr("192.0.2.1")
	a.Data[ipfam.V4] = `{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`
	return a
}

func attrs46() subnet.Attrs {
	a := attrs4()
	a.PublicIP[ipfam.V6] = netip.MustParseAddr("2001:db8::1")
	a.Data[ipfam.V6] = `{"VNI":1,"VtepMAC":"02:00:00:00:00:06"}`
	return a
}

// apply does what the API server does with a patch.
func apply(have map[string]string, patch map[string]*string) map[string]string {
	out := maps.Clone(have)
	if out == nil {
		out = map[string]string{}
	}
	for key, value := range patch {
		if value == nil {
			delete(out, key)
			continue
		}
		out[key] = *value
	}
	return out
}

func TestAnnotationsAreThoseOfFlannel(t *testing.T) {
	hostgw := attrs4()
	hostgw.BackendType, hostgw.Data = "host-gw", ipfam.Pair[string]{}
	only6 := attrs46()
	only6.PublicIP[ipfam.V4], only6.Data[ipfam.V4] = netip.Addr{}, ""
	tests := map[string]struct {
		attrs subnet.Attrs
		want  map[string]string
	}{
		"vxlan": {attrs4(), map[string]string{
			"kube-subnet-manager": "true", "backend-type": "vxlan", "public-ip": "192.0.2.1",
			"backend-data": `{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`,
		}},
		"vxlan, both families": {attrs46(), map[string]string{
			"kube-subnet-manager": "true", "backend-type": "vxlan", "public-ip": "192.0.2.1", "public-ipv6": "2001:db8::1",
			"backend-data":    `{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`,
			"backend-v6-data": `{"VNI":1,"VtepMAC":"02:00:00:00:00:06"}`,
		}},
		"vxlan, IPv6": {only6, map[string]string{
			"kube-subnet-manager": "true", "backend-type": "vxlan", "public-ipv6": "2001:db8::1",
			"backend-data": "null", "backend-v6-data": `{"VNI":1,"VtepMAC":"02:00:00:00:00:06"}`,
		}},
		"host-gw": {hostgw, map[string]string{
			"kube-subnet-manager": "true", "backend-type": "host-gw", "public-ip": "192.0.2.1", "backend-data": "null",
		}},
	}
	k := keysOf(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			want := map[string]string{"kubernetes.io/other": "kept"}
			for key, value := range test.want {
				want[k.prefix+key] = value
			}
			have := map[string]string{"kubernetes.io/other": "kept", k.prefix + "public-ipv6": "2001:db8::99"}
			encoded := k.encode(test.attrs)
			if matches(have, encoded) {
				t.Error("a Node without annotations matches")
			}
			got := apply(have, k.patch(have, encoded))
			if !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if !matches(got, encoded) {
				t.Error("the patched Node does not match")
			}
			if a, err := k.decode(got, both); err != nil || a != test.attrs {
				t.Errorf("decoded %+v, %v", a, err)
			}
		})
	}
}

// flannelSees is the rule by which a flannel peer takes an update.
func flannelSees(k annotations, was, is map[string]string) bool {
	for _, f := range ipfam.All() {
		same := true
		for _, key := range []string{k.data[f], k.backendType, k.publicIP[f]} {
			same = same && was[key] == is[key]
		}
		if same {
			return false
		}
	}
	return true
}

func TestAFlannelPeerSeesAChangeOfOneFamily(t *testing.T) {
	k := keysOf(t)
	changes := map[string]func(*subnet.Attrs){
		"IPv4 address": func(a *subnet.Attrs) { a.PublicIP[ipfam.V4] = netip.MustParseAddr("192.0.2.7") },
		"IPv6 address": func(a *subnet.Attrs) { a.PublicIP[ipfam.V6] = netip.MustParseAddr("2001:db8::7") },
		"IPv4 MAC":     func(a *subnet.Attrs) { a.Data[ipfam.V4] = `{"VNI":1,"VtepMAC":"02:00:00:00:00:07"}` },
		"IPv6 MAC":     func(a *subnet.Attrs) { a.Data[ipfam.V6] = `{"VNI":1,"VtepMAC":"02:00:00:00:00:07"}` },
		"both addresses": func(a *subnet.Attrs) {
			a.PublicIP[ipfam.V4], a.PublicIP[ipfam.V6] = netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
		},
		"backend": func(a *subnet.Attrs) { a.BackendType = "host-gw" },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			have := apply(nil, k.encode(attrs46()))
			next := attrs46()
			for range 3 { // there, back and there again
				change(&next)
				is := apply(have, k.patch(have, k.encode(next)))
				if !flannelSees(k, have, is) {
					t.Errorf("flannel ignores the change from %v to %v", have, is)
				}
				if a, err := k.decode(is, both); err != nil || a != next || !matches(is, k.encode(next)) {
					t.Errorf("the annotations say %+v, %v", a, err)
				}
				have, next = is, attrs46()
				is = apply(have, k.patch(have, k.encode(next)))
				if !flannelSees(k, have, is) {
					t.Errorf("flannel ignores the change back from %v to %v", have, is)
				}
				have = is
			}
		})
	}
}

func TestWrongAnnotations(t *testing.T) {
	k := keysOf(t)
	tests := map[string]struct{ key, value, want string }{
		"an IPv6 address for IPv4": {k.publicIP[ipfam.V4], "2001:db8::1", "is not an ipv4 address"},
		"no address":               {k.publicIP[ipfam.V6], "here", "is not an ipv6 address"},
		"a zone":                   {k.publicIP[ipfam.V6], "fe80::1%eth0", "is not an ipv6 address"},
		"data that are not JSON":   {k.data[ipfam.V4], "{", "is not JSON"},
		"far too much":             {k.data[ipfam.V4], `"` + strings.Repeat("x", maxData) + `"`, "at most"},
		"a type with blanks":       {k.backendType, "vx lan", "is not a name"},
		"a long type":              {k.backendType, strings.Repeat("x", 33), "is not a name"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			have := apply(apply(nil, k.encode(attrs46())), map[string]*string{test.key: &test.value})
			if _, err := k.decode(have, both); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestFlannelsUDPHasNoType(t *testing.T) {
	k := keysOf(t)
	a, err := k.decode(map[string]string{k.managed: "true", k.backendType: "", k.publicIP[ipfam.V4]: "192.0.2.1", k.data[ipfam.V4]: "null"}, both)
	if err != nil || a.BackendType != "udp" || !a.Untyped || a.Data[ipfam.V4] != "" {
		t.Errorf("got %+v, %v", a, err)
	}
}
