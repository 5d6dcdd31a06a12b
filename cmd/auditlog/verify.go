package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"example.com/auditlog"
	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/cloudlog"
	"example.com/auditlog/internal/config"
	"example.com/auditlog/internal/openai"
	"example.com/auditlog/internal/store"
	"example.com/auditlog/internal/verify"
)

func verifyCommand() *cobra.Command {
	var o verifyOptions
	var from, to string
	c := &cobra.Command{
		Use:   "verify [--from TIME] [--to TIME]",
		Short: "Compare the feed's folder with the API, record by record",
		Long: `verify reads a range from the API again, and the objects under the feed prefix that
can hold its records, and compares them record by record. It changes nothing.

With --repair it then adds what is missing, and nothing else, as one object, through
the same commit as a run: it is safe beside the deployed function. It refuses where
anything of the range is not checkable, since it could write that again.

TIME is a day (2026-11-01, yesterday, today; UTC; as the end, the day included), a
time (RFC 3339, now) or how long ago (2w, 30d, 12h, 90m). Without --from and --to the range is all that can be
checked: what is collected, up to what the next runs read again.

  missing        the API has it, no object does
  repeated       it is in two places
  altered        a member of the line is not the API's
  damaged        a line that is no record
  not checkable  it is in no object, and the feed has deleted objects
  enriched       the API has added members since; noted, no fault
  foreign        the API no longer has it; noted, no fault

Settings are the function's, OPENAI_ADMIN_KEY included. Reading needs the role
Storage Object Viewer on the bucket, --repair those of the function.`,
		Example: `  auditlog verify --from 8d
  auditlog verify --from 2026-10-01 --to 2026-10-31 --json`,
		Args: func(cmd *cobra.Command, args []string) (err error) {
			for _, end := range []struct {
				name, text string
				at         *time.Time
				last       bool
			}{{"from", from, &o.From, false}, {"to", to, &o.To, true}} {
				if end.text == "" {
					continue
				}
				if *end.at, err = auditlog.ParseTime(end.text, time.Now(), end.last); err != nil {
					return fmt.Errorf("--%s: %w", end.name, err)
				}
			}
			return cobra.NoArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return verifyRange(ctx, cmd.OutOrStdout(), o)
		},
	}
	flags := c.Flags()
	flags.StringVar(&from, "from", "", "where the range begins (default: where what is collected begins)")
	flags.StringVar(&to, "to", "", "where it ends (default: where what the next runs read again begins)")
	flags.BoolVar(&o.AllowDeleted, "allow-deleted", false, "tolerate what cannot be checked since the feed has deleted objects")
	flags.BoolVar(&o.repair, "repair", false, "add what is missing to the feed's folder, as one object")
	flags.BoolVar(&o.json, "json", false, "print one JSON object")
	return c
}

type verifyOptions struct {
	verify.Options
	repair, json bool
}

func verifyRange(ctx context.Context, stdout io.Writer, o verifyOptions) error {
	cfg, err := loadConfig(env.ToMap(os.Environ()))
	if err != nil {
		return err
	}
	log, bar, onTerminal := cloudlog.New(os.Stderr), newBar(io.Discard), columns(os.Stderr) > 0
	if onTerminal {
		log, bar = slog.New(newConsole(os.Stderr)), newBar(os.Stderr)
	}
	o.Progress = func(done float64) { bar.Set(int(done * barSteps)) }
	report, err := o.verify(ctx, cfg, log)
	bar.Clear()
	if report == nil {
		return err
	}
	if !onTerminal { // for alerts on a scheduled check
		level := slog.LevelInfo
		if !report.Right {
			level = slog.LevelError
		}
		log.Log(ctx, level, "Verified: "+report.Verdict, "verify", report)
	}
	if err := errors.Join(err, showVerified(stdout, report, o.json)); err != nil || report.Right {
		return err
	}
	return errLogged // as the verdict
}

// verify checks, and with repair lets a collector add what is missing.
func (o verifyOptions) verify(ctx context.Context, cfg config.Config, log *slog.Logger) (*verify.Report, error) {
	client, err := store.NewClient(ctx)
	if err != nil {
		return nil, err
	}
	transport := openai.NewTransport()
	api := openai.New(openai.Options{Base: cfg.BaseURL, Key: cfg.AdminKey, Agent: "auditlog/" + auditlog.Version, Transport: transport, Backoff: openai.DefaultBackoff})
	o.Tenant, o.PageSize, o.Concurrency, o.Overlap = cfg.TenantEvents, cfg.PageSize, cfg.Concurrency, cfg.Overlap
	v := verify.New(api, store.New(client, store.Options{Layout: cfg.Layout(), Step: cfg.StepTimeout()}), o.Options)
	if !o.repair {
		return v.Check(ctx)
	}
	collector, err := auditlog.New(ctx, cfg, auditlog.Options{Transport: transport, Storage: client})
	if err != nil {
		return nil, err
	}
	return v.Repair(ctx, func(ctx context.Context, snapshot *store.Snapshot, write func(context.Context, *store.Staged) (int, error)) (string, error) {
		sum, err := collector.Add(ctx, log, snapshot, write)
		return sum.Object, err
	})
}

const barSteps = 1000

// newBar returns a bar that shows how much is read, the time that took, and the time that the rest will take.
func newBar(w io.Writer) *progressbar.ProgressBar {
	return progressbar.NewOptions(barSteps,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription("Reading both sides"),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionClearOnFinish(),
	)
}

// showVerified prints what is found, and the verdict as the last line.
func showVerified(w io.Writer, r *verify.Report, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	for _, kind := range r.Kinds() {
		for _, f := range kind.First {
			fmt.Fprintf(w, "%s: %s\n", kind.Name, f)
		}
		if more := kind.Count - len(kind.First); more > 0 {
			fmt.Fprintf(w, "%s: %d more\n", kind.Name, more)
		}
	}
	for _, part := range r.Left {
		fmt.Fprintf(w, "not checked: %s: %s\n", part.Range, part.Why)
	}
	if r.Late > 0 {
		fmt.Fprintf(w, "late: what is missing appeared %d s or more after its time, if it was not taken out of an object: OVERLAP_SECONDS should be more than that\n", r.Late)
	}
	if r.Repaired != nil {
		fmt.Fprintf(w, "repaired: %s, now in %s\n", audit.Count(r.Repaired.Records, "record"), r.Repaired.Object)
	}
	_, err := fmt.Fprintln(w, r.Verdict)
	return err
}
