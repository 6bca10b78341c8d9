package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodConf = `{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [{"type": "flannel"}]}`

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// expect compares a file and says how many others there are in its folder.
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
