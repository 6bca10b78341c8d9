package cniplugin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"flannel/internal/testkit/golden"
)

func TestAddSaysWhatSubnetEnvLacks(t *testing.T) {
	tests := []struct {
		name, text, want string
		code             uint
	}{
		{"no file", "", "flanneld writes it once it has a subnet", types.ErrTryAgainLater},
		{"half a file", "FLANNEL_NETWORK=10.244.0.0/16\n", "subnet.env: FLANNEL_SUBNET is missing; restart flanneld", types.ErrInternal},
		{"a foreign file", "PATH=/bin\nhello\n", `subnet.env line 2: "hello" is not allowed: use KEY=value`, types.ErrInternal},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "subnet.env")
			if test.text != "" {
				if err := os.WriteFile(file, []byte(test.text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			err := Plugin{Patience: -1}.Add(t.Context(), &skel.CmdArgs{
				ContainerID: "a", StdinData: fmt.Appendf(nil, `{"name": "n", "subnetFile": %q}`, file),
			})
			var e *types.Error
			if !errors.As(err, &e) || e.Code != test.code || !strings.Contains(e.Msg, test.want) || strings.Contains(e.Msg, "\n") {
				t.Errorf("got %v, want code %d and %q in one line", err, test.code, test.want)
			}
		})
	}
}

func TestADelegateThatIsNotInstalled(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subnet.env")
	text := "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.17.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CNI_PATH", t.TempDir())
	err := Plugin{}.Add(t.Context(), &skel.CmdArgs{
		ContainerID: "a", StdinData: fmt.Appendf(nil, `{"name": "n", "subnetFile": %q, "dataDir": %q, "delegate": {"type": "none"}}`, file, t.TempDir()),
	})
	if err == nil || !strings.Contains(err.Error(), "delegate none: ") || !strings.Contains(err.Error(), "install the CNI plugins there") {
		t.Errorf("got %v", err)
	}
}

func TestCheckConfiguration(t *testing.T) {
	c := config{CNIVersion: "1.0.0", PrevResult: []byte(`{"cniVersion": "1.0.0", "ips": [
		{"address": "10.244.17.2/24", "gateway": "10.244.17.1"}, {"address": "fd00::2/64", "gateway": "fd00::1"}],
		"routes": [{"dst": "10.244.0.0/16"}, {"dst": "fd00::/56"}, {"dst": "0.0.0.0/0", "gw": "10.244.17.9"}], "dns": {}}`)}
	got, err := c.checkConfig(record{text: []byte(`{"cniVersion": "0.3.1", "name": "n", "type": "bridge"}`)})
	if err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, string(got)+"\n", "testdata/check.json")
}

func TestDelegatesThatDoNotKnowAVerb(t *testing.T) {
	tests := []struct {
		err  error
		want bool
	}{
		{&types.Error{Code: 4, Msg: "unknown CNI_COMMAND: STATUS"}, true},
		{&types.Error{Code: 1, Msg: "plugin version does not allow CHECK"}, true},
		{&types.Error{Code: 1, Msg: "incompatible CNI versions"}, false},
		{&types.Error{Code: 50, Msg: "no addresses"}, false},
		{errors.New("unknown CNI_COMMAND"), false},
	}
	for _, test := range tests {
		if got := isUnknownVerb(test.err); got != test.want {
			t.Errorf("%v: got %t, want %t", test.err, got, test.want)
		}
	}
}
