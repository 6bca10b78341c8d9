package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// result is what became of the tests of one run, by their names.
type result map[string]outcome

// outcome is empty for a test that has passed.
type outcome struct {
	failed bool
	// text is the failure, or why the test was skipped.
	text string
}

func (o outcome) passed() bool { return o == outcome{} }

func readResult(file, focus string) (result, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseResult(raw, focus)
}

// parseResult reads the JUnit report of ginkgo, and from it what is in the
// focus: the suite lists all its other tests as skipped.
func parseResult(raw []byte, focus string) (result, error) {
	wanted, err := regexp.Compile(focus)
	if err != nil {
		return nil, err
	}
	var report struct {
		Suites []struct {
			Cases []struct {
				Name    string   `xml:"name,attr"`
				Status  string   `xml:"status,attr"`
				Failure *message `xml:"failure"`
				Error   *message `xml:"error"`
				Skipped *message `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(raw, &report); err != nil {
		return nil, fmt.Errorf("read the report of the suite: %w", err)
	}
	got := result{}
	for _, s := range report.Suites {
		for _, c := range s.Cases {
			name, isTest := testName(c.Name)
			bad := c.Failure.or(c.Error)
			switch {
			case !isTest && bad != nil:
				got[c.Name] = outcome{failed: true, text: bad.text()}
			case !isTest:
			case bad != nil:
				got[name] = outcome{failed: true, text: bad.text()}
			case c.Skipped == nil:
				got[name] = outcome{}
			case wanted.MatchString(name):
				got[name] = outcome{text: reason(name, strings.TrimPrefix(c.Skipped.Message, "skipped - "))}
			}
		}
	}
	return got, nil
}

type message struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Body    string `xml:",chardata"`
}

func (m *message) or(other *message) *message {
	if m != nil {
		return m
	}
	return other
}

func (m *message) text() string { return strings.TrimSpace(m.Message + "\n" + m.Body) }

var labels = regexp.MustCompile(` \[[^\]]*\]$`)

// testName cuts what ginkgo puts around the name of a test; other nodes than
// tests have no such name.
func testName(junit string) (string, bool) {
	name, found := strings.CutPrefix(junit, "[It] ")
	return labels.ReplaceAllString(name, ""), found
}

// report prints what became of a run, and returns how many tests have failed.
func (r result) report(w io.Writer, name string, took time.Duration) int {
	for _, test := range sorted(r) {
		if o := r[test]; o.failed {
			fmt.Fprintf(w, "FAILED %s\n  %s\n", test, strings.ReplaceAll(o.text, "\n", "\n  "))
		}
	}
	passed, failed, skipped := r.count()
	fmt.Fprintf(w, "%s: %d passed, %d failed, %d skipped in %s\n", name, passed, failed, skipped, took.Round(time.Second))
	return failed
}

func (r result) count() (passed, failed, skipped int) {
	for _, o := range r {
		switch {
		case o.passed():
			passed++
		case o.failed:
			failed++
		default:
			skipped++
		}
	}
	return passed, failed, skipped
}

func sorted(r result) []string {
	var names []string
	for name := range r {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
