package cleanup

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"flannel/internal/install"
	"flannel/internal/ipfam"
	"flannel/kernel"
)

// documentName is what internal/statedir calls its documents.
var documentName = regexp.MustCompile(`^[a-z-]+-[0-9a-f]{12}\.json$`)

// files finds the files of daemons: subnet.env comes last.
func files(o Options) []Thing {
	out := one(filepath.Join(o.ConfDir, install.ConfName))
	for _, dir := range o.StateDirs {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.Type().IsRegular() && documentName.MatchString(e.Name()) {
				out = append(out, file(filepath.Join(dir, e.Name())))
			}
		}
	}
	sockets, _ := filepath.Glob(filepath.Join(o.RunDir, "*.sock"))
	for _, path := range append(sockets, kernel.FreeLocks(o.LockDir)...) {
		out = append(out, file(path))
	}
	return append(out, one(o.SubnetFile)...)
}

// one is a file, if it is there.
func one(path string) []Thing {
	if _, err := os.Lstat(path); err != nil {
		return nil
	}
	return []Thing{file(path)}
}

// file removes a file.
func file(path string) Thing {
	return Thing{path, func() error {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}}
}

// pluginFolder is where our CNI plugin keeps the configurations of its delegate, by
// default; host-local keeps addresses by the network's name in addressFolder, and
// libcni what it has attached in resultFolder.
const (
	pluginFolder  = "flannel"
	addressFolder = "networks"
	resultFolder  = "results"
)

// cni finds the pods' bridge with the pods' interfaces, and what plugins keep for our
// network.
func (h *host) cni() ([]Thing, error) {
	o := h.options
	var out []Thing
	if bridge, _ := h.now.Links.ByName("cni0"); bridge.Kind == "bridge" && h.isPodBridge() {
		for _, l := range h.now.Links {
			if l.Master == bridge.Index && l.Kind == "veth" {
				out = append(out, Thing{"device " + l.Name + " of a pod", func() error { return h.deleteLink(l.Index) }})
			}
		}
		out = append(out, Thing{"device cni0", func() error { return h.deleteLink(bridge.Index) }})
	}
	network := networkName(filepath.Join(o.ConfDir, install.ConfName))
	for _, folder := range []string{filepath.Join(addressFolder, network), pluginFolder} {
		path := filepath.Join(o.DataDir, folder)
		if _, err := os.Lstat(path); err == nil {
			out = append(out, Thing{path, func() error { return os.RemoveAll(path) }})
		}
	}
	results, err := filepath.Glob(filepath.Join(o.DataDir, resultFolder, network+"-*"))
	for _, path := range results {
		out = append(out, file(path))
	}
	return append(out, one(filepath.Join(o.BinDir, "flannel"))...), err
}

// isPodBridge reports whether the bridge is that of our pods: it has an address
// inside our networks, as far as these are known.
func (h *host) isPodBridge() bool {
	on := func(a kernel.HostAddr) bool { return a.Dev == "cni0" && !a.Addr.Addr().IsLinkLocalUnicast() }
	if len(h.networks) == 0 || !slices.ContainsFunc(h.now.Addrs, on) {
		return true
	}
	return slices.ContainsFunc(h.now.Addrs, func(a kernel.HostAddr) bool { return on(a) && ipfam.WithinAny(h.networks, a.Addr) })
}

// networkName returns the name in an installed configuration; without one it is that
// of the manifests.
func networkName(path string) string {
	var conf struct{ Name string }
	text, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(text, &conf) != nil || slices.Contains([]string{"", ".", ".."}, conf.Name) || filepath.Base(conf.Name) != conf.Name {
		return "cbr0"
	}
	return conf.Name
}
