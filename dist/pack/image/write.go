package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// WriteArchive writes the image of one platform as `docker save` does, under a
// name such as flannel:v1.2.3. containerd imports it with
// `ctr -n k8s.io images import`, Docker with `docker load`.
func WriteArchive(w io.Writer, ref string, s Spec) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("name of an image: %w", err)
	}
	image, err := Build(s)
	if err != nil {
		return err
	}
	if err := tarball.Write(tag, image, w); err != nil {
		return fmt.Errorf("write image %s: %w", ref, err)
	}
	return nil
}

// WriteArchiveFile is WriteArchive into a file.
func WriteArchiveFile(path, ref string, s Spec) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write image %s: %w", ref, err)
	}
	return errors.Join(WriteArchive(f, ref, s), f.Close())
}

// WriteLayout writes images of several platforms as one index into a folder,
// in the OCI layout, under a name. The folder must be empty or not there.
// It returns the digest of the index, which is what a registry calls it.
func WriteLayout(dir, ref string, specs []Spec) (string, error) {
	index, err := newIndex(specs)
	if err != nil {
		return "", err
	}
	digest, err := writeLayout(dir, ref, index)
	if err != nil {
		return "", fmt.Errorf("write image %s: %w", ref, err)
	}
	return digest, nil
}

func newIndex(specs []Spec) (v1.ImageIndex, error) {
	var index v1.ImageIndex = empty.Index
	for _, s := range specs {
		image, err := Build(s)
		if err != nil {
			return nil, err
		}
		platform, err := v1.ParsePlatform(s.Platform)
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	return index, nil
}

func writeLayout(dir, ref string, index v1.ImageIndex) (string, error) {
	tag, err := name.NewTag(ref)
	if err != nil {
		return "", err
	}
	folder, err := layout.Write(dir, empty.Index)
	if err != nil {
		return "", err
	}
	err = folder.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": tag.TagStr(),
		"io.containerd.image.name":          fullName(tag),
	}))
	if err != nil {
		return "", err
	}
	digest, err := index.Digest()
	if err != nil {
		return "", err
	}
	return digest.String(), nil
}

// fullName is how containerd calls an image: it knows another name of the
// default registry.
func fullName(tag name.Tag) string {
	if rest, found := strings.CutPrefix(tag.Name(), name.DefaultRegistry+"/"); found {
		return "docker.io/" + rest
	}
	return tag.Name()
}
