package gather

import (
	"flannel/internal/passage"
)

// filters reads what the packet filters do with packets that matter.
func (g gatherer) filters() {
	var err error
	g.facts.Drops, err = passage.Read(g.facts.Packets())
	g.source("packet filters", err)
}
