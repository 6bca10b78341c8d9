package ipmasq

// Stays says for each rule of want which rule of have it is, when that can stay
// where it is so that all end up in the order of want; else -1. What is there
// twice does not stay: to delete one of two by what it says is to delete the
// first.
func Stays[R comparable](have, want []R) []int {
	at := make(map[R]int, len(want))
	out := make([]int, len(want))
	for i, r := range want {
		at[r], out[i] = i, -1
	}
	times := make(map[R]int, len(have))
	for _, r := range have {
		times[r]++
	}
	next := 0
	for i, r := range have {
		if n, wanted := at[r]; wanted && times[r] == 1 && n >= next {
			out[n], next = i, n+1
		}
	}
	return out
}
