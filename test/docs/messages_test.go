package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// joined are two literals that make one text.
	joined = regexp.MustCompile("[\"`]\\s*\\+\\s*[\"`]")
	// quotedText is what stands in code marks.
	quotedText = regexp.MustCompile("`([^`]+)`")
)

// TestTheMessagesOfTroubleshootingAreSaid compares the first column of each
// table with the texts in the program. An ellipsis stands for what differs.
func TestTheMessagesOfTroubleshootingAreSaid(t *testing.T) {
	var program strings.Builder
	eachSource(t, func(_, text string) {
		program.WriteString(strings.ReplaceAll(joined.ReplaceAllString(text, ""), `\"`, `"`))
	})
	page, err := os.ReadFile(filepath.Join(root, "Documentation", "troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, tables, _ := strings.Cut(string(page), "\n## ") // the first table is about commands
	found := 0
	for line := range strings.Lines(tables) {
		first, ok := strings.CutPrefix(line, "| ")
		if !ok {
			continue
		}
		first, _, _ = strings.Cut(first, " |")
		for _, m := range quotedText.FindAllStringSubmatch(first, -1) {
			found++
			for part := range strings.SplitSeq(m[1], "…") {
				if part = strings.TrimSpace(part); !strings.Contains(program.String(), part) {
					t.Errorf("%q: nothing says %q", m[1], part)
				}
			}
		}
	}
	if found < 40 {
		t.Errorf("found only %d messages", found)
	}
}
