package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"flannel/internal/printable"
)

// Version is that of the JSON that a Report is written as. It changes if a field is
// removed or gets another meaning.
const Version = 1

// Report is what the checks found.
type Report struct {
	Version int    `json:"version"`
	Host    string `json:"host"`
	// Checked names the checks that were made.
	Checked []string `json:"checked"`
	// Findings are wrong, Notes may be harmless.
	Findings []Finding `json:"findings"`
	Notes    []Finding `json:"notes"`
	// Unread are the sources that could not be read; what depends on them was not
	// checked.
	Unread []Unread `json:"unread"`
}

// Examine makes the checks.
func Examine(host string, f *Facts, checks []Check) Report {
	r := Report{Version: Version, Host: host, Findings: []Finding{}, Notes: []Finding{}, Unread: append([]Unread{}, f.Unread...)}
	for _, c := range checks {
		r.Checked = append(r.Checked, c.Name)
		for _, found := range c.run(f) {
			if found.Note {
				r.Notes = append(r.Notes, found)
				continue
			}
			r.Findings = append(r.Findings, found)
		}
	}
	return r
}

// The exit codes.
const (
	ExitHealthy  = 0
	ExitFindings = 1
	// ExitUnchecked means that nothing was found, but not everything could be read.
	ExitUnchecked = 2
)

// ExitCode returns the exit code of the command.
func (r Report) ExitCode() int {
	switch {
	case len(r.Findings) > 0:
		return ExitFindings
	case len(r.Unread) > 0:
		return ExitUnchecked
	}
	return ExitHealthy
}

// WriteJSON writes the report for programs.
func (r Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteText writes the report for people; verbose adds notes and the names of the
// checks.
func (r Report) WriteText(w io.Writer, verbose bool) {
	for i, found := range r.Findings {
		writeFinding(w, fmt.Sprintf("%d. ", i+1), found)
	}
	if verbose {
		for _, found := range r.Notes {
			writeFinding(w, "Note: ", found)
		}
	}
	for _, u := range r.Unread {
		writeLine(w, "Not read: %s: %s", u.Source, u.Problem)
	}
	if len(r.Unread) > 0 {
		writeLine(w, "")
	}
	if verbose {
		writeLine(w, "Checked: %s", strings.Join(r.Checked, " "))
	}
	writeLine(w, "%s: %s", r.Host, r.summary())
}

func writeFinding(w io.Writer, head string, found Finding) {
	writeLine(w, "%s%s: %s", head, found.Check, found.Problem)
	writeLine(w, "   %s", found.Meaning)
	if found.Command != "" {
		writeLine(w, "   Run: %s", found.Command)
	}
	writeLine(w, "   See: flanneld doctor -explain %s", found.Check)
	writeLine(w, "")
}

// writeLine writes one line of text, whatever the names and messages of others in it
// hold.
func writeLine(w io.Writer, format string, args ...any) {
	fmt.Fprintln(w, printable.Text(fmt.Sprintf(format, args...)))
}

func (r Report) summary() string {
	text := fmt.Sprintf("%d findings in %d checks", len(r.Findings), len(r.Checked))
	switch len(r.Findings) {
	case 0:
		text = fmt.Sprintf("nothing found in %d checks", len(r.Checked))
	case 1:
		text = fmt.Sprintf("1 finding in %d checks", len(r.Checked))
	}
	if n := len(r.Unread); n > 0 {
		text += fmt.Sprintf(", %d sources not read", n)
	}
	return text
}
