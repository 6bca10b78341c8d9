package cniplugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
)

// attach lets the delegate attach a container. One that fails is told to
// detach. If all addresses are reserved, those whose container is certainly gone
// are freed, and the delegate tries again.
func (p Plugin) attach(ctx context.Context, c config, conf []byte, netns string) (types.Result, error) {
	add := func() (types.Result, error) {
		result, err := invoke.DelegateAdd(ctx, c.delegateType, conf, nil)
		if err != nil {
			// The specification asks for it; the runtime detaches once more.
			_ = invoke.DelegateDel(ctx, c.delegateType, conf, nil)
			err = delegateError(c.delegateType, err)
		}
		return result, err
	}
	result, err := add()
	r, found := c.reservations()
	if err == nil || !found || !isExhausted(err) {
		return result, err
	}
	records := attachments{dir: c.ResultsDir, network: c.Name, netnsDir: filepath.Dir(netns)}
	freed, kept, sweepErr := r.sweep(ctx, func(o owner) bool { return !records.isLeaked(o) }, p.warn)
	switch {
	case sweepErr != nil:
		return nil, explain(err, fmt.Sprintf("leaked addresses not freed: %v", oneLine(sweepErr)))
	case freed > 0:
		return add()
	}
	return nil, explain(err, fmt.Sprintf("%d addresses are reserved in %s, %d of them without a record in %s: "+
		"these are leaked unless their containers run", kept, r.dir, records.unknown, c.ResultsDir))
}

// isExhausted reports whether host-local has no address left.
func isExhausted(err error) bool { return strings.Contains(err.Error(), "no IP addresses available") }

// attachments are the records of a runtime about what it has attached to a
// network: libcni writes a file for each (package libcni of
// containernetworking/cni, type cachedInfo).
type attachments struct {
	dir, network string
	// netnsDir is the folder of the containers' network namespaces.
	netnsDir string
	// unknown counts the owners that isLeaked has found no record of.
	unknown int
}

// isLeaked reports whether the owner of a reservation is certainly gone: its record
// names a network namespace in the runtime's folder that does not exist. Without a
// record it may be in use.
func (a *attachments) isLeaked(o owner) bool {
	text, err := os.ReadFile(filepath.Join(a.dir, filepath.Base(a.network+"-"+o.container+"-"+o.dev)))
	netns := ""
	if err == nil {
		netns = recordedNetns(text, o.container)
	}
	if netns == "" {
		a.unknown++
		return false
	}
	if filepath.Dir(netns) != filepath.Clean(a.netnsDir) || !isFolder(a.netnsDir) {
		return false
	}
	_, err = os.Stat(netns)
	return errors.Is(err, fs.ErrNotExist)
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// recordedNetns returns the network namespace that a record names for a
// container, or nothing. Early versions of libcni name it in the result only.
func recordedNetns(text []byte, container string) string {
	var record struct {
		ContainerID string `json:"containerId"`
		IfName      string `json:"ifName"`
		Netns       string `json:"netns"`
		Result      struct {
			Interfaces []struct{ Name, Sandbox string }
		} `json:"result"`
	}
	if json.Unmarshal(text, &record) != nil || record.ContainerID != container {
		return ""
	}
	netns := record.Netns
	for _, dev := range record.Result.Interfaces {
		if netns == "" && dev.Name == record.IfName {
			netns = dev.Sandbox
		}
	}
	if !filepath.IsAbs(netns) {
		return ""
	}
	return filepath.Clean(netns)
}
