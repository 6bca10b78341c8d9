package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMain lets the test binary be the plugin when it is called by that name,
// so that the tests run what the runtime would run.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "flannel" {
		main()
		return
	}
	os.Exit(m.Run())
}
