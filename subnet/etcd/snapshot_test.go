package etcd

import (
	"testing"

	"flannel/internal/testkit/etcdtest"
)

// TestReadAgainIsReadAll changes the store after a list was read.
func TestReadAgainIsReadAll(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Options{})
	one, two, three := stranger("10.5.10.0/24", 10), stranger("10.5.20.0/24", 20), stranger("10.5.30.0/24", 30)
	changes := map[string]func(*harness){
		"nothing":              func(*harness) {},
		"one more":             func(h *harness) { h.Put(t, stranger("10.5.15.0/24", 15), false) },
		"one changed":          func(h *harness) { h.Put(t, stranger("10.5.20.0/24", 21), false) },
		"one less":             func(h *harness) { h.Delete(t, two.Subnet) },
		"one less, one more":   func(h *harness) { h.Delete(t, one.Subnet); h.Put(t, stranger("10.5.40.0/24", 40), false) },
		"deleted and put back": func(h *harness) { h.Delete(t, three.Subnet); h.Put(t, three, false) },
		"none left":            func(h *harness) { h.Delete(t, one.Subnet); h.Delete(t, two.Subnet); h.Delete(t, three.Subnet) },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, server, ownPrefix())
			m := newManager(t, h.options())
			h.Put(t, one, false)
			h.Put(t, two, false)
			h.Put(t, three, false)
			before, err := m.readAll(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			change(h)
			got, err := m.readAgain(t.Context(), before)
			if err != nil {
				t.Fatal(err)
			}
			want, err := m.readAll(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(before.records) != 3 || got.rev != want.rev || len(got.records) != len(want.records) {
				t.Fatalf("%d records at revision %d, want %d at %d", len(got.records), got.rev, len(want.records), want.rev)
			}
			for i, r := range want.records {
				if !got.records[i].equal(r) {
					t.Errorf("got %+v, want %+v", got.records[i], r)
				}
			}
		})
	}
}
