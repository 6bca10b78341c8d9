package etcdtest

import (
	"crypto/tls"
	"net/netip"
	"path/filepath"

	"flannel/internal/testkit/pki"
)

func (s *Server) serverCert() string { return filepath.Join(s.dir, "server.pem") }
func (s *Server) serverKey() string  { return filepath.Join(s.dir, "server.key") }

// clientConfig is for the test's own clients.
func (s *Server) clientConfig() *tls.Config {
	s.t.Helper()
	pair, err := s.ca.Issue("test", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &tls.Config{RootCAs: s.ca.Pool(), Certificates: []tls.Certificate{pair}}
}

// Rotate replaces the CA, the server's certificate and the files for clients.
// The server must be stopped, because it reads its CA at start only.
func (s *Server) Rotate() {
	s.t.Helper()
	if s.proc != nil {
		s.t.Fatal("rotate the certificates of a running etcd")
	}
	s.writeCertificates()
}

func (s *Server) writeCertificates() {
	s.t.Helper()
	var err error
	if s.ca, err = pki.NewAuthority("test CA"); err != nil {
		s.t.Fatal(err)
	}
	for _, write := range []func() error{
		func() error { return s.ca.Write(s.CAFile) },
		func() error { return s.ca.WritePair(s.serverCert(), s.serverKey(), "server", []netip.Addr{s.addr}) },
		func() error { return s.ca.WritePair(s.CertFile, s.KeyFile, "client", nil) },
	} {
		if err := write(); err != nil {
			s.t.Fatal(err)
		}
	}
}
