// Package verify compares what the audit log API has with the objects under the feed prefix, record by
// record, over the range that runs have collected; and finds the records for a repair to add.
//
// It promises that memory does not grow with the range, that what cannot be checked is named, and that
// what the feed has deleted is never called missing. It changes nothing itself.
package verify

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/googleapis/gax-go/v2"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/openai"
	"example.com/auditlog/internal/store"
)

// Options say what to check, and how.
type Options struct {
	// From and To limit the range, both ends included; zero: as far as it can be checked.
	From, To     time.Time
	Tenant       bool // TENANT_EVENTS
	AllowDeleted bool // what the feed has deleted is no fault
	PageSize     int
	Concurrency  int                // requests to the API at once; objects are read as many at once
	Overlap      int64              // OVERLAP_SECONDS
	Progress     func(done float64) // called with the part that is read, 0 to 1; may be nil
}

// Verifier reads the API and the bucket.
type Verifier struct {
	api   *openai.Client
	store *store.Store
	o     Options
}

// New returns a Verifier.
func New(api *openai.Client, st *store.Store, o Options) *Verifier {
	return &Verifier{api: api, store: st, o: o}
}

// check is one comparison.
type check struct {
	*Verifier
	snapshot *store.Snapshot
	scope    scope
	pieces   []*piece
	objects  []*object
	spill    *spill
	progress progress
	report   *Report
	missing  map[audit.Identity]query // what no object has, as it was asked for
	complete int64                    // see completeFrom
}

// Check compares what is there. A report comes even where much is wrong; an error means that there is none.
func (v *Verifier) Check(ctx context.Context) (*Report, error) {
	c, err := v.check(ctx)
	if err != nil {
		return nil, err
	}
	return c.report, nil
}

func (v *Verifier) check(ctx context.Context) (*check, error) {
	c := &check{Verifier: v, missing: map[audit.Identity]query{}}
	var err error
	if c.snapshot, err = v.load(ctx); err != nil {
		return nil, err
	}
	if c.scope, err = layOut(&c.snapshot.State, v.o); err != nil {
		return nil, err
	}
	c.report = newReport(c.scope)
	if err := c.read(ctx); err != nil {
		return nil, err
	}
	defer c.spill.remove()
	c.complete = completeFrom(c.objects, &c.snapshot.State)
	if err := c.compare(); err != nil {
		return nil, err
	}
	c.report.judge(v.o.AllowDeleted)
	return c, nil
}

// unpublished means that a run is between its commit and its publication, or has died there.
type unpublished struct{ object string }

func (u *unpublished) Error() string {
	return u.object + " is committed, and not yet published: a run is under way, or the next one publishes it; check again then"
}

// load reads the state. All that it calls collected must be under the feed prefix: for a moment it waits for that.
func (v *Verifier) load(ctx context.Context) (snapshot *store.Snapshot, err error) {
	for range 10 {
		if snapshot, err = v.loadPublished(ctx); !errors.As(err, new(*unpublished)) || gax.Sleep(ctx, time.Second) != nil {
			break
		}
	}
	return snapshot, err
}

func (v *Verifier) loadPublished(ctx context.Context) (*store.Snapshot, error) {
	snapshot, err := v.store.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading state %s: %w", v.store.StateURL(), store.ReadHint(err, v.store.StateBucket))
	}
	if snapshot.First() {
		return nil, fmt.Errorf("there is no state %s yet: no run has collected anything", v.store.StateURL())
	}
	staging := snapshot.State.Staging
	if staging.Staged == "" {
		return snapshot, nil
	}
	if staging.Elsewhere(v.store.StateBucket) {
		return nil, fmt.Errorf("the state names a staged object in bucket %q, and STATE_BUCKET is %q", staging.StagedBucket, v.store.StateBucket)
	}
	found, err := v.store.LookStaged(ctx, staging)
	switch {
	case err != nil:
		return nil, fmt.Errorf("looking for %s: %w", v.store.StagedURL(staging.Staged), store.ReadHint(err, v.store.StateBucket))
	case found != nil && staging.Stages(found.Generation):
		return nil, &unpublished{v.store.StagedURL(staging.Staged)}
	}
	return snapshot, nil
}

// read reads both sides at the same time.
func (c *check) read(ctx context.Context) (err error) {
	if c.objects, err = c.list(ctx); err != nil {
		return err
	}
	if c.spill, err = newSpill(); err != nil {
		return err
	}
	c.pieces = c.scope.pieces()
	c.progress.begin(c.pieces, c.objects, c.o.Progress)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var both sync.WaitGroup
	var apiErr, feedErr error
	both.Go(func() {
		if apiErr = each(ctx, c.o.Concurrency, c.pieces, c.readPiece); apiErr != nil {
			cancel()
		}
	})
	both.Go(func() {
		if feedErr = each(ctx, c.o.Concurrency, c.objects, c.readObject); feedErr != nil {
			cancel()
		}
	})
	both.Wait()
	if err := firstOf(apiErr, feedErr); err != nil {
		c.spill.remove()
		return err
	}
	return nil
}

// firstOf returns the error that has ended the other reading, not the one that says so.
func firstOf(a, b error) error {
	if a == nil || b != nil && errors.Is(a, context.Canceled) {
		return b
	}
	return a
}

// each calls f for every item, n at a time, until one fails.
func each[T any](ctx context.Context, n int, items []T, f func(context.Context, T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan T)
	var workers sync.WaitGroup
	for range n {
		workers.Go(func() {
			for item := range next {
				if err := f(ctx, item); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, item := range items {
		select {
		case next <- item:
		case <-ctx.Done():
		}
	}
	close(next)
	workers.Wait()
	return context.Cause(ctx)
}

// progress is how much of both sides is read.
type progress struct {
	mu             sync.Mutex
	seconds, bytes amount
	shown          float64
	show           func(done float64)
}

type amount struct{ read, all int64 }

func (a amount) part() float64 { return min(1, float64(a.read+1)/float64(a.all+1)) }

func (p *progress) begin(pieces []*piece, objects []*object, show func(float64)) {
	for _, piece := range pieces {
		p.seconds.all += piece.Seconds()
	}
	for _, o := range objects {
		if !o.old {
			p.bytes.all += o.Size
		}
	}
	p.show = show
}

// add notes seconds read from the API, and bytes from the bucket. The slower side decides when all is done.
func (p *progress) add(seconds, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seconds.read += seconds
	p.bytes.read += bytes
	done := min(p.seconds.part(), p.bytes.part())
	if p.show != nil && done > p.shown && (done == 1 || done >= p.shown+0.001) {
		p.shown = done
		p.show(done)
	}
}
