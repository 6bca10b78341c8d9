package monitoring

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"gopkg.in/yaml.v3"
)

const (
	alertsFile = "../../dist/prometheus/alerts.yml"
	pageFile   = "../../Documentation/monitoring.md"
)

// unitTests are series, and the alerts that fire with them.
type unitTests struct {
	Tests []struct {
		Name     string
		Interval model.Duration
		Series   []struct{ Series, Values string } `yaml:"input_series"`
		Cases    []struct {
			At     model.Duration `yaml:"eval_time"`
			Alert  string         `yaml:"alertname"`
			Firing []struct {
				Labels map[string]string `yaml:"exp_labels"`
			} `yaml:"exp_alerts"`
		} `yaml:"alert_rule_test"`
	}
}

func readTests(t *testing.T) unitTests {
	t.Helper()
	file, err := os.Open("testdata/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var u unitTests
	d := yaml.NewDecoder(file)
	d.KnownFields(true)
	if err := d.Decode(&u); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	for _, unit := range readTests(t).Tests {
		t.Run(unit.Name, func(t *testing.T) {
			var load strings.Builder
			fmt.Fprintf(&load, "load %s\n", unit.Interval)
			for _, s := range unit.Series {
				fmt.Fprintf(&load, "  %s %s\n", s.Series, s.Values)
			}
			want := map[time.Duration]map[string][]string{}
			var end time.Duration
			for _, c := range unit.Cases {
				at := time.Duration(c.At)
				if want[at] == nil {
					want[at] = map[string][]string{}
				}
				end = max(end, at)
				want[at][c.Alert] = []string{}
				for _, f := range c.Firing {
					want[at][c.Alert] = append(want[at][c.Alert], labelText(f.Labels))
				}
			}
			evaluate(t, load.String(), end, func(at time.Duration, firing map[string][]string) {
				for alert, labels := range want[at] {
					if !slices.Equal(firing[alert], labels) {
						t.Errorf("%s after %s: got %q, want %q", alert, at, firing[alert], labels)
					}
				}
			})
		})
	}
}

// evaluate runs the rules over series, once a minute until end, and tells seen
// the labels of the alerts that fire, by name.
func evaluate(t *testing.T, series string, end time.Duration, seen func(at time.Duration, firing map[string][]string)) {
	t.Helper()
	suite, err := promqltest.NewLazyLoader(series, promqltest.LazyLoaderOpts{EnableAtModifier: true, EnableNegativeOffset: true})
	if err != nil {
		t.Fatal(err)
	}
	defer suite.Close()
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc:  rules.EngineQueryFunc(suite.QueryEngine(), suite.Storage()),
		Appendable: suite.Storage(),
		Context:    t.Context(),
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {},
		Logger:     promslog.NewNopLogger(),
	})
	groups, errs := manager.LoadGroups(time.Minute, labels.EmptyLabels(), "", nil, false, alertsFile)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for at := time.Duration(0); at <= end; at += time.Minute {
		now := time.Unix(0, 0).Add(at)
		suite.WithSamplesTill(now, func(err error) {
			if err != nil {
				t.Fatal(err)
			}
			for group := range maps.Values(groups) {
				group.Eval(t.Context(), now)
			}
		})
		firing := map[string][]string{}
		for group := range maps.Values(groups) {
			for _, rule := range group.AlertingRules() {
				if err := rule.LastError(); err != nil {
					t.Fatalf("%s: %v", rule.Name(), err)
				}
				firing[rule.Name()] = firingLabels(rule)
			}
		}
		seen(at, firing)
	}
}

func firingLabels(rule *rules.AlertingRule) []string {
	out := []string{}
	for _, a := range rule.ActiveAlerts() {
		if a.State != rules.StateFiring {
			continue
		}
		found := a.Labels.Map()
		delete(found, "alertname")
		out = append(out, labelText(found))
	}
	slices.Sort(out)
	return out
}

func labelText(labels map[string]string) string { return fmt.Sprint(labels) }

func alertRules(t *testing.T) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(alertsFile, false)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var out []rulefmt.Rule
	for _, g := range groups.Groups {
		out = append(out, g.Rules...)
	}
	return out
}

func TestAlertsAreTestedAndExplained(t *testing.T) {
	page, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	fires := map[string]bool{}
	for _, unit := range readTests(t).Tests {
		for _, c := range unit.Cases {
			fires[c.Alert] = fires[c.Alert] || len(c.Firing) > 0
		}
	}
	for _, r := range alertRules(t) {
		if !fires[r.Alert] {
			t.Errorf("%s never fires in testdata/alerts.yml", r.Alert)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || r.Labels["severity"] == "" {
			t.Errorf("%s has no summary, description or severity", r.Alert)
		}
		if !strings.Contains(string(page), "| `"+r.Alert+"` |") {
			t.Errorf("%s is not in %s", r.Alert, pageFile)
		}
	}
}

func TestAlertsAskForMetricsThatExist(t *testing.T) {
	known := documented(t)
	for _, r := range alertRules(t) {
		metricsExist(t, known, r.Alert, r.Expr)
	}
}
