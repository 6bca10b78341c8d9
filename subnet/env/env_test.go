package env

import (
	"errors"
	"flag"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"flannel/internal/ipfam"
)

var update = flag.Bool("update", false, "write the golden files")

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, t := range texts {
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}

func v4Only() Env {
	return Env{
		Network: ipfam.Pair[[]netip.Prefix]{prefixes("10.244.0.0/16"), nil},
		Subnet:  Gateways(ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.244.17.0/24"), {}}),
		MTU:     1450, IPMasq: true,
	}
}

func dualStack() Env {
	e := v4Only()
	e.Network[ipfam.V6] = prefixes("fd00:10:244::/56")
	e.Subnet[ipfam.V6] = Gateway(netip.MustParsePrefix("fd00:10:244:3::/64"))
	return e
}

func v6Only() Env {
	e := dualStack()
	e.Network[ipfam.V4], e.Subnet[ipfam.V4] = nil, netip.Prefix{}
	e.IPMasq = false
	return e
}

func TestText(t *testing.T) {
	for name, e := range map[string]Env{"v4": v4Only(), "v6": v6Only(), "dual": dualStack()} {
		t.Run(name, func(t *testing.T) {
			golden := filepath.Join("testdata", name+".env")
			if *update {
				if err := os.WriteFile(golden, []byte(e.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got := e.String(); got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			back, err := Parse(golden, string(want))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(back, e) {
				t.Errorf("got %+v, want %+v", back, e)
			}
		})
	}
}

func TestParseTakesListsCommentsAndUnknownKeys(t *testing.T) {
	got, err := Parse("f", "# made by hand\n\nFLANNEL_NETWORK=10.0.0.0/8, 192.168.0.0/16\r\n"+
		"  FLANNEL_SUBNET=10.1.2.1/24\nOTHER=x\nOTHER=y\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false")
	if err != nil {
		t.Fatal(err)
	}
	want := Env{
		Network: ipfam.Pair[[]netip.Prefix]{prefixes("10.0.0.0/8", "192.168.0.0/16"), nil},
		Subnet:  ipfam.Pair[netip.Prefix]{netip.MustParsePrefix("10.1.2.1/24"), {}},
		MTU:     1472,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := got.Masked()[ipfam.V4].String(), "10.1.2.0/24"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParseErrors(t *testing.T) {
	good := v4Only().String()
	tests := []struct{ name, text, want string }{
		{"empty", "", "f: FLANNEL_SUBNET is missing"},
		{"no subnet", strings.Replace(good, "FLANNEL_SUBNET", "X", 1), "f: FLANNEL_SUBNET is missing"},
		{"no network", strings.Replace(good, "FLANNEL_NETWORK", "X", 1), "f: FLANNEL_NETWORK is missing"},
		{"no MTU", strings.Replace(good, "FLANNEL_MTU", "X", 1), "f: FLANNEL_MTU is missing"},
		{"no masquerading", strings.Replace(good, "FLANNEL_IPMASQ", "X", 1), "f: FLANNEL_IPMASQ is missing"},
		{"half a family", good + "FLANNEL_IPV6_NETWORK=fd00::/48\n", "f: FLANNEL_IPV6_SUBNET is missing"},
		{"a bad number", strings.Replace(good, "1450", "much", 1),
			`f line 3: "FLANNEL_MTU=much" is not allowed: use a whole number from 68 to 65536`},
		{"a bad bool", strings.Replace(good, "true", "yes", 1),
			`f line 4: "FLANNEL_IPMASQ=yes" is not allowed: use true or false`},
		{"the wrong family", strings.Replace(good, "10.244.17.1/24", "fd00::1/64", 1),
			`f line 2: "FLANNEL_SUBNET=fd00::1/64" is not allowed: use an ipv4 address with a prefix length such as 10.244.17.1/24`},
		{"a bad list", strings.Replace(good, "10.244.0.0/16", "10.0.0.0/8,", 1),
			`f line 1: "FLANNEL_NETWORK=10.0.0.0/8," is not allowed: use ipv4 networks such as 10.244.17.0/24, separated by commas`},
		{"twice", good + "FLANNEL_MTU=1500\n",
			`f line 5: "FLANNEL_MTU=1500" is not allowed: use FLANNEL_MTU once only, it is on line 3 already`},
		{"no assignment", "hello\n" + good, `f line 1: "hello" is not allowed: use KEY=value or a comment`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse("f", test.text)
			if want := test.want + "; " + remedy; err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

func TestWriteChangesOnlyWhatDiffers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flannel", "subnet.env")
	write := func(e Env, want bool) {
		t.Helper()
		changed, err := Write(path, e)
		if err != nil {
			t.Fatal(err)
		}
		if changed != want {
			t.Errorf("got changed %t, want %t", changed, want)
		}
	}
	write(v4Only(), true)
	write(v4Only(), false)
	write(dualStack(), true)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	write(dualStack(), true)
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, dualStack()) {
		t.Errorf("got %+v, want %+v", got, dualStack())
	}
}

func TestReadSaysWhoWritesAMissingFile(t *testing.T) {
	_, err := Read(filepath.Join(t.TempDir(), "subnet.env"))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "flanneld writes it") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, e := range []Env{v4Only(), v6Only(), dualStack()} {
		f.Add(e.String())
	}
	f.Add("FLANNEL_NETWORK=10.0.0.0/8,192.168.0.0/16\n# x\n\nA=b\n")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Parse("f", text)
		if err != nil {
			return
		}
		back, err := Parse("f", e.String())
		if err != nil {
			t.Fatalf("%q is not read back: %v", e.String(), err)
		}
		if !reflect.DeepEqual(back, e) {
			t.Errorf("got %+v, want %+v", back, e)
		}
	})
}
