// Package assets finds the programs of others that tests and the lab run.
package assets

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
)

// Dir is where they are, below the root of the repository.
const Dir = ".assets"

// Path returns the absolute path of a program that `make assets` builds. The
// repository is looked for from the working directory upward. When the
// program is missing, the error names what to run.
func Path(name string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	path := filepath.Join(root, Dir, name)
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return "", fmt.Errorf("%s is missing: run make assets", filepath.Join(Dir, name))
	}
	return path, nil
}

// Root returns the repository that the working directory is in.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	root, ok := rootAbove(dir)
	if !ok {
		return "", fmt.Errorf("%s is not inside this repository", dir)
	}
	return root, nil
}

// rootAbove returns the folder that holds the go.mod of the main module. The
// modules in folders below have names of their own.
func rootAbove(dir string) (string, bool) {
	for {
		if isRoot(dir) {
			return dir, true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", false
		}
		dir = parent
	}
}

func isRoot(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "go.mod"))
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	return lines.Scan() && lines.Text() == "module flannel"
}
