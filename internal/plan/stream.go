package plan

import (
	"iter"
	"maps"
	"slices"
	"time"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

// stream is one stream of records in a run: the windows to read, and the records remembered.
type stream struct {
	tenant      bool // of tenant-scoped records
	quarantined bool // none of it is read in this run
	settings    *Settings
	segments    []*segment   // the new window's, then the backlog's, newest to oldest
	before      state.Stream // as loaded
	first       bool         // no state has it yet

	index state.Index // of the records that the state remembers
	// ids are those of this run that a window can return again.
	ids       map[audit.Identity]remembered
	pruned    int   // len(ids) after the last prune
	forgotten int64 // all before it are dropped where no window is open, for want of room; see limitIDs

	// keepWhole is set once the API has refused a cursor: it may not accept one under another range
	// than the original.
	keepWhole bool

	// Of the new window:
	begin    int64     // its Gte, as planned
	end      int64     // its Lte, as planned
	answered bool      // at least one good page
	empty    bool      // no record so far
	newest   int64     // newest effective_at of its records, no less than before.High; see advance
	date     time.Time // the API's clock at its first page

	// Progress:
	stopReason error // why reading stopped, nil while it goes on
	refused    error // the API's error, where stopReason is errNoTenant
	failures   int   // pages in a row that the API could not serve
	distinct   bool  // see state.Stream.Distinct
	requested  int   // requests sent
	underWay   []int // those without an answer
	asked      int   // records that those requests ask for
	collected  int   // records
}

// remembered is how a record was collected.
type remembered struct {
	line    uint64   // a hash of it
	through *segment // nil: in an earlier run, or through any
}

// newStream lays out the windows of a run; before is nil for a first one. Fresh records come first,
// so that they never wait behind old ones.
func newStream(tenant bool, before *state.Stream, settings *Settings, now time.Time) *stream {
	s := &stream{tenant: tenant, settings: settings, first: before == nil, empty: true}
	fresh := state.Window{Gte: max(0, now.Unix()-settings.Lookback), Lte: now.Unix()}
	if !s.first {
		s.before, s.distinct = *before, before.Distinct
		// A clock that was set back must not leave a gap.
		fresh = state.Window{Gte: max(0, before.High-settings.Overlap, before.RecentSince), Lte: max(now.Unix(), before.High)}
	}
	fresh.Filter = settings.Filter
	s.begin, s.end, s.newest = fresh.Gte, fresh.Lte, s.before.High
	var backlog []*segment
	var aside []state.Span
	for _, w := range s.before.Backlog {
		if !s.before.Rewound || w.Filter != settings.Filter {
			old := &segment{Window: w, oldest: w.AfterAt, resumed: w.After != ""}
			if w.SetAside {
				old.fault = &fault{known: true, confirmed: true}
			}
			if w.SetAside && w.After == "" && w.Gte == w.Lte && w.Filter == settings.Filter {
				aside = append(aside, w.Left())
			}
			backlog = append(backlog, old)
		}
	}
	slices.SortStableFunc(backlog, func(a, b *segment) int { return state.NewestToOldest(a.Window, b.Window) })
	for i, w := range backlog {
		w.id = windowID{tenant, i + 1}
	}
	// The new window leaves out each second that is set aside: a run asks for that once.
	parts := state.Span{Gte: fresh.Gte, Lte: fresh.Lte}.Without(aside)
	if len(parts) == 0 {
		parts = []state.Span{{Gte: fresh.Gte, Lte: fresh.Lte}}
	}
	for _, part := range parts {
		s.segments = append(s.segments, &segment{Window: state.Window{Gte: part.Gte, Lte: part.Lte, Filter: fresh.Filter}, fresh: true, id: windowID{tenant, 0}})
	}
	s.segments = append(s.segments, backlog...)
	s.index, s.ids = state.NewIndex(s.before.Recent), map[audit.Identity]remembered{}
	return s
}

// open yields the segments that are not read to their end.
func (s *stream) open() iter.Seq[*segment] {
	return func(yield func(*segment) bool) {
		for _, w := range s.segments {
			if !w.done && !yield(w) {
				return
			}
		}
	}
}

// reading returns the segments that are read now, newest to oldest. Until the new window is read, there
// is no other: neither the records nor the failures of the backlog may hold up fresh records.
func (s *stream) reading() (list []*segment) {
	fresh := false
	for w := range s.open() { // the new window's segments come first
		if fresh = fresh || w.fresh && w.failure == nil; fresh && !w.fresh {
			break
		}
		if !w.quarantined && w.failure == nil {
			list = append(list, w)
		}
	}
	return list
}

// ready returns the segments to read next, in order.
func (s *stream) ready() []*segment {
	list := slices.DeleteFunc(s.reading(), func(w *segment) bool { return w.underWay })
	slices.SortStableFunc(list, byFault)
	return list
}

// budget is how many more records may be requested. Each stream has its own MAX_RECORDS, so that
// none uses up another's.
func (s *stream) budget() int { return s.settings.MaxRecords - s.collected - s.asked }

func (s *stream) request(id, pageSize int) Request {
	w := s.ready()[0]
	r := Request{
		Request: audit.Request{Gte: w.Gte, Lte: w.Lte, After: w.After, Limit: min(pageSize, s.budget()), Tenant: s.tenant, Filter: w.Filter, Once: w.fault != nil || s.failures >= maxFailures},
		ID:      id,
		First:   !w.begun,
		Compare: s.tenant && (w.After == "" || !w.begun),
		stream:  s,
		segment: w,
	}
	w.begun, w.underWay = true, true
	s.requested++
	s.underWay = append(s.underWay, id)
	s.asked += r.Limit
	return r
}

func (s *stream) answer(r Request) {
	s.underWay = slices.DeleteFunc(s.underWay, func(id int) bool { return id == r.ID })
	s.asked -= r.Limit
	r.segment.underWay = false
}

// stop notes why no more is read; a fault counts more than a limit. It returns the requests that are
// no longer needed: they might retry for minutes.
func (s *stream) stop(why error) (cancel []int) {
	if failure(s.stopReason) == nil {
		s.stopReason = why
	}
	if failure(s.stopReason) != nil {
		cancel = slices.Clone(s.underWay)
	}
	return cancel
}

// untouched reports whether no page of the stream has ever been taken.
func (s *stream) untouched() bool { return !s.answered && (s.first || s.before.Untouched) }

// known reports whether the record has been collected before, and its line then; 0: unknown.
func (s *stream) known(rec audit.Record) (line uint64, known bool) {
	if m, known := s.ids[rec.Identity()]; known {
		return m.line, true
	}
	if line, known = s.index.Find(rec.Identity()); known {
		return line, true
	}
	for w := range s.open() {
		if line, known := w.atCursor[rec.Identity()]; known {
			return line, true
		}
	}
	return 0, false
}

// remember keeps a record that was collected through w, if a later read can return it again.
func (s *stream) remember(w *segment, rec audit.Record) {
	if s.canReturn(rec.At, w) {
		s.ids[rec.Identity()] = remembered{rec.Hash(), w}
		if len(s.ids) > 2*s.pruned+1000 {
			s.prune()
		}
	}
}

// canReturn reports whether a record of this time, collected through a segment of this run or in an
// earlier one, can be returned again: by the next run's new window, or by an open window that it
// was not collected through.
func (s *stream) canReturn(at int64, through *segment) bool {
	if at >= max(s.newest-s.settings.Overlap, s.forgotten) {
		return true
	}
	return s.awaits(at, through)
}

// awaits reports whether an open window can return such a record.
func (s *stream) awaits(at int64, through *segment) bool {
	for w := range s.open() {
		if w != through && w.Contains(at) && (through == nil || !w.Filter.Excludes(through.Filter)) {
			return true
		}
	}
	return false
}

func (s *stream) prune() {
	maps.DeleteFunc(s.ids, func(id audit.Identity, m remembered) bool { return !s.canReturn(id.At, m.through) })
	s.pruned = len(s.ids)
}

// recent returns the records that can be returned again.
func (s *stream) recent() state.Recent {
	s.prune()
	ours := make([]state.Remembered, 0, len(s.ids))
	for id, m := range s.ids {
		ours = append(ours, state.Remembered{Identity: id, Line: m.line})
	}
	return s.before.Recent.Only(func(r state.Remembered) bool { return s.canReturn(r.At, nil) }).With(ours)
}

func (s *stream) advance(w *segment, page audit.Page) {
	if w.fresh {
		first := !s.answered
		if first {
			s.answered, s.date = true, page.Date
		}
		for _, rec := range page.Records {
			s.empty = false
			// Where the local clock is fast, pages bring records that appeared after the first
			// page; others of their time may be behind the cursor. A Date older than what is
			// covered is frozen, and proves nothing.
			if first || s.date.Unix() < s.before.High || rec.At <= s.date.Unix() {
				s.newest = max(s.newest, rec.At)
			}
		}
	}
	w.take(page)
}

// restart begins w again, since the API refuses its cursor.
func (s *stream) restart(w *segment, refusal error) Outcome {
	s.rememberAtCursor(w)
	w.restarted, w.loop, s.keepWhole = true, loopDetector{}, true
	text := "The API refuses the cursor of a window: reading on from the time reached in it"
	if w.Restart() {
		text = "The API refuses the cursor of a window whose pages did not come newest first: reading it again from its start, records may be repeated"
	}
	return warning(text, "gte", w.Gte, "lte", w.Lte, "error", refusal.Error())
}

// rememberAtCursor remembers the records at the cursor of w while w is open.
func (s *stream) rememberAtCursor(w *segment) {
	for id, line := range w.atCursor {
		s.ids[id] = remembered{line: line}
	}
	w.atCursor = nil
}

// lateness is how many seconds a new record is older than what the previous run covered; 0 if it is
// not late.
func (s *stream) lateness(w *segment, rec audit.Record) int64 {
	if !w.fresh || !s.before.Own || s.before.RecentSince == 0 || s.before.Filter != s.settings.Filter {
		return 0
	}
	for b := range s.open() {
		if !b.fresh && b.Unread(rec.At) {
			return 0
		}
	}
	return max(0, s.before.High-rec.At)
}

// settle returns the end of what is covered. From then on canReturn says what a later run can return.
//
// The new window covers up to its newest record if it was read to its end. It covers up to its
// own end if it was empty, or if the backlog has its rest. The API's clock limits that: where
// the local one is fast, records yet to be written must not fall behind.
func (s *stream) settle() (high int64) {
	high = s.newest
	if s.first {
		high = max(high, s.begin)
	}
	whole := true // the new window has been read to its end
	for w := range s.open() {
		whole = whole && !w.fresh
		s.rememberAtCursor(w)
	}
	if (!whole || s.empty) && !s.date.IsZero() {
		high = max(high, min(s.end, s.date.Unix()))
	}
	s.newest = high
	return high
}

// next returns the stream that follows from what has been read; nil for none.
func (s *stream) next(now time.Time) *state.Stream {
	next := s.before
	switch {
	case s.answered:
	case s.first && s.stopReason == errNoTenant:
		return nil
	case s.first: // the start of the look-back must not move while reading fails
		next.Untouched = true
		next.Watermark, next.High, next.RecentSince, next.Backlog = s.begin, s.begin, s.begin, []state.Window{}
		next.Covered, next.Filter = []state.Span{{Gte: s.begin, Lte: s.begin, Filter: s.settings.Filter}}, s.settings.Filter
		return &next
	default:
		return &next
	}
	high := s.settle()
	next.LastRun = now.UTC().Format(time.RFC3339)
	next.High, next.Filter = high, s.settings.Filter
	next.Own, next.Rewound, next.Untouched, next.Distinct = true, false, false, s.distinct
	next.RecentSince = max(s.begin, high-s.settings.Overlap, s.forgotten)
	if s.first || len(next.Covered) > 0 { // unknown stays unknown
		next.Covered = state.Cover(next.Covered, state.Span{Gte: s.begin, Lte: high, Filter: s.settings.Filter})
	}
	next.Backlog = []state.Window{}
	for w := range s.open() {
		w.SetAside = w.fault != nil && (w.failure != nil || w.fault.known) // else it waits to be read
		next.Backlog = appendWindow(next.Backlog, w.Window)
	}
	next.Recent = s.recent()
	next.Watermark = next.ImpliedWatermark()
	return &next
}
