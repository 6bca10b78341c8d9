package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"flannel/dist/pack/archive"
)

// release writes what is offered for download: for each architecture the
// programs and an archive, the manifest, the chart, and the checksums of all.
func (j job) release() error {
	builds, err := j.loadAll()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(j.out); err != nil {
		return fmt.Errorf("remove the former release: %w", err)
	}
	if err := os.MkdirAll(j.out, 0o755); err != nil {
		return err
	}
	for _, b := range builds {
		if err := j.releaseBuild(b); err != nil {
			return fmt.Errorf("release for %s: %w", b.arch, err)
		}
	}
	if err := j.releaseManifests(); err != nil {
		return fmt.Errorf("release the manifest: %w", err)
	}
	if err := j.releaseChart(builds[0].committed()); err != nil {
		return fmt.Errorf("release the chart: %w", err)
	}
	return j.checksums()
}

// releaseBuild keeps to the names that flannel's releases have.
func (j job) releaseBuild(b build) error {
	for name, source := range map[string]string{"flanneld-" + b.arch: b.flanneld, "flannel-" + b.arch: b.plugin} {
		data, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		if err := j.put(name, data, 0o755); err != nil {
			return err
		}
	}
	files, err := b.papers(".")
	if err != nil {
		return err
	}
	files = append(files,
		archive.File{Path: "flanneld", Source: b.flanneld, Mode: 0o755},
		archive.File{Path: "flannel", Source: b.plugin, Mode: 0o755},
		archive.File{Path: "README.md", Source: filepath.Join(j.source, "README.md"), Mode: 0o644},
		archive.File{Path: "LICENSE", Source: filepath.Join(j.source, "LICENSE"), Mode: 0o644},
		archive.File{Path: "mk-docker-opts.sh", Source: filepath.Join(j.source, "dist/mk-docker-opts.sh"), Mode: 0o755},
	)
	for _, pattern := range []string{"dist/*.service", "dist/*.conf"} {
		units, err := filepath.Glob(filepath.Join(j.source, pattern))
		if err != nil {
			return err
		}
		for _, unit := range units {
			files = append(files, archive.File{Path: filepath.Base(unit), Source: unit, Mode: 0o644})
		}
	}
	return j.tarball(fmt.Sprintf("flannel-%s-linux-%s.tar.gz", j.version, b.arch), files, b.committed())
}

// sourceImage is what the manifest in the repository names, and what
// `make image-load` imports.
const sourceImage = "localhost/flanneld:devel"

// releaseManifests fills in the name of the released image.
func (j job) releaseManifests() error {
	return errors.Join(j.releaseManifest("kube-flannel.yml"), j.releaseManifest("kube-flannel-cleanup.yml"))
}

func (j job) releaseManifest(name string) error {
	text, err := os.ReadFile(filepath.Join(j.source, "Documentation", name))
	if err != nil {
		return err
	}
	filled := strings.ReplaceAll(string(text), "image: "+sourceImage+"\n", "image: "+j.ref+"\n")
	if filled == string(text) && j.ref != sourceImage {
		return fmt.Errorf("no image in %s", name)
	}
	return j.put(name, []byte(filled), 0o644)
}

func (j job) tarball(name string, files []archive.File, at time.Time) error {
	f, err := os.Create(filepath.Join(j.out, name))
	if err != nil {
		return err
	}
	if err := archive.TarGz(f, files, at); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

func (j job) put(name string, data []byte, mode os.FileMode) error {
	return os.WriteFile(filepath.Join(j.out, name), data, mode)
}

// checksums are in the format of sha256sum --check.
func (j job) checksums() error {
	entries, err := os.ReadDir(j.out)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, e := range entries {
		sum, err := digest(filepath.Join(j.out, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s  %s\n", sum, e.Name())
	}
	fmt.Print(b.String())
	return j.put("sha256sums.txt", []byte(b.String()), 0o644)
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), nil
}
