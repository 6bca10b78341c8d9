// Package sysctl finds settings of the host that keep pods from talking. It
// reads only; what to change is for people to decide.
package sysctl

import (
	"os"
	"path/filepath"
	"strings"

	"flannel/internal/ipfam"
)

// Root is where the kernel shows its settings.
const Root = "/proc/sys"

// Problem is a setting that is not as pods need it.
type Problem struct {
	// Text says in one line what is wrong and what it does.
	Text string
	// Command sets it right until the next boot.
	Command string
}

// Check reads the settings below root that matter to the families that are on
// and to the uplink.
func Check(root string, families ipfam.Pair[bool], uplink string) []Problem {
	h := host{root}
	var out []Problem
	if families[ipfam.V4] {
		out = append(out, h.forwarding("net.ipv4.ip_forward", "IPv4")...)
		out = append(out, h.bridge("iptables")...)
		out = append(out, h.reversePath(uplink)...)
	}
	if families[ipfam.V6] {
		out = append(out, h.forwarding("net.ipv6.conf.all.forwarding", "IPv6")...)
		if !families[ipfam.V4] || h.read("net.bridge.bridge-nf-call-iptables") != "" {
			out = append(out, h.bridge("ip6tables")...)
		}
	}
	return out
}

type host struct{ root string }

// read returns a setting, or nothing when the kernel does not have it.
func (h host) read(name string) string {
	text, err := os.ReadFile(filepath.Join(h.root, path(name)))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// path is where a setting is; a dot in the name of a device is written as a
// slash, as sysctl does.
func path(name string) string {
	return strings.NewReplacer(".", "/", "/", ".").Replace(name)
}

func (h host) forwarding(name, family string) []Problem {
	if h.read(name) != "0" {
		return nil
	}
	return []Problem{{name + " is 0: the host forwards no " + family + " packets of pods", "sysctl -w " + name + "=1"}}
}

func (h host) bridge(tool string) []Problem {
	name := "net.bridge.bridge-nf-call-" + tool
	const effect = ": pods on one bridge may not reach each other through a Service"
	switch h.read(name) {
	case "":
		return []Problem{{"the kernel module br_netfilter is not loaded" + effect, "modprobe br_netfilter"}}
	case "0":
		return []Problem{{name + " is 0" + effect, "sysctl -w " + name + "=1"}}
	}
	return nil
}

// reversePath looks for the strict check of source addresses; the stricter of
// the two settings holds, except that 2 is loose.
func (h host) reversePath(uplink string) []Problem {
	all := "net.ipv4.conf.all.rp_filter"
	own := "net.ipv4.conf." + strings.ReplaceAll(uplink, ".", "/") + ".rp_filter"
	if max(h.read(all), h.read(own)) != "1" {
		return nil
	}
	name := own
	if h.read(own) != "1" {
		name = all
	}
	return []Problem{{
		name + " is 1: packets that come in by another way than the answer would go out are dropped",
		"sysctl -w " + name + "=2",
	}}
}
