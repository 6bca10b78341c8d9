package gather

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"flannel/doctor"
	"flannel/internal/ipfam"
)

// reservations lists what host-local has given away of this node's subnet, for any
// network. Without the folder this may be a host without Kubernetes.
func reservations(dir string, own ipfam.Pair[netip.Prefix]) []doctor.Reservation {
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*"))
	var out []doctor.Reservation
	for _, file := range files {
		addr, err := netip.ParseAddr(filepath.Base(file))
		if err != nil || !own[ipfam.Of(addr)].Contains(addr) {
			continue
		}
		text, err := os.ReadFile(file)
		info, failed := os.Stat(file)
		if err != nil || failed != nil {
			continue // it is given back in this moment
		}
		container, dev, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
		out = append(out, doctor.Reservation{
			Dir: filepath.Dir(file), Addr: addr, Container: strings.TrimSpace(container), Dev: dev, Age: time.Since(info.ModTime()),
		})
	}
	return out
}
