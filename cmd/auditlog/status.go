package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cloud.google.com/go/storage"
	"github.com/caarlos0/env/v11"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"example.com/auditlog"
	"example.com/auditlog/internal/report"
)

func statusCommand() *cobra.Command {
	o := statusOptions{maxBytes: 256 << 20}
	c := &cobra.Command{
		Use:   "status",
		Short: "Show how the collection stands",
		Long: `status reads the state and the objects under the feed prefix, and changes neither.
It shows the watermark and the lag, the last run, what is covered, the backlog,
the staged object, the newest objects with their records and sizes, and the
records of each hour as a chart. Records are counted by reading the objects of
the last --days, the newest first, up to --max-bytes in all; the page of --html
has the same as plots. What the feed has deleted after transfer is not counted.

Settings are the function's; OPENAI_ADMIN_KEY is not needed. Reading needs the
role Storage Object Viewer on the bucket. Without a terminal the figures come as
lines of a name and values, separated by tabs.

Exit status: 0 when all could be read, however far behind the collection is, and
also where no run has committed yet; 1 when the state is damaged, or something
could not be read; 2 for wrong usage.`,
		Example: `  export GCS_BUCKET=my-bucket STATE_KEY=state/openai-auditlog/state.json
  auditlog status
  auditlog status --json | jq .state.lag_seconds
  auditlog status --days 14 --html status.html`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.days < 1 || o.days > 366 {
				return fmt.Errorf("invalid argument %q for \"--days\": it must be 1 to 366", strconv.Itoa(o.days))
			}
			if o.json && o.html == "-" {
				return errors.New("--json and --html - both want standard output")
			}
			return cobra.NoArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return showStatus(ctx, cmd.OutOrStdout(), o)
		},
	}
	c.Flags().IntVar(&o.days, "days", 3, "read the objects of this many days")
	c.Flags().Var(&o.maxBytes, "max-bytes", "read no more of them than this, such as 500MB or 1GiB")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON object")
	c.Flags().StringVar(&o.html, "html", "", "write a page with plots to this file; - for standard output")
	return c
}

type statusOptions struct {
	days     int
	maxBytes byteSize
	json     bool
	html     string
}

// statusTime bounds the whole: the storage client would try for ever.
const statusTime = 10 * time.Minute

// showStatus shows all that can be read, and returns why the rest cannot.
func showStatus(ctx context.Context, stdout io.Writer, o statusOptions) error {
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	settings := env.ToMap(os.Environ())
	if settings["OPENAI_ADMIN_KEY"] == "" {
		settings["OPENAI_ADMIN_KEY"] = "unused" // the API is not asked
	}
	cfg, err := auditlog.LoadConfig(settings)
	if err != nil {
		return err
	}
	c, err := auditlog.New(ctx, cfg)
	if err != nil {
		return err
	}

	now := time.Now().Truncate(time.Second)
	r := &report.Report{Time: now.UTC()}
	s, stateErr := c.Status(ctx)
	if stateErr != nil && !s.Committed {
		return stateErr
	}
	r.State = reportState(&s, now)
	feed, feedErr := readFeed(ctx, c, s.Prefix, now, o)
	r.Feed = feed
	for _, err := range []error{stateErr, feedErr} {
		if err != nil {
			r.Errors = append(r.Errors, strings.Join(strings.Fields(err.Error()), " ")) // one line
		}
	}
	return errors.Join(showReport(stdout, r, o), stateErr, feedErr)
}

func showReport(stdout io.Writer, r *report.Report, o statusOptions) error {
	switch o.html {
	case "":
	case "-":
		return report.HTML(stdout, r)
	default:
		if err := writePage(o.html, func(w io.Writer) error { return report.HTML(w, r) }); err != nil {
			return err
		}
	}
	if o.json {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	if f, ok := stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return report.Screen(f, r, colours())
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

func reportState(s *auditlog.Status, now time.Time) report.State {
	r := report.State{
		Object:       s.URL,
		Committed:    s.Committed,
		Note:         s.Note,
		Organization: s.Organization,
		Watermark:    s.Watermark,
		LagSeconds:   s.Lag(now),
		High:         s.High,
		RecentIDs:    len(s.RecentIDs),
		Filter:       filterText(&s.Stream),
	}
	if s.Committed {
		r.WatermarkTime = time.Unix(s.Watermark, 0).UTC()
		r.LastRun, _ = time.Parse(time.RFC3339, s.LastRun) // whatever else it is, it is unknown
	}
	covered := []report.Range{}
	for _, c := range s.CoveredRanges() {
		covered = append(covered, report.Range{Gte: c[0], Lte: c[1]})
	}
	r.SetWindows(covered, reportWindows(&s.Stream), now)
	if t := s.Tenant; t != nil {
		r.Tenant = &report.Tenant{
			Watermark:     t.Watermark,
			WatermarkTime: time.Unix(t.Watermark, 0).UTC(),
			Filter:        filterText(t),
			Backlog:       report.NewBacklog(reportWindows(t), now),
			RecentIDs:     len(t.RecentIDs),
		}
		r.Tenant.LastRun, _ = time.Parse(time.RFC3339, t.LastRun)
	}
	if s.StagedNow != auditlog.StagedNone {
		bucket := func(url string) string { return url[:len("gs://")+strings.IndexByte(url[len("gs://"):], '/')+1] }
		staged := bucket(s.URL) + s.Staged
		if s.StagedNow == auditlog.StagedElsewhere {
			staged = "gs://" + s.StagedBucket + "/" + s.Staged
		}
		r.Staged = &report.Staged{
			Object:      staged,
			PublishesAs: bucket(s.Prefix) + s.LastObject,
			Now:         string(s.StagedNow),
			Bytes:       s.StagedSize,
		}
	}
	return r
}

// filterText is "" for none.
func filterText(s *auditlog.Stream) string {
	if s.Filter == "" {
		return ""
	}
	return s.Filter.String()
}

func reportWindows(s *auditlog.Stream) []report.Window {
	windows := []report.Window{}
	for i := range s.Backlog {
		w := &s.Backlog[i]
		windows = append(windows, report.Window{Range: report.Range{Gte: w.Gte, Lte: w.Lte}, LeftTo: w.LeftTo(), Cursor: w.After})
	}
	return windows
}

// readFeed lists the objects and reads the recent ones, the newest first, so
// that the bound leaves out the oldest. What it has read before an error stands,
// but for a listing that is not whole.
func readFeed(ctx context.Context, c *auditlog.Collector, prefix string, now time.Time, o statusOptions) (*report.Feed, error) {
	f := report.NewFeed(prefix, o.days, now)
	defer progress("")
	progress("Listing objects")
	var recent []auditlog.Object
	for object, err := range c.Objects(ctx) {
		switch {
		case err != nil:
			return nil, err
		case !object.Collected:
			f.Others++
			f.Other = cmp.Or(f.Other, object.Name)
		case object.Created.Before(f.Since):
			f.Older++
		default:
			recent = append(recent, object)
		}
	}
	slices.SortFunc(recent, func(a, b auditlog.Object) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.Name, a.Name))
	})
	left := int64(o.maxBytes)
	var failed error
	for i, object := range recent {
		shown := &report.Object{Name: object.Name, Created: object.Created.UTC(), Bytes: object.Size}
		if failed == nil && object.Size <= left {
			progress("Reading objects: %d of %d", i+1, len(recent))
			left -= object.Size
			err := readObject(ctx, c, f, shown, object)
			if errors.Is(err, storage.ErrObjectNotExist) {
				continue // the feed has deleted it meanwhile
			}
			failed = err
		} else {
			left = 0 // else smaller ones would be read, and hours be missing in between
		}
		f.Objects = append(f.Objects, shown)
	}
	f.Finish()
	return f, failed
}

func readObject(ctx context.Context, c *auditlog.Collector, f *report.Feed, shown *report.Object, object auditlog.Object) error {
	for rec, err := range c.Records(ctx, object) {
		switch {
		case err != nil:
			return err
		case rec.Bad:
			shown.Bad++
		default:
			f.AddRecord(shown, rec.At, rec.Type)
		}
	}
	shown.Read = true
	return nil
}

// progress shows a line on a terminal, in place of the one before.
func progress(format string, args ...any) {
	if term.IsTerminal(int(os.Stderr.Fd())) {
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
