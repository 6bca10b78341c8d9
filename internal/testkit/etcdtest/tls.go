package etcdtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"

	"flannel/internal/atomicfile"
)

// authority is a CA for one test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t}
	template := a.template("test CA")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	a.cert, a.key = a.sign(template)
	return a
}

func (a *authority) template(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// sign makes a key and its certificate, signed by the CA or, for the CA
// itself, by its own key.
func (a *authority) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// clientConfig is for the test's own clients.
func (a *authority) clientConfig() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	cert, key := a.sign(a.template("test"))
	return &tls.Config{
		RootCAs:      pool,
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
	}
}

func (s *Server) serverCert() string { return filepath.Join(s.dir, "server.pem") }
func (s *Server) serverKey() string  { return filepath.Join(s.dir, "server.key") }

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
	s.ca = newAuthority(s.t)
	s.writePEM(s.CAFile, "CERTIFICATE", s.ca.cert.Raw)
	server := s.ca.template("server")
	server.IPAddresses = []net.IP{s.addr.AsSlice()}
	s.writePair(s.serverCert(), s.serverKey(), server)
	s.writePair(s.CertFile, s.KeyFile, s.ca.template("client"))
}

func (s *Server) writePair(certFile, keyFile string, template *x509.Certificate) {
	s.t.Helper()
	cert, key := s.ca.sign(template)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	s.writePEM(keyFile, "EC PRIVATE KEY", der)
	s.writePEM(certFile, "CERTIFICATE", cert.Raw)
}

func (s *Server) writePEM(path, kind string, der []byte) {
	s.t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := atomicfile.Write(path, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
}
