// Package version knows which version of the program this is.
package version

import (
	"fmt"
	"runtime/debug"
	"strings"
)

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

// Details describes on several lines which version this is, from which commit it was
// built and with which Go, and on demand from which modules.
func Details(modules bool) string {
	info, _ := debug.ReadBuildInfo()
	return String() + "\n" + details(info, modules)
}

func details(info *debug.BuildInfo, modules bool) string {
	if info == nil {
		return ""
	}
	var b strings.Builder
	settings := settingsOf(info)
	if commit := settings["vcs.revision"]; commit != "" {
		fmt.Fprintf(&b, "commit %s of %s", commit, settings["vcs.time"])
		if settings["vcs.modified"] == "true" {
			b.WriteString(", with changes")
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%s %s/%s\n", info.GoVersion, settings["GOOS"], settings["GOARCH"])
	for _, m := range info.Deps {
		if !modules {
			break
		}
		if m.Replace != nil {
			m = m.Replace
		}
		fmt.Fprintf(&b, "%s %s\n", m.Path, m.Version)
	}
	return b.String()
}

func settingsOf(info *debug.BuildInfo) map[string]string {
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	return settings
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
	settings := settingsOf(info)
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
