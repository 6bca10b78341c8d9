package kube

import (
	"context"
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
)

// newReflector returns what keeps a store like the Nodes that a field selector
// names. It streams the first list where the server can. Servers that do not
// answer or refuse are waited out and said under the topic. It calls again when
// it cannot go on from what it has.
func (m *Manager) newReflector(name, topic, selector string, store cache.ReflectorStore, again context.CancelCauseFunc) *cache.Reflector {
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			var list *NodeList
			err := m.try(ctx, topic, rule{"list", "nodes"}, func(ctx context.Context) (err error) {
				list, err = m.client.list(ctx, o)
				return err
			})
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			back, err := m.wentBack(ctx, topic, o)
			if err != nil {
				return nil, err
			}
			if back {
				again(errRestored)
				return nil, errRestored
			}
			var w watch.Interface
			err = m.try(ctx, topic, rule{"watch", "nodes"}, func(ctx context.Context) (err error) {
				w, err = m.client.watch(ctx, o)
				return err
			})
			return w, err
		},
	}
	// What the gate and try do not wait out is transient, such as a resource
	// version that is too old: the reflector deals with it and says so quietly.
	return cache.NewReflectorWithOptions(source, &Node{}, store, cache.ReflectorOptions{
		Name: name, TypeDescription: "Node",
		Backoff: &wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.5, Steps: math.MaxInt32, Cap: 20 * time.Second},
	})
}

// stripped drops from Nodes what no lease is made of.
func stripped(prefix string) cache.TransformFunc {
	return func(obj any) (any, error) {
		if n, ok := obj.(*Node); ok {
			n.strip(prefix)
		}
		return obj, nil
	}
}

// asNode is what a store of a reflector is handed.
func asNode(obj any) (*Node, error) {
	n, ok := obj.(*Node)
	if !ok {
		return nil, fmt.Errorf("%T instead of a Node", obj)
	}
	return n, nil
}

// quietLogger is a logger for client-go: what it says matters only to those
// who look for the cause of something.
func quietLogger(log *slog.Logger) klog.Logger { return logr.FromSlogHandler(quiet{log.Handler()}) }

// quiet hands records on as debug records.
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
