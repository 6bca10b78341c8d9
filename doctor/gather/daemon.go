package gather

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"

	"flannel/internal/socket"
	"flannel/kernel"
	"flannel/network"
	"flannel/status"
)

// daemon asks the daemon. One that does not run is no error: a check tells.
func (g gatherer) daemon(ctx context.Context) error {
	d := &g.facts.Daemon
	at, asked := g.options.asked()
	d.Asked = asked
	d.Runs = kernel.AnyInstanceRuns(g.options.LockDir)
	ready, err := ask(ctx, at, http.MethodGet, "/readyz")
	switch {
	case status.NoDaemon(err) && !d.Runs:
		return nil
	case status.NoDaemon(err):
		return fmt.Errorf("nothing answers at %s: name the health port with -daemon, or the --subnet-file of the daemon", asked)
	case err != nil:
		return err
	}
	d.Runs = true
	if _, lines, ok := strings.Cut(strings.TrimSpace(string(ready)), "\n"); ok {
		d.Ready = strings.Split(lines, "\n")
	}
	// Older daemons and those that do not probe refuse; the last verdicts count then.
	_, _ = ask(ctx, at, http.MethodPost, "/probe?sample=20")
	page, err := ask(ctx, at, http.MethodGet, "/status")
	if err != nil {
		return err
	}
	if !json.Valid(page) {
		return nil // no pass has ended yet; /readyz has the reason
	}
	var s network.Status
	if err := json.Unmarshal(page, &s); err != nil {
		return fmt.Errorf("read /status: %w", err)
	}
	d.Status = &s
	return nil
}

// asked returns where the daemon is asked.
func (o Options) asked() (status.Options, string) {
	at := status.Options{SubnetFile: o.SubnetFile, Daemon: o.Daemon}
	path := socket.Path(o.SubnetFile)
	if _, err := os.Stat(path); err != nil && at.Daemon == "" {
		at.Daemon = "127.0.0.1:8081"
	}
	return at, cmp.Or(at.Daemon, path)
}

// ask returns a page of the daemon, which may be unready.
func ask(ctx context.Context, at status.Options, method, page string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	code, body, err := at.Request(ctx, method, page)
	if err == nil && code != http.StatusOK && code != http.StatusServiceUnavailable {
		err = fmt.Errorf("%s answers %d: %s", page, code, strings.TrimSpace(string(body)))
	}
	return body, err
}
