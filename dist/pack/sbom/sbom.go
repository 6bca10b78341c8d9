// Package sbom describes what programs are made of and where they come from, in the
// formats that others read: SPDX and in-toto. It knows what the Go toolchain
// wrote into the programs.
package sbom

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// Program is a Go program with what is known of its making.
type Program struct {
	// Name is that of the file, Version the one that it was released as.
	Name, Version string
	// SHA256 is the digest of the file in hexadecimal.
	SHA256 string
	info   *buildinfo.BuildInfo
}

// Package is something beside the programs that others have built, such as a
// package of Debian.
type Package struct {
	Name, Version string
	// SHA256 is the digest of the package in hexadecimal, PURL its name across
	// package managers.
	SHA256, PURL string
}

// Read looks at a program.
func Read(path, version string) (Program, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Program{}, fmt.Errorf("read program: %w", err)
	}
	info, err := buildinfo.Read(bytes.NewReader(data))
	if err != nil {
		return Program{}, fmt.Errorf("read what %s was built from: %w", path, err)
	}
	sum := sha256.Sum256(data)
	return Program{Name: filepath.Base(path), Version: version, SHA256: hex.EncodeToString(sum[:]), info: info}, nil
}

// Setting returns one setting of the build, such as GOARCH or vcs.revision;
// empty when it was not recorded.
func (p Program) Setting(key string) string {
	for _, s := range p.info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// Committed is the time of the commit that the program was built from. Without
// one it is 1970, so that the same sources give the same.
func (p Program) Committed() time.Time {
	at, err := time.Parse(time.RFC3339, p.Setting("vcs.time"))
	if err != nil {
		return time.Unix(0, 0).UTC()
	}
	return at.UTC()
}

// modules lists what is linked into the programs, each once.
func modules(programs []Program) []*debug.Module {
	var all []*debug.Module
	for _, p := range programs {
		for _, m := range p.info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b *debug.Module) int {
		return slices.Compare([]string{a.Path, a.Version}, []string{b.Path, b.Version})
	})
	return slices.CompactFunc(all, func(a, b *debug.Module) bool { return a.Path == b.Path && a.Version == b.Version })
}

// purl is how a module is called across languages; a plus sign means a blank
// there.
func purl(m *debug.Module) string {
	return "pkg:golang/" + m.Path + "@" + strings.ReplaceAll(m.Version, "+", "%2B")
}

// encode writes JSON that people can read too.
func encode(v any) (string, error) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return "", err
	}
	return string(text) + "\n", nil
}
