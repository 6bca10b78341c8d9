package iptables

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"flannel/internal/firewall"
	"flannel/internal/ipfam"
)

// ErrNoTool is the error if neither this host nor the image has the programs.
var ErrNoTool = errors.New("no iptables programs")

// names are the programs of both families; with the suffix they are of one
// mode, without it of the host's default mode.
var names = ipfam.Pair[string]{"iptables", "ip6tables"}

// tools are the programs of one mode.
type tools ipfam.Pair[*tool]

// find finds the programs with one suffix. Those of the enabled families must
// exist.
func find(families ipfam.Pair[bool], suffix string) (tools, error) {
	var out tools
	var errs []error
	for f, on := range families.Each() {
		t, err := openTool(f, names[f]+suffix)
		if err != nil && on {
			errs = append(errs, err)
		}
		out[f] = t
	}
	return out, errors.Join(errs...)
}

func (ts tools) mode() Mode {
	for _, t := range ts {
		if t != nil {
			return t.mode
		}
	}
	return ""
}

// findAll returns the tools of each mode that the host has, and the mode of
// those without a suffix.
func findAll(families ipfam.Pair[bool]) (all map[Mode]tools, byDefault Mode, err error) {
	all = map[Mode]tools{}
	var errs []error
	for _, suffix := range []string{"", "-nft", "-legacy"} {
		ts, err := find(families, suffix)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if _, known := all[ts.mode()]; !known {
			all[ts.mode()] = ts
		}
		if suffix == "" {
			byDefault = ts.mode()
		}
	}
	if len(all) == 0 {
		return nil, "", fmt.Errorf("%w: %w", ErrNoTool, errors.Join(errs...))
	}
	return all, byDefault, nil
}

// evidence is what suggests a mode: rules of other programs.
type evidence struct {
	// hint is set if the kubelet uses this mode.
	hint  bool
	rules int
}

// kubeletChains exist in the mode that the kubelet uses.
var kubeletChains = []string{":KUBE-IPTABLES-HINT ", ":KUBE-KUBELET-CANARY "}

// weigh reads what iptables-save prints.
func weigh(saved string) evidence {
	var e evidence
	for line := range strings.Lines(saved) {
		e.hint = e.hint || slices.ContainsFunc(kubeletChains, func(c string) bool { return strings.HasPrefix(line, c) })
		if strings.HasPrefix(line, "-A ") && !strings.Contains(line, "FLANNEL-") {
			e.rules++
		}
	}
	return e
}

// choose returns the mode that the host's other rules are in.
func choose(found map[Mode]evidence, byDefault Mode) (Mode, string) {
	nft, hasNFT := found[NFT]
	legacy, hasLegacy := found[Legacy]
	switch {
	case !hasLegacy:
		return NFT, "the host has no other"
	case !hasNFT:
		return Legacy, "the host has no other"
	case nft.hint != legacy.hint:
		return pick(nft.hint), "the kubelet's rules are there"
	case nft.rules != legacy.rules:
		return pick(nft.rules > legacy.rules), "the host's other rules are there"
	case byDefault != "":
		return byDefault, "the host's default"
	}
	return NFT, "the host has no rules"
}

func pick(nft bool) Mode {
	if nft {
		return NFT
	}
	return Legacy
}

// weighTools lists all rules of all families that tools of one mode see.
func weighTools(ctx context.Context, ts tools) evidence {
	var sum evidence
	for _, t := range ts {
		if t == nil || t.save == "" || t.mode == Legacy && !firewall.LegacyInUse(t.family, "") {
			continue
		}
		out, err := exec.CommandContext(ctx, t.save).Output()
		if err != nil {
			continue // then there is no evidence for this mode
		}
		e := weigh(string(out))
		sum = evidence{sum.hint || e.hint, sum.rules + e.rules}
	}
	return sum
}
