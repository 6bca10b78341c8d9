package page

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"flannel/backend"
	"flannel/network"
	"flannel/status"
)

var now = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// node is the report of a node with so many peers.
func node(peers int) *status.Report {
	r := &status.Report{
		Schema: status.Schema, From: status.FromDaemon, Ready: true, Problems: []string{},
		Status: &network.Status{
			Backend: "vxlan", Network: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			Lease: network.LeaseStatus{
				Name: "node-0", Subnet: []netip.Prefix{netip.MustParsePrefix("10.200.0.0/24")}, PublicIP: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
			},
			Uplink:   network.UplinkStatus{Name: "eth0", MTU: 1500, Addr: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Why: "default route"},
			Devices:  []network.DeviceStatus{{Name: "flannel.1", MTU: 1450}},
			LastPass: network.PassStatus{At: now.Add(-time.Second), Took: "1.5ms", Changes: 3},
		},
	}
	for i := 1; i <= peers; i++ {
		r.Status.Peers = append(r.Status.Peers, network.Peer{
			Name: fmt.Sprintf("node-%d", i), Family: "ipv4", Subnet: fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255), Via: fmt.Sprintf("172.16.%d.%d", i>>8, i&255),
			How: "tunnel", Why: "over flannel.1", Since: now.Add(-time.Duration(i) * time.Minute),
		})
	}
	return r
}

// steps stands for what the kernel reports of a way.
func steps(_ *status.Report, w *status.Way) {
	w.Steps = []status.Step{
		{Name: "lease", OK: true, Text: w.Peer.Name + " has " + w.Peer.Subnet},
		{Name: "route", OK: w.Peer.How == "tunnel", Text: w.Peer.Subnet + " over flannel.1", Command: "ip route get " + w.Addr.String()},
	}
}

// dead has a tunnel that does not carry packets any more, and one that is silent.
func dead() *status.Report {
	r := node(3)
	r.Problems = []string{"tunnel: 1 of 3 peers does not answer"}
	for i := range r.Status.Peers {
		r.Status.Peers[i].Probe = &backend.Probed{Verdict: backend.Fine, RoundTrip: 0.0004}
	}
	r.Status.Peers[1].Probe = &backend.Probed{Verdict: backend.Silent, Why: "has never answered"}
	r.Status.Peers[2].Probe = &backend.Probed{
		Verdict: backend.Broken, Why: "has not answered for 12s: UDP port 8472 is dropped on the way, or the peer is gone",
	}
	return r
}

// broken has a peer that is not reached, one that is left out, and a note.
func broken() *status.Report {
	r := node(3)
	r.Problems = []string{"peers: 2 left out or unreachable; /status names them"}
	r.Status.Peers[1].How, r.Status.Peers[1].Why = "unreachable", "put the FDB entry: no buffer space available"
	r.Status.Peers[2].How, r.Status.Peers[2].Why = "left out", "no public ipv4 address"
	r.Status.Peers[2].Via = ""
	return r
}

// get asks for a page.
func get(t *testing.T, r *status.Report, target string) *httptest.ResponseRecorder {
	t.Helper()
	p := &Page{Report: func() *status.Report { return r }, Explain: steps}
	rec := httptest.NewRecorder()
	p.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil))
	return rec
}

// rows returns the names of the peers in the table, in its order.
func rows(body string) (out []string) {
	for _, m := range regexp.MustCompile(`<td data-label="peer"><a [^>]*>([^<]*)<`).FindAllStringSubmatch(body, -1) {
		out = append(out, m[1])
	}
	return out
}

func TestTheTableSortsAndFiltersWithoutScript(t *testing.T) {
	for target, want := range map[string]string{
		"/":                               "node-2 node-3 node-1", // problems first
		"/?sort=peer":                     "node-1 node-2 node-3",
		"/?sort=subnet&down=1":            "node-3 node-2 node-1",
		"/?sort=for":                      "node-1 node-2 node-3",
		"/?q=172.16.0.1":                  "node-1",
		"/?q=OUT+node":                    "node-3",
		"/?q=nothing":                     "",
		"/?sort=nothing&peer=10.0.1.0/24": "node-2 node-3 node-1",
	} {
		if got := strings.Join(rows(get(t, broken(), target).Body.String()), " "); got != want {
			t.Errorf("%s: got %s, want %s", target, got, want)
		}
	}
}

func TestTheWayIsThatOfThePeerThatIsAskedFor(t *testing.T) {
	for target, want := range map[string]string{
		"/":                    "<h2>Way to node-2</h2><svg viewBox=\"0 0 480 250\" role=\"img\" class=\"bad\">",
		"/?peer=10.0.1.0%2F24": "<h2>Way to node-1</h2><svg viewBox=\"0 0 480 250\" role=\"img\" class=\"ok\">",
	} {
		if body := get(t, broken(), target).Body.String(); !strings.Contains(body, want) {
			t.Errorf("%s: no %s in\n%s", target, want, body)
		}
	}
	for _, target := range []string{"/?peer=10.9.9.0/24", "/?peer=8.8.8.8"} {
		if body := get(t, broken(), target).Body.String(); body == "" || strings.Contains(body, "<h2>Way") {
			t.Errorf("%s: a way to a peer that is not there", target)
		}
	}
}

func TestVerdictsHaveColourAndShape(t *testing.T) {
	body := get(t, dead(), "/").Body.String()
	for _, want := range []string{
		`<span class="ok">● fine</span>`, `<span class="warn">◆ silent</span>`, `<span class="bad">▲ broken</span>`, "0.4 ms", "Way to node-3",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
}

func TestAPageBeforeTheFirstPass(t *testing.T) {
	r := &status.Report{From: status.FromDaemon, Problems: []string{"waiting for: a pod CIDR of Node a"}}
	body := get(t, r, "/").Body.String()
	for _, want := range []string{"▲ not ready yet", "<b>waiting for</b> a pod CIDR of Node a"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
	if strings.Contains(body, "<table>") {
		t.Error("a table without peers")
	}
}

// Peers and their notes are written by others.
func TestWhatOthersWriteIsText(t *testing.T) {
	r := broken()
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>'` + "\u202e\x1b"
	for i := range r.Status.Peers {
		p := &r.Status.Peers[i]
		p.Name, p.Via, p.Why, p.Note, p.How = evil, evil, evil, evil, evil
	}
	r.Status.Uplink.Name, r.Problems = evil, []string{evil + ": " + evil}
	body := get(t, r, "/?q="+strings.Repeat("%22%3E%3Cscript%3E", 1)+"&sort=%22%3E%3Cscript%3E&peer=%22%3E%3Cscript%3E").Body.String() +
		get(t, r, "/").Body.String()
	if got := strings.Count(body, "<script"); got != 2 {
		t.Errorf("%d scripts in two pages", got)
	}
	for _, bad := range []string{"<img", `"><script>a`, "\u202e", "\x1b"} {
		if strings.Contains(body, bad) {
			t.Errorf("%q is in the page", bad)
		}
	}
}

func TestHeaders(t *testing.T) {
	rec := get(t, node(1), "/")
	policy := rec.Header().Get("Content-Security-Policy")
	if strings.Contains(policy, "unsafe") || !strings.HasPrefix(policy, "default-src 'none';") {
		t.Errorf("policy %s", policy)
	}
	rest := strings.Replace(rec.Body.String(), script, "", 1)
	if regexp.MustCompile(`(?i)(src|href|action)="?(https?:|//)|\bstyle="|\son[a-z]+="|url\(|@import`).MatchString(rest) {
		t.Error("the page asks others for something, or has a style or a handler in an attribute")
	}
	p := &Page{Report: func() *status.Report { return node(1) }}
	post := httptest.NewRecorder()
	p.ServeHTTP(post, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil))
	if post.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %d", post.Code)
	}
}

func BenchmarkPage(b *testing.B) {
	r := node(5000)
	p := &Page{Report: func() *status.Report { return r }}
	b.ReportAllocs()
	for b.Loop() {
		if !bytes.Contains(p.render(nil, now), []byte("node-5000")) {
			b.Fatal("not all peers")
		}
	}
}
