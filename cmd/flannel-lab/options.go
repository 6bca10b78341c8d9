package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"flannel/internal/testkit/assets"
	"flannel/lab"
)

// shape is what the flags define of the cluster.
type shape struct {
	ipv6, dual     bool
	kubernetes     bool
	dns            bool
	backend        string
	links          int
	flanneld, etcd string
}

func (s *shape) register(fs *flag.FlagSet) {
	fs.BoolVar(&s.ipv6, "ipv6", false, "IPv6 only")
	fs.BoolVar(&s.dual, "dual", false, "IPv4 and IPv6")
	fs.BoolVar(&s.kubernetes, "kubernetes", false, "hosts are Kubernetes nodes that run pods, without a pod network yet (root)")
	fs.BoolVar(&s.dns, "dns", false, "with --kubernetes: run CoreDNS, so pods can resolve names")
	fs.StringVar(&s.backend, "backend", "", "Backend object of the network configuration, as `JSON` (default {\"Type\": \"vxlan\"})")
	fs.IntVar(&s.links, "links", 1, "`N` underlay links, with a router between them")
	fs.StringVar(&s.flanneld, "flanneld", "", "`path` of flanneld (default: beside flannel-lab)")
	fs.StringVar(&s.etcd, "etcd", "", "`path` of etcd (default: under .assets in the repository)")
}

// options checks the flags and finds the programs.
func (s *shape) options(hosts int) (lab.Options, error) {
	o := lab.Options{Hosts: hosts, Links: s.links, Families: lab.IPv4, Backend: s.backend, Kubelets: s.kubernetes, DNS: s.dns}
	if s.kubernetes && s.backend != "" {
		return o, errors.New("--backend: with --kubernetes the manifest says what the backend is")
	}
	if s.dns && !s.kubernetes {
		return o, errors.New("--dns needs --kubernetes")
	}
	if s.ipv6 && s.dual {
		return o, errors.New("--ipv6 and --dual exclude each other")
	}
	if s.ipv6 {
		o.Families = lab.IPv6
	}
	if s.dual {
		o.Families = lab.Dual
	}
	if s.backend != "" {
		var object map[string]any
		if err := json.Unmarshal([]byte(s.backend), &object); err != nil || object["Type"] == nil {
			return o, fmt.Errorf(`--backend %s: want a JSON object with a Type, like {"Type": "vxlan"}`, s.backend)
		}
	}
	if hosts < 1 {
		return o, fmt.Errorf("%d hosts: at least 1 is needed", hosts)
	}
	return o, s.find(&o.Binaries)
}

// find looks for the programs where the Makefile puts them.
func (s *shape) find(b *lab.Binaries) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	bin := filepath.Dir(self)
	if b.Flanneld, err = program("flanneld", s.flanneld, filepath.Join(bin, "flanneld")); err != nil {
		return err
	}
	if b.Etcd, err = program("etcd", s.etcd, asset(bin, "etcd")); err != nil || !s.kubernetes {
		return err
	}
	for name, path := range b.Kubernetes() {
		if *path, err = program(name, "", asset(bin, name)); err != nil {
			return err
		}
	}
	return nil
}

// asset is where a program is that `make assets` builds: beside the folder of
// flannel-lab, or in the repository that the caller works in.
func asset(bin, name string) string {
	built := filepath.Join(bin, "..", assets.Dir, name)
	if path, err := assets.Path(name); err == nil && !isProgram(built) {
		return path
	}
	return built
}

// pods finds the programs for images, beside flanneld.
func (s *shape) pods(b lab.Binaries) (p lab.Programs, err error) {
	p.Flanneld = b.Flanneld
	for name, path := range map[string]*string{"flannel": &p.Plugin, "testpod": &p.Testpod, "pack": &p.Pack} {
		if *path, err = program(name, "", filepath.Join(filepath.Dir(b.Flanneld), name)); err != nil {
			return p, err
		}
	}
	if s.dns {
		p.CoreDNS, err = program("coredns", "", asset(filepath.Dir(b.Flanneld), "coredns"))
	}
	return p, err
}

// program returns the absolute path of a program, given by flag or found at
// its usual place.
func program(name, given, usual string) (string, error) {
	path, remedy := given, "give another path"
	if given == "" {
		path, remedy = usual, "run make build assets"
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	if !isProgram(path) {
		return "", fmt.Errorf("%s is missing at %s: %s", name, path, remedy)
	}
	return path, nil
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}
