package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

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
	p, err := lab.BuildPrograms()
	if err != nil {
		return nil, err
	}
	if p.CoreDNS, err = assets.Path("coredns"); err != nil {
		return nil, err
	}
	dir := filepath.Dir(p.Flanneld)
	archives, err := lab.WriteImages(dir, p)
	if err != nil {
		return nil, err
	}
	suite, err := suiteImages(p.Pack, dir)
	return append(archives, suite...), err
}

// suiteImages writes the images that the tests ask for. One set of programs
// serves for all of them.
func suiteImages(pack, dir string) ([]string, error) {
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
	var images []lab.Image
	for _, name := range names {
		images = append(images, lab.Image{Name: name, Files: files, Entrypoint: []string{"/agnhost"}, Args: []string{"pause"}})
	}
	return lab.PackImages(pack, dir, images...)
}

func agnhostFiles(agnhost string) ([]lab.ImageFile, error) {
	programs := map[string]string{"/agnhost": agnhost}
	for _, name := range tools {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, fmt.Errorf("find a program for the image of the tests: %w: run make deps", err)
		}
		programs["/bin/"+name] = path
	}
	files, err := lab.WithLibraries(programs)
	if err != nil {
		return nil, err
	}
	pair, err := certificate()
	return append(append(files, pair...),
		lab.ImageFile{Path: "/bin/sh", Link: "dash"},
		lab.ImageFile{Path: "/bin/nc", Link: "nc.openbsd"},
		lab.ImageFile{Path: "/agnhost-2", Link: "agnhost"},
		lab.ImageFile{Path: "/etc/passwd", Text: "root:x:0:0:root:/:/bin/sh\n", Mode: 0o644},
		lab.ImageFile{Path: "/etc/group", Text: "root:x:0:\n", Mode: 0o644},
		lab.ImageFile{Path: "/tmp/.keep", Mode: 0o644},
		lab.ImageFile{Path: "/uploads/.keep", Mode: 0o644},
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
