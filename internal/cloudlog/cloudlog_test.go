package cloudlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestNames: a line has the names that Cloud Logging looks for, and an attribute
// within a group keeps its own.
func TestNames(t *testing.T) {
	var out bytes.Buffer
	log := New(&out)
	log.Debug("not shown")
	log.Info("as planned", "records", 7)
	log.Warn("look at it", "error", "none")
	log.Error("failed", slog.Group("api", "level", slog.LevelWarn, "msg", "no", "time", "never"))
	log.With("event_id", "e1").WithGroup("labels").Warn("within", "msg", "kept", "level", 1)

	want := []map[string]any{
		{"severity": "INFO", "message": "as planned", "records": 7.0},
		{"severity": "WARNING", "message": "look at it", "error": "none"},
		{"severity": "ERROR", "message": "failed", "api": map[string]any{"level": "WARN", "msg": "no", "time": "never"}},
		{"severity": "WARNING", "message": "within", "event_id": "e1", "labels": map[string]any{"msg": "kept", "level": 1.0}},
	}
	var got []map[string]any
	for line := range strings.Lines(out.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if _, err := time.Parse(time.RFC3339, m["time"].(string)); err != nil {
			t.Error(err)
		}
		delete(m, "time")
		got = append(got, m)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines differ (-want +got):\n%s", diff)
	}
}

// TestOutsideText: no text from outside begins a line or a member of its own, or
// fills the log.
func TestOutsideText(t *testing.T) {
	hostile := "a\r\n{\"severity\":\"EMERGENCY\"}\u2028\x1b[2J\x00\xff\",\"severity\":\"DEBUG"
	for _, log := range []func(*slog.Logger){
		func(l *slog.Logger) { l.Info(hostile) },
		func(l *slog.Logger) { l.Info("x", "id", hostile) },
		func(l *slog.Logger) { l.With("event_id", hostile).Info("x") },
		func(l *slog.Logger) { l.Info(strings.Repeat(hostile, 1000), "id", strings.Repeat("x", 1<<20)) },
	} {
		var out bytes.Buffer
		log(New(&out))
		var m map[string]any
		if err := json.Unmarshal(out.Bytes(), &m); err != nil || m["severity"] != "INFO" || bytes.Count(out.Bytes(), []byte("\n")) != 1 || bytes.ContainsAny(out.Bytes(), "\r\x1b\x00") {
			t.Errorf("%.300q: %v", out.Bytes(), err)
		}
		if out.Len() > 100<<10 {
			t.Errorf("an entry of %d bytes", out.Len())
		}
	}
}

// TestTerminal: people get plain text, and files get what Cloud Logging reads.
func TestTerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	device, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	closed, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, tt := range []struct {
		name    string
		w       io.Writer
		handler string
	}{
		{"a buffer", new(bytes.Buffer), "*slog.JSONHandler"},
		{"a file", file, "*slog.JSONHandler"},
		{"a character device, as a terminal is", device, "*slog.TextHandler"},
		{"a file that says nothing of itself", closed, "*slog.JSONHandler"},
	} {
		if got := fmt.Sprintf("%T", New(tt.w).Handler()); got != tt.handler {
			t.Errorf("%s gets %s, want %s", tt.name, got, tt.handler)
		}
	}
}
