package metrics

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func TestNamesAreAsPrometheusWantsThem(t *testing.T) {
	m := New("v0")
	m.Peers("IPv4", "tunnel", 1)
	m.Packets("no-lease", func() uint64 { return 0 })
	m.Counter("flannel_misses_answered_total", "Times the kernel asked and got an answer.", func() float64 { return 0 })
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
