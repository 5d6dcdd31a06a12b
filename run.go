package auditlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path"
	"slices"
	"strings"
	"time"
)

// Summary holds a run's figures: those of its last log entry.
type Summary struct {
	Records       int           // new records, written
	Skipped       int           // records that had been collected before
	Late          int           // new records older than what the run before had covered
	MaxLateness   int64         // of those, in seconds: OVERLAP_SECONDS should be well above it
	Pages         int           // good answers of the API
	Retries       int           // requests sent again
	RateLimitWait time.Duration // waited because the API asked to (429)
	Bytes         int64         // of the object written
	Object        string        // gs:// URL of it, "" when there is none
	OpenWindows   int           // windows of the backlog, for the next runs
	Watermark     int64         // last_effective_at, Unix seconds
	Lag           int64         // seconds since the oldest moment that may hold uncollected records
	Duration      time.Duration

	// For who watches; not in the log. Unix seconds.
	Reached int64 // effective_at of the last record read
	Oldest  int64 // of the oldest record of the backlog that was read, 0 for none
}

// LogValue gives the figures as a group, times in seconds.
func (s Summary) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Int("records", s.Records),
		slog.Int("skipped", s.Skipped),
		slog.Int("late", s.Late),
		slog.Int64("max_lateness_seconds", s.MaxLateness),
		slog.Int("pages", s.Pages),
		slog.Int("retries", s.Retries),
		slog.Float64("rate_limit_wait_seconds", seconds(s.RateLimitWait)),
		slog.Int64("bytes", s.Bytes),
		slog.String("object", s.Object),
		slog.Int("open_windows", s.OpenWindows),
		slog.Int64("watermark", s.Watermark),
		slog.Int64("lag_seconds", s.Lag),
		slog.Float64("duration_seconds", seconds(s.Duration)),
	)
}

func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }

// run is one run under way.
type run struct {
	*Collector
	log          *slog.Logger
	started      time.Time
	sum          Summary
	collectedTo  int64 // Unix seconds: all before it is collected
	organization string
	committed    time.Time // by the bucket's clock
	looked       bool      // for a staged object; see tidy
	limit        int       // records a page, below PAGE_SIZE once a page was too large

	// How many requests are sent at once; see pace.
	width   int
	good    int           // answers since width was set
	fastest time.Duration // of the answers
}

func (c *Collector) newRun(log *slog.Logger) *run {
	if c.cfg.stateInFeed() {
		log.Warn("STATE_KEY lies under GCS_PREFIX, where the feed ingests it and may delete it: set it to a name outside, and move the object there",
			"state_key", c.cfg.StateKey, "gcs_prefix", c.cfg.Prefix)
	}
	return &run{Collector: c, log: log, started: time.Now(), limit: c.cfg.PageSize, width: c.cfg.Concurrency}
}

// end logs the run's figures.
func (r *run) end(err error) Summary {
	now := time.Now()
	r.sum.Duration = now.Sub(r.started)
	if r.committed.IsZero() { // what was read does not count
		r.sum.Records, r.sum.Bytes, r.sum.Late, r.sum.MaxLateness = 0, 0, 0, 0
	}
	if r.collectedTo > 0 {
		r.sum.Lag = max(0, now.Unix()-r.collectedTo)
	}
	if err != nil {
		r.log.Error("Run failed: "+strings.ReplaceAll(err.Error(), "\n", "; "), "run", r.sum)
	} else {
		r.log.Info("Run ended", "run", r.sum)
	}
	return r.sum
}

func (r *run) load(ctx context.Context) (snapshot, error) {
	state, err := r.Collector.load(ctx)
	if err != nil {
		return snapshot{}, err
	}
	if state.note != "" {
		r.log.Warn(state.note)
	}
	r.organization = state.Organization
	r.stands(state.State)
	return state, nil
}

// stands notes what the figures are with this state.
func (r *run) stands(s State) {
	r.sum.OpenWindows, r.sum.Watermark, r.collectedTo = 0, s.Watermark, s.collectedTo()
	for _, stream := range s.counted(r.cfg.TenantEvents) {
		r.sum.OpenWindows += len(stream.Backlog)
		r.collectedTo = min(r.collectedTo, stream.collectedTo())
	}
}

// recover publishes what the loaded state names as staged, if nobody has.
// Until that is done the run must not commit: a state that no longer names an
// unpublished object would lose it.
func (r *run) recover(ctx context.Context, state *snapshot) error {
	if state.Staged == "" {
		return nil
	}
	if b := state.StagedBucket; b != "" && b != r.cfg.StateBucket {
		return fmt.Errorf("state %s names %s as staged in bucket %q, but STATE_BUCKET is now %q: set it back for one run, or move the object to the same name in the new bucket, and in the state change \"staged_bucket\" and remove \"staged_generation\"", r.stateURL(), state.Staged, b, r.cfg.StateBucket)
	}
	r.looked = true
	found, err := r.staged(ctx, state.State)
	if err != nil {
		return err
	}
	switch {
	case found == 0: // published
	case !state.stages(found):
		kept, err := r.keep(ctx, state.State, found)
		if err != nil {
			return err
		}
		if kept != "" {
			r.log.Warn(fmt.Sprintf("The staged object was written again after its commit, and is kept as %s: if SecOps has not had its records, move it to %s", r.stagedURL(kept), r.logURL(state.LastObject)),
				"generation", found, "staged_generation", state.StagedGeneration)
		}
	default:
		// The feed reads where the settings say now.
		final, err := r.Collector.publish(ctx, state.State, r.cfg.Prefix+"/"+path.Base(state.LastObject))
		if err != nil {
			return err
		}
		if final != "" {
			r.log.Info("Published what an earlier run had left staged: "+r.logURL(final), "staged", r.stagedURL(state.Staged))
			state.LastObject = final
		}
	}
	state.Staged, state.StagedGeneration, state.StagedBucket = "", 0, ""
	return nil
}

// Why a run has stopped reading though nothing is wrong.
var (
	errRecordCap = errors.New("MAX_RECORDS is reached")
	errRunTime   = errors.New("RUN_TIMEOUT_SECONDS is nearly over")
	errNoTenant  = errors.New("there are no tenant-scoped events")
)

// failure is what stopped a run, where that is an error.
func failure(stopped error) error {
	switch stopped {
	case errRecordCap, errRunTime, errNoTenant:
		return nil
	}
	return stopped
}

// joined is one error for several, nil for none.
func joined(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// answered reports whether there is anything to commit.
func answered(streams []*reading) bool {
	return slices.ContainsFunc(streams, func(s *reading) bool { return s.answered })
}

// next is the state that follows from what has been read.
func (r *run) next(state State, streams []*reading) State {
	state.Organization = r.organization
	for _, s := range streams {
		if s.tenant {
			state.Tenant = s.next(r.started)
		} else {
			state.Stream = *s.next(r.started)
		}
	}
	return state
}

// commit makes what has been read count.
func (r *run) commit(ctx context.Context, old snapshot, next State) (err error) {
	if r.committed, err = r.Collector.commit(ctx, old, next); err != nil {
		return err
	}
	r.stands(next)
	r.log.Info(fmt.Sprintf("Saved state: last_effective_at=%d", next.Watermark))
	switch { // once, where both streams have new ones
	case old.generation != 0 && old.Filter != next.Filter:
		r.noteFilter(old.Filter, next.Filter)
	case old.Tenant != nil && next.Tenant != nil && old.Tenant.Filter != next.Tenant.Filter:
		r.noteFilter(old.Tenant.Filter, next.Tenant.Filter)
	}
	return nil
}

func (r *run) noteFilter(from, to filter) {
	r.log.Warn(fmt.Sprintf("The filters have changed: what they leave out, before and from now on, is not collected by itself; auditlog backfill collects it (README, Filters). They were: %s; they are: %s", from, to))
}

// yield ends a run that another one got ahead of. What it staged can never be
// committed: the state that it would have replaced is gone.
func (r *run) yield(ctx context.Context, object *stagedObject) {
	r.log.Info("Another run got ahead of this one and has collected instead of it")
	if object.empty() {
		return
	}
	if err := r.deleteStaged(ctx, object.name); err != nil {
		r.log.Warn("A staged object is left for a later run to remove: "+err.Error(), "staged", object.name)
	}
}

// publish makes what has been committed part of the feed, and ends the run's
// work. stopped is why it did not read everything, nil where it did.
func (r *run) publish(ctx context.Context, committed State, stopped error) error {
	if committed.Staged == "" {
		r.log.Info("No new audit log records found.")
	} else {
		final, err := r.Collector.publish(ctx, committed, committed.LastObject)
		if err != nil {
			return fmt.Errorf("%w; the records are committed, and the next run publishes them", err)
		}
		if final == "" {
			final = committed.LastObject // by another instance
		}
		r.sum.Object = r.logURL(final)
		r.log.Info(fmt.Sprintf("Wrote %d records to %s", r.sum.Records, r.sum.Object))
		r.log.Info(fmt.Sprintf("Successfully processed %d records", r.sum.Records))
	}
	if n := r.sum.OpenWindows; n > 0 {
		advice := ""
		if failure(stopped) == nil {
			advice = ". Where that goes on, raise MAX_RECORDS or RUN_TIMEOUT_SECONDS, or run more often"
		}
		r.log.Warn(fmt.Sprintf("Windows left for the next runs: %d (%v)%s", n, stopped, advice))
	}
	return nil
}

// tidy sweeps old staged objects away. Where it fails it only says so. A run
// that has had to look for a staged object and has none of its own leaves it to
// the next one: two reads of the bucket are enough for a run without news.
func (r *run) tidy(ctx context.Context, named string) {
	if r.looked && named == "" {
		return
	}
	n, err := r.sweep(ctx, named, r.committed)
	if n > 0 {
		r.log.Info(fmt.Sprintf("Removed %d staged objects that earlier runs had left uncommitted", n))
	}
	if err != nil {
		r.log.Warn("Old staged objects could not be removed: " + err.Error())
	}
}

func rfc3339(unix int64) string { return time.Unix(unix, 0).UTC().Format(time.RFC3339) }
