package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"flannel/internal/image"
	"flannel/internal/testkit/assets"
	"flannel/lab"
)

// tools are the programs that tests call in their pods, beside agnhost. The
// shell must not prefer its own versions of them.
var tools = []string{
	"dash", "nc.openbsd", "curl", "dig", "nslookup", "getent", "hostname", "ip", "ss", "timeout", "wget",
	"awk", "cat", "cut", "date", "echo", "env", "grep", "head", "id", "ls", "mkdir", "printf", "rm", "sed", "seq", "sleep", "sort", "stat", "tail", "test", "touch", "true", "tr", "uniq", "wc",
}

// buildImages makes what the nodes have: this project's images, CoreDNS, and
// those of the suite.
func buildImages() ([]string, error) {
	dir, err := lab.BuildStatic("flannel/cmd/flanneld", "flannel/cmd/flannel", "flannel/lab/tenant")
	if err != nil {
		return nil, err
	}
	dns, err := assets.Path("coredns")
	if err != nil {
		return nil, err
	}
	archives, err := lab.WriteImages(dir, lab.Programs{
		Flanneld: filepath.Join(dir, "flanneld"), Plugin: filepath.Join(dir, "flannel"),
		Tenant: filepath.Join(dir, "tenant"), CoreDNS: dns,
	})
	if err != nil {
		return nil, err
	}
	own, err := suiteImages(dir)
	return append(archives, own...), err
}

// suiteImages writes the images that the tests ask for. One set of programs
// serves for all of them.
func suiteImages(dir string) ([]string, error) {
	agnhost, err := assets.Path("agnhost")
	if err != nil {
		return nil, err
	}
	files, err := agnhostFiles(agnhost)
	if err != nil {
		return nil, err
	}
	names, err := imageNames("agnhost", "jessie-dnsutils", "pause")
	if err != nil {
		return nil, err
	}
	var archives []string
	for i, name := range names {
		path := filepath.Join(dir, fmt.Sprintf("suite%d.tar", i))
		err := image.WriteArchiveFile(path, name, image.Spec{
			Platform: "linux/" + runtime.GOARCH, Created: time.Unix(0, 0), Local: true,
			Files: files, Entrypoint: []string{"/agnhost"}, Args: []string{"pause"},
		})
		if err != nil {
			return nil, err
		}
		archives = append(archives, path)
	}
	return archives, nil
}

func agnhostFiles(agnhost string) ([]image.File, error) {
	programs := map[string]string{"/agnhost": agnhost}
	for _, name := range tools {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, fmt.Errorf("find a program for the image of the tests: %w: run make deps", err)
		}
		programs["/bin/"+name] = path
	}
	files, err := image.WithLibraries(programs)
	if err != nil {
		return nil, err
	}
	pair, err := certificate()
	return append(append(files, pair...),
		image.File{Path: "/bin/sh", Link: "dash"},
		image.File{Path: "/bin/nc", Link: "nc.openbsd"},
		image.File{Path: "/agnhost-2", Link: "agnhost"},
		image.File{Path: "/etc/passwd", Text: "root:x:0:0:root:/:/bin/sh\n", Mode: 0o644},
		image.File{Path: "/etc/group", Text: "root:x:0:\n", Mode: 0o644},
		image.File{Path: "/tmp/.keep", Mode: 0o644},
		image.File{Path: "/uploads/.keep", Mode: 0o644},
	), err
}

// imageNames asks the suite for the names of its images, with their tags.
func imageNames(wanted ...string) ([]string, error) {
	out, err := askSuite("--list-images")
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range strings.FieldsSeq(out) {
		for _, w := range wanted {
			if strings.HasPrefix(name, "registry.k8s.io/") && strings.Contains(name, "/"+w+":") {
				names = append(names, name)
			}
		}
	}
	if len(names) < len(wanted) {
		return nil, fmt.Errorf("images of the suite: got %v, want %v", names, wanted)
	}
	return names, nil
}

// askSuite returns what the suite prints with a flag.
func askSuite(flag string) (string, error) {
	program, err := assets.Path("e2e.test")
	if err != nil {
		return "", err
	}
	out, err := exec.Command(program, flag).Output()
	if err != nil {
		return "", fmt.Errorf("e2e.test %s: %w", flag, err)
	}
	return strings.TrimSpace(string(out)), nil
}
