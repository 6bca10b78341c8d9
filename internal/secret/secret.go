// Package secret has the type of texts that must never be printed.
package secret

import "log/slog"

const redacted = "[redacted]"

// String is a password, key or token. However it is printed, logged or
// encoded, it shows as "[redacted]"; Reveal returns the text.
type String struct {
	// A pointer, because fmt prints the fields of an unexported field without
	// asking its methods.
	text *string
}

// New returns the secret that holds text.
func New(text string) String { return String{&text} }

// Reveal returns the text itself, for the one place that needs it.
func (s String) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsEmpty reports whether there is no secret.
func (s String) IsEmpty() bool { return s.Reveal() == "" }

// String implements fmt.Stringer.
func (s String) String() string {
	if s.IsEmpty() {
		return ""
	}
	return redacted
}

// GoString implements fmt.GoStringer, for %#v.
func (s String) GoString() string { return redacted }

// MarshalText implements encoding.TextMarshaler, for JSON and its like.
func (s String) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue implements slog.LogValuer.
func (s String) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Set implements flag.Value: a command line flag can be a secret.
func (s *String) Set(text string) error {
	s.text = &text
	return nil
}
