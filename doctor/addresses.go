package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/printable"
	"flannel/kernel"
)

// Reservation is an address that host-local has given to a container.
type Reservation struct {
	// Dir is the folder of its file.
	Dir  string
	Addr netip.Addr
	// Container and its interface have the address.
	Container, Dev string
	// Age is that of the file.
	Age time.Duration
}

// settled is how old a reservation is that no plugin is still at work with.
const settled = 10 * time.Minute

var addresses = Check{
	Name: "addresses",
	About: "The addresses of this node's subnet that host-local has assigned belong to pods that exist: there are not more owners than interfaces of " +
		"pods on the bridge. While more than an eighth of the subnet is free, this is only a note.",
	Means: "Once no address is left, new pods do not start. When the plugin finds no free address, it frees those that are surely leaked; the rest must be freed by hand.",
	More:  "cni.md",
	Find: func(f *Facts) []Finding {
		type owner struct{ container, dev string }
		owners := map[owner]bool{}
		var reserved ipfam.Pair[int]
		var dirs []string
		for _, r := range f.Reservations {
			reserved[ipfam.Of(r.Addr)]++
			if r.Age > settled {
				owners[owner{r.Container, r.Dev}] = true
				if !slices.Contains(dirs, r.Dir) {
					dirs = append(dirs, r.Dir)
				}
			}
		}
		leaked := len(owners) - f.podInterfaces()
		if leaked <= 0 || !f.hasPodBridge() {
			return nil
		}
		found := Finding{
			Problem: fmt.Sprintf("at least %d containers that are gone still have addresses in %s", leaked, strings.Join(dirs, ", ")),
			Command: freeLeaked(dirs),
			Note:    true,
		}
		for family, own := range ipfam.Prefixes(f.own()) {
			const most = 16 // bits of a subnet that pods can use up
			if host := family.Bits() - own.Bits(); host <= most {
				all := 1<<host - 3 // host-local leaves out both ends and the gateway
				if free := all - reserved[family]; 8*free <= all && 8*leaked > all {
					found.Note = false
					found.Problem += fmt.Sprintf("; of %d addresses of %s %d are free", all, own, max(free, 0))
				}
			}
		}
		return []Finding{found}
	},
}

// freeLeaked returns the command that frees the addresses of containers that the
// runtime does not know. It frees nothing if the runtime cannot be asked or names no
// pod, and none that a plugin may be at work with: the runtime names a pod only later.
func freeLeaked(dirs []string) string {
	words := make([]string, len(dirs))
	for i, dir := range dirs {
		words[i] = printable.Word(dir)
	}
	return fmt.Sprintf(`pods=$(crictl pods -q --no-trunc) && [ -n "$pods" ] && find %s -type f -mmin +%d -name '[0-9a-f]*[.:]*' | `+
		`while read -r a; do grep -qF "$pods" "$a" || { rm "$a" && echo "freed $a"; }; done`, strings.Join(words, " "), int(settled.Minutes()))
}

// podInterfaces counts the host's ends of pods' interfaces; those of others may be
// among them.
func (f *Facts) podInterfaces() int {
	n := 0
	for _, l := range f.Host.Links {
		if l.Kind == "veth" {
			n++
		}
	}
	return n
}

// hasPodBridge is false where pods are attached in another way, or not at all.
func (f *Facts) hasPodBridge() bool {
	return slices.ContainsFunc(f.Host.Links, func(l kernel.Link) bool { return l.Name == "cni0" && l.Kind == "bridge" })
}
