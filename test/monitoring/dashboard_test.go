package monitoring

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/grafana-tools/sdk"
	"github.com/prometheus/prometheus/promql/parser"
)

const dashboardFile = "../../dist/grafana/flannel.json"

// documented returns the metrics of the daemon, which another test compares with
// what it serves, and what Prometheus itself adds.
func documented(t *testing.T) map[string]bool {
	t.Helper()
	page, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"up": true, "process_cpu_seconds_total": true, "process_resident_memory_bytes": true}
	for _, m := range regexp.MustCompile("(?m)^\\| `(flannel_[a-z_]+)` \\| ([a-z]+)").FindAllStringSubmatch(string(page), -1) {
		known[m[1]] = true
		if m[2] == "histogram" {
			known[m[1]+"_bucket"], known[m[1]+"_sum"], known[m[1]+"_count"] = true, true, true
		}
	}
	return known
}

// metricsExist checks that an expression is valid and asks for known metrics.
func metricsExist(t *testing.T, known map[string]bool, where, query string) {
	t.Helper()
	expr, err := parser.ParseExpr(query)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if v, ok := node.(*parser.VectorSelector); ok && !known[v.Name] {
			t.Errorf("%s: no metric %q", where, v.Name)
		}
		return nil
	})
}

// board reads the dashboard as a client of Grafana's API does.
func board(t *testing.T) sdk.Board {
	t.Helper()
	raw, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var b sdk.Board
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDashboardIsGrafanas(t *testing.T) {
	b := board(t)
	if b.UID == "" || b.Title == "" || b.SchemaVersion == 0 || b.ID != 0 {
		t.Errorf("uid %q, title %q, schema %d, id %d", b.UID, b.Title, b.SchemaVersion, b.ID)
	}
	ids := map[uint]bool{}
	cells := map[[2]int]string{}
	for _, p := range b.Panels {
		if ids[p.ID] {
			t.Errorf("%s: a second panel has id %d", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.OfType == sdk.CustomType {
			t.Errorf("%s: panels of type %s are not Grafana's", p.Title, p.Type)
		}
		for x := range *p.GridPos.W {
			for y := range *p.GridPos.H {
				cell := [2]int{*p.GridPos.X + x, *p.GridPos.Y + y}
				if cells[cell] != "" || cell[0] >= 24 {
					t.Errorf("%s lies over %q", p.Title, cells[cell])
				}
				cells[cell] = p.Title
			}
		}
	}
}

// variables are what Grafana puts into a query.
var variables = strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*")

func TestDashboardAsksForMetricsThatExist(t *testing.T) {
	known := documented(t)
	queries := 0
	for _, p := range board(t).Panels {
		if p.OfType == sdk.RowType {
			continue
		}
		targets := p.GetTargets()
		if targets == nil || len(*targets) == 0 {
			t.Errorf("%s asks for nothing", p.Title)
			continue
		}
		if p.Description == nil || *p.Description == "" {
			t.Errorf("%s has no description", p.Title)
		}
		for _, q := range *targets {
			queries++
			metricsExist(t, known, p.Title, variables.Replace(q.Expr))
		}
	}
	if queries < 20 {
		t.Errorf("%d queries found", queries)
	}
}

func TestEveryMetricIsOnTheDashboard(t *testing.T) {
	raw, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	for name := range documented(t) {
		if strings.HasPrefix(name, "flannel_") && !strings.Contains(string(raw), name) && !strings.HasSuffix(name, "_sum") && !strings.HasSuffix(name, "_count") {
			t.Errorf("no panel shows %s", name)
		}
	}
}
