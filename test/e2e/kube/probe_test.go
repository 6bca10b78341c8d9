package kube

import (
	"strings"
	"testing"
	"time"

	"flannel/internal/testkit/eventually"
	"flannel/lab"
)

// TestANodeWithoutPeersHasOneEvent: it lasts as long as nothing is reported that
// a restart explains.
func TestANodeWithoutPeersHasOneEvent(t *testing.T) {
	waits(t)
	l := newLab(t, lab.Options{Hosts: 4, Backend: `{"Type": "vxlan"}`})
	for _, h := range l.Hosts {
		lab.Must(t, h.StartFlanneld())
		ready(t, h)
	}
	h := l.Hosts[0]
	eventually.Says(t, func() (string, bool) {
		_, text, err := h.Flanneld().Get(t.Context(), "/status")
		lab.Must(t, err)
		return text, strings.Count(text, `"verdict": "fine"`) == 3
	})
	shell(t, h, "nft add table ip cut && nft add chain ip cut input '{ type filter hook input priority 0; }' && nft add rule ip cut input udp dport 8472 drop")
	eventually.Within(t, 3*time.Minute, func() (string, bool) {
		_, text, err := h.Flanneld().Get(t.Context(), "/readyz")
		lab.Must(t, err)
		return text, strings.HasPrefix(text, "flanneld is ready\n") && strings.Contains(text, "\noverlay: no peer answers: ")
	})
	awaitEvent(t, l, h, "OverlayBroken", "no peer answers: ")
	if n := strings.Count(h.Log(), "probes fail"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	for _, other := range l.Hosts[1:] {
		if strings.Contains(other.Log(), "probes fail") {
			t.Errorf("%s reports a peer that has failed for a minute", other.Name)
		}
	}
}
