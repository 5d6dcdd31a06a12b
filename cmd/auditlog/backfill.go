package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"example.com/auditlog"
	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

func backfillCommand() *cobra.Command {
	var o backfillOptions
	var want state.Backfill
	cmd := &cobra.Command{
		Use:   "backfill --from TIME [--to TIME]",
		Short: "Collect a range of the past",
		Long: `backfill puts a range of the past into the state's backlog and collects it, or
with --detach leaves that to the scheduled runs. It is safe beside the deployed
function: between them, each record is written once.

TIME is a date (2026-11-01, UTC; as the end, the day included), an RFC 3339 time,
or how long ago (30d, 12h). Without --to the range ends where what has been
collected begins. A range that holds collected seconds is refused; with --again
its records are written once more. With filters (EVENT_TYPES, ...) other than the
function's it needs --detach: a run here would read what is new with them, too.

With --cancel the range is taken out of the backlog instead, as far as nothing of
it has been read, or runs have set it aside since the API cannot serve it. Its
records are not collected then, unless a later backfill asks for them.

Ctrl-C ends the reading: what has been read is committed, and the scheduled runs
collect the rest. OpenAI keeps audit logs for a limited time: the last line says
how far back the API has answered.

Exit status: 0 when the range is collected, or with --detach in the backlog; 1
when not.`,
		Example: `  auditlog backfill --from 30d
  auditlog backfill --from 2026-10-01 --to 2026-10-31 --detach`,
		Args: func(cmd *cobra.Command, args []string) (err error) {
			if o.from == "" {
				return errors.New("--from is required")
			}
			if o.cancel && (o.to == "" || o.again || o.detach) {
				return errors.New("--cancel wants --from and --to, and neither --again nor --detach")
			}
			if want, err = auditlog.ParseBackfill(o.from, o.to, time.Now()); err != nil {
				return fmt.Errorf("--%w", err)
			}
			return cobra.NoArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			want.Again, want.Here, want.Cancel = o.again, !o.detach, o.cancel
			return operate(cmd.Context(), func(ctx context.Context, op *operator) error {
				return op.backfill(ctx, cmd.OutOrStdout(), want, o)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.from, "from", "", "where the range begins (required)")
	flags.StringVar(&o.to, "to", "", "where it ends (default: where what has been collected begins)")
	flags.BoolVar(&o.again, "again", false, "write records again that have been collected before")
	flags.BoolVar(&o.detach, "detach", false, "leave the reading to the scheduled runs")
	flags.BoolVar(&o.cancel, "cancel", false, "take the range out of the backlog")
	flags.BoolVar(&o.json, "json", false, "print the result as JSON")
	for _, name := range []string{"from", "to"} {
		if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions([]string{"1d", "7d", "30d"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err)
		}
	}
	return cmd
}

type backfillOptions struct {
	from, to            string
	again, detach, json bool
	cancel              bool
}

// backfilled is what a backfill has come to.
type backfilled struct {
	From     time.Time  `json:"from"`
	To       time.Time  `json:"to"`
	Detached bool       `json:"detached"`
	Runs     int        `json:"runs"`
	Records  int        `json:"records"`          // written by these runs, fresh ones included
	Oldest   *time.Time `json:"oldest,omitempty"` // record of the backlog that these runs have read
	Left     int        `json:"open_windows"`     // of the backlog
}

func (op *operator) backfill(ctx context.Context, stdout io.Writer, want state.Backfill, o backfillOptions) error {
	from, to, err := op.collector.Backfill(ctx, op.log, want)
	if err != nil {
		op.log.Error("Backfill refused: " + err.Error())
		return errLogged
	}
	if o.cancel {
		op.log.Info(fmt.Sprintf("Backfill from %s to %s is cancelled: its records are not collected", from.Format(time.RFC3339), to.Format(time.RFC3339)))
		return nil
	}
	result := backfilled{From: from, To: to, Detached: o.detach, Left: 1}
	op.log.Info(fmt.Sprintf("Backfill from %s to %s is in the backlog", from.Format(time.RFC3339), to.Format(time.RFC3339)))
	began := time.Now()
	for err == nil && !o.detach && result.Left > 0 {
		if op.screen != nil {
			op.collector.Progress = func(s auditlog.Summary) { op.screen.backfill(result, s, time.Since(began)) }
		}
		var sum auditlog.Summary
		sum, err = op.run(ctx)
		result.add(sum)
	}
	if o.json {
		if err := printJSON(stdout, result); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(stdout, result)
	}
	return err
}

func (b *backfilled) add(s auditlog.Summary) {
	b.Runs++
	b.Records += s.Records
	b.Left = s.OpenWindows + s.Backfills
	if s.Oldest > 0 {
		if t := time.Unix(s.Oldest, 0).UTC(); b.Oldest == nil || t.Before(*b.Oldest) {
			b.Oldest = &t
		}
	}
}

func (b backfilled) String() string {
	span := b.From.Format(time.RFC3339) + " to " + b.To.Format(time.RFC3339)
	switch {
	case b.Detached:
		return span + " is in the backlog: the scheduled runs collect it"
	case b.Left > 0:
		return fmt.Sprintf("%s in %s; %s left: the scheduled runs collect the rest", audit.Count(b.Records, "record"), audit.Count(b.Runs, "run"), audit.Count(b.Left, "window"))
	case b.Oldest == nil:
		return fmt.Sprintf("%s is collected: the API has no record of it", span)
	}
	return fmt.Sprintf("%s is collected: %s in %s; the API's oldest record is of %s", span, audit.Count(b.Records, "record"), audit.Count(b.Runs, "run"), b.Oldest.Format(time.RFC3339))
}

// done is the part of the range that has been read, 0 to 1, where pages come
// newest first.
func (b backfilled) done(reached int64) float64 {
	whole := b.To.Unix() - b.From.Unix() + 1
	return min(1, max(0, float64(b.To.Unix()-reached+1)/float64(whole)))
}

// backfill shows how far a backfill is: its part of the range, the rate, and the
// time that the rest would take at that rate.
func (c *console) backfill(so backfilled, s auditlog.Summary, elapsed time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	done := so.done(s.Reached)
	remaining := "?"
	if done > 0.001 {
		remaining = time.Duration(float64(elapsed) * (1 - done) / done).Round(time.Second).String()
	}
	c.bar.Describe(fmt.Sprintf("%3.0f %% of the range, %s left; %s", 100*done, remaining, audit.Count(so.Records+s.Records, "record")))
	c.bar.Set(so.Records + s.Records)
}
