package nstest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Dump returns the devices, addresses, permanent neighbors, FDB entries and
// routes of the namespace as sorted text in the words of the ip tool. Loopback,
// link-local and multicast entries, device indexes and the MACs of devices
// other than vxlan are left out, so that two runs give the same text.
func (n *NS) Dump() string {
	n.t.Helper()
	names := n.linkNames()
	var lines []string
	add := func(table, line string) { lines = append(lines, table+" "+strings.Join(strings.Fields(line), " ")) }
	for _, l := range n.links() {
		add("1 link", l.text())
		for _, entry := range nonEmpty(n.Bridge("fdb show dev", l.Name)) {
			if strings.Contains(entry, "self permanent") && strings.Contains(entry, " dst ") {
				add("3 fdb", strings.Replace(entry, " dst", " dev "+l.Name+" dst", 1))
			}
		}
	}
	for _, a := range nonEmpty(n.IP("-o addr show scope global")) {
		fields := strings.Fields(a)
		add("2 addr", fields[3]+" dev "+names[fields[1]])
	}
	for _, entry := range nonEmpty(n.IP("-4 neigh show nud permanent"), n.IP("-6 neigh show nud permanent")) {
		add("4 neigh", entry)
	}
	for _, r := range nonEmpty(n.IP("-4 route show"), n.IP("-6 route show")) {
		if !strings.HasPrefix(r, "fe80::") && !strings.HasPrefix(r, "ff00::") {
			add("5 route", r)
		}
	}
	slices.Sort(lines)
	var out strings.Builder
	for _, line := range lines {
		fmt.Fprintln(&out, line[2:])
	}
	return out.String()
}

// linkJSON is what the ip tool prints about a device.
type linkJSON struct {
	Name    string   `json:"ifname"`
	MTU     int      `json:"mtu"`
	Flags   []string `json:"flags"`
	Address string   `json:"address"`
	Alias   string   `json:"ifalias"`
	Master  string   `json:"master"`
	Info    struct {
		Kind string         `json:"info_kind"`
		Data map[string]any `json:"info_data"`
	} `json:"linkinfo"`
}

func (l linkJSON) text() string {
	state := "down"
	if slices.Contains(l.Flags, "UP") {
		state = "up"
	}
	line := fmt.Sprintf("%s %s mtu %d %s", l.Name, l.Info.Kind, l.MTU, state)
	if l.Info.Kind == "vxlan" {
		line += " address " + l.Address
		for _, key := range []string{"id", "local", "local6", "link", "port", "learning", "gbp"} {
			if v, ok := l.Info.Data[key]; ok {
				line += fmt.Sprintf(" %s %v", key, v)
			}
		}
	}
	if l.Master != "" {
		line += " master " + l.Master
	}
	if l.Alias != "" {
		line += fmt.Sprintf(" alias %q", l.Alias)
	}
	return line
}

// links lists all devices but loopback.
func (n *NS) links() []linkJSON {
	n.t.Helper()
	var links []linkJSON
	n.check(json.Unmarshal([]byte(n.IP("-j -d link show")), &links), "read the devices")
	return slices.DeleteFunc(links, func(l linkJSON) bool { return l.Name == "lo" })
}

// linkNames maps how the ip tool shows a name (veth0@veth1) to the name.
func (n *NS) linkNames() map[string]string {
	names := make(map[string]string)
	for _, line := range nonEmpty(n.IP("-o link show")) {
		shown := strings.TrimSuffix(strings.Fields(line)[1], ":")
		name, _, _ := strings.Cut(shown, "@")
		names[shown], names[name] = name, name
	}
	return names
}

func nonEmpty(texts ...string) []string {
	lines := strings.Split(strings.Join(texts, "\n"), "\n")
	return slices.DeleteFunc(lines, func(l string) bool { return strings.TrimSpace(l) == "" })
}
