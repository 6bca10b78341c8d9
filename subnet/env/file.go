package env

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"flannel/internal/atomicfile"
)

const (
	mode = 0o644
	// maxSize is far more than any real file has.
	maxSize = 64 << 10
)

// Read reads the file. A file that does not exist is an error that wraps
// fs.ErrNotExist and names the program that writes it.
func Read(path string) (Env, error) {
	text, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Env{}, fmt.Errorf("%w: flanneld writes it once it has a subnet; look at its log", err)
	}
	if err != nil {
		return Env{}, err
	}
	return Parse(path, text)
}

func read(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return "", err
	}
	if len(text) > maxSize {
		return "", fmt.Errorf("read %s: more than %d bytes: this is not a subnet.env", path, maxSize)
	}
	return string(text), nil
}

// Write puts e into the file and reports whether that changed anything. A
// file that has this content already is not touched.
func Write(path string, e Env) (bool, error) {
	text := e.String()
	if upToDate(path, text) {
		return false, nil
	}
	if err := atomicfile.Write(path, []byte(text), mode); err != nil {
		return false, err
	}
	return true, nil
}

func upToDate(path, text string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != mode {
		return false
	}
	have, err := read(path)
	return err == nil && have == text
}
