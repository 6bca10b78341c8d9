package doctor

import (
	"os"
	"slices"
	"strings"
	"testing"

	"flannel/internal/testkit/golden"
)

func TestTheDocumentationListsTheChecks(t *testing.T) {
	golden.Equal(t, Document(Checks(), Preflight()), "../Documentation/doctor.md")
}

// TestEveryCheckHasItsTextAndAPage looks for the sections that the checks name.
func TestEveryCheckHasItsTextAndAPage(t *testing.T) {
	for _, c := range slices.Concat(Checks(), Preflight()) {
		if c.Name == "" || c.About == "" || c.Means == "" || c.Find == nil {
			t.Errorf("%q lacks something", c.Name)
		}
		page, section, _ := strings.Cut(c.More, "#")
		text, err := os.ReadFile("../Documentation/" + page)
		if err != nil {
			t.Error(err)
			continue
		}
		found := section == ""
		for line := range strings.Lines(string(text)) {
			if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && line[0] == '#' {
				found = found || strings.ReplaceAll(strings.ToLower(strings.TrimSpace(title)), " ", "-") == section
			}
		}
		if !found {
			t.Errorf("%s: there is no section %s in %s", c.Name, section, page)
		}
	}
}
