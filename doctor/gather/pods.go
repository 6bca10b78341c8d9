package gather

import (
	"os"
	"path/filepath"
	"slices"

	"flannel/doctor"
	"flannel/internal/ipfam"
	"flannel/kernel"
	"flannel/kernel/look"
	"flannel/kernel/rtnl"
)

// maxPods bounds how many namespaces are entered.
const maxPods = 300

// pods looks into the namespaces of pods. In a container there are no files of them,
// or no rights: then there is nothing to see.
func (g gatherer) pods() {
	own, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil || g.facts.SubnetFile.Env == nil {
		return
	}
	var files []string
	for _, pattern := range g.options.Namespaces {
		found, _ := filepath.Glob(pattern)
		files = append(files, found...)
	}
	for _, file := range files[:min(len(files), maxPods)] {
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		if info, err := f.Stat(); err == nil && !os.SameFile(info, own) {
			_ = rtnl.Inside(int(f.Fd()), func() error { return g.pod(file) })
		}
		_ = f.Close()
	}
}

// pod adds what is seen in the current namespace if it is that of a pod.
func (g gatherer) pod(file string) error {
	k, err := look.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	host, err := k.Host(func(look.Route) bool { return false })
	if err != nil {
		return err
	}
	for family, subnet := range ipfam.Prefixes(g.facts.SubnetFile.Env.Masked()) {
		i := slices.IndexFunc(host.Addrs, func(a kernel.HostAddr) bool { return subnet.Contains(a.Addr.Addr()) })
		dst := g.facts.OtherPod(family)
		if i < 0 || !dst.IsValid() {
			continue
		}
		p := doctor.Pod{Namespace: file, Addr: host.Addrs[i].Addr.Addr(), Dev: host.Addrs[i].Dev, Dst: dst}
		p.Route, p.Err = k.Lookup(dst, p.Addr)
		g.facts.Pods = append(g.facts.Pods, p)
	}
	return nil
}
