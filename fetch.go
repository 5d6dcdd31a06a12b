package auditlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/openai"
	"example.com/auditlog/internal/plan"
	"example.com/auditlog/internal/store"
)

// pageBytes is room for a page of 100 ordinary records. A larger one makes it grow.
const pageBytes = 256 << 10

// feedLineLimit is the longest line, in bytes, that a SecOps feed accepts.
const feedLineLimit = 4 << 20

// fetch reads what the plan asks for into a staged object. It returns only errors of that object:
// the plan keeps those of the API.
//
// Where pages contradict each other, the object may hold records twice. Then fetch starts over,
// with a new object and a plan without that window.
func (r *run) fetch(whole, reading context.Context, p *plan.Plan) (*plan.Plan, *store.Staged, error) {
	end, _ := reading.Deadline()
	r.patience = (time.Until(end) / 3).Round(time.Millisecond) // one that hangs leaves time for the others
	r.comparing = min(compareTimeout, r.patience)
	for {
		staged := r.stage(whole)
		err := r.fetchSegments(reading, p, staged)
		next, note := p.StartOver()
		if err != nil || next == nil {
			return p, staged, err
		}
		staged.Abort()
		r.note(note)
		r.sum.Figures, r.sum.Bytes = next.Figures(), 0
		p = next
	}
}

type request struct {
	plan.Request
	cancel   context.CancelFunc
	buf      *bytes.Buffer // holds the page's records
	retrying bool          // it has failed before

	comparing time.Duration // the longest wait for others; less if it has been too long

	// Set by the answer:
	page   audit.Page
	others *audit.Page // the answer without tenant_only, where one was requested
	err    error
	took   time.Duration
	memory int // of its pages, in bytes
}

// retry is a request that failed and is sent again.
type retry struct {
	*request
	err  error
	wait time.Duration
}

// fetchSegments sends as many requests in parallel as the pace allows, and writes the new records. It ends
// when the plan wants nothing more, or at once when a write fails.
//
// Only the requests run in parallel: nothing but this goroutine uses the plan and the staged object.
func (r *run) fetchSegments(ctx context.Context, p *plan.Plan, staged *store.Staged) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	answers, retries := make(chan *request), make(chan retry)
	underWay := map[int]*request{} // by id
	retrying := 0                  // of those, sent more than once
	var free []*bytes.Buffer
	var failed error
	for {
		// A stream with no request under way need not wait for failing requests of the other.
		for failed == nil && (len(underWay) < r.pace.width || retrying == len(underWay)) {
			want, ok := p.Next(len(underWay) >= r.pace.width)
			if !ok {
				break
			}
			if want.First {
				r.log.Info(fmt.Sprintf("Fetching %s from %s to %s", want.What(), audit.Time(want.Gte), audit.Time(want.Lte)))
			}
			if len(free) == 0 {
				free = append(free, bytes.NewBuffer(make([]byte, 0, pageBytes)))
			}
			last := len(free) - 1
			q := &request{Request: want, buf: free[last], comparing: r.comparing}
			free = slices.Delete(free, last, len(free))
			underWay[q.ID] = q
			requestCtx, cancel := context.WithCancel(ctx)
			q.cancel = cancel
			go func() {
				defer cancel()
				r.send(requestCtx, q, func(err error, wait time.Duration) { retries <- retry{q, err, wait} })
				answers <- q
			}()
		}
		if len(underWay) == 0 {
			for _, n := range p.Finish() {
				r.note(n)
			}
			return failed
		}
		select {
		case again := <-retries:
			r.retried(again.err, again.wait)
			if !again.retrying {
				again.retrying = true
				retrying++
			}
		case q := <-answers:
			delete(underWay, q.ID)
			r.pace.holds(q.memory)
			if q.retrying {
				retrying--
			}
			if failed == nil {
				var cancel []int
				if cancel, failed = r.take(ctx, p, q, staged, len(underWay)); failed != nil {
					stop() // the answers to come can no longer be committed
				}
				for _, id := range cancel {
					underWay[id].cancel()
				}
			}
			free = r.pace.keep(append(free, q.buf), len(underWay))
		}
	}
}

// compareTimeout is how long tenant-scoped records wait for those they are compared with: a slow
// comparison must not hold them up. Each one that is not answered in time halves it for the run.
const compareTimeout = 45 * time.Second

func (r *run) send(ctx context.Context, q *request, retried openai.Retried) {
	began := time.Now()
	q.page, q.err = r.api.Within(r.patience).Page(ctx, q.Request.Request, q.buf, retried)
	q.memory = q.buf.Cap()
	if q.err == nil && q.Compare && len(q.page.Records) > 0 {
		r.compare(ctx, q, retried)
		q.err = ctx.Err() // a comparison that fails is no error, unless ctx has ended
	}
	q.took = time.Since(began)
}

// compare asks for the second of the page's first record without tenant_only: no more, since the API
// may be unable to serve another.
func (r *run) compare(ctx context.Context, q *request, retried openai.Retried) {
	ctx, cancel := context.WithTimeoutCause(ctx, q.comparing, fmt.Errorf("no answer within %s", q.comparing))
	defer cancel()
	at := q.page.Records[0].At
	others := q.Request.Request
	others.Tenant, others.Gte, others.Lte, others.After = false, at, at, ""
	var buf bytes.Buffer
	for others.Limit = openai.MaxPageSize; ; others.Limit /= 2 { // room for what has appeared meanwhile
		page, err := r.api.Page(ctx, others, &buf, retried)
		q.memory = q.buf.Cap() + buf.Cap()
		if err == nil {
			q.others = &page
			return
		}
		if failureOf(ctx, err).Kind != audit.PageTooLarge || others.Limit == 1 {
			if q.NotCompared = err; ctx.Err() != nil {
				q.comparing /= 2
			}
			return
		}
	}
}

// take gives an answer to the plan and acts on the outcome: it writes the new records, and returns
// the requests that are no longer needed.
func (r *run) take(ctx context.Context, p *plan.Plan, q *request, staged *store.Staged, underWay int) (cancel []int, err error) {
	var o plan.Outcome
	if q.err != nil {
		o = p.Fail(q.Request, failureOf(ctx, q.err))
	} else {
		r.pace.answered(q.took)
		r.comparing = min(r.comparing, q.comparing)
		o = p.Take(q.Request, q.page, q.others, r.pace.width-underWay)
	}
	if err := r.writeNew(o.New, staged); err != nil {
		return nil, err
	}
	r.sum.Figures, r.sum.Bytes = p.Figures(), staged.Size
	if o.Taken {
		r.log.Info(fmt.Sprintf("Page %d: Retrieved %d events", r.sum.Pages, len(q.page.Records)))
		if r.Progress != nil {
			r.Progress(r.sum)
		}
	}
	for _, n := range o.Notes {
		r.note(n)
	}
	return o.Cancel, nil
}

// failureOf returns what an error means for the plan; ctx bounds all reading.
func failureOf(ctx context.Context, err error) *audit.Failure {
	var f *audit.Failure
	switch {
	case errors.As(err, &f) && f.Kind != audit.Other:
		return f
	case ctx.Err() != nil && err == context.DeadlineExceeded: // during a request, with nothing wrong so far
		return &audit.Failure{Kind: audit.OutOfTime, Err: err}
	case ctx.Err() == context.Canceled:
		return &audit.Failure{Kind: audit.Interrupted, Err: err}
	}
	return &audit.Failure{Kind: audit.Other, Err: err}
}

func (r *run) writeNew(records []audit.Record, staged *store.Staged) error {
	for _, rec := range records {
		n, err := staged.Write(rec.Line)
		if err != nil {
			return err
		}
		if n > feedLineLimit {
			r.log.Warn("A record is longer than the feed takes in one line (4 MB): SecOps will refuse its object", "id", audit.Shorten(rec.ID), "bytes", n)
		}
	}
	return nil
}

func (r *run) note(n plan.Note) {
	level := map[plan.Severity]slog.Level{plan.Warning: slog.LevelWarn, plan.Error: slog.LevelError}[n.Severity]
	r.log.Log(context.Background(), level, n.Text, n.Attrs...)
}

func (r *run) retried(err error, wait time.Duration) {
	r.sum.Retries++
	text := err.Error()
	var e *openai.Error
	if errors.As(err, &e) && e.Status == http.StatusTooManyRequests {
		r.sum.RateLimitWait += wait
		r.pace.rateLimited()
		text = "Rate limited (429)"
	}
	r.log.Warn(fmt.Sprintf("%s. Retrying after %ss...", text, strconv.FormatFloat(seconds(wait), 'f', -1, 64)))
}

// pace is how many requests are sent in parallel: fewer where answers are much slower than the
// fastest one, since then they wait for each other; more, up to FETCH_CONCURRENCY, where they are
// not. A 429 halves it. Their pages fit into the budget of memory, if each is as large as the largest so far.
type pace struct {
	width, most int
	good        int           // answers since width was set
	fastest     time.Duration // the fastest answer
	budget      int           // bytes
}

// newPace leaves half of GOMEMLIMIT to all but pages.
func newPace(most int) pace {
	budget := 128 << 20
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		budget = int(limit / 2)
	}
	return pace{width: most, most: most, budget: budget}
}

func (p *pace) answered(took time.Duration) {
	if p.fastest == 0 || took < p.fastest {
		p.fastest = took
	}
	switch p.good++; {
	case took > 4*p.fastest && took > time.Second:
		p.width, p.good = max(1, p.width-1), 0
	case p.good >= 2*p.width && p.width < p.most:
		p.width, p.good = p.width+1, 0
	}
}

func (p *pace) rateLimited() { p.width, p.good = max(1, p.width/2), 0 }

// holds notes that a request takes so many bytes.
func (p *pace) holds(bytes int) {
	p.most = max(1, min(p.most, p.budget/max(1, bytes)))
	p.width = min(p.width, p.most)
}

// keep drops free buffers that are not needed beside those of the requests under way.
func (p *pace) keep(free []*bytes.Buffer, underWay int) []*bytes.Buffer {
	needed := max(0, p.width-underWay)
	return slices.Delete(free, min(needed, len(free)), len(free))
}
