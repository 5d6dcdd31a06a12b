// Package plan decides what a run reads, and what follows from it: the next request, which records
// of a page are new, what a failure means, and the state that the run may commit.
//
// It promises that no record is lost and none is written twice, in whatever order pages come and
// whichever request fails, as long as the API pages consistently: the filters bound each window,
// the cursor goes through it once, and ids identify the records that two windows share. A plan owns
// all streams of records: its user does not know how many there are. It is pure: it knows no
// network, no bucket, no log and no clock.
package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

// Settings bound what a plan reads.
type Settings struct {
	Tenant     bool         // read tenant-scoped records, too
	Filter     audit.Filter // of new windows
	MaxRecords int          // of each stream
	PageSize   int          // records a page
	MaxWindows int          // of each stream: with more, none is split
	MaxIDs     int          // bytes that the state may take for remembered records
	Overlap    int64        // seconds that a new window reaches back before the end of what is covered
	Lookback   int64        // seconds that a first one reaches back
}

// Plan is what one run reads. It is not safe for concurrent use.
type Plan struct {
	settings     Settings
	before       *state.State // nil: this is the first run
	now          time.Time
	streams      []*stream // the tenant's last
	pageSize     int       // below the setting once a page was too large
	organization string
	requests     int // handed out so far
	figures      Figures
	page         map[audit.Identity]audit.Record // new records of the page that is being taken

	contradiction *contradiction    // ends this plan
	quarantined   map[windowID]bool // not read in this run, since their pages contradict each other
	reasons       []error           // why they are
}

// Figures count what has been taken. Times are Unix seconds.
type Figures struct {
	Records     int   // new records
	Skipped     int   // records that had been collected before
	Changed     int   // of those, records whose bytes have changed
	Late        int   // new records older than what the previous run had covered
	MaxLateness int64 // of those, in seconds: OVERLAP_SECONDS should be well above it
	Pages       int   // good answers of the API

	Reached int64 // effective_at of the last record read
	Oldest  int64 // of the oldest record of the backlog that was read, 0 for none
}

// Request is a request to send. Its answer goes to Take, its failure to Fail.
type Request struct {
	audit.Request
	ID    int  // among the plan's requests
	First bool // of its window in this run
	// Compare asks for what comes without tenant_only, too.
	Compare bool
	// NotCompared is why that brought no page; its sender sets it.
	NotCompared error

	stream  *stream
	segment *segment
}

// Outcome is what follows from an answer.
type Outcome struct {
	Taken  bool           // the page is taken
	New    []audit.Record // to be written
	Notes  []Note         // to be logged
	Cancel []int          // requests that are no longer needed
}

// Note is a message for the log.
type Note struct {
	Severity Severity
	Text     string
	Attrs    []any // names and values, alternating
}

// Severity is how much a note matters.
type Severity int

const (
	Info Severity = iota
	Warning
	Error
)

// New plans a run at the time now; before is nil for a first run.
func New(before *state.State, settings Settings, now time.Time) *Plan {
	p := &Plan{settings: settings, before: before, now: now, pageSize: settings.PageSize, quarantined: map[windowID]bool{}}
	p.layOut()
	return p
}

// layOut makes the streams, without what is quarantined.
func (p *Plan) layOut() {
	p.page = map[audit.Identity]audit.Record{}
	var main, tenant *state.Stream
	if p.before != nil {
		main, tenant, p.organization = &p.before.Stream, p.before.Tenant, p.before.Organization
	}
	p.streams = []*stream{newStream(false, main, &p.settings, p.now)}
	if p.settings.Tenant {
		p.streams = append(p.streams, newStream(true, tenant, &p.settings, p.now))
	}
	for _, s := range p.streams {
		s.quarantined = p.quarantined[windowID{s.tenant, allWindows}]
		for _, w := range s.segments {
			w.quarantined = s.quarantined || p.quarantined[w.id]
		}
	}
}

// Next returns the request to send next, false if there is none now. It serves the stream with the
// fewest requests so far, so that none waits for another. idleOnly leaves out streams with a
// request under way: a stream with none need not wait for another's failing requests.
func (p *Plan) Next(idleOnly bool) (Request, bool) {
	var next *stream
	for _, s := range p.streams {
		switch {
		case idleOnly && len(s.underWay) > 0:
		case s.stopReason != nil || len(s.ready()) == 0:
		case s.budget() <= 0:
			if len(s.underWay) == 0 {
				s.stop(errRecordCap)
			}
		case next == nil || s.requested < next.requested:
			next = s
		}
	}
	if next == nil {
		return Request{}, false
	}
	p.requests++
	return next.request(p.requests, p.pageSize), true
}

// growth is after how many pages they may have twice as many records again, where one was too large: a
// single large record must not make all others take a request each.
const growth = 8

// Take takes a page. others is the answer without tenant_only, nil for none. idle is the number of
// idle workers: the rest of the segment is split for its share of them.
func (p *Plan) Take(r Request, page audit.Page, others *audit.Page, idle int) Outcome {
	s := r.stream
	s.answer(r)
	if p.contradiction != nil {
		return Outcome{} // all of it is read again
	}
	o, err := p.take(r, page, others)
	if err != nil {
		return Outcome{Cancel: p.stop(s, err)}
	}
	if o.Taken && s.stopReason == nil {
		// No more segments than MAX_RECORDS has room for: the others would be left over.
		for _, other := range p.streams {
			if other.stopReason == nil && other.budget() > 0 {
				idle -= len(other.ready())
			}
		}
		s.split(r.segment, min(idle, s.budget()/p.pageSize-1), p.pageSize)
	}
	return o
}

func (p *Plan) take(r Request, page audit.Page, others *audit.Page) (o Outcome, err error) {
	s, w := r.stream, r.segment
	if err := p.sameOrganization(page.Organization); err != nil {
		return o, err
	}
	if err := s.compare(r, page, others); err != nil {
		return o, err
	}
	if (s.first || s.before.Untouched) && !page.Date.IsZero() && page.Date.Unix() < s.begin {
		return o, fmt.Errorf("this host's clock is fast: by the API's it is %s, before the first run's window begins", page.Date.UTC().Format(time.RFC3339))
	}
	if w.Ignores(page) {
		err := errors.New("audit log API ignores the cursor: the first record of the window comes again")
		again := w.Window
		switch repeats := again.Restart(); {
		case !w.restarted && (!repeats || w.resumed):
			return s.restart(w, err), nil
		case w.Descends(): // the next run tries again
			return o, err
		}
		return o, r.circle()
	}
	if page.More && page.Cursor == r.After {
		return s.setAside(w, fmt.Errorf(`audit log API answered with the cursor %q that it was asked with: it does not advance`, audit.Shorten(page.Cursor))), nil
	}
	if len(page.Records) > 0 && w.loop.closes(page.Cursor) {
		return o, r.circle()
	}
	clear(p.page)
	for _, rec := range page.Records {
		line, known, err := p.known(s, w, rec)
		switch {
		case err != nil:
			return Outcome{}, err
		case known:
			p.figures.Skipped++
			if line != 0 && line != rec.Hash() {
				if p.figures.Changed++; p.figures.Changed == 1 {
					o.Notes = append(o.Notes, Note{Severity: Warning, Text: "A record that has been collected now has other bytes: it is not written again", Attrs: []any{"id", audit.Shorten(rec.ID)}})
				}
			}
			continue
		}
		if late := s.lateness(w, rec); late > 0 {
			p.figures.Late++
			p.figures.MaxLateness = max(p.figures.MaxLateness, late)
		}
		s.remember(w, rec)
		p.page[rec.Identity()] = rec
		s.collected++
		p.figures.Records++
		o.New = append(o.New, rec)
	}
	o.Notes = append(o.Notes, w.hole(page)...)
	if !page.Hollow() {
		s.served(w)
	}
	s.advance(w, page)
	o.Taken = true
	if p.figures.Pages++; p.figures.Pages%growth == 0 {
		p.pageSize = min(2*p.pageSize, p.settings.PageSize)
	}
	if n := len(page.Records); n > 0 {
		p.figures.Reached = page.Records[n-1].At
	}
	if !w.fresh {
		p.figures.Oldest = earlier(p.figures.Oldest, w.oldest)
		if w.done {
			o.Notes = append(o.Notes, Note{Text: "Read a window of the backlog to its end: " + w.oldestReached(), Attrs: []any{"gte", w.Gte, "lte", w.Lte}})
		}
	}
	return o, nil
}

func (r Request) circle() error {
	return &contradiction{r.segment.id, fmt.Sprintf("audit log API pages in circles: its cursor comes back to where it was, in %s from %s to %s", r.What(), audit.Time(r.Gte), audit.Time(r.Lte))}
}

// compare compares a window's first tenant-scoped record with the answer without tenant_only:
// something on the way may drop that.
func (s *stream) compare(r Request, page audit.Page, others *audit.Page) error {
	switch {
	case !r.Compare || len(page.Records) == 0:
		return nil
	case others == nil && s.distinct: // known to be distinct: no comparison needed
		return nil
	case others == nil:
		return fmt.Errorf("tenant-scoped records wait: what comes without tenant_only, which they must be compared with, could not be read: %v", r.NotCompared)
	case slices.ContainsFunc(others.Records, func(o audit.Record) bool { return o.Identity() == page.Records[0].Identity() }):
		return errTenantOnly
	}
	s.distinct = true
	return nil
}

// known reports whether a record has been collected before, and its line then: on this page, by its own
// stream, or by another one. The last must not happen unless this run does not read that other stream.
func (p *Plan) known(s *stream, w *segment, rec audit.Record) (line uint64, known bool, err error) {
	if twin, ok := p.page[rec.Identity()]; ok {
		return twin.Hash(), true, nil
	}
	if line, known = s.known(rec); known {
		return line, true, nil
	}
	for _, other := range p.streams {
		if other == s {
			continue
		}
		if line, known = other.known(rec); !known {
			continue
		}
		if !other.quarantined {
			return 0, false, errTenantOnly
		}
		s.remember(w, rec) // the other stream has written it
		return line, true, nil
	}
	return 0, false, nil
}

// Fail takes a failure.
func (p *Plan) Fail(r Request, f *audit.Failure) Outcome {
	s, w, err := r.stream, r.segment, f.Err
	s.answer(r)
	switch {
	case p.contradiction != nil:
		return Outcome{}
	case f.Kind == audit.PageTooLarge && r.Limit > 1:
		p.pageSize = min(p.pageSize, r.Limit/2)
		return warning(fmt.Sprintf("%s: asking for %d records a page", err, p.pageSize))
	case f.Kind == audit.CursorRefused && !w.restarted:
		return s.restart(w, err)
	case f.RefusesTenant() && s.tenant && s.untouched():
		s.refused, err = err, errNoTenant
	case f.Kind == audit.BadRequest, f.Kind == audit.Unserved, f.Kind == audit.PageTooLarge:
		return s.setAside(w, err)
	case f.Kind == audit.OutOfTime && s.answered:
		err = errRunTime
	case f.Kind == audit.OutOfTime:
		err = errors.New("audit log API gave no answer before the deadline: is RUN_TIMEOUT_SECONDS, or the service's request timeout, too short?")
	case f.Kind == audit.Interrupted:
		err = errors.New("run was stopped: by Ctrl-C, or since the host shuts down or the caller has gone")
	}
	return Outcome{Cancel: p.stop(s, err)}
}

func warning(text string, attrs ...any) Outcome {
	return Outcome{Notes: []Note{{Severity: Warning, Text: text, Attrs: attrs}}}
}

// stop ends the reading of a stream, or of all if pages contradict each other.
func (p *Plan) stop(s *stream, why error) (cancel []int) {
	if !errors.As(why, &p.contradiction) {
		return s.stop(why)
	}
	for _, s := range p.streams {
		cancel = append(cancel, s.stop(why)...)
	}
	return cancel
}

// sameOrganization refuses a key of another organization than the state's: two must not share a watermark.
func (p *Plan) sameOrganization(name string) error {
	switch {
	case name == "" || name == p.organization:
		return nil
	case p.organization == "":
		p.organization = name
		return nil
	}
	return fmt.Errorf("OPENAI_ADMIN_KEY belongs to organization %q, but the state to %q: give each organization a STATE_KEY and GCS_PREFIX of its own; if it was renamed, remove \"organization\" from the state object",
		audit.Shorten(name), audit.Shorten(p.organization))
}

// contradiction means that pages of a window contradict each other, or those of another stream:
// what has been taken may hold records twice.
type contradiction struct {
	window windowID
	text   string
}

func (c *contradiction) Error() string { return c.text }

var errTenantOnly = &contradiction{windowID{true, allWindows}, "audit log API brings the same records with tenant_only and without: does a proxy on the way drop it?"}

// StartOver returns a plan and a note if pages of a window contradict each other. The plan leaves that
// window to another run and reads everything else again. The caller must discard what it has written for
// this plan. StartOver returns nil if this plan is valid, or has left out that window already.
func (p *Plan) StartOver() (*Plan, Note) {
	bad := p.contradiction
	if bad == nil || p.quarantined[bad.window] {
		return nil, Note{}
	}
	p.quarantined[bad.window] = true
	next := &Plan{settings: p.settings, before: p.before, now: p.now, pageSize: p.pageSize, quarantined: p.quarantined, reasons: append(p.reasons, bad)}
	next.figures.Pages = p.figures.Pages
	next.layOut()
	return next, Note{Severity: Warning, Text: bad.Error() + ": this window is left for another run, and the others are read again"}
}

// Reasons to stop a stream that are no fault.
var (
	errRecordCap = errors.New("MAX_RECORDS is reached")
	errRunTime   = errors.New("RUN_TIMEOUT_SECONDS is nearly over")
	errNoTenant  = errors.New("there are no tenant-scoped events")
)

// failure returns what stopped a stream if that is a fault.
func failure(stopped error) error {
	switch stopped {
	case errRecordCap, errRunTime, errNoTenant:
		return nil
	}
	return stopped
}

// Failure returns what went wrong, nil for nothing.
func (p *Plan) Failure() error { return failure(p.Stopped()) }

// Stopped returns why the plan was not read to its end: a fault, else a limit, else nil.
func (p *Plan) Stopped() error {
	if p.contradiction != nil {
		return joined(append(p.reasons, p.contradiction))
	}
	failures := slices.Clone(p.reasons)
	var limit error
	main := p.streams[0].stopped()
	for _, s := range p.streams {
		switch err := s.stopped(); {
		case err == errNoTenant:
		case failure(err) == nil:
			limit = cmp.Or(limit, err)
		case s.tenant && (failure(main) == nil || err.Error() != main.Error()):
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

func joined(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// Finish returns the last notes, once no request is under way.
func (p *Plan) Finish() (notes []Note) {
	limit := p.settings.MaxIDs
	if len(p.streams) > 1 || p.before != nil && p.before.Tenant != nil {
		limit /= 2
	}
	for _, s := range p.streams {
		if s.refused != nil && p.streams[0].answered { // else they share the reason
			notes = append(notes, Note{Severity: Warning, Text: "The API has no tenant-scoped events for this key: " + audit.NoTenantRemedy, Attrs: []any{"error", s.refused.Error()}})
		}
		notes = append(notes, s.noteSetAside()...)
		notes = append(notes, s.limitIDs(limit)...)
	}
	return notes
}

// Figures returns the figures so far.
func (p *Plan) Figures() Figures { return p.figures }

// Answered reports whether there is anything to commit.
func (p *Plan) Answered() bool {
	return p.contradiction == nil && slices.ContainsFunc(p.streams, func(s *stream) bool { return s.answered })
}

// State returns the state that follows from what has been taken.
func (p *Plan) State() state.State {
	var next state.State
	if p.before != nil {
		next = *p.before
	}
	next.Organization = p.organization
	for _, s := range p.streams {
		if s.tenant {
			next.Tenant = s.next(p.now)
		} else {
			next.Stream = *s.next(p.now)
		}
	}
	return next
}
