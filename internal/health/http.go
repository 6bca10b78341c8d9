package health

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Pages are served beside /healthz and /readyz. A nil page does not exist.
type Pages struct {
	// Metrics is open to everybody and therefore carries no addresses.
	Metrics http.Handler
	// Status names peers and answers on loopback only, unless StatusRemote.
	Status       http.Handler
	StatusRemote bool
	// Page, at /, shows the same in a browser.
	Page http.Handler
	// Probe makes the daemon send packets and answers on loopback only.
	Probe http.Handler
}

// Handler serves the health of r and the given pages. What is wrong is for
// clients on this host; others learn the names of the checks.
func Handler(r *Registry, p Pages) http.Handler {
	var here host
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if hanging := r.Hanging(); len(hanging) > 0 {
			text(w, http.StatusServiceUnavailable, append([]string{"flanneld hangs"}, hanging...)...)
			return
		}
		text(w, http.StatusOK, "flanneld is running")
	})
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, req *http.Request) {
		code, first := http.StatusServiceUnavailable, "flanneld is not ready yet"
		if r.Ready() {
			code, first = http.StatusOK, "flanneld is ready"
		}
		problems := r.Problems()
		if !onSocket(req) && !here.has(clientOf(req.RemoteAddr)) {
			problems = r.failing(func(c *Check) string { return c.name })
		}
		text(w, code, append([]string{first}, problems...)...)
	})
	if p.Metrics != nil {
		mux.Handle("/metrics", p.Metrics)
	}
	for path, page := range map[string]http.Handler{"/status": p.Status, "/{$}": p.Page} {
		if page == nil {
			continue
		}
		if !p.StatusRemote {
			page = LoopbackOnly(page, "; --status-remote opens it")
		}
		mux.Handle(path, page)
	}
	if p.Probe != nil {
		mux.Handle("/probe", LoopbackOnly(p.Probe, ""))
	}
	return mux
}

// onSocket reports whether a request came over a unix socket: who may connect to
// it is up to the mode of its file.
func onSocket(req *http.Request) bool {
	at, _ := req.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return isUnix(at)
}

// text answers with lines; the last one has no line end, as the bodies of
// flannel.
func text(w http.ResponseWriter, code int, lines ...string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, strings.Join(lines, "\n"))
}

// LoopbackOnly refuses clients on other hosts with 403; the remedy ends the text.
// It also refuses pages of others in a browser on this host.
func LoopbackOnly(next http.Handler, remedy string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch origin := req.Header.Get("Origin"); {
		case onSocket(req):
		case !clientOf(req.RemoteAddr).IsLoopback():
			text(w, http.StatusForbidden, fmt.Sprintf("%s answers on loopback only%s", req.URL.Path, remedy))
			return
		case !isAddress(req.Host):
			text(w, http.StatusForbidden, fmt.Sprintf("%s answers under localhost and addresses only, not under %q", req.URL.Path, req.Host))
			return
		case origin != "" && origin != "http://"+req.Host:
			text(w, http.StatusForbidden, fmt.Sprintf("%s does not answer to pages of %q", req.URL.Path, origin))
			return
		}
		next.ServeHTTP(w, req)
	})
}

// isAddress reports whether the Host of a request is localhost or an address. A
// name could be anybody's: its owner can have it lead to this host, and then a
// browser lets pages under that name read the answer (DNS rebinding).
func isAddress(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || strings.EqualFold(host, "localhost")
}
