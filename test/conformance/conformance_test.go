package main

import (
	"os"
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
		case o.failed:
			t.Errorf("%s: %s", name, o.text)
		case o.passed():
			passed++
		}
	}
	if passed != 4 {
		t.Errorf("%d tests have passed, want 4", passed)
	}
}

func TestThePageNamesEveryTestOfARun(t *testing.T) {
	got, err := readResult("testdata/junit.xml", runs()[0].focus())
	lab.Must(t, err)
	golden.Equal(t, page("v1.2.3", map[string]result{"vxlan": got, "udp": {"[sig-network] one [Conformance]": {}}}), "testdata/page.md")
}
