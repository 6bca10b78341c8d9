package kernel

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtoolValue is struct ethtool_value of linux/ethtool.h.
type ethtoolValue struct {
	command uint32
	data    uint32
}

// ethtoolRequest is the part of struct ifreq that SIOCETHTOOL reads, padded to
// its size.
type ethtoolRequest struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [24 - unsafe.Sizeof(uintptr(0))]byte
}

// TxChecksum reports whether transmit checksum offload is on.
func (n *netlinkLinks) TxChecksum(name string) (bool, error) {
	v := ethtoolValue{command: unix.ETHTOOL_GTXCSUM}
	err := n.ethtool(name, &v)
	return v.data != 0, err
}

// TxChecksumOff turns transmit checksum offload off.
func (n *netlinkLinks) TxChecksumOff(name string) error {
	return n.ethtool(name, &ethtoolValue{command: unix.ETHTOOL_STXCSUM})
}

func (n *netlinkLinks) ethtool(name string, v *ethtoolValue) error {
	return ethtool(n.ioctl.Fd(), name, v)
}

func ethtool(socket uintptr, name string, v *ethtoolValue) error {
	r := ethtoolRequest{data: unsafe.Pointer(v)}
	copy(r.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, socket, unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r)))
	if errno != 0 {
		return os.NewSyscallError("ioctl ethtool", errno)
	}
	return nil
}
