package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/internal/loop"
)

// spacing is the time between further peers: each is a change of its own.
const spacing = 200 * time.Millisecond

// further measures how soon a peer that comes to the large network is in the
// kernel: from the moment at which etcd tells of it to the route, which is
// written last. That moment is when the put returns or when a watch of the
// bench shows it, whichever is earlier.
func (b *bench) further(ctx context.Context) ([]row, error) {
	c, err := b.getJoined(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := c.further(ctx, b.peers, b.roundsOr(50))
	if err == nil {
		rows[0].Limit = atMost(15)
	}
	return rows, err
}

// further adds peers to those that the host has joined.
func (c *crowd) further(ctx context.Context, joined, rounds int) ([]row, error) {
	took := row{Measure: fmt.Sprintf("one further peer beside %d, etcd to kernel", joined), Unit: milliseconds}
	whole := row{Measure: "  from the start of the put", Unit: milliseconds, Mark: &mark{"further", "this daemon", fmt.Sprint(joined)}}
	told, routes := newMoments(), newMoments()
	stop, err := c.observe(ctx, told, routes)
	if err != nil {
		return nil, err
	}
	defer stop()
	if err := loop.Wait(ctx, time.Second); err != nil {
		return nil, err
	}
	for range rounds {
		p := nthPeer(c.peers)
		start := time.Now()
		if err := c.store.putPeer(ctx, p); err != nil {
			return nil, err
		}
		told.note(p.name())
		c.peers++
		end, err := routes.await(ctx, p.name())
		if err != nil {
			return nil, fmt.Errorf("no route to %s: %w", p.subnet, err)
		}
		begin, _ := told.first(p.name())
		took.Samples = append(took.Samples, inMilliseconds(end.Sub(begin)))
		whole.Samples = append(whole.Samples, inMilliseconds(end.Sub(start)))
	}
	return []row{took, whole}, nil
}

// observe notes when etcd tells of records and when the host's kernel tells of
// routes, both by name. The caller stops it.
func (c *crowd) observe(ctx context.Context, told, routes *moments) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	events, err := listenRoutes(c.host)
	if err != nil {
		cancel()
		return nil, err
	}
	watch := c.store.Watch(ctx, subnetsKey, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if first, ok := <-watch; !ok || first.Err() != nil {
		cancel()
		return nil, errors.Join(fmt.Errorf("watch etcd: %w", first.Err()), events.Close())
	}
	var readers sync.WaitGroup
	readers.Go(func() {
		for response := range watch {
			for _, e := range response.Events {
				told.note(string(e.Kv.Key[len(subnetsKey):]))
			}
		}
	})
	readers.Go(func() { events.follow(ctx, routes) })
	return func() {
		cancel()
		readers.Wait()
		_ = events.Close()
	}, nil
}

// moments remembers when something was first seen.
type moments struct {
	mu   sync.Mutex
	seen map[string]time.Time
}

func newMoments() *moments { return &moments{seen: map[string]time.Time{}} }

func (m *moments) note(name string) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.seen[name]; !known {
		m.seen[name] = now
	}
}

// await waits until something is seen, and at least for spacing.
func (m *moments) await(ctx context.Context, name string) (time.Time, error) {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if err := loop.Wait(ctx, spacing); err != nil {
			return time.Time{}, err
		}
		if t, ok := m.first(name); ok {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("not seen within %s", patience)
}

func (m *moments) first(name string) (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.seen[name]
	return t, ok
}
