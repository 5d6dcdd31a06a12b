package auditlog

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// pageAnswer is what has become of a request for a page.
type pageAnswer struct {
	s    *reading
	w    *part
	q    query
	p    page
	buf  *bytes.Buffer // that holds p's records
	err  error
	took time.Duration
}

// attempt is a request that failed and is sent again.
type attempt struct {
	err  error
	wait time.Duration
}

// plan lays out the windows of the streams, without those set aside.
func (r *run) plan(state snapshot, aside map[place]bool) []*reading {
	var before *Stream
	if state.generation != 0 {
		before = &state.Stream
	}
	streams := []*reading{plan(before, r.started, r.cfg.Overlap, r.cfg.Lookback*3600, r.cfg.filter)}
	if r.cfg.TenantEvents {
		tenant := plan(state.Tenant, r.started, r.cfg.Overlap, r.cfg.Lookback*3600, r.cfg.filter)
		tenant.tenant = true
		streams = append(streams, tenant)
	}
	for _, s := range streams {
		for _, w := range s.windows {
			w.place.tenant = s.tenant
			w.aside = aside[w.place]
		}
	}
	return streams
}

// gather reads the streams into a staged object, and returns what stopped it.
//
// Where the pages of a window contradict each other, what has been written may
// hold records twice: that window is set aside, and all others are read anew.
func (r *run) gather(whole, reading context.Context, state snapshot) (streams []*reading, object *stagedObject, stopped error) {
	aside := map[place]bool{}
	var why []error
	for {
		streams, object = r.plan(state, aside), r.stage(whole, r.started)
		stopped = r.read(reading, streams, object)
		var bad *inconsistent
		if !errors.As(stopped, &bad) {
			if len(why) > 0 {
				stopped = joined(append(why, failure(stopped)))
			}
			return streams, object, stopped
		}
		object.abort()
		aside[bad.place] = true
		why = append(why, bad)
		r.sum = Summary{Watermark: r.sum.Watermark, OpenWindows: r.sum.OpenWindows, Pages: r.sum.Pages, Retries: r.sum.Retries, RateLimitWait: r.sum.RateLimitWait}
		r.log.Warn(bad.Error() + ": this window is left for another run, and the others are read again")
	}
}

// read reads the windows side by side, as many as r.width, and writes the records
// not seen before to object. It returns what stopped it, nil when all windows are
// read to their end. The streams take turns, so that none waits for another, and
// what stops one stops no other.
//
// Only requests are sent side by side: whatever is kept of windows and records
// is this goroutine's alone.
func (r *run) read(whole context.Context, streams []*reading, object *stagedObject) error {
	for _, s := range streams {
		s.ctx, s.stop = context.WithCancel(whole)
		defer s.stop()
	}
	answers, attempts := make(chan pageAnswer), make(chan attempt)
	var buffers []*bytes.Buffer // that no request uses
	busy := 0                   // requests under way
	for {
		for busy < r.width {
			s, w := r.turn(streams)
			if w == nil {
				break
			}
			if !w.begun {
				w.begun = true
				r.log.Info(fmt.Sprintf("Fetching %s from %s to %s", s.what(), rfc3339(w.Gte), rfc3339(w.Lte)))
			}
			if len(buffers) == 0 {
				buffers = append(buffers, new(bytes.Buffer))
			}
			f := pageAnswer{s: s, w: w, buf: buffers[len(buffers)-1]}
			f.q = query{w.Gte, w.Lte, w.After, min(r.limit, r.room(s)), s.tenant, w.Filter}
			buffers = buffers[:len(buffers)-1]
			w.busy = true
			busy++
			s.requested++
			s.busy++
			s.asked += f.q.limit
			go func() {
				began := time.Now()
				f.p, f.err = r.api.page(s.ctx, f.q, f.buf, func(err error, wait time.Duration) { attempts <- attempt{err, wait} })
				f.took = time.Since(began)
				answers <- f
			}()
		}
		if busy == 0 {
			return ended(streams)
		}
		select {
		case a := <-attempts:
			r.retried(a.err, a.wait)
		case f := <-answers:
			busy--
			f.s.busy--
			f.s.asked -= f.q.limit
			f.w.busy = false
			err := r.received(whole, streams, f, object)
			if err == nil && f.err == nil && f.s.stopped == nil {
				// Parts that MAX_RECORDS has no room for would only be left.
				idle := 0
				for _, s := range streams {
					idle += len(s.idle())
				}
				f.s.share(f.w, min(r.width-busy-idle, r.room(f.s)/r.limit-1), r.limit)
			}
			f.s.halt(err)
			if errors.As(err, new(*inconsistent)) {
				for _, s := range streams {
					s.halt(err)
				}
			}
			buffers = append(buffers, f.buf)
		}
	}
}

// turn is the window to ask for a page of next, of the stream that has been asked
// the least; nil where there is none.
func (r *run) turn(streams []*reading) (*reading, *part) {
	var next *reading
	for _, s := range streams {
		switch {
		case s.stopped != nil || len(s.idle()) == 0:
		case r.room(s) <= 0:
			if s.busy == 0 {
				s.halt(errRecordCap)
			}
		case next == nil || s.requested < next.requested:
			next = s
		}
	}
	if next == nil {
		return nil, nil
	}
	return next, next.idle()[0]
}

// room is how many records more may be asked for. Each stream has a MAX_RECORDS of
// its own, so that none uses up another's.
func (r *run) room(s *reading) int { return r.cfg.MaxRecords - s.collected - s.asked }

// halt notes why no more is read. What is wrong counts more than a limit, and
// pages that contradict each other more than anything.
func (s *reading) halt(why error) {
	if failure(s.stopped) == nil && why != nil || errors.As(why, new(*inconsistent)) {
		s.stopped = why
	}
	if failure(s.stopped) != nil {
		s.stop() // its other requests may wait for minutes to try again
	}
}

// ended is what has kept the streams from being read to their end: what is wrong,
// else a limit, else nil.
func ended(streams []*reading) error {
	var failures []error
	var limit error
	for _, s := range streams {
		switch err := s.stopped; {
		case err == errNoTenant:
		case failure(err) == nil:
			limit = cmp.Or(limit, err)
		case s.tenant && (failure(streams[0].stopped) == nil || err.Error() != streams[0].stopped.Error()):
			failures = append(failures, fmt.Errorf("tenant events: %w", err))
		case !s.tenant:
			failures = append(failures, err)
		}
	}
	if len(failures) == 0 {
		return limit
	}
	return joined(failures)
}

// what names the stream's records.
func (s *reading) what() string {
	if s.tenant {
		return "tenant-scoped audit logs"
	}
	return "audit logs"
}

// received takes an answer. It returns what stops the run because of it.
func (r *run) received(ctx context.Context, streams []*reading, f pageAnswer, object *stagedObject) error {
	s, w, err := f.s, f.w, f.err
	r.pace(f)
	switch {
	case err == nil:
	case errors.Is(err, errPageTooLarge) && f.q.limit > 1:
		r.limit = min(r.limit, f.q.limit/2)
		r.log.Warn(fmt.Sprintf("%s: asking for %d records a page", err, r.limit))
		return nil
	case cursorRefused(err, f.q) && !w.restarted:
		w.restarted, w.loop = true, loopDetector{}
		if s.restart(w) {
			r.log.Warn("The API refuses the cursor of a window whose pages did not come newest first: reading it again from its start, records may be repeated", "gte", w.Gte, "lte", w.Lte, "error", err.Error())
		} else {
			r.log.Warn("The API refuses the cursor of a window: reading on from the time reached in it", "gte", w.Gte, "lte", w.Lte, "error", err.Error())
		}
		return nil
	case s.tenant && !s.answered && s.before.LastRun == "" && noTenant(err):
		r.log.Warn("The API has no tenant-scoped events for this key: set TENANT_EVENTS to false, or see to the tenant and the key's role in it", "error", err.Error())
		return errNoTenant
	case ctx.Err() == nil:
		return err
	case err == context.DeadlineExceeded && s.answered:
		return errRunTime // in mid-request, and nothing was wrong so far
	case err == context.DeadlineExceeded:
		return errors.New("audit log API gave no answer before the deadline: is RUN_TIMEOUT_SECONDS, or the service's request timeout, too short?")
	case ctx.Err() == context.Canceled:
		return errors.New("run was interrupted: the host is shutting down, or whoever triggered it has gone")
	default:
		return err
	}
	if err := r.sameOrganization(f.p.organization); err != nil {
		return err
	}
	if s.first && !f.p.date.IsZero() && f.p.date.Unix() < s.begin {
		return fmt.Errorf("this host's clock is fast: by the API's it is %s, before the first run's window begins", f.p.date.UTC().Format(time.RFC3339))
	}
	if w.loop.closes(f.p.cursor) {
		return &inconsistent{w.place, fmt.Sprintf("audit log API pages in circles: its cursor comes back to where it was, in %s from %s to %s", s.what(), rfc3339(w.Gte), rfc3339(w.Lte))}
	}
	if err := r.collect(streams, s, w, f.p, object); err != nil {
		return err
	}
	if !w.fresh {
		r.sum.Oldest = earlier(r.sum.Oldest, w.oldest)
		if w.done {
			r.log.Info("Read a window of the backlog to its end: "+reached(w), "gte", w.Gte, "lte", w.Lte)
		}
	}
	return nil
}

// reached says how far back the API has answered.
func reached(w *part) string {
	if w.oldest == 0 {
		return "the API has no record from " + rfc3339(w.Gte) + " to " + rfc3339(w.Lte)
	}
	return "the API's oldest record since " + rfc3339(w.Gte) + " is of " + rfc3339(w.oldest)
}

// pace sets how many requests are sent at once: fewer where answers are much
// slower than the fastest one, since then they wait for each other; more again, up
// to FETCH_CONCURRENCY, as long as they are not. A 429 halves it; see retried.
func (r *run) pace(f pageAnswer) {
	if f.err != nil {
		return
	}
	if r.fastest == 0 || f.took < r.fastest {
		r.fastest = f.took
	}
	switch r.good++; {
	case f.took > 4*r.fastest && f.took > time.Second:
		r.width, r.good = max(1, r.width-1), 0
	case r.good >= 2*r.width && r.width < r.cfg.Concurrency:
		r.width, r.good = r.width+1, 0
	}
}

// inconsistent is what pages of a window show that contradict each other, or those
// of another stream: what has been read may hold records twice.
type inconsistent struct {
	place
	text string
}

func (e *inconsistent) Error() string { return e.text }

// noTenant reports whether err is how the API answers for an organization
// without a tenant.
func noTenant(err error) bool {
	var e *apiError
	return errors.As(err, &e) && (e.status == http.StatusBadRequest || e.status == http.StatusForbidden)
}

// collect writes a page's new records and moves the window on.
func (r *run) collect(streams []*reading, s *reading, w *part, p page, object *stagedObject) error {
	for _, rec := range p.records {
		if s.seen(rec) {
			r.sum.Skipped++
			continue
		}
		for _, other := range streams {
			if other != s && other.seen(rec) {
				return &inconsistent{place{tenant: true}, "audit log API brings the same records with tenant_only and without: does a proxy on the way drop it?"}
			}
		}
		if err := object.write(rec.raw); err != nil {
			return fmt.Errorf("writing %s: %w", r.stagedURL(object.name), err)
		}
		if n := len(object.line); n > feedLineLimit {
			r.log.Warn("A record is longer than the feed takes in one line (4 MB): SecOps will refuse its object", "id", rec.id, "bytes", n)
		}
		if late := s.lateness(w, rec); late > 0 {
			r.sum.Late++
			r.sum.MaxLateness = max(r.sum.MaxLateness, late)
		}
		s.meet(w, rec)
		s.collected++
		r.sum.Records++
	}
	s.take(w, p)
	if n := len(p.records); n > 0 {
		r.sum.Reached = p.records[n-1].at
	}
	r.sum.Pages++
	r.sum.Bytes = object.size
	r.log.Info(fmt.Sprintf("Page %d: Retrieved %d events", r.sum.Pages, len(p.records)))
	if r.Progress != nil {
		r.Progress(r.sum)
	}
	return nil
}

// sameOrganization refuses a key of another organization than the state's: two
// must not share a watermark.
func (r *run) sameOrganization(name string) error {
	switch {
	case name == "" || name == r.organization:
		return nil
	case r.organization == "":
		r.organization = name
		return nil
	}
	return fmt.Errorf("OPENAI_ADMIN_KEY belongs to organization %q, but state %s to %q: give each organization a STATE_KEY and GCS_PREFIX of its own; if it was renamed, remove \"organization\" from the state object",
		shorten(name), r.stateURL(), shorten(r.organization))
}

// retried logs a failed attempt.
func (r *run) retried(err error, wait time.Duration) {
	r.sum.Retries++
	var e *apiError
	if errors.As(err, &e) && e.status == http.StatusTooManyRequests {
		r.sum.RateLimitWait += wait
		r.width, r.good = max(1, r.width/2), 0
		r.log.Warn(fmt.Sprintf("Rate limited (429). Retrying after %ss...", strconv.FormatFloat(seconds(wait), 'f', -1, 64)))
		return
	}
	r.log.Warn(fmt.Sprintf("%s. Retrying after %ss...", err, strconv.FormatFloat(seconds(wait), 'f', -1, 64)))
}

// loopDetector tells whether a series of cursors comes back to one that it had,
// in constant memory (Brent's algorithm).
type loopDetector struct {
	mark         string
	steps, power int
}

func (d *loopDetector) closes(cursor string) bool {
	if cursor != "" && cursor == d.mark {
		return true
	}
	if d.steps++; d.steps > d.power {
		d.mark, d.steps, d.power = cursor, 0, 2*d.power+1
	}
	return false
}
