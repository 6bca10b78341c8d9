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
// What the layers say already is not repeated.
var forbidden = map[string][]string{
	"flannel/subnet":          {"go.etcd.io", "k8s.io"},
	"flannel/subnet/env":      {"go.etcd.io", "k8s.io"},
	"flannel/subnet/etcd":     {"k8s.io"},
	"flannel/subnet/kube":     {"go.etcd.io", "k8s.io/api", "k8s.io/client-go/kubernetes"},
	"flannel/kernel":          {"go.etcd.io", "k8s.io"},
	"flannel/backend":         {"go.etcd.io", "k8s.io"},
	"flannel/backend/hostgw":  {"go.etcd.io", "k8s.io"},
	"flannel/backend/alloc":   {"go.etcd.io", "k8s.io"},
	"flannel/backend/udp":     {"go.etcd.io", "k8s.io"},
	"flannel/backend/vxlan":   {"go.etcd.io", "k8s.io"},
	"flannel/network":         {"go.etcd.io", "k8s.io", "flannel/backend/vxlan", "flannel/network/uplink"},
	"flannel/cmd/flanneld":    {"k8s.io/kubernetes", "go.etcd.io/etcd/server", "helm.sh", "containernetworking/plugins", "flannel/lab", "flannel/internal/testkit", "github.com/google/go-containerregistry"},
	"flannel/cmd/flannel":     {"k8s.io", "go.etcd.io", "net/http", "flannel/kernel", "flannel/network", "flannel/backend", "flannel/lab", "flannel/internal/testkit"},
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
				if within(dep, b) && !slices.Contains(permitted[pkg], dep) {
					t.Errorf("%s depends on %s", pkg, dep)
				}
			}
		}
	}
}

// permitted are exceptions from forbidden.
var permitted = map[string][]string{
	"flannel/cmd/flannel": {"flannel/kernel/podbridge", "flannel/kernel/rtnl"},
}

func within(pkg, folder string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }

// layers may import those before them, but not one another or those after them.
// The two that stand together know nothing of each other.
var layers = [][]string{
	{"flannel/internal/ipfam"},
	{"flannel/kernel", "flannel/subnet"},
	{"flannel/backend"},
	{"flannel/network", "flannel/probe", "flannel/fastpath"},
	{"flannel/cmd/flanneld"},
}

// netlinkUsers are the only folders that know netlink, beside the tests.
var netlinkUsers = []string{"flannel/kernel", "flannel/network/uplink", "flannel/doctor/gather", "flannel/cleanup", "flannel/fastpath", "flannel/lab", "flannel/cmd/flannel-lab", "flannel/internal/testkit", "flannel/test"}

func TestLayersAndNetlink(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "flannel/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	// layer returns the number of a package's layer, and its folder.
	layer := func(pkg string) (int, string) {
		for n, folders := range layers {
			for _, folder := range folders {
				if within(pkg, folder) {
					return n, folder
				}
			}
		}
		return -1, ""
	}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		pkg, imports := words[0], words[1:]
		own, folder := layer(pkg)
		for _, dep := range imports {
			other, otherFolder := layer(dep)
			if own >= 0 && other >= own && otherFolder != folder {
				t.Errorf("%s imports %s", pkg, dep)
			}
			knows := within(dep, "github.com/vishvananda/netlink") || within(dep, "flannel/kernel/rtnl")
			if knows && !slices.ContainsFunc(netlinkUsers, func(f string) bool { return within(pkg, f) }) {
				t.Errorf("%s imports %s: only kernel, network/uplink, doctor/gather, cleanup, fastpath and the lab know netlink", pkg, dep)
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
