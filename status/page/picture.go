package page

import (
	"cmp"

	"flannel/network"
	"flannel/status"
)

// writeWay shows the way to a peer: a picture, and the steps.
func (v *view) writeWay() {
	w := &v.out
	p := v.way.Peer
	w.element("<h2>Way to ", cmp.Or(p.Name, p.Subnet), "</h2>")
	v.picture(p)
	if status.Judge(*p) == status.Bad {
		w.element(`<p class="bad">▲ `, status.Remark(*p), "</p>")
	}
	if len(v.way.Steps) == 0 {
		return
	}
	w.raw(`<ol class="steps">`)
	for _, s := range v.way.Steps {
		if s.OK {
			w.element(`<li><span class="ok">● `, s.Name, "</span> ")
		} else {
			w.element(`<li><span class="bad">▲ `, s.Name, "</span> ")
		}
		w.text(s.Text)
		if !s.OK && s.Command != "" {
			w.element("<br><code>", s.Command, "</code>")
		}
		w.raw("</li>")
	}
	w.raw("</ol>")
}

// picture has this node on the left and the peer on the right, each with its pods
// above what carries their packets.
func (v *view) picture(p *network.Peer) {
	w, s := &v.out, v.report.Status
	good := status.Judge(*p) != status.Bad
	for _, step := range v.way.Steps {
		good = good && step.OK
	}
	class, mark := "ok", "✓"
	if !good {
		class, mark = "bad", "✕"
	}
	w.element(`<svg viewBox="0 0 480 250" role="img" class="`, class, `"><title>`)
	w.element("", "From this node to "+cmp.Or(p.Name, p.Subnet)+": "+p.How, "</title>")
	device := "no device"
	if len(s.Devices) > 0 {
		device = s.Devices[0].Name
	}
	if p.How == "direct" {
		device = "route"
	}
	subnet, public := "", ""
	if len(s.Lease.Subnet) > 0 {
		subnet = s.Lease.Subnet[0].String()
	}
	if len(s.Uplink.Addr) > 0 {
		public = s.Uplink.Addr[0].String()
	}
	w.raw(`<path class="inner" d="M95 70V90M95 150V170M385 70V90M385 150V170"/>`)
	w.raw(`<path d="M185 200H295"/>`)
	if p.How != "direct" {
		w.raw(`<path class="tunnel" d="M185 120H295"/>`)
	}
	v.box(5, 10, "pods", subnet)
	v.box(5, 90, device, "this node")
	v.box(5, 170, s.Uplink.Name, public)
	v.box(295, 10, "pods", p.Subnet)
	v.box(295, 90, p.How, cmp.Or(p.Name, "the peer"))
	v.box(295, 170, "its host", p.Via)
	w.element(`<text class="mark" x="240" y="192">`, mark, "</text></svg>")
}

// longest is how much text fits into a box.
const longest = 22

// box is a part of the picture with two lines of text.
func (v *view) box(x, y int, first, second string) {
	w := &v.out
	w.raw(`<g><title>`)
	w.text(first + " " + second)
	w.raw(`</title><rect rx="8" width="180" height="60" x="`)
	w.number(x)
	w.raw(`" y="`)
	w.number(y)
	w.raw(`"/>`)
	for i, text := range []string{first, second} {
		w.raw(`<text x="`)
		w.number(x + 90)
		w.raw(`" y="`)
		w.number(y + 26 + 21*i)
		if i > 0 {
			w.raw(`" class="dim`)
		}
		w.element(`">`, cut(text), "</text>")
	}
	w.raw("</g>")
}

func cut(text string) string {
	runes := []rune(text)
	if len(runes) <= longest {
		return text
	}
	return string(runes[:longest-1]) + "…"
}
