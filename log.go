package auditlog

import (
	"context"
	"io"
	"log/slog"
	"os"

	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
	"github.com/cloudevents/sdk-go/v2/event"
)

// NewLogger returns a logger in Cloud Logging's field names
// (https://cloud.google.com/logging/docs/structured-logging), or in plain text
// where w is a terminal.
func NewLogger(w io.Writer) *slog.Logger {
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return slog.New(slog.NewTextHandler(w, nil))
		}
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: cloudNames}))
}

func cloudNames(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.LevelKey:
		a.Key = "severity"
		if a.Value.Any() == slog.LevelWarn {
			a.Value = slog.StringValue("WARNING")
		}
	case slog.MessageKey:
		a.Key = "message"
	}
	return a
}

// eventLogger puts on every line what ties it to its event: the event's id,
// and the framework's trace and execution ids where it has them.
func eventLogger(ctx context.Context, log *slog.Logger, e event.Event) *slog.Logger {
	log = log.With("event_id", e.ID())
	if id := funcframework.TraceIDFromContext(ctx); id != "" {
		log = log.With("logging.googleapis.com/trace", id)
	}
	if id := funcframework.SpanIDFromContext(ctx); id != "" {
		log = log.With("logging.googleapis.com/spanId", id)
	}
	if id := funcframework.ExecutionIDFromContext(ctx); id != "" {
		log = log.With(slog.Group("logging.googleapis.com/labels", "execution_id", id))
	}
	return log
}
