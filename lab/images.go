package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"

	"flannel/internal/testkit/kubeplane"
)

// Programs are paths of programs that go into images, of the one that makes the
// images, and of a folder that dist/iptables/fetch has made. Images without
// their program are left out.
type Programs struct{ Flanneld, Plugin, Testpod, IPTables, CoreDNS, Pack string }

// The names of the images of a lab with pods.
const (
	// FlannelImage is what the manifest asks for.
	FlannelImage = "localhost/flanneld:devel"
	// IPTablesImage is FlannelImage with iptables.
	IPTablesImage = FlannelImage + "-iptables"
	// TestpodImage has the program testpod, and a shell if the machine has
	// busybox.
	TestpodImage = kubeplane.Pause
	// DNSImage has CoreDNS.
	DNSImage = "coredns:lab"
)

// Image defines what an image is made from; dist/pack reads it.
type Image struct {
	// Name is that of the image, Archive the file that PackImages writes.
	Name, Archive string
	// Flanneld and Plugin are the programs of flannel's image.
	Flanneld, Plugin string
	// Tree is a folder with further files.
	Tree  string
	Files []ImageFile
	// Entrypoint and Args are those of the container; the default is flannel's.
	Entrypoint, Args []string
}

// ImageFile is a file inside an image: a copy of Source, a text, or a symbolic
// link.
type ImageFile struct {
	Path               string
	Source, Text, Link string
	Mode               int64
}

// PackImages writes images into a folder with the program of dist/pack, and
// returns the archives.
func PackImages(program, dir string, images ...Image) ([]string, error) {
	archives := make([]string, len(images))
	for i := range images {
		archives[i] = filepath.Join(dir, fmt.Sprintf("%s-%d.tar", filepath.Base(images[i].Name), i))
		images[i].Archive = archives[i]
	}
	descriptions, err := json.Marshal(images)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "local")
	cmd.Stdin = bytes.NewReader(descriptions)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make images: %w: %s", err, bytes.TrimSpace(out))
	}
	return archives, nil
}

// WriteImages writes the images of a lab with pods into a folder, and returns
// the archives. Further names are those of copies of flannel's.
func WriteImages(dir string, p Programs, further ...string) ([]string, error) {
	flannel := Image{Name: FlannelImage, Flanneld: p.Flanneld, Plugin: p.Plugin}
	testpod, err := testpodFiles(p.Testpod)
	if err != nil {
		return nil, err
	}
	images := []Image{flannel, {Name: TestpodImage, Files: testpod, Entrypoint: []string{"/bin/testpod", "pause"}}}
	for _, name := range further {
		images = append(images, flannel)
		images[len(images)-1].Name = name
	}
	if p.IPTables != "" {
		flannel.Name, flannel.Tree = IPTablesImage, p.IPTables
		images = append(images, flannel)
	}
	if p.CoreDNS != "" {
		files, err := WithLibraries(map[string]string{"/coredns": p.CoreDNS})
		if err != nil {
			return nil, err
		}
		images = append(images, Image{Name: DNSImage, Files: files, Entrypoint: []string{"/coredns"}})
	}
	return PackImages(p.Pack, dir, images...)
}

// applets are the names that busybox goes by inside the image of test pods.
var applets = []string{"sh", "cat", "ls", "ip", "ping", "nc", "wget", "sleep", "ps"}

func testpodFiles(testpod string) ([]ImageFile, error) {
	files := []ImageFile{{Path: "/bin/testpod", Source: testpod, Mode: 0o755}}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return files, nil
	}
	shell, err := WithLibraries(map[string]string{"/bin/busybox": busybox})
	if err != nil {
		return nil, err
	}
	files = append(files, shell...)
	for _, name := range applets {
		files = append(files, ImageFile{Path: "/bin/" + name, Link: "busybox"})
	}
	return files, nil
}
