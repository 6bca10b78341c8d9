package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"flannel/internal/secret"
)

// Connections are tried again every two seconds at the latest: that costs next
// to nothing, and the end of an outage is noticed at once. A peer that vanished
// without closing its connections is noticed by keepalive.
const (
	connectTimeout   = 5 * time.Second
	connectBackoff   = 200 * time.Millisecond
	connectEvery     = 1500 * time.Millisecond
	keepaliveTime    = 20 * time.Second
	keepaliveTimeout = 10 * time.Second
)

// dial makes the client. Nothing is sent yet.
func (m *Manager) dial() error {
	options := []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: connectBackoff, Multiplier: 1.6, Jitter: 0.2, MaxDelay: connectEvery},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithTransportCredentials(m.transport()),
	}
	if m.o.Username != "" {
		m.token = &token{user: m.o.Username, password: m.o.Password}
		options = append(options, grpc.WithPerRPCCredentials(m.token))
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            m.o.Endpoints,
		DialKeepAliveTime:    keepaliveTime,
		DialKeepAliveTimeout: keepaliveTimeout,
		MaxUnaryRetries:      1,
		DialOptions:          options,
		Logger:               zap.NewNop(), // errors are returned to us, and logged by us
	})
	if err != nil {
		return err
	}
	m.client = client
	// The client's own interfaces wait for a connection until the deadline and
	// then cannot tell what was wrong. These fail at once, with the cause.
	conn := client.ActiveConnection()
	m.kv = clientv3.NewKVFromKVClient(pb.NewKVClient(conn), nil)
	m.leases = clientv3.NewLeaseFromLeaseClient(pb.NewLeaseClient(conn), nil, time.Second)
	return nil
}

// transport are credentials that note every connection they secure. With TLS
// the files are read for every connection, so that renewed certificates are used
// without a restart.
type transport struct {
	credentials.TransportCredentials // for everything but the handshake

	files       *tlsFiles // nil without TLS
	connections *connections
}

// transport returns the credentials that the options ask for.
func (m *Manager) transport() transport {
	t := transport{TransportCredentials: insecure.NewCredentials(), connections: &m.connections}
	files := tlsFiles{m.o.KeyFile, m.o.CertFile, m.o.CAFile}
	scheme, _, _ := strings.Cut(m.o.Endpoints[0], ":")
	switch given := files != (tlsFiles{}); {
	case scheme == "http" && given:
		m.log.Warn("certificates are not used, endpoint is not https", "endpoint", m.o.Endpoints[0])
	case scheme == "https" || scheme == "unixs" || scheme != "http" && given:
		if _, err := files.config(); err != nil {
			m.log.Warn("certificates cannot be used, will read them again", "err", err)
		}
		t.TransportCredentials, t.files = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12}), &files
	}
	return t
}

// ClientHandshake implements credentials.TransportCredentials.
func (t transport) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c := t.TransportCredentials
	if t.files != nil {
		config, err := t.files.config()
		if err != nil {
			return nil, nil, err
		}
		c = credentials.NewTLS(config)
	}
	secured, info, err := c.ClientHandshake(ctx, authority, conn)
	if err != nil {
		return nil, nil, err
	}
	return t.connections.add(secured), info, nil
}

// Clone implements credentials.TransportCredentials.
func (t transport) Clone() credentials.TransportCredentials {
	t.TransportCredentials = t.TransportCredentials.Clone()
	return t
}

// tlsFiles are paths; an empty one is not used.
type tlsFiles struct{ key, cert, ca string }

// config reads the files.
func (f tlsFiles) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.ca != "" {
		text, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("read CA: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("read CA: %s holds no certificate", f.ca)
		}
	}
	if f.cert != "" || f.key != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// connections are those that are open. They are closed when the address that
// they come from is gone: the other side would never answer, and that takes long
// to notice.
type connections struct {
	mu   sync.Mutex
	open map[*connection]struct{}
	// addrs are those that connections went to, closed ones included.
	addrs map[netip.Addr]bool
}

// connection leaves the set when it is closed.
type connection struct {
	net.Conn
	set *connections
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.set.mu.Lock()
	delete(c.set.open, c)
	c.set.mu.Unlock()
	return c.Conn.Close()
}

func (s *connections) add(conn net.Conn) net.Conn {
	c := &connection{conn, s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open, s.addrs = map[*connection]struct{}{}, map[netip.Addr]bool{}
	}
	s.open[c] = struct{}{}
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		s.addrs[a.AddrPort().Addr().Unmap()] = true
	}
	return c
}

func (s *connections) closeAll() {
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	for _, c := range all {
		c.Close() // its user gets the error
	}
}

// Reconnect implements subnet.Manager. The client opens new connections by
// itself.
func (m *Manager) Reconnect() { m.connections.closeAll() }

// StoreAddrs implements subnet.Manager.
func (m *Manager) StoreAddrs() []netip.Addr {
	m.connections.mu.Lock()
	defer m.connections.mu.Unlock()
	return slices.Collect(maps.Keys(m.connections.addrs))
}

// token authenticates us to etcd. It is fetched when etcd asks for it, and again
// when etcd has forgotten it.
type token struct {
	user     string
	password secret.String
	text     atomic.Pointer[string]
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t *token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	text := t.text.Load()
	if text == nil {
		return nil, nil
	}
	return map[string]string{rpctypes.TokenFieldNameGRPC: *text}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (t *token) RequireTransportSecurity() bool { return false }

// authenticate fetches a token. An etcd without authentication needs none.
func (m *Manager) authenticate(ctx context.Context) error {
	if m.token == nil {
		return nil
	}
	m.token.text.Store(nil) // a stale one would be refused even here
	auth := pb.NewAuthClient(m.client.ActiveConnection())
	resp, err := auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: m.token.user, Password: m.token.password.Reveal()})
	if err = rpctypes.Error(err); errors.Is(err, rpctypes.ErrAuthNotEnabled) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("authenticate as %s: %w", m.token.user, err)
	}
	m.token.text.Store(&resp.Token)
	return nil
}

// wantsToken reports whether a request was refused for lack of a valid token.
func wantsToken(err error) bool {
	err = rpctypes.Error(err)
	return errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrInvalidAuthToken) ||
		errors.Is(err, rpctypes.ErrAuthOldRevision)
}

// TLS returns what a manager with these options secures its connections with, nil
// without TLS, for programs that look at etcd.
func TLS(o Options) (*tls.Config, error) {
	files := tlsFiles{o.KeyFile, o.CertFile, o.CAFile}
	if files == (tlsFiles{}) {
		return nil, nil
	}
	return files.config()
}
