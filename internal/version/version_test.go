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
