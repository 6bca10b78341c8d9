// Package logging builds the daemon's logger from its flags.
package logging

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
)

// The formats of the log.
const (
	FormatText = "text"
	FormatJSON = "json"
)

// Options are the values of the logging flags.
type Options struct {
	// V is the verbosity: records of level -V and above are shown. Debug
	// records appear from 4 on.
	V int
	// VModule overrides V for single files: a comma-separated list of pattern=N. The
	// pattern is a file name without .go and may hold * and ?.
	VModule string
	// Format is text or json; empty means text.
	Format string
	// BacktraceAt is file:line; a record made there is followed by the stack.
	// Empty and ":0" mean nowhere.
	BacktraceAt string
}

// New returns a logger that writes lines to w. An error names the
// flag and what is allowed.
func New(w io.Writer, o Options) (*slog.Logger, error) {
	modules, err := parseVModule(o.VModule)
	if err != nil {
		return nil, err
	}
	backtrace, err := parseBacktrace(o.BacktraceAt)
	if err != nil {
		return nil, err
	}
	h := &handler{
		shared: &shared{out: &lockedWriter{w: w}, level: slog.Level(-o.V), modules: modules, backtrace: backtrace},
	}
	h.lowest = h.level
	for _, m := range modules {
		h.lowest = min(h.lowest, m.level)
	}
	options := &slog.HandlerOptions{Level: h.lowest}
	switch o.Format {
	case "", FormatText:
		h.next = slog.NewTextHandler(h.out, options)
	case FormatJSON:
		h.next, h.json = slog.NewJSONHandler(h.out, options), true
	default:
		return nil, fmt.Errorf("--log-format: %q is not allowed: use %s or %s", o.Format, FormatText, FormatJSON)
	}
	return slog.New(h), nil
}

// module is one entry of the flag vmodule.
type module struct {
	pattern string
	level   slog.Level
}

func parseVModule(text string) ([]module, error) {
	var modules []module
	for entry := range strings.SplitSeq(text, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		pattern, number, _ := strings.Cut(entry, "=")
		n, err := strconv.Atoi(number)
		if _, bad := filepath.Match(pattern, ""); err != nil || n < 0 || bad != nil || pattern == "" {
			return nil, fmt.Errorf("--vmodule: %q is not allowed: use a comma-separated list of pattern=N, such as watch=4,etcd*=6", entry)
		}
		modules = append(modules, module{strings.TrimSuffix(pattern, ".go"), slog.Level(-n)})
	}
	return modules, nil
}

// location is a line of a source file; the zero location is nowhere.
type location struct {
	file string
	line int
}

func parseBacktrace(text string) (location, error) {
	if text == "" || text == ":0" {
		return location{}, nil
	}
	file, number, _ := strings.Cut(text, ":")
	line, err := strconv.Atoi(number)
	if err != nil || line < 1 || file == "" {
		return location{}, fmt.Errorf("--log_backtrace_at: %q is not allowed: use file:line, such as watch.go:42", text)
	}
	return location{file, line}, nil
}

// handler shows records by the file they come from.
type handler struct {
	*shared
	next slog.Handler
}

// shared is the same in a handler and in those derived from it.
type shared struct {
	out       *lockedWriter
	json      bool
	level     slog.Level
	lowest    slog.Level
	modules   []module
	backtrace location
	places    sync.Map // PC -> place
}

// place is what is known about the source line of a record.
type place struct {
	level     slog.Level
	backtrace bool
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.lowest }

func (h *handler) Handle(ctx context.Context, record slog.Record) error {
	at := h.place(record.PC)
	if record.Level < at.level {
		return nil
	}
	if at.backtrace && h.json { // each line is an object
		record = record.Clone()
		record.AddAttrs(slog.String("stack", string(debug.Stack())))
	}
	if err := h.next.Handle(ctx, record); err != nil || !at.backtrace || h.json {
		return err
	}
	_, err := h.out.Write(debug.Stack())
	return err
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.shared, h.next.WithAttrs(attrs)}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.shared, h.next.WithGroup(name)}
}

// place returns what the flags set for a source line.
func (s *shared) place(pc uintptr) place {
	if len(s.modules) == 0 && s.backtrace == (location{}) || pc == 0 {
		return place{level: s.level}
	}
	if known, ok := s.places.Load(pc); ok {
		return known.(place)
	}
	frame, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	file := filepath.Base(frame.File)
	at := place{level: s.level, backtrace: s.backtrace == location{file, frame.Line}}
	for _, m := range s.modules {
		if ok, _ := filepath.Match(m.pattern, strings.TrimSuffix(file, ".go")); ok {
			at.level = m.level
			break
		}
	}
	s.places.Store(pc, at)
	return at
}

// lockedWriter keeps records and stacks apart.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
