package cniplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

// defaultReservations is the folder in which host-local keeps a folder of
// reservations per network.
const defaultReservations = "/var/lib/cni/networks"

// lockPatience bounds the wait for host-local, which holds its lock for
// milliseconds.
const (
	lockPatience = 5 * time.Second
	lockPoll     = 20 * time.Millisecond
)

// reservations are the files of one network in which host-local records the owners
// of addresses: the name is the address, the content the container's ID and, on a
// second line, its interface.
type reservations struct{ dir string }

// reservations finds the files, if host-local gives out the addresses.
func (c config) reservations() (r reservations, found bool) {
	root, err := c.IPAM.text("dataDir", defaultReservations)
	if err != nil || c.ipamType != defaultIPAM {
		return reservations{}, false
	}
	return reservations{filepath.Join(cmp.Or(root, defaultReservations), c.Name)}, true
}

// sweep frees the addresses whose owner is not in use, under host-local's own
// lock. It returns how many it has freed and how many are left.
func (r reservations) sweep(ctx context.Context, inUse func(owner) bool, log func(string, ...any)) (freed, kept int, err error) {
	entries, err := os.ReadDir(r.dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	unlock, err := r.lock(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer unlock()
	// What was read before the lock may have another owner by now.
	if entries, err = os.ReadDir(r.dir); err != nil {
		return 0, 0, err
	}
	var errs []error
	for _, entry := range entries {
		if _, err := netip.ParseAddr(entry.Name()); err != nil || !entry.Type().IsRegular() {
			continue
		}
		path := filepath.Join(r.dir, entry.Name())
		text, err := os.ReadFile(path)
		kept++
		if o := ownerOf(text); err == nil && !inUse(o) {
			log("freed %s: container %q is gone", entry.Name(), o.container)
			kept, freed = kept-1, freed+1
			err = os.Remove(path)
		}
		errs = append(errs, err)
	}
	return freed, kept, errors.Join(errs...)
}

// within lists the reservations inside of prefixes, as "10.244.17.2 container
// 0123456789ab".
func (r reservations) within(prefixes []netip.Prefix) []string {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil
	}
	const shortID = 12
	var list []string
	for _, entry := range entries {
		addr, err := netip.ParseAddr(entry.Name())
		inside := func(p netip.Prefix) bool { return p.Masked().Contains(addr) }
		if err != nil || !slices.ContainsFunc(prefixes, inside) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(r.dir, entry.Name()))
		if err != nil {
			continue
		}
		id := ownerOf(text).container
		list = append(list, fmt.Sprintf("%s container %s", addr, id[:min(len(id), shortID)]))
	}
	return list
}

// owner is whose reservation it is. A file without a container is what a killed
// host-local leaves; one without an interface is from an early version.
type owner struct{ container, dev string }

func ownerOf(text []byte) owner {
	container, dev, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return owner{strings.TrimSpace(container), strings.TrimSpace(dev)}
}

// in reports whether the owner is attached.
func (o owner) in(attached []types.GCAttachment) bool {
	return slices.ContainsFunc(attached, func(a types.GCAttachment) bool {
		return a.ContainerID == o.container && (o.dev == "" || a.IfName == o.dev)
	})
}

// lock takes the lock that host-local itself takes around each change.
func (r reservations) lock(ctx context.Context) (unlock func(), err error) {
	path := filepath.Join(r.dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the reservations: %w", err)
	}
	err = retry(ctx, lockPatience, lockPoll, func() (again bool, err error) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		return errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR), err
	})
	switch {
	case err == nil:
		// Closing gives up the lock.
		return func() { f.Close() }, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		err = errors.New("another program holds it; see which one with fuser")
	}
	f.Close()
	return nil, fmt.Errorf("lock %s: %w", path, err)
}
