package iptables

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// LegacyNotice tells of rules that an earlier run has left in legacy tables
// and that nobody can remove without the legacy programs. Rules without which
// packets of pods would be dropped are not among them.
type LegacyNotice struct {
	Log  *slog.Logger
	once sync.Once
}

// Remove removes nothing; it says once what is left, with the commands.
func (n *LegacyNotice) Remove(_ context.Context, c ipmasq.Config) (ipmasq.Changes, error) {
	var commands []string
	for _, f := range ipfam.All() {
		for _, table := range ipmasq.Tables() {
			ch := chains[table]
			t, err := readLegacy(f, table)
			if err != nil || !c.Concerns(f) || !t.holds(ch, c) || table == ipmasq.Filter && t.needed(c) {
				continue
			}
			program := fmt.Sprintf("%s-legacy -t %s", names[f], table)
			commands = append(commands, fmt.Sprintf("%s -D %s %s; %s -F %s; %s -X %s",
				program, ch.base, ch.jump, program, ch.name, program, ch.name))
		}
	}
	if len(commands) > 0 {
		n.once.Do(func() {
			n.Log.Warn("legacy iptables tables hold rules of an earlier run, and the legacy programs are not on this host; "+
				"remove the rules where they are", "command", strings.Join(commands, "; "))
		})
	}
	return nil, nil
}

// holds reports whether the table has our chain and names our network.
func (t legacyTable) holds(ch chain, c ipmasq.Config) bool {
	if !bytes.Contains(t.blob, append([]byte(ch.name), 0)) {
		return false
	}
	for _, network := range c.Networks(t.family) {
		if bytes.Contains(t.blob, network.Addr().AsSlice()) {
			return true
		}
	}
	return false
}
