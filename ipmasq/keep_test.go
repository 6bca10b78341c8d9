package ipmasq

import (
	"slices"
	"strings"
	"testing"
)

func TestKeepInOrder(t *testing.T) {
	tests := []struct {
		name, have, want string
		stay             []int
	}{
		{"all", "abc", "abc", []int{0, 1, 2}},
		{"none", "", "ab", []int{-1, -1}},
		{"nothing wanted", "abc", "", []int{}},
		{"one is gone", "ac", "abc", []int{0, -1, 1}},
		{"one is too many", "axbc", "abc", []int{0, 2, 3}},
		{"one is there twice", "abcb", "abc", []int{0, -1, 2}},
		{"two have changed places", "acb", "abc", []int{0, -1, 1}},
		{"the last is first", "cab", "abc", []int{-1, -1, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := KeepInOrder(strings.Split(tt.have, ""), strings.Split(tt.want, ""))
			if !slices.Equal(got, tt.stay) {
				t.Errorf("got %v, want %v", got, tt.stay)
			}
		})
	}
}
