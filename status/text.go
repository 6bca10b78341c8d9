package status

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"flannel/backend"
	"flannel/network"
)

// WriteText writes a report for people; wide adds what does not fit into a usual
// terminal.
func (r *Report) WriteText(w io.Writer, now time.Time, wide bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, line := range r.Node(now) {
		fmt.Fprintf(t, "%s\t%s\n", line.Name, clean(line.Text))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.Status == nil || len(r.Status.Peers) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return r.writePeers(w, now, wide)
}

func (r *Report) writePeers(w io.Writer, now time.Time, wide bool) error {
	columns := Columns(r.Status, wide)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	var heads []string
	for _, c := range columns {
		heads = append(heads, strings.ToUpper(c.Name))
	}
	fmt.Fprintln(t, strings.Join(heads, "\t"))
	for _, p := range Sorted(r.Status.Peers) {
		var cells []string
		for _, c := range columns {
			cells = append(cells, clean(cmp.Or(c.Of(p, now), "-")))
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return t.Flush()
}

// clean takes control characters out of what others have written: a terminal would
// obey them.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// Column is one of the table of peers.
type Column struct {
	Name string
	Of   func(p network.Peer, now time.Time) string
}

// Columns are those of the table. What no peer has is left out.
func Columns(s *network.Status, wide bool) []Column {
	all := []Column{
		{"peer", func(p network.Peer, _ time.Time) string { return p.Name }},
		{"subnet", func(p network.Peer, _ time.Time) string { return p.Subnet }},
		{"address", func(p network.Peer, _ time.Time) string { return p.Via }},
		{"how", func(p network.Peer, _ time.Time) string { return p.How }},
		{"for", func(p network.Peer, now time.Time) string { return age(p.Since, now) }},
		{"probe", func(p network.Peer, _ time.Time) string {
			if p.Probe == nil {
				return ""
			}
			return string(p.Probe.Verdict)
		}},
		{"round trip", func(p network.Peer, _ time.Time) string {
			if p.Probe == nil || p.Probe.RoundTrip == 0 {
				return ""
			}
			return fmt.Sprintf("%.1f ms", p.Probe.RoundTrip*1000)
		}},
		{"remark", func(p network.Peer, _ time.Time) string { return Remark(p) }},
	}
	if wide {
		all = append(all[:len(all)-1],
			Column{"probe shows", func(p network.Peer, _ time.Time) string {
				if p.Probe == nil {
					return ""
				}
				return p.Probe.Why
			}},
			Column{"why", func(p network.Peer, _ time.Time) string { return p.Why }},
			Column{"note", func(p network.Peer, _ time.Time) string { return p.Note }})
	}
	var out []Column
	for _, c := range all {
		if slices.ContainsFunc(s.Peers, func(p network.Peer) bool { return c.Of(p, time.Time{}) != "" || c.Name == "for" && !p.Since.IsZero() }) {
			out = append(out, c)
		}
	}
	return out
}

// Remark is what to know of a peer beyond how it is reached.
func Remark(p network.Peer) string {
	switch {
	case !IsUsed(p):
		return p.Why
	case p.Probe != nil && p.Probe.Why != "":
		return p.Probe.Why
	}
	return p.Note
}

// Line is one of what is known of this node.
type Line struct{ Name, Text string }

// Node is what is known of this node.
func (r *Report) Node(now time.Time) []Line {
	lines := []Line{{"daemon", r.daemon()}}
	add := func(name, text string) {
		if text != "" {
			lines = append(lines, Line{name, text})
		}
	}
	if s := r.Status; s != nil {
		add("node", s.Lease.Name)
		add("lease", lease(s.Lease, now))
		add("network", join(s.Network))
		add("backend", backendOf(s))
		add("uplink", uplink(s.Uplink))
		add("public", join(s.Lease.PublicIP))
	}
	if r.From == FromDaemon {
		add("store", cmp.Or(r.problem("store"), "answers"))
		add("rules", cmp.Or(r.problem("rules"), "written"))
	}
	if s := r.Status; s != nil {
		add("peers", counts(s.Peers))
		if !s.LastPass.At.IsZero() {
			add("last pass", pass(s.LastPass, now))
		}
	}
	for _, d := range r.Devices {
		add("traffic", fmt.Sprintf("%s received %s in %d packets, sent %s in %d",
			d.Name, bytes(d.RxBytes), d.RxPackets, bytes(d.TxBytes), d.TxPackets))
	}
	for _, p := range r.Problems {
		name, text, found := strings.Cut(p, ": ")
		switch {
		case r.From == FromDaemon && (name == "store" || name == "rules"):
		case found && r.From == FromDaemon:
			add("! "+name, text)
		default:
			add("! "+"problem", p)
		}
	}
	return lines
}

func (r *Report) daemon() string {
	switch {
	case r.From == FromKernel:
		return r.NoAnswer + "; this is what the kernel and subnet.env show"
	case r.Ready && len(r.Problems) == 0:
		return "ready"
	case r.Ready:
		return "ready, with notes"
	}
	return "not ready yet"
}

// problem returns the text of a check that fails.
func (r *Report) problem(check string) string {
	for _, p := range r.Problems {
		if text, found := strings.CutPrefix(p, check+": "); found {
			return "! " + text
		}
	}
	return ""
}

func lease(l network.LeaseStatus, now time.Time) string {
	text := join(l.Subnet)
	if l.Expires != nil {
		text += ", expires in " + cmp.Or(age(now, *l.Expires), "0s")
	}
	return text
}

func backendOf(s *network.Status) string {
	text := s.Backend
	for i, d := range s.Devices {
		text += []string{" over ", ", "}[min(i, 1)] + fmt.Sprintf("%s (MTU %d)", d.Name, d.MTU)
	}
	return text
}

func uplink(u network.UplinkStatus) string {
	if u.Name == "" {
		return ""
	}
	text := fmt.Sprintf("%s, %s, MTU %d", u.Name, join(u.Addr), u.MTU)
	if u.Why != "" {
		text += ", found by " + u.Why
	}
	if u.Problem != "" {
		text += "; ! " + u.Problem
	}
	return text
}

func pass(p network.PassStatus, now time.Time) string {
	text := age(p.At, now) + " ago, took " + p.Took + ", wrote " + fmt.Sprint(p.Changes)
	if p.Error != "" {
		text += "; ! " + p.Error
	}
	return text
}

// counts sums the peers up by how they are reached, and by what is not fine.
func counts(peers []network.Peer) string {
	byHow, byVerdict := map[string]int{}, map[string]int{}
	for _, p := range peers {
		byHow[p.How]++
		if p.Probe != nil && p.Probe.Verdict != backend.Fine {
			byVerdict[string(p.Probe.Verdict)]++
		}
	}
	text := cmp.Or(list(byHow), "none")
	if len(byVerdict) > 0 {
		text += "; " + list(byVerdict)
	}
	return text
}

// list writes counts in the order of their names.
func list(counts map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[name], name))
	}
	return strings.Join(parts, ", ")
}

func join[T netip.Addr | netip.Prefix](list []T) string {
	texts := make([]string, len(list))
	for i, e := range list {
		texts[i] = fmt.Sprint(e)
	}
	return strings.Join(texts, ", ")
}

// age is the time from one moment to another in people's words; empty if there was
// no first one.
func age(from, to time.Time) string {
	if from.IsZero() || to.IsZero() {
		return ""
	}
	d := max(0, to.Sub(from))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// bytes is a number of bytes in people's words.
func bytes(n uint64) string {
	value, unit := float64(n), 0
	for value >= 1000 && unit < 4 {
		value, unit = value/1000, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %cB", value, "kMGT"[unit-1])
}
