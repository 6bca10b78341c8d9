package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// subnetOfFive has five addresses for pods, 10.244.17.2 to 10.244.17.6.
const subnetOfFive = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.17.1/29\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"

// placed gives a pod's network namespace a path in a folder, as runtimes have
// them.
func (h *host) placed(p *pod, folder string) *pod {
	h.t.Helper()
	path := filepath.Join(h.dir, folder, p.runtime.ContainerID)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Symlink(p.runtime.NetNS, path); err != nil {
		h.t.Fatal(err)
	}
	p.runtime.NetNS = path
	return p
}

func (h *host) record(p *pod) string {
	return filepath.Join(h.results(), "cbr0-"+p.runtime.ContainerID+"-eth0")
}

// withoutNetns makes a record look like one of libcni before 1.2.
func (h *host) withoutNetns(p *pod) {
	h.t.Helper()
	text, err := os.ReadFile(h.record(p))
	if err != nil {
		h.t.Fatal(err)
	}
	record := map[string]json.RawMessage{}
	if err := json.Unmarshal(text, &record); err != nil {
		h.t.Fatal(err)
	}
	delete(record, "netns")
	if text, err = json.Marshal(record); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.record(p), text, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func TestLeakedAddressesAreFreedWhenNoneIsLeft(t *testing.T) { eachDelegates(t, leakedAreFreed) }

func leakedAreFreed(t *testing.T, delegates, cniVersion string) {
	h := newHostWith(t, delegates, cniVersion)
	h.writeSubnet(subnetOfFive)
	var pods []*pod
	for i := range 5 {
		folder := "netns"
		if i == 2 {
			folder = "elsewhere"
		}
		p := h.placed(newPod(t, fmt.Sprint("pod", i)), folder)
		h.mustAdd(p)
		pods = append(pods, p)
	}
	late := h.placed(newPod(t, "late"), "netns")
	_, err := h.add(late)
	wantError(t, err, types.ErrInternal, fmt.Sprintf("5 addresses are reserved in %s, 0 of them without a record in %s",
		filepath.Join(h.dir, "networks", "cbr0"), h.results()))

	// All but the first are gone: of one the runtime has no record, and another
	// had its namespace in a folder that may be another runtime's.
	h.withoutNetns(pods[4])
	for _, p := range pods[1:] {
		if err := os.Remove(p.runtime.NetNS); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(h.record(pods[1])); err != nil {
		t.Fatal(err)
	}
	h.mustAdd(late)
	want(t, "reserved", h.reserved(), "10.244.17.2", "10.244.17.3", "10.244.17.4", "10.244.17.5")
	h.mustAdd(h.placed(newPod(t, "later"), "netns"))
	_, err = h.add(h.placed(newPod(t, "last"), "netns"))
	wantError(t, err, types.ErrInternal, "5 addresses are reserved in")
	wantError(t, err, types.ErrInternal, "1 of them without a record in")
}
