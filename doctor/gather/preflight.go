package gather

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flannel/doctor"
	"flannel/internal/firewall"
	"flannel/internal/ipfam"
	"flannel/internal/passage"
	"flannel/kernel"
	"flannel/kernel/rtnl"
)

// preflight reads what matters before flanneld is installed.
func (g gatherer) preflight() {
	f, w := g.facts, g.facts.Wanted
	lacks, err := lacking()
	g.source("capabilities", err)
	f.Kernel.Lacks = lacks
	if f.Kernel.VXLAN, err = hasVXLAN(); w.Kind() == kernel.KindVXLAN {
		g.source("vxlan of the kernel", err)
	}
	if f.Kernel.TUN, err = hasTUN(); w.Kind() == kernel.KindTUN {
		g.source("TUN devices", err)
	}
	f.Kernel.PacketFilter = hasPacketFilter()
	_, err = exec.LookPath("iptables-legacy")
	f.Kernel.LegacyTool = err == nil
	if w.Encapsulation.Port == 0 {
		return
	}
	for _, family := range ipfam.All() {
		taken, err := portTaken(family, w.Encapsulation.Port)
		g.source("UDP port", err)
		if f.PortTaken[family] = taken; taken && f.PortOwner == "" {
			f.PortOwner = portOwner(family, w.Encapsulation.Port)
		}
	}
}

// needed are the capabilities of the daemon.
var needed = []struct {
	name string
	bit  uint
}{{"NET_ADMIN", unix.CAP_NET_ADMIN}, {"NET_RAW", unix.CAP_NET_RAW}}

func lacking() ([]string, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil, err
	}
	var out []string
	for _, c := range needed {
		if data[0].Effective&(1<<c.bit) == 0 {
			out = append(out, c.name)
		}
	}
	return out, nil
}

// hasVXLAN asks for a vxlan device without a VNI, which the kernel refuses because of
// that if it has such devices, and else because of its kind.
func hasVXLAN() (doctor.Feature, error) {
	handle, err := rtnl.NewHandle(0)
	if err != nil {
		return "", err
	}
	defer handle.Close()
	a := netlink.NewLinkAttrs()
	a.Name = "flannel.none"
	err = handle.LinkAdd(&netlink.GenericLink{LinkAttrs: a, LinkType: kernel.KindVXLAN})
	switch {
	case errors.Is(err, unix.EINVAL):
		return doctor.Present, nil
	case errors.Is(err, unix.EOPNOTSUPP):
		return doctor.Absent, nil
	}
	return "", err
}

func hasTUN() (doctor.Feature, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return doctor.Absent, nil
	case err != nil:
		return "", err
	}
	return doctor.Present, unix.Close(fd)
}

// hasPacketFilter is empty if that cannot be seen; filters has the reason.
func hasPacketFilter() doctor.Feature {
	rules, err := passage.NFTables()
	if rules != nil {
		defer rules.Close()
	}
	for _, family := range ipfam.All() {
		if _, stat := os.Stat(firewall.LegacyTables[family]); stat == nil {
			return doctor.Present
		}
	}
	switch {
	case err != nil:
		return ""
	case rules == nil:
		return doctor.Absent
	}
	return doctor.Present
}

// portTaken tries to have a UDP port for a moment.
func portTaken(family ipfam.Family, number int) (bool, error) {
	fd, err := unix.Socket(family.AF(), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(fd) }()
	var any unix.Sockaddr = &unix.SockaddrInet4{Port: number}
	if family == ipfam.V6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		any = &unix.SockaddrInet6{Port: number}
	}
	err = unix.Bind(fd, any)
	if errors.Is(err, unix.EADDRINUSE) {
		return true, nil
	}
	return false, err
}

// portOwner names the program that has a UDP port; empty if it cannot be found, as
// in a container.
func portOwner(family ipfam.Family, number int) string {
	wanted := map[string]bool{}
	// A socket of IPv6 may have the port in both families.
	for _, name := range []string{"udp", "udp6"}[family:] {
		addSockets(wanted, "/proc/thread-self/net/"+name, number)
	}
	files, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, file := range files {
		if link, err := os.Readlink(file); err == nil && wanted[link] {
			name, _ := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(file)), "comm"))
			return strings.TrimSpace(string(name))
		}
	}
	return ""
}

// addSockets adds those of a table of the kernel with this port, as the links of
// their files are written.
func addSockets(to map[string]bool, table string, number int) {
	f, err := os.Open(table)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		const local, inode = 1, 9
		fields := strings.Fields(lines.Text())
		if len(fields) <= inode {
			continue
		}
		_, hex, _ := strings.Cut(fields[local], ":")
		if n, err := strconv.ParseUint(hex, 16, 16); err == nil && int(n) == number {
			to["socket:["+fields[inode]+"]"] = true
		}
	}
}
