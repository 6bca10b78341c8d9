package lab

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// WithLibraries are programs of this machine, by their paths in the image, and
// the libraries that they are linked with.
func WithLibraries(programs map[string]string) ([]ImageFile, error) {
	var files []ImageFile
	have := map[string]bool{}
	for path, source := range programs {
		files = append(files, ImageFile{Path: path, Source: source, Mode: 0o755})
		libraries, err := librariesOf(source)
		if err != nil {
			return nil, err
		}
		for _, l := range libraries {
			if !have[l] {
				have[l] = true
				files = append(files, ImageFile{Path: l, Source: l, Mode: 0o755})
			}
		}
	}
	return files, nil
}

// librariesOf asks ldd, whose lines are "NAME => PATH (ADDRESS)" and, for the
// loader, "PATH (ADDRESS)".
func librariesOf(program string) ([]string, error) {
	out, err := exec.Command("ldd", program).CombinedOutput()
	text := string(out)
	if strings.Contains(text, "not a dynamic executable") || strings.Contains(text, "statically linked") {
		return nil, nil
	}
	if err == nil && strings.Contains(text, "not found") {
		err = errors.New("some are missing")
	}
	if err != nil {
		return nil, fmt.Errorf("libraries of %s: %w: %s", program, err, strings.TrimSpace(text))
	}
	var paths []string
	for line := range strings.Lines(text) {
		for word := range strings.FieldsSeq(line) {
			if strings.HasPrefix(word, "/") {
				paths = append(paths, word)
			}
		}
	}
	return paths, nil
}
