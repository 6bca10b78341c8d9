package mode

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"flannel/internal/ipfam"
)

func TestChoose(t *testing.T) {
	const inLegacy, inNFT = "iptables-legacy -A FORWARD -s 192.0.2.0/24 -j ACCEPT", "iptables-nft -A FORWARD -s 192.0.2.0/24 -j ACCEPT"
	tests := []struct {
		name, others string
		nft, none    bool // nftables is asked for; there are no programs
		log          string
		// where holds the rules of masquerading, accepts those of forwarding.
		where, accepts string
		resync         time.Duration
		events         bool
	}{
		{name: "the host's rules are in nf_tables", others: inNFT, log: "programs=nft", where: "nft", accepts: "nft", resync: time.Second},
		{name: "the host's rules are in legacy tables", others: inLegacy, log: "programs=legacy", where: "legacy", accepts: "legacy", resync: time.Second},
		{name: "a legacy chain drops as well", others: inNFT + ";iptables-legacy -P FORWARD DROP", log: "programs=nft", where: "nft", accepts: "nft legacy", resync: time.Second},
		{name: "a chain in nf_tables drops as well", others: "iptables-nft -P FORWARD DROP;" + inLegacy, log: "programs=legacy", where: "legacy", accepts: "nft legacy", resync: time.Second},
		{name: "nftables", nft: true, others: inNFT + ";" + inLegacy, log: "mode=nftables why=EnableNFTables", where: "tables", accepts: "tables nft", resync: time.Second, events: true},
		{name: "nftables, and a legacy chain drops", nft: true, others: "iptables-legacy -P FORWARD DROP", log: "mode=nftables", where: "tables", accepts: "tables legacy", resync: time.Second, events: true},
		{name: "no programs", none: true, log: `mode=nftables why="no iptables programs"`, where: "tables", accepts: "tables", resync: nftablesResync, events: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			for command := range strings.SplitSeq(tt.others, ";") {
				if command != "" {
					h.sh(command)
				}
			}
			var log bytes.Buffer
			h.Do(func() {
				if tt.none {
					t.Setenv("PATH", "/nowhere")
				}
				mode, err := Choose(t.Context(), Options{
					Log: slog.New(slog.NewTextHandler(&log, nil)), Families: ipfam.Pair[bool]{true, true}, NFTables: tt.nft, Resync: time.Second,
				})
				if err != nil {
					t.Error(err)
					return
				}
				if mode.Resync != tt.resync || (mode.Watch != nil) != tt.events || !strings.Contains(log.String(), tt.log) {
					t.Errorf("resync %v, events %t, log %s", mode.Resync, mode.Watch != nil, &log)
				}
				if _, err := mode.Driver.Apply(t.Context(), dual()); err != nil {
					t.Error(err)
				}
				if lines, err := mode.Blocked(t.Context(), dual()); err != nil || len(lines) > 0 {
					t.Errorf("dropped by %q, %v", lines, err)
				}
				for _, r := range mode.Former {
					if changes, err := r.Remove(t.Context(), dual()); err != nil || len(changes) > 0 {
						t.Errorf("removed %v, %v", changes, err)
					}
				}
			})
			if tt.none {
				return
			}
			nft := h.sh("nft list ruleset")
			where, accepts := "", ""
			for _, place := range []struct{ name, text, masq, forward string }{
				{"tables", nft, "masquerade", "chain forward"},
				{"nft", h.sh("iptables-nft -t nat -S") + h.sh("iptables-nft -S"), "FLANNEL-POSTRTG", "FLANNEL-FWD"},
				{"legacy", h.sh("iptables-legacy -t nat -S") + h.sh("iptables-legacy -S"), "FLANNEL-POSTRTG", "FLANNEL-FWD"},
			} {
				if place.name == "tables" && !strings.Contains(nft, "table ip flannel-ipv4") {
					continue
				}
				if strings.Contains(place.text, place.masq) {
					where += " " + place.name
				}
				if strings.Contains(place.text, place.forward) {
					accepts += " " + place.name
				}
			}
			if where != " "+tt.where || accepts != " "+tt.accepts {
				t.Errorf("masquerading in%s, want %s; forwarding in%s, want %s", where, tt.where, accepts, tt.accepts)
			}
		})
	}
}

// What another mode has left is removed when the rules are in place.
func TestWhatAnotherModeHasLeftIsRemoved(t *testing.T) {
	h := newHost(t)
	choose := func(nft bool) {
		h.Do(func() {
			mode, err := Choose(t.Context(), Options{
				Log: slog.New(slog.DiscardHandler), Families: ipfam.Pair[bool]{true, true}, NFTables: nft, Resync: time.Second,
			})
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := mode.Driver.Apply(t.Context(), dual()); err != nil {
				t.Error(err)
			}
			for _, r := range mode.Former {
				if _, err := r.Remove(t.Context(), dual()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	choose(false)
	choose(true)
	if got := h.sh("nft list ruleset"); strings.Contains(got, "FLANNEL-POSTRTG") || !strings.Contains(got, "flannel-ipv4") {
		t.Errorf("with nftables\n%s", got)
	}
	choose(false)
	if got := h.sh("nft list ruleset"); !strings.Contains(got, "FLANNEL-POSTRTG") || strings.Contains(got, "flannel-ipv4") {
		t.Errorf("with iptables\n%s", got)
	}
}
