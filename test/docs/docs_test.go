// Package docs compares the program with its documentation, and its imports
// with the architecture.
package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the top folder of the repository.
const root = "../.."

// pages returns all documentation as one text.
func pages(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "Documentation", "*.md"))
	if err != nil || len(files) == 0 {
		t.Fatal("no documentation", err)
	}
	var b strings.Builder
	for _, f := range append(files, filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md")) {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(text)
	}
	return b.String()
}

func TestEveryFlagIsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "cmd/flanneld/testdata/flags.txt"))
	if err != nil {
		t.Fatal(err)
	}
	docs := pages(t)
	for line := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(line, "=")
		if !strings.Contains(docs, "`"+name+"`") {
			t.Errorf("flag %s is not documented", name)
		}
	}
}

// keyPattern finds the keys that are read with package options.
var keyPattern = regexp.MustCompile(`o\.(?:Bool|Int|String|Prefix|Addr|Raw)\("([A-Za-z0-9]+)"|: *"((?:EnableIPv|IPv6Network|Network|IPv6Subnet|Subnet)[A-Za-z0-9]*)"`)

func TestEveryKeyIsDocumented(t *testing.T) {
	docs := pages(t)
	found := 0
	eachSource(t, func(path, text string) {
		if !strings.Contains(path, "/backend/") && !strings.Contains(path, "/subnet/config") {
			return
		}
		for _, m := range keyPattern.FindAllStringSubmatch(text, -1) {
			key := m[1] + m[2]
			found++
			if !strings.Contains(docs, "`"+key+"`") && !strings.Contains(docs, `"`+key+`"`) {
				t.Errorf("%s: key %s is not documented", path, key)
			}
		}
	})
	if found < 15 {
		t.Errorf("found only %d keys", found)
	}
}

// metricPattern finds the names of metrics in the source.
var metricPattern = regexp.MustCompile(`"(flannel_[a-z_]+)"`)

func TestEveryMetricIsDocumented(t *testing.T) {
	docs := pages(t)
	found := 0
	eachSource(t, func(path, text string) {
		for _, m := range metricPattern.FindAllStringSubmatch(text, -1) {
			found++
			if !strings.Contains(docs, "`"+m[1]+"`") {
				t.Errorf("%s: metric %s is not documented", path, m[1])
			}
		}
	})
	if found < 15 {
		t.Errorf("found only %d metrics", found)
	}
}

// eachFile visits the files of the repository, but for hidden folders: the
// programs of others are there, and what is downloaded.
func eachFile(t *testing.T, visit func(path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root:
			return filepath.SkipDir
		case !d.IsDir():
			visit(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// eachSource visits the source files that are part of the programs.
func eachSource(t *testing.T, visit func(path, text string)) {
	t.Helper()
	eachFile(t, func(path string) {
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, root+"/test/") {
			return
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		visit(path, string(text))
	})
}

// forbidden says what a package must not depend on, however indirectly.
var forbidden = map[string][]string{
	"flannel/internal/ipfam":  {"flannel/subnet", "flannel/network", "flannel/backend"},
	"flannel/subnet":          {"flannel/network", "flannel/backend", "go.etcd.io", "k8s.io", "netlink"},
	"flannel/subnet/env":      {"flannel/network", "flannel/backend", "go.etcd.io", "k8s.io", "netlink"},
	"flannel/subnet/etcd":     {"flannel/network", "flannel/backend", "k8s.io", "netlink"},
	"flannel/subnet/kube":     {"flannel/network", "flannel/backend", "go.etcd.io", "netlink", "k8s.io/api", "k8s.io/client-go/kubernetes"},
	"flannel/kernel":          {"flannel/subnet", "flannel/backend", "go.etcd.io", "k8s.io"},
	"flannel/backend":         {"flannel/network/uplink", "go.etcd.io", "k8s.io", "flannel/cmd"},
	"flannel/backend/hostgw":  {"flannel/network/uplink", "go.etcd.io", "k8s.io", "flannel/cmd"},
	"flannel/backend/alloc":   {"flannel/network/uplink", "go.etcd.io", "k8s.io", "flannel/cmd"},
	"flannel/backend/udp":     {"flannel/network/uplink", "go.etcd.io", "k8s.io", "flannel/cmd"},
	"flannel/backend/vxlan":   {"flannel/network/uplink", "go.etcd.io", "k8s.io", "flannel/cmd"},
	"flannel/network":         {"go.etcd.io", "k8s.io", "flannel/backend/vxlan", "flannel/network/uplink", "flannel/cmd"},
	"flannel/cmd/flanneld":    {"k8s.io/kubernetes", "go.etcd.io/etcd/server", "helm.sh", "containernetworking/plugins", "flannel/lab", "flannel/internal/testkit", "github.com/google/go-containerregistry"},
	"flannel/cmd/flannel":     {"k8s.io", "go.etcd.io", "net/http", "flannel/network/uplink", "flannel/backend", "flannel/lab", "flannel/internal/testkit"},
	"flannel/cmd/flannel-lab": {"k8s.io", "go.etcd.io"},
}

func TestImportsGoOneWay(t *testing.T) {
	for pkg, banned := range forbidden {
		out, err := exec.Command("go", "list", "-deps", pkg).Output()
		if err != nil {
			t.Fatalf("%s: %v", pkg, err)
		}
		for dep := range strings.FieldsSeq(string(out)) {
			for _, b := range banned {
				if dep == b || strings.HasPrefix(dep, b+"/") || b == "netlink" && strings.Contains(dep, "vishvananda/netlink") {
					t.Errorf("%s depends on %s", pkg, dep)
				}
			}
		}
	}
}

// TestEveryModuleIsListed compares the Makefile, whose list is what is checked
// and downloaded, with the modules that there are.
func TestEveryModuleIsListed(t *testing.T) {
	var modules []string
	eachFile(t, func(path string) {
		if filepath.Base(path) == "go.mod" {
			dir, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				t.Fatal(err)
			}
			modules = append(modules, dir)
		}
	})
	slices.Sort(modules)
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if line := "\nMODULES := " + strings.Join(modules, " ") + "\n"; err != nil || !strings.Contains(string(text), line) {
		t.Errorf("the Makefile lacks %q: %v", line, err)
	}
}

// TestTheNamesThatProgramsReadAreThere looks for names that no run of a daemon
// shows all of; test/e2e has the list of those that one shows.
func TestTheNamesThatProgramsReadAreThere(t *testing.T) {
	names, err := os.ReadFile("testdata/names.txt")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	eachSource(t, func(_, text string) { source.WriteString(text) })
	for name := range strings.Lines(string(names)) {
		name = strings.TrimSpace(name)
		if name != "" && !strings.HasPrefix(name, "#") && !strings.Contains(source.String(), `"`+name+`"`) {
			t.Errorf("%q is gone: somebody's monitoring or script reads it", name)
		}
	}
}
