package etcd

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"flannel/internal/wait"
)

// Requests are tried again after firstRetry, growing to lastRetry, or as soon
// as a lost connection is back. Then all nodes come at once, so each waits for
// up to spread.
const (
	requestTimeout = 10 * time.Second
	firstRetry     = time.Second
	lastRetry      = 30 * time.Second
	spread         = 300 * time.Millisecond
)

// final marks an error that trying again does not cure; the store has answered.
type final struct{ error }

// do makes a request until the store answers. It returns ctx.Err(), or what
// the request marked as final.
func (m *Manager) do(ctx context.Context, request func(context.Context) error) error {
	var retry retries
	for {
		err := m.try(ctx, request)
		var answer final
		switch {
		case err == nil:
			m.state.up()
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &answer):
			m.state.up()
			return answer.error
		}
		m.state.down(err)
		if err := m.pause(ctx, &retry); err != nil {
			return err
		}
	}
}

// try makes a request once, or twice when a token was missing.
func (m *Manager) try(ctx context.Context, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), requestTimeout)
	defer cancel()
	err := request(ctx)
	if m.token == nil || !wantsToken(err) {
		return err
	}
	if err := m.authenticate(ctx); err != nil {
		return err
	}
	return request(ctx)
}

// retries counts the failures in a row.
type retries struct{ delay time.Duration }

// next returns the delay to wait, with jitter, and doubles the one after it.
func (r *retries) next() time.Duration {
	if r.delay == 0 {
		r.delay = firstRetry
	}
	d := r.delay
	r.delay = min(2*d, lastRetry)
	return d - rand.N(d/5)
}

func (r *retries) reset() { r.delay = 0 }

// pause waits before the next try. It returns ctx.Err().
func (m *Manager) pause(ctx context.Context, retry *retries) error {
	waiting, cancel := context.WithTimeout(ctx, retry.next())
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
	retry.reset()
	return wait.For(ctx, rand.N(spread))
}

// reachability says once when the store goes away, when the cause changes and
// when it is back.
type reachability struct {
	log    *slog.Logger
	notify func(error)

	mu    sync.Mutex
	since time.Time // zero while the store is reachable
	code  codes.Code
}

func (r *reachability) down(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	code := status.Code(err)
	if !r.since.IsZero() && code == r.code {
		return
	}
	if r.since.IsZero() {
		r.since = time.Now()
	}
	r.code = code
	err = readable(err)
	r.log.Warn("etcd cannot be used, retrying", "err", err)
	if r.notify != nil {
		r.notify(err)
	}
}

func (r *reachability) up() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since.IsZero() {
		return
	}
	r.log.Info("etcd answers again", "took", time.Since(r.since).Round(time.Millisecond))
	r.since = time.Time{}
	if r.notify != nil {
		r.notify(nil)
	}
}

// readable takes the words of the transport off an error.
func readable(err error) error {
	if s, ok := status.FromError(err); ok && s.Message() != "" {
		return errors.New(s.Message())
	}
	return err
}
