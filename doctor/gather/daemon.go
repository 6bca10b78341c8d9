package gather

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"

	"flannel/kernel"
	"flannel/network"
)

// maxPage is more than the daemon shows of 10,000 peers.
const maxPage = 64 << 20

// daemon asks the daemon. One that does not run is no error: a check tells.
func (g gatherer) daemon(ctx context.Context) error {
	d := &g.facts.Daemon
	d.Asked = "http://" + g.options.Daemon
	d.Runs = kernel.AnyInstanceRuns(g.options.LockDir)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ready, err := get(ctx, d.Asked+"/readyz", http.StatusOK, http.StatusServiceUnavailable)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED) && !d.Runs:
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s refuses connections: run flanneld with --healthz-port=8081, or name its port with -daemon", g.options.Daemon)
	case err != nil:
		return err
	}
	d.Runs = true
	if _, lines, ok := strings.Cut(strings.TrimSpace(string(ready)), "\n"); ok {
		d.Ready = strings.Split(lines, "\n")
	}
	page, err := get(ctx, d.Asked+"/status", http.StatusOK)
	if err != nil {
		return err
	}
	var s network.Status
	if err := json.Unmarshal(page, &s); err != nil {
		return fmt.Errorf("read /status: %w", err)
	}
	d.Status = &s
	return nil
}

func get(ctx context.Context, url string, allowed ...int) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	page, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, err
	}
	for _, code := range allowed {
		if resp.StatusCode == code {
			return page, nil
		}
	}
	return nil, fmt.Errorf("%s answers %s: %s", url, resp.Status, strings.TrimSpace(string(page)))
}
