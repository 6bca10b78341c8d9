package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flannel/internal/testkit/golden"
)

func someReport() report {
	return report{
		about: about{
			Machine: "Example CPU 9000, 2 cores, 8 GiB, virtual", Kernel: "6.18.0", Commit: "0123abc", Flanneld: "v1.2.3", Date: "2026-01-02",
			Versions: map[string]string{"Go": "1.26.0", "etcd": "3.6.0", "Kubernetes": "1.34.0"}, Load: 2, Seconds: 90,
		},
		rows: []row{
			{Measure: "join of 100 peers", Samples: []float64{0.9, 0.5, 0.6}, Unit: seconds, Limit: atMost(0.8), Flannel: "3.3 s", Mark: &mark{"joining", "this daemon", "100"}},
			{Measure: "  beside the bare loop", Samples: []float64{0.9, 1.1}, Unit: times, Limit: atMost(2)},
			{Measure: "  peak memory", Samples: []float64{41, 42}, Unit: megabytes, Limit: atMost(40)},
			{Measure: "  CPU time", Samples: []float64{0.004}, Unit: percent},
			{Measure: "writes", Samples: []float64{0}, Limit: atMost(0)},
			{Measure: "udp", Samples: []float64{6, 7, 8}, Unit: gigabits, Higher: true, Mark: &mark{"throughput", "udp", "one TCP stream"}},
			{Measure: "  beside bare veth", Samples: []float64{0.3, 0.4, 0.5}, Unit: times, Higher: true, Limit: atLeast(0.5)},
			{Measure: "not done", Unit: seconds, Limit: atMost(2)},
		},
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	if err := someReport().text(&b); err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, b.String(), "testdata/table.txt")
}

// The tests of test/figures read this file too.
func TestResults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	if err := someReport().writeResults(path); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, string(got), "testdata/results.json")
}

func TestPageKeepsItsProse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	page := "before\n" + pageBegin + "old\n" + pageEnd + "after\n"
	if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a written page can be written again
		if err := someReport().writePage(path); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, string(got), "testdata/page.md")
}

func TestPageWithoutItsLinesIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(path, []byte("a page\n"+pageBegin), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := someReport().writePage(path); err == nil {
		t.Error("a page without an end was written")
	}
}

func TestNamesOfMeasuresAreNeverShared(t *testing.T) {
	// Rows of several backends have the same explaining rows.
	s := &speed{gbits: []float64{1}, packets: []float64{1}, requests: []float64{1}, disorder: []float64{0}, idle: []float64{0}}
	var r report
	for _, name := range []string{bare, "host-gw", "vxlan", "udp"} {
		r.rows = append(r.rows, s.rows(name, s)...)
	}
	seen := map[string]bool{}
	for _, n := range r.named() {
		if seen[n.Name] {
			t.Errorf("two rows are %q", n.Name)
		}
		seen[n.Name] = true
	}
}

func TestProgressOutsideATerminal(t *testing.T) {
	var b strings.Builder
	p := newProgress(&b, measures()[:2])
	defer p.show()()
	p.next("join")
	p.next("further")
	golden.Equal(t, b.String(), "testdata/progress.txt")
}

func TestThePageHasItsLines(t *testing.T) {
	text, err := os.ReadFile("../../Documentation/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{pageBegin, pageEnd} {
		if strings.Count(string(text), line) != 1 {
			t.Errorf("the page must have one line %q", line)
		}
	}
}

func TestFleetIsATableOfItsOwn(t *testing.T) {
	one := func(took time.Duration, requests, bytes float64, cpu time.Duration, writes float64) cost {
		return cost{took, requests, bytes, cpu, writes}
	}
	alone := costs{
		rest: one(100*time.Second, 0, 0, time.Second, 0), changes: one(20*time.Second, 0, 0, 400*time.Millisecond, 0),
		outage: one(20*time.Second, 0, 0, 4*time.Second, 0),
	}
	c := costs{
		rest: one(100*time.Second, 200, 1e6, 2*time.Second, 0), changed: 100, changes: one(20*time.Second, 40, 100.2e6, 1600*time.Millisecond, 0),
		restart: one(10*time.Second, 2000, 900.1e6, 20*time.Second, 400), outage: one(20*time.Second, 400, 400e6, 10*time.Second, 0),
		watched: 3 * time.Second,
	}
	r := report{about: someReport().about}
	for _, series := range []string{"one", "other"} {
		r.rows = append(r.rows, c.rows(series, alone, 200, 5000, 60*time.Millisecond)...)
	}
	golden.Equal(t, r.markdown(), "testdata/fleet.md")
}

func TestTheDocumentationSaysHowLongItTakes(t *testing.T) {
	took := func(list []measure) (sum time.Duration) {
		for _, m := range list {
			sum += m.lasts
		}
		return sum.Round(time.Minute)
	}
	all := took(settings{}.measures())
	fleet := took(settings{only: []string{"fleet"}}.measures())
	for file, lines := range map[string]map[string]time.Duration{
		"../../Makefile":                     {"bench: ": all, "fleet: ": fleet},
		"../../CONTRIBUTING.md":              {"make bench  ": all, "make fleet  ": fleet},
		"../../Documentation/performance.md": {"make bench  ": all},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for begin, lasts := range lines {
			_, line, _ := strings.Cut(string(text), "\n"+begin)
			line, _, _ = strings.Cut(line, "\n")
			if want := fmt.Sprintf("%d minutes", int(lasts.Minutes())); !strings.Contains(line, want) {
				t.Errorf("%s: %q lacks %q", file, begin+line, want)
			}
		}
	}
}
