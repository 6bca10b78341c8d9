// Package image makes container images from files, without a container runtime.
// The same files give the same bytes.
package image

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"flannel/dist/pack/archive"
)

// searchPath is where programs are looked for inside the container, so that
// another image can be built on top of ours.
const searchPath = "PATH=/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Spec defines what the image of one platform is made from.
type Spec struct {
	// Platform is an operating system, an architecture and perhaps a variant:
	// linux/amd64, linux/arm/v7.
	Platform string
	// Files are all that is inside; the folders above them are made.
	Files      []File
	Entrypoint []string
	// Args are those of the entrypoint unless others are given.
	Args []string
	// Labels are those of the image, by name.
	Labels map[string]string
	// Created is the time of the image and of everything inside.
	Created time.Time
	// Local images stay on this machine: they are made quickly, not small.
	Local bool
}

// File is a file inside an image; a path is absolute there.
type File = archive.File

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
	created := s.Created.UTC().Truncate(time.Second)
	layer, err := newLayer(s, created)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		OS:           platform.OS,
		Architecture: platform.Architecture,
		Variant:      platform.Variant,
		Created:      v1.Time{Time: created},
		Config:       v1.Config{Entrypoint: s.Entrypoint, Cmd: s.Args, Env: []string{searchPath}, Labels: s.Labels},
		RootFS:       v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	image, err = mutate.Append(image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "flannel"},
	})
	if err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	return image, nil
}

// newLayer packs the files. They lie in memory: an image is small.
func newLayer(s Spec, created time.Time) (v1.Layer, error) {
	var raw bytes.Buffer
	if err := archive.Tar(&raw, s.Files, created); err != nil {
		return nil, err
	}
	level := gzip.BestCompression
	if s.Local {
		level = gzip.NoCompression
	}
	layer, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw.Bytes())), nil },
		tarball.WithCompressionLevel(level),
		tarball.WithCompressedCaching,
		tarball.WithMediaType(types.OCILayer),
	)
	if err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	return layer, nil
}
