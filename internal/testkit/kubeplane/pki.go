package kubeplane

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"time"

	"flannel/internal/atomicfile"
	"flannel/internal/ipfam"
)

// writeCertificates makes a CA, the API server's certificate and the key that
// signs the tokens of service accounts.
func (p *Plane) writeCertificates() error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := template("CA of the test")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	if err := p.writeCertificate("ca.pem", ca, ca, caKey.Public(), caKey); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	server := template("kube-apiserver")
	server.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	addrs := []netip.Addr{p.Addr, netip.MustParseAddr(services[ipfam.Of(p.Addr)].first), netip.MustParseAddr("127.0.0.1")}
	for _, a := range addrs {
		server.IPAddresses = append(server.IPAddresses, net.IP(a.AsSlice()))
	}
	if err := p.writeCertificate("server.pem", server, ca, key.Public(), caKey); err != nil {
		return err
	}
	if err := p.writeKey("server.key", key); err != nil {
		return err
	}
	accounts, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	return p.writeKey("accounts.key", accounts)
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

func (p *Plane) writeCertificate(name string, c, parent *x509.Certificate, key crypto.PublicKey, signer crypto.Signer) error {
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key, signer)
	if err != nil {
		return err
	}
	return p.writePEM(name, "CERTIFICATE", der)
}

func (p *Plane) writeKey(name string, key crypto.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return p.writePEM(name, "PRIVATE KEY", der)
}

func (p *Plane) writePEM(name, kind string, der []byte) error {
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	return atomicfile.Write(p.file(name), text, 0o600)
}
