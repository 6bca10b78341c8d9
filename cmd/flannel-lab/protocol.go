package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A client connects to the lab's socket, sends one request and gets one reply,
// both JSON. The namespaces of a reply come as descriptors along with it.

type request struct {
	// Enter is the host or pod to enter; empty asks for the status.
	Enter string
	// Kubernetes asks for what a client of the API server needs.
	Kubernetes bool
}

type reply struct {
	Error string
	Hosts []hostStatus
	// Kubeconfig is the text of the file, Kubectl the path of the program.
	Kubeconfig, Kubectl string
	// Kinds are the CLONE_NEW* flags of the descriptors.
	Kinds []int
}

type hostStatus struct {
	Name, Uplink, Subnet, Pods string
	// Missing says why the host is not ready; empty when it is.
	Missing string
}

// namespace is one namespace of the node to enter.
type namespace struct {
	kind int
	file *os.File
}

// ask sends a request to the lab of this place.
func (p place) ask(r request) (reply, []namespace, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: p.socketPath(), Net: "unix"})
	if errors.Is(err, fs.ErrNotExist) || isGone(err) {
		return reply{}, nil, p.notUp()
	}
	if err != nil {
		return reply{}, nil, err
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(r); err != nil && !isGone(err) {
		return reply{}, nil, fmt.Errorf("ask lab %q: %w", p.name, err)
	}
	got, spaces, err := receive(conn)
	if isGone(err) {
		return reply{}, nil, p.notUp()
	}
	if err != nil {
		return reply{}, nil, fmt.Errorf("lab %q does not answer: %w", p.name, err)
	}
	if got.Error != "" {
		return reply{}, nil, errors.New(got.Error)
	}
	return got, spaces, nil
}

// isGone reports whether an error means that the lab has ended, perhaps at this
// moment.
func isGone(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ECONNRESET) ||
		errors.Is(err, unix.EPIPE) || errors.Is(err, io.EOF)
}

func (p place) notUp() error {
	return fmt.Errorf("lab %q is not up; start it with flannel-lab up 3 --name %s", p.name, p.name)
}

// receive reads a reply. The descriptors come with its first byte.
func receive(conn *net.UnixConn) (reply, []namespace, error) {
	var got reply
	first, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(16*4))
	size, n, _, _, err := conn.ReadMsgUnix(first, oob)
	if err != nil {
		return got, nil, err
	}
	if size == 0 {
		return got, nil, io.EOF
	}
	fds, err := rights(oob[:n])
	if err != nil {
		return got, nil, err
	}
	// The first byte is only there to carry the descriptors.
	if err := json.NewDecoder(conn).Decode(&got); err != nil {
		return got, nil, err
	}
	if len(fds) != len(got.Kinds) {
		return got, nil, fmt.Errorf("%d namespaces, want %d", len(fds), len(got.Kinds))
	}
	var spaces []namespace
	for i, fd := range fds {
		spaces = append(spaces, namespace{got.Kinds[i], os.NewFile(uintptr(fd), "namespace")})
	}
	return got, spaces, nil
}

func rights(oob []byte) ([]int, error) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	return syscall.ParseUnixRights(&messages[0])
}

// send writes a reply, the mirror of receive.
func send(conn *net.UnixConn, r reply, spaces []namespace) error {
	var fds []int
	for _, s := range spaces {
		fds = append(fds, int(s.file.Fd()))
		r.Kinds = append(r.Kinds, s.kind)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = syscall.UnixRights(fds...)
	}
	if _, _, err := conn.WriteMsgUnix([]byte("\n"), oob, nil); err != nil {
		return err
	}
	return json.NewEncoder(conn).Encode(r)
}
