// Package docker tests the classic set-up: flanneld with etcd, and a real dockerd
// on every host that gets its bridge from dist/mk-docker-opts.sh.
package docker

import (
	"context"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"flannel/internal/image"
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
	dir, err := lab.BuildStatic("flannel/lab/tenant")
	if err != nil {
		return p, err
	}
	p.image = filepath.Join(dir, "image.tar")
	return p, image.WriteArchiveFile(p.image, tenantImage, image.Spec{
		Platform:   "linux/" + runtime.GOARCH,
		Files:      []image.File{{Path: "/tenant", Source: filepath.Join(dir, "tenant"), Mode: 0o755}},
		Entrypoint: []string{"/tenant", "pause"},
		Local:      true,
	})
})

// tenantImage holds nothing but a program that waits.
const tenantImage = "tenant:test"

func limited(t *testing.T) context.Context { return lab.Limited(t, time.Minute) }
