package auditlog

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// reading is what a run knows of the windows it reads and of the records it
// has met in them.
//
// Nothing lost and nothing repeated rest on three things, whatever order pages
// come in, as long as they page consistently: the filters bound each window,
// the cursor goes through it once, and ids tell apart what two windows share.
type reading struct {
	overlap   int64
	windows   []*window // the new one, then the backlog, newest to oldest
	open      int       // windows before this index are read to their end
	before    State     // as loaded
	first     bool      // there was no state
	continues bool      // see snapshot

	// ids are collected records that a window can bring again: those of the
	// state, and those met in this run that another window shares.
	ids    map[string]sighting
	pruned int // len(ids) after the last prune
	// atCursor are the records at the AfterAt of the window being read.
	atCursor map[string]bool

	// Of the new window:
	end      int64     // its Lte, as planned
	answered bool      // at least one good page
	empty    bool      // no record so far
	newest   int64     // newest effective_at of its records, no less than before.High; see take
	date     time.Time // the API's clock at its first page
}

// sighting is where a record was met.
type sighting struct {
	at      int64
	through *window // nil: in an earlier run
}

// plan lays out the windows of a run. Fresh records come first, so that they
// never wait behind old ones.
func plan(s snapshot, now time.Time, overlap, lookback int64) *reading {
	r := &reading{
		overlap:   overlap,
		before:    s.State,
		first:     s.generation == 0,
		continues: s.continues,
		ids:       make(map[string]sighting, len(s.RecentIDs)),
		newest:    s.High,
		empty:     true,
	}
	fresh := &window{Gte: max(0, now.Unix()-lookback), Lte: now.Unix()}
	if !r.first {
		// A clock that has been set back must not leave a gap.
		fresh = &window{Gte: max(0, s.High-overlap, s.RecentSince), Lte: max(now.Unix(), s.High)}
	}
	r.end = fresh.Lte
	r.windows = append(r.windows, fresh)
	for _, w := range s.Backlog {
		r.windows = append(r.windows, &w)
	}
	slices.SortStableFunc(r.windows[1:], func(a, b *window) int { return newestToOldest(*a, *b) })
	for id, at := range s.RecentIDs {
		r.ids[id] = sighting{at: at}
	}
	return r
}

func newestToOldest(a, b window) int {
	return cmp.Or(cmp.Compare(b.Lte, a.Lte), cmp.Compare(b.Gte, a.Gte))
}

// seen reports whether the record has been collected before.
func (r *reading) seen(rec record) bool {
	_, known := r.ids[rec.id]
	return known || r.atCursor[rec.id]
}

// meet notes a record that has been collected through w, if some later read
// can bring it again.
func (r *reading) meet(w *window, rec record) {
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
	for _, w := range r.windows[r.open:] {
		if w != s.through && w.contains(s.at) {
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
func (r *reading) take(w *window, p page) {
	if w == r.windows[0] {
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
	if r.atCursor == nil || w.AfterAt != before {
		r.atCursor = map[string]bool{}
	}
	for _, rec := range p.records {
		if rec.at == w.AfterAt {
			r.atCursor[rec.id] = true
		}
	}
	if !p.more {
		r.open++
		r.atCursor = nil
	}
}

// restart makes w begin anew, since the API refuses its cursor, and reports
// whether records may be repeated by that.
func (r *reading) restart(w *window) (repeats bool) {
	r.keepAtCursor(w)
	return w.restart()
}

// keepAtCursor remembers the records at the cursor of w for as long as w is open.
func (r *reading) keepAtCursor(w *window) {
	for id := range r.atCursor {
		r.ids[id] = sighting{at: w.AfterAt}
	}
	r.atCursor = nil
}

// lateness is by how many seconds a record that was not seen before is older
// than what the run before this one covered; 0 where it is not late.
func (r *reading) lateness(w *window, rec record) int64 {
	if w != r.windows[0] || !r.continues {
		return 0
	}
	for _, b := range r.windows[1:] {
		if b.unread(rec.at) {
			return 0
		}
	}
	return max(0, r.before.High-rec.at)
}

// next is the state that follows from what has been read. It must not be
// called before the new window has been answered.
func (r *reading) next(now time.Time) State {
	// The new window covers up to its newest record where it was read to its
	// end; up to its own end where it was empty or has a rest in the backlog.
	// The API's clock has a say in that: where the local one is fast, records
	// yet to be written must not fall behind.
	high := r.newest
	if r.first {
		high = max(high, r.windows[0].Gte)
	}
	if (r.open == 0 || r.empty) && !r.date.IsZero() {
		high = max(high, min(r.end, r.date.Unix()))
	}
	r.newest = high
	if r.open < len(r.windows) {
		r.keepAtCursor(r.windows[r.open])
	}
	r.prune()

	s := r.before
	s.LastRun = now.UTC().Format(time.RFC3339)
	s.High = high
	s.RecentSince = max(r.windows[0].Gte, high-r.overlap)
	if r.first || len(s.Covered) > 0 { // what is not known stays so
		s.Covered = cover(s.Covered, span{r.windows[0].Gte, high})
	}
	s.Backlog = []window{}
	for _, w := range r.windows[r.open:] {
		s.Backlog = append(s.Backlog, *w)
	}
	s.RecentIDs = make(map[string]int64, len(r.ids))
	for id, m := range r.ids {
		s.RecentIDs[id] = m.at
	}
	s.Watermark = s.watermark()
	return s
}
