package gather

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"flannel/doctor"
	"flannel/internal/testkit/nstest"
)

func TestABundleHoldsNoSecrets(t *testing.T) {
	ns := nstest.New(t)
	ns.AddUplink("eth0", "192.0.2.1/24")
	dir := t.TempDir()
	secret := `{"name": "multus", "type": "multus", "plugins": [{"type": "x", "token": "s3cr3t"}], "password": "s3cr3t"}`
	if err := os.WriteFile(filepath.Join(dir, "00-multus.conf"), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FLANNELD_ETCD_PASSWORD", "s3cr3t")
	o := Options{SubnetFile: dir + "/subnet.env", CNIConfDir: dir}
	path := filepath.Join(dir, "bundle.tar.gz")
	ns.Do(func() {
		if err := Bundle(t.Context(), path, o, doctor.Examine("a", Gather(t.Context(), o), doctor.Checks())); err != nil {
			t.Error(err)
		}
	})
	out, err := exec.Command("tar", "-xzOf", path).CombinedOutput()
	text := string(out)
	if err != nil || strings.Contains(text, "s3cr3t") {
		t.Errorf("%v\n%s", err, text)
	}
	for _, want := range []string{`"version": 1`, "eth0", "192.0.2.1/24", `00-multus.conf: name "multus"`} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %s", want)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
}

func TestABundleOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "none"), filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "link", "dangling"} {
		err := Bundle(t.Context(), filepath.Join(dir, name), Options{}, doctor.Report{})
		if err == nil || err.Error() != "it exists already: remove it, or name another file" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if text, err := os.ReadFile(file); string(text) != "mine" {
		t.Errorf("got %q, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("a file was made through a link")
	}
}
