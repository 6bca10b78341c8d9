package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"flannel/internal/atomicfile"
	"flannel/internal/testkit/assets"
)

// origin is what a result depends on.
type origin struct {
	// Kubernetes is the version of the suite, Commit that of this repository.
	Kubernetes string `json:"kubernetes"`
	Commit     string `json:"commit"`
	Date       string `json:"date"`
}

// kept is the last result of a run, as a file in the folder of results.
type kept struct {
	From  origin `json:"from"`
	Tests result `json:"tests"`
}

func findOrigin(ctx context.Context) (o origin, err error) {
	root, err := assets.Root()
	if err != nil {
		return o, err
	}
	commit, err := exec.CommandContext(ctx, "git", "-c", "safe.directory="+root, "-C", root,
		"describe", "--always", "--dirty", "--exclude=*").Output()
	if err != nil {
		return o, fmt.Errorf("find the commit: %w", err)
	}
	version, err := askSuite("--version")
	return origin{Kubernetes: version, Commit: strings.TrimSpace(string(commit)), Date: time.Now().Format(time.DateOnly)}, err
}

// file is where the last result of a run is kept.
func (s *settings) file(r run) string {
	return filepath.Join(s.results, strings.ReplaceAll(r.name, " ", "-")+".json")
}

func (s *settings) keep(r run, k kept) error {
	raw, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(s.results, 0o755), atomicfile.Write(s.file(r), raw, 0o644))
}

// writePage makes the page of the last results of all runs. It is left as it is
// until every run has a result: a page of a few would lose the others.
func (s *settings) writePage() error {
	results := map[string]kept{}
	var missing []string
	for _, r := range runs() {
		raw, err := os.ReadFile(s.file(r))
		if errors.Is(err, os.ErrNotExist) {
			missing = append(missing, r.name)
			continue
		}
		var k kept
		if err := errors.Join(err, json.Unmarshal(raw, &k)); err != nil {
			return fmt.Errorf("read the result of run %s: %w", r.name, err)
		}
		results[r.name] = k
	}
	if len(missing) > 0 {
		fmt.Printf("%s is not written: %s has no result of %s\n", s.page, s.results, strings.Join(missing, ", "))
		return nil
	}
	return atomicfile.Write(s.page, []byte(page(results)), 0o644)
}
