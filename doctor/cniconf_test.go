package doctor

import "testing"

// TestNamesInCommands has a file whose name a shell would run.
func TestNamesInCommands(t *testing.T) {
	f := &Facts{CNIConfDir: "/etc/cni/net.d", CNIConfs: []string{"05-$(reboot) it's.conf", "10-flannel.conflist"}}
	const want = `mv '/etc/cni/net.d/05-$(reboot) it'\''s.conf' '/etc/cni/net.d/05-$(reboot) it'\''s.conf.disabled'`
	if found := cniConf.Find(f); len(found) != 1 || found[0].Command != want {
		t.Errorf("got  %+v\nwant %s", found, want)
	}
}
