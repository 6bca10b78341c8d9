package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ownMounts is where a host keeps what its mounts consist of.
const ownMounts = "/run/mounts"

// ShareMounts lets further mount namespaces made on the host, like those of
// containers, see what it mounts later.
func (n *Node) ShareMounts() error {
	return n.Do(func() error {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
			return fmt.Errorf("share the mounts of %s: %w", n.Name, err)
		}
		return nil
	})
}

// CopyOnWrite keeps to the host what is written in these folders.
func (n *Node) CopyOnWrite(dirs ...string) error {
	return n.Do(func() error {
		for _, dir := range dirs {
			if err := copyOnWrite(dir); err != nil {
				return fmt.Errorf("give %s a %s of its own: %w", n.Name, dir, err)
			}
		}
		return nil
	})
}

func copyOnWrite(dir string) error {
	layer := filepath.Join(ownMounts, strings.ReplaceAll(dir, "/", "_"))
	upper, work := filepath.Join(layer, "upper"), filepath.Join(layer, "work")
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return unix.Mount("overlay", dir, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work))
}

// Cover puts a file with this text over one that is there, on this host alone.
func (n *Node) Cover(path, text string) error {
	return n.Do(func() error {
		own := filepath.Join(ownMounts, strings.ReplaceAll(path, "/", "_"))
		if err := os.MkdirAll(ownMounts, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(own, []byte(text+"\n"), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cover %s on %s: %w", path, n.Name, err)
		}
		return nil
	})
}
