package keeper

import (
	"fmt"
	"strings"

	"flannel/ipmasq"
)

// describe says for people what was written.
func describe(c ipmasq.Changes) string {
	var parts []string
	for _, t := range ipmasq.Tables() {
		if n, ok := c[t]; ok {
			parts = append(parts, fmt.Sprintf("%s: %d put, %d deleted", t, n.Put, n.Deleted))
		}
	}
	return strings.Join(parts, "; ")
}
