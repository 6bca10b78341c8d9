package assets

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func repository(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write(t, filepath.Join(root, "go.mod"), "module flannel\n", 0o644)
	write(t, filepath.Join(root, "test", "assets", "go.mod"), "module flannel/test/assets\n", 0o644)
	return root
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestPathIsFoundFromAFolderBelow(t *testing.T) {
	root := repository(t)
	want := filepath.Join(root, ".assets", "etcd")
	write(t, want, "#!/bin/sh\n", 0o755)
	t.Chdir(filepath.Join(root, "test", "assets"))
	got, err := Path("etcd")
	if err != nil || got != want {
		t.Errorf("Path = %q, %v; want %q", got, err, want)
	}
}

func TestPathSaysWhatToRun(t *testing.T) {
	root := repository(t)
	t.Chdir(root)
	_, err := Path("etcd")
	if err == nil || !strings.Contains(err.Error(), "run make assets") {
		t.Errorf("err = %v", err)
	}
}
