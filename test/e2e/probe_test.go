package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
	"flannel/probe"
)

// askLimit is how long an answer may take that somebody asks for.
const askLimit = 10 * time.Second

// askFor has a host probe another one and returns what that has shown in each
// family.
func askFor(t *testing.T, h, peer *lab.Host) []probe.Answer {
	t.Helper()
	e, err := peer.Env()
	lab.Must(t, err)
	var names []string
	for _, s := range ipfam.Prefixes(e.Masked()) {
		names = append(names, strings.ReplaceAll(s.String(), "/", "-"))
	}
	began := time.Now()
	code, body, err := h.Flanneld().Post(t.Context(), "/probe?peer="+url.QueryEscape(strings.Join(names, "&")))
	lab.Must(t, err)
	if took := time.Since(began); took > askLimit {
		t.Errorf("%s answers after %v", h.Name, took)
	}
	var answers probe.Answers
	if code == http.StatusOK {
		lab.Must(t, json.Unmarshal([]byte(body), &answers))
	}
	return answers.Peers
}

// awaitProbe asks until both families of a peer are as they should be.
func awaitProbe(t *testing.T, h, peer *lab.Host, check func(ipfam.Family, backend.Probed) bool) {
	t.Helper()
	eventually.Says(t, func() (string, bool) {
		answers := askFor(t, h, peer)
		good := len(answers) == 2
		for i, a := range answers {
			good = good && a.Probe != nil && check(ipfam.Family(i), *a.Probe)
		}
		text, _ := json.MarshalIndent(answers, "", " ")
		return fmt.Sprintf("%s of %s: %s", h.Name, peer.Name, text), good
	})
}

func verdict(want backend.Verdict) func(ipfam.Family, backend.Probed) bool {
	return func(_ ipfam.Family, p backend.Probed) bool { return p.Verdict == want }
}

// drop makes a host drop packets that arrive; the function that is returned ends
// that.
func drop(t *testing.T, h *lab.Host, rules ...string) func() {
	t.Helper()
	onHost(t, h, "nft add table inet cut")
	onHost(t, h, "nft add chain inet cut prerouting { type filter hook prerouting priority -300 ; }")
	for _, rule := range rules {
		onHost(t, h, "nft add rule inet cut prerouting "+rule+" drop")
	}
	return func() {
		t.Helper()
		onHost(t, h, "nft delete table inet cut")
	}
}

// TestDeadTunnelsAreNamed breaks the way between two of three hosts, in both
// families.
func TestDeadTunnelsAreNamed(t *testing.T) {
	for _, c := range []struct {
		backend string
		// packets matches what the overlay sends in each family, devices are those of
		// a peer that answer.
		packets ipfam.Pair[string]
		devices []string
		// added is what encapsulation adds to a packet. Where there is none the
		// answers are not cut with the requests of a direction.
		added ipfam.Pair[int]
	}{
		{"vxlan", ipfam.Pair[string]{"udp dport 8472", "udp dport 8472"}, []string{"flannel.1", "flannel-v6.1"}, ipfam.Pair[int]{50, 70}},
		{"udp", ipfam.Pair[string]{"udp dport 8285", "udp dport 8285"}, []string{"flannel0"}, ipfam.Pair[int]{28, 48}},
		{"host-gw", ipfam.Pair[string]{"icmp type echo-request", "icmpv6 type echo-request"}, []string{"cni0"}, ipfam.Pair[int]{}},
	} {
		t.Run(c.backend, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 3, Families: lab.Dual, Backend: fmt.Sprintf(`{"Type": %q}`, c.backend)})
			up(t, l)
			a, b, other := l.Hosts[0], l.Hosts[1], l.Hosts[2]
			for _, pair := range [][2]*lab.Host{{a, b}, {b, a}, {a, other}} {
				awaitProbe(t, pair[0], pair[1], verdict(backend.Fine))
			}
			restore := drop(t, b,
				fmt.Sprintf("ip saddr %s %s", a.Addr(ipfam.V4), c.packets[ipfam.V4]),
				fmt.Sprintf("ip6 saddr %s %s", a.Addr(ipfam.V6), c.packets[ipfam.V6]))
			awaitProbe(t, a, b, func(_ ipfam.Family, p backend.Probed) bool {
				return p.Verdict == backend.Broken && p.WayBack && strings.Contains(p.Why, "the way back works")
			})
			awaitProbe(t, a, other, verdict(backend.Fine))
			if c.added != (ipfam.Pair[int]{}) {
				awaitProbe(t, b, a, func(_ ipfam.Family, p backend.Probed) bool { return p.Verdict == backend.Broken && !p.WayBack })
			}
			restore()
			awaitProbe(t, a, b, verdict(backend.Fine))

			restore = drop(t, b, c.packets[:]...)
			restoreOther := drop(t, a, c.packets[:]...)
			awaitProbe(t, a, b, verdict(backend.Broken))
			awaitProbe(t, b, a, verdict(backend.Broken))
			restore()
			restoreOther()
			awaitProbe(t, a, b, verdict(backend.Fine))

			const underlay = 1400
			restore = drop(t, b, fmt.Sprintf("meta length > %d", underlay))
			awaitProbe(t, a, b, func(f ipfam.Family, p backend.Probed) bool {
				return p.Verdict == backend.Broken && p.Largest == underlay-c.added[f] && strings.Contains(p.Why, " the largest that arrive ")
			})
			restore()
			awaitProbe(t, a, b, verdict(backend.Fine))

			lab.Must(t, b.Kill())
			for _, dev := range c.devices {
				onHost(t, b, "ip link del "+dev)
			}
			awaitProbe(t, a, b, func(_ ipfam.Family, p backend.Probed) bool { return p.Verdict == backend.Broken && !p.WayBack })
			if c.added != (ipfam.Pair[int]{}) { // the bridge is the plugin's
				lab.Must(t, b.StartFlanneld())
				awaitProbe(t, a, b, verdict(backend.Fine))
			}
			if log := a.Log(); strings.Contains(log, "probes fail") {
				t.Errorf("what lasts seconds is reported as a whole:\n%s", log)
			}
		})
	}
}

// TestProbesOnDemandFollowTraffic: a peer that nobody talks to gets no entries.
func TestProbesOnDemandFollowTraffic(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2, Families: lab.Dual, Backend: onDemandBackend})
	lab.Must(t, l.Up(t.Context()))
	h, peer := l.Hosts[0], l.Hosts[1]
	for _, h := range l.Hosts {
		eventually.Says(t, func() (string, bool) {
			text := status(t, h)
			return text, strings.Count(text, "on demand") == 2
		})
	}
	if text := entriesOf(t, h, peer); text != "" {
		t.Fatalf("entries although nobody has asked:\n%s", text)
	}
	_, err := h.Pods()[0].Ping(t.Context(), peer.Pods()[0].Addr(ipfam.V4))
	lab.Must(t, err)
	eventually.Says(t, func() (string, bool) {
		text := status(t, h)
		return text, strings.Count(text, `"verdict": "fine"`) == 1
	})
	awaitProbe(t, h, peer, verdict(backend.Fine))
}

func TestWithoutNetRawTheRestWorks(t *testing.T) {
	script := filepath.Join(t.TempDir(), "flanneld")
	b := binaries(t)
	lab.Must(t, os.WriteFile(script, []byte("#!/bin/sh\nexec setpriv --bounding-set=-net_raw --inh-caps=-net_raw "+b.Flanneld+" \"$@\"\n"), 0o755))
	l := newLab(t, lab.Options{Hosts: 2, Network: `{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan"}}`})
	lab.Must(t, l.Hosts[1].StartFlanneld())
	d, err := l.Hosts[0].StartDaemon(lab.DaemonOptions{Binary: script})
	lab.Must(t, err)
	lab.Must(t, d.WaitReady(lab.Limited(t, waitLimit)))
	lab.Must(t, l.Hosts[1].WaitReady(lab.Limited(t, waitLimit)))
	const line = `msg="peers cannot be probed" err="open a raw socket: `
	eventually.Says(t, func() (string, bool) { return d.Log(), strings.Contains(d.Log(), line) })
	code, body, err := d.Post(t.Context(), "/probe?sample=1")
	if err != nil || code != http.StatusServiceUnavailable || !strings.Contains(body, "operation not permitted") {
		t.Errorf("a request for probes: %d %q %v", code, body, err)
	}
	// Tried again, logged once.
	eventually.True(t, "a pass after a device was deleted", func() bool {
		onHost(t, l.Hosts[0], "ip link set flannel.1 mtu 1300")
		return strings.Count(d.Log(), "kernel updated") > 2
	})
	if n := strings.Count(d.Log(), line); n != 1 {
		t.Errorf("logged %d times:\n%s", n, d.Log())
	}
	if _, body, err := d.Get(t.Context(), "/readyz"); err != nil || strings.TrimSpace(body) != "flanneld is ready" {
		t.Errorf("%q %v", body, err)
	}
}
