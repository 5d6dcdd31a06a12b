package auditlog

import (
	"bytes"
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
	w    *part
	err  error
	wait time.Duration
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
	busy, retrying := 0, 0      // requests under way; of those, sent more than once
	for {
		for {
			// A stream that has none under way need not wait for requests that fail.
			s, w := r.turn(streams, busy >= r.width)
			if w == nil || busy >= r.width && retrying < busy {
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
			compare := s.tenant && !s.apart && f.q.after == ""
			go func() {
				began := time.Now()
				f.p, f.err = r.page(s.ctx, compare, f.q, f.buf, func(err error, wait time.Duration) { attempts <- attempt{w, err, wait} })
				f.took = time.Since(began)
				answers <- f
			}()
		}
		if busy == 0 {
			for _, s := range streams {
				if s.refused != nil && streams[0].answered { // else they share the reason
					r.log.Warn("The API has no tenant-scoped events for this key: "+noTenantRemedy, "error", s.refused.Error())
				}
			}
			return ended(streams)
		}
		select {
		case a := <-attempts:
			r.retried(a.err, a.wait)
			if !a.w.retrying {
				a.w.retrying = true
				retrying++
			}
		case f := <-answers:
			busy--
			f.s.busy--
			if f.w.retrying {
				f.w.retrying = false
				retrying--
			}
			f.s.asked -= f.q.limit
			f.w.busy = false
			err := r.received(whole, streams, f, object)
			if err == nil && f.err == nil && f.s.stopped == nil {
				// Parts that MAX_RECORDS has no room for would only be left.
				idle := 0
				for _, s := range streams {
					if s.stopped == nil && r.room(s) > 0 {
						idle += len(s.idle())
					}
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
	case s.tenant && s.unread() && noTenant(err):
		s.refused = err
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
	s.apart = s.apart || f.p.apart
	if (s.first || s.before.Unread) && !f.p.date.IsZero() && f.p.date.Unix() < s.begin {
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

// collect writes a page's new records and moves the window on.
func (r *run) collect(streams []*reading, s *reading, w *part, p page, object *stagedObject) error {
	for _, rec := range p.records {
		known := s.seen(rec)
		for _, other := range streams {
			if !known && other != s && other.seen(rec) {
				if !other.aside {
					return errTenantOnly
				}
				known = true // it was written as the other's
				s.meet(w, rec)
			}
		}
		if known {
			r.sum.Skipped++
			continue
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
