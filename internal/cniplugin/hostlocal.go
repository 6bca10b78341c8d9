package cniplugin

import (
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

// defaultReservations is where host-local keeps its reservations, in a folder
// per network.
const defaultReservations = "/var/lib/cni/networks"

// lockPatience bounds the wait for host-local, which holds its lock for
// milliseconds.
const (
	lockPatience = 5 * time.Second
	lockPoll     = 20 * time.Millisecond
)

// reservations are the files of one network in which host-local notes who has
// which address: the name is the address, the content the container's ID and,
// on a second line, its interface.
type reservations struct{ dir string }

// reservations finds the files, if host-local gives out the addresses.
func (c config) reservations() (r reservations, found bool) {
	if kind, err := c.IPAM.text("type", defaultIPAM); err != nil || kind != defaultIPAM {
		return reservations{}, false
	}
	root, err := c.IPAM.text("dataDir", defaultReservations)
	if err != nil {
		return reservations{}, false
	}
	if root == "" {
		root = defaultReservations
	}
	return reservations{filepath.Join(root, c.Name)}, true
}

// sweep frees the addresses whose owner is not in use, under host-local's own
// lock. It returns how many it has freed and how many are left.
func (r reservations) sweep(ctx context.Context, inUse func(owner string) bool, log func(string, ...any)) (freed, kept int, err error) {
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
	// What was there before the lock may have another owner by then.
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
		if err == nil && !inUse(string(text)) {
			log("freed %s: container %q is gone", entry.Name(), firstLine(string(text)))
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
		id := firstLine(string(text))
		list = append(list, fmt.Sprintf("%s container %s", addr, id[:min(len(id), shortID)]))
	}
	return list
}

// ownerIn reports whether a reservation's owner is in use. A file without
// owner is what a killed host-local leaves; one without an interface is from
// an early version.
func ownerIn(inUse []types.GCAttachment, text string) bool {
	container, dev, _ := strings.Cut(strings.TrimSpace(text), "\n")
	container, dev = strings.TrimSpace(container), strings.TrimSpace(dev)
	for _, a := range inUse {
		if a.ContainerID == container && (dev == "" || a.IfName == dev) {
			return true
		}
	}
	return false
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(line)
}

// lock takes the lock that host-local itself takes around each change.
func (r reservations) lock(ctx context.Context) (unlock func(), err error) {
	path := filepath.Join(r.dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the reservations: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	poll := time.NewTicker(lockPoll)
	defer poll.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			// Closing gives up the lock.
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: another program holds it; see which one with fuser", path)
		case <-poll.C:
		}
	}
}
