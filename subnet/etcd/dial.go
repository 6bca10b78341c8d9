package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math"
	"net"
	"os"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Connections are tried again every two seconds at the latest: that costs next
// to nothing, and the end of an outage is seen at once. A peer that vanished
// without a word is noticed by keepalive.
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
	}
	files := tlsFiles{m.o.KeyFile, m.o.CertFile, m.o.CAFile}
	secured := insecure.NewCredentials()
	switch plain := strings.HasPrefix(m.o.Endpoints[0], "http://"); {
	case plain && files != (tlsFiles{}):
		m.log.Warn("certificates are not used, endpoint is not https", "endpoint", m.o.Endpoints[0])
	case usesTLS(m.o.Endpoints[0], files):
		if _, err := files.config(); err != nil {
			m.log.Warn("certificates cannot be used, will read them again", "err", err)
		}
		secured = newReloading(files)
	}
	options = append(options, grpc.WithTransportCredentials(tracked{secured, &m.connections}))
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
		Logger:               zapLogger(m.log),
	})
	if err != nil {
		return err
	}
	m.client = client
	// The client's own interfaces wait for a connection until the deadline and
	// then cannot say what was wrong. These fail at once, with the cause.
	conn := client.ActiveConnection()
	m.kv = clientv3.NewKVFromKVClient(pb.NewKVClient(conn), nil)
	m.leases = clientv3.NewLeaseFromLeaseClient(pb.NewLeaseClient(conn), nil, time.Second)
	return nil
}

func usesTLS(endpoint string, files tlsFiles) bool {
	scheme, _, found := strings.Cut(endpoint, ":")
	if found && (scheme == "http" || scheme == "https" || scheme == "unixs") {
		return scheme != "http"
	}
	return files != (tlsFiles{})
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

// reloading is TLS whose files are read for every connection, so that renewed
// certificates are used without a restart.
type reloading struct {
	credentials.TransportCredentials // for everything but the handshake
	files                            tlsFiles
}

func newReloading(files tlsFiles) *reloading {
	return &reloading{credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12}), files}
}

// ClientHandshake implements credentials.TransportCredentials.
func (r *reloading) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	config, err := r.files.config()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(config).ClientHandshake(ctx, authority, conn)
}

// Clone implements credentials.TransportCredentials.
func (r *reloading) Clone() credentials.TransportCredentials { return newReloading(r.files) }
