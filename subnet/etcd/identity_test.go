package etcd

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzIdentity compares the short way with the general parser.
func FuzzIdentity(f *testing.F) {
	for _, data := range []string{
		`{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`, `{"VNI":01,"VtepMAC":"02:00:00:00:00:01"}`, `{"VNI":,"VtepMAC":"02:00:00:00:00:01"}`,
		` {"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`, `{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}`, `{"VNI":1,"VtepMAC":"02:AA:00:00:00:01"}`,
		`{"VNI":1,"VtepMAC":"02:00:00:00:00:01","PublicKey":"x"}`, `{"PublicKey":"x"}`, "", "null",
	} {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data string) {
		var id struct{ VtepMAC, PublicKey string }
		want := ""
		if json.Unmarshal([]byte(data), &id) == nil {
			want = strings.ToLower(id.VtepMAC) + id.PublicKey
		}
		if got := identity(data); got != want {
			t.Errorf("%q: got %q, want %q", data, got, want)
		}
	})
}
