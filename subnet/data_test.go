package subnet

import (
	"encoding/json"
	"testing"
)

// FuzzBackendData compares the short way with the general parser.
func FuzzBackendData(f *testing.F) {
	usual := `{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`
	for _, text := range []string{
		usual, ` {"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`, `{"VNI":0,"VtepMAC":"02:00:00:00:00:01"}`, `{"VNI":01,"VtepMAC":"02:00:00:00:00:01"}`,
		`{"VNI":,"VtepMAC":"02:00:00:00:00:01"}`, `{"VNI":4294967296,"VtepMAC":"02:00:00:00:00:01"}`, `{"VNI":null,"VtepMAC":"x"}`,
		`{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}`, `{"VNI":1,"VtepMAC":"02:AA:00:00:00:01"}`,
		`{"VNI":1,"VtepMAC":"02:00:00:00:00:01","PublicKey":"x"}`, `{"PublicKey":"x"}`, `{"vni":7,"vtepmac":"x"}`, "", "null",
	} {
		f.Add(text)
	}
	if _, ok := ParseUsualData(usual); !ok {
		f.Errorf("not usual: %s", usual)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var record struct {
			VNI                *uint32
			VtepMAC, PublicKey string
		}
		want, wrong := BackendData{VNI: -1}, json.Unmarshal([]byte(text), &record)
		if wrong == nil {
			want.VtepMAC, want.PublicKey = record.VtepMAC, record.PublicKey
			if record.VNI != nil {
				want.VNI = int(*record.VNI)
			}
		}
		if got, err := ParseBackendData(text); got != want || (err == nil) != (wrong == nil) {
			t.Errorf("%q: got %+v, %v; want %+v, %v", text, got, err, want, wrong)
		}
	})
}
