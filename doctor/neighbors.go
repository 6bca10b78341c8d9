package doctor

import (
	"fmt"
	"strconv"

	"flannel/internal/ipfam"
)

// Overflows is how often the neighbor tables had no place for an entry since this
// host was started: when the facts were begun, and at their end.
type Overflows struct{ Before, After ipfam.Pair[uint64] }

// neighborLimits are the settings that limit the tables. Other network namespaces
// than the first do not show them.
var neighborLimits = ipfam.Pair[string]{"net.ipv4.neigh.default.gc_thresh3", "net.ipv6.neigh.default.gc_thresh3"}

// neighborLimit finds a table that is full now. How many entries there are tells
// nothing: permanent ones, as those of the overlay, do not count.
func (f *Facts) neighborLimit() []Finding {
	var out []Finding
	for family, name := range neighborLimits {
		limit, err := strconv.Atoi(f.setting(name))
		grown := f.Overflows.After[family] - f.Overflows.Before[family]
		if err != nil || f.Overflows.After[family] == 0 {
			continue
		}
		found := Finding{
			Problem: fmt.Sprintf("the table of neighbors (%s) is full: %d entries found no place while this ran; %s is %d", ipfam.Family(family), grown, name, limit),
			Command: fmt.Sprintf("sysctl -w %s=%d %s=%d", thresh2[family], 2*limit, name, 4*limit),
		}
		if grown == 0 {
			found.Note = true
			found.Problem = fmt.Sprintf("the table of neighbors (%s) was full %d times since this host was started; %s is %d",
				ipfam.Family(family), f.Overflows.After[family], name, limit)
		}
		out = append(out, found)
	}
	return out
}

// thresh2 is where the kernel begins to remove entries; it must be below the limit.
var thresh2 = ipfam.Pair[string]{"net.ipv4.neigh.default.gc_thresh2", "net.ipv6.neigh.default.gc_thresh2"}
