package doctor

import (
	"strings"
	"testing"

	"flannel/internal/ipfam"
)

func TestTheLimitOfNeighbors(t *testing.T) {
	f := &Facts{Settings: map[string]string{neighborLimits[0]: "1024"}}
	find := func(before, after uint64) (Finding, bool) {
		f.Overflows = Overflows{ipfam.Pair[uint64]{before}, ipfam.Pair[uint64]{after}}
		list := f.neighborLimit()
		if len(list) == 0 {
			return Finding{}, false
		}
		return list[0], true
	}
	if found, any := find(0, 0); any {
		t.Errorf("never full: got %+v", found)
	}
	if found, any := find(9, 9); !any || !found.Note || !strings.Contains(found.Problem, "was full 9 times since this host was started") {
		t.Errorf("full before: got %+v", found)
	}
	found, _ := find(9, 12)
	if found.Note || found.Problem != "the table of neighbors (ipv4) is full: 3 entries found no place while this ran; net.ipv4.neigh.default.gc_thresh3 is 1024" ||
		found.Command != "sysctl -w net.ipv4.neigh.default.gc_thresh2=2048 net.ipv4.neigh.default.gc_thresh3=4096" {
		t.Errorf("full: got %+v", found)
	}
	f.Settings = nil
	if found, any := find(9, 12); any {
		t.Errorf("in another namespace: got %+v", found)
	}
}
