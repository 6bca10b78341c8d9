package network

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flannel/backend"
	"flannel/backend/hostgw"
	"flannel/internal/ipfam"
	"flannel/internal/statedir"
	"flannel/kernel"
	"flannel/subnet"
	"flannel/subnet/subnettest"
)

// flannelRuns does what flannel does to its file: it puts another in its place.
func flannelRuns(t *testing.T, n *testNode) {
	t.Helper()
	const text = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1500\nFLANNEL_IPMASQ=false\n"
	if err := os.WriteFile(n.file+".tmp", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(n.file+".tmp", n.file); err != nil {
		t.Fatal(err)
	}
}

// weRun does what this software does.
func weRun(t *testing.T, n *testNode, boot string) {
	t.Helper()
	flannelRuns(t, n)
	if err := n.State.Save(lastRunDocument, lastRun{boot, markOf(n.file)}); err != nil {
		t.Fatal(err)
	}
}

// loseFile does what a reboot does.
func loseFile(t *testing.T, n *testNode) {
	t.Helper()
	if err := os.Remove(n.file); err != nil {
		t.Fatal(err)
	}
}

// Only flannel's routes may be taken over, and a user's look the same.
func TestRoutesOnTheUplinkAreAdoptedOnlyAfterFlannel(t *testing.T) {
	tests := map[string]struct {
		before func(t *testing.T, n *testNode)
		adopts bool
	}{
		"first start after flannel": {flannelRuns, true},
		"first start of all":        {func(*testing.T, *testNode) {}, false},
		"restart":                   {func(t *testing.T, n *testNode) { weRun(t, n, statedir.BootID()) }, false},
		"restart without a file": {func(t *testing.T, n *testNode) {
			weRun(t, n, statedir.BootID())
			loseFile(t, n)
		}, false},
		"reboot": {func(t *testing.T, n *testNode) {
			weRun(t, n, "another boot")
			loseFile(t, n)
		}, false},
		"reboot with a file that lasts": {func(t *testing.T, n *testNode) { weRun(t, n, "another boot") }, false},
		"flannel ran since": {func(t *testing.T, n *testNode) {
			weRun(t, n, statedir.BootID())
			flannelRuns(t, n)
		}, true},
		"flannel ran after a reboot": {func(t *testing.T, n *testNode) {
			weRun(t, n, "another boot")
			loseFile(t, n)
			flannelRuns(t, n)
		}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.store.SetConfig(`{"Network": "10.5.0.0/16", "Backend": {"Type": "host-gw"}}`)
			n.Backends = backend.Table{hostgw.Type}
			n.uplink.host.OnLinkRoutes = backend.OnLinkRoutes{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Direct: true}}
			n.State = statedir.Open(slog.New(slog.DiscardHandler), t.TempDir(), "")
			n.kernel.AddRoute(kernel.Route{Dst: netip.MustParsePrefix("10.5.250.0/24"), Via: netip.MustParseAddr("192.0.2.9"), Dev: "eth0"}, 3)
			test.before(t, n)
			n.start()
			l := subnet.Lease{Subnet: subnettest.Subnets("10.5.22.0/24")}
			l.Attrs = subnet.Attrs{BackendType: hostgw.Type.Name, PublicIP: ipfam.Pair[netip.Addr]{netip.MustParseAddr("192.0.2.22")}}
			n.store.Put(l, false)
			n.await("a pass after the first", func() bool { return strings.Contains(n.kernel.String(), "10.5.22.0/24") })
			if stays := strings.Contains(n.kernel.String(), "10.5.250.0/24"); stays == test.adopts {
				t.Errorf("the route stays: %v, want %v\n%s", stays, !test.adopts, n.kernel)
			}
			var last lastRun
			if err := n.State.Load(lastRunDocument, &last); err != nil || last.File != markOf(n.file) || last.Boot != statedir.BootID() {
				t.Errorf("remembered %+v, %v", last, err)
			}
		})
	}
}

func TestASubnetFileThatIsRemovedAgainAndAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subnet.env")
	f := subnetFile{path: path, written: true}
	now := time.Now()
	restored := 0
	for range 10 * time.Minute / subnetFileEvery {
		now = now.Add(subnetFileEvery)
		if f.due(now) {
			restored++
		}
	}
	if restored < 15 || restored > 40 {
		t.Errorf("restored %d times in 10 minutes, want about every 30 s", restored)
	}

	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	f.last.File = markOf(path)
	now = now.Add(time.Minute)
	if f.due(now) {
		t.Error("a file that is as it was written is restored")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if now = now.Add(subnetFileEvery); !f.due(now) {
		t.Error("after a quiet time it is not restored at once")
	}
}
