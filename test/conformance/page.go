package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const pageHead = `# Conformance

The network tests of Kubernetes' own end-to-end suite, unchanged, run against clusters of two
nodes whose network is [the manifest](kube-flannel.yml) or one of its variants: all tests of
` + "`[sig-network]`" + ` that are tagged ` + "`[Conformance]`" + `, the other tests of ` + "`Networking`" + ` and, with both
families, those of ` + "`[Feature:IPv6DualStack]`" + `. ` + "`make conformance`" + ` runs them and writes this
page; ` + "`make test`" + ` runs the four of ` + "`Granular Checks: Pods`" + ` and ` + "`DNS for the cluster`" + ` over vxlan.

`

const pageEnd = `
## CNI

` + "`cnitool`" + ` of the CNI project calls the manifest's chain of plugins on a node that a real
flanneld has prepared, with CNI versions 0.3.1, 0.4.0, 1.0.0 and 1.1.0: ADD, CHECK (not in
0.3.1), DEL, GC and STATUS (plugins are called from 1.1.0 on). Its library checks
configurations, versions and results. The CNI project has no other test suite for plugins.
This is part of ` + "`make test`" + `.
`

// page is the Markdown page of all runs. Runs without a result are left out.
func page(results map[string]kept) string {
	var names []string
	all := result{}
	for _, r := range runs() {
		if len(results[r.name].Tests) == 0 {
			continue
		}
		names = append(names, r.name)
		maps.Copy(all, results[r.name].Tests)
	}
	var b strings.Builder
	b.WriteString(pageHead)
	columns := []string{"run", "passed", "failed", "skipped", "Kubernetes", "commit", "date"}
	writeRow(&b, columns...)
	writeRow(&b, slices.Repeat([]string{"---"}, len(columns))...)
	for _, n := range names {
		k := results[n]
		passed, failed, skipped := k.Tests.count()
		writeRow(&b, n, fmt.Sprint(passed), fmt.Sprint(failed), fmt.Sprint(skipped), k.From.Kubernetes, k.From.Commit, k.From.Date)
	}
	b.WriteString("\n## Skipped\n\nNo test is skipped because it fails.\n\n")
	writeRow(&b, "test", "reason")
	writeRow(&b, "---", "---")
	for _, test := range sorted(all) {
		if reason, skipped := skippedIn(results, test); skipped {
			writeRow(&b, shorten(test), reason)
		}
	}
	b.WriteString("\n## Tests\n\nA dash means that the test is not part of this run.\n\n")
	writeRow(&b, append([]string{"test"}, names...)...)
	writeRow(&b, slices.Repeat([]string{"---"}, len(names)+1)...)
	for _, test := range sorted(all) {
		row := []string{shorten(test)}
		for _, n := range names {
			row = append(row, cell(results[n].Tests, test))
		}
		if slices.Contains(row, "passed") || slices.Contains(row, failedCell) {
			writeRow(&b, row...)
		}
	}
	b.WriteString(pageEnd)
	return b.String()
}

// skippedIn returns why the first run that skipped a test did.
func skippedIn(results map[string]kept, test string) (reason string, skipped bool) {
	for _, r := range runs() {
		if o := results[r.name].Tests[test]; !o.passed() && !o.Failed {
			return o.Text, true
		}
	}
	return "", false
}

const failedCell = "**failed**"

func cell(r result, test string) string {
	o, ran := r[test]
	switch {
	case !ran:
		return "–"
	case o.passed():
		return "passed"
	case o.Failed:
		return failedCell
	}
	return "skipped"
}

func writeRow(b *strings.Builder, cells ...string) {
	fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
}

// shorten leaves out what all names have.
func shorten(test string) string {
	return strings.ReplaceAll(strings.TrimPrefix(test, "[sig-network] "), "|", "\\|")
}
