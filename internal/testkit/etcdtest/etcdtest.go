// Package etcdtest runs a real etcd on loopback for a test.
package etcdtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"flannel/internal/testkit/assets"
	"flannel/internal/testkit/child"
	"flannel/internal/testkit/pki"
)

// Options define what kind of etcd a test needs. The zero value is one without
// TLS and without users.
type Options struct {
	// TLS serves over TLS with a certificate of a CA made for this test.
	TLS bool
	// ClientCerts rejects clients without a certificate of that CA.
	ClientCerts bool
	// User and Password, when set, turn authentication on. The user may read
	// and write below Prefix and nothing else.
	User, Password string
	// Prefix is what User may use; "/coreos.com/network" when empty.
	Prefix string
}

// RootPassword is the password of the user root when authentication is on.
const RootPassword = "root-of-the-test"

// Ports are fixed because every server has a loopback address of its own.
const (
	clientPort = 2379
	peerPort   = 2380
	lockPort   = 2381
)

// startTimeout bounds the wait for a server that should come up.
const startTimeout = 30 * time.Second

// Server is one etcd. Its endpoint stays the same when it is stopped and
// started again. It ends with the test, or with the process of the test.
type Server struct {
	// Files for clients; empty without TLS. Rotate writes them anew.
	CAFile, CertFile, KeyFile string

	t    testing.TB
	o    Options
	dir  string
	addr netip.Addr
	// name is that of the member, members are all of the cluster, as etcd
	// wants them.
	name, members string

	ca   *pki.Authority
	proc *child.Process
}

// Start runs an etcd and waits until it serves.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := newServer(t, o, "test")
	s.members = s.member()
	if o.TLS {
		s.CAFile = filepath.Join(s.dir, "ca.pem")
		s.CertFile = filepath.Join(s.dir, "client.pem")
		s.KeyFile = filepath.Join(s.dir, "client.key")
		s.writeCertificates()
	}
	s.Start()
	if o.User != "" {
		s.enableAuth()
	}
	return s
}

// StartCluster runs a cluster of so many members, without TLS and without
// users, and waits until all of them serve. A member that is started again
// waits until the cluster has a leader.
func StartCluster(t testing.TB, size int) []*Server {
	t.Helper()
	servers := make([]*Server, size)
	members := make([]string, size)
	for i := range servers {
		servers[i] = newServer(t, Options{}, "member"+strconv.Itoa(i+1))
		members[i] = servers[i].member()
	}
	for _, s := range servers {
		s.members = strings.Join(members, ",")
		s.launch()
	}
	for _, s := range servers {
		s.waitUntilServing()
	}
	return servers
}

func newServer(t testing.TB, o Options, name string) *Server {
	t.Helper()
	s := &Server{t: t, o: o, dir: t.TempDir(), addr: LoopbackAddr(t), name: name}
	t.Cleanup(func() {
		if s.proc != nil {
			s.Kill()
		}
	})
	return s
}

func (s *Server) member() string { return s.name + "=" + s.url(peerPort) }

// IsLeader reports whether the running server leads its cluster.
func (s *Server) IsLeader() bool {
	s.t.Helper()
	c := s.connect("", "")
	defer c.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), startTimeout)
	defer cancel()
	status, err := c.Status(ctx, s.Endpoint())
	if err != nil {
		s.t.Fatalf("ask for the leader: %v", err)
	}
	return status.Leader == status.Header.MemberId
}

// LoopbackAddr draws an address of 127.0.0.0/8 and holds it until the test
// ends, by a listener on a port that etcd does not use.
func LoopbackAddr(t testing.TB) netip.Addr {
	t.Helper()
	for range 100 {
		a := netip.AddrFrom4([4]byte{127, byte(1 + rand.IntN(254)), byte(rand.IntN(256)), byte(1 + rand.IntN(254))})
		lock, err := net.Listen("tcp", netip.AddrPortFrom(a, lockPort).String())
		if err != nil {
			continue
		}
		t.Cleanup(func() { lock.Close() })
		return a
	}
	t.Fatal("no free loopback address")
	return netip.Addr{}
}

// Endpoint is the URL for clients.
func (s *Server) Endpoint() string { return s.url(clientPort) }

func (s *Server) url(port uint16) string {
	scheme := "http"
	if s.o.TLS && port == clientPort {
		scheme = "https"
	}
	return fmt.Sprintf("%s://%s", scheme, netip.AddrPortFrom(s.addr, port))
}

func (s *Server) dataDir() string { return filepath.Join(s.dir, "data") }

// LogFile is where the server writes its log.
func (s *Server) LogFile() string { return filepath.Join(s.dir, "etcd.log") }

// Start runs the server on the data that it left, or on none, and waits until
// it serves.
func (s *Server) Start() {
	s.t.Helper()
	s.launch()
	s.waitUntilServing()
}

func (s *Server) launch() {
	s.t.Helper()
	if s.proc != nil {
		s.t.Fatal("etcd runs already")
	}
	proc, err := child.Start(s.program("etcd"), s.arguments(), s.LogFile())
	if err != nil {
		s.t.Fatal(err)
	}
	s.proc = proc
}

func (s *Server) program(name string) string {
	s.t.Helper()
	path, err := assets.Path(name)
	if err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *Server) arguments() []string {
	args := []string{
		"--name=" + s.name, "--data-dir=" + s.dataDir(),
		"--listen-client-urls=" + s.url(clientPort), "--advertise-client-urls=" + s.url(clientPort),
		"--listen-peer-urls=" + s.url(peerPort), "--initial-advertise-peer-urls=" + s.url(peerPort),
		"--initial-cluster=" + s.members,
		"--unsafe-no-fsync", "--log-level=warn", "--bcrypt-cost=4",
	}
	if s.o.TLS {
		args = append(args, "--cert-file="+s.serverCert(), "--key-file="+s.serverKey())
	}
	if s.o.ClientCerts {
		args = append(args, "--client-cert-auth", "--trusted-ca-file="+s.CAFile)
	}
	return args
}

func (s *Server) waitUntilServing() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), startTimeout)
	defer cancel()
	go func(exited <-chan struct{}) {
		select {
		case <-exited:
			cancel()
		case <-ctx.Done():
		}
	}(s.proc.Exited())
	// The client waits for the connection. Refused credentials are an answer
	// too: authentication is not what is waited for here.
	client := s.connect("", "")
	defer client.Close()
	for {
		_, err := client.Get(ctx, "/")
		if err == nil || isAuthError(err) {
			return
		}
		if ctx.Err() != nil {
			text, _ := os.ReadFile(s.LogFile())
			s.t.Fatalf("etcd does not serve: %v\n%s", err, text)
		}
	}
}

// Stop ends the server in an orderly way.
func (s *Server) Stop() {
	s.t.Helper()
	s.end(s.proc.Terminate)
}

// Kill ends the server at once.
func (s *Server) Kill() {
	s.t.Helper()
	s.end(s.proc.Kill)
}

func (s *Server) end(how func() error) {
	s.t.Helper()
	if err := how(); err != nil {
		s.t.Errorf("end etcd: %v", err)
	}
	s.proc = nil
}

// Pause stops the server from running while its connections stay open, as a
// hanging machine would; Resume ends that.
func (s *Server) Pause() {
	s.t.Helper()
	if err := s.proc.Pause(); err != nil {
		s.t.Error(err)
	}
}

// Resume ends a Pause.
func (s *Server) Resume() {
	s.t.Helper()
	if err := s.proc.Resume(); err != nil {
		s.t.Error(err)
	}
}

// Wipe deletes all data. The server must be stopped.
func (s *Server) Wipe() {
	s.t.Helper()
	if s.proc != nil {
		s.t.Fatal("wipe a running etcd")
	}
	if err := os.RemoveAll(s.dataDir()); err != nil {
		s.t.Fatal(err)
	}
}

// Client returns a client with all rights. It is closed when the test ends.
func (s *Server) Client() *clientv3.Client {
	s.t.Helper()
	user, password := "", ""
	if s.o.User != "" {
		user, password = "root", RootPassword
	}
	c := s.connect(user, password)
	s.t.Cleanup(func() { c.Close() })
	return c
}

func (s *Server) connect(user, password string) *clientv3.Client {
	s.t.Helper()
	config := clientv3.Config{
		Endpoints: []string{s.Endpoint()}, Username: user, Password: password,
		DialTimeout: startTimeout, Logger: zap.NewNop(), DialOptions: promptReconnect(),
	}
	if s.o.TLS {
		config.TLS = s.clientConfig()
	}
	c, err := clientv3.New(config)
	if err != nil {
		s.t.Fatalf("connect to etcd: %v", err)
	}
	return c
}
