package fastpath

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestTheProgramsComeFromTheirSource(t *testing.T) {
	if _, err := exec.LookPath("clang"); err != nil {
		t.Skip("no clang: run test/deps")
	}
	dir := t.TempDir()
	if out, err := exec.Command("bpf/build", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "bpf_*"))
	if err != nil || len(files) != 4 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		want, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Base(f))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the source makes: run make generate", filepath.Base(f))
		}
	}
}
