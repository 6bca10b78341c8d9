// Package kubeplane defines how a Kubernetes for tests is run: its certificates,
// its users, and the arguments and files of its programs.
package kubeplane

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"flannel/internal/atomicfile"
	"flannel/internal/ipfam"
)

// The users of the cluster; each has a kubeconfig.
const (
	// Admin may do everything.
	Admin = "admin"
	// Daemon may do what roles let it do; at first there is none.
	Daemon = "flannel"
)

// Port is where the API server listens.
const Port = 6443

// services are where Services live, the first address, which is the API
// server's, and the tenth, which is that of the cluster's DNS.
var services = ipfam.Pair[struct{ cidr, first, dns string }]{
	{"10.96.0.0/16", "10.96.0.1", "10.96.0.10"},
	{"fd00:10:96::/112", "fd00:10:96::1", "fd00:10:96::a"},
}

// Plane is one control plane.
type Plane struct {
	// Dir is where its files are.
	Dir string
	// Addr is the address that the API server listens on.
	Addr netip.Addr
	// Etcd is the URL of its store.
	Etcd string
	// PodRanges are what the controller manager cuts pod CIDRs from, one per
	// family; none when it is empty.
	PodRanges []netip.Prefix
	// Pods means that nodes run pods: these have accounts, and the API server is
	// a Service.
	Pods bool
}

// URL is where clients reach the API server.
func (p *Plane) URL() string { return "https://" + netip.AddrPortFrom(p.Addr, Port).String() }

func (p *Plane) file(name string) string { return filepath.Join(p.Dir, name) }

// CAFile holds the certificate that the API server's is signed with.
func (p *Plane) CAFile() string { return p.file("ca.pem") }

// Kubeconfig is the file for one of the users.
func (p *Plane) Kubeconfig(user string) string { return p.file(user + ".kubeconfig") }

// Token is what a user shows to the API server.
func (p *Plane) Token(user string) string { return user + "-of-the-test" }

// Write makes the files that the programs and their users need.
func (p *Plane) Write() error {
	if err := p.writeCertificates(); err != nil {
		return fmt.Errorf("certificates of the control plane: %w", err)
	}
	tokens := fmt.Sprintf("%s,%s,%s,system:masters\n%s,%s,%s\n",
		p.Token(Admin), Admin, Admin, p.Token(Daemon), Daemon, Daemon)
	if err := atomicfile.Write(p.file("tokens.csv"), []byte(tokens), 0o600); err != nil {
		return err
	}
	for _, user := range []string{Admin, Daemon} {
		if err := p.WriteKubeconfig(p.Kubeconfig(user), p.URL(), user); err != nil {
			return err
		}
	}
	return nil
}

// WriteKubeconfig writes a kubeconfig for a user that reaches the API server
// under this URL. It needs no other file.
func (p *Plane) WriteKubeconfig(path, url, user string) error {
	ca, err := p.certificate()
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
clusters:
- name: test
  cluster: {server: %q, certificate-authority-data: %q}
users:
- name: test
  user: {token: %q}
contexts:
- name: test
  context: {cluster: test, user: test}
`, url, base64.StdEncoding.EncodeToString(ca), p.Token(user))
	return atomicfile.Write(path, []byte(text), 0o600)
}

// DNS is the address of the Service that resolves names.
func (p *Plane) DNS() netip.Addr { return netip.MustParseAddr(services[ipfam.Of(p.Addr)].dns) }

// serviceRanges are one per family of the pods; the API server's own comes
// first.
func (p *Plane) serviceRanges() string {
	own := ipfam.Of(p.Addr)
	list := services[own].cidr
	for _, r := range p.PodRanges {
		if f := ipfam.Of(r.Addr()); f != own {
			list += "," + services[f].cidr
		}
	}
	return list
}

// APIServer returns the arguments of kube-apiserver.
func (p *Plane) APIServer() []string {
	args := []string{
		"--etcd-servers=" + p.Etcd,
		"--bind-address=" + p.Addr.String(), fmt.Sprintf("--secure-port=%d", Port),
		"--cert-dir=" + p.Dir,
		"--tls-cert-file=" + p.file("server.pem"), "--tls-private-key-file=" + p.file("server.key"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + p.file("accounts.key"),
		"--service-account-signing-key-file=" + p.file("accounts.key"),
		"--service-cluster-ip-range=" + p.serviceRanges(),
		"--token-auth-file=" + p.file("tokens.csv"), "--authorization-mode=RBAC",
		"--allow-privileged=true", "--kubelet-preferred-address-types=InternalIP",
		"--shutdown-delay-duration=0s",
	}
	if p.Pods {
		return args
	}
	return append(args,
		// Nobody watches whether the API server is there.
		"--endpoint-reconciler-type=none",
		// Accounts are made by a controller that may not run.
		"--disable-admission-plugins=ServiceAccount")
}

// ControllerManager returns the arguments of kube-controller-manager.
func (p *Plane) ControllerManager() []string {
	args := []string{
		"--kubeconfig=" + p.Kubeconfig(Admin), "--leader-elect=false",
		"--bind-address=" + p.Addr.String(), "--cert-dir=" + p.Dir,
		"--root-ca-file=" + p.CAFile(), "--service-account-private-key-file=" + p.file("accounts.key"),
	}
	if len(p.PodRanges) > 0 {
		args = append(args, "--allocate-node-cidrs", "--cluster-cidr="+join(p.PodRanges))
	}
	return args
}

// join lists addresses or ranges as the programs want them.
func join[T fmt.Stringer](list []T) string {
	var texts []string
	for _, item := range list {
		texts = append(texts, item.String())
	}
	return strings.Join(texts, ",")
}

// Scheduler returns the arguments of kube-scheduler.
func (p *Plane) Scheduler() []string {
	return []string{
		"--kubeconfig=" + p.Kubeconfig(Admin), "--leader-elect=false",
		"--bind-address=" + p.Addr.String(), "--cert-dir=" + p.Dir,
	}
}

// Certificate reads the CA's certificate.
func (p *Plane) certificate() ([]byte, error) { return os.ReadFile(p.CAFile()) }
