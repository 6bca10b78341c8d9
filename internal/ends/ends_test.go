package ends

import "testing"

func TestCommonNeverCountsAnElementTwice(t *testing.T) {
	for _, c := range []struct {
		a, b         string
		head, tail   int
		restA, restB string
	}{
		{"", "", 0, 0, "", ""},
		{"abc", "abc", 3, 0, "", ""},
		{"abc", "", 0, 0, "abc", ""},
		{"abcd", "abxd", 2, 1, "c", "x"},
		{"aa", "aaa", 2, 0, "", "a"},
		{"abab", "ab", 2, 0, "ab", ""},
		{"xab", "yab", 0, 2, "x", "y"},
	} {
		head, tail := Common([]byte(c.a), []byte(c.b))
		restA, restB := Trim([]byte(c.a), []byte(c.b))
		if head != c.head || tail != c.tail || string(restA) != c.restA || string(restB) != c.restB {
			t.Errorf("%q, %q: got %d, %d, %q, %q, want %+v", c.a, c.b, head, tail, restA, restB, c)
		}
	}
}
