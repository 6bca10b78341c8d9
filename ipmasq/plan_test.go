package ipmasq

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

func TestPlanKeepsWhatIsRight(t *testing.T) {
	network := Match{Prefix: netip.MustParsePrefix("10.244.0.0/16")}
	mark := Rule{Marked: true}
	want := []Rule{mark, {Src: network}, {Dst: network}, {Src: network, Do: Masquerade}}
	other, stale := Found{Owner: Other, Is: -1}, Found{Owner: Own, Is: -1}
	is := func(places ...int) (out []Found) {
		for _, i := range places {
			out = append(out, Found{[]Owner{Shared, Own, Own, Own}[i], i})
		}
		return out
	}
	tests := []struct {
		name   string
		found  []Found
		exists bool
		want   []Rule
		edit   Edit
	}{
		{"nothing is there", nil, false, want, Edit{Create: true, Puts: []Put{{0, AtFirst}, {1, 0}, {2, 0}, {3, 0}}}},
		{"all is there", is(0, 1, 2, 3), true, want, Edit{}},
		{"one is missing", is(0, 1, 3), true, want, Edit{Puts: []Put{{2, 2}}}},
		{"one is behind the next", is(0, 2, 1, 3), true, want, Edit{Delete: []int{2}, Puts: []Put{{1, 1}}}},
		{"the first is last", is(1, 2, 3, 0), true, want, Edit{Delete: []int{3}, Puts: []Put{{0, AtFirst}}}},
		{"one is there twice", is(0, 1, 2, 1, 3), true, want, Edit{Delete: []int{1, 3}, Puts: []Put{{1, 2}}}},
		{"one is wrong", slices.Concat(is(0, 1), []Found{stale}, is(3)), true, want, Edit{Delete: []int{2}, Puts: []Put{{2, 3}}}},
		{"others have rules ahead", slices.Concat([]Found{other}, is(2, 3)), true, want, Edit{Puts: []Put{{0, AtFirst}, {1, 1}}}},
		{"no shared one is wanted", []Found{{Shared, -1}}, true, want[1:2], Edit{Puts: []Put{{0, 1}}}},
		{"none is wanted", is(0, 1), true, nil, Edit{Delete: []int{0, 1}, Remove: true}},
		{"none is wanted, and others have rules", append(is(0, 1), other), true, nil, Edit{Delete: []int{1}}},
		{"none is wanted and none is there", nil, false, nil, Edit{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Plan(tt.found, tt.exists, tt.want); !reflect.DeepEqual(got, tt.edit) {
				t.Errorf("got %+v, want %+v", got, tt.edit)
			}
		})
	}
}
