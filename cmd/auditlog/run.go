package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"example.com/auditlog"
	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/cloudlog"
)

func runCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "run",
		Short: "Do one run in the foreground",
		Long: `run does what the function does for one event, and ends. Settings are read from
the environment; "auditlog help settings" lists them. It is safe beside the
deployed function: of runs at the same time, one commits.

Logs go to standard error: as JSON, or on a terminal as plain lines below which
the progress is shown. One line on standard output sums up what was collected.
With --json that is a JSON object instead: the figures of the log's last entry,
and "watermark_time". A failed run prints them, too.

SIGINT (Ctrl-C) or SIGTERM ends the reading: what has been read is committed, the
rest is left to the next run, and the exit status is 1. A second signal ends the
process at once; even so nothing is lost.`,
		Example: `  GCS_BUCKET=my-bucket OPENAI_ADMIN_KEY=sk-admin-... auditlog run`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runOnce(cmd.Context(), cmd.OutOrStdout(), asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the figures as JSON")
	return c
}

// runOnce does a run.
func runOnce(ctx context.Context, stdout io.Writer, asJSON bool) error {
	return operate(ctx, func(ctx context.Context, o *operator) error {
		if o.screen != nil {
			o.collector.Progress = o.screen.progress
		}
		sum, err := o.run(ctx)
		switch {
		case asJSON:
			return errors.Join(err, printJSON(stdout, figuresOf(sum)))
		// The figures of a failed run may count what it has not committed; with an
		// object they are good.
		case err == nil || sum.Object != "":
			fmt.Fprintln(stdout, wrappedLine(summary(sum), columns(stdout)))
		}
		return err
	})
}

// operator is what a command at work in the bucket has.
type operator struct {
	collector *auditlog.Collector
	log       *slog.Logger
	screen    *console // nil where standard error is no terminal
}

// operate calls f with a collector of the environment's settings, and with a
// context that the first SIGINT or SIGTERM ends. Errors go to the log, so that
// standard error stays JSON to the last line where it began so.
func operate(ctx context.Context, f func(context.Context, *operator) error) error {
	o := &operator{log: cloudlog.New(os.Stderr)}
	if columns(os.Stderr) > 0 {
		o.screen = newConsole(os.Stderr)
		o.log = slog.New(o.screen)
	}

	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, func() {
		stop() // so that a second signal kills
		o.log.Warn("Interrupted: committing what has been read. A second signal ends the process at once")
	})()

	cfg, err := loadConfig(env.ToMap(os.Environ()))
	if err == nil {
		o.collector, err = auditlog.New(ctx, cfg, auditlog.Options{})
	}
	if err != nil {
		o.log.Error(err.Error())
		return errLogged
	}
	return f(ctx, o)
}

// run does a run, whose error it has logged.
func (o *operator) run(ctx context.Context) (auditlog.Summary, error) {
	sum, err := o.collector.Run(ctx, o.log)
	if o.screen != nil {
		o.screen.clear()
	}
	if err != nil {
		err = errLogged
	}
	return sum, err
}

// figuresOf has a run's figures under their names in the log.
func figuresOf(s auditlog.Summary) map[string]any {
	figures := map[string]any{}
	for _, a := range s.LogValue().Group() {
		figures[a.Key] = a.Value.Any()
	}
	if s.Watermark > 0 {
		figures["watermark_time"] = time.Unix(s.Watermark, 0).UTC()
	}
	return figures
}

// summary is what a run has come to, in one line.
func summary(s auditlog.Summary) string {
	written := "no new records"
	if s.Object != "" {
		written = fmt.Sprintf("%s in %s", audit.Count(s.Records, "record"), s.Object)
	}
	left := "nothing left"
	if n := s.OpenWindows + s.Backfills; n > 0 {
		left = audit.Count(n, "window") + " left for the next runs"
	}
	return fmt.Sprintf("%s; watermark %s; %s", written, audit.Time(s.Watermark), left)
}

// console shows a run on a terminal: log entries as plain lines, and below them
// one that tells how far the run is. It is a slog.Handler.
type console struct {
	mu  sync.Mutex
	w   io.Writer
	bar *progressbar.ProgressBar
}

func newConsole(w io.Writer) *console {
	return &console{w: w, bar: progressbar.NewOptions(-1, // how many records there are is not known
		progressbar.OptionSetWriter(w),
		progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("records"),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetSpinnerChangeInterval(0), // only progress draws it
	)}
}

func (c *console) progress(s auditlog.Summary) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bar.Describe(fmt.Sprintf("%s, %s", audit.Count(s.Records, "record"), audit.Count(s.Pages, "page")))
	c.bar.Set(s.Records)
}

// clear removes the line of the progress.
func (c *console) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bar.Clear()
}

func (c *console) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (c *console) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "Page ") {
		return nil // the progress tells
	}
	var line strings.Builder
	if r.Level >= slog.LevelWarn {
		line.WriteString(r.Level.String() + ": ")
	}
	line.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		if v := a.Value.Resolve(); v.Kind() != slog.KindGroup { // the figures come as the summary
			fmt.Fprintf(&line, " %s=%v", a.Key, v)
		}
		return true
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bar.Clear()
	_, err := fmt.Fprintln(c.w, wrappedLine(line.String(), columns(c.w)))
	return err
}

// The command's own logger has neither attributes nor groups.
func (c *console) WithAttrs([]slog.Attr) slog.Handler { return c }
func (c *console) WithGroup(string) slog.Handler      { return c }
