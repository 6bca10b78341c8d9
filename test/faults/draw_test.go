package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"flannel/internal/ipfam"
)

func settingsOf(backend, store string, seed uint64) settings {
	return settings{backend: backend, store: store, seed: seed, hosts: fewestHosts, first: 1, long: -1, only: regexp.MustCompile("")}
}

// rounds are the first ones that are drawn.
func rounds(s settings, count int) (out [][]drawn) {
	for _, faults := range s.draw() {
		if out = append(out, faults); len(out) == count {
			break
		}
	}
	return out
}

func text(s settings, count int) string {
	out := ""
	for round, faults := range rounds(s, count) {
		for _, d := range faults {
			out += fmt.Sprintln(round, d.name, d.victim, d.peer, d.offset, d.lasts, d.number)
		}
	}
	return out
}

func TestASeedRepeatsFaultsOrderAndOffsets(t *testing.T) {
	first := text(settingsOf(vxlan, etcd, 7), 100)
	if first != text(settingsOf(vxlan, etcd, 7), 100) {
		t.Error("the same seed draws other faults")
	}
	if first == text(settingsOf(vxlan, etcd, 8), 100) {
		t.Error("another seed draws the same faults")
	}
}

func TestEveryFaultComes(t *testing.T) {
	for i, backend := range backends {
		s, seen := settingsOf(backend, stores[i%len(stores)], 3), map[string]bool{}
		table := s.table()
		for _, faults := range rounds(s, len(table)) {
			for _, d := range faults {
				seen[d.name] = true
				if d.restarts && d.victim == steady || d.victim == d.peer || d.lasts < d.shortest || d.lasts > d.longest ||
					d.uses != nil && len(faults) > 1 {
					t.Errorf("drawn: %+v", d)
				}
			}
		}
		if len(seen) != len(table) {
			t.Errorf("%s: %d of %d faults in the first rounds", backend, len(seen), len(table))
		}
	}
}

func TestARunHasAFewLongFaultsAndManyRunsHaveAll(t *testing.T) {
	for _, store := range stores {
		seen := map[string]bool{}
		for seed := range uint64(100) {
			s, long := settingsOf(udp, store, seed), 0
			s.long = 1
			for _, faults := range rounds(s, 20) {
				if slices.ContainsFunc(faults, drawn.long) {
					long++
				}
				for _, d := range faults {
					seen[d.name] = true
				}
			}
			if long > 1 {
				t.Errorf("%s, seed %d: %d rounds with a long fault", store, seed, long)
			}
		}
		s := settingsOf(udp, store, 1)
		if table := s.table(); len(seen) != len(table) {
			t.Errorf("%s: %d of %d faults in 100 runs", store, len(seen), len(table))
		}
	}
}

func TestNoRoundsAreLeftOfLongFaultsAlone(t *testing.T) {
	s := settingsOf(vxlan, etcd, 1)
	s.only, s.long = regexp.MustCompile("^etcd wiped$"), 1
	if got := len(rounds(s, 5)); got != 1 {
		t.Errorf("%d rounds, want 1", got)
	}
}

func TestTheEstimateCountsTheRoundsThatAreDrawn(t *testing.T) {
	s := settingsOf(vxlan, etcd, 7)
	s.rounds = 20
	var stand time.Duration
	for _, faults := range rounds(s, s.rounds) {
		stand += slices.MaxFunc(faults, func(a, b drawn) int { return cmp.Compare(a.lasts, b.lasts) }).lasts
	}
	if got := s.lasts(); got < stand+time.Duration(s.rounds)*usualRound || got > 10*time.Minute {
		t.Errorf("got %s; the faults alone stand for %s", got, stand)
	}
}

func TestTheCommandRepeatsWhatWasDrawn(t *testing.T) {
	s := settingsOf(hostgw, kubernetes, 7)
	s.only = regexp.MustCompile("annotations|CIDR")
	const want = `make faults SEED=7 ARGS='-backend host-gw -store kubernetes -hosts 4 -first 3 -rounds 1 -only "annotations|CIDR"'`
	if got := s.command(3, 1, -1); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTheCommandPassesTheShellAndMake(t *testing.T) {
	dir := t.TempDir()
	const makefile = "faults:\n\t@printf '%s\\n' $(ARGS)\n"
	if err := os.WriteFile(filepath.Join(dir, "Makefile"), []byte(makefile), 0o600); err != nil {
		t.Fatal(err)
	}
	const only, flanneld = "^a$|^it's `b` \\(\"c\"\\)$", "/tmp/a folder/$flanneld"
	s := settingsOf(vxlan, etcd, 7)
	s.only, s.flanneld = regexp.MustCompile(only), flanneld
	shell := exec.Command("sh", "-c", s.command(1, 1, -1))
	shell.Dir = dir
	// It may be make that runs this test.
	shell.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS") })
	out, err := shell.CombinedOutput()
	if got, want := string(out), "-only\n"+only+"\n-flanneld\n"+flanneld+"\n"; err != nil || !strings.HasSuffix(got, want) {
		t.Errorf("%v: got\n%swant at the end\n%s", err, got, want)
	}
}

func TestADifferenceNamesBothSides(t *testing.T) {
	for name, tt := range map[string]struct{ want, have, diff, ordered string }{
		"equal":         {"a\nb\n", "a\nb\n", "", ""},
		"another":       {"a\nb\n", "a\nc\n", "- b\n+ c\n", "- b\n+ c\n"},
		"twice":         {"a\n", "a\na\n", "+ a\n", "+ a\n"},
		"once too few":  {"a\na\n", "a\n", "- a\n", "- a\n"},
		"another order": {"a\nb\n", "b\na\n", "", "in another order:\nb\na\n"},
	} {
		if got := difference(tt.want, tt.have); got != tt.diff {
			t.Errorf("%s: got %q, want %q", name, got, tt.diff)
		}
		if got := orderedDifference(tt.want, tt.have); got != tt.ordered {
			t.Errorf("%s, ordered: got %q, want %q", name, got, tt.ordered)
		}
	}
}

func TestKeysTellTheirSubnets(t *testing.T) {
	if got := subnetsOf(recordKey(markerSubnets)); got != markerSubnets {
		t.Errorf("got %v, want %v", got, markerSubnets)
	}
	one := ipfam.Pair[netip.Prefix]{ipfam.V6: markerSubnets[ipfam.V6]}
	if got := subnetsOf(recordKey(one)); got != one {
		t.Errorf("got %v, want %v", got, one)
	}
	for _, key := range []string{"", "nonsense", "10.244.1.0", "&", "10.244.1.0-24/x"} {
		_ = subnetsOf(subnetsPrefix + key) // it does not panic
	}
}
