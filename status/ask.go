package status

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/internal/socket"
	"flannel/kernel"
	"flannel/kernel/look"
	"flannel/network"
	"flannel/probe"
	"flannel/subnet/env"
)

// patience is how long the daemon has to answer.
const patience = 5 * time.Second

// Options define whom to ask.
type Options struct {
	// Backends are the types whose devices are the overlay's.
	Backends backend.Table
	// SubnetFile leads to the socket, and stands for the daemon where there is
	// none.
	SubnetFile string
	// Daemon is the address of a health port to ask in place of the socket; empty
	// means the socket.
	Daemon string
}

func (o Options) asked() string {
	if o.Daemon != "" {
		return o.Daemon
	}
	return socket.Path(o.SubnetFile)
}

// Request asks the daemon for a page; the error wraps socket.ErrNoDaemon if nobody
// listens.
func (o Options) Request(ctx context.Context, method, page string) (code int, body []byte, err error) {
	if o.Daemon == "" {
		return socket.Ask(ctx, o.asked(), method, page)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+o.Daemon+page, nil)
	if err != nil {
		return 0, nil, err
	}
	// The health port is on this host or a node: a proxy of the environment is not asked.
	direct := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: direct}).Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return 0, nil, fmt.Errorf("%w on %s", socket.ErrNoDaemon, o.Daemon)
	}
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	return resp.StatusCode, body, err
}

// Ask returns the state of this node. Without a daemon the report is that of the
// kernel, and the error is why.
func Ask(ctx context.Context, o Options) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r := NewReport(o.Backends)
	r.From, r.Asked = FromDaemon, o.asked()
	err := r.askDaemon(ctx, o)
	if err != nil {
		r = NewReport(o.Backends)
		r.From, r.Asked, r.NoAnswer = FromKernel, o.asked(), noAnswer(err, o.asked())
		r.readSubnetFile(o.SubnetFile)
	}
	if kernelErr := r.readKernel(); kernelErr != nil {
		r.Problems = append(r.Problems, kernelErr.Error())
	}
	return r, err
}

func (r *Report) askDaemon(ctx context.Context, o Options) error {
	code, body, err := o.Request(ctx, http.MethodGet, "/readyz")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(body)), "\n")
	r.Ready, r.Problems = code == http.StatusOK, append(r.Problems, lines[1:]...)
	code, body, err = o.Request(ctx, http.MethodGet, "/status")
	switch {
	case err != nil:
		return err
	case code == http.StatusServiceUnavailable: // no pass has ended
		return nil
	case code != http.StatusOK:
		return fmt.Errorf("%s answers /status with %d: %s", o.asked(), code, strings.TrimSpace(string(body)))
	}
	r.Status = new(network.Status)
	if err := json.Unmarshal(body, r.Status); err != nil {
		return fmt.Errorf("read /status: %w", err)
	}
	return nil
}

// Probe has the daemon probe the peer of a way now. A daemon that does not probe, or
// not that peer, is no error.
func (o Options) Probe(ctx context.Context, w *Way) error {
	if w.Peer == nil || w.Peer.Name == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	code, body, err := o.Request(ctx, http.MethodPost, "/probe?peer="+url.QueryEscape(w.Peer.Name))
	switch {
	case err != nil:
		return err
	case code == http.StatusNotFound:
		return nil
	case code != http.StatusOK:
		return errors.New(strings.TrimSpace(string(body)))
	}
	var answers probe.Answers
	if err := json.Unmarshal(body, &answers); err != nil {
		return fmt.Errorf("read the answer of /probe: %w", err)
	}
	for _, a := range answers.Peers {
		if a.Subnet.String() == w.Peer.Subnet {
			w.Peer.Probe = a.Probe
			if a.NotProbed {
				return errors.New("the daemon is busy with probes of others; ask again")
			}
		}
	}
	return nil
}

// readSubnetFile takes what the last daemon has left for the CNI plugin.
func (r *Report) readSubnetFile(path string) {
	e, err := env.Read(path)
	if err != nil {
		r.Problems = append(r.Problems, err.Error())
		return
	}
	r.Status = &network.Status{Network: e.Networks(), Notes: nil}
	for _, p := range ipfam.Prefixes(e.Masked()) {
		r.Status.Lease.Subnet = append(r.Status.Lease.Subnet, p)
	}
}

// readKernel takes the counters of the overlay's devices, and without a daemon the
// peers that the routes lead to.
func (r *Report) readKernel() error {
	k, err := look.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	var errs []error
	for _, l := range k.Links() {
		if r.has(l) {
			d, err := deviceOf(k, l)
			errs = append(errs, err)
			r.Devices = append(r.Devices, d)
		}
	}
	slices.SortFunc(r.Devices, func(a, b Device) int { return cmp.Compare(a.Name, b.Name) })
	if r.From == FromKernel && r.Status != nil {
		routes, err := k.Routes(look.Route.IsOurs)
		errs = append(errs, err)
		r.Status.Peers = PeersOf(routes, k.Links(), r.backends, r.Status.Network)
	}
	return errors.Join(errs...)
}

func deviceOf(k *look.Reader, l kernel.Link) (Device, error) {
	n, err := k.Traffic(l)
	return Device{
		Name: l.Name, Kind: l.Kind, MTU: l.MTU, Up: l.Up, VNI: l.VXLAN.VNI, Port: l.VXLAN.Port,
		RxPackets: n.RxPackets, RxBytes: n.RxBytes, TxPackets: n.TxPackets, TxBytes: n.TxBytes,
	}, err
}

// has reports whether a device is one of the overlay.
func (r *Report) has(l kernel.Link) bool {
	if r.From == FromKernel {
		return r.backends.IsOverlay(l)
	}
	return r.Status != nil && slices.ContainsFunc(r.Status.Devices, func(d network.DeviceStatus) bool { return d.Name == l.Name })
}

// PeersOf returns the peers that routes lead to. One to a whole network leads to no
// single peer.
func PeersOf(routes []look.Route, links look.Links, backends backend.Table, networks []netip.Prefix) []network.Peer {
	var out []network.Peer
	for _, r := range routes {
		if !r.IsOurs() || r.Type != "" || slices.Contains(networks, r.Dst) {
			continue
		}
		p := network.Peer{
			Family: ipfam.Of(r.Dst.Addr()).String(), Subnet: r.Dst.String(), How: string(backend.Tunnel), Why: "route over " + r.Dev + " in the kernel",
		}
		if l, _ := links.ByName(r.Dev); !backends.IsOverlay(l) {
			p.How, p.Via = string(backend.Direct), r.Via.String()
		}
		out = append(out, p)
	}
	return out
}

// noAnswer says for people why a daemon has not answered, if one runs.
func noAnswer(err error, asked string) string {
	switch {
	case NoDaemon(err):
		return "none answers on " + asked
	case errors.Is(err, fs.ErrPermission):
		return "not asked, because this user may not connect to " + asked + ": run this as root"
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer on %s within %s", asked, patience)
	}
	return err.Error()
}

// NoDaemon reports whether an error of Ask means that none runs.
func NoDaemon(err error) bool { return errors.Is(err, socket.ErrNoDaemon) }
