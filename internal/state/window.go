package state

import (
	"cmp"
	"slices"

	"example.com/auditlog/internal/audit"
)

// Window is a range of effective_at that is not read to its end: both ends included, with the
// cursor reached in it. Times are Unix seconds.
type Window struct {
	Gte   int64  `json:"gte"`
	Lte   int64  `json:"lte"`
	After string `json:"after,omitempty"` // "" where reading begins at the start

	// AfterAt is the effective_at of the record that After names, Top that of the first record read.
	AfterAt int64 `json:"after_at,omitempty"`
	Top     int64 `json:"top,omitempty"`
	// TopID is the id of that first record: an ignored cursor brings it again.
	TopID string `json:"top_id,omitempty"`
	// Unordered is set once records of the window did not come newest first.
	Unordered bool `json:"unordered,omitempty"`

	// SetAside is set while the API cannot serve the next page of the window, though it serves others.
	SetAside bool `json:"set_aside,omitempty"`

	// Backfill is the range that was asked for, where the window is of a backfill: it holds no new
	// records, and does not count as lag.
	Backfill Span `json:"backfill,omitzero"`

	// Filter limits the window's records. It is fixed when the window begins, whatever the settings
	// become.
	Filter audit.Filter `json:"filter,omitempty"`

	Unknown string `json:"-"` // see Stream.Unknown
}

// NewestToOldest is the order of a backlog.
func NewestToOldest(a, b Window) int {
	return cmp.Or(cmp.Compare(b.Lte, a.Lte), cmp.Compare(b.Gte, a.Gte))
}

// IsBackfill reports whether the window is of a backfill.
func (w *Window) IsBackfill() bool { return w.Backfill != Span{} }

// Contains reports whether a time is in the window's range.
func (w *Window) Contains(at int64) bool { return w.Gte <= at && at <= w.Lte }

// Descends reports whether the window has been seen to come newest first, so that everything above
// AfterAt is read. Records in order are not enough: those of one second come in any order.
func (w *Window) Descends() bool {
	return w.After != "" && !w.Unordered && w.Contains(w.AfterAt) && w.AfterAt < w.Top
}

// Unread reports whether the window may still bring a record of this time, so that it is not a late one.
func (w *Window) Unread(at int64) bool { return w.Gte <= at && at <= w.LeftTo() }

// LeftTo is the newest second of the window that may hold unread records.
func (w *Window) LeftTo() int64 {
	if w.Descends() {
		return w.AfterAt
	}
	return w.Lte
}

// Left is the part of the window that may hold unread records.
func (w *Window) Left() Span { return Span{Gte: w.Gte, Lte: w.LeftTo()} }

// Advance notes that a page has been taken: the cursor moves to its last record.
func (w *Window) Advance(p audit.Page) {
	last := w.AfterAt
	if last == 0 { // no record is read
		last = w.Lte
	}
	if w.Top == 0 && len(p.Records) > 0 {
		w.Top, w.TopID = p.Records[0].At, p.Records[0].ID
	}
	for _, r := range p.Records {
		w.Unordered = w.Unordered || r.At > last
		last = r.At
	}
	if n := len(p.Records); n > 0 {
		w.Unordered = w.Unordered || p.More && p.Records[n-1].ID != p.Cursor
		w.AfterAt = last
	}
	w.After = p.Cursor
}

// Ignores reports whether a page requested with the window's cursor begins the window again, as
// where something on the way drops the cursor.
func (w *Window) Ignores(p audit.Page) bool {
	return w.After != "" && w.TopID != "" &&
		slices.ContainsFunc(p.Records, func(r audit.Record) bool { return r.ID == w.TopID && r.At == w.Top })
}

// Restart begins the window again without its cursor, which the API refuses. It reports whether
// records may be repeated.
func (w *Window) Restart() (repeats bool) {
	switch {
	case w.AfterAt == 0: // no record is read
	case w.Descends():
		w.Lte = w.AfterAt
	case w.AfterAt == w.Top && !w.Unordered && w.Contains(w.AfterAt):
		// All records read are of this second, and their ids are remembered.
	default:
		repeats = true
	}
	w.After, w.AfterAt, w.Top, w.TopID, w.Unordered = "", 0, 0, "", false
	return repeats
}
