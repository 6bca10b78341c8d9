package main

import (
	"context"
	"net"
	"net/http"
	"strconv"

	"flannel/internal/health"
	"flannel/internal/socket"
	"flannel/kernel/look"
	"flannel/status"
	"flannel/status/page"
)

// servers answer from the start on, so that they can report what the daemon waits
// for: on the socket, and on the health port if there is one.
func (d *daemon) servers() []*health.Server {
	shown := health.Pages{
		Metrics:      d.metrics.Handler(),
		Status:       http.HandlerFunc(d.network.ServeStatus),
		StatusRemote: d.options.statusRemote,
		Page:         &page.Page{Report: d.report, Explain: explain},
	}
	if d.prober != nil {
		shown.Probe = d.prober
	}
	pages := health.Handler(d.health, shown)
	path := socket.Path(d.options.subnetFile)
	servers := []*health.Server{{
		Name:    "socket",
		Listen:  func(ctx context.Context) (net.Listener, error) { return socket.Listen(ctx, path) },
		Log:     d.log,
		Handler: pages,
		Failed:  func(error) { d.metrics.Error("socket") },
	}}
	if d.options.healthzPort != 0 {
		servers = append(servers, &health.Server{
			Name:    "health server",
			Addr:    net.JoinHostPort(d.options.healthzIP, strconv.Itoa(d.options.healthzPort)),
			Log:     d.log,
			Handler: pages,
			Failed:  func(error) { d.metrics.Error("health-port") },
		})
	}
	return servers
}

// report is what the page shows.
func (d *daemon) report() *status.Report {
	r := status.NewReport(backends())
	r.From, r.Ready, r.Problems = status.FromDaemon, d.health.Ready(), d.health.Problems()
	if s, ok := d.network.Status(); ok {
		r.Status = &s
	}
	return r
}

// explain asks the kernel for the way to a peer. Without an answer the page shows no
// steps. The rules of others, of which there may be many, are not read in the daemon for
// each look at the page.
func explain(r *status.Report, w *status.Way) {
	kernel, err := look.Open()
	if err != nil {
		return
	}
	defer kernel.Close()
	r.Explain(w, kernel, nil)
}
