package gather

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"

	"flannel/internal/socket"
	"flannel/kernel"
	"flannel/network"
)

// maxPage is more than the daemon shows of 10,000 peers.
const maxPage = 64 << 20

// daemon asks the daemon. One that does not run is no error: a check tells.
func (g gatherer) daemon(ctx context.Context) error {
	d := &g.facts.Daemon
	client, asked := g.client()
	d.Asked = asked
	d.Runs = kernel.AnyInstanceRuns(g.options.LockDir)
	ready, err := client.ask(ctx, http.MethodGet, "/readyz", http.StatusOK, http.StatusServiceUnavailable)
	switch {
	case nobody(err) && !d.Runs:
		return nil
	case nobody(err):
		return fmt.Errorf("nothing answers at %s: name the health port with -daemon, or the --subnet-file of the daemon", asked)
	case err != nil:
		return err
	}
	d.Runs = true
	if _, lines, ok := strings.Cut(strings.TrimSpace(string(ready)), "\n"); ok {
		d.Ready = strings.Split(lines, "\n")
	}
	// Older daemons and those that do not probe refuse; the last verdicts count then.
	_, _ = client.ask(ctx, http.MethodPost, "/probe?sample=20")
	page, err := client.ask(ctx, http.MethodGet, "/status", http.StatusOK, http.StatusServiceUnavailable)
	if err != nil {
		return err
	}
	if !json.Valid(page) {
		return nil // no pass has ended yet; /readyz says why
	}
	var s network.Status
	if err := json.Unmarshal(page, &s); err != nil {
		return fmt.Errorf("read /status: %w", err)
	}
	d.Status = &s
	return nil
}

// client asks the daemon.
type client struct {
	http http.Client
	base string
}

// client returns one for the place that the options name, and that place.
func (g gatherer) client() (client, string) {
	if g.options.Daemon != "" {
		return client{base: "http://" + g.options.Daemon}, g.options.Daemon
	}
	path := socket.Path(g.options.SubnetFile)
	if _, err := os.Stat(path); err != nil {
		const port = "127.0.0.1:8081"
		return client{base: "http://" + port}, port
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return client{http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}, "http://socket"}, path
}

// nobody reports whether nobody listens.
func nobody(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

func (c *client) ask(ctx context.Context, method, page string, allowed ...int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.base+page, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, err
	}
	if !slices.Contains(allowed, resp.StatusCode) {
		return nil, fmt.Errorf("%s answers %s: %s", page, resp.Status, strings.TrimSpace(string(body)))
	}
	return body, nil
}
