package kube

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"syscall"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// causeError is something that an operator can correct: what is wrong, and the
// command that shows it.
type causeError struct {
	// reason is that of an Event.
	reason string
	text   string
	err    error // may be nil
}

func (e *causeError) Error() string { return e.text }

func (e *causeError) Unwrap() error { return e.err }

// rule is what a request needs to be allowed.
type rule struct{ verb, resource string }

func (r rule) String() string { return fmt.Sprintf("%s %s", r.verb, r.resource) }

// unanswered reports whether a request has failed because the server could not
// process it, so that any other would fail too.
func unanswered(err error) bool {
	if err == nil || tooLargeVersion(err) {
		return false
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true
	}
	code := status.Status().Code
	return code >= 500 || code == 429
}

// tooLargeVersion reports whether the server does not know the requested
// resource version yet.
func tooLargeVersion(err error) bool {
	return apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}

// refused reports whether this node is not allowed to do something.
func refused(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) }

// explainRefusal returns which rule or credential is missing.
func (s server) explainRefusal(err error, need rule) error {
	if s.anonymous != nil {
		return &causeError{reason: "NoCredentials", text: fmt.Sprintf("not allowed to %s: %v", need, s.anonymous)}
	}
	if apierrors.IsUnauthorized(err) {
		return &causeError{reason: "Unauthorized", text: "the API server does not accept this node's credentials: " +
			"check the token or the certificate of the kubeconfig or of the service account; see: kubectl auth whoami"}
	}
	return &causeError{reason: "Forbidden", text: fmt.Sprintf("not allowed to %s: give the ClusterRole of this daemon the rule "+
		`apiGroups [""], resources [%q], verbs [%q]; see: kubectl auth can-i %s (%v)`,
		need, need.resource, need.verb, need, plain(err))}
}

// server is what is known about the way to the API server.
type server struct {
	url string
	// service reports whether the address is that of a Service.
	service bool
	// anonymous is why requests have no credentials; nil if they have some.
	anonymous error
}

// explainUnanswered returns why the API server does not answer.
func (s server) explainUnanswered(err error) error {
	var status apierrors.APIStatus
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &status):
		return &causeError{reason: "APIServerNotReady", text: fmt.Sprintf("API server %s is not ready: %v; see: curl -k %s/readyz?verbose", s.url, err, s.url)}
	case errors.As(err, &untrusted):
		return &causeError{reason: "CertificateNotTrusted", text: fmt.Sprintf("the certificate of API server %s is not trusted: %v; "+
			"see: openssl s_client -connect %s -showcerts", s.url, plain(err), s.hostPort())}
	}
	text := fmt.Sprintf("API server %s cannot be reached: %v; see: curl -k %s/version", s.url, plain(err), s.url)
	if addr := s.addr(err); addr != nil {
		if dev := deviceOf(addr); dev != "" {
			text += fmt.Sprintf("; %s is an address of this host itself, on device %s; see: ip address show dev %s", addr, dev, dev)
		}
	}
	if s.service {
		text += "; the address is that of a Service: kube-proxy must serve it on this node, " +
			"or --kube-api-url must name the API server itself; see: kubectl -n kube-system get pods -l k8s-app=kube-proxy -o wide"
	}
	return &causeError{reason: "APIServerUnreachable", text: text, err: plain(err)}
}

func (s server) hostPort() string {
	u, err := url.Parse(s.url)
	if err != nil {
		return s.url
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "443")
	}
	return u.Host
}

// addr returns the address of the server, if it is known.
func (s server) addr(err error) net.IP {
	var op *net.OpError
	if errors.As(err, &op) {
		if tcp, ok := op.Addr.(*net.TCPAddr); ok {
			return tcp.IP
		}
	}
	host, _, _ := net.SplitHostPort(s.hostPort())
	return net.ParseIP(host)
}

// errNoAnswer is any timeout: which of several timers fires first is chance.
var errNoAnswer = errors.New("no answer, packets may be dropped on the way")

// plain removes what is redundant or differs between attempts, such as the local
// port.
func plain(err error) error {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errNoAnswer
	}
	var op *net.OpError
	var errno syscall.Errno
	var inURL *url.Error
	switch {
	case errors.As(err, &op) && errors.As(op.Err, &errno) && op.Addr != nil:
		return fmt.Errorf("%s %s: %w", op.Op, op.Addr, errno)
	case errors.As(err, &inURL):
		return inURL.Err
	}
	return err
}

// deviceOf returns the device of this host that has an address, or nothing. The
// kernel lists all addresses for each device that is queried, so this is done
// only if one of them has the address.
func deviceOf(addr net.IP) string {
	is := func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(addr)
	}
	all, err := net.InterfaceAddrs()
	if err != nil || !slices.ContainsFunc(all, is) {
		return ""
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for i := range interfaces {
		addrs, _ := interfaces[i].Addrs() // a device that is gone has none
		if slices.ContainsFunc(addrs, is) {
			return interfaces[i].Name
		}
	}
	return ""
}
