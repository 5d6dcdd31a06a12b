package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"example.com/auditlog"
	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/report"
	"example.com/auditlog/internal/state"
)

func backfillCommand() *cobra.Command {
	var o backfillOptions
	var want state.Backfill
	cmd := &cobra.Command{
		Use:   "backfill --from TIME [--to TIME]",
		Short: "Collect a range of the past",
		Long: `backfill puts what is missing of a range into the state's backlog and collects it,
or with --detach leaves that to the scheduled runs. What is collected already, or
in the backlog, is left alone; with --again its records are written once more. It
is safe beside the deployed function: between them, each record is written once.

TIME is a day (2026-11-01, yesterday, today; UTC; as the end, the day included), a
time (RFC 3339, now) or how long ago (2w, 30d, 12h, 90m). The range ends no later
than what has been collected so far: the next run collects what is newer. With
filters (EVENT_TYPES, ...) other than the function's it needs --detach: a run here
would read what is new with them, too.

With --dry-run it only says what it would do. With --cancel the range is taken out
of the backlog instead, as far as nothing of it has been read, or runs have set it
aside since the API cannot serve it. Its records are not collected then, unless a
later backfill asks for them.

Ctrl-C ends the reading: what has been read is committed, and the scheduled runs
collect the rest. OpenAI keeps audit logs for a limited time: the last line says
how far back the API has answered.`,
		Example: `  auditlog backfill --from 30d --dry-run
  auditlog backfill --from 30d
  auditlog backfill --from 2026-10-01 --to 2026-10-31 --detach`,
		Args: func(cmd *cobra.Command, args []string) (err error) {
			if o.from == "" {
				return errors.New("--from is required")
			}
			if want.Cancel && (o.to == "" || want.Again || o.detach) {
				return errors.New("--cancel wants --from and --to, and neither --again nor --detach")
			}
			parsed, err := auditlog.ParseBackfill(o.from, o.to, time.Now())
			if err != nil {
				return fmt.Errorf("--%w", err)
			}
			want.From, want.To, want.Here = parsed.From, parsed.To, !o.detach
			return cobra.NoArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return operate(cmd.Context(), func(ctx context.Context, op *operator) error {
				return op.backfill(ctx, cmd.OutOrStdout(), want, o)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.from, "from", "", "where the range begins (required)")
	flags.StringVar(&o.to, "to", "", "where it ends (default: where what has been collected ends)")
	flags.BoolVar(&want.Again, "again", false, "write records again that have been collected before")
	flags.BoolVar(&o.detach, "detach", false, "leave the reading to the scheduled runs")
	flags.BoolVar(&want.DryRun, "dry-run", false, "say what would be done, and change nothing")
	flags.BoolVar(&want.Cancel, "cancel", false, "take the range out of the backlog")
	flags.BoolVar(&o.json, "json", false, "print the result as JSON")
	for _, name := range []string{"from", "to"} {
		if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions([]string{"yesterday", "7d", "30d"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err)
		}
	}
	return cmd
}

type backfillOptions struct {
	from, to     string
	detach, json bool
}

// backfilled is what a backfill has come to.
type backfilled struct {
	plan state.Backfilled

	report.Range                // as asked for
	Parts        []report.Range `json:"parts"`   // put into the backlog, or with --cancel taken out of it
	Waiting      []report.Range `json:"waiting"` // in the backlog before
	Unsure       []report.Range `json:"unsure"`  // not known whether all is collected, and left alone
	Detached     bool           `json:"detached"`
	Runs         int            `json:"runs"`
	Records      int            `json:"records"`          // written by these runs, fresh ones included
	Oldest       int64          `json:"oldest,omitempty"` // effective_at of the oldest record of the backlog that these runs have read
	OldestTime   time.Time      `json:"oldest_time,omitzero"`
	Left         int            `json:"open_windows"` // of the backlog
	SetAside     int            `json:"set_aside"`    // windows that the API cannot serve
}

func newBackfilled(plan state.Backfilled, detached bool) backfilled {
	return backfilled{
		plan: plan, Range: report.NewRange(plan.Asked), Detached: detached, Left: len(plan.Parts) + len(plan.Waiting),
		Parts: report.NewRanges(plan.Parts), Waiting: report.NewRanges(plan.Waiting), Unsure: report.NewRanges(plan.Unsure),
	}
}

func (op *operator) backfill(ctx context.Context, stdout io.Writer, want state.Backfill, o backfillOptions) error {
	plan, err := op.collector.Backfill(ctx, op.log, want)
	if err != nil {
		return errLogged
	}
	result := newBackfilled(plan, o.detach)
	text := plan.String()
	switch {
	case want.DryRun:
		text = "dry run: " + text
	case !want.Cancel:
		err = op.collect(ctx, &result)
		text = result.String()
	}
	if o.json {
		if err := printJSON(stdout, result); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(stdout, text)
	}
	if len(plan.Unsure) > 0 {
		return errLogged
	}
	return err
}

// collect does runs until nothing is left, unless it is left to the scheduled ones.
func (op *operator) collect(ctx context.Context, result *backfilled) (err error) {
	began := time.Now()
	for err == nil && !result.Detached && result.Left > 0 {
		if op.screen != nil {
			op.collector.Progress = func(s auditlog.Summary) { op.screen.backfill(*result, s, time.Since(began)) }
		}
		var sum auditlog.Summary
		sum, err = op.run(ctx)
		result.add(sum)
	}
	return err
}

func (b *backfilled) add(s auditlog.Summary) {
	b.Runs++
	b.Records += s.Records
	b.Left, b.SetAside = s.OpenWindows+s.Backfills, s.SetAside
	if s.Oldest > 0 && (b.Oldest == 0 || s.Oldest < b.Oldest) {
		b.Oldest, b.OldestTime = s.Oldest, time.Unix(s.Oldest, 0).UTC()
	}
}

func (b backfilled) String() string {
	span := b.plan.Asked.String()
	runs := fmt.Sprintf("%s in %s", audit.Count(b.Records, "record"), audit.Count(b.Runs, "run"))
	switch {
	case b.Left+b.Runs == 0 && len(b.Unsure) > 0:
		return span + " is left alone: whether all of it is collected is unknown"
	case b.Left+b.Runs == 0:
		return span + " is collected already"
	case b.Detached:
		return "left to the scheduled runs: " + b.plan.String()
	case b.Left+b.SetAside > 0:
		return fmt.Sprintf("%s; %s left: the scheduled runs collect the rest", runs, audit.Count(b.Left+b.SetAside, "window"))
	case len(b.Unsure) > 0:
		return fmt.Sprintf("%s is collected, but for what is unknown: %s", span, runs)
	case b.Oldest == 0:
		return fmt.Sprintf("%s is collected: the API has no record of it", span)
	}
	return fmt.Sprintf("%s is collected: %s; the oldest record that the API returned is from %s", span, runs, audit.Time(b.Oldest))
}

// done is the part of what was missing or waiting that has been read, 0 to 1, where pages come
// newest first; reached is 0 before the first.
func (b backfilled) done(reached int64) float64 {
	if reached == 0 {
		return 0
	}
	var read, all int64
	for _, s := range slices.Concat(b.plan.Parts, b.plan.Waiting) {
		all += s.Seconds()
		read += max(0, s.Lte-max(s.Gte, reached)+1)
	}
	return float64(read) / float64(all)
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
