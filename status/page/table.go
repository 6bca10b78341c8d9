package page

import (
	"cmp"
	"net/url"
	"strconv"

	"flannel/network"
	"flannel/status"
)

// table shows the peers, with a filter and links that sort: both work without
// script.
func (v *view) table() {
	w := &v.out
	w.raw(`<h2>Peers</h2><form role="search"><label for="q">Filter</label><input id="q" name="q" type="search" autocomplete="off" value="`)
	w.text(v.query.Get("q"))
	w.raw(`">`)
	for _, name := range []string{"peer", "sort", "down"} {
		if value := v.query.Get(name); value != "" {
			w.element(`<input type="hidden" name="`, name, `" value="`)
			w.element("", value, `">`)
		}
	}
	w.raw(`<button id="go">Filter</button> <span id="count" role="status">`)
	w.number(len(v.peers))
	w.raw(" of ")
	w.number(len(v.report.Status.Peers))
	w.raw(`</span></form><table><thead id="heads"><tr>`)
	columns := v.columns()
	for _, c := range columns {
		v.head(c)
	}
	w.raw(`</tr></thead><tbody id="peers">`)
	toPeer := v.link("peer", "") // and its subnet behind it
	for _, p := range v.peers {
		v.row(columns, p, toPeer)
	}
	w.raw("</tbody></table>")
}

// head is the head of a column, a link that sorts by it.
func (v *view) head(c status.Column) {
	w := &v.out
	sorted, down := v.query.Get("sort") == c.Name, v.query.Get("down") != ""
	w.raw(`<th scope="col"`)
	switch {
	case sorted && down:
		w.raw(` aria-sort="descending"`)
	case sorted:
		w.raw(` aria-sort="ascending"`)
	}
	turn := ""
	if sorted && !down {
		turn = "1"
	}
	w.element(`><a href="`, v.link("sort", c.Name, "down", turn), `">`)
	w.element("", c.Name, "</a></th>")
}

// link is this page with other values in its query.
func (v *view) link(pairs ...string) string {
	query := url.Values{}
	for _, name := range []string{"q", "peer", "sort", "down"} {
		query.Set(name, v.query.Get(name))
	}
	for i := 0; i < len(pairs); i += 2 {
		query.Set(pairs[i], pairs[i+1])
	}
	for name := range query {
		if query.Get(name) == "" {
			query.Del(name)
		}
	}
	return "?" + query.Encode()
}

func (v *view) row(columns []status.Column, p network.Peer, toPeer string) {
	w := &v.out
	w.raw("<tr")
	if v.way != nil && v.way.Peer.Subnet == p.Subnet {
		w.raw(` class="on"`)
	}
	w.raw(">")
	for i, c := range columns {
		w.element(`<td data-label="`, c.Name, `"`)
		if c.Name == "for" {
			w.element(` data-key="`, strconv.FormatInt(v.now.Unix()-p.Since.Unix(), 10), `"`)
		}
		w.raw(">")
		text := c.Of(p, v.now)
		switch {
		case i == 0 && p.Subnet != "":
			w.element(`<a href="`, toPeer+"&peer="+url.QueryEscape(p.Subnet), `">`)
			w.element("", cmp.Or(text, p.Subnet), "</a>")
		case c.Name == "how" && !status.IsUsed(p), c.Name == "how" && p.Probe == nil, c.Name == "probe" && p.Probe != nil:
			v.verdict(p, text)
		default:
			w.text(text)
		}
		w.raw("</td>")
	}
	w.raw("</tr>\n")
}

// verdict is a word with a colour and a shape: either alone tells.
func (v *view) verdict(p network.Peer, text string) {
	w := &v.out
	switch status.Judge(p) {
	case status.Good:
		w.element(`<span class="ok">● `, text, "</span>")
	case status.Bad:
		w.element(`<span class="bad">▲ `, text, "</span>")
	default:
		w.element(`<span class="warn">◆ `, text, "</span>")
	}
}
