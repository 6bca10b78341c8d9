package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var at = time.Unix(1_700_000_000, 999)

// list returns what an archive holds, a line each.
func list(t *testing.T, r io.Reader) string {
	t.Helper()
	var b strings.Builder
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%v %d:%d %d %s %s%s\n", h.FileInfo().Mode(), h.Uid, h.Gid, h.ModTime.Unix(), h.Name, text, h.Linkname)
	}
}

func TestFilesAreSortedAndOfOneTime(t *testing.T) {
	source := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, []byte("copied"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := []File{
		{Path: "/opt/bin/program", Source: source, Mode: 0o755},
		{Path: "/opt/bin/link", Link: "program"},
		{Path: "/etc/note", Text: "a note", Mode: 0o644},
	}
	want := `drwxr-xr-x 0:0 1700000000 etc/ 
drwxr-xr-x 0:0 1700000000 opt/ 
drwxr-xr-x 0:0 1700000000 opt/bin/ 
-rw-r--r-- 0:0 1700000000 etc/note a note
Lrwxrwxrwx 0:0 1700000000 opt/bin/link program
-rwxr-xr-x 0:0 1700000000 opt/bin/program copied
`
	var plain, compressed bytes.Buffer
	if err := Tar(&plain, files, at); err != nil {
		t.Fatal(err)
	}
	if err := TarGz(&compressed, files, at.In(time.FixedZone("elsewhere", 3600))); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&compressed)
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(unpacked, plain.Bytes()) {
		t.Error("the compressed archive is another one")
	}
	if got := list(t, &plain); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestAMissingFileIsNamed(t *testing.T) {
	err := Tar(io.Discard, []File{{Path: "a", Source: "/no/such/file"}}, at)
	if err == nil || !strings.Contains(err.Error(), "archive file a: open /no/such/file") {
		t.Errorf("got %v", err)
	}
}
