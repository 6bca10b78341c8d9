package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
)

// The ports of the first member; those of the next ones are portStep higher.
const (
	etcdClientPort = 2379
	etcdPeerPort   = 2380
	portStep       = 10
)

// smallDisk is the size of the disk of a cluster's last member, in bytes: its
// log takes 64 MB at once, and as much for the file to come.
const smallDisk = 192 << 20

// EtcdMember is one server of the store.
type EtcdMember struct {
	etcd *Etcd
	// number counts from 0.
	number int
	// disk is a file system of the member's own if small, else a folder.
	disk    string
	small   bool
	process process
}

func newEtcdMember(e *Etcd, number int) (*EtcdMember, error) {
	m := &EtcdMember{
		etcd: e, number: number, disk: filepath.Join(e.lab.dir, fmt.Sprintf("etcd%d", number+1)),
		process: process{name: "etcd", node: e.Node, logPath: filepath.Join(e.lab.dir, "etcd.log")},
	}
	if err := os.Mkdir(m.disk, 0o700); err != nil {
		return nil, err
	}
	if number > 0 && number == e.lab.options.EtcdMembers-1 {
		if err := unix.Mount("tmpfs", m.disk, "tmpfs", 0, fmt.Sprintf("size=%d", smallDisk)); err != nil {
			return nil, fmt.Errorf("make the disk of a member: %w", err)
		}
		m.small = true
	}
	return m, nil
}

func (m *EtcdMember) name() string    { return fmt.Sprintf("lab%d", m.number+1) }
func (m *EtcdMember) data() string    { return filepath.Join(m.disk, "data") }
func (m *EtcdMember) filler() string  { return filepath.Join(m.disk, "filler") }
func (m *EtcdMember) peerURL() string { return loopbackURL(etcdPeerPort + portStep*m.number) }

func loopbackURL(port int) string { return "http://127.0.0.1:" + strconv.Itoa(port) }

// endpoint is the URL that all hosts reach the member under.
func (m *EtcdMember) endpoint() string {
	for _, a := range ipfam.Prefixes(m.etcd.lab.options.Families.addresses(1, etcdNumber)) {
		return "http://" + net.JoinHostPort(a.Addr().String(), strconv.Itoa(etcdClientPort+portStep*m.number))
	}
	return ""
}

// Start starts the member and does not wait until it serves: without the
// others it may never do.
func (m *EtcdMember) Start() error {
	binary := m.etcd.lab.options.Binaries.Etcd
	if binary == "" {
		return errors.New("the lab was made without an etcd binary")
	}
	args := []string{
		binary, "--name=" + m.name(), "--data-dir=" + m.data(),
		"--listen-client-urls=" + m.endpoint(), "--advertise-client-urls=" + m.endpoint(),
		"--listen-peer-urls=" + m.peerURL(), "--initial-advertise-peer-urls=" + m.peerURL(),
		"--initial-cluster=" + m.etcd.initialCluster(),
		// The data lives as long as the lab.
		"--unsafe-no-fsync", "--log-level=warn",
	}
	if len(m.etcd.Members) == 1 {
		// One member elects itself: there is nobody to wait for.
		args = append(args, "--heartbeat-interval=20", "--election-timeout=200")
	}
	return m.process.start(args, nil)
}

// Stop ends the member with SIGTERM. Its data stay.
func (m *EtcdMember) Stop() error { return m.process.stop() }

// Kill ends the member with SIGKILL.
func (m *EtcdMember) Kill() error { return m.process.kill() }

// Exited returns a channel that is closed when the member of the last start
// has ended.
func (m *EtcdMember) Exited() <-chan struct{} { return m.process.exited() }

// WaitReady waits until the member serves, which needs a quorum.
func (m *EtcdMember) WaitReady(ctx context.Context) error { return m.process.waitReady(ctx, m.healthy) }

func (m *EtcdMember) healthy(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.endpoint()+"/health", nil)
	if err != nil {
		return err
	}
	resp, err := m.etcd.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// FillDisk leaves no space on the disk of a cluster's last member.
func (m *EtcdMember) FillDisk() error {
	if !m.small {
		return fmt.Errorf("etcd member %s has no disk of its own", m.name())
	}
	f, err := os.Create(m.filler())
	if err != nil {
		return err
	}
	defer f.Close()
	for block := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		return err
	}
	return nil
}

// FreeDisk undoes FillDisk.
func (m *EtcdMember) FreeDisk() error { return os.Remove(m.filler()) }

func (m *EtcdMember) wipe() error { return os.RemoveAll(m.data()) }

func (m *EtcdMember) restore(ctx context.Context, snapshot string) error {
	if err := m.wipe(); err != nil {
		return err
	}
	_, err := m.etcd.Node.Exec(ctx, m.etcd.tool("etcdutl"), "snapshot", "restore", snapshot,
		"--data-dir="+m.data(), "--name="+m.name(),
		"--initial-cluster="+m.etcd.initialCluster(), "--initial-advertise-peer-urls="+m.peerURL())
	return err
}

func (m *EtcdMember) close() error {
	err := m.Kill()
	if m.small {
		err = errors.Join(err, unix.Unmount(m.disk, unix.MNT_DETACH))
	}
	return err
}
