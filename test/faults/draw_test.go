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
