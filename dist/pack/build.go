package main

import (
	"fmt"
	"path/filepath"
	"time"

	"flannel/dist/pack/archive"
	"flannel/dist/pack/sbom"
)

// The most that the files may take, in bytes.
const (
	flanneldLimit = 25_000_000
	pluginLimit   = 5_000_000
	imageLimit    = 20_000_000
)

// platforms are the names that the architectures of Go have elsewhere.
func platform(arch string) string {
	if arch == "arm" {
		return "linux/arm/v7"
	}
	return "linux/" + arch
}

// build is what was built for one architecture.
type build struct {
	arch             string
	flanneld, plugin string
	made             []sbom.Program
}

func (j job) load(arch string) (build, error) {
	dir := filepath.Join(j.programs, arch)
	b := build{arch: arch, flanneld: filepath.Join(dir, "flanneld"), plugin: filepath.Join(dir, "flannel")}
	for path, limit := range map[string]int64{b.flanneld: flanneldLimit, b.plugin: pluginLimit} {
		if err := atMost(path, limit); err != nil {
			return b, err
		}
	}
	for _, path := range []string{b.flanneld, b.plugin} {
		p, err := sbom.Read(path, j.version)
		if err != nil {
			return b, err
		}
		if got := p.Setting("GOARCH"); got != arch {
			return b, fmt.Errorf("%s is for %s", path, got)
		}
		b.made = append(b.made, p)
	}
	return b, nil
}

func (j job) loadAll() ([]build, error) {
	builds := make([]build, 0, len(j.archs))
	for _, arch := range j.archs {
		b, err := j.load(arch)
		if err != nil {
			return nil, err
		}
		builds = append(builds, b)
	}
	return builds, nil
}

// committed is the time that everything made from the build carries.
func (b build) committed() time.Time { return b.made[0].Committed() }

// papers list what the programs are made of and where they come from.
func (b build) papers(dir string, packages ...sbom.Package) ([]archive.File, error) {
	spdx, err := sbom.SPDX("flannel", b.made, packages...)
	if err != nil {
		return nil, err
	}
	provenance, err := sbom.Provenance(b.made, packages...)
	if err != nil {
		return nil, err
	}
	return []archive.File{
		{Path: filepath.Join(dir, "sbom.spdx.json"), Text: spdx, Mode: 0o644},
		{Path: filepath.Join(dir, "provenance.json"), Text: provenance, Mode: 0o644},
	}, nil
}
