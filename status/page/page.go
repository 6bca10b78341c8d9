// Package page is the page of a node: the status in a browser.
package page

import (
	"cmp"
	"crypto/sha256"
	_ "embed" // for style and script
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"flannel/network"
	"flannel/status"
)

//go:embed page.css
var style string

//go:embed page.js
var script string

// Page serves the status of this node.
type Page struct {
	// Report returns the present state.
	Report func() *status.Report
	// Explain fills in the steps of a way; nil leaves them out.
	Explain func(*status.Report, *status.Way)
}

// policy allows the page its own style and script, and to read itself again.
var policy = fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
	hash(style), hash(script))

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// ServeHTTP implements http.Handler.
func (p *Page) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(p.render(req.URL.Query(), time.Now())) // the client is gone when this fails
}

// render returns the page that a query asks for.
func (p *Page) render(query url.Values, now time.Time) []byte {
	r := p.Report()
	v := view{report: r, query: query, now: now}
	if r.Status != nil {
		v.peers = v.chosen(status.Sorted(r.Status.Peers))
		v.way = v.wayTo(query.Get("peer"))
		if v.way != nil && p.Explain != nil {
			p.Explain(r, v.way)
		}
	}
	v.write()
	return v.out.Bytes()
}

// view is one page.
type view struct {
	report *status.Report
	query  url.Values
	now    time.Time
	// peers are those to show, way is that to one of them; nil if there is none.
	peers []network.Peer
	way   *status.Way
	out   writer
}

// columns are those of the table.
func (v *view) columns() []status.Column {
	return status.Columns(v.report.Status, false)
}

// chosen filters and sorts as the query asks; the script does the same without
// asking again.
func (v *view) chosen(peers []network.Peer) []network.Peer {
	columns := v.columns()
	words := strings.Fields(strings.ToLower(v.query.Get("q")))
	peers = slices.DeleteFunc(peers, func(p network.Peer) bool {
		var row strings.Builder
		for _, c := range columns {
			row.WriteString(strings.ToLower(c.Of(p, v.now)) + " ")
		}
		return slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(row.String(), word) })
	})
	i := slices.IndexFunc(columns, func(c status.Column) bool { return c.Name == v.query.Get("sort") })
	if i < 0 {
		return peers
	}
	down := v.query.Get("down") != ""
	slices.SortStableFunc(peers, func(a, b network.Peer) int {
		if down {
			a, b = b, a
		}
		return columns[i].Compare(a, b)
	})
	return peers
}

// wayTo is the way to the peer of this subnet, or else to the first one.
func (v *view) wayTo(subnet string) *status.Way {
	if subnet == "" && len(v.peers) > 0 {
		subnet = v.peers[0].Subnet
	}
	ways, err := v.report.Find(subnet)
	if subnet == "" || err != nil || ways[0].Peer == nil {
		return nil
	}
	return &ways[0]
}

func (v *view) write() {
	w := &v.out
	name := "this node"
	if s := v.report.Status; s != nil {
		name = cmp.Or(s.Lease.Name, name)
	}
	w.raw(`<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">`)
	w.raw(`<noscript><meta http-equiv="refresh" content="10"></noscript>`)
	w.element("<title>", name+" - flanneld", "</title><style>")
	w.WriteString(style)
	w.raw("</style></head><body><header>")
	w.element("<h1>", name, "</h1>")
	w.raw(`</header><p id="away" class="away bad" role="alert">▲ flanneld does not answer; this is what it said last</p>`)
	v.state()
	w.raw(`<div class="two"><section aria-label="Node">`)
	v.node()
	w.raw(`</section><section aria-label="Way to a peer"><div id="way">`)
	if v.way != nil {
		v.writeWay()
	}
	w.raw("</div></section></div>")
	if v.report.Status != nil {
		v.table()
	}
	w.raw("<script>")
	w.WriteString(script)
	w.raw("</script></body></html>\n")
}

// state is whether the node is ready, and what is missing or worth knowing.
func (v *view) state() {
	w, r := &v.out, v.report
	w.raw(`<div id="state"><p>`)
	switch {
	case !r.Ready:
		w.raw(`<span class="bad">▲ not ready yet</span>`)
	case len(r.Problems) > 0:
		w.raw(`<span class="warn">◆ ready, with notes</span>`)
	default:
		w.raw(`<span class="ok">● ready</span>`)
	}
	w.element(` <time class="dim" datetime="`, v.now.UTC().Format(time.RFC3339), `">`)
	w.element("", v.now.UTC().Format("2006-01-02 15:04:05 UTC"), "</time></p>")
	if len(r.Problems) > 0 {
		w.raw(`<ul class="notes">`)
		for _, p := range r.Problems {
			name, text, _ := strings.Cut(p, ": ")
			w.raw("<li")
			if !r.Ready {
				w.raw(` class="need"`)
			}
			w.element("><b>", name, "</b> ")
			w.element("", text, "</li>")
		}
		w.raw("</ul>")
	}
	w.raw("</div>")
}

func (v *view) node() {
	w := &v.out
	w.raw(`<div id="node"><h2>Node</h2><dl>`)
	for _, line := range v.report.Node(v.now) {
		if line.Name == "daemon" || line.Name == "node" || strings.HasPrefix(line.Name, "! ") {
			continue // they are above
		}
		w.element("<dt>", line.Name, "</dt>")
		w.element("<dd>", line.Text, "</dd>")
	}
	w.raw("</dl></div>")
}
