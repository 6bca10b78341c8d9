package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestTheChartTakesTheBackendsOfThisProgram compares the schema of its values,
// and what is written about it, with the table of backends.
func TestTheChartTakesTheBackendsOfThisProgram(t *testing.T) {
	const chart = "../../dist/chart/kube-flannel/"
	var schema struct {
		Properties struct {
			Flannel struct {
				Properties struct{ Backend struct{ Pattern string } }
			}
		}
	}
	if err := json.Unmarshal([]byte(readText(t, chart+"values.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, typ := range backends() {
		types = append(types, typ.Name)
	}
	slices.Sort(types)
	got, want := schema.Properties.Flannel.Properties.Backend.Pattern, "^(?i:"+strings.Join(types, "|")+")$"
	if got != want {
		t.Errorf("the schema takes %s, want %s", got, want)
	}
	last := len(types) - 1
	if list := strings.Join(types[:last], ", ") + " or " + types[last]; !strings.Contains(readText(t, chart+"values.yaml"), list) {
		t.Errorf("values.yaml does not say %q", list)
	}
	if list := "`" + strings.Join(types[:last], "`, `") + "` or `" + types[last] + "`"; !strings.Contains(readText(t, "../../Documentation/kubernetes.md"), list) {
		t.Errorf("kubernetes.md does not say %q", list)
	}
}

func TestTheGarbageCollectionIsDocumented(t *testing.T) {
	if want := fmt.Sprintf("grown by %d %%", gcPercent); !strings.Contains(readText(t, "../../Documentation/configuration.md"), want) {
		t.Errorf("configuration.md does not say %q", want)
	}
}
