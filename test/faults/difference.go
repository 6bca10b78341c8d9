package main

import (
	"fmt"
	"strings"
)

// difference shows which lines are missing and which are too many, wherever they
// are. Two equal lines are not the same as one.
func difference(want, have string) string {
	return surplus("-", want, have) + surplus("+", have, want)
}

// surplus shows the lines that one text has more often than another.
func surplus(sign, text, other string) string {
	var b strings.Builder
	left := map[string]int{}
	for line := range strings.SplitSeq(other, "\n") {
		left[line]++
	}
	for line := range strings.SplitSeq(text, "\n") {
		if left[line]--; left[line] < 0 {
			fmt.Fprintf(&b, "%s %s\n", sign, line)
		}
	}
	return b.String()
}

// orderedDifference is difference for lines whose order matters.
func orderedDifference(want, have string) string {
	if diff := difference(want, have); diff != "" || want == have {
		return diff
	}
	return "in another order:\n" + have
}
