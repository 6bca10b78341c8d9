package kernel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// tunPath is where user space opens TUN devices.
const tunPath = "/dev/net/tun"

// TUNFlags are those of our TUN devices; whoever attaches to one must name the same.
const TUNFlags = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR

// makeTUN creates a device in the namespace of the thread that stays when
// nobody is attached to it.
func makeTUN(name string) error {
	fd, err := OpenTUN(name, TUNFlags|unix.IFF_TUN_EXCL)
	if err != nil {
		return err
	}
	return errors.Join(unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1), unix.Close(fd))
}

// UseTUN has the kernel hand packets to whoever has just attached to a device in
// the namespace of the thread. By itself it does so a while later, and drops them
// until then; since Linux 6.8 it does so at once when it is asked for the carrier.
func UseTUN(name string) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(ethtool(uintptr(socket), name, &ethtoolValue{command: unix.ETHTOOL_GLINK}), unix.Close(socket))
}

// OpenTUN attaches to a device in the namespace of the thread, or creates it
// unless it is already there. From then on only root may attach to it. The
// descriptor does not block.
func OpenTUN(name string, flags uint16) (int, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
		return -1, fmt.Errorf("open %s: %w; load it with 'modprobe tun', and give it to the container", tunPath, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return -1, fmt.Errorf("open %s: %w; the container needs this device", tunPath, err)
	case err != nil:
		return -1, fmt.Errorf("open %s: %w", tunPath, err)
	}
	if err := attachTUN(fd, name, flags); err != nil {
		return -1, errors.Join(fmt.Errorf("attach to %s: %w", name, err), unix.Close(fd))
	}
	return fd, nil
}

// attachTUN attaches an open descriptor to a device. A device without owner and
// group is open to every user who can open tunPath, whenever no program is
// attached to it.
func attachTUN(fd int, name string, flags uint16) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(flags)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	if errors.Is(err, unix.EBUSY) && flags&unix.IFF_TUN_EXCL == 0 {
		return fmt.Errorf("%w: another process is attached to it (`grep -l %s /proc/[0-9]*/fdinfo/*` shows which); "+
			"end that process, or remove the device with `ip link del %s`: it is made again", err, name, name)
	}
	if err != nil {
		return err
	}
	return errors.Join(unix.IoctlSetInt(fd, unix.TUNSETOWNER, 0), unix.IoctlSetInt(fd, unix.TUNSETGROUP, 0))
}
