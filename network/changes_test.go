package network

import (
	"slices"
	"testing"
	"time"

	"flannel/backend"
)

func TestSinceWhenAPeerIsReachedAsItIs(t *testing.T) {
	pass := func(before *result, at int64, peers ...backend.PeerStatus) *result {
		r := &result{at: time.Unix(at, 0), peers: peers}
		r.compare(before)
		return r
	}
	peer := func(name string, how backend.How) backend.PeerStatus { return backend.PeerStatus{Name: name, How: how} }
	a, b, c, d := peer("a", backend.Tunnel), peer("b", backend.Tunnel), peer("c", backend.Tunnel), peer("d", backend.Tunnel)
	first := pass(nil, 10, a, b, d)
	same := pass(first, 20, a, b, d)
	more := pass(same, 30, a, b, c, d)
	worse := pass(more, 40, a, peer("b", backend.Unreachable), c, d)
	b.Why = "another device"
	back := pass(worse, 50, a, b, c, d)
	b.Why = ""
	otherWhy := pass(back, 60, a, b, c, d)
	for _, test := range []struct {
		r    *result
		want []int64
	}{
		{first, []int64{10, 10, 10}}, {same, []int64{10, 10, 10}}, {more, []int64{10, 10, 30, 10}},
		{worse, []int64{10, 40, 30, 10}}, {back, []int64{10, 50, 30, 10}}, {otherWhy, []int64{10, 50, 30, 10}},
		{pass(otherWhy, 70, d), []int64{10}}, {pass(otherWhy, 80), nil},
	} {
		if !slices.Equal(test.r.since, test.want) {
			t.Errorf("at %d: got %v, want %v", test.r.at.Unix(), test.r.since, test.want)
		}
	}
}
