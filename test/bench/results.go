package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"flannel/internal/atomicfile"
)

// named is a row with a name that no other row has.
type named struct {
	Name string `json:"name"`
	row
}

// named gives explaining rows the name of the row that they explain.
func (r report) named() []named {
	out := make([]named, 0, len(r.rows))
	parent := ""
	for _, row := range r.rows {
		name := row.Measure
		if child, explains := strings.CutPrefix(name, "  "); explains {
			name = parent + ": " + child
		} else {
			parent = name
		}
		out = append(out, named{name, row})
	}
	return out
}

// json writes what test/figures reads.
func (r report) json(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		About about   `json:"about"`
		Rows  []named `json:"rows"`
	}{r.about, r.named()})
}

// writeResults makes the file of results.
func (r report) writeResults(path string) error {
	var b strings.Builder
	if err := r.json(&b); err != nil {
		return err
	}
	return atomicfile.Write(path, []byte(b.String()), 0o644)
}

// The lines of a page between which its figures are.
const (
	pageBegin = "<!-- make bench writes from here -->\n"
	pageEnd   = "<!-- make bench writes to here -->\n"
)

// writePage replaces the figures of a page.
func (r report) writePage(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(text), pageBegin)
	_, after, ends := strings.Cut(rest, pageEnd)
	if !begins || !ends {
		return fmt.Errorf("%s lacks %q or %q", path, pageBegin, pageEnd)
	}
	return atomicfile.Write(path, []byte(before+pageBegin+r.markdown()+pageEnd+after), 0o644)
}
