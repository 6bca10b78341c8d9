package main

import (
	"testing"
)

func TestPeersDifferInEverything(t *testing.T) {
	seen := map[string]bool{}
	for i := range maxPeers {
		p := nthPeer(i)
		for _, key := range []string{p.name(), p.public.String(), p.mac.String()} {
			if seen[key] {
				t.Fatalf("peer %d shares %s with another one", i, key)
			}
			seen[key] = true
		}
	}
}

func TestRecordIsWhatFlannelWrites(t *testing.T) {
	p := nthPeer(257)
	if got, want := p.name(), "10.61.1.0-24"; got != want {
		t.Errorf("name %s, want %s", got, want)
	}
	const want = `{"PublicIP":"100.64.1.1","PublicIPv6":null,"BackendType":"vxlan",` +
		`"BackendData":{"VNI":1,"VtepMAC":"02:66:00:00:01:01"}}`
	if got := p.value("vxlan"); got != want {
		t.Errorf("value %s, want %s", got, want)
	}
}

func TestNumbersOfPrometheus(t *testing.T) {
	n := parseNumbers("# HELP a text\na 1.5\nb{table=\"routes\"} 2\nb{table=\"fdb\"} 3\nbb 4\nbroken\n")
	if got := n["a"]; got != 1.5 {
		t.Errorf("a is %v", got)
	}
	if got := n.total("b"); got != 5 {
		t.Errorf("all of b is %v, want 5", got)
	}
}
