// Package docker tests the classic set-up: flanneld with etcd, and a real dockerd
// on every host that gets its bridge from dist/mk-docker-opts.sh.
package docker

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"flannel/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// programs are what is made for the tests.
type programs struct {
	lab.Binaries
	// image is the archive of what the containers run.
	image string
}

var built = sync.OnceValues(func() (p programs, err error) {
	if p.Binaries, err = lab.BuildBinaries("-race"); err != nil {
		return p, err
	}
	dir, err := lab.BuildStatic("flannel/lab/testpod")
	if err != nil {
		return p, err
	}
	pack, err := lab.BuildPack(dir)
	if err != nil {
		return p, err
	}
	archives, err := lab.PackImages(pack, dir, lab.Image{
		Name:       testpodImage,
		Files:      []lab.ImageFile{{Path: "/testpod", Source: filepath.Join(dir, "testpod"), Mode: 0o755}},
		Entrypoint: []string{"/testpod", "pause"},
	})
	if err != nil {
		return p, err
	}
	p.image = archives[0]
	return p, nil
})

// testpodImage holds nothing but a program that waits.
const testpodImage = "testpod:test"

func limited(t *testing.T) context.Context { return lab.Limited(t, time.Minute) }
