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

// read reads the windows side by side, as many as r.width, and writes the records
// not seen before to object. It returns what stopped it, nil when all windows are
// read to their end.
//
// Only requests are sent side by side: whatever is kept of windows and records
// is this goroutine's alone.
func (r *run) read(whole context.Context, windows *reading, object *stagedObject) (stopped error) {
	ctx, giveUp := context.WithCancel(whole)
	defer giveUp()
	answers, attempts := make(chan pageAnswer), make(chan attempt)
	var buffers []*bytes.Buffer // that no request uses
	busy, asked := 0, 0         // requests under way, and the records that they ask for
	for {
		idle := windows.idle()
		for stopped == nil && len(idle) > 0 && busy < r.width {
			left := r.cfg.MaxRecords - r.sum.Records - asked
			if left <= 0 {
				if busy == 0 {
					stopped = errRecordCap
				}
				break
			}
			w := idle[0]
			idle = idle[1:]
			if !w.begun {
				w.begun = true
				r.log.Info(fmt.Sprintf("Fetching audit logs from %s to %s", rfc3339(w.Gte), rfc3339(w.Lte)))
			}
			if len(buffers) == 0 {
				buffers = append(buffers, new(bytes.Buffer))
			}
			f := pageAnswer{w: w, q: query{w.Gte, w.Lte, w.After, min(r.limit, left)}, buf: buffers[len(buffers)-1]}
			buffers = buffers[:len(buffers)-1]
			w.busy = true
			busy++
			asked += f.q.limit
			go func() {
				began := time.Now()
				f.p, f.err = r.api.page(ctx, f.q, f.buf, func(err error, wait time.Duration) { attempts <- attempt{err, wait} })
				f.took = time.Since(began)
				answers <- f
			}()
		}
		if busy == 0 {
			return stopped
		}
		select {
		case a := <-attempts:
			r.retried(a.err, a.wait)
		case f := <-answers:
			busy--
			asked -= f.q.limit
			f.w.busy = false
			err := r.received(whole, windows, f, object)
			if err == nil && f.err == nil && stopped == nil {
				// Parts that MAX_RECORDS has no room for would only be left.
				room := (r.cfg.MaxRecords - r.sum.Records - asked) / r.limit
				windows.share(f.w, min(r.width-busy-len(windows.idle()), room-1), r.limit)
			}
			// What is wrong counts more than a deadline, and an answer that puts all
			// others in doubt more than anything.
			if failure(stopped) == nil && err != nil || errors.Is(err, errCursorLoop) {
				stopped = err
			}
			if failure(stopped) != nil {
				giveUp() // the others may wait for minutes to try again
			}
			buffers = append(buffers, f.buf)
		}
	}
}

// received takes an answer. It returns what stops the run because of it.
func (r *run) received(ctx context.Context, windows *reading, f pageAnswer, object *stagedObject) error {
	w, err := f.w, f.err
	r.pace(f)
	switch {
	case err == nil:
	case errors.Is(err, errPageTooLarge) && f.q.limit > 1:
		r.limit = min(r.limit, f.q.limit/2)
		r.log.Warn(fmt.Sprintf("%s: asking for %d records a page", err, r.limit))
		return nil
	case cursorRefused(err, f.q) && !w.restarted:
		w.restarted, w.loop = true, loopDetector{}
		if windows.restart(w) {
			r.log.Warn("The API refuses the cursor of a window whose pages did not come newest first: reading it again from its start, records may be repeated", "gte", w.Gte, "lte", w.Lte, "error", err.Error())
		} else {
			r.log.Warn("The API refuses the cursor of a window: reading on from the time reached in it", "gte", w.Gte, "lte", w.Lte, "error", err.Error())
		}
		return nil
	case ctx.Err() == nil:
		return err
	case err == context.DeadlineExceeded && r.sum.Pages > 0:
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
	if windows.first && !f.p.date.IsZero() && f.p.date.Unix() < windows.begin {
		return fmt.Errorf("this host's clock is fast: by the API's it is %s, before the first run's window begins", f.p.date.UTC().Format(time.RFC3339))
	}
	if w.loop.closes(f.p.cursor) {
		return errCursorLoop
	}
	if err := r.collect(windows, w, f.p, object); err != nil {
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
func (r *run) collect(windows *reading, w *part, p page, object *stagedObject) error {
	for _, rec := range p.records {
		if windows.seen(rec) {
			r.sum.Skipped++
			continue
		}
		if err := object.write(rec.raw); err != nil {
			return fmt.Errorf("writing %s: %w", r.stagedURL(object.name), err)
		}
		if n := len(object.line); n > feedLineLimit {
			r.log.Warn("A record is longer than the feed takes in one line (4 MB): SecOps will refuse its object", "id", rec.id, "bytes", n)
		}
		if late := windows.lateness(w, rec); late > 0 {
			r.sum.Late++
			r.sum.MaxLateness = max(r.sum.MaxLateness, late)
		}
		windows.meet(w, rec)
		r.sum.Records++
	}
	windows.take(w, p)
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
