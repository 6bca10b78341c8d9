package main

import (
	"errors"
	"fmt"
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
// from pod to pod and from node to pod on other nodes, over HTTP and UDP, and the
// lookup of names of the cluster, which needs the lab's DNS.
func TestGranularChecks(t *testing.T) {
	if os.Geteuid() != 0 || !sandbox.Active() {
		t.Skip("nodes that run pods need root")
	}
	focus := `Granular Checks: Pods.*\[Conformance\]|DNS should provide DNS for the cluster`
	images, err := buildImages()
	lab.Must(t, err)
	got, err := runs()[0].test(t.Context(), images, focus, "", 5)
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
	if passed != 5 {
		t.Errorf("%d tests have passed, want 5", passed)
	}
}

func readReport(t *testing.T) result {
	t.Helper()
	raw, err := os.ReadFile("testdata/junit.xml")
	lab.Must(t, err)
	got, err := parseResult(raw, runs()[0].focus(), errors.New("exit status 1"))
	lab.Must(t, err)
	return got
}

func TestATestIsLeftOutForAReasonOnly(t *testing.T) {
	const sctp = "[sig-network] Networking over sctp [Feature:SCTPConnectivity]"
	for name, tt := range map[string]struct {
		test, message string
		want          outcome
	}{
		"ours":             {sctp, "skipped", outcome{Text: left[0].reason}},
		"the suite's":      {"[sig-network] a [Conformance]", "skipped - needs 3 nodes", outcome{Text: "needs 3 nodes"}},
		"none":             {"[sig-network] a [Conformance]", "skipped", outcome{Failed: true, Text: "skipped"}},
		"pending":          {"[sig-network] a [Conformance]", "pending", outcome{Failed: true, Text: "pending"}},
		"not in the focus": {"[sig-storage] a [Conformance]", "skipped", outcome{}},
	} {
		raw := fmt.Sprintf(`<testsuites><testsuite><testcase name="[It] %s [x]"><skipped message="%s"/></testcase></testsuite></testsuites>`, tt.test, tt.message)
		got, err := parseResult([]byte(raw), runs()[0].focus(), nil)
		lab.Must(t, err)
		if got[tt.test] != tt.want {
			t.Errorf("%s: got %+v, want %+v", name, got[tt.test], tt.want)
		}
	}
}

func TestASuiteThatEndsWithAnErrorHasFailed(t *testing.T) {
	const report = `<testsuites><testsuite><testcase name="[It] [sig-network] a [Conformance] [x]">%s</testcase></testsuite></testsuites>`
	for name, tt := range map[string]struct {
		outcome string
		ended   error
		want    string
	}{
		"fine":          {"", nil, ""},
		"a failed test": {`<failure message="timed out"/>`, errors.New("exit status 1"), "1 tests have failed"},
		"no failed one": {"", errors.New("exit status 197"), "1 tests have failed"},
	} {
		got, err := parseResult(fmt.Appendf(nil, report, tt.outcome), runs()[0].focus(), tt.ended)
		lab.Must(t, err)
		said := ""
		if err := got.report(io.Discard, "vxlan", 0); err != nil {
			said = err.Error()
		}
		if said != tt.want {
			t.Errorf("%s: got %q, want %q", name, said, tt.want)
		}
	}
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
