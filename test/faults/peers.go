package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"flannel/internal/ipfam"
	"flannel/lab"
)

// wantedPeers are those that host number own uses, per family.
func wantedPeers(own int, all []record) string {
	var lines []string
	for _, r := range all {
		for _, f := range ipfam.All() {
			if r.usedBy(own, f) {
				lines = append(lines, peerLine(r.subnet[f].String(), r.public[f].String()))
			}
		}
	}
	return sortedText(lines)
}

// usedPeers are those that a daemon uses. The backend udp leaves nothing else of
// them that can be seen from outside.
func usedPeers(ctx context.Context, h *lab.Host) (string, error) {
	code, body, err := h.Flanneld().Get(ctx, "/status")
	if err != nil || code != http.StatusOK {
		return "", errors.Join(err, fmt.Errorf("/status: %d", code))
	}
	var status struct {
		Peers []struct{ Subnet, Via, How string }
	}
	if err := json.Unmarshal([]byte(body), &status); err != nil {
		return "", fmt.Errorf("/status: %w", err)
	}
	var lines []string
	for _, p := range status.Peers {
		if p.How != "left out" {
			lines = append(lines, peerLine(p.Subnet, p.Via))
		}
	}
	return sortedText(lines), nil
}

func peerLine(subnet, via string) string { return fmt.Sprintf("peer %s via %s", subnet, via) }

func sortedText(lines []string) string {
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}
