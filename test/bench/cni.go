package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"flannel/lab/sandbox"
)

// delegate stands for the plugin that attaches the pod: it answers at once.
const delegate = `#!/bin/sh
echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.244.17.2/24"}]}'
`

// cni measures what the CNI plugin adds to its delegate: an ADD with a delegate
// that does nothing, less that delegate alone.
func (b *bench) cni(ctx context.Context) ([]row, error) {
	dir, err := os.MkdirTemp(sandbox.Dir(), "cni-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	conf, err := cniFiles(dir)
	if err != nil {
		return nil, err
	}
	plugin := filepath.Join(filepath.Dir(b.binaries.Flanneld), "flannel")
	own := row{Measure: "a CNI ADD without its delegate", Unit: milliseconds, Limit: atMost(5)}
	alone := row{Measure: "  the delegate of this measure", Unit: milliseconds}
	for i := range b.roundsOr(100) {
		both, err := cniAdd(ctx, plugin, dir, conf, i)
		if err != nil {
			return nil, err
		}
		delegate, err := cniAdd(ctx, filepath.Join(dir, "bridge"), dir, conf, i)
		if err != nil {
			return nil, err
		}
		own.Samples = append(own.Samples, inMilliseconds(both-delegate))
		alone.Samples = append(alone.Samples, inMilliseconds(delegate))
	}
	return []row{own, alone}, nil
}

// cniFiles makes what the plugin reads and returns its configuration.
func cniFiles(dir string) (conf string, err error) {
	subnetFile := filepath.Join(dir, "subnet.env")
	const subnet = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.17.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
	if err := os.WriteFile(subnetFile, []byte(subnet), 0o644); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "bridge"), []byte(delegate), 0o755); err != nil {
		return "", err
	}
	return fmt.Sprintf(`{"name": "cbr0", "cniVersion": "1.0.0", "type": "flannel", "subnetFile": %q, "dataDir": %q,
		"delegate": {"hairpinMode": true, "isDefaultGateway": true}}`, subnetFile, filepath.Join(dir, "scratch")), nil
}

// cniAdd runs a plugin as a runtime does and returns how long it took.
func cniAdd(ctx context.Context, plugin, dir, conf string, n int) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, plugin)
	cmd.Stdin = strings.NewReader(conf)
	cmd.Env = append(os.Environ(), "CNI_COMMAND=ADD", fmt.Sprintf("CNI_CONTAINERID=pod%d", n),
		"CNI_NETNS=/proc/self/ns/net", "CNI_NETNS_OVERRIDE=1", "CNI_IFNAME=eth0", "CNI_PATH="+dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", plugin, err, out.String())
	}
	return time.Since(start), nil
}
