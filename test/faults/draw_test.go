package main

import (
	"fmt"
	"regexp"
	"testing"
)

func text(seed uint64, rounds int) string {
	s := settings{backend: vxlan, store: etcd, only: regexp.MustCompile("")}
	out := ""
	for round := range rounds {
		for _, d := range draw(seed, round, s.table()) {
			out += fmt.Sprintln(round, d.name, d.victim, d.peer, d.offset, d.lasts, d.number)
		}
	}
	return out
}

func TestASeedRepeatsFaultsOrderAndOffsets(t *testing.T) {
	first := text(7, 100)
	if first != text(7, 100) {
		t.Error("the same seed draws other faults")
	}
	if first == text(8, 100) {
		t.Error("another seed draws the same faults")
	}
}

func TestEveryFaultComes(t *testing.T) {
	for i, backend := range backends {
		s := settings{backend: backend, store: stores[i%len(stores)], only: regexp.MustCompile("")}
		table, seen := s.table(), map[string]bool{}
		for round := range table {
			for _, d := range draw(3, round, table) {
				seen[d.name] = true
				if d.restarts && d.victim == steady || d.victim == d.peer || d.lasts < d.shortest || d.lasts > d.longest {
					t.Errorf("drawn: %+v", d)
				}
			}
		}
		if len(seen) != len(table) {
			t.Errorf("%s: %d of %d faults in the first rounds", backend, len(seen), len(table))
		}
	}
}

func TestADifferenceNamesBothSides(t *testing.T) {
	const want = "- route b\n+ route c\n"
	if got := difference("route a\nroute b\n", "route a\nroute c\n"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := difference("route a\n", "route a\n"); got != "" {
		t.Errorf("equal texts differ: %q", got)
	}
}

func TestKeysTellTheirSubnets(t *testing.T) {
	if got := subnetsOf(recordKey(markerSubnets)); got != markerSubnets {
		t.Errorf("got %v, want %v", got, markerSubnets)
	}
	for _, key := range []string{"", "nonsense", "10.244.1.0", "&", "10.244.1.0-24/x"} {
		_ = subnetsOf(subnetsPrefix + key) // it does not panic
	}
}

func TestALateRecoveryHasAReason(t *testing.T) {
	for _, f := range faults() {
		if (f.deadline > 0) != (f.hold != "") {
			t.Errorf("%q: deadline %v, documented wait %q", f.name, f.deadline, f.hold)
		}
	}
}

func TestOnlyFaultsThatAreMendedInTime(t *testing.T) {
	s := settings{backend: udp, store: etcd, only: regexp.MustCompile(""), within: away}
	for _, f := range s.table() {
		if f.deadline > away || f.backend == vxlan || f.store == kubernetes {
			t.Errorf("%+v", f)
		}
	}
}
