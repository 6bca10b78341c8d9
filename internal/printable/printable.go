// Package printable makes text that others have written safe for a terminal and for a
// shell.
package printable

import (
	"strconv"
	"strings"
	"unicode"
)

// Text escapes as Go does what a terminal would obey or not show: control
// characters, line ends, and marks that change the direction of text.
func Text(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// Word writes a word so that every POSIX shell takes it as it is: names of files and
// devices are given by others.
func Word(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%_+=:,./-"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
