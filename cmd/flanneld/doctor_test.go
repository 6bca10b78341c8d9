package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flannel/kernel"
)

func TestWhatAPreflightWants(t *testing.T) {
	file := filepath.Join(t.TempDir(), "net-conf.json")
	for _, tt := range []struct {
		backend    string
		kind       string
		port, vni  int
		problem    string
		unknownKey string
	}{
		{`{"Type": "udp"}`, kernel.KindTUN, 8285, 0, "", ""},
		{`{"Type": "vxlan"}`, kernel.KindVXLAN, 8472, 1, "", ""},
		{`{"Type": "vxlan", "VNI": 7, "Port": 4789, "Prot": 1}`, kernel.KindVXLAN, 4789, 7, "", "Prot"},
		{`{"Type": "host-gw"}`, "", 0, 0, "", ""},
		{`{"Type": "wireguard"}`, "", 0, 0, `Backend.Type: "wireguard" is not allowed`, ""},
	} {
		if err := os.WriteFile(file, []byte(`{"Network": "10.244.0.0/16", "Backend": `+tt.backend+`}`), 0o600); err != nil {
			t.Fatal(err)
		}
		w := wanted(file)
		vni := 0
		if v := w.Encapsulation.VXLAN; v != nil {
			vni = v.VNI
		}
		if w.Kind() != tt.kind || w.Encapsulation.Port != tt.port || vni != tt.vni || len(w.Network) != 1 {
			t.Errorf("%s: got %+v", tt.backend, w)
		}
		if (w.Err != nil) != (tt.problem != "") || w.Err != nil && !strings.Contains(w.Err.Error(), tt.problem) {
			t.Errorf("%s: got %v, want %q", tt.backend, w.Err, tt.problem)
		}
		if got := strings.Join(w.Unknown, "\n"); tt.unknownKey == "" && got != "" || !strings.Contains(got, tt.unknownKey) {
			t.Errorf("%s: unknown keys %q", tt.backend, got)
		}
	}
}
