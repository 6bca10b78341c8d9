package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// call runs the program as if it had been called like this.
func call(argv ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), arguments(argv), nil, &out, &errs)
	return code, out.String(), errs.String()
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheNameOfTheProgramMayBeACommand(t *testing.T) {
	tests := []struct{ argv, want []string }{
		{[]string{"/opt/bin/flanneld", "--version"}, []string{"--version"}},
		{[]string{"/opt/bin/flanneld"}, []string{}},
		{[]string{"/opt/bin/install-conf", "a", "b"}, []string{"install-conf", "a", "b"}},
		{[]string{"cp", "-f", "a", "b"}, []string{"cp", "-f", "a", "b"}},
		{nil, nil},
	}
	for _, test := range tests {
		if got := arguments(test.argv); !slices.Equal(got, test.want) {
			t.Errorf("%q: got %q, want %q", test.argv, got, test.want)
		}
	}
}

func TestInstallConfCopies(t *testing.T) {
	dir := t.TempDir()
	from, to := writeFile(t, filepath.Join(dir, "a"), "text", 0o750), filepath.Join(dir, "b")
	if code, _, stderr := call("/opt/bin/install-conf", from, to); code != exitOK {
		t.Fatal(code, stderr)
	}
	text, err := os.ReadFile(to)
	info, statErr := os.Stat(to)
	if err != nil || statErr != nil || string(text) != "text" || info.Mode() != 0o750 {
		t.Errorf("got %q, %v, %v, %v", text, info, err, statErr)
	}
}

func TestCpCopies(t *testing.T) {
	dir := t.TempDir()
	from, to := writeFile(t, filepath.Join(dir, "a"), "text", 0o755), writeFile(t, filepath.Join(dir, "b"), "former", 0o600)
	if code, _, stderr := call("cp", "-f", from, to); code != exitOK {
		t.Fatal(code, stderr)
	}
	info, err := os.Stat(to)
	if err != nil || info.Mode() != 0o600 || readText(t, to) != "text" {
		t.Errorf("got %v, %v", info, err)
	}
}

func TestInstallCNI(t *testing.T) {
	dir := t.TempDir()
	plugin := writeFile(t, filepath.Join(dir, "plugin"), "program", 0o755)
	conf := writeFile(t, filepath.Join(dir, "conf"), `{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [{"type": "flannel"}]}`, 0o644)
	broken := writeFile(t, filepath.Join(dir, "broken"), `{"name": "cbr0"`, 0o644)
	tests := []struct {
		name, conf string
		noBin      bool
		noConf     bool
		code       int
		want       []string
	}{
		{"both", conf, false, false, exitOK, []string{"bin/flannel", "conf/10-flannel.conflist"}},
		{"only the plugin", conf, false, true, exitOK, []string{"bin/flannel"}},
		{"only the configuration", conf, true, false, exitOK, []string{"conf/10-flannel.conflist"}},
		{"a broken configuration", broken, false, false, exitError, []string{"bin/flannel"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			host := t.TempDir()
			binDir, confDir := filepath.Join(host, "bin"), filepath.Join(host, "conf")
			if test.noBin {
				binDir = ""
			}
			if test.noConf {
				confDir = ""
			}
			code, _, stderr := call("flanneld", "install-cni", "--plugin="+plugin, "--bin-dir="+binDir, "--conf="+test.conf, "--conf-dir="+confDir)
			if code != test.code {
				t.Errorf("exit code %d, want %d: %s", code, test.code, stderr)
			}
			got, err := filepath.Glob(host + "/*/*")
			if err != nil {
				t.Fatal(err)
			}
			for i := range got {
				got[i] = strings.TrimPrefix(got[i], host+"/")
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("installed %v, want %v", got, test.want)
			}
		})
	}
}

func TestCommandsSayHowTheyAreUsed(t *testing.T) {
	for _, c := range commands() {
		code, stdout, _ := call("flanneld", c.name, "--help")
		if code != exitOK || !strings.Contains(stdout, "Usage: flanneld "+c.name) {
			t.Errorf("%s --help: %d %q", c.name, code, stdout)
		}
		code, _, stderr := call("flanneld", c.name, "--no-such-flag")
		if code != exitUsage || !strings.Contains(stderr, "no-such-flag") {
			t.Errorf("%s: %d %q", c.name, code, stderr)
		}
		if _, stdout, _ = call("flanneld", "--help"); !strings.Contains(stdout, c.name) {
			t.Errorf("the usage does not name %s", c.name)
		}
	}
	for _, argv := range [][]string{{"flanneld", "install-cni", "x"}, {"flanneld", "install-conf", "x"}, {"cp", "-f", "x"}} {
		if code, _, stderr := call(argv...); code != exitUsage {
			t.Errorf("%q: exit code %d: %s", argv, code, stderr)
		}
	}
}

// TestCommandsAreDocumented asks for the name of each command and of each flag
// of it.
func TestCommandsAreDocumented(t *testing.T) {
	pages, err := filepath.Glob("../../Documentation/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var docs strings.Builder
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		docs.Write(text)
	}
	var names []string
	for _, c := range commands() {
		names = append(names, "`flanneld "+c.name)
	}
	for _, fs := range []*flag.FlagSet{newInstallFlagSet(&installFlags{}), newStatusFlagSet(&statusFlags{})} {
		fs.VisitAll(func(f *flag.Flag) { names = append(names, "`"+strings.Repeat("-", min(len(f.Name), 2))+f.Name+"`") })
	}
	for _, name := range names {
		if !strings.Contains(docs.String(), name) {
			t.Errorf("%s is not documented", name)
		}
	}
}
