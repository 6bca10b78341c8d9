package sbom

import (
	"encoding/json"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// self is the program that runs this test.
func self(t *testing.T) Program {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Read(path, "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSPDXListsProgramsModulesAndGo(t *testing.T) {
	p := self(t)
	p.info.Deps = append(p.info.Deps, &debug.Module{Path: "example.org/old", Version: "v2.0.0+incompatible"})
	p.info.Deps = append(p.info.Deps, p.info.Deps...)
	text, err := SPDX("flannel", []Program{p})
	if err != nil {
		t.Fatal(err)
	}
	var d spdx.Document
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	ids := map[common.ElementID]int{d.SPDXIdentifier: 1}
	for _, pkg := range d.Packages {
		ids[pkg.PackageSPDXIdentifier]++
		if ids[pkg.PackageSPDXIdentifier] > 1 {
			t.Errorf("%s is listed twice", pkg.PackageSPDXIdentifier)
		}
	}
	for _, r := range d.Relationships {
		if ids[r.RefA.ElementRefID] == 0 || ids[r.RefB.ElementRefID] == 0 {
			t.Errorf("%v relates what is not listed", r)
		}
	}
	for _, want := range []string{p.SHA256, "pkg:golang/stdlib@" + strings.TrimPrefix(runtime.Version(), "go"), `"v1.2.3"`, "pkg:golang/example.org/old@v2.0.0%2Bincompatible"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

func TestProvenanceNamesWhatWentIn(t *testing.T) {
	p := self(t)
	p.info.Settings = append(p.info.Settings, debug.BuildSetting{Key: "vcs.revision", Value: "0123abcd"}, debug.BuildSetting{Key: "vcs.time", Value: "2026-01-02T03:04:05Z"})
	text, err := Provenance([]Program{p, p})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{p.SHA256, runtime.Version(), `"gitCommit": "0123abcd"`, `"GOARCH": "` + runtime.GOARCH + `"`, "v1.2.3"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if n := strings.Count(text, "gitCommit"); n != 1 {
		t.Errorf("the commit is named %d times", n)
	}
	if got, want := p.Committed(), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC); !got.Equal(want) {
		t.Errorf("committed %v, want %v", got, want)
	}
}

func TestWhatIsNoGoProgramIsAnError(t *testing.T) {
	for path, want := range map[string]string{"/no/such/file": "read program", "sbom.go": "what sbom.go was built from"} {
		if _, err := Read(path, "v1"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}
