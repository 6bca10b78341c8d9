package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"flannel/internal/testkit/golden"
	"flannel/lab"
	"flannel/lab/sandbox"
)

func TestMain(m *testing.M) { lab.Main(m) }

// TestGranularChecks is the part of the suite that asks most of the network:
// from pod to pod and from node to pod on other nodes, over HTTP and UDP.
func TestGranularChecks(t *testing.T) {
	if os.Geteuid() != 0 || !sandbox.Active() {
		t.Skip("nodes that run pods need root")
	}
	focus := `Granular Checks: Pods.*\[Conformance\]`
	images, err := buildImages()
	lab.Must(t, err)
	raw, err := runs()[0].test(t.Context(), images, focus, "", 4)
	lab.Must(t, err)
	got, err := parseResult(raw, focus)
	lab.Must(t, err)
	passed := 0
	for name, o := range got {
		switch {
		case o.Failed:
			t.Errorf("%s: %s", name, o.Text)
		case o.passed():
			passed++
		}
	}
	if passed != 4 {
		t.Errorf("%d tests have passed, want 4", passed)
	}
}

func readReport(t *testing.T) result {
	t.Helper()
	raw, err := os.ReadFile("testdata/junit.xml")
	lab.Must(t, err)
	got, err := parseResult(raw, runs()[0].focus())
	lab.Must(t, err)
	return got
}

func TestThePageNamesEveryTestOfARun(t *testing.T) {
	old, recent := origin{"v1.2.2", "0123abc", "2024-01-02"}, origin{"v1.2.3", "4567def", "2024-02-03"}
	golden.Equal(t, page(map[string]kept{
		"vxlan": {recent, readReport(t)},
		"udp": {old, result{
			"[sig-network] one [Conformance]":             {},
			"[sig-network] Networking that asks for more": {Text: "another reason"},
		}},
	}), "testdata/page.md")
}

func TestARunNeedsATestThatPassesAndNoneThatFails(t *testing.T) {
	for name, tt := range map[string]struct {
		tests result
		want  string
	}{
		"one passes":   {result{"a": {}, "b": {Text: "skipped"}}, ""},
		"one fails":    {result{"a": {}, "b": {Failed: true}}, "1 tests have failed"},
		"all skipped":  {result{"a": {Text: "skipped"}}, "no test has passed"},
		"none matches": {result{}, "no test has passed"},
	} {
		got := ""
		if err := tt.tests.report(io.Discard, "vxlan", 0); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func TestThePageIsWrittenWhenEveryRunHasAResult(t *testing.T) {
	s := settings{results: t.TempDir(), page: filepath.Join(t.TempDir(), "page.md")}
	for i, r := range runs() {
		lab.Must(t, s.keep(r, kept{origin{"v1.2.3", "0123abc", "2024-01-02"}, result{"a": {}}}))
		lab.Must(t, s.writePage())
		if _, err := os.Stat(s.page); (err == nil) != (i == len(runs())-1) {
			t.Errorf("after %d results: %v", i+1, err)
		}
	}
}
