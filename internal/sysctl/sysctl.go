// Package sysctl finds settings of the host that keep pods from talking. It
// reads only; what to change is for people to decide.
package sysctl

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"flannel/internal/ipfam"
)

// Root is where the kernel shows its settings.
const Root = "/proc/sys"

// Problem is a setting that is not as pods need it.
type Problem struct {
	// Text describes in one line what is wrong and what it does.
	Text string
	// Command sets it right until the next boot.
	Command string
	// Where is on which hosts it matters.
	Where Where
}

// Where is on which hosts a setting matters.
type Where int

// A setting matters everywhere, where kube-proxy or the like serves Services, or where
// packets may come in by one interface and the answers go out by another.
const (
	Everywhere Where = iota
	WithServices
	WithSeveralUplinks
)

// Check reads the settings below root that matter to the families that are on
// and to the uplink.
func Check(root string, families ipfam.Pair[bool], uplink string) []Problem {
	return Find(func(name string) string { return Read(root, name) }, families, uplink)
}

// Find looks at settings that have been read: read returns the value of one, or
// nothing if the kernel does not have it.
func Find(read func(name string) string, families ipfam.Pair[bool], uplink string) []Problem {
	h := host{read}
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

type host struct{ read func(name string) string }

// Of names a setting of a device as sysctl does: a dot in the name of the device
// is written as a slash.
func Of(family ipfam.Family, dev, setting string) string {
	return fmt.Sprintf("net.%s.conf.%s.%s", family, strings.ReplaceAll(dev, ".", "/"), setting)
}

// Read returns a setting below root, or nothing if the kernel does not have it.
func Read(root, name string) string {
	text, err := os.ReadFile(filepath.Join(root, path(name)))
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
	return []Problem{{name + " is 0: the host forwards no " + family + " packets of pods", "sysctl -w " + name + "=1", Everywhere}}
}

func (h host) bridge(tool string) []Problem {
	name := "net.bridge.bridge-nf-call-" + tool
	const effect = ": pods on one bridge may not reach each other through a Service"
	switch h.read(name) {
	case "":
		return []Problem{{"the kernel module br_netfilter is not loaded" + effect, "modprobe br_netfilter", WithServices}}
	case "0":
		return []Problem{{name + " is 0" + effect, "sysctl -w " + name + "=1", WithServices}}
	}
	return nil
}

// reversePath looks for the strict check of source addresses; the stricter of
// the two settings holds, except that 2 is loose.
func (h host) reversePath(uplink string) []Problem {
	all := "net.ipv4.conf.all.rp_filter"
	own := Of(ipfam.V4, uplink, "rp_filter")
	if max(h.read(all), h.read(own)) != "1" {
		return nil
	}
	name := own
	if h.read(own) != "1" {
		name = all
	}
	return []Problem{{
		name + " is 1: packets that come in by another way than the answer would go out are dropped",
		"sysctl -w " + name + "=2", WithSeveralUplinks,
	}}
}
