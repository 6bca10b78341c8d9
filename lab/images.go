package lab

import (
	"debug/elf"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"flannel/internal/image"
	"flannel/internal/testkit/kubeplane"
)

// Programs are paths of programs that go into images, and of a folder that
// dist/iptables/fetch has made. Images without their program are left out.
type Programs struct{ Flanneld, Plugin, Tenant, IPTables, CoreDNS string }

// The names of the images of a lab with pods.
const (
	// FlannelImage is what the manifest asks for.
	FlannelImage = "flannel:latest"
	// IPTablesImage is FlannelImage with iptables.
	IPTablesImage = FlannelImage + "-iptables"
	// TenantImage has the program tenant, and a shell where the machine has a
	// static busybox.
	TenantImage = kubeplane.Pause
	// DNSImage has CoreDNS.
	DNSImage = "coredns:lab"
)

// WriteImages writes the images of a lab with pods into a folder, and returns
// the archives. Further names are those of copies of flannel's.
func WriteImages(dir string, p Programs, further ...string) ([]string, error) {
	specs := map[string]image.Spec{
		FlannelImage: {Files: image.Programs(p.Flanneld, p.Plugin), Entrypoint: []string{image.Flanneld}},
		TenantImage:  {Files: tenantFiles(p.Tenant), Entrypoint: []string{"/bin/tenant", "pause"}},
	}
	if p.IPTables != "" {
		programs, err := image.Tree(p.IPTables)
		if err != nil {
			return nil, fmt.Errorf("find iptables for an image: %w", err)
		}
		spec := specs[FlannelImage]
		spec.Files = append(programs, spec.Files...)
		specs[IPTablesImage] = spec
	}
	if p.CoreDNS != "" {
		files, err := image.WithLibraries(map[string]string{"/coredns": p.CoreDNS})
		if err != nil {
			return nil, err
		}
		specs[DNSImage] = image.Spec{Files: files, Entrypoint: []string{"/coredns"}}
	}
	for _, name := range further {
		specs[name] = specs[FlannelImage]
	}
	var archives []string
	for name, spec := range specs {
		spec.Platform, spec.Created, spec.Local = "linux/"+runtime.GOARCH, time.Unix(0, 0), true
		path := filepath.Join(dir, fmt.Sprintf("image%d.tar", len(archives)))
		if err := image.WriteArchiveFile(path, name, spec); err != nil {
			return nil, err
		}
		archives = append(archives, path)
	}
	return archives, nil
}

// applets are the names that busybox goes by inside the tenant's image.
var applets = []string{"sh", "cat", "ls", "ip", "ping", "nc", "wget", "sleep", "ps"}

func tenantFiles(tenant string) []image.File {
	files := []image.File{{Path: "/bin/tenant", Source: tenant, Mode: 0o755}}
	busybox, err := exec.LookPath("busybox")
	if err != nil || !isStatic(busybox) {
		return files
	}
	files = append(files, image.File{Path: "/bin/busybox", Source: busybox, Mode: 0o755})
	for _, name := range applets {
		files = append(files, image.File{Path: "/bin/" + name, Link: "busybox"})
	}
	return files
}

// isStatic reports whether a program needs no loader.
func isStatic(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}
