package docker

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"flannel/internal/image"
	"flannel/internal/lab"
)

// TestDockerfile builds our image with iptables. A shell and a program that
// does nothing stand for Debian and its apt-get.
func TestDockerfile(t *testing.T) {
	p, err := built()
	lab.Must(t, err)
	groups := newGroups(t)
	l := lab.ForTest(t, lab.Options{Hosts: 1, Binaries: p.Binaries})
	lab.Must(t, l.Hosts[0].StartFlanneld())
	lab.Must(t, l.Hosts[0].WaitReady(limited(t)))
	e := startDocker(t, l.Hosts[0], groups)

	context := t.TempDir()
	programs := filepath.Join(context, "dist/out/bin", runtime.GOARCH)
	lab.Must(t, os.MkdirAll(programs, 0o755))
	for _, name := range []string{"flanneld", "flannel"} {
		lab.Must(t, os.WriteFile(filepath.Join(programs, name), []byte("#!/bin/sh\necho "+name+"\n"), 0o755))
	}
	base := filepath.Join(context, "base.tar")
	lab.Must(t, image.WriteArchiveFile(base, "base:test", baseSpec(t)))
	e.docker("load", "--input="+base)
	dockerfile, err := filepath.Abs("../../../dist/Dockerfile")
	lab.Must(t, err)
	e.exec("env", "DOCKER_BUILDKIT=1", "HOME="+t.TempDir(), client, "--host=unix:///run/docker.sock", "build", "--progress=plain",
		"--build-arg=BASE=base:test", "--tag=flannel:iptables", "--file="+dockerfile, context)
	if got := e.docker("run", "--rm", "flannel:iptables"); got != "flanneld" {
		t.Errorf("the entry point says %q", got)
	}
	if got := e.docker("run", "--rm", "--entrypoint=/bin/sh", "flannel:iptables", "-c", "/opt/bin/flannel; /opt/bin/install-conf"); got != "flannel\nflanneld" {
		t.Errorf("the other programs say %q", got)
	}
}

// baseSpec is an image with a shell.
func baseSpec(t *testing.T) image.Spec {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	lab.Must(t, err)
	files := []image.File{
		{Path: "/bin/busybox", Source: busybox, Mode: 0o755},
		{Path: "/usr/bin/apt-get", Text: "#!/bin/sh\n", Mode: 0o755},
	}
	for name := range strings.FieldsSeq("sh ln rm echo") {
		files = append(files, image.File{Path: "/bin/" + name, Link: "busybox"})
	}
	return image.Spec{Platform: "linux/" + runtime.GOARCH, Files: files, Local: true}
}
