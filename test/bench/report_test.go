package main

import (
	"strings"
	"testing"
	"time"

	"flannel/internal/golden"
)

func TestTable(t *testing.T) {
	r := report{took: 90 * time.Second, load: 2, rows: []row{
		{Measure: "join", Samples: []float64{0.9, 0.5, 0.6}, Unit: seconds, Limit: atMost(0.8), Flannel: "3.3 s"},
		{Measure: "memory", Samples: []float64{41, 42}, Unit: megabytes, Limit: atMost(40)},
		{Measure: "  explanation", Samples: []float64{0.004}, Unit: percent},
		{Measure: "writes", Samples: []float64{0}, Limit: atMost(0)},
		{Measure: "not done", Unit: seconds, Limit: atMost(2)},
	}}
	var b strings.Builder
	if err := r.text(&b); err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, b.String(), "testdata/table.txt")
	b.Reset()
	if err := r.json(&b); err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, b.String(), "testdata/table.json")
}
