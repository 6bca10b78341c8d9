package image

import (
	"io/fs"
	"os"
	"path/filepath"
)

// Where the programs are inside our image.
const (
	Flanneld    = "/opt/bin/flanneld"
	Plugin      = "/opt/bin/flannel"
	InstallConf = "/opt/bin/install-conf"
	// What flannel's manifests and others ask flannel's images for.
	FlannelPlugin = "/flannel"
	Copy          = "/bin/cp"
	MkDockerOpts  = "/opt/bin/mk-docker-opts.sh"
)

// Programs are the files of our image, made from the two programs: the daemon
// answers to the names install-conf, cp and mk-docker-opts.sh as well. With these
// the image is both of flannel's images.
func Programs(flanneld, plugin string) []File {
	return []File{
		{Path: Flanneld, Source: flanneld, Mode: 0o755},
		{Path: Plugin, Source: plugin, Mode: 0o755},
		{Path: InstallConf, Link: "flanneld"},
		{Path: FlannelPlugin, Link: "opt/bin/flannel"},
		{Path: Copy, Link: "../opt/bin/flanneld"},
		{Path: MkDockerOpts, Link: "flanneld"},
	}
}

// Tree are the files and symbolic links below a folder, which is the root of
// the image.
func Tree(root string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		f := File{Path: "/" + inside}
		if info.Mode()&fs.ModeSymlink != 0 {
			f.Link, err = os.Readlink(path)
		} else {
			f.Source, f.Mode = path, int64(info.Mode().Perm())
		}
		files = append(files, f)
		return err
	})
	return files, err
}
