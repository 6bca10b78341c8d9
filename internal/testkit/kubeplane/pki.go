package kubeplane

import (
	"crypto/rand"
	"crypto/rsa"
	"net/netip"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/pki"
)

// writeCertificates makes a CA, the API server's certificate and the key that
// signs the tokens of service accounts.
func (p *Plane) writeCertificates() error {
	ca, err := pki.NewAuthority("CA of the test")
	if err != nil {
		return err
	}
	if err := ca.Write(p.CAFile()); err != nil {
		return err
	}
	addrs := []netip.Addr{p.Addr, netip.MustParseAddr(services[ipfam.Of(p.Addr)].first), netip.MustParseAddr("127.0.0.1")}
	if err := ca.WritePair(p.file("server.pem"), p.file("server.key"), "kube-apiserver", addrs,
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"); err != nil {
		return err
	}
	accounts, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	return pki.WriteKey(p.file("accounts.key"), accounts)
}
