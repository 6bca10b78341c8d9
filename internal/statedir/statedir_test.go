package statedir

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDocumentsLastAndAreApart(t *testing.T) {
	dir := t.TempDir()
	open := func(owner ...string) *Dir { return Open(slog.New(slog.DiscardHandler), dir, "", owner...) }
	for owner, text := range map[string]string{"a": "first", "b": "second"} {
		if err := open(owner, "x").Save("lease", text); err != nil {
			t.Fatal(err)
		}
	}
	var got string
	if err := open("a", "x").Load("lease", &got); err != nil || got != "first" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, d := range []*Dir{open("ax", ""), nil} {
		if err := d.Load("lease", &got); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want that there is none", err)
		}
	}
	if err := open("a", "x").Load("peers", &got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that there is none", err)
	}
	if err := (*Dir)(nil).Save("lease", 1); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Fatal(entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v", e.Name(), info.Mode(), err)
		}
		if err := os.WriteFile(filepath.Join(dir, e.Name()), []byte(`"fir`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := open("a", "x").Load("lease", &got); err == nil || !strings.Contains(err.Error(), dir+"/lease-") {
		t.Errorf("got %v, want the file with half a document", err)
	}
}

func TestWhichFolderIsUsed(t *testing.T) {
	folder := func(mode fs.FileMode) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	absent := func(*testing.T, string) {}
	tests := map[string]struct {
		dir, fallback func(*testing.T, string)
		used          string
		warnings      int
	}{
		"the folder is there":              {folder(0o700), absent, "dir", 0},
		"as kubelet makes it":              {folder(0o755), absent, "dir", 0},
		"there is none":                    {absent, absent, "fallback", 0},
		"others may write to it":           {folder(0o775), absent, "fallback", 1},
		"everybody may write to it":        {folder(0o1777), folder(0o700), "fallback", 1},
		"none, and a bad fallback":         {absent, folder(0o777), "", 1},
		"it is a file":                     {file, absent, "fallback", 1},
		"it is another user's":             {foreign, absent, "fallback", 1},
		"both are another user's":          {foreign, foreign, "", 2},
		"the folder is there, no fallback": {folder(0o700), file, "dir", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			dir, fallback := filepath.Join(base, "dir"), filepath.Join(base, "run", "fallback")
			if err := os.Mkdir(filepath.Dir(fallback), 0o755); err != nil {
				t.Fatal(err)
			}
			tt.dir(t, dir)
			tt.fallback(t, fallback)
			var log bytes.Buffer
			d := Open(slog.New(slog.NewTextHandler(&log, nil)), dir, fallback, "a")
			if got := strings.Count(log.String(), "level=WARN"); got != tt.warnings {
				t.Errorf("%d warnings, want %d:\n%s", got, tt.warnings, log.String())
			}
			if err := d.Save("lease", 1); err != nil {
				t.Error(err)
			}
			used := ""
			for path, name := range map[string]string{dir: "dir", fallback: "fallback"} {
				if found, _ := filepath.Glob(filepath.Join(path, "lease-*.json")); len(found) == 1 {
					used += name
				}
			}
			if used != tt.used {
				t.Errorf("used %q, want %q", used, tt.used)
			}
		})
	}
}

func file(t *testing.T, path string) {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func foreign(t *testing.T, path string) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a folder away")
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
}

func TestADocumentThatSaysTheSameIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	d := Open(slog.New(slog.DiscardHandler), dir, "", "a")
	long := bytes.Repeat([]byte("0123456789"), 10000)
	other := bytes.Clone(long)
	other[len(other)-1]++
	var last fs.FileInfo
	for i, step := range []struct {
		text []byte
		same bool
	}{{long, false}, {long, true}, {other, false}, {nil, false}, {nil, true}} {
		if err := d.Write("peers", step.text); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(d.file("peers")); err != nil || !bytes.Equal(got, step.text) {
			t.Errorf("step %d: %d bytes, want %d, %v", i, len(got), len(step.text), err)
		}
		info, err := os.Stat(d.file("peers"))
		if err != nil || os.SameFile(last, info) != step.same {
			t.Errorf("step %d: left alone %t, want %t, %v", i, !step.same, step.same, err)
		}
		last = info
	}
}

func TestAFolderThatHasGoneIsNotMadeAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d := Open(slog.New(slog.DiscardHandler), dir, "", "a")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := d.Save("lease", 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is there: %v", err)
	}
}

func TestTheBootHasAName(t *testing.T) {
	if a, b := BootID(), BootID(); a == "" || a != b {
		t.Errorf("got %q and %q", a, b)
	}
}
