package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// The settings of a host's first flanneld.
const (
	DefaultPrefix     = "/coreos.com/network"
	DefaultSubnetFile = "/run/flannel/subnet.env"
	DefaultHealthPort = 8081
	// StateDir is the folder of a host that stands for one on its disk.
	StateDir = "/run/lib/flannel"
)

// DaemonOptions define how a flanneld is started. The zero value of a field is
// the setting of the first daemon.
type DaemonOptions struct {
	// Name is that of the log below /run/log, default "flanneld". Daemons of
	// one host differ in it.
	Name       string
	Binary     string
	Prefix     string
	SubnetFile string
	HealthPort int
	// Flags come last, after those of the lab.
	Flags []string
	// Env is added to the environment, as NAME=value.
	Env []string
}

// Daemon is a flanneld on a host, running or not.
type Daemon struct {
	host    *Host
	options DaemonOptions
	process process
}

func newDaemon(h *Host, o DaemonOptions) *Daemon {
	if o.Name == "" {
		o.Name = "flanneld"
	}
	if o.Binary == "" {
		o.Binary = h.lab.options.Binaries.Flanneld
	}
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.SubnetFile == "" {
		o.SubnetFile = DefaultSubnetFile
	}
	if o.HealthPort == 0 {
		o.HealthPort = DefaultHealthPort
	}
	return &Daemon{host: h, options: o, process: process{
		name: o.Name, node: h.Node, logPath: "/run/log/" + o.Name + ".log",
	}}
}

// Start starts the daemon and does not wait until it is ready.
func (d *Daemon) Start() error {
	if d.options.Binary == "" {
		return errors.New("the lab was made without a flanneld binary")
	}
	// A folder that lasts, as /var/lib/flannel, but not the machine's. Other
	// programs than ours know no such flag.
	if err := d.host.Do(func() error { return os.MkdirAll(StateDir, 0o700) }); err != nil {
		return err
	}
	env := []string{"NODE_NAME=" + d.host.Name, "FLANNELD_STATE_DIR=" + StateDir}
	return d.process.start(d.args(), append(env, d.options.Env...))
}

func (d *Daemon) args() []string {
	args := append([]string{d.options.Binary}, d.storeArgs()...)
	args = append(args,
		"--iface="+Uplink,
		"--subnet-file="+d.options.SubnetFile,
		"--healthz-ip=127.0.0.1",
		"--healthz-port="+strconv.Itoa(d.options.HealthPort),
	)
	args = append(args, d.host.lab.options.Flags...)
	return append(args, d.options.Flags...)
}

// storeArgs are the flags that name the store of the leases.
func (d *Daemon) storeArgs() []string {
	if k := d.host.lab.Kubernetes; k != nil {
		return k.daemonArgs()
	}
	return []string{
		"--etcd-endpoints=" + d.host.lab.Etcd.Endpoint(),
		"--etcd-prefix=" + d.options.Prefix,
	}
}

// Stop ends the daemon with SIGTERM and waits for it. A daemon that does not
// run is no error.
func (d *Daemon) Stop() error { return d.process.stop() }

// Kill ends the daemon with SIGKILL and waits for it.
func (d *Daemon) Kill() error { return d.process.kill() }

// PID returns the process ID, 0 before the first start.
func (d *Daemon) PID() int { return d.process.pid() }

// Exited returns a channel that is closed when the daemon of the last start
// has ended.
func (d *Daemon) Exited() <-chan struct{} { return d.process.exited() }

// ExitCode returns the exit code of a daemon that has ended, else -1.
func (d *Daemon) ExitCode() int { return d.process.exitCode() }

// Log returns everything the daemon has written, over all its starts.
func (d *Daemon) Log() string { return d.process.log() }

// Tail returns the last lines of the log.
func (d *Daemon) Tail(lines int) string { return lastLines(d.Log(), lines) }

func lastLines(text string, n int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}

// Get reads a page of the daemon's health port, from inside the host.
func (d *Daemon) Get(ctx context.Context, path string) (code int, body string, err error) {
	return d.request(ctx, http.MethodGet, path)
}

// Post is Get with the method POST.
func (d *Daemon) Post(ctx context.Context, path string) (code int, body string, err error) {
	return d.request(ctx, http.MethodPost, path)
}

func (d *Daemon) request(ctx context.Context, method, path string) (code int, body string, err error) {
	client := http.Client{Transport: &http.Transport{
		DialContext: d.host.Dial,
		// The daemon may be another one at the next call.
		DisableKeepAlives: true,
	}}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(d.options.HealthPort))
	req, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// WaitReady waits until the daemon is ready for pods. The error is what was
// missing, and holds the last line of the log when the daemon has ended.
func (d *Daemon) WaitReady(ctx context.Context) error {
	missing := "no answer"
	for tick := newTicker(); ; {
		code, body, err := d.Get(ctx, "/readyz")
		switch {
		case err == nil && code == http.StatusOK:
			tick.Stop()
			return nil
		case err == nil:
			missing = strings.TrimSpace(body)
		case ctx.Err() == nil:
			missing = err.Error()
		}
		select {
		case <-tick.C:
		case <-d.Exited():
			return fmt.Errorf("%s on %s ended with code %d: %s",
				d.options.Name, d.host.Name, d.ExitCode(), d.Tail(1))
		case <-ctx.Done():
			return fmt.Errorf("%s on %s: %w: %s", d.options.Name, d.host.Name, ctx.Err(), missing)
		}
	}
}

// newTicker paces the polling of programs that cannot be subscribed to.
func newTicker() *time.Ticker { return time.NewTicker(10 * time.Millisecond) }
