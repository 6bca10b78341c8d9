package main

import (
	"bytes"
	"encoding/xml"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func read(t *testing.T, path string) results {
	t.Helper()
	r, err := readResults(path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The file is the golden one of the program that writes results.
func TestResultsOfTheBenchmarkAreRead(t *testing.T) {
	r := read(t, "../bench/testdata/results.json")
	if got, want := r.About.Commit, "0123abc"; got != want {
		t.Errorf("commit %q, want %q", got, want)
	}
	if got, want := r.Rows[1].Name, "join of 100 peers: beside the bare loop"; got != want {
		t.Errorf("name %q, want %q", got, want)
	}
	if got, want := r.Rows[0].Mark.X, "100"; got != want {
		t.Errorf("mark at %q, want %q", got, want)
	}
}

func TestUnknownFieldsAndEmptyResultsAreErrors(t *testing.T) {
	for _, text := range []string{`{"rows": [{"name": "a", "median": 1}]}`, `{}`, ``} {
		path := filepath.Join(t.TempDir(), "results.json")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readResults(path); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func TestComparisonNamesWhatIsWorse(t *testing.T) {
	before, after := read(t, "testdata/old.json"), read(t, "testdata/new.json")
	after.About.Kernel = "6.19.0"
	var b strings.Builder
	if err := compare(before, after).write(&b); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/compare.txt", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/compare.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestResultsDoNotDifferFromThemselves(t *testing.T) {
	r := read(t, "testdata/old.json")
	c := compare(r, r)
	if len(c.worse)+len(c.better)+len(c.unjudged)+len(c.alone)+len(c.others) > 0 || c.same != len(r.Rows) {
		t.Errorf("compared with itself: %+v", c)
	}
}

func TestPicturesAreSmallAndTheSameEachTime(t *testing.T) {
	r := read(t, "testdata/pictures.json")
	one, two := t.TempDir(), t.TempDir()
	for _, folder := range []string{one, two} {
		if err := drawAll(r, folder, "svg"); err != nil {
			t.Fatal(err)
		}
	}
	texts := map[string][]string{
		"throughput.svg": {"Example CPU 9000", "one TCP stream, bit/s", "vxlan", "12.7G", "64.0k"},
		"joining.svg":    {"Example CPU 9000", "20,000", "bare loop", "5.30s"},
		"silence.svg":    {"Example CPU 9000", "the uplink&#39;s address changed", "345ms"},
	}
	files, err := os.ReadDir(one)
	if err != nil || len(files) != len(texts) {
		t.Fatalf("%d pictures, want %d: %v", len(files), len(texts), err)
	}
	for name, want := range texts {
		first, err := os.ReadFile(filepath.Join(one, name))
		if err != nil {
			t.Fatal(err)
		}
		second, err := os.ReadFile(filepath.Join(two, name))
		if err != nil || !slices.Equal(first, second) {
			t.Errorf("%s is not the same each time: %v", name, err)
		}
		anchored := 0
		if name == "silence.svg" {
			anchored = len(r.marked("silence"))
		}
		if got := bytes.Count(first, []byte(`text-anchor="end"`)); got != anchored {
			t.Errorf("%s: %d names end at their bars, want %d", name, got, anchored)
		}
		if err := xml.Unmarshal(first, new(struct{})); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(first) > 30_000 {
			t.Errorf("%s has %d bytes", name, len(first))
		}
		if texts, fitted := bytes.Count(first, []byte("<text ")), bytes.Count(first, []byte("textLength=")); texts != fitted {
			t.Errorf("%s: %d of %d texts fit in any font", name, fitted, texts)
		}
		for _, text := range want {
			if !strings.Contains(string(first), text) {
				t.Errorf("%s lacks %q", name, text)
			}
		}
	}
}

func TestRatiosNeedTheBareVeth(t *testing.T) {
	r := read(t, "testdata/pictures.json")
	r.Rows = r.Rows[1:]
	if err := drawAll(r, t.TempDir(), "svg"); err == nil {
		t.Error("ratios were drawn without the bare veth")
	}
}

func TestTexts(t *testing.T) {
	for _, c := range []struct {
		unit   string
		values []float64
		want   []string
	}{
		{"s", []float64{0.0123}, []string{"12.3ms"}},
		{"s", []float64{0.48, 1.5}, []string{"480ms", "1500ms"}},
		{"MB", []float64{37, 39.7}, []string{"37.0MB", "39.7MB"}},
		{"", []float64{98000}, []string{"98.0k"}},
		{"ms", []float64{0, 2}, []string{"0", "2.00ms"}},
		{"%", []float64{0.04}, []string{"0.04%"}},
		{"x", []float64{0.931}, []string{"0.931x"}},
	} {
		if got := texts(c.unit, c.values...); !slices.Equal(got, c.want) {
			t.Errorf("%v %s are %q, want %q", c.values, c.unit, got, c.want)
		}
	}
}
