package gather

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

func TestWhatABundleTellsOfTheDaemon(t *testing.T) {
	p := process{
		pid:     7,
		args:    []string{"/opt/bin/flanneld", "--iface=eth0", "--etcd-password", "s3cr3t-1", "--etcd-endpoints=https://u:s3cr3t-2@192.0.2.1:2379", "--etcd-keyfile=/k.pem", "-v", "1"},
		environ: []string{"FLANNELD_ETCD_PASSWORD=s3cr3t-1-longer", "FLANNELD_IP_MASQ=true", "HOME=/root", "AWS_SECRET_KEY=s3cr3t-3", "https_proxy=http://p:s3cr3t-4@192.0.2.9:1"},
	}
	got := string(hide(p.commandLine(), p.secrets()))
	const want = "process 7\n/opt/bin/flanneld\n--iface=eth0\n--etcd-password\n[redacted]\n--etcd-endpoints=https://[redacted]@192.0.2.1:2379\n--etcd-keyfile=/k.pem\n-v\n1\n" +
		"FLANNELD_ETCD_PASSWORD=[redacted]\nFLANNELD_IP_MASQ=true\nhttps_proxy=http://[redacted]@192.0.2.9:1\n"
	if got != want {
		t.Errorf("got\n%s", got)
	}
	if got := string(hide([]byte("msg=a err=\"s3cr3t-1-longer\" s3cr3t-3"), p.secrets())); got != "msg=a err=\"[redacted]\" [redacted]" {
		t.Errorf("a log: got %s", got)
	}
	got = string(configuration([]byte(`{"Network": "10.5.0.0/16", "Backend": {"Type": "wireguard", "PSK": "s3cr3t", "Peers": [{"PrivateKey": "s3cr3t"}]}}`)))
	if strings.Contains(got, "s3cr3t") || !strings.Contains(got, `"Network": "10.5.0.0/16"`) || !strings.Contains(got, `"PSK": "[redacted]"`) {
		t.Errorf("the configuration: got %s", got)
	}
	if got := string(configuration([]byte("psk=s3cr3t"))); strings.Contains(got, "s3cr3t") {
		t.Errorf("no JSON: got %s", got)
	}
}

// TestSecretsOfAnyForm: addresses with passwords that are no URLs, or not quite, and
// secrets that are too short to be looked for elsewhere.
func TestSecretsOfAnyForm(t *testing.T) {
	for word, want := range map[string]string{
		"HTTPS_PROXY=user:s3cr3t@proxy:3128":                 "HTTPS_PROXY=[redacted]@proxy:3128",
		"https_proxy=s3cr3t@proxy:3128":                      "https_proxy=[redacted]@proxy:3128",
		"http_proxy=http://u:s3@cr3t@h:1":                    "http_proxy=http://[redacted]@h:1",
		"http_proxy=http://u:s3/cr3t@h:1":                    "http_proxy=http://[redacted]@h:1",
		"http_proxy=http://u:s3=cr3t@h:1":                    "http_proxy=http://[redacted]@h:1",
		"FLANNELD_ETCD_ENDPOINTS=http://u:s3@a:1,http://b:1": "FLANNELD_ETCD_ENDPOINTS=http://[redacted]@a:1,http://b:1",
		"FLANNELD_ETCD_PASSWORD=80":                          "FLANNELD_ETCD_PASSWORD=[redacted]",
		"FLANNELD_IFACE=eth0.5@bond0":                        "FLANNELD_IFACE=eth0.5@bond0",
		"no_proxy=10.0.0.0/8,.svc":                           "no_proxy=10.0.0.0/8,.svc",
		"FLANNELD_KUBE_API_URL=https://h:6443/a":             "FLANNELD_KUBE_API_URL=https://h:6443/a",
	} {
		p := process{args: []string{"flanneld"}, environ: []string{word}}
		if got, want := string(hide(p.commandLine(), p.secrets())), "process 0\nflanneld\n"+want+"\n"; got != want {
			t.Errorf("%s: got\n%s", word, got)
		}
	}
	p := process{args: []string{"flanneld", "--etcd-password", "-x=y", "--etcd-endpoints", "http://u:a=b@h", "-v"}, environ: []string{"X_TOKEN_PORT=80", "https_proxy=u:s3cr3t@h:1"}}
	if got, want := string(p.commandLine()), "process 0\nflanneld\n--etcd-password\n[redacted]\n--etcd-endpoints\nhttp://[redacted]@h\n-v\nhttps_proxy=[redacted]@h:1\n"; got != want {
		t.Errorf("got\n%s", got)
	}
	const log = "tcp dport 8080 invalid proxy address \"u:s3cr3t@h:1\" http://a:b@c@h"
	if got, want := string(hide([]byte(log), p.secrets())), "tcp dport 8080 invalid proxy address \"[redacted]@h:1\" http://[redacted]@h"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestTheEndOfTheLog(t *testing.T) {
	dir := t.TempDir()
	var long strings.Builder
	for n := range 3000 {
		fmt.Fprintf(&long, "line %d\n", n)
	}
	for name, text := range map[string]string{"kube-flannel-ds-old_x.log": "old", "other.log": "other", "kube-flannel-ds-new_x.log": long.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(filepath.Join(dir, "kube-flannel-ds-old_x.log"), time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	got := string(process{}.log(t.Context(), dir))
	if !strings.HasPrefix(got, "line 2000\n") || !strings.HasSuffix(got, "line 2999\n") || strings.Count(got, "\n") != logLines {
		t.Errorf("%d lines, from %.20q", strings.Count(got, "\n"), got)
	}
	huge := filepath.Join(dir, "kube-flannel-ds-huge_x.log")
	if err := os.WriteFile(huge, bytes.Repeat([]byte("x"), 3*logBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := len(lastLines(huge)); got > logBytes {
		t.Errorf("got %d bytes", got)
	}
}
