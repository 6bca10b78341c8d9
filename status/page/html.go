package page

import (
	"bytes"
	"html"
	"strconv"
	"strings"
)

// markup is HTML that is part of this program. Only constants become markup by
// themselves; whatever else is written goes through text, which escapes it for
// element content and for quoted attribute values. There are no other places:
// html/template, which knows more of them, adds 5 MB to the program.
type markup string

// writer collects a page.
type writer struct{ bytes.Buffer }

func (w *writer) raw(m markup) { w.WriteString(string(m)) }

func (w *writer) text(s string) { w.WriteString(html.EscapeString(clean(s))) }

func (w *writer) number(n int) { w.WriteString(strconv.Itoa(n)) }

// element writes a tag, its text and the end tag.
func (w *writer) element(open markup, text string, end markup) {
	w.raw(open)
	w.text(text)
	w.raw(end)
}

// clean replaces control characters, among them those that change the direction
// of text, by a mark that can be seen.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}
