package atomicfile

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestWrite(t *testing.T)         { testWrite(t, Write) }
func TestWriteVolatile(t *testing.T) { testWrite(t, WriteVolatile) }

func testWrite(t *testing.T, write func(string, []byte, fs.FileMode) error) {
	for _, mode := range []fs.FileMode{0o644, 0o600, 0o666} {
		t.Run(mode.String(), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a", "b", "file")
			for _, content := range []string{"first\n", "second, longer\n", ""} {
				if err := write(path, []byte(content), mode); err != nil {
					t.Fatal(err)
				}
				got, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if string(got) != content {
					t.Errorf("got %q, want %q", got, content)
				}
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				if info.Mode() != mode {
					t.Errorf("got mode %v, want %v", info.Mode(), mode)
				}
			}
			onlyEntry(t, filepath.Dir(path), "file")
		})
	}
}

func TestWriteLeavesNothingOnError(t *testing.T) {
	dir := t.TempDir()
	// A folder that is not empty cannot be replaced by a file.
	if err := os.MkdirAll(filepath.Join(dir, "taken", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(dir, "taken"), []byte("data"), 0o644); err == nil {
		t.Error("a folder was replaced by a file")
	}
	onlyEntry(t, dir, "taken")
}

func TestWriteNamesThePath(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := Write(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	err := Write(filepath.Join(file, "below"), nil, 0o644)
	if want := "write " + file + "/below: mkdir " + file + ": not a directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func onlyEntry(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("got %v, want only %s", entries, name)
	}
}
