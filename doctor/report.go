package doctor

import (
	"encoding/json"
	"fmt"
	"io"
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
	// ExitUnchecked says that nothing was found, but not everything could be read.
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
		fmt.Fprintf(w, "Not read: %s: %s\n", u.Source, u.Problem)
	}
	if len(r.Unread) > 0 {
		fmt.Fprintln(w)
	}
	if verbose {
		fmt.Fprint(w, "Checked:")
		for _, name := range r.Checked {
			fmt.Fprint(w, " ", name)
		}
		fmt.Fprint(w, "\n")
	}
	fmt.Fprintf(w, "%s: %s\n", r.Host, r.summary())
}

func writeFinding(w io.Writer, head string, found Finding) {
	fmt.Fprintf(w, "%s%s: %s\n", head, found.Check, found.Problem)
	fmt.Fprintf(w, "   %s\n", found.Meaning)
	if found.Command != "" {
		fmt.Fprintf(w, "   Run: %s\n", found.Command)
	}
	fmt.Fprintf(w, "   See: %s\n\n", found.Page)
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
