// Package options reads a JSON object key by key: keys match in any case, an
// error names the key, the value and what is allowed, and keys that nobody
// asked for are reported with the nearest known one.
package options

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Object is a JSON object that is being read. Its methods set the destination
// only if the key is present and valid; problems are collected for Err.
type Object struct {
	values map[string]json.RawMessage // by key in lower case
	given  []string                   // keys as they were written
	known  []string
	errs   []error
}

// Parse reads a JSON object. Empty input is an empty object.
func Parse(raw []byte) (*Object, error) {
	o := &Object{values: map[string]json.RawMessage{}}
	if len(bytes.TrimSpace(raw)) == 0 {
		return o, nil
	}
	if err := json.Unmarshal(raw, &map[string]json.RawMessage{}); err != nil {
		return nil, fmt.Errorf("not a JSON object: %s", explain(raw, err))
	}
	if err := o.fields(raw); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	return o, nil
}

// fields takes the keys in the order in which they are written: of two that
// differ only in case the last one counts.
func (o *Object) fields(raw []byte) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	if _, err := d.Token(); err != nil { // the brace
		return err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		name, _ := key.(string)
		o.given = append(o.given, name)
		o.values[strings.ToLower(name)] = value
	}
	return nil
}

// explain adds line and column to a syntax error.
func explain(raw []byte, err error) string {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return "use {\"Key\": value, ...}"
	}
	before := raw[:min(int(syntax.Offset), len(raw))]
	line := 1 + bytes.Count(before, []byte("\n"))
	column := len(before) - bytes.LastIndexByte(before, '\n') - 1
	return fmt.Sprintf("line %d, column %d: %v", line, column, err)
}

// Raw returns the text of a key's value; it is nil if the key is absent or
// null.
func (o *Object) Raw(key string) json.RawMessage {
	if !slices.Contains(o.known, key) {
		o.known = append(o.known, key)
	}
	value := o.values[strings.ToLower(key)]
	if string(value) == "null" {
		return nil
	}
	return value
}

// Bool reads true or false.
func (o *Object) Bool(key string, dst *bool) {
	o.read(key, dst, "true or false")
}

// String reads a text.
func (o *Object) String(key string, dst *string) {
	o.read(key, dst, "a text")
}

// Int reads a whole number from low to high.
func (o *Object) Int(key string, dst *int, low, high int) {
	allowed := fmt.Sprintf("a whole number from %d to %d", low, high)
	var n int
	if !o.read(key, &n, allowed) {
		return
	}
	if n < low || n > high {
		o.Refuse(key, strconv.Itoa(n), allowed)
		return
	}
	*dst = n
}

// Prefix reads a network in CIDR notation; bits after the prefix are cleared.
func (o *Object) Prefix(key string, dst *netip.Prefix) {
	const allowed = "a network such as 10.244.0.0/16 or fd00:10:244::/56"
	var p netip.Prefix
	if !o.read(key, &p, allowed) {
		return
	}
	if !p.IsValid() { // the empty text
		o.Refuse(key, `""`, allowed)
		return
	}
	*dst = p.Masked()
}

// Addr reads an IP address without a zone.
func (o *Object) Addr(key string, dst *netip.Addr) {
	var a netip.Addr
	if !o.read(key, &a, "an IP address") {
		return
	}
	if !a.IsValid() { // the empty text
		o.Refuse(key, `""`, "an IP address")
		return
	}
	if a.Zone() != "" {
		o.Refuse(key, a.String(), "an IP address without a zone")
		return
	}
	*dst = a
}

func (o *Object) read(key string, dst any, allowed string) bool {
	raw := o.Raw(key)
	if raw == nil {
		return false
	}
	if err := json.Unmarshal(raw, dst); err != nil {
		o.Refuse(key, string(raw), allowed)
		return false
	}
	return true
}

// Refuse records that the value of a key is not allowed.
func (o *Object) Refuse(key, value, allowed string) {
	const longest = 80
	if len(value) > longest {
		value = value[:longest] + "..."
	}
	o.errs = append(o.errs, fmt.Errorf("%s: %s is not allowed: use %s", key, value, allowed))
}

// Require records that a key is missing.
func (o *Object) Require(key, allowed string) {
	o.errs = append(o.errs, fmt.Errorf("%s: missing: use %s", key, allowed))
}

// Err returns what was refused, in one line, or nil.
func (o *Object) Err() error {
	if len(o.errs) == 0 {
		return nil
	}
	texts := make([]string, len(o.errs))
	for i, err := range o.errs {
		texts[i] = err.Error()
	}
	return errors.New(strings.Join(texts, "; "))
}

// Unknown returns a line for each key that nobody asked for. It is called
// after all keys have been read.
func (o *Object) Unknown() []string {
	var lines []string
	for _, key := range o.given {
		same := func(k string) bool { return strings.EqualFold(k, key) }
		if slices.ContainsFunc(o.known, same) {
			continue
		}
		line := fmt.Sprintf("key %q is not known and has no effect", key)
		if near := o.nearest(key); near != "" {
			line += fmt.Sprintf("; did you mean %q?", near)
		}
		lines = append(lines, line)
	}
	return lines
}

func (o *Object) nearest(key string) string {
	best, distance := "", len(key)/2+1
	for _, known := range o.known {
		if d := levenshtein(strings.ToLower(key), strings.ToLower(known)); d < distance {
			best, distance = known, d
		}
	}
	return best
}

// levenshtein counts the edits of one byte that turn a into b.
func levenshtein(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
