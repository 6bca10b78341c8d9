package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"flannel/dist/pack/image"
	"flannel/dist/pack/sbom"
)

// papersDir is where the image lists what it is made of.
const papersDir = "/usr/share/flannel"

// image writes one index of all platforms in the OCI layout, and an archive of
// one platform for `ctr images import` and `docker load`.
func (j job) image() error {
	builds, err := j.loadAll()
	if err != nil {
		return err
	}
	specs := make([]image.Spec, 0, len(builds))
	for _, b := range builds {
		spec, err := j.spec(b)
		if err != nil {
			return err
		}
		specs = append(specs, spec)
	}
	layout := filepath.Join(j.out, "image")
	if err := os.RemoveAll(layout); err != nil {
		return fmt.Errorf("remove the former image: %w", err)
	}
	digest, err := image.WriteLayout(layout, j.ref, specs)
	if err != nil {
		return err
	}
	if err := blobsAtMost(layout, imageLimit); err != nil {
		return err
	}
	fmt.Printf("%s %s %s\n", layout, j.ref, digest)
	native := max(0, slices.Index(j.archs, j.native))
	archive := filepath.Join(j.out, "image.tar")
	fmt.Printf("%s %s %s\n", archive, j.ref, specs[native].Platform)
	return image.WriteArchiveFile(archive, j.ref, specs[native])
}

func (j job) spec(b build) (image.Spec, error) {
	files := image.Programs(b.flanneld, b.plugin)
	var packages []sbom.Package
	if j.iptables != "" {
		programs, made, err := j.iptablesFor(b.arch)
		if err != nil {
			return image.Spec{}, fmt.Errorf("iptables for %s: %w", b.arch, err)
		}
		files, packages = append(files, programs...), made
	}
	papers, err := b.papers(papersDir, packages...)
	if err != nil {
		return image.Spec{}, err
	}
	return image.Spec{
		Platform:   platform(b.arch),
		Files:      append(files, papers...),
		Entrypoint: []string{image.Flanneld},
		Labels: map[string]string{
			"org.opencontainers.image.title":    "flannel",
			"org.opencontainers.image.licenses": "Apache-2.0",
			"org.opencontainers.image.version":  j.version,
			"org.opencontainers.image.revision": b.made[0].Setting("vcs.revision"),
		},
		Created: b.committed(),
	}, nil
}

// blobsAtMost checks the parts of an image: each platform has one large one.
func blobsAtMost(layout string, limit int64) error {
	return filepath.WalkDir(layout, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return atMost(path, limit)
	})
}

func atMost(path string, limit int64) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > limit {
		return fmt.Errorf("%s has %d bytes, more than %d", path, info.Size(), limit)
	}
	return nil
}
