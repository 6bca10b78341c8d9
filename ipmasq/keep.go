package ipmasq

// KeepInOrder finds for each rule of want the rule of have that can stay where it is
// so that all end up in the order of want, or -1. Duplicates are not kept: rules are
// deleted by their text, which deletes the first one with that text.
func KeepInOrder[R comparable](have, want []R) []int {
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
