package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"flannel/internal/testkit/golden"
)

const documentation = "../../Documentation"

const pageHead = `# Faults

` + "`make faults`" + ` breaks clusters of four hosts while their pods ping each other in both
families, and checks after each fault that every host recovers within the time below. The
faults and their order are drawn from a seed.
[Contributing](../CONTRIBUTING.md) explains how to run and repeat them, and what is
checked. This page is generated from the table of faults.

* *lasts*: the time from a fault until it is undone. Faults without a time are not undone,
  or take no time.
* *recovers within*: the time from then until the kernel, the packet filter rules,
  ` + "`subnet.env`, `/readyz` and `/status`" + ` match the records in the store, on an idle machine.
  It is 5s, unless one of the documented waits below makes it longer.
* *pings lost at most*: the pings between the pods of this host and those of other hosts
  that may be lost. *all*: every ping sent while the fault lasts; a time: as many as are
  sent in that time. With udp, whose packets pass through the daemon, pings sent while the
  daemon is not running, and for 2s after that, may also be lost.
`

// page is the documentation of the table.
func page() string {
	var b strings.Builder
	b.WriteString(pageHead)
	b.WriteString("\n## Waits\n\n| wait | why |\n| --- | --- |\n")
	for _, w := range waits() {
		fmt.Fprintf(&b, "| %s | %s |\n", w.link(), w.why)
	}
	for _, part := range []struct {
		title string
		table []fault
	}{{"Faults of a host", hostFaults()}, {"Faults of etcd, three members", etcdFaults()}, {"Faults of the API server and the Nodes", kubernetesFaults()}} {
		fmt.Fprintf(&b, "\n## %s\n\n| fault | backend | lasts | recovers within | wait | pings lost at most |\n| --- | --- | --- | --- | --- | --- |\n", part.title)
		for _, f := range part.table {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", f.name, cmp.Or(f.backend, "all"), f.lasts(), f.deadline(), f.wait.link(), f.loses())
		}
	}
	return b.String()
}

func (f fault) lasts() string {
	switch {
	case f.longest == 0:
		return ""
	case f.shortest == 0:
		return "up to " + f.longest.String()
	}
	return fmt.Sprintf("%s to %s", f.shortest, f.longest)
}

func (f fault) loses() string {
	var parts []string
	switch {
	case f.percent > 0:
		parts = append(parts, fmt.Sprintf("about %d %%", f.percent))
	case f.cutsAll:
		parts = append(parts, "all")
	}
	if f.cuts > 0 {
		parts = append(parts, f.cuts.String())
	}
	return cmp.Or(strings.Join(parts, " and "), "none")
}

func (w wait) link() string {
	if w.name == "" {
		return ""
	}
	return fmt.Sprintf("[%s](%s)", w.name, w.section)
}

// waits are all of the table, each once.
func waits() (out []wait) {
	for _, f := range faults() {
		same := func(w wait) bool { return w.name == f.wait.name }
		if f.wait != (wait{}) && !slices.ContainsFunc(out, same) {
			out = append(out, f.wait)
		}
	}
	return out
}

func TestThePageHasTheTable(t *testing.T) {
	golden.Equal(t, page(), filepath.Join(documentation, "faults.md"))
}

// heading finds those of a page.
var heading = regexp.MustCompile(`(?m)^#+ (.*)$`)

// anchors are what links to the headings of a page end with.
func anchors(t *testing.T, page string) (out []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(documentation, page))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range heading.FindAllStringSubmatch(string(text), -1) {
		words := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out = append(out, strings.ReplaceAll(words, " ", "-"))
	}
	return out
}

func TestALateRecoveryIsDocumented(t *testing.T) {
	for _, f := range faults() {
		if f.wait == (wait{}) {
			continue
		}
		page, anchor, _ := strings.Cut(f.wait.section, "#")
		if f.wait.name == "" || f.wait.why == "" || f.wait.most <= 0 || !slices.Contains(anchors(t, page), anchor) {
			t.Errorf("%q: %+v is not documented", f.name, f.wait)
		}
	}
}

// TestTheDocumentationHasTheNumbersOfWaits looks for the sentences that waits
// were taken from: who changes one sees the other.
func TestTheDocumentationHasTheNumbersOfWaits(t *testing.T) {
	for section, tt := range map[wait]string{
		waitResync():                "with iptables within `--iptables-resync` seconds",
		waitStart():                 "the daemon waits five seconds and then runs from its last known state",
		waitOutage(forMinutes):      "within twice the time that it was away and two seconds more, and after 30 seconds at most",
		waitUplink():                "| after 10 seconds |",
		waitGuard():                 "within 35 to 65 seconds",
		waitContention():            "then after up to a minute",
		waitAnnotations():           "down to once a minute",
		waitOutage(time.Second / 2): "after 1 to 2 seconds",
	} {
		page, _, _ := strings.Cut(section.section, "#")
		text, err := os.ReadFile(filepath.Join(documentation, page))
		if err != nil || !strings.Contains(strings.Join(strings.Fields(string(text)), " "), tt) {
			t.Errorf("%s does not contain %q, as %q has it: %v", page, tt, section.why, err)
		}
	}
}
