package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

// fault is a page that the API could not serve, though it can be reached. The segments that its
// window is cut into share it, until a page of theirs comes.
type fault struct {
	failures  int  // of its segments in a row
	confirmed bool // it is the window's own: a later page with the same filter was good
	known     bool // an earlier run has met it
}

const (
	// maxFailures is how many pages in a row show that cutting is of no use now.
	maxFailures = 8
	// maxSetAside bounds the segments that one stream is cut into for the sake of bad pages.
	maxSetAside = 64
)

// setAside takes a failure of w that may be its own: a record that the API cannot serve must not keep
// others from being read. It cuts w in half, over and over, until only the second of that record is
// left; the next run asks again. Where the API serves no page at all, nothing is to blame but the API.
func (s *stream) setAside(w *segment, err error) (o Outcome) {
	switch outage := s.failures >= maxFailures; {
	case outage && w.fault == nil:
		w.failure = err
	case w.fault == nil:
		w.fault = &fault{}
		o = warning("The API cannot serve a page of a window: reading around it", "gte", w.Gte, "lte", w.LeftTo(), "error", err.Error())
		fallthrough
	default:
		if !w.fault.known { // those fail fast, while a window with a new fault is still tried again
			s.failures++
		}
		w.fault.failures++
		if !s.cut(w) {
			w.failure = err
			s.mergeSetAside(w)
		}
	}
	if !s.answered && !slices.ContainsFunc(s.segments, func(w *segment) bool { return w.fresh && w.failure == nil }) {
		o.Cancel = s.stop(err)
	}
	return o
}

// byFault is the order in which segments are read. Of a window that is cut, the older part comes first,
// since the bad record is near the top of the page: a good page shows soon that the window is to
// blame. Windows that an earlier run has set aside come last, the longest first: those may be cut.
func byFault(a, b *segment) int {
	rank := func(w *segment) (int, int64) {
		switch {
		case w.fault == nil:
			return 2, 0
		case w.fault.known:
			return 3, -w.Left().Seconds()
		case w.begun:
			return 1, 0
		}
		return 0, 0
	}
	rankA, lengthA := rank(a)
	rankB, lengthB := rank(b)
	return cmp.Or(cmp.Compare(rankA, rankB), cmp.Compare(lengthA, lengthB))
}

func (s *stream) cut(w *segment) bool {
	left := w.Left()
	faults := 0
	for w := range s.open() {
		if w.fault != nil {
			faults++
		}
	}
	if left.Gte == left.Lte || w.fault.failures >= maxFailures || faults >= maxSetAside {
		return false
	}
	if w.After != "" && (!w.Descends() || s.keepWhole) { // only without its cursor
		again := w.Window
		if again.Restart() {
			return false
		}
		s.rememberAtCursor(w)
		w.Window, w.loop = again, loopDetector{}
	}
	s.splitOff(w, left.Lte-(left.Lte-left.Gte-1)/2)
	return true
}

// mergeSetAside ends a segment that another one covers, where both are set aside: each new window would
// add one, for as long as it begins before the bad second.
func (s *stream) mergeSetAside(w *segment) {
	for other := range s.open() {
		switch {
		case other == w || other.fault == nil || other.underWay || other.Filter != w.Filter:
		case covers(w, other):
			s.rememberAtCursor(other)
			other.done = true
		case covers(other, w):
			s.rememberAtCursor(w)
			w.done = true
			return
		}
	}
}

// covers reports whether a brings all that b does: nothing of it is read, or this run has read it from its start.
func covers(a, b *segment) bool {
	return (a.After == "" || a.fresh) && a.Gte <= b.Gte && b.Lte <= a.Lte
}

// served notes a good page of w.
func (s *stream) served(w *segment) {
	s.failures = 0
	if w.fault != nil {
		w.fault.failures = 0 // of the others that share it
		w.fault = nil
	}
	for other := range s.open() {
		if other.fault != nil && other.Filter == w.Filter {
			other.fault.confirmed = true
		}
	}
}

// stopped returns why the stream was not read to its end: a fault, else a limit, else nil.
func (s *stream) stopped() error {
	if failure(s.stopReason) != nil {
		return s.stopReason
	}
	var last error
	n := 0
	for w := range s.open() {
		switch {
		case w.failure == nil:
		case w.fault == nil || !w.fault.confirmed:
			return w.failure
		default:
			n, last = n+1, w.failure
		}
	}
	if n == 0 {
		return s.stopReason
	}
	return fmt.Errorf("the API cannot serve %s, set aside while the rest is read: %w", audit.Count(n, "range"), last)
}

// noteSetAside describes what is set aside.
func (s *stream) noteSetAside() (notes []Note) {
	for w := range s.open() {
		if w.failure != nil && w.fault != nil && w.fault.confirmed {
			left := w.Left()
			notes = append(notes, Note{Severity: Error,
				Text: fmt.Sprintf("A range is set aside, since the API cannot serve it: each run asks for it again. To give its records up: auditlog backfill --cancel --from %s --to %s",
					audit.Time(left.Gte), audit.Time(left.Lte)),
				Attrs: []any{"gte", left.Gte, "lte", left.Lte, "error", w.failure.Error()}})
		}
	}
	return notes
}

// appendWindow appends a window to a backlog, or joins it to the one directly above: where a run that
// was broken off has split a window, the next runs read it as one.
//
// Nothing of either may be read. The cursor of the upper one may have passed records of the lower,
// where pages do not come newest first though they seem to.
func appendWindow(backlog []state.Window, w state.Window) []state.Window {
	if n := len(backlog); n > 0 {
		above := &backlog[n-1]
		unread := func(gte, lte int64) state.Window {
			return state.Window{Gte: gte, Lte: lte, Backfill: w.Backfill, Filter: w.Filter}
		}
		if above.Gte == w.Lte+1 && w == unread(w.Gte, w.Lte) && *above == unread(above.Gte, above.Lte) {
			above.Gte = w.Gte
			return backlog
		}
	}
	return append(backlog, w)
}

// windows is the number of windows that are not read to their end.
func (s *stream) windows() (n int) {
	for range s.open() {
		n++
	}
	return n
}

// idBytes is about how much the state takes for an id, beside twice the id itself.
const idBytes = 96

// limitIDs forgets the oldest records where the state has no room for all, a second at a time, but
// none that an open window can return. The overlap of the next new windows shrinks to what is left.
func (s *stream) limitIDs(limit int) []Note {
	if !s.answered {
		return nil
	}
	high := s.settle()
	recent := s.recent()
	bytes := func(r state.Remembered) int { return 2*len(r.ID) + idBytes }
	size := 0
	for _, r := range recent {
		size += bytes(r)
	}
	if size <= limit {
		return nil
	}
	freed := map[int64]int{} // bytes, by the second that is forgotten
	for _, r := range recent {
		if !s.awaits(r.At, nil) {
			freed[r.At] += bytes(r)
		}
	}
	for _, at := range slices.Sorted(maps.Keys(freed)) {
		if at >= high || size <= limit {
			break
		}
		s.forgotten = at + 1
		size -= freed[at]
	}
	return warning(fmt.Sprintf("The state has no room for the ids of all recent records: the next new window begins %d seconds before the end of what is collected, not OVERLAP_SECONDS. A record that appears later than that is missed: lower OVERLAP_SECONDS",
		high-max(s.forgotten, s.begin))).Notes
}
