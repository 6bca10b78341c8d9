package install

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const goodConf = `{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [{"type": "flannel"}]}`

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// expect compares a file and counts how many others there are in its folder.
func expect(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	got, gotMode, err := read(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != text || gotMode != mode {
		t.Errorf("%s: got %v %q, want %v %q", path, gotMode, got, mode, text)
	}
	if all, err := os.ReadDir(filepath.Dir(path)); err != nil || len(all) != 1 {
		t.Errorf("left behind: %v, %v", all, err)
	}
}

func TestFileKeepsPermissionsAndReplacesWhole(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "plugin"), filepath.Join(dir, "cni", "bin", "flannel")
	write(t, from, "first", 0o755)
	if err := File(from, to); err != nil {
		t.Fatal(err)
	}
	expect(t, to, "first", 0o755)
	running, err := os.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	defer running.Close()
	write(t, from, "second", 0o755)
	if err := File(from, to); err != nil {
		t.Fatal(err)
	}
	expect(t, to, "second", 0o755)
	former := make([]byte, 10)
	if n, _ := running.Read(former); string(former[:n]) != "first" {
		t.Errorf("an open file became %q", former[:n])
	}
}

func TestTheSameFileIsNotWritten(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write(t, from, "text", 0o640)
	var infos [2]os.FileInfo
	for i := range infos {
		if err := File(from, to); err != nil {
			t.Fatal(err)
		}
		var err error
		if infos[i], err = os.Stat(to); err != nil {
			t.Fatal(err)
		}
	}
	if !os.SameFile(infos[0], infos[1]) {
		t.Error("it was replaced")
	}
}

func TestConfFollowsTheLinksOfAConfigMap(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "data"), goodConf, 0o644)
	link := filepath.Join(dir, "cni-conf.json")
	if err := os.Symlink("data", link); err != nil {
		t.Fatal(err)
	}
	if err := Conf(link, filepath.Join(dir, "net.d")); err != nil {
		t.Fatal(err)
	}
	expect(t, filepath.Join(dir, "net.d", ConfName), goodConf, 0o644)
}

func TestAnEarlierConfStaysWhenThePresentOneIsWrong(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":    `{"name": "cbr0",`,
		"no name":    `{"cniVersion": "0.3.1", "plugins": [{"type": "flannel"}]}`,
		"no plugins": `{"name": "cbr0", "cniVersion": "0.3.1"}`,
		"no type":    `{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [{}]}`,
		"empty":      ``,
	} {
		t.Run(name, func(t *testing.T) {
			dir, netd := t.TempDir(), t.TempDir()
			write(t, filepath.Join(netd, ConfName), "earlier", 0o644)
			from := filepath.Join(dir, "conf")
			write(t, from, text, 0o644)
			if err := Conf(from, netd); err == nil || !strings.Contains(err.Error(), from) {
				t.Errorf("got %v, want an error that names the file", err)
			}
			expect(t, filepath.Join(netd, ConfName), "earlier", 0o644)
		})
	}
}

func TestCopy(t *testing.T) {
	dir := t.TempDir()
	a, b, folder := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "folder")
	write(t, a, "text of a", 0o755)
	write(t, b, "text of b", 0o644)
	link := filepath.Join(dir, "link")
	if err := errors.Join(os.Symlink("a", link), os.Mkdir(folder, 0o755)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(folder, "b"), "former", 0o400)
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	modes := map[string]os.FileMode{"new": 0o755, "folder/a": 0o755, "folder/b": 0o400}
	tests := []struct {
		name string
		from []string
		to   string
		want map[string]string
		err  string
	}{
		{"a file that a link names", []string{link}, filepath.Join(dir, "new"), map[string]string{"new": "text of a"}, ""},
		{"over a file", []string{b}, filepath.Join(dir, "new"), map[string]string{"new": "text of b"}, ""},
		{"into a folder", []string{a, b}, folder, map[string]string{"folder/a": "text of a", "folder/b": "text of b"}, ""},
		{"over what is no file", []string{a}, pipe, nil, "is not a file"},
		{"the others, when one is missing", []string{filepath.Join(dir, "none"), a}, folder, map[string]string{"folder/a": "text of a"}, "none: no such file"},
		{"two files to one", []string{a, b}, filepath.Join(dir, "new"), nil, "is not a folder"},
		{"a folder", []string{folder}, filepath.Join(dir, "new"), nil, "is not a file"},
		{"to a folder that is missing", []string{a}, filepath.Join(dir, "missing/a"), nil, "no such file"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := Copy(test.from, test.to)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got %v, want %q", err, test.err)
			}
			for name, text := range test.want {
				mode := modes[name]
				got, readErr := os.ReadFile(filepath.Join(dir, name))
				info, statErr := os.Stat(filepath.Join(dir, name))
				if readErr != nil || statErr != nil || string(got) != text || info.Mode() != mode {
					t.Errorf("%s: got %q, %v, want %q, %v", name, got, info, text, mode)
				}
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "missing")); err == nil {
		t.Error("a folder was made")
	}
	if info, err := os.Lstat(pipe); err != nil || info.Mode().IsRegular() {
		t.Errorf("the pipe became %v, %v", info, err)
	}
}

func TestErrorsNameWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	if err := File(filepath.Join(dir, "none"), filepath.Join(dir, "to")); err == nil || !strings.Contains(err.Error(), "none: no such file") {
		t.Errorf("got %v", err)
	}
	if err := File(dir, filepath.Join(dir, "to")); err == nil || !strings.Contains(err.Error(), "is not a file") {
		t.Errorf("got %v", err)
	}
}

func TestRemoveConf(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, ConfName), goodConf, 0o644)
	write(t, filepath.Join(dir, "20-other.conflist"), "another's", 0o644)
	for _, want := range []bool{true, false} {
		if got, err := RemoveConf(dir); got != want || err != nil {
			t.Errorf("got %t, %v, want %t", got, err, want)
		}
	}
	expect(t, filepath.Join(dir, "20-other.conflist"), "another's", 0o644)
	if _, err := RemoveConf(filepath.Join(dir, "none")); err != nil {
		t.Errorf("without a folder: %v", err)
	}
}
