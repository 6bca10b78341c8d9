package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"flannel/lab"
)

// about is where, when and with what a run was made.
type about struct {
	// Machine names the processor and its cores, and the memory.
	Machine string `json:"machine"`
	Kernel  string `json:"kernel"`
	// Commit is that of the sources, Flanneld what the daemon reports of itself.
	Commit   string `json:"commit"`
	Flanneld string `json:"flanneld"`
	// Versions are those of Go and of the stores.
	Versions map[string]string `json:"versions"`
	Date     string            `json:"date"`
	// Load is how many programs the machine was busy with before the run.
	Load float64 `json:"load"`
	// Seconds is how long the run took.
	Seconds float64 `json:"seconds"`
}

// about describes a run that begins. What cannot be found out stays empty.
func (b *bench) about(ctx context.Context) about {
	return about{
		Machine:  machine(),
		Kernel:   kernelRelease(),
		Commit:   output(ctx, "git", "-C", b.root, "rev-parse", "--short", "HEAD"),
		Flanneld: output(ctx, b.binaries.Flanneld, "--version"),
		Versions: map[string]string{
			"Go":         strings.TrimPrefix(runtime.Version(), "go"),
			"etcd":       dependency(b.binaries.Etcd, "go.etcd.io/etcd/server/v3"),
			"Kubernetes": dependency(filepath.Join(filepath.Dir(b.binaries.Etcd), "kube-apiserver"), "k8s.io/kubernetes"),
		},
		Date: time.Now().UTC().Format(time.DateOnly),
		Load: lab.LoadAverage(),
	}
}

// quietLoad is the load average up to which a machine has nothing else to do.
const quietLoad = 0.7

// String names the machine, and reports if its figures are worth little.
func (a about) String() string {
	text := fmt.Sprintf("%s, Linux %s; Go %s, etcd %s, Kubernetes %s; commit %s; %s, in %s.", a.Machine, a.Kernel,
		a.Versions["Go"], a.Versions["etcd"], a.Versions["Kubernetes"], a.Commit, a.Date, time.Duration(a.Seconds)*time.Second)
	if a.Load > quietLoad {
		text += fmt.Sprintf("\nThe machine was busy before the run (load %.1f): times are too long.", a.Load)
	}
	return text
}

func machine() string {
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo")
	model, flags := field(string(cpuinfo), "model name"), field(string(cpuinfo), "flags")
	if model == "" {
		model = runtime.GOARCH
	}
	text := fmt.Sprintf("%s, %d cores", model, runtime.NumCPU())
	meminfo, _ := os.ReadFile("/proc/meminfo")
	if kib, err := strconv.Atoi(strings.TrimSuffix(field(string(meminfo), "MemTotal"), " kB")); err == nil {
		text += fmt.Sprintf(", %.0f GiB", float64(kib)/(1<<20))
	}
	if strings.Contains(" "+flags+" ", " hypervisor ") {
		text += ", virtual"
	}
	return text
}

// field returns the first value of a key in a file of /proc.
func field(text, key string) string {
	for line := range strings.Lines(text) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func kernelRelease() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}

// output returns what a program prints, or nothing.
func output(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// dependency returns the version of a module that a program was built with.
func dependency(program, module string) string {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return ""
	}
	for _, d := range info.Deps {
		if d.Path == module {
			return strings.TrimPrefix(d.Version, "v")
		}
	}
	return ""
}
