package dist

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"flannel/internal/testkit/assets"
)

// runMake runs the Makefile as a person would, whoever runs the tests.
func runMake(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "make", append([]string{"-C", "../.."}, args...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS=")
	})
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make %v: %v\n%s", args, err, out)
	}
}

// filesIn returns the content of all files below a folder, by path.
func filesIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files[strings.TrimPrefix(path, dir+"/")] = read(t, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestPackagesAreTheSameBytesTwice makes image and release of one architecture.
func TestPackagesAreTheSameBytesTwice(t *testing.T) {
	var outs [2]map[string]string
	dirs := [2]string{t.TempDir(), t.TempDir()}
	for i, dir := range dirs {
		runMake(t, "image", "release", "ARCHS="+runtime.GOARCH, "OUT="+dir, "VERSION=v9.8.7", "IMAGE=registry.example/flannel:v9.8.7")
		outs[i] = filesIn(t, dir)
	}
	if first, second := slices.Sorted(maps.Keys(outs[0])), slices.Sorted(maps.Keys(outs[1])); !slices.Equal(first, second) {
		t.Fatalf("first %v\nthen %v", first, second)
	}
	for name := range outs[0] {
		if outs[0][name] != outs[1][name] {
			t.Errorf("%s differs", name)
		}
	}
	release := filepath.Join(dirs[0], "release")
	t.Run("checksums", func(t *testing.T) {
		cmd := exec.Command("sha256sum", "--check", "--strict", "--quiet", "sha256sums.txt")
		cmd.Dir = release
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("version", func(t *testing.T) {
		out, err := exec.Command(filepath.Join(release, "flanneld-"+runtime.GOARCH), "--version").Output()
		named := strings.Contains(string(out), "\ncommit ") || exec.Command("git", "status").Run() != nil
		if err != nil || !strings.HasPrefix(string(out), "v9.8.7\n") || !strings.Contains(string(out), runtime.Version()) || !named {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("manifest", func(t *testing.T) {
		text := read(t, filepath.Join(release, "kube-flannel.yml"))
		if n := strings.Count(text, "image: registry.example/flannel:v9.8.7\n"); n != 3 || strings.Contains(text, "latest") {
			t.Errorf("the image is named %d times, want 3", n)
		}
		text = read(t, filepath.Join(release, "kube-flannel-cleanup.yml"))
		if n := strings.Count(text, "image: registry.example/flannel:v9.8.7\n"); n != 2 {
			t.Errorf("the image to clean up with is named %d times, want 2", n)
		}
	})
	t.Run("archive", func(t *testing.T) { completeArchive(t, release) })
	t.Run("chart", func(t *testing.T) { goodChart(t, filepath.Join(release, "kube-flannel-9.8.7.tgz")) })
}

func completeArchive(t *testing.T, release string) {
	out, err := exec.Command("tar", "-tzf", filepath.Join(release, "flannel-v9.8.7-linux-"+runtime.GOARCH+".tar.gz")).Output()
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(out))
	for _, want := range []string{"flanneld", "flannel", "mk-docker-opts.sh", "README.md", "LICENSE", "flanneld.service", "docker-flannel.conf", "sbom.spdx.json", "provenance.json"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing in %v", want, names)
		}
	}
}

// goodChart renders the package with the real helm.
func goodChart(t *testing.T, path string) {
	program, err := assets.Path("helm")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "template", "flannel", path)
	dir := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+dir, "HELM_CONFIG_HOME="+dir, "HELM_DATA_HOME="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), `image: "registry.example/flannel:v9.8.7"`) {
		t.Errorf("%v: %s\n%s", err, stderr.String(), out)
	}
}

// TestTheImageWithIptables runs what `make assets` has fetched.
func TestTheImageWithIptables(t *testing.T) {
	dir := t.TempDir()
	runMake(t, "image", "IPTABLES=1", "ARCHS="+runtime.GOARCH, "OUT="+dir, "VERSION=v9.8.7")
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-xf", "image.tar"}, {"-xzf", "*.tar.gz", "-C", "root"}} {
		for i, arg := range args {
			if found, _ := filepath.Glob(filepath.Join(dir, arg)); len(found) == 1 {
				args[i] = found[0]
			}
		}
		cmd := exec.Command("tar", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if manifest := read(t, filepath.Join(dir, "manifest.json")); !strings.Contains(manifest, `"localhost/flanneld:v9.8.7-iptables"`) {
		t.Errorf("the image has another name: %s", manifest)
	}
	for name, mode := range map[string]string{"": "nf_tables", "-nft": "nf_tables", "-legacy": "legacy"} {
		for _, program := range []string{"iptables" + name, "ip6tables" + name + "-save", "iptables" + name + "-restore"} {
			out, err := exec.Command("chroot", root, "/usr/sbin/"+program, "--version").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "("+mode+")") {
				t.Errorf("%s: %v: %s, want %s", program, err, out, mode)
			}
		}
	}
	for _, paper := range []string{"sbom.spdx.json", "provenance.json"} {
		if text := read(t, filepath.Join(root, "usr/share/flannel", paper)); !strings.Contains(text, "pkg:deb/debian/iptables@") || !strings.Contains(text, "pkg:deb/debian/libc6@") {
			t.Errorf("%s does not name the packages", paper)
		}
	}
}

// TestEveryArchitectureHasIptables looks at the list of packages.
func TestEveryArchitectureHasIptables(t *testing.T) {
	text := read(t, "../../dist/iptables/packages.sha256")
	for _, arch := range []string{"amd64", "arm64", "armhf", "ppc64el", "s390x", "riscv64"} {
		if n := strings.Count(text, "_"+arch+".deb\n"); n != 9 {
			t.Errorf("%s: %d packages, want 9", arch, n)
		}
	}
}

// TestProgramsForWordsOf32Bits builds for the architecture that differs most
// from those on which the tests run.
func TestProgramsForWordsOf32Bits(t *testing.T) {
	runMake(t, "programs", "ARCHS=arm", "OUT="+t.TempDir())
}

func TestInstall(t *testing.T) {
	dest := t.TempDir()
	runMake(t, "install", "DESTDIR="+dest, "PREFIX=/usr", "BIN="+t.TempDir())
	modes := map[string]fs.FileMode{
		"usr/bin/flanneld":                        0o755,
		"usr/lib/cni/flannel":                     0o755,
		"usr/libexec/flannel/mk-docker-opts.sh":   0o755,
		"usr/lib/systemd/system/flanneld.service": 0o644,
		"usr/share/flannel/flanneld-etcd.conf":    0o644,
		"usr/share/flannel/docker-flannel.conf":   0o644,
	}
	files := filesIn(t, dest)
	for name, text := range files {
		info, err := os.Stat(filepath.Join(dest, name))
		if err != nil || info.Mode() != modes[name] {
			t.Errorf("%s: %v %v, want mode %v", name, info.Mode(), err, modes[name])
		}
		if info.Mode() == 0o644 && strings.Contains(text, "/usr/local/") {
			t.Errorf("%s names another prefix", name)
		}
	}
	if got, want := slices.Sorted(maps.Keys(files)), slices.Sorted(maps.Keys(modes)); !slices.Equal(got, want) {
		t.Errorf("installed %v, want %v", got, want)
	}
}
