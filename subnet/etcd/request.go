package etcd

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"flannel/internal/logonce"
	"flannel/internal/loop"
)

// Requests are tried again after a second, growing to half a minute, or as soon
// as a lost connection is back. Then all nodes come at once, so each waits for
// up to spread.
const (
	requestTimeout = 10 * time.Second
	spread         = 300 * time.Millisecond
)

// permanentError is one that trying again does not cure; the store has answered.
type permanentError struct{ error }

// Unwrap returns the error itself.
func (e permanentError) Unwrap() error { return e.error }

// errRaced is the error of a request that another node's change has made
// obsolete; doRacing makes it again.
var errRaced = errors.New("the store has changed meanwhile")

// maxRaceDelay spreads nodes that run into each other.
const maxRaceDelay = 50 * time.Millisecond

// do makes a request until the store answers. The error is that of ctx or a
// permanent one of the request.
func do[T any](ctx context.Context, m *Manager, request func(context.Context) (T, error)) (T, error) {
	var retry loop.Backoff
	for {
		answer, err := try(ctx, m, request)
		var permanent permanentError
		switch {
		case err == nil:
			m.state.set(nil)
			return answer, nil
		case ctx.Err() != nil:
			return answer, ctx.Err()
		case errors.As(err, &permanent):
			m.state.set(nil)
			return answer, permanent.error
		}
		m.state.set(err)
		if err := m.pause(ctx, &retry); err != nil {
			return answer, err
		}
	}
}

// doRacing is do for a request that may lose a race against other nodes.
func doRacing[T any](ctx context.Context, m *Manager, request func(context.Context) (T, error)) (T, error) {
	for {
		answer, err := do(ctx, m, request)
		if !errors.Is(err, errRaced) {
			return answer, err
		}
		m.log.Debug("somebody else was faster, trying again")
		if err := loop.Wait(ctx, rand.N(maxRaceDelay)); err != nil {
			return answer, err
		}
	}
}

// try makes a request once, or twice if a token was missing.
func try[T any](ctx context.Context, m *Manager, request func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), requestTimeout)
	defer cancel()
	answer, err := request(ctx)
	if m.token == nil || !wantsToken(err) {
		return answer, err
	}
	if err := m.authenticate(ctx); err != nil {
		return answer, err
	}
	return request(ctx)
}

// pause waits before the next try. It returns ctx.Err().
func (m *Manager) pause(ctx context.Context, retry *loop.Backoff) error {
	waiting, cancel := context.WithTimeout(ctx, retry.Next())
	defer cancel()
	conn := m.client.ActiveConnection()
	state := conn.GetState()
	if state == connectivity.Ready {
		<-waiting.Done()
		return ctx.Err()
	}
	for state != connectivity.Ready {
		if state == connectivity.Idle {
			conn.Connect()
		}
		if !conn.WaitForStateChange(waiting, state) {
			return ctx.Err()
		}
		state = conn.GetState()
	}
	retry.Reset()
	return loop.Wait(ctx, rand.N(spread))
}

// reachability logs and reports when the store becomes unreachable, when the
// cause changes and when it is reachable again.
type reachability struct {
	failures *logonce.Failures
	notify   func(error)

	mu sync.Mutex // keeps the calls of notify in order
}

func newReachability(log *slog.Logger, notify func(error)) *reachability {
	words := logonce.Words{Level: slog.LevelWarn, Begins: "etcd cannot be used, retrying", Ends: "etcd answers again"}
	return &reachability{failures: words.NewFailures(log), notify: notify}
}

// set notes why the last request was not answered; nil means that it was.
func (r *reachability) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := status.FromError(err); ok && err != nil && s.Message() != "" {
		err = outage{s}
	}
	if r.failures.Fail("etcd", err) {
		r.notify(err)
	}
}

// outage is a request that was not answered.
type outage struct{ status *status.Status }

// Error returns the text without the words of the transport.
func (o outage) Error() string { return o.status.Message() }

// Cause is the same for each endpoint.
func (o outage) Cause() string { return o.status.Code().String() }
