package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// spec is an image of two small programs.
func spec(t *testing.T, platform string) Spec {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"flanneld", "flannel"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name+" for "+platform), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return Spec{
		Platform:   platform,
		Files:      append(Programs(filepath.Join(dir, "flanneld"), filepath.Join(dir, "flannel")), File{Path: "/etc/note", Text: "a note", Mode: 0o644}),
		Entrypoint: []string{Flanneld},
		Labels:     map[string]string{"org.opencontainers.image.version": "v1"},
		Created:    time.Unix(1_700_000_000, 0),
	}
}

// contents lists what is in an image.
func contents(t *testing.T, image v1.Image) map[string]string {
	t.Helper()
	files := map[string]string{}
	layers := mutate.Extract(image)
	defer layers.Close()
	for entries := tar.NewReader(layers); ; {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(entries)
		if err != nil {
			t.Fatal(err)
		}
		files["/"+header.Name] = header.FileInfo().Mode().String() + " " + string(text) + header.Linkname
	}
}

func TestAnArchiveHoldsTheProgramsOfOnePlatform(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := WriteArchiveFile(path, "flannel:v1", spec(t, "linux/arm/v7")); err != nil {
		t.Fatal(err)
	}
	tag := name.MustParseReference("flannel:v1").(name.Tag)
	image, err := tarball.ImageFromPath(path, &tag)
	if err != nil {
		t.Fatal(err)
	}
	files := contents(t, image)
	for path, want := range map[string]string{
		Flanneld:     "-rwxr-xr-x flanneld for linux/arm/v7",
		Plugin:       "-rwxr-xr-x flannel for linux/arm/v7",
		InstallConf:  "Lrwxrwxrwx flanneld",
		"/flannel":   "Lrwxrwxrwx opt/bin/flannel",
		"/bin/cp":    "Lrwxrwxrwx ../opt/bin/flanneld",
		MkDockerOpts: "Lrwxrwxrwx flanneld",
		"/etc/note":  "-rw-r--r-- a note",
		"/opt/bin":   "drwxr-xr-x ",
	} {
		if got := files[path]; got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Architecture != "arm" || config.Variant != "v7" || config.Config.Entrypoint[0] != Flanneld {
		t.Errorf("configuration %+v", config)
	}
}

func TestALayoutIsOneIndexOfAllPlatforms(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "image")
	digest, err := WriteLayout(dir, "registry.example/flannel:v1", []Spec{spec(t, "linux/amd64"), spec(t, "linux/riscv64")})
	if err != nil {
		t.Fatal(err)
	}
	root, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(root); err != nil {
		t.Error(err)
	}
	hash, err := v1.NewHash(digest)
	if err != nil {
		t.Fatal(err)
	}
	index, err := root.ImageIndex(hash)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, m := range manifest.Manifests {
		platforms = append(platforms, m.Platform.String())
	}
	if got, want := strings.Join(platforms, " "), "linux/amd64 linux/riscv64"; got != want {
		t.Errorf("platforms %s, want %s", got, want)
	}
}

func TestTheSameFilesGiveTheSameBytes(t *testing.T) {
	var first, second bytes.Buffer
	for _, out := range []*bytes.Buffer{&first, &second} {
		if err := WriteArchive(out, "flannel:v1", spec(t, "linux/amd64")); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two archives of the same files differ")
	}
}

func TestErrorsNameWhatIsWrong(t *testing.T) {
	good := spec(t, "linux/amd64")
	missing, strange := good, good
	missing.Files = Programs("/no/such/file", "/no/such/file")
	strange.Platform = "a/b/c/d/e"
	for want, test := range map[string]struct {
		ref  string
		spec Spec
	}{
		"name of an image":        {"UPPER CASE", good},
		"open /no/such/file":      {"flannel:v1", missing},
		"image for a/b/c/d/e: ":   {"flannel:v1", strange},
		"file /opt/bin/flannel: ": {"flannel:v1", missing},
	} {
		if err := WriteArchive(io.Discard, test.ref, test.spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestNamesAreThoseOfContainerd(t *testing.T) {
	for ref, want := range map[string]string{
		"flannel:v1":                            "docker.io/library/flannel:v1",
		"someone/flannel":                       "docker.io/someone/flannel:latest",
		"registry.example:5000/net/flannel:1.2": "registry.example:5000/net/flannel:1.2",
	} {
		tag, err := name.NewTag(ref)
		if err != nil {
			t.Fatal(err)
		}
		if got := fullName(tag); got != want {
			t.Errorf("%s: got %s, want %s", ref, got, want)
		}
	}
}
