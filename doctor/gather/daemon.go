package gather

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"flannel/internal/socket"
	"flannel/kernel"
	"flannel/network"
	"flannel/status"
)

// patience is how long the daemon has for all requests together.
const patience = 9 * time.Second

// daemon asks the daemon. One that does not run is no error: a check tells.
func (g gatherer) daemon(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d := &g.facts.Daemon
	at, asked := g.options.asked()
	d.Asked = asked
	ready, err := ask(ctx, at, http.MethodGet, "/readyz")
	switch {
	case status.NoDaemon(err):
		d.Absent, err = g.absent()
		return err
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("this user may not connect to %s: run this as root", asked)
	case err != nil:
		return err
	}
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

// absent reports whether no daemon runs, where none answers. The error is why that is not
// known.
func (g gatherer) absent() (bool, error) {
	_, asked := g.options.asked()
	if kernel.AnyInstanceRuns(g.options.LockDir) {
		return false, fmt.Errorf("nothing answers at %s: name the health port with -daemon, or the --subnet-file of the daemon", asked)
	}
	if _, err := os.ReadDir(g.options.LockDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("nothing answers at %s, and this user cannot find out whether a daemon runs: run this as root (%w)", asked, err)
	}
	return true, nil
}

// asked returns where the daemon is asked: whoever listens at a port that nobody has named
// may be anybody.
func (o Options) asked() (status.Options, string) {
	return status.Options{SubnetFile: o.SubnetFile, Daemon: o.Daemon}, cmp.Or(o.Daemon, socket.Path(o.SubnetFile))
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
