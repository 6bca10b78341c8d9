package doctor

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"flannel/internal/testkit/golden"
)

// examined is a report with everything in it.
func examined() Report {
	return Examine("node-a", &Facts{Unread: []Unread{{"nf_tables", "operation not permitted"}}}, []Check{
		{Name: "fine", Find: func(*Facts) []Finding { return nil }},
		{Name: "broken", Means: "Pods wait.", Find: func(*Facts) []Finding {
			return []Finding{{Problem: "a thing is broken", Command: "mend <it>"}, {Problem: "a thing is odd", Note: true}}
		}},
	})
}

func TestText(t *testing.T) {
	var quiet, verbose bytes.Buffer
	examined().WriteText(&quiet, false)
	examined().WriteText(&verbose, true)
	golden.Equal(t, quiet.String(), "testdata/report.txt")
	golden.Equal(t, verbose.String(), "testdata/report_verbose.txt")
}

// TestWhatOthersHaveWritten must not steer the terminal.
func TestWhatOthersHaveWritten(t *testing.T) {
	const evil = "\x1b[2J\r\n1. fine\u202e"
	r := Examine(evil, &Facts{Unread: []Unread{{"store", evil}}}, []Check{
		{Name: "broken", Find: func(*Facts) []Finding { return []Finding{{Problem: evil, Command: evil}, {Problem: evil, Note: true}} }},
	})
	var text bytes.Buffer
	r.WriteText(&text, true)
	if got := text.String(); strings.ContainsAny(got, "\x1b\r\u202e") || strings.Contains(got, "\n1. fine") || strings.Count(got, `\x1b[2J\r\n1. fine\u202e`) != 5 {
		t.Errorf("got\n%q", got)
	}
}

func TestExplain(t *testing.T) {
	for _, name := range Names() {
		var text bytes.Buffer
		if !Explain(&text, name) || !strings.HasPrefix(text.String(), name+"\n\n") || !strings.Contains(text.String(), "Documentation/doctor.md#"+name) {
			t.Errorf("%s: got\n%s", name, &text)
		}
	}
	if Explain(io.Discard, "none") {
		t.Error("a check that does not exist is explained")
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := examined().WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, b.String(), "testdata/report.json")
}

func TestExitCodes(t *testing.T) {
	r := examined()
	if r.ExitCode() != ExitFindings {
		t.Errorf("with findings: %d", r.ExitCode())
	}
	if r.Findings = nil; r.ExitCode() != ExitUnchecked {
		t.Errorf("with unread sources: %d", r.ExitCode())
	}
	if r.Unread = nil; r.ExitCode() != ExitHealthy {
		t.Errorf("without either: %d", r.ExitCode())
	}
}

func TestManyFindingsOfOneCause(t *testing.T) {
	list := shorten(make([]Finding, 5000))
	if len(list) != most+1 || !strings.HasPrefix(list[most].Problem, "4990 more") {
		t.Errorf("got %d, the last %+v", len(list), list[len(list)-1])
	}
}
