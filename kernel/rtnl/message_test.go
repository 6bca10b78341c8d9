package rtnl

import (
	"testing"

	"golang.org/x/sys/unix"
)

func FuzzParse(f *testing.F) {
	f.Add([]byte{unix.AF_INET, 24, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0, 8, 0, 1, 0, 10, 0, 0, 0, 8, 0, 4, 0, 2, 0, 0, 0})
	f.Add([]byte{unix.AF_INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0, 20, 0, 9, 0, 16, 0, 0, 0, 2, 0, 0, 0, 8, 0, 5, 0, 10, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := ParseRoute(b)
		if ok && !r.Dst.IsValid() {
			t.Errorf("got %+v", r)
		}
		for range r.NextHops() {
			continue
		}
		ParseNeigh(b)
		ParseLinkEvent(Message{Body: b})
		if a, ok := ParseAddrEvent(Message{Body: b}); ok && !a.Addr.IsValid() {
			t.Errorf("got %+v", a)
		}
	})
}
