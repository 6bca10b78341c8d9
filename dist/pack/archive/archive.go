// Package archive writes tar archives that are the same bytes for the same
// files: nothing of the machine or of the moment gets in.
package archive

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// File is a file inside an archive.
type File struct {
	// Path is where it is inside the archive; a leading slash is dropped.
	Path string
	// Exactly one of these is set: a file to copy, a text, or the
	// target of a symbolic link.
	Source, Text, Link string
	// Mode are the permissions of a copy or a text.
	Mode int64
}

// Tar writes the files and the folders above them, sorted, owned by root, all
// of one time.
func Tar(w io.Writer, files []File, at time.Time) error {
	at = at.UTC().Truncate(time.Second)
	t := tar.NewWriter(w)
	for _, dir := range foldersOf(files) {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: at}); err != nil {
			return fmt.Errorf("archive folder %s: %w", dir, err)
		}
	}
	sorted := slices.SortedFunc(slices.Values(files), func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	for _, f := range sorted {
		if err := f.writeTo(t, at); err != nil {
			return fmt.Errorf("archive file %s: %w", f.Path, err)
		}
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("end archive: %w", err)
	}
	return nil
}

// TarGz is Tar, compressed.
func TarGz(w io.Writer, files []File, at time.Time) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return fmt.Errorf("compress archive: %w", err)
	}
	if err := Tar(z, files, at); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("compress archive: %w", err)
	}
	return nil
}

func (f File) writeTo(t *tar.Writer, at time.Time) error {
	header := tar.Header{Name: inside(f.Path), Mode: f.Mode, ModTime: at}
	content := []byte(f.Text)
	switch {
	case f.Link != "":
		header.Typeflag, header.Linkname, header.Mode, content = tar.TypeSymlink, f.Link, 0o777, nil
	case f.Source != "":
		read, err := os.ReadFile(f.Source)
		if err != nil {
			return err
		}
		content = read
	}
	header.Size = int64(len(content))
	if err := t.WriteHeader(&header); err != nil {
		return err
	}
	_, err := t.Write(content)
	return err
}

// foldersOf returns the folders above the files, upper ones first.
func foldersOf(files []File) []string {
	var folders []string
	for _, f := range files {
		for dir := path.Dir(inside(f.Path)); dir != "."; dir = path.Dir(dir) {
			folders = append(folders, dir)
		}
	}
	slices.Sort(folders)
	return slices.Compact(folders)
}

func inside(p string) string { return strings.TrimPrefix(path.Clean(p), "/") }
