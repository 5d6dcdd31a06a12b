// Package cloudlog makes loggers for Cloud Logging. It knows nothing about what is logged.
package cloudlog

import (
	"io"
	"log/slog"
	"os"
)

// New returns a logger with Cloud Logging's field names
// (https://cloud.google.com/logging/docs/structured-logging), or with plain text if w is a terminal.
func New(w io.Writer) *slog.Logger {
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return slog.New(slog.NewTextHandler(w, nil))
		}
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: cloudNames}))
}

// longest is the longest text of an entry, in bytes: an error may quote whatever answered.
const longest = 16 << 10

func cloudNames(groups []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindString && len(a.Value.String()) > longest {
		a.Value = slog.StringValue(a.Value.String()[:longest] + "…")
	}
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
