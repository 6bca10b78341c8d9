package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
)

// result is what became of the tests of one run, by their names.
type result map[string]outcome

// outcome is empty for a test that has passed.
type outcome struct {
	Failed bool `json:"failed,omitempty"`
	// Text is the failure, or why the test was skipped.
	Text string `json:"text,omitempty"`
}

func (o outcome) passed() bool { return o == outcome{} }

// suiteName stands for the suite as a whole among the names of tests.
const suiteName = "e2e.test"

// parseResult reads the JUnit report of ginkgo, and from it what is in the
// focus: the suite lists all its other tests as skipped. A test of the focus that
// did not run has failed unless there is a reason, and so has the suite if it
// ended with an error that no failed test explains.
func parseResult(raw []byte, focus string, ended error) (result, error) {
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
				got[c.Name] = outcome{Failed: true, Text: bad.text()}
			case !isTest:
			case bad != nil:
				got[name] = outcome{Failed: true, Text: bad.text()}
			case c.Skipped == nil:
				got[name] = outcome{}
			case wanted.MatchString(name):
				why, allowed := reason(name, c.Skipped.Message)
				got[name] = outcome{Failed: !allowed, Text: why}
			}
		}
	}
	if _, failed, _ := got.count(); failed == 0 && ended != nil {
		got[suiteName] = outcome{Failed: true, Text: fmt.Sprintf("%v, and no test has failed", ended)}
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

// report prints what became of a run. It is an error unless a test has passed and
// none has failed.
func (r result) report(w io.Writer, name string, took time.Duration) error {
	for _, test := range sorted(r) {
		if o := r[test]; o.Failed {
			fmt.Fprintf(w, "FAILED %s\n  %s\n", test, strings.ReplaceAll(o.Text, "\n", "\n  "))
		}
	}
	passed, failed, skipped := r.count()
	fmt.Fprintf(w, "%s: %d passed, %d failed, %d skipped in %s\n", name, passed, failed, skipped, took.Round(time.Second))
	switch {
	case failed > 0:
		return fmt.Errorf("%d tests have failed", failed)
	case passed == 0:
		return errors.New("no test has passed")
	}
	return nil
}

func (r result) count() (passed, failed, skipped int) {
	for _, o := range r {
		switch {
		case o.passed():
			passed++
		case o.Failed:
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
