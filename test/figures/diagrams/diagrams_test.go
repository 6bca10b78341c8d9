package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPicturesAreThoseOfTheirSources(t *testing.T) {
	sources, err := filepath.Glob("../../../Documentation/pictures/*.txt")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no sources: %v", err)
	}
	for _, source := range sources {
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(target(source))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != draw(strings.NewReader(string(text))) {
			t.Errorf("%s is not up to date: run make pictures", target(source))
		}
	}
}
