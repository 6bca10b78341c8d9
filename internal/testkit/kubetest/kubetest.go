// Package kubetest runs a real Kubernetes API server on loopback for a test.
package kubetest

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"flannel/internal/testkit/assets"
	"flannel/internal/testkit/child"
	"flannel/internal/testkit/etcdtest"
	"flannel/internal/testkit/kubeplane"
)

// Options define what a test needs. The zero value is an API server alone.
type Options struct {
	// PodRanges, when set, start a controller manager that gives each Node a
	// pod CIDR of them.
	PodRanges []netip.Prefix
	// Flags are further flags of the API server.
	Flags []string
}

// startTimeout bounds the wait for programs that should come up.
const startTimeout = 60 * time.Second

// Server is an API server with its etcd. It ends with the test, or with the
// process of the test.
type Server struct {
	*kubeplane.Plane
	// API makes requests that may do everything.
	API *kubeplane.API

	t        testing.TB
	flags    []string
	api      *child.Process
	managers *child.Process
}

// Start runs a control plane and waits until it serves. The user
// kubeplane.Daemon may do what the manifest lets the daemon do.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{t: t, flags: o.Flags, Plane: &kubeplane.Plane{
		Dir: t.TempDir(), Addr: etcdtest.LoopbackAddr(t), PodRanges: o.PodRanges,
		Etcd: etcdtest.Start(t, etcdtest.Options{}).Endpoint(),
	}}
	if err := s.Write(); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.API, err = s.Plane.API(kubeplane.Admin, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.API.Close()
		s.end(s.managers)
		s.end(s.api)
	})
	s.StartAPIServer()
	if err := s.API.AllowDaemon(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(o.PodRanges) > 0 {
		s.managers = s.run("kube-controller-manager", s.ControllerManager())
	}
	return s
}

func (s *Server) run(program string, args []string) *child.Process {
	s.t.Helper()
	path, err := assets.Path(program)
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := child.Start(path, args, s.logFile(program))
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *Server) logFile(program string) string { return filepath.Join(s.Dir, program+".log") }

// StartAPIServer starts the API server, also after StopAPIServer, and waits
// until it serves.
func (s *Server) StartAPIServer() {
	s.t.Helper()
	s.api = s.run("kube-apiserver", append(s.APIServer(), s.flags...))
	ctx, cancel := context.WithTimeout(s.t.Context(), startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.API.Ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-s.api.Exited():
			s.fatal("ended", err)
		case <-ctx.Done():
			s.fatal("does not serve", err)
		}
	}
}

func (s *Server) fatal(how string, err error) {
	s.t.Helper()
	text, _ := os.ReadFile(s.logFile("kube-apiserver"))
	s.t.Fatalf("kube-apiserver %s: %v\n%s", how, err, text[max(0, len(text)-4000):])
}

// StopAPIServer ends the API server at once; its data stay.
func (s *Server) StopAPIServer() {
	s.t.Helper()
	s.end(s.api)
}

func (s *Server) end(p *child.Process) {
	s.t.Helper()
	if p == nil {
		return
	}
	if err := p.Kill(); err != nil {
		s.t.Errorf("end the control plane: %v", err)
	}
}
