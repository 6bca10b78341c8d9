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

` + "`make faults`" + ` breaks clusters of four hosts in ways that a seed draws, while their pods
ping each other in both families, and checks after each fault that every host has
recovered within the time below. A test writes this page from the table of faults;
[Contributing](../CONTRIBUTING.md) says how to run and repeat them, and what is checked.

* *for*: how long a fault stands before it is undone; nothing: it is not undone, or at once.
* *recovered within*: the time after that until kernel, packet filter rules, ` + "`subnet.env`" + `,
  ` + "`/readyz`" + ` and ` + "`/status`" + ` are as the store's records want them, on a quiet machine. It is
  5s, and longer only by a wait that a page promises.
* *pings lost at most*: between the pods of this host and those of others. *all*: those sent
  while the fault stands; a time: as many as are sent in it. With udp, whose packets pass
  the daemon, also those sent while the daemon does not run, and for 2s.
`

// page is the documentation of the table.
func page() string {
	var b strings.Builder
	b.WriteString(pageHead)
	b.WriteString("\n## Waits\n\n| wait | why |\n| --- | --- |\n")
	for _, h := range holds() {
		fmt.Fprintf(&b, "| %s | %s |\n", h.link(), h.why)
	}
	for _, part := range []struct {
		title string
		table []fault
	}{{"Faults of a host", hostFaults()}, {"Faults of etcd, three members", etcdFaults()}, {"Faults of the API server and the Nodes", kubernetesFaults()}} {
		fmt.Fprintf(&b, "\n## %s\n\n| fault | backend | for | recovered within | wait | pings lost at most |\n| --- | --- | --- | --- | --- | --- |\n", part.title)
		for _, f := range part.table {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", f.name, cmp.Or(f.backend, "all"), f.stands(), f.deadline(), f.hold.link(), f.loses())
		}
	}
	return b.String()
}

func (f fault) stands() string {
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

func (h hold) link() string {
	if h.name == "" {
		return ""
	}
	return fmt.Sprintf("[%s](%s)", h.name, h.section)
}

// holds are all of the table, each once.
func holds() (out []hold) {
	for _, f := range faults() {
		same := func(h hold) bool { return h.name == f.hold.name }
		if f.hold != (hold{}) && !slices.ContainsFunc(out, same) {
			out = append(out, f.hold)
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
		if f.hold == (hold{}) {
			continue
		}
		page, anchor, _ := strings.Cut(f.hold.section, "#")
		if f.hold.name == "" || f.hold.why == "" || f.hold.most <= 0 || !slices.Contains(anchors(t, page), anchor) {
			t.Errorf("%q: %+v is not documented", f.name, f.hold)
		}
	}
}

// TestTheDocumentationSaysTheNumbersOfHolds looks for the sentences that holds
// were taken from: who changes one sees the other.
func TestTheDocumentationSaysTheNumbersOfHolds(t *testing.T) {
	for section, tt := range map[hold]string{
		holdResync():                "with iptables within `--iptables-resync` seconds",
		holdStart():                 "the daemon waits five seconds and then runs from its last known state",
		holdOutage(forMinutes):      "within twice the time that it was away and two seconds more, and after 30 seconds at most",
		holdUplink():                "| after 10 seconds |",
		holdGuard():                 "within 35 to 65 seconds",
		holdDispute():               "then after up to a minute",
		holdFight():                 "down to once a minute",
		holdOutage(time.Second / 2): "after 1 to 2 seconds",
	} {
		page, _, _ := strings.Cut(section.section, "#")
		text, err := os.ReadFile(filepath.Join(documentation, page))
		if err != nil || !strings.Contains(strings.Join(strings.Fields(string(text)), " "), tt) {
			t.Errorf("%s does not say %q, as %q has it: %v", page, tt, section.why, err)
		}
	}
}
