package auditlog

import (
	"context"
	"errors"
	"fmt"
	"path"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/plan"
	"example.com/auditlog/internal/state"
	"example.com/auditlog/internal/store"
)

// loadState reads the state to build on.
func (c *Collector) loadState(ctx context.Context) (*store.Snapshot, error) {
	snapshot, err := c.store.Load(ctx)
	damaged, isDamaged := errors.AsType[*store.Damaged](err)
	switch {
	case isDamaged:
		return nil, fmt.Errorf("state %s is %w; nothing was collected or changed: %s", c.store.StateURL(), err, damaged.Remedy())
	case err != nil:
		return nil, fmt.Errorf("reading state %s: %w", c.store.StateURL(), store.Hint(err))
	}
	snapshot.State.Adopt()
	return snapshot, nil
}

func (r *run) load(ctx context.Context) (*store.Snapshot, error) {
	snapshot, err := r.loadState(ctx)
	if err != nil {
		return nil, err
	}
	if snapshot.Note != "" {
		r.log.Warn(snapshot.Note)
	}
	r.updateFigures(&snapshot.State)
	r.number = snapshot.NextNumber()
	return snapshot, nil
}

func (r *run) updateFigures(s *state.State) {
	windows := s.Windows(r.cfg.TenantEvents)
	r.sum.OpenWindows, r.sum.Backfills, r.sum.SetAside = windows.Open, windows.Backfill, windows.SetAside
	r.sum.Watermark, r.sum.Overlap = s.Watermark, s.Overlap(r.cfg.TenantEvents)
	r.collectedTo = s.CollectedTo(r.cfg.TenantEvents)
}

// recover publishes the object that the loaded state names as staged, unless that is done. Until
// then the run must not commit: the next state would not name the object, and it would be lost.
func (r *run) recover(ctx context.Context, snapshot *store.Snapshot) (err error) {
	staging := snapshot.State.Staging
	if snapshot.First() {
		return nil
	}
	if staging.Staged != "" && staging.Elsewhere(r.store.StateBucket) {
		return fmt.Errorf("state %s names %s as staged in bucket %q, but STATE_BUCKET is now %q: set it back for one run, or move the object to the same name in the new bucket, and in the state change \"staged_bucket\" and remove \"staged_generation\"",
			r.store.StateURL(), staging.Staged, staging.StagedBucket, r.store.StateBucket)
	}
	var found int64
	found, r.others, err = r.store.FindStaged(ctx, staging)
	switch {
	case err != nil && staging.Staged != "":
		return err
	case err != nil:
		r.warnUnswept(err)
	case found == 0: // published
	case !staging.Stages(found):
		kept, err := r.store.KeepAside(ctx, staging, found)
		if err != nil {
			return err
		}
		if kept != "" {
			r.log.Warn(fmt.Sprintf("The staged object was written again after its commit, and is kept as %s: if SecOps has not had its records, move it to %s", r.store.StagedURL(kept), r.store.FeedURL(staging.LastObject)),
				"generation", found, "staged_generation", staging.StagedGeneration)
		}
	default:
		// GCS_PREFIX may have changed since: the feed reads where it says now.
		final, err := r.store.Publish(ctx, staging, r.store.FeedFolder()+path.Base(staging.LastObject))
		if err != nil {
			return err
		}
		if final != "" {
			r.log.Info("Published what an earlier run had left staged: "+r.store.FeedURL(final), "staged", r.store.StagedURL(staging.Staged))
			if o := snapshot.State.Objects; o != nil && o.Last == staging.LastObject {
				o.Last = final
			}
			staging.LastObject = final
		}
	}
	snapshot.State.Staging = staging.Published()
	return nil
}

func (r *run) stage(ctx context.Context) *store.Staged {
	staged := r.store.Stage(ctx, r.started)
	staged.Number = r.number
	return staged
}

// nameStaged lets the next state name the staged object, and count it.
func (r *run) nameStaged(next *state.State, o *store.Staged, snapshot *store.Snapshot) {
	next.Staging = state.Staging{
		LastObject:       r.store.Final(snapshot.State.LastObject, r.started),
		Staged:           o.Name,
		StagedGeneration: o.Generation,
		StagedBucket:     r.store.StateBucket,
	}
	next.Objects = snapshot.State.CountObject(next.LastObject, snapshot.Written)
}

// commit replaces the state: from then on, what was read counts as collected.
func (r *run) commit(ctx context.Context, old *store.Snapshot, next state.State) (err error) {
	if r.committed, err = r.store.Commit(ctx, old, next); err != nil {
		return err
	}
	r.updateFigures(&next)
	r.log.Info(fmt.Sprintf("Saved state: last_effective_at=%d", next.Watermark))
	switch { // once, where both streams have new ones
	case !old.First() && old.State.Filter != next.Filter:
		r.warnFilterChanged(old.State.Filter, next.Filter)
	case old.State.Tenant != nil && next.Tenant != nil && old.State.Tenant.Filter != next.Tenant.Filter:
		r.warnFilterChanged(old.State.Tenant.Filter, next.Tenant.Filter)
	}
	return nil
}

func (r *run) warnFilterChanged(from, to audit.Filter) {
	r.log.Warn(fmt.Sprintf("The filters have changed: what they leave out, before and from now on, is not collected by itself; auditlog backfill collects it (docs/settings.md, Filters). They were: %s; they are: %s", from, to))
}

// discard removes the staged object of a run that another run has overtaken. It can never be committed: the
// state that it would replace is gone.
func (r *run) discard(ctx context.Context, o *store.Staged) {
	if o.Empty() {
		return
	}
	if err := r.store.DeleteStaged(ctx, o.Name); err != nil {
		r.log.Warn("A staged object is left for a later run to remove: "+err.Error(), "staged", o.Name)
	}
}

// publish makes the committed records part of the feed.
func (r *run) publish(ctx context.Context, committed state.State) error {
	if committed.Staged == "" {
		r.log.Info("No new audit log records found.")
		return nil
	}
	final, err := r.store.Publish(ctx, committed.Staging, committed.LastObject)
	if err != nil {
		return fmt.Errorf("%w; the records are committed, and the next run publishes them", err)
	}
	if final == "" {
		final = committed.LastObject // by another instance
	}
	r.sum.Object = r.store.FeedURL(final)
	r.log.Info(fmt.Sprintf("Wrote %d records to %s", r.sum.Records, r.sum.Object))
	r.log.Info(fmt.Sprintf("Successfully processed %d records", r.sum.Records))
	return nil
}

func (r *run) reportRest(p *plan.Plan) {
	if r.sum.Backfills > 0 {
		r.log.Info(fmt.Sprintf("Backfills go on in the next runs: %s left", audit.Count(r.sum.Backfills, "window")))
	}
	if r.sum.OpenWindows == 0 {
		return
	}
	advice := ""
	if p.Failure() == nil {
		advice = ". Where that goes on, raise MAX_RECORDS or RUN_TIMEOUT_SECONDS, or run more often"
	}
	r.log.Warn(fmt.Sprintf("Windows left for the next runs: %d (%v)%s", r.sum.OpenWindows, p.Stopped(), advice))
}

// sweep removes old staged objects. A failure is only logged.
func (r *run) sweep(ctx context.Context) {
	n, err := r.store.Sweep(ctx, r.others, r.committed)
	if n > 0 {
		r.log.Info(fmt.Sprintf("Removed %d staged objects that earlier runs had left uncommitted", n))
	}
	if err != nil {
		r.warnUnswept(err)
	}
}

func (r *run) warnUnswept(err error) {
	r.log.Warn("Old staged objects could not be removed: " + err.Error())
}
