// Package ends finds what two lists have in common at their ends: of thousands of
// peers few change at a time.
package ends

// Common returns how many elements two lists have in common at the start, and how
// many of the rest at the end.
func Common[E comparable](a, b []E) (head, tail int) {
	n := min(len(a), len(b))
	for head < n && a[head] == b[head] {
		head++
	}
	for tail < n-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	return head, tail
}

// Trim cuts off what two lists have in common at the start and at the end.
func Trim[E comparable](a, b []E) (restA, restB []E) {
	head, tail := Common(a, b)
	return a[head : len(a)-tail], b[head : len(b)-tail]
}
