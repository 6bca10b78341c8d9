package page

import (
	"flag"
	"net"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"flannel/internal/testkit/browser"
	"flannel/internal/testkit/nstest"
	"flannel/status"
)

// shots is where the test leaves pictures of the page, for people to look at.
var shots = flag.String("screenshots", "", "`folder` for screenshots")

// shown is a page in a browser.
type shown struct {
	*browser.Tab
	t      *testing.T
	url    string
	report atomic.Pointer[status.Report]
}

func show(t *testing.T, r *status.Report) *shown {
	t.Helper()
	ns := nstest.New(t)
	s := &shown{t: t}
	s.report.Store(r)
	server := httptest.NewUnstartedServer(&Page{Report: s.report.Load, Explain: steps})
	ns.Do(func() {
		var err error
		if server.Listener, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	server.Start()
	t.Cleanup(server.Close)
	s.Tab, s.url = browser.New(t, ns), server.URL+"/"
	return s
}

func (s *shown) shot(name string, width, height int, dark bool) {
	s.t.Helper()
	s.Resize(width, height, dark)
	if got := s.Eval(`document.documentElement.scrollWidth <= innerWidth`); got != "true" {
		s.t.Errorf("%s: the page is wider than its window", name)
	}
	if *shots != "" {
		s.Screenshot(filepath.Join(*shots, name+".png"))
	}
}

func (s *shown) want(expression, want string) {
	s.t.Helper()
	if got := s.Eval(expression); got != want {
		s.t.Errorf("%s: got %s, want %s", expression, got, want)
	}
}

func (s *shown) noErrors() {
	s.t.Helper()
	if len(s.Errors) > 0 {
		s.t.Errorf("the browser complains:\n%s", strings.Join(s.Errors, "\n"))
	}
}

const (
	visible = `[...document.querySelectorAll("#peers tr")].filter(r => !r.hidden).length + ""`
	first   = `[...document.querySelectorAll("#peers tr")].find(r => !r.hidden).cells[0].textContent`
	filter  = `(q.value = "WORD", q.dispatchEvent(new Event("input")), document.getElementById("count").textContent)`
)

func TestThreePeers(t *testing.T) {
	s := show(t, node(3))
	s.Resize(1200, 900, false)
	s.Open(s.url)
	s.shot("3-peers", 1200, 900, false)
	s.shot("3-peers-dark", 1200, 900, true)
	s.shot("3-peers-narrow", 360, 740, false)
	s.want(`getComputedStyle(document.querySelector(".ok")).color != getComputedStyle(document.body).color`, "true") // the style is allowed
	s.noErrors()
}

func TestABrokenTunnel(t *testing.T) {
	s := show(t, broken())
	s.Resize(1200, 900, false)
	s.Open(s.url)
	s.shot("broken", 1200, 900, false)
	s.shot("broken-dark-narrow", 360, 740, true)
	s.want(first, "node-2")
	s.report.Store(dead())
	s.Open(s.url)
	s.shot("dead", 1200, 900, false)
	s.shot("dead-narrow", 360, 1500, true)
	s.want(first, "node-3")
	s.want(`document.querySelector("svg").classList.contains("bad") + ""`, "true")

	// The script refreshes what has changed, and keeps the filter.
	s.Eval(strings.Replace(filter, "WORD", "node-2", 1))
	s.report.Store(node(3))
	s.want(`new Promise(done => { const wait = () => document.querySelector("#state .ok") ? done(true) : setTimeout(wait, 50); wait(); })`, "true")
	s.want(visible, "1")
	s.want(`document.querySelector("svg").classList.contains("bad") + ""`, "false")
	s.noErrors()
}

func TestFiveThousandPeers(t *testing.T) {
	s := show(t, node(5000))
	s.Resize(1200, 900, false)
	s.Open(s.url)
	s.want(`performance.now() < 30000`, "true")
	s.shot("5000-peers", 1200, 900, false)
	s.shot("5000-peers-narrow", 360, 740, false)
	s.want(visible, "5000")
	s.want(strings.Replace(filter, "WORD", "NODE-499 10.1.", 1), "1 of 5000")
	s.want(strings.Replace(filter, "WORD", "", 1), "5000 of 5000")
	s.Eval(`document.querySelectorAll("th a")[1].click()`)
	s.want(first, "node-1")
	s.Eval(`document.querySelectorAll("th a")[1].click()`)
	s.want(first, "node-5000")
	s.want(`document.querySelector("th[aria-sort]").textContent + document.querySelector("th[aria-sort]").getAttribute("aria-sort")`, "subnetdescending")
	s.noErrors()
}

func TestWithoutScript(t *testing.T) {
	s := show(t, broken())
	s.Script(false)
	s.Open(s.url + "?q=node-3&sort=subnet")
	s.want(visible, "1")
	s.want(`document.querySelector("meta[http-equiv=refresh]").content`, "10")
	s.shot("without-script", 1200, 900, false)
	s.noErrors()
}
