package printable

import "testing"

func TestText(t *testing.T) {
	for given, want := range map[string]string{
		"10.5.1.0/24 (Käfer): it's \"fine\" \\": "10.5.1.0/24 (Käfer): it's \"fine\" \\",
		"\x1b[2Ja\r\nb\tc\x07":                  `\x1b[2Ja\r\nb\tc\a`,
		"\u009b2J\u202eabc\x7f":                 `\u009b2J\u202eabc\x7f`,
		"not \xff text":                         "not \ufffd text",
	} {
		if got := Text(given); got != want {
			t.Errorf("%q: got %s, want %s", given, got, want)
		}
	}
}
