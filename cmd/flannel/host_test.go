package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"flannel/internal/testkit/assets"
	"flannel/internal/testkit/nstest"
)

// debian is where Debian puts its CNI plugins. They know versions up to 1.0.0.
const debian = "/usr/lib/cni"

// built is where the CNI plugins are that `make assets` builds. They know
// versions up to 1.1.0.
func built(t *testing.T) string {
	t.Helper()
	path, err := assets.Path("bridge")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(path)
}

// eachDelegates runs a test with the plugins of either origin and with the
// newest version that they know.
func eachDelegates(t *testing.T, test func(t *testing.T, delegates, cniVersion string)) {
	t.Run("Debian", func(t *testing.T) { t.Parallel(); test(t, debian, "1.0.0") })
	t.Run("built", func(t *testing.T) { t.Parallel(); test(t, built(t), "1.1.0") })
}

// host is a node as a container runtime sees it: a network namespace, a folder
// for all files, and libcni.
type host struct {
	*nstest.NS
	invoke.RawExec
	version.PluginDecoder

	t *testing.T
	// delegates is the folder of the other plugins.
	dir, delegates string
	conf           string
	cni            *libcni.CNIConfig
}

// newHost makes a host without subnet.env. The configuration is that of
// conflist with this CNI version, and more plugins after flannel.
func newHost(t *testing.T, cniVersion string, further ...string) *host {
	return newHostWith(t, debian, cniVersion, further...)
}

// newHostWith makes a host with other delegates than Debian's.
func newHostWith(t *testing.T, delegates, cniVersion string, further ...string) *host {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "flannel")); err != nil {
		t.Fatal(err)
	}
	h := &host{NS: nstest.New(t), t: t, dir: dir, delegates: delegates}
	h.cni = libcni.NewCNIConfigWithCacheDir([]string{dir, delegates}, filepath.Join(dir, "cache"), h)
	plugins := append([]string{fmt.Sprintf(`{"type": "flannel", "subnetFile": %q, "dataDir": %q, "resultsDir": %q, "ipam": {"dataDir": %q},
		"delegate": {"hairpinMode": true, "isDefaultGateway": true}}`,
		h.subnetFile(), h.scratchDir(), h.results(), filepath.Join(dir, "networks"))}, further...)
	h.conf = fmt.Sprintf(`{"name": "cbr0", "cniVersion": %q, "plugins": [%s]}`, cniVersion, strings.Join(plugins, ","))
	return h
}

func (h *host) subnetFile() string { return filepath.Join(h.dir, "subnet.env") }
func (h *host) scratchDir() string { return filepath.Join(h.dir, "scratch") }
func (h *host) results() string    { return filepath.Join(h.dir, "cache", "results") }

// ExecPlugin runs a plugin in the host's namespace.
func (h *host) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) (out []byte, err error) {
	// The race detector would wait a second at the end of each plugin.
	environ = append(environ, "GORACE=atexit_sleep_ms=0")
	h.Do(func() { out, err = h.RawExec.ExecPlugin(ctx, path, stdin, environ) })
	return out, err
}

// writeSubnet writes subnet.env.
func (h *host) writeSubnet(text string) {
	h.t.Helper()
	if err := os.WriteFile(h.subnetFile(), []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// script puts a plugin before those of the system.
func (h *host) script(name, text string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		h.t.Fatal(err)
	}
}

// upgrade gives the configuration another CNI version.
func (h *host) upgrade(cniVersion string) {
	h.conf = strings.Replace(h.conf, h.list().CNIVersion, cniVersion, 1)
}

const subnetV4 = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.17.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"

const subnetDual = subnetV4 + "FLANNEL_IPV6_NETWORK=fd00:10:244::/56\nFLANNEL_IPV6_SUBNET=fd00:10:244:3::1/64\n"

// list is the configuration as libcni reads it.
func (h *host) list() *libcni.NetworkConfigList {
	h.t.Helper()
	list, err := libcni.ConfListFromBytes([]byte(h.conf))
	if err != nil {
		h.t.Fatal(err)
	}
	return list
}

// pod is a container's namespace with its name.
type pod struct {
	*nstest.NS
	runtime *libcni.RuntimeConf
}

func newPod(t *testing.T, id string) *pod {
	ns := nstest.New(t)
	return &pod{ns, &libcni.RuntimeConf{
		ContainerID: id,
		NetNS:       fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(ns.Namespace)),
		IfName:      "eth0",
	}}
}

// add attaches a pod and returns its addresses.
func (h *host) add(p *pod) ([]netip.Addr, error) {
	result, err := h.cni.AddNetworkList(h.t.Context(), h.list(), p.runtime)
	if err != nil {
		return nil, err
	}
	last, err := current.NewResultFromResult(result)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, ip := range last.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		addrs = append(addrs, a.Unmap())
	}
	return addrs, nil
}

func (h *host) mustAdd(p *pod) []netip.Addr {
	h.t.Helper()
	addrs, err := h.add(p)
	if err != nil {
		h.t.Fatal(err)
	}
	return addrs
}

func (h *host) mustDel(p *pod) {
	h.t.Helper()
	if err := h.cni.DelNetworkList(h.t.Context(), h.list(), p.runtime); err != nil {
		h.t.Fatal(err)
	}
}

// gc tells the plugins which pods are there.
func (h *host) gc(pods ...*pod) error {
	args := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}
	for _, p := range pods {
		args.ValidAttachments = append(args.ValidAttachments,
			types.GCAttachment{ContainerID: p.runtime.ContainerID, IfName: p.runtime.IfName})
	}
	return h.cni.GCNetworkList(h.t.Context(), h.list(), args)
}

// reserved lists the addresses that host-local has given out.
func (h *host) reserved() []string {
	return slices.DeleteFunc(names(h.t, filepath.Join(h.dir, "networks", "cbr0")), func(name string) bool {
		_, err := netip.ParseAddr(name)
		return err != nil
	})
}

// scratch lists the scratch files, and checks that nobody else may read them.
func (h *host) scratch() []string {
	h.t.Helper()
	list := names(h.t, h.scratchDir())
	for _, name := range list {
		info, err := os.Stat(filepath.Join(h.scratchDir(), name))
		if err != nil || info.Mode() != 0o600 {
			h.t.Errorf("scratch file %s: got mode %v, %v, want 0600", name, info.Mode(), err)
		}
	}
	return list
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// want compares lists of names.
func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// wantError checks the code and a part of an error, and that it is one line.
func wantError(t *testing.T, err error, code uint, part string) {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Error(), part) || strings.Contains(e.Error(), "\n") {
		t.Errorf("got %v, want code %d and %q in one line", err, code, part)
	}
}
