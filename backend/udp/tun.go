package udp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"flannel/backend/udp/packet"
	"flannel/kernel"
)

// tun is the end of the TUN device that user space holds.
type tun struct {
	file *os.File
	raw  syscall.RawConn
	// segments is whether the kernel hands over and takes TCP packets of many
	// segments, datagrams that it does so with UDP.
	segments, datagrams bool
}

// openTUN attaches to the device, which the kernel package has made.
func openTUN(name string, may offloads) (*tun, error) {
	fd, err := kernel.OpenTUN(name, kernel.TUNFlags)
	if err != nil {
		return nil, err
	}
	t := &tun{}
	if err := t.prepare(fd, name, may); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	t.file = os.NewFile(uintptr(fd), "/dev/net/tun")
	if t.raw, err = t.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, t.file.Close())
	}
	return t, nil
}

func (t *tun) prepare(fd int, name string, may offloads) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, request); err != nil {
		return fmt.Errorf("ask for the flags of %s: %w", name, err)
	}
	if request.Uint16()&unix.IFF_PERSIST == 0 {
		// Attaching has made one that nobody wants; it goes with the
		// descriptor.
		return fmt.Errorf("attach to %s: the device does not exist", name)
	}
	const tcp, both = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6, unix.TUN_F_USO4 | unix.TUN_F_USO6
	t.datagrams = may.datagrams && unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp|both) == nil
	t.segments = t.datagrams || may.segments && unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp) == nil
	_ = kernel.UseTUN(name) // else the first packets are lost
	return nil
}

// Frames are read into one buffer; each may be as long as a packet can be.
const (
	maxFrame   = packet.VnetLen + 65535
	readBuffer = 4 * maxFrame
	maxFrames  = 128
)

// reader reads frames from the device, as many as are there.
type reader struct {
	raw    syscall.RawConn
	buffer []byte
	frames [maxFrames][]byte
	count  int
	err    error
	try    func(fd uintptr) bool
}

func newReader(t *tun) *reader {
	r := &reader{raw: t.raw, buffer: make([]byte, readBuffer)}
	r.try = r.drain
	return r
}

// read waits for frames. They are valid until the next call.
func (r *reader) read() ([][]byte, error) {
	r.count, r.err = 0, nil
	if err := r.raw.Read(r.try); err != nil {
		return nil, err
	}
	return r.frames[:r.count], r.err
}

// drain reads until nothing is left or the buffer is full. It reports false
// when there was nothing.
func (r *reader) drain(fd uintptr) bool {
	used := 0
	for r.count < maxFrames && len(r.buffer)-used >= maxFrame {
		n, err := unix.Read(int(fd), r.buffer[used:used+maxFrame])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN || n <= 0 && err == nil:
			return r.count > 0
		case err != nil:
			r.err = os.NewSyscallError("read", err)
			return true
		}
		r.frames[r.count] = r.buffer[used : used+n : used+n]
		r.count++
		used += n
	}
	return true
}

// writer writes packets to the device.
type writer struct {
	raw    syscall.RawConn
	header [packet.VnetLen]byte
	iov    [1 + packet.MaxParts]unix.Iovec
	count  int
	err    error
	try    func(fd uintptr) bool
}

func newWriter(t *tun) *writer {
	w := &writer{raw: t.raw}
	w.try = w.once
	return w
}

// write writes one packet that consists of parts.
func (w *writer) write(v packet.Vnet, parts [][]byte) error {
	v.Encode(w.header[:])
	w.iov[0].Base = &w.header[0]
	w.iov[0].SetLen(len(w.header))
	w.count = 1
	for _, p := range parts {
		w.iov[w.count].Base = unsafe.SliceData(p)
		w.iov[w.count].SetLen(len(p))
		w.count++
	}
	if err := w.raw.Write(w.try); err != nil {
		return err
	}
	return w.err
}

func (w *writer) once(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.iov[0])), uintptr(w.count))
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			return false
		case errno != 0:
			w.err = os.NewSyscallError("writev", errno)
		case n == 0:
			w.err = io.ErrShortWrite
		default:
			w.err = nil
		}
		return true
	}
}
