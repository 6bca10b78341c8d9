package gather

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"flannel/doctor"
)

// Access is how the daemon reaches its store.
type Access struct {
	// Name is etcd or the API server.
	Name string
	URLs []string
	TLS  *tls.Config
	// Config is the file with the network configuration; empty if it is in the store.
	Config string
	// Token is sent along if it is not empty.
	Token string
	// Proxy is which proxy a request goes through, as the daemon has it in its
	// environment; without it none does.
	Proxy func(*http.Request) (*url.URL, error)
	// Page is what is asked for: of the API server the Node of this host.
	Page string
}

// answerIn is how long the store has to answer.
const answerIn = 4 * time.Second

// store looks at the store of the daemon that listens at the socket, with what that
// was started with. In another container than the daemon's its files cannot be read,
// and the daemon alone knows.
func (g gatherer) store(ctx context.Context) error {
	if g.options.Access == nil {
		return nil
	}
	p := g.options.process()
	if p.pid == 0 || !sameRoot(p.pid) {
		return nil
	}
	if len(p.args) == 0 || len(p.environ) == 0 {
		return errors.New("the daemon's command line cannot be read")
	}
	a, err := g.options.Access(p.args[1:], p.environ)
	if err != nil {
		return err
	}
	g.facts.Store = askAll(ctx, a)
	return nil
}

// sameRoot reports whether a process sees the files that this one does.
func sameRoot(pid int) bool {
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/root/", pid))
	ours, failed := os.Stat("/")
	return err == nil && failed == nil && os.SameFile(theirs, ours)
}

// askAll asks all servers at the same time.
func askAll(ctx context.Context, a Access) *doctor.Store {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	s := &doctor.Store{Name: a.Name, Now: time.Now(), Credentials: a.credentials(), Endpoints: make([]doctor.Endpoint, len(a.URLs))}
	bodies := make([][]byte, len(a.URLs))
	var all sync.WaitGroup
	for i, at := range a.URLs {
		all.Go(func() { s.Endpoints[i], bodies[i] = a.ask(ctx, at) })
	}
	all.Wait()
	for _, body := range bodies {
		s.InternalIPs = append(s.InternalIPs, internalIPs(body)...)
	}
	return s
}

// ask asks one server.
func (a Access) ask(ctx context.Context, at string) (doctor.Endpoint, []byte) {
	e := doctor.Endpoint{URL: at}
	if u, err := url.Parse(at); err == nil {
		e.URL = u.Redacted()
	}
	fail := func(err error) (doctor.Endpoint, []byte) {
		var inURL *url.Error
		if errors.As(err, &inURL) {
			err = inURL.Err
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("no answer, packets may be dropped on the way")
		}
		e.Err = err
		return e, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(at, "/")+a.Page, nil)
	if err != nil {
		return fail(err)
	}
	if a.Token != "" {
		req.Header.Set("Authorization", "Bearer "+a.Token)
	}
	if a.Proxy != nil {
		if through, err := a.Proxy(req); err == nil && through != nil {
			e.Proxy = through.Redacted()
		}
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: a.TLS, DisableKeepAlives: true, Proxy: a.Proxy}}
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = resp.Body.Close() }()
	ended := time.Now()
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		// A Date is the beginning of its second.
		e.Ahead = apart(date, began, ended)
	}
	if resp.TLS != nil {
		certificates := resp.TLS.PeerCertificates
		for _, chain := range resp.TLS.VerifiedChains {
			certificates = append(certificates[:len(certificates):len(certificates)], chain[len(chain)-1])
		}
		for _, c := range certificates {
			e.Credentials = append(e.Credentials, credential("the certificate of "+e.URL+" ("+c.Subject.CommonName+")", c))
		}
	}
	if resp.StatusCode == http.StatusUnauthorized {
		return fail(errors.New("it does not accept this node's credentials"))
	}
	const most = 1 << 20
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return fail(err)
	}
	return e, body
}

// apart is how far a date, to the second, is outside of the time in which it was
// written.
func apart(date, began, ended time.Time) time.Duration {
	switch {
	case date.After(ended):
		return date.Sub(ended)
	case date.Add(time.Second).Before(began):
		return date.Add(time.Second).Sub(began)
	}
	return 0
}

// credentials are the certificate and the token of this node.
func (a Access) credentials() []doctor.Credential {
	var out []doctor.Credential
	if a.TLS != nil {
		pairs := a.TLS.Certificates
		if get := a.TLS.GetClientCertificate; get != nil {
			if pair, err := get(&tls.CertificateRequestInfo{}); err == nil && pair != nil {
				pairs = append(pairs[:len(pairs):len(pairs)], *pair)
			}
		}
		for _, pair := range pairs {
			if len(pair.Certificate) == 0 {
				continue
			}
			if c, err := x509.ParseCertificate(pair.Certificate[0]); err == nil {
				out = append(out, credential("the client certificate of this node for "+a.Name, c))
			}
		}
	}
	if since, until, ok := tokenTimes(a.Token); ok {
		out = append(out, doctor.Credential{What: "the token of this node for " + a.Name, Since: since, Until: until})
	}
	return out
}

func credential(what string, c *x509.Certificate) doctor.Credential {
	return doctor.Credential{What: what, Since: c.NotBefore, Until: c.NotAfter}
}

// tokenTimes reads when a token is valid; ok is false for one that does not tell, or
// does not expire.
func tokenTimes(token string) (since, until time.Time, ok bool) {
	parts := strings.Split(token, ".")
	const parties = 3
	if len(parts) != parties {
		return since, until, false
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct{ Exp, Iat int64 }
	if err != nil || json.Unmarshal(text, &claims) != nil || claims.Exp == 0 {
		return since, until, false
	}
	return time.Unix(claims.Iat, 0), time.Unix(claims.Exp, 0), true
}

// internalIPs are those of a Node; none if the text is something else.
func internalIPs(text []byte) []netip.Addr {
	var node struct {
		Status struct {
			Addresses []struct{ Type, Address string }
		}
	}
	if json.Unmarshal(text, &node) != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range node.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil && a.Type == "InternalIP" {
			out = append(out, addr)
		}
	}
	return out
}
