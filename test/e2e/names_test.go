package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"flannel/internal/testkit/eventually"
	"flannel/internal/testkit/golden"
	"flannel/lab"
)

// TestTheNamesThatProgramsReadStay compares what other programs read of a
// daemon, names without values, with a list: monitoring, scripts and a flannel
// that returns depend on each.
func TestTheNamesThatProgramsReadStay(t *testing.T) {
	var b strings.Builder
	for _, nft := range []bool{false, true} {
		l := newLab(t, lab.Options{Hosts: 2, Families: lab.Dual, Network: fmt.Sprintf(
			`{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48", "EnableNFTables": %t, "Backend": {"Type": "vxlan"}}`, nft)})
		for _, h := range l.Hosts {
			h.Flags = []string{"--ip-masq"}
		}
		up(t, l)
		h := l.Hosts[0]
		if !nft {
			eventually.True(t, "a peer that was probed", func() bool {
				return strings.Contains(page(t, h, "/status"), "roundTripSeconds")
			})
			section(&b, "metrics", metricNames(page(t, h, "/metrics")))
			section(&b, "/status", keys(t, page(t, h, "/status")))
			section(&b, "files", lines(namespace.ReplaceAllString(onHost(t, h, "find /run/flannel "+lab.StateDir+" -type f"), "/lock/")))
			section(&b, "subnet.env", variables(onHost(t, h, "cat "+lab.DefaultSubnetFile)))
			section(&b, "devices", regexp.MustCompile(`flannel[.-][^ :]*`).FindAllString(onHost(t, h, "ip -oneline link show"), -1))
			section(&b, "iptables", append(chains(onHost(t, h, "iptables-save")), chains(onHost(t, h, "ip6tables-save"))...))
			continue
		}
		section(&b, "nftables", tables(onHost(t, h, "nft list ruleset")))
	}
	golden.Equal(t, b.String(), "testdata/names.txt")
}

// namespace is the part of a lock's name that shows in which network namespace it
// holds.
var namespace = regexp.MustCompile(`/lock/[0-9]+-[0-9]+-`)

func section(b *strings.Builder, title string, names []string) {
	fmt.Fprintf(b, "# %s\n%s\n\n", title, strings.Join(slices.Compact(slices.Sorted(slices.Values(names))), "\n"))
}

// page returns a page of the health port, whatever its code.
func page(t *testing.T, h *lab.Host, path string) string {
	t.Helper()
	_, body, err := h.Flanneld().Get(t.Context(), path)
	lab.Must(t, err)
	return body
}

func lines(text string) []string { return strings.Split(strings.TrimSpace(text), "\n") }

// metricNames returns the names of samples with those of their labels.
func metricNames(text string) (out []string) {
	value := regexp.MustCompile(`="[^"]*"`)
	for _, name := range regexp.MustCompile(`(?m)^flannel_\w+({[^}]*})?`).FindAllString(text, -1) {
		out = append(out, value.ReplaceAllString(name, ""))
	}
	return out
}

// keys returns the paths of all values of a JSON document; elements of lists
// and of objects whose keys are no words have none of their own.
func keys(t *testing.T, text string) (out []string) {
	t.Helper()
	var v any
	lab.Must(t, json.Unmarshal([]byte(text), &v))
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, key := range slices.Sorted(maps.Keys(v)) {
				walk(path+"."+key, v[key])
			}
		case []any:
			for _, each := range v {
				walk(path+"[]", each)
			}
		default:
			out = append(out, path)
		}
	}
	walk("", v)
	return out
}

// variables returns the names of the variables of a file.
func variables(text string) (out []string) {
	for _, line := range lines(text) {
		name, _, _ := strings.Cut(line, "=")
		out = append(out, name)
	}
	return out
}

// chains returns the chains of ours in iptables-save's output, and where one is
// called.
func chains(text string) (out []string) {
	table := ""
	for _, line := range lines(text) {
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
		case strings.HasPrefix(line, ":FLANNEL"):
			out = append(out, table+" "+fields[0][1:])
		case strings.HasPrefix(line, "-A") && strings.Contains(line, "-j FLANNEL"):
			out = append(out, table+" "+fields[1]+" -> "+fields[len(fields)-1])
		}
	}
	return out
}

// tables returns the tables, chains and sets of ours in nft's output.
func tables(text string) (out []string) {
	table := ""
	for _, line := range lines(text) {
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "table "):
			table = fields[1] + " " + fields[2]
		case strings.Contains(table, "flannel") && len(fields) == 3 && (fields[0] == "chain" || fields[0] == "set"):
			out = append(out, table+" "+fields[0]+" "+fields[1])
		}
	}
	return out
}
