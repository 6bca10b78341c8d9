// Package image makes container images from files, without a container runtime.
//
// The same files give the same bytes: nothing of the machine or of the moment
// gets in.
package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// searchPath is where programs are looked for inside the container, so that
// another image can be built on top of ours.
const searchPath = "PATH=/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Spec says what the image of one platform is made from.
type Spec struct {
	// Platform is an operating system, an architecture and perhaps a variant:
	// linux/amd64, linux/arm/v7.
	Platform string
	// Files are all that is inside; the folders above them are made.
	Files      []File
	Entrypoint []string
	// Labels are those of the image, by name.
	Labels map[string]string
	// Created is the time of the image and of everything inside.
	Created time.Time
}

// File is a file inside an image.
type File struct {
	// Path is where it is inside the image, absolute.
	Path string
	// Exactly one of these says what it is: a file to copy, a text, or the
	// target of a symbolic link.
	Source, Text, Link string
	// Mode are the permissions of a copy or a text.
	Mode int64
}

// Build makes the image of one platform.
func Build(s Spec) (v1.Image, error) {
	platform, err := v1.ParsePlatform(s.Platform)
	if err != nil {
		return nil, fmt.Errorf("image for %s: %w", s.Platform, err)
	}
	image, err := build(s, platform)
	if err != nil {
		return nil, fmt.Errorf("image for %s: %w", s.Platform, err)
	}
	return image, nil
}

func build(s Spec, platform *v1.Platform) (v1.Image, error) {
	layer, err := newLayer(s.Files, s.Created)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		OS:           platform.OS,
		Architecture: platform.Architecture,
		Variant:      platform.Variant,
		Created:      v1.Time{Time: s.Created.UTC()},
		Config:       v1.Config{Entrypoint: s.Entrypoint, Env: []string{searchPath}, Labels: s.Labels},
		RootFS:       v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	image, err = mutate.Append(image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: s.Created.UTC()}, CreatedBy: "flannel"},
	})
	if err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	return image, nil
}

// newLayer packs the files. They lie in memory: an image is small.
func newLayer(files []File, created time.Time) (v1.Layer, error) {
	var raw bytes.Buffer
	if err := writeTar(&raw, files, created); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw.Bytes())), nil },
		tarball.WithCompressionLevel(gzip.BestCompression),
		tarball.WithCompressedCaching,
		tarball.WithMediaType(types.OCILayer),
	)
	if err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	return layer, nil
}

// writeTar writes the files and the folders above them, sorted, as root's.
func writeTar(w io.Writer, files []File, created time.Time) error {
	archive := tar.NewWriter(w)
	for _, dir := range foldersOf(files) {
		header := tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: created.Truncate(time.Second)}
		if err := archive.WriteHeader(&header); err != nil {
			return fmt.Errorf("folder %s: %w", dir, err)
		}
	}
	sorted := append([]File(nil), files...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Path < sorted[j].Path })
	for _, f := range sorted {
		if err := f.writeTo(archive, created); err != nil {
			return fmt.Errorf("file %s: %w", f.Path, err)
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	return nil
}

func (f File) writeTo(archive *tar.Writer, created time.Time) error {
	header := tar.Header{Name: inside(f.Path), Mode: f.Mode, ModTime: created.Truncate(time.Second)}
	content := []byte(f.Text)
	switch {
	case f.Link != "":
		header.Typeflag, header.Linkname, header.Mode, content = tar.TypeSymlink, f.Link, 0o777, nil
	case f.Source != "":
		read, err := os.ReadFile(f.Source)
		if err != nil {
			return err
		}
		content = read
	}
	header.Size = int64(len(content))
	if err := archive.WriteHeader(&header); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}

// foldersOf returns the folders above the files, upper ones first.
func foldersOf(files []File) []string {
	seen := map[string]bool{}
	for _, f := range files {
		for dir := path.Dir(inside(f.Path)); dir != "."; dir = path.Dir(dir) {
			seen[dir] = true
		}
	}
	folders := make([]string, 0, len(seen))
	for dir := range seen {
		folders = append(folders, dir)
	}
	sort.Strings(folders)
	return folders
}

// inside is a path as archives of layers have it.
func inside(p string) string { return strings.TrimPrefix(path.Clean(p), "/") }
