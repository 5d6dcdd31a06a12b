package plan

import (
	"cmp"
	"slices"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

// segment is a window that a run reads, or what is left of one that is split.
type segment struct {
	state.Window
	id          windowID // the window that it was planned as
	fresh       bool     // of the new window
	quarantined bool     // it is left for another run
	underWay    bool     // a request for it is under way
	done        bool     // it is read to its end
	fault       *fault   // of its next page, nil for none
	failure     error    // why it is left for another run, nil while it is not
	resumed     bool     // an earlier run has read a part: its cursor may be a wrong one

	atCursor map[audit.Identity]uint64 // the records at its AfterAt, each with its line

	// Progress in this run:
	begun, restarted bool
	oldest           int64   // effective_at of its oldest record, 0 for none
	perSecond        float64 // records a second in its last page with any
	loop             loopDetector
	hollow           bool  // the last page had no records, although more followed
	above            int64 // where that hole begins: effective_at of the last record before it
}

// windowID identifies a window as it was planned: n is 0 for the new one, then its place in the
// backlog; allWindows means all.
type windowID struct {
	tenant bool
	n      int
}

const allWindows = -1

func (w *segment) take(page audit.Page) {
	before := w.AfterAt
	w.Advance(page)
	if w.atCursor == nil || w.AfterAt != before {
		w.atCursor = map[audit.Identity]uint64{}
	}
	if n := len(page.Records); n > 0 {
		w.perSecond = float64(n) / float64(max(1, cmp.Or(before, page.Records[0].At)-w.AfterAt))
	}
	for _, rec := range page.Records {
		w.oldest = earlier(w.oldest, rec.At)
		if rec.At == w.AfterAt {
			w.atCursor[rec.Identity()] = rec.Hash()
		}
	}
	if !page.More {
		w.done, w.atCursor = true, nil
	}
}

// hole notes a page without records although more follow. Once the end of such pages is known, it
// returns notes about them.
func (w *segment) hole(page audit.Page) (notes []Note) {
	if page.Hollow() {
		if !w.hollow {
			w.hollow, w.above = true, w.Lte
			if w.AfterAt != 0 {
				w.above = w.AfterAt
			}
		}
		return nil
	}
	if w.hollow {
		below := w.Gte
		if len(page.Records) > 0 {
			below = page.Records[0].At
		}
		notes = append(notes, Note{Severity: Warning, Text: "The API answered with empty pages that more followed, each time it was asked: it may have kept back records from " + audit.Time(below) + " to " + audit.Time(w.above)})
	}
	w.hollow = false
	return notes
}

// earlier returns the earlier of two times; 0 means none.
func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// oldestReached describes how far back the API has answered.
func (w *segment) oldestReached() string {
	if w.oldest == 0 {
		return "the API has no record from " + audit.Time(w.Gte) + " to " + audit.Time(w.Lte)
	}
	return "the oldest record that the API returned since " + audit.Time(w.Gte) + " is from " + audit.Time(w.oldest)
}

// segmentPages limits how far the density of one page is trusted: the records may end, and an empty
// segment costs a request.
const segmentPages = 100

// split splits w for its share of the workers, which is its share of the seconds that are left to read
// in all segments. So none is left to one worker while others are idle, and none is split that ends when
// the others do: each part that is split off costs up to one request. It has about a page or more.
func (s *stream) split(w *segment, idle int, pageSize int) {
	idle = min(idle, s.settings.MaxWindows-s.windows())
	if idle <= 0 || w.done || !w.Descends() || s.keepWhole {
		return
	}
	var total int64
	reading := s.reading()
	for _, other := range reading {
		total += other.Left().Seconds()
	}
	unread := w.AfterAt - w.Gte                                                // seconds below the cursor's
	share := (w.Left().Seconds()*int64(len(reading)+idle) + total - 1) / total // rounded up
	pages := w.perSecond * float64(unread) / float64(pageSize)
	n := int64(min(float64(idle), float64(share-1), pages-1, float64(unread-1)))
	if n <= 0 {
		return
	}
	// Equal lengths, but at most segmentPages. The oldest segment gets the rest: it is split again.
	step := max(1, min(unread/(n+1), int64(segmentPages*float64(pageSize)/w.perSecond)))
	from, rest := w.AfterAt-step, w
	for range n {
		rest = s.splitOff(rest, from)
		from -= step
	}
}

// splitOff splits w: the records of before from become a segment of their own, which it returns.
//
// The newer segment keeps the cursor. Nothing is lost or repeated if w has no cursor, or if every
// record so far came newest first, whatever the order of the rest: no record that has been read is
// in the older segment, and the cursor goes on through the newer one.
func (s *stream) splitOff(w *segment, from int64) *segment {
	older := &segment{Window: state.Window{Gte: w.Gte, Lte: from - 1, Backfill: w.Backfill, Filter: w.Filter}, fresh: w.fresh, id: w.id, fault: w.fault}
	w.Gte = from
	s.segments = slices.Insert(s.segments, slices.Index(s.segments, w)+1, older)
	return older
}

// loopDetector detects a series of cursors that returns to an earlier one, in constant memory
// (Brent's algorithm).
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
