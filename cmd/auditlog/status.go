package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/spf13/cobra"

	"example.com/auditlog/internal/report"
	"example.com/auditlog/internal/store"
)

func statusCommand() *cobra.Command {
	o := statusOptions{maxBytes: 256 << 20}
	c := &cobra.Command{
		Use:   "status",
		Short: "Show how far the collection is",
		Long: `status reads the state and the objects under the feed prefix, and changes neither.
It begins with a verdict: OK if new records lag by no more than --max-lag. Backfills do not count. Then
it shows what is left to read, the backfills under way, what is set aside, what is covered and the
gaps, the staged object, the newest objects, and the records of each hour as a chart.

Records are counted by reading the objects of the last --days, the newest first, up to --max-bytes in
all. What the feed has deleted after transfer is not counted. --html writes all of it as a page with
plots, and prints only the verdict.

Settings are the function's; OPENAI_ADMIN_KEY is not needed. Reading needs the role Storage Object
Viewer on the bucket. Without a terminal each figure is a line: a name and values, separated by tabs.`,
		Example: `  export GCS_BUCKET=my-bucket STATE_KEY=state/openai-auditlog/state.json
  auditlog status
  auditlog status --max-lag 2h --json | jq .state.lag_seconds
  auditlog status --days 14 --html status.html`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.days < 1 || o.days > 366:
				return fmt.Errorf("invalid argument %q for \"--days\": it must be 1 to 366", strconv.Itoa(o.days))
			case o.maxLag < 0:
				return errors.New("--max-lag must not be negative")
			case o.json && o.html != "":
				return errors.New("--json and --html exclude each other")
			}
			return cobra.NoArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return showStatus(ctx, cmd.OutOrStdout(), o)
		},
	}
	c.Flags().IntVar(&o.days, "days", 3, "read the objects of this many days")
	c.Flags().Var(&o.maxBytes, "max-bytes", "read no more of them than this, such as 500MB or 1GiB")
	c.Flags().DurationVar(&o.maxLag, "max-lag", 0, "the verdict is not OK if new records lag by more, such as 2h or 90m (default: twice INTERVAL_MINUTES, and an hour)")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON object")
	c.Flags().StringVar(&o.html, "html", "", "write a page with plots to this file; - for standard output")
	return c
}

type statusOptions struct {
	days     int
	maxBytes byteSize
	maxLag   time.Duration
	json     bool
	html     string
}

// statusTime bounds the whole: the storage client would try for ever.
const statusTime = 10 * time.Minute

// showStatus shows all that can be read, and returns why the rest cannot, or errLogged if the verdict
// is not OK.
func showStatus(ctx context.Context, stdout io.Writer, o statusOptions) error {
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	cfg, err := loadConfig(withoutKey(env.ToMap(os.Environ())))
	if err != nil {
		return err
	}
	client, err := store.NewClient(ctx)
	if err != nil {
		return err
	}
	st := store.New(client, store.Options{Layout: cfg.Layout(), Step: cfg.StepTimeout()})
	r, err := report.Read(ctx, st, time.Now().Truncate(time.Second), report.Options{
		Days: o.days, MaxBytes: int64(o.maxBytes), TenantEvents: cfg.TenantEvents, MaxLag: cmp.Or(o.maxLag, cfg.MaxLag()), Progress: progress,
	})
	if r == nil {
		return err
	}
	if err := errors.Join(showReport(stdout, r, o), err); err != nil || r.OK {
		return err
	}
	return errLogged // as the verdict
}

func showReport(stdout io.Writer, r *report.Report, o statusOptions) error {
	switch {
	case o.json:
		return printJSON(stdout, r)
	case o.html == "-":
		return report.HTML(stdout, r)
	case o.html != "":
		if err := writePage(o.html, func(w io.Writer) error { return report.HTML(w, r) }); err != nil {
			return err
		}
		_, err := fmt.Fprintf(stdout, "%s\nThe page is in %s.\n", r.Headline(), o.html)
		return err
	}
	if width := columns(stdout); width > 0 {
		return report.Screen(stdout, r, width, colours())
	}
	return report.Plain(stdout, r)
}

// writePage makes the file appear whole, or not at all. Only its owner may read
// it: it tells of what happens in the organization.
func writePage(name string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	err = write(f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// progress shows a line on a terminal, in place of the one before.
func progress(format string, args ...any) {
	if columns(os.Stderr) > 0 {
		fmt.Fprint(os.Stderr, "\r\x1b[K"+fmt.Sprintf(format, args...))
	}
}

// byteSize is a flag for a number of bytes.
type byteSize int64

var byteUnits = []struct {
	suffix string
	bytes  int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
}

func (s *byteSize) Set(text string) error {
	for _, u := range byteUnits {
		if number, ok := strings.CutSuffix(text, u.suffix); ok {
			n, err := strconv.ParseInt(number, 10, 64)
			if err != nil || n < 0 || n > 1<<62/u.bytes {
				break
			}
			*s = byteSize(n * u.bytes)
			return nil
		}
	}
	return errors.New("it must be a number of bytes, such as 1000000, 500MB or 1GiB")
}

func (s *byteSize) String() string {
	for _, u := range slices.Backward(byteUnits[1:4]) {
		if n := int64(*s); n > 0 && n%u.bytes == 0 {
			return fmt.Sprintf("%d%s", n/u.bytes, u.suffix)
		}
	}
	return strconv.FormatInt(int64(*s), 10)
}

func (*byteSize) Type() string { return "size" }
