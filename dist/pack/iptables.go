package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"flannel/dist/pack/archive"
	"flannel/dist/pack/image"
	"flannel/dist/pack/sbom"
)

// pinned finds a package in dist/iptables/packages.sha256: its digest, name,
// version and architecture, as Debian calls it.
var pinned = regexp.MustCompile(`(?m)^([0-9a-f]{64})  pool/.*/([^/_]+)_([^/_]+)_([a-z0-9]+)\.deb$`)

// debianArch is how Debian calls an architecture of Go.
func debianArch(arch string) string {
	if name, found := map[string]string{"arm": "armhf", "ppc64le": "ppc64el"}[arch]; found {
		return name
	}
	return arch
}

// iptablesFor returns what dist/iptables/fetch has unpacked for an
// architecture, and the packages that it comes from.
func (j job) iptablesFor(arch string) ([]archive.File, []sbom.Package, error) {
	files, err := image.Tree(filepath.Join(j.iptables, arch))
	if err != nil {
		return nil, nil, err
	}
	pins, err := os.ReadFile(filepath.Join(j.source, "dist/iptables/packages.sha256"))
	if err != nil {
		return nil, nil, err
	}
	var packages []sbom.Package
	for _, m := range pinned.FindAllStringSubmatch(string(pins), -1) {
		if m[4] != debianArch(arch) {
			continue
		}
		packages = append(packages, sbom.Package{
			Name: m[2], Version: m[3], SHA256: m[1],
			PURL: "pkg:deb/debian/" + m[2] + "@" + strings.ReplaceAll(m[3], "+", "%2B") + "?arch=" + m[4] + "&distro=debian-13",
		})
	}
	return files, packages, nil
}
