package udp

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxReceived is how many messages one system call brings. With GRO each can
// be as long as a packet can be.
const maxReceived = 32

// receiver receives datagrams, as many as are there.
type receiver struct {
	raw      syscall.RawConn
	headers  [maxReceived]mmsghdr
	from     [maxReceived]address
	controls [maxReceived]control
	pieces   [maxReceived]unix.Iovec
	buffers  [][]byte
	count    int
	err      error
	try      func(fd uintptr) bool
}

func newReceiver(s *socket) *receiver {
	r := &receiver{raw: s.raw}
	r.try = r.once
	memory := make([]byte, maxReceived<<16)
	for i := range maxReceived {
		b := memory[i<<16 : (i+1)<<16]
		r.buffers = append(r.buffers, b)
		r.pieces[i].Base = &b[0]
		r.pieces[i].SetLen(len(b))
		h := &r.headers[i]
		h.Name, h.Iov = (*byte)(unsafe.Pointer(&r.from[i].raw)), &r.pieces[i]
		h.SetIovlen(1)
		h.Control = &r.controls[i].b[0]
	}
	return r
}

// receive waits for messages and returns how many there are. They are valid
// until the next call.
func (r *receiver) receive() (int, error) {
	r.err = nil
	if err := r.raw.Read(r.try); err != nil {
		return 0, err
	}
	return r.count, r.err
}

func (r *receiver) once(fd uintptr) bool {
	for i := range maxReceived {
		h := &r.headers[i]
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlSize)
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.headers[0])), maxReceived, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		case 0:
			r.count = int(n)
		default:
			r.count, r.err = 0, os.NewSyscallError("recvmmsg", errno)
		}
		return true
	}
}

// payload returns the bytes of a message, and the control messages with them.
func (r *receiver) payload(i int) (data, control []byte) {
	h := &r.headers[i]
	return r.buffers[i][:h.n], r.controls[i].b[:h.Controllen]
}
