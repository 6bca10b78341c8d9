package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/lab"
	"flannel/subnet/env"
)

// onHost runs a command, split at blanks, and returns what it prints.
func onHost(t *testing.T, h *lab.Host, command string) string {
	t.Helper()
	out, err := h.Exec(t.Context(), strings.Fields(command)...)
	lab.Must(t, err)
	return out
}

// subnetOf returns the subnets of a host.
func subnetOf(t *testing.T, h *lab.Host) ipfam.Pair[netip.Prefix] {
	t.Helper()
	s, err := h.Subnet()
	lab.Must(t, err)
	return s
}

// place fills in the subnets of a host: SUBNET and SUBNET6, and the addresses
// VTEP and VTEP6 that stand for it on the tunnel.
func place(t *testing.T, command string, of *lab.Host) string {
	t.Helper()
	s := subnetOf(t, of)
	return strings.NewReplacer(
		"SUBNET6", s[ipfam.V6].String(), "SUBNET", s[ipfam.V4].String(),
		"VTEP6", s[ipfam.V6].Addr().String(), "VTEP", s[ipfam.V4].Addr().String(),
	).Replace(command)
}

// dataPath is what flanneld has put into the kernel of a host, as text without
// what changes by itself.
func dataPath(t *testing.T, h *lab.Host) string {
	t.Helper()
	var lines []string
	for _, command := range []string{
		"ip route show proto 70", "ip -6 route show proto 70",
		"ip neigh show nud permanent", "ip -6 neigh show nud permanent",
		"ip -o link show type tun", "ip -o addr show dev flannel0 scope global",
		"ip -o link show type vxlan", "ip -o addr show dev flannel.1", "ip -o addr show dev flannel-v6.1",
		"bridge fdb show dev flannel.1", "bridge fdb show dev flannel-v6.1",
	} {
		out, err := h.Exec(t.Context(), strings.Fields(command)...)
		if err != nil {
			out = err.Error()
		}
		for line := range strings.Lines(out) {
			lines = append(lines, withoutIndex(strings.TrimSpace(line)))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// withoutIndex cuts the interface number off, which a device made again does
// not keep.
func withoutIndex(line string) string {
	if number, rest, ok := strings.Cut(line, ": "); ok && !strings.Contains(number, " ") {
		return rest
	}
	return line
}

// envOf returns the host's subnet.env.
func envOf(t *testing.T, h *lab.Host) env.Env {
	t.Helper()
	e, err := h.Env()
	lab.Must(t, err)
	return e
}

// restart ends a host's flanneld, does something, and starts it again.
func restart(t *testing.T, h *lab.Host, meanwhile func()) {
	t.Helper()
	lab.Must(t, h.Stop())
	meanwhile()
	lab.Must(t, h.StartFlanneld())
	ready(t, h)
}

func ready(t *testing.T, h *lab.Host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	lab.Must(t, h.WaitReady(ctx))
}

// leases returns the records of the cluster by key.
func leases(t *testing.T, l *lab.Lab) map[string]string {
	t.Helper()
	m, err := l.Etcd.List(t.Context(), lab.DefaultPrefix+"/subnets/")
	lab.Must(t, err)
	return m
}

// keyOf is the etcd key of a host's lease.
func keyOf(t *testing.T, h *lab.Host) string {
	t.Helper()
	var parts []string
	for _, s := range ipfam.Prefixes(subnetOf(t, h)) {
		parts = append(parts, strings.ReplaceAll(s.String(), "/", "-"))
	}
	return fmt.Sprintf("%s/subnets/%s", lab.DefaultPrefix, strings.Join(parts, "&"))
}
