package gather

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"flannel/doctor"
	"flannel/internal/socket"
)

// issue makes a certificate for 127.0.0.1 that signs itself.
func issue(t *testing.T, name string, since, until time.Time) tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: since, NotAfter: until, IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private, Leaf: leaf}
}

// serve answers over TLS with a certificate, and returns how to reach it.
func serve(t *testing.T, c tls.Certificate, h http.HandlerFunc) Access {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{c}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	trusted := x509.NewCertPool()
	trusted.AddCert(c.Leaf)
	return Access{Name: "etcd", URLs: []string{s.URL}, TLS: &tls.Config{RootCAs: trusted}, Page: "/version"}
}

func token(until time.Time) string {
	claims := fmt.Sprintf(`{"iat": %d, "exp": %d}`, until.Add(-2*time.Hour).Unix(), until.Unix())
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

func TestTheStore(t *testing.T) {
	now := time.Now()
	year := 365 * 24 * time.Hour
	good := issue(t, "server", now.Add(-year), now.Add(year))
	fine := func(http.ResponseWriter, *http.Request) {}
	at := func(ahead time.Duration) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		}
	}
	for _, tt := range []struct {
		name   string
		server tls.Certificate
		answer http.HandlerFunc
		change func(*Access)
		says   []string // none: nothing is found
		note   bool
	}{
		{"fine", good, fine, nil, nil, false},
		{"another server does not answer", good, fine, func(a *Access) { a.URLs = append(a.URLs, "https://127.0.0.1:1") },
			[]string{"Note: store: etcd at https://127.0.0.1:1 does not answer: dial tcp 127.0.0.1:1: connect: connection refused\n"}, true},
		{"no server answers", good, fine, func(a *Access) { a.URLs = []string{"https://127.0.0.1:1"} },
			[]string{"1. store: etcd at https://127.0.0.1:1 does not answer: dial tcp 127.0.0.1:1: connect: connection refused\n", "Run: curl -kv https://127.0.0.1:1/version\n"}, false},
		{"our clock is behind", good, at(10 * time.Minute), nil, []string{"1. store: the clock of this host is ", " behind that of etcd at https://"}, false},
		{"our clock is ahead", good, at(-10 * time.Minute), nil, []string{"1. store: the clock of this host is ", " ahead of that of etcd at https://", "Run: timedatectl"}, false},
		{"our clock is a bit behind", good, at(20 * time.Second), nil, []string{"Note: store: the clock of this host is "}, true},
		{"the server's certificate has expired", issue(t, "server", now.Add(-year), now.Add(-time.Hour)), fine, nil, []string{"does not answer: ", "certificate has expired"}, false},
		{"the server's certificate will expire", issue(t, "server", now.Add(-year), now.Add(time.Hour)), fine, nil, []string{"Note: store: the certificate of https://", "(server) expires on "}, true},
		{"a certificate that is renewed each day", issue(t, "server", now.Add(-20*time.Hour), now.Add(4*time.Hour)), fine, nil, nil, false},
		{"our certificate has expired", good, fine, func(a *Access) {
			a.TLS.Certificates = []tls.Certificate{issue(t, "node", now.Add(-year), now.Add(-time.Hour))}
		}, []string{"1. store: the client certificate of this node for etcd has expired on " + now.Add(-time.Hour).UTC().Format(time.RFC3339) + "\n", "Run: renew it; "}, false},
		{"our certificate is of the future", good, fine, func(a *Access) {
			a.TLS.Certificates = []tls.Certificate{issue(t, "node", now.Add(time.Hour), now.Add(year))}
		}, []string{"the client certificate of this node for etcd is not valid before ", "the clock of this host says "}, false},
		{"the token", good, fine, func(a *Access) { a.Token = token(now.Add(time.Hour)) }, nil, false},
		{"the token has expired", good, fine, func(a *Access) { a.Token = token(now.Add(-time.Minute)) }, []string{"1. store: the token of this node for etcd has expired on "}, false},
		{"the credentials are refused", good, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }, nil,
			[]string{"does not answer: it does not accept this node's credentials\n"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := serve(t, tt.server, tt.answer)
			if tt.change != nil {
				tt.change(&a)
			}
			r := doctor.Examine("a", &doctor.Facts{Store: askAll(t.Context(), a)}, only("store"))
			var text bytes.Buffer
			r.WriteText(&text, true)
			if found := len(r.Findings) > 0; found != (len(tt.says) > 0 && !tt.note) || len(tt.says) == 0 && len(r.Notes) > 0 {
				t.Errorf("got\n%s", &text)
			}
			for _, words := range tt.says {
				if !strings.Contains(text.String(), words) {
					t.Errorf("lacks %q\n%s", words, &text)
				}
			}
		})
	}
}

// only returns one check.
func only(name string) []doctor.Check {
	return slices.DeleteFunc(doctor.Checks(), func(c doctor.Check) bool { return c.Name != name })
}

func TestAStoreThatIsSilent(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	s := askAll(ctx, Access{Name: "etcd", URLs: []string{"http://" + listener.Addr().String()}, Page: "/version"})
	if err := s.Endpoints[0].Err; err == nil || err.Error() != "no answer, packets may be dropped on the way" {
		t.Errorf("got %v", err)
	}
}

func TestTheInternalIPsOfTheNode(t *testing.T) {
	now := time.Now()
	a := serve(t, issue(t, "server", now.Add(-time.Hour), now.Add(time.Hour)), func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/nodes/a" && r.Header.Get("Authorization") == "Bearer secret" {
			_, _ = io.WriteString(w, `{"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "a"}]}}`)
		}
	})
	a.Page, a.Token = "/api/v1/nodes/a", "secret"
	if got := askAll(t.Context(), a).InternalIPs; len(got) != 1 || got[0].String() != "192.0.2.1" {
		t.Errorf("got %v", got)
	}
}

// TestTheDaemonTellsItsStore asks a daemon for its process: this one.
func TestTheDaemonTellsItsStore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subnet.env")
	listener, err := socket.Listen(t.Context(), socket.Path(file))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	asked := false
	g := gatherer{Options{SubnetFile: file, Access: func(args, environ []string) (Access, error) {
		asked = len(args) > 0 && strings.HasPrefix(args[0], "-test.") && len(environ) > 0
		return Access{Name: "etcd"}, nil
	}}, &doctor.Facts{}}
	if err := g.store(t.Context()); err != nil || !asked || g.facts.Store == nil {
		t.Errorf("got %v, asked %v, %+v", err, asked, g.facts.Store)
	}
}
