package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"flannel/internal/health"
)

// errRestored means that the store of the API server has an earlier state, as
// after a restore from a backup.
var errRestored = errors.New("the store of the API server was restored")

// follower follows Nodes. Its methods are not called concurrently.
type follower interface {
	// put is called with a Node that is new or may have changed.
	put(*Node)
	remove(*Node)
	// replace is called with all Nodes.
	replace(nodes []*Node, version string)
	// advance is called with the latest resource version.
	advance(version string)
}

// follow calls f with the Nodes that a field selector selects until ctx ends. It
// starts over when the API server has an earlier state than before: its versions
// count again from there, and a watch from a later one hears nothing until they
// have caught up.
func (m *Manager) follow(ctx context.Context, condition, selector string, f follower) error {
	store := reflectorStore{f, m.o.AddLoop("watch of " + condition)}
	for ctx.Err() == nil {
		attempt, restart := context.WithCancelCause(ctx)
		// What the apiBreaker and try do not wait out is transient, such as a
		// resource version that is too old: the reflector handles it.
		nodes := &source{m: m, condition: condition, selector: selector, restart: restart}
		reflector := cache.NewReflectorWithOptions(nodes.forReflector(), &Node{}, store, cache.ReflectorOptions{
			Name: condition, TypeDescription: "Node",
			Backoff: &wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.5, Steps: math.MaxInt32, Cap: 20 * time.Second},
		})
		reflector.RunWithContext(klog.NewContext(attempt, quietLogger(m.log)))
		if errors.Is(context.Cause(attempt), errRestored) {
			m.log.Warn("API server has an earlier state than before, listing again", "what", condition)
		}
		restart(nil)
	}
	return ctx.Err()
}

// source lists and watches Nodes for a reflector, one after the other. A server
// that does not answer or refuses is waited out, and reported under the condition.
// restart is called when the watch cannot continue from the last version.
type source struct {
	m                   *Manager
	condition, selector string
	restart             context.CancelCauseFunc
	// listed are the fingerprints of the Nodes of the last list, for the watch
	// that continues from it.
	listed map[string]uint64
}

func (s *source) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	o.FieldSelector = s.selector
	if o.Continue == "" {
		s.listed = map[string]uint64{}
		o.Limit = 0 // all at once: each page is a request
	}
	if o.ResourceVersion == "0" {
		// client-go is content with what one of several API servers remembers, which
		// may be older than what this node did before its restart. A server since
		// Kubernetes 1.31 answers from its memory here too, once that is up to date.
		o.ResourceVersion = ""
	}
	return s.m.list(ctx, s.condition, o, func(node []byte) error {
		name, _, print, err := fingerprint(node, s.m.client.prefix)
		s.listed[name] = print
		return err
	})
}

func (s *source) watch(ctx context.Context, o metav1.ListOptions) (w watch.Interface, err error) {
	o.FieldSelector = s.selector
	restored, err := s.m.isRestored(ctx, s.condition, o)
	if restored {
		err = errRestored
		s.restart(err)
	}
	if err != nil {
		return nil, err
	}
	err = s.m.try(ctx, s.condition, rule{"watch", "nodes"}, func(ctx context.Context) (err error) {
		w, err = s.m.client.watch(ctx, o, s.takeListed())
		return err
	})
	return w, err
}

// takeListed returns the fingerprints of the list that has just been made. A later
// watch begins without any: nobody knows which events of the one before have
// reached the reflector.
func (s *source) takeListed() map[string]uint64 {
	listed := s.listed
	s.listed = map[string]uint64{}
	return listed
}

// IsWatchListSemanticsUnSupported makes the reflector ask for a list rather than a
// stream of its Nodes: a list is compressed, which makes it 25 times smaller, and
// it costs the API server less.
func (s *source) IsWatchListSemanticsUnSupported() bool { return true }

// forReflector returns the source as a reflector takes it.
func (s *source) forReflector() cache.ListerWatcher {
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{ListWithContextFunc: s.list, WatchFuncWithContext: s.watch}, s)
}

func (m *Manager) list(ctx context.Context, condition string, o metav1.ListOptions, visit func(node []byte) error) (list *NodeList, err error) {
	err = m.try(ctx, condition, rule{"list", "nodes"}, func(ctx context.Context) (err error) {
		list, err = m.client.list(ctx, o, visit)
		return err
	})
	return list, err
}

// isRestored reports whether the current version of the server is lower than the
// one that a watch would continue from. It is one small request for each watch,
// and a watch lasts minutes.
func (m *Manager) isRestored(ctx context.Context, condition string, o metav1.ListOptions) (bool, error) {
	seen := revision(o.ResourceVersion)
	if seen == 0 || o.SendInitialEvents != nil {
		return false, nil // the server rejects a version that it does not know
	}
	page, err := m.list(ctx, condition, metav1.ListOptions{FieldSelector: o.FieldSelector, Limit: 1}, nil)
	if err != nil {
		return false, err
	}
	current := revision(page.ResourceVersion)
	return current != 0 && current < seen, nil
}

// reflectorStore hands on what a reflector finds.
type reflectorStore struct {
	follower
	loop *health.Loop
}

var _ cache.ResourceVersionUpdater = reflectorStore{}

// Add implements cache.ReflectorStore.
func (s reflectorStore) Add(obj any) error { return s.withNode(obj, s.put) }

// Update implements cache.ReflectorStore.
func (s reflectorStore) Update(obj any) error { return s.withNode(obj, s.put) }

// Delete implements cache.ReflectorStore.
func (s reflectorStore) Delete(obj any) error { return s.withNode(obj, s.remove) }

// Replace implements cache.ReflectorStore.
func (s reflectorStore) Replace(list []any, version string) error {
	s.loop.Works()
	defer s.loop.Waits()
	nodes := make([]*Node, 0, len(list))
	for _, obj := range list {
		if err := asNode(obj, func(n *Node) { nodes = append(nodes, n) }); err != nil {
			return err
		}
	}
	s.replace(nodes, version)
	return nil
}

// Resync implements cache.ReflectorStore.
func (s reflectorStore) Resync() error { return nil }

// UpdateResourceVersion implements cache.ResourceVersionUpdater.
func (s reflectorStore) UpdateResourceVersion(version string) {
	s.loop.Works()
	defer s.loop.Waits()
	s.advance(version)
}

func (s reflectorStore) withNode(obj any, do func(*Node)) error {
	s.loop.Works()
	defer s.loop.Waits()
	return asNode(obj, do)
}

func asNode(obj any, do func(*Node)) error {
	n, ok := obj.(*Node)
	if !ok {
		return fmt.Errorf("%T instead of a Node", obj)
	}
	do(n)
	return nil
}

// quietLogger returns a logger for client-go, whose messages matter only when
// somebody looks for the cause of something.
func quietLogger(log *slog.Logger) klog.Logger { return logr.FromSlogHandler(quiet{log.Handler()}) }

// quiet logs everything at the level of debugging.
type quiet struct{ slog.Handler }

// Enabled implements slog.Handler.
func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return q.Handler.Enabled(ctx, min(level, slog.LevelDebug))
}

// Handle implements slog.Handler.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = min(r.Level, slog.LevelDebug)
	return q.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }
