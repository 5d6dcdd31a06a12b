package auditlog

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"
	"time"
)

// reading is what a run knows of a stream: the windows it reads, and the records
// it has met in them.
//
// Nothing lost and nothing repeated rest on three things, whatever order pages
// come in, as long as they page consistently: the filters bound each window,
// the cursor goes through it once, and ids tell apart what two windows share.
type reading struct {
	tenant  bool // of tenant-scoped records
	aside   bool // none of it is read in this run
	overlap int64
	filter  filter  // of the new window
	windows []*part // the new window's parts, then the backlog, newest to oldest
	before  Stream  // as loaded
	first   bool    // it was not there

	// ids are collected records that a window can bring again: those of the
	// state, and those met in this run that another window shares.
	ids    map[string]sighting
	pruned int // len(ids) after the last prune

	// keepWhole is set once the API has refused a cursor: it may not take one
	// under another range than it was given for.
	keepWhole bool

	// Of the new window:
	begin    int64     // its Gte, as planned
	end      int64     // its Lte, as planned
	answered bool      // at least one good page
	empty    bool      // no record so far
	newest   int64     // newest effective_at of its records, no less than before.High; see take
	date     time.Time // the API's clock at its first page

	// Of the reading of it; see run.read.
	ctx       context.Context
	stop      context.CancelFunc
	stopped   error // why no more of it is read, nil as long as it is
	refused   error // where that is errNoTenant: what the API says
	apart     bool  // see Stream.Apart
	requested int   // requests sent
	busy      int   // those under way
	asked     int   // records that those ask for
	collected int   // records
}

// part is a window that a run reads, or what is left of one that is shared.
type part struct {
	window
	fresh    bool            // of the new window
	busy     bool            // a request for it is under way
	done     bool            // it is read to its end
	aside    bool            // it is left for another run
	retrying bool            // its request has failed before
	place    place           // what it was planned as
	atCursor map[string]bool // the records at its AfterAt

	// Of the reading of it in this run:
	begun, restarted bool
	oldest           int64 // effective_at of its oldest record, 0 for none
	top              int64 // effective_at of the first record
	read             int   // records, collected before or not
	loop             loopDetector
}

// sighting is where a record was met.
type sighting struct {
	at      int64
	through *part // nil: in an earlier run
}

// place tells windows as planned apart: n is 0 for the new one, then the place in
// the backlog; wholeStream means all.
type place struct {
	tenant bool
	n      int
}

const wholeStream = -1

// plan lays out the windows of a run; before is nil for a first one. Fresh
// records come first, so that they never wait behind old ones.
func plan(before *Stream, now time.Time, overlap, lookback int64, f filter) *reading {
	r := &reading{overlap: overlap, filter: f, first: before == nil, empty: true}
	fresh := window{Gte: max(0, now.Unix()-lookback), Lte: now.Unix()}
	if !r.first {
		r.before, r.apart = *before, before.Apart
		// A clock that has been set back must not leave a gap.
		fresh = window{Gte: max(0, before.High-overlap, before.RecentSince), Lte: max(now.Unix(), before.High)}
	}
	fresh.Filter = f
	r.begin, r.end, r.newest = fresh.Gte, fresh.Lte, r.before.High
	r.windows = append(r.windows, &part{window: fresh, fresh: true})
	for _, w := range r.before.Backlog {
		if !r.before.setBack || w.Filter != f {
			r.windows = append(r.windows, &part{window: w, oldest: w.AfterAt})
		}
	}
	slices.SortStableFunc(r.windows[1:], func(a, b *part) int { return newestToOldest(a.window, b.window) })
	for i, w := range r.windows {
		w.place.n = i
	}
	r.ids = make(map[string]sighting, len(r.before.RecentIDs))
	for id, at := range r.before.RecentIDs {
		r.ids[id] = sighting{at: at}
	}
	return r
}

func newestToOldest(a, b window) int {
	return cmp.Or(cmp.Compare(b.Lte, a.Lte), cmp.Compare(b.Gte, a.Gte))
}

// open goes through the windows that are not read to their end.
func (r *reading) open() iter.Seq[*part] {
	return func(yield func(*part) bool) {
		for _, w := range r.windows {
			if !w.done && !yield(w) {
				return
			}
		}
	}
}

// idle returns the windows to read next, in this order. While any of the new one
// is unread, there is no other: fresh records come first, whatever the backlog
// wants of MAX_RECORDS, or fails with.
func (r *reading) idle() []*part {
	var list []*part
	fresh := false
	for w := range r.open() { // the new window's parts come first
		if fresh = fresh || w.fresh; fresh && !w.fresh {
			break
		}
		if !w.busy && !w.aside {
			list = append(list, w)
		}
	}
	return list
}

// share splits off w as many parts as there are idle workers to read them, if
// there is enough for them. limit is the records a page.
//
// Its cursor stays with the newest part. That every record so far came newest
// first is enough for nothing to be lost or repeated, whatever order the rest
// comes in: none that has been read lies in the parts split off, and the cursor
// goes on through what is left to it.
func (r *reading) share(w *part, workers int, limit int) {
	if workers <= 0 || w.read == 0 || w.done || !w.descends() || r.keepWhole {
		return
	}
	unread := w.AfterAt - w.Gte // seconds below the cursor's
	perSecond := float64(w.read) / float64(max(1, w.top-w.AfterAt))
	pages := perSecond * float64(unread) / float64(limit)
	parts := int64(min(float64(workers), pages-1, float64(unread-1)))
	if parts <= 0 {
		return
	}
	// Alike, but none longer than sharePages at the density seen so far: how far
	// that goes on is not known, and an empty part costs a request. The oldest
	// part is what is left; it is shared again when workers are idle.
	step := max(1, min(unread/(parts+1), int64(sharePages*float64(limit)/perSecond)))
	gte, below := w.Gte, w.AfterAt-step
	w.Gte = below
	var split []*part
	for i := range parts {
		lte := below - 1
		if below -= step; i == parts-1 {
			below = gte
		}
		split = append(split, &part{window: window{Gte: below, Lte: lte, Filter: w.Filter}, fresh: w.fresh, place: w.place})
	}
	r.windows = slices.Insert(r.windows, slices.Index(r.windows, w)+1, split...)
}

// sharePages keeps the extra requests of parts, one or two each, to a few percent.
const sharePages = 25

// seen reports whether the record has been collected before.
func (r *reading) seen(rec record) bool {
	if _, known := r.ids[rec.id]; known {
		return true
	}
	for w := range r.open() {
		if w.atCursor[rec.id] {
			return true
		}
	}
	return false
}

// meet notes a record that has been collected through w, if some later read
// can bring it again.
func (r *reading) meet(w *part, rec record) {
	if s := (sighting{rec.at, w}); r.recurs(s) {
		r.ids[rec.id] = s
		if len(r.ids) > 2*r.pruned+1000 {
			r.prune()
		}
	}
}

// recurs reports whether a record can be brought again: by the next run's new
// window, or by an open window that it was not met through.
func (r *reading) recurs(s sighting) bool {
	if s.at >= r.newest-r.overlap {
		return true
	}
	for w := range r.open() {
		if w != s.through && w.contains(s.at) && (s.through == nil || !w.Filter.excludes(s.through.Filter)) {
			return true
		}
	}
	return false
}

func (r *reading) prune() {
	maps.DeleteFunc(r.ids, func(_ string, s sighting) bool { return !r.recurs(s) })
	r.pruned = len(r.ids)
}

// take notes that a page of w has been collected.
func (r *reading) take(w *part, p page) {
	if w.fresh {
		first := !r.answered
		if first {
			r.answered, r.date = true, p.date
		}
		for _, rec := range p.records {
			r.empty = false
			// Where the local clock is fast, pages bring what appeared since the
			// first one; of that, some may be behind the cursor. A Date that has
			// fallen behind what is covered stands still, and tells nothing.
			if first || r.date.Unix() < r.before.High || rec.at <= r.date.Unix() {
				r.newest = max(r.newest, rec.at)
			}
		}
	}
	before := w.AfterAt
	w.advance(p)
	if w.atCursor == nil || w.AfterAt != before {
		w.atCursor = map[string]bool{}
	}
	if w.read == 0 && len(p.records) > 0 {
		w.top = p.records[0].at
	}
	w.read += len(p.records)
	for _, rec := range p.records {
		w.oldest = earlier(w.oldest, rec.at)
		if rec.at == w.AfterAt {
			w.atCursor[rec.id] = true
		}
	}
	if !p.more {
		w.done, w.atCursor = true, nil
	}
}

// earlier is the earlier of two times, 0 for none.
func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// restart makes w begin anew, since the API refuses its cursor, and reports
// whether records may be repeated by that.
func (r *reading) restart(w *part) (repeats bool) {
	r.keepAtCursor(w)
	r.keepWhole = true
	return w.restart()
}

// keepAtCursor remembers the records at the cursor of w for as long as w is open.
func (r *reading) keepAtCursor(w *part) {
	for id := range w.atCursor {
		r.ids[id] = sighting{at: w.AfterAt}
	}
	w.atCursor = nil
}

// lateness is by how many seconds a record that was not seen before is older
// than what the run before this one covered; 0 where it is not late.
func (r *reading) lateness(w *part, rec record) int64 {
	if !w.fresh || !r.before.continues || r.before.RecentSince == 0 || r.before.Filter != r.filter {
		return 0
	}
	for b := range r.open() {
		if !b.fresh && b.unread(rec.at) {
			return 0
		}
	}
	return max(0, r.before.High-rec.at)
}

// next is the stream that follows from what has been read; nil where there is
// none.
func (r *reading) next(now time.Time) *Stream {
	s := r.before
	switch {
	case r.answered:
	case r.first && r.stopped == errNoTenant:
		return nil
	case r.first: // what the look-back reaches must not move on while it fails
		s.Unread = true
		s.Watermark, s.High, s.RecentSince, s.Backlog = r.begin, r.begin, r.begin, []window{}
		s.Covered, s.Filter, s.RecentIDs = []span{{r.begin, r.begin, r.filter}}, r.filter, map[string]int64{}
		return &s
	default:
		return &s
	}
	// The new window covers up to its newest record where it was read to its
	// end; up to its own end where it was empty or has a rest in the backlog.
	// The API's clock has a say in that: where the local one is fast, records
	// yet to be written must not fall behind.
	high := r.newest
	if r.first {
		high = max(high, r.begin)
	}
	whole := true // the new window has been read to its end
	for w := range r.open() {
		whole = whole && !w.fresh
	}
	if (!whole || r.empty) && !r.date.IsZero() {
		high = max(high, min(r.end, r.date.Unix()))
	}
	r.newest = high
	for w := range r.open() {
		r.keepAtCursor(w)
	}
	r.prune()

	s.LastRun = now.UTC().Format(time.RFC3339)
	s.High, s.Filter = high, r.filter
	s.continues, s.setBack, s.Unread, s.Apart = true, false, false, r.apart
	s.RecentSince = max(r.begin, high-r.overlap)
	if r.first || len(s.Covered) > 0 { // what is not known stays so
		s.Covered = cover(s.Covered, span{r.begin, high, r.filter})
	}
	s.Backlog = []window{}
	for w := range r.open() {
		s.Backlog = append(s.Backlog, w.window)
	}
	s.RecentIDs = make(map[string]int64, len(r.ids))
	for id, m := range r.ids {
		s.RecentIDs[id] = m.at
	}
	s.Watermark = s.watermark()
	return &s
}
