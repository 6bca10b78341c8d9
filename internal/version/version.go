// Package version says which version of the program this is.
package version

import "runtime/debug"

// linked is set by the linker:
//
//	go build -ldflags '-X flannel/internal/version.linked=v1.2.3'
var linked string

// String returns the version given at link time, else the one that the Go
// tool recorded, else "devel".
func String() string {
	info, _ := debug.ReadBuildInfo()
	return choose(linked, info)
}

func choose(linked string, info *debug.BuildInfo) string {
	if linked != "" {
		return linked
	}
	if info == nil {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	revision := settings["vcs.revision"]
	if revision == "" {
		return "devel"
	}
	revision = revision[:min(len(revision), 12)]
	if settings["vcs.modified"] == "true" {
		revision += "-modified"
	}
	return "devel-" + revision
}
