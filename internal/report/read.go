package report

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/storage"

	"example.com/auditlog/internal/state"
	"example.com/auditlog/internal/store"
)

// Options bound what Read reads.
type Options struct {
	Days         int   // reads objects made in so many days
	MaxBytes     int64 // of those, newest first
	TenantEvents bool
	MaxLag       time.Duration // more is not OK
	Progress     func(format string, args ...any)
}

// Read reads the state and the objects under the feed prefix, and changes neither. If no report can
// be made it returns none; an error beside a report names what is missing.
func Read(ctx context.Context, st *store.Store, now time.Time, o Options) (*Report, error) {
	r := &Report{Time: now.UTC()}
	snapshot, err := st.Load(ctx)
	damaged, isDamaged := errors.AsType[*store.Damaged](err)
	switch {
	case isDamaged:
		return nil, fmt.Errorf("state %s is %w; %s", st.StateURL(), err, damaged.Remedy())
	case err != nil:
		return nil, fmt.Errorf("reading state %s: %w", st.StateURL(), store.ReadHint(err, st.StateBucket))
	}
	r.State = readState(st, snapshot, now, o.TenantEvents)
	staged, stagedErr := readStaged(ctx, st, snapshot.State.Staging)
	r.State.Staged = staged
	feed, feedErr := readFeed(ctx, st, now, o)
	r.Feed = feed
	for _, err := range []error{stagedErr, feedErr} {
		if err != nil {
			r.Errors = append(r.Errors, strings.Join(strings.Fields(err.Error()), " ")) // one line
		}
	}
	r.judge(o.MaxLag)
	return r, errors.Join(stagedErr, feedErr)
}

func readState(st *store.Store, snapshot *store.Snapshot, now time.Time, tenantEvents bool) State {
	s := &snapshot.State
	r := State{Object: st.StateURL(), Committed: !snapshot.First(), Stream: emptyStream()}
	if !r.Committed {
		return r
	}
	r.Note, r.Organization = snapshot.Note, s.Organization
	r.LagSeconds = max(0, now.Unix()-s.CollectedTo(tenantEvents))
	r.Stream = newStream(&s.Stream)
	if s.Tenant != nil {
		tenant := newStream(s.Tenant)
		r.Tenant = &tenant
	}
	return r
}

// readStaged looks for the staged object where the next run will; nil if the state names none.
func readStaged(ctx context.Context, st *store.Store, s state.Staging) (*Staged, error) {
	if s.Staged == "" {
		return nil, nil
	}
	r := &Staged{Object: st.StagedURL(s.Staged), PublishesAs: st.FeedURL(s.LastObject)}
	if s.Elsewhere(st.StateBucket) {
		r.Object, r.Now = "gs://"+s.StagedBucket+"/"+s.Staged, StagedElsewhere
		return r, nil
	}
	found, err := st.LookStaged(ctx, s)
	switch {
	case err != nil:
		r.Now = StagedUnknown
		return r, fmt.Errorf("looking for %s: %w", r.Object, store.ReadHint(err, st.StateBucket))
	case found == nil:
		r.Now = StagedPublished
	case s.Stages(found.Generation):
		r.Now, r.Bytes = StagedPending, found.Size
	default:
		r.Now, r.Bytes = StagedRewritten, found.Size
	}
	return r, nil
}

// readFeed lists the objects and reads the recent ones, newest first, so that the bound leaves out
// the oldest. After an error it returns what it has read, unless the listing is incomplete.
func readFeed(ctx context.Context, st *store.Store, now time.Time, o Options) (*Feed, error) {
	f := newFeed(st.FeedURL(st.FeedFolder()), o.Days, now)
	o.Progress("Listing objects")
	defer o.Progress("")
	var recent []store.Object
	for object, err := range st.Objects(ctx) {
		switch {
		case err != nil:
			return nil, fmt.Errorf("listing %s: %w", f.Prefix, store.ReadHint(err, st.Bucket))
		case !object.Collected:
			f.Others++
			f.Other = cmp.Or(f.Other, object.Name)
		case object.Created.Before(f.Since):
			f.Older++
		default:
			recent = append(recent, object)
		}
	}
	slices.SortFunc(recent, func(a, b store.Object) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.Name, a.Name))
	})
	left := o.MaxBytes
	var failed error
	for i, object := range recent {
		shown := &Object{Name: object.Name, Created: object.Created.UTC(), Bytes: object.Size}
		if failed == nil && object.Size <= left {
			o.Progress("Reading objects: %d of %d", i+1, len(recent))
			left -= object.Size
			err := shown.read(ctx, st, object)
			if errors.Is(err, storage.ErrObjectNotExist) {
				continue // the feed has deleted it meanwhile
			}
			failed = err
		} else {
			left = 0 // else smaller ones would be read, with hours missing in between
		}
		f.Objects = append(f.Objects, shown)
	}
	f.finish()
	return f, failed
}

func (o *Object) read(ctx context.Context, st *store.Store, listed store.Object) error {
	for line, err := range st.Lines(ctx, listed) {
		switch {
		case err != nil:
			return err
		case line.Bad:
			o.Bad++
		default:
			o.lines = append(o.lines, line)
		}
	}
	o.Read = true
	return nil
}
