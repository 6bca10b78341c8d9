package etcd

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flannel/internal/ipfam"
	"flannel/internal/secret"
	"flannel/internal/testkit/etcdtest"
	"flannel/subnet/subnettest"
)

func TestTLSWithACAAlone(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{TLS: true}), "/coreos.com/network")
	h.SetConfig(t, v4)
	o := h.options()
	o.CAFile = h.server.CAFile
	r := runNode(t, o, 1)
	awaitAll(t, h, []*runningNode{r}, []ipfam.Pair[netip.Prefix]{r.own.Subnet})
}

func TestServerOfAnotherCAIsRejected(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{TLS: true}), "/coreos.com/network")
	h.SetConfig(t, v4)
	other := filepath.Join(t.TempDir(), "ca.pem")
	text, err := os.ReadFile(h.server.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, text, 0o600); err != nil {
		t.Fatal(err)
	}
	h.server.Kill()
	h.server.Rotate()
	h.server.Start()
	h.client = h.server.Client() // trusts the other CA
	reached := make(chan error, 10)
	o := h.options()
	o.CAFile, o.Reachable = other, func(err error) { reached <- err }
	m := newManager(t, o)
	subnettest.Watch(t, m)
	if err := <-reached; err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("Reachable(%v), want the certificate as the cause", err)
	}
}

func TestRenewedCertificatesAreUsed(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{TLS: true, ClientCerts: true}), "/coreos.com/network")
	h.SetConfig(t, v4)
	o := h.options()
	o.CAFile, o.CertFile, o.KeyFile = h.server.CAFile, h.server.CertFile, h.server.KeyFile
	r := runNode(t, o, 1)
	r.watch.AwaitSubnets(r.own.Subnet)
	h.server.Kill()
	h.server.Rotate()
	h.server.Start()
	h.client = h.server.Client() // trusts the other CA
	awaitAll(t, h, []*runningNode{r}, []ipfam.Pair[netip.Prefix]{r.own.Subnet})
}

func TestUserAndPassword(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{User: "node", Password: "hunter2"}), "/coreos.com/network")
	h.SetConfig(t, v4)
	var book logBook
	o := h.options()
	o.Username, o.Password, o.Log = "node", secret.New("hunter2"), book.logger()
	r := runNode(t, o, 1)
	r.watch.AwaitSubnets(r.own.Subnet)
	// etcd forgets all tokens when it restarts.
	h.server.Kill()
	h.server.Start()
	awaitAll(t, h, []*runningNode{r}, []ipfam.Pair[netip.Prefix]{r.own.Subnet})
	again := runNode(t, o, 1)
	if again.own.Subnet != r.own.Subnet {
		t.Errorf("%v after %v", again.own.Subnet, r.own.Subnet)
	}
	if book.count("hunter2") > 0 {
		t.Errorf("the log shows the password:\n%s", book.String())
	}
}

func TestWrongPasswordIsLogged(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{User: "node", Password: "hunter2"}), "/coreos.com/network")
	for _, password := range []string{"wrong", ""} {
		reached := make(chan error, 10)
		o := h.options()
		o.Username, o.Password, o.Reachable = "node", secret.New(password), func(err error) { reached <- err }
		subnettest.Watch(t, newManager(t, o))
		if err := <-reached; err == nil || !strings.Contains(err.Error(), "authenticate as node") {
			t.Errorf("Reachable(%v)", err)
		}
	}
}

func TestSlashAtTheEndOfThePrefix(t *testing.T) {
	h := newHarness(t, etcdtest.Start(t, etcdtest.Options{}), "/coreos.com/network")
	h.SetConfig(t, v4)
	o := h.options()
	o.Prefix += "/"
	r := runNode(t, o, 1)
	awaitAll(t, h, []*runningNode{r}, []ipfam.Pair[netip.Prefix]{r.own.Subnet})
	if _, _, found := h.Get(t, r.own.Subnet); !found {
		t.Error("the lease is not where it belongs")
	}
}
