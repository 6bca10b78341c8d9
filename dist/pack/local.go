package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"time"

	"flannel/dist/pack/archive"
	"flannel/dist/pack/image"
)

// localImage defines what an image for this machine is made from. The lab
// describes its images so.
type localImage struct {
	// Name is that of the image, Archive the file to write.
	Name, Archive string
	// Flanneld and Plugin are the programs of flannel's image.
	Flanneld, Plugin string
	// Tree is a folder with further files.
	Tree  string
	Files []archive.File
	// Entrypoint and Args are those of the container; the default is flannel's.
	Entrypoint, Args []string
}

// local writes the images that are described as a JSON list.
func local(descriptions io.Reader) error {
	var images []localImage
	if err := json.NewDecoder(descriptions).Decode(&images); err != nil {
		return fmt.Errorf("read the descriptions of images: %w", err)
	}
	for _, i := range images {
		if err := i.write(); err != nil {
			return err
		}
	}
	return nil
}

func (i localImage) write() error {
	spec := image.Spec{
		Platform: "linux/" + runtime.GOARCH, Created: time.Unix(0, 0), Local: true,
		Files: i.Files, Entrypoint: i.Entrypoint, Args: i.Args,
	}
	if i.Tree != "" {
		files, err := image.Tree(i.Tree)
		if err != nil {
			return fmt.Errorf("image %s: %w", i.Name, err)
		}
		spec.Files = append(spec.Files, files...)
	}
	if i.Flanneld != "" {
		spec.Files = append(spec.Files, image.Programs(i.Flanneld, i.Plugin)...)
		spec.Entrypoint = []string{image.Flanneld}
	}
	return image.WriteArchiveFile(i.Archive, i.Name, spec)
}
