package version

import (
	"runtime/debug"
	"testing"
)

func TestChoose(t *testing.T) {
	vcs := func(modified string) *debug.BuildInfo {
		return &debug.BuildInfo{
			Main: debug.Module{Version: "(devel)"},
			Settings: []debug.BuildSetting{
				{Key: "vcs.revision", Value: "0123456789abcdef0123"},
				{Key: "vcs.modified", Value: modified},
			},
		}
	}
	tests := []struct {
		name   string
		linked string
		info   *debug.BuildInfo
		want   string
	}{
		{"the linker's word wins", "v1.2.3", vcs("false"), "v1.2.3"},
		{"a module version", "", &debug.BuildInfo{Main: debug.Module{Version: "v0.9.0"}}, "v0.9.0"},
		{"a clean revision", "", vcs("false"), "devel-0123456789ab"},
		{"a changed tree", "", vcs("true"), "devel-0123456789ab-modified"},
		{"nothing recorded", "", &debug.BuildInfo{}, "devel"},
		{"no build information", "", nil, "devel"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := choose(test.linked, test.info); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestDetails(t *testing.T) {
	info := &debug.BuildInfo{
		GoVersion: "go1.99",
		Settings: []debug.BuildSetting{
			{Key: "GOOS", Value: "linux"}, {Key: "GOARCH", Value: "s390x"},
			{Key: "vcs.revision", Value: "0123abcd"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"}, {Key: "vcs.modified", Value: "true"},
		},
		Deps: []*debug.Module{
			{Path: "example.org/a", Version: "v1.0.0"},
			{Path: "example.org/b", Version: "v1.0.0", Replace: &debug.Module{Path: "example.org/c", Version: "v2.0.0"}},
		},
	}
	const short = "commit 0123abcd of 2026-01-02T03:04:05Z, with changes\ngo1.99 linux/s390x\n"
	if got := details(info, false); got != short {
		t.Errorf("got %q, want %q", got, short)
	}
	if got, want := details(info, true), short+"example.org/a v1.0.0\nexample.org/c v2.0.0\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := details(nil, true); got != "" {
		t.Errorf("without build information: %q", got)
	}
}
