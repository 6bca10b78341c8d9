package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"flannel/dist/pack/archive"
)

// chartName is also the folder inside the package: helm wants it so.
const chartName = "kube-flannel"

// The values that a release fills in.
var (
	chartVersion    = regexp.MustCompile(`(?m)^version: .*$`)
	imageRepository = regexp.MustCompile(`(?m)^    repository: .*$`)
	imageTag        = regexp.MustCompile(`(?m)^    tag: .*$`)
)

// releaseChart packs the chart as `helm package` does.
func (j job) releaseChart(at time.Time) error {
	root := filepath.Join(j.source, "dist/chart", chartName)
	var files []archive.File
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		filled, err := j.fillChart(inside, string(text))
		files = append(files, archive.File{Path: filepath.Join(chartName, inside), Text: filled, Mode: 0o644})
		return err
	})
	if err != nil {
		return err
	}
	return j.tarball(fmt.Sprintf("%s-%s.tgz", chartName, semver(j.version)), files, at)
}

// fillChart puts the version and the image into the files that name them.
func (j job) fillChart(name, text string) (string, error) {
	colon := strings.LastIndex(j.ref, ":")
	if colon < strings.LastIndex(j.ref, "/") || colon < 0 {
		return "", fmt.Errorf("image %s has no tag", j.ref)
	}
	fill := map[*regexp.Regexp]string{}
	switch name {
	case "Chart.yaml":
		fill[chartVersion] = "version: " + semver(j.version)
	case "values.yaml":
		fill[imageRepository] = "    repository: " + j.ref[:colon]
		fill[imageTag] = fmt.Sprintf("    tag: %q", j.ref[colon+1:])
	}
	for pattern, line := range fill {
		if n := len(pattern.FindAllString(text, -1)); n != 1 {
			return "", fmt.Errorf("%s: %d lines match %s, want 1", name, n, pattern)
		}
		text = pattern.ReplaceAllLiteralString(text, line)
	}
	return text, nil
}

var semverPattern = regexp.MustCompile(`^v?(\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?)$`)

// semver makes a version one that helm takes: those of builds between releases
// are only the name of a commit.
func semver(version string) string {
	if m := semverPattern.FindStringSubmatch(version); m != nil {
		return m[1]
	}
	return "0.0.0-g" + regexp.MustCompile(`[^0-9A-Za-z]+`).ReplaceAllString(version, "-")
}
