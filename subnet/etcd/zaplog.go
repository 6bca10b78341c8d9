package etcd

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapLogger makes the client's log debug lines of ours: what it finds worth a
// warning is retried by us and said by us.
func zapLogger(log *slog.Logger) *zap.Logger {
	return zap.New(zapCore{log.With("source", "etcd client")})
}

// zapCore passes entries on to slog.
type zapCore struct{ log *slog.Logger }

// Enabled implements zapcore.LevelEnabler. The client's debug lines are left
// out: there are several for each request.
func (c zapCore) Enabled(level zapcore.Level) bool {
	return level >= zapcore.InfoLevel && c.log.Enabled(context.Background(), slog.LevelDebug)
}

// With implements zapcore.Core.
func (c zapCore) With(fields []zapcore.Field) zapcore.Core {
	return zapCore{c.log.With(pairs(fields)...)}
}

// Check implements zapcore.Core.
func (c zapCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.Enabled(e.Level) {
		return checked
	}
	return checked.AddCore(e, c)
}

// Write implements zapcore.Core.
func (c zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.log.Debug(e.Message, pairs(fields)...)
	return nil
}

// Sync implements zapcore.Core.
func (c zapCore) Sync() error { return nil }

func pairs(fields []zapcore.Field) []any {
	values := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(values)
	}
	var pairs []any
	for name, value := range values.Fields {
		pairs = append(pairs, name, value)
	}
	return pairs
}
