package kubeplane

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// API talks JSON to the API server as one user.
type API struct {
	url, token string
	http       *http.Client
}

// The content types of patches.
const (
	JSON           = "application/json"
	MergePatch     = "application/merge-patch+json"
	StrategicPatch = "application/strategic-merge-patch+json"
	ApplyPatch     = "application/apply-patch+yaml"
)

// StatusError is an answer that is not a success.
type StatusError struct {
	Code int
	Body string
}

// Error implements error.
func (e *StatusError) Error() string { return fmt.Sprintf("status %d: %s", e.Code, e.Body) }

// IsCode reports whether an error is an answer with this code.
func IsCode(err error, code int) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Code == code
}

// API returns a client for a user. dial may be nil. The caller closes it.
func (p *Plane) API(user string, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*API, error) {
	raw, err := p.certificate()
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, errors.New("no certificate in " + p.CAFile())
	}
	return &API{url: p.URL(), token: p.Token(user), http: &http.Client{Transport: &http.Transport{
		DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true,
	}}}, nil
}

// Close ends the connections.
func (a *API) Close() { a.http.CloseIdleConnections() }

// Do makes a request. body is JSON text, or something to encode as such; nil
// means none.
func (a *API) Do(ctx context.Context, method, path, contentType string, body any) ([]byte, error) {
	text, err := encode(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	req.Header.Set("Accept", JSON)
	req.Header.Set("Content-Type", contentType)
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= http.StatusMultipleChoices {
		err = &StatusError{resp.StatusCode, strings.TrimSpace(string(answer))}
	}
	if err != nil {
		return answer, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return answer, nil
}

func encode(body any) ([]byte, error) {
	switch body := body.(type) {
	case nil:
		return nil, nil
	case string:
		return []byte(body), nil
	case []byte:
		return body, nil
	}
	return json.Marshal(body)
}

// Get reads an object into v.
func (a *API) Get(ctx context.Context, path string, v any) error {
	raw, err := a.Do(ctx, http.MethodGet, path, JSON, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, v)
}

// Ready returns nil when the API server serves.
func (a *API) Ready(ctx context.Context) error {
	_, err := a.Do(ctx, http.MethodGet, "/readyz", JSON, nil)
	return err
}
