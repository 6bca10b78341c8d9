package iptables

import (
	"fmt"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// losses lists the commands that delete one thing of ours each: every rule,
// every jump, the rules of every chain, and every chain.
func (h host) losses(f ipfam.Family) []string {
	var out []string
	for _, table := range ipmasq.Tables() {
		ch, program := chainOf(table), names[f]+" -t "+string(table)
		numbers := map[string]int{}
		for line := range strings.Lines(h.sh(program + " -S")) {
			words := strings.Fields(line)
			if words[0] != "-A" {
				continue
			}
			numbers[words[1]]++
			out = append(out, fmt.Sprintf("%s -D %s %d", program, words[1], numbers[words[1]]))
		}
		flush := program + " -F " + ch.Name
		out = append(out, flush, fmt.Sprintf("%s -F %s;%s;%s -X %s", program, ch.Base, flush, program, ch.Name))
	}
	return out
}

func TestWhateverIsDeletedComesBack(t *testing.T) {
	eachMode(t, func(t *testing.T, h host) {
		h.apply(dual())
		for _, f := range ipfam.All() {
			list := h.losses(f)
			if len(list) != 14 {
				t.Fatalf("%d losses: %q", len(list), list)
			}
			for _, commands := range list {
				h.lose(commands)
			}
		}
	})
}

// Rules in both tables and families at once, and what is there twice.
func TestHealing(t *testing.T) {
	eachMode(t, func(t *testing.T, h host) {
		h.apply(dual())
		for _, commands := range []string{
			"iptables -F;iptables -X;iptables -t nat -F;iptables -t nat -X;ip6tables -F;ip6tables -X;ip6tables -t nat -F;ip6tables -t nat -X",
			"iptables -t nat -A POSTROUTING -j FLANNEL-POSTRTG;iptables -t nat -F POSTROUTING",
		} {
			h.lose(commands)
		}
	})
}

// lose runs commands that spoil the rules, and sees that they are put right.
func (h host) lose(commands string) {
	h.t.Helper()
	for command := range strings.SplitSeq(commands, ";") {
		h.sh(command)
	}
	if changes := h.apply(dual()); len(changes) == 0 {
		h.t.Errorf("%s: nothing written", commands)
	}
	h.right(dual())
}
