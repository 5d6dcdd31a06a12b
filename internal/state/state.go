// Package state defines the state object: for each stream of records, what has been collected and
// what is left to do; and which object is staged.
//
// It promises that a run can continue from every state that it decodes, and that an edit by hand is
// honoured. It is pure: it reads no bucket and no clock; the caller passes the time.
package state

import (
	"slices"
	"time"

	"example.com/auditlog/internal/audit"
)

// MaxBytes bounds the state object: 128 MiB hold about 850,000 remembered records.
const MaxBytes = 128 << 20

// State is the content of the state object.
//
// The Python function's state has only the first two keys, and is read as it is. That function
// reads ours by its first key.
type State struct {
	Stream

	// Tenant is the stream of tenant-scoped records; nil if none was read. Its key is "tenant".
	Tenant *Stream `json:"-"`

	Staging

	// Organization is the records' organization, as the API names it.
	Organization string `json:"organization,omitempty"`

	// Objects counts what has been published, to show what the feed has deleted; nil: no run has counted.
	Objects *Objects `json:"objects,omitempty"`

	// LastBackfill is an id of the last backfill that was added to a backlog.
	LastBackfill string `json:"last_backfill,omitempty"`
}

// Objects counts the objects that commits have made part of the feed.
type Objects struct {
	Count int64 `json:"count"` // the number of the last one
	// Last is its name. Where last_object is another, an older release has published since then.
	Last string `json:"last"`
	// Since is when counting began, Unix seconds: older records may be in objects that are not counted.
	Since int64 `json:"since,omitempty"`
}

// CountObject returns the count with one object more, of this name. It begins anew where some were not
// counted; written is when s was.
func (s *State) CountObject(name string, written time.Time) *Objects {
	next := Objects{Since: max(0, written.Unix()+1)}
	if s.Objects != nil && s.Objects.Last == s.LastObject {
		next = *s.Objects
	}
	next.Count++
	next.Last = name
	return &next
}

// Staging names the object that a commit makes part of the feed.
type Staging struct {
	// LastObject is the final name of the last staged object.
	LastObject string `json:"last_object,omitempty"`
	// Staged names the staged object, until a later state replaces it.
	Staged string `json:"staged,omitempty"`
	// StagedGeneration is the one to publish, 0 for any. After the move, an upload that was sent
	// twice can still arrive late and create an object of the same name.
	StagedGeneration int64 `json:"staged_generation,omitempty"`
	// StagedBucket is its bucket: STATE_BUCKET may have changed since.
	StagedBucket string `json:"staged_bucket,omitempty"`
}

// Stages reports whether Staged names the object of this generation.
func (s Staging) Stages(generation int64) bool {
	return generation != 0 && (s.StagedGeneration == 0 || s.StagedGeneration == generation)
}

// Elsewhere reports whether the staged object lies in another bucket than this.
func (s Staging) Elsewhere(bucket string) bool {
	return s.StagedBucket != "" && s.StagedBucket != bucket
}

// Published returns s without a staged object.
func (s Staging) Published() Staging { return Staging{LastObject: s.LastObject} }

// Stream is what has been collected of one kind of records, and what is left to do. Times are Unix
// seconds.
type Stream struct {
	// Watermark means that all records before it that were asked for are collected. It is High without
	// a backlog, else the oldest Gte of the backlog, backfills included: CollectedTo is how far new
	// records are. The Python function continues from it, and people edit it to read a range again.
	Watermark int64  `json:"last_effective_at"`
	LastRun   string `json:"last_run"` // RFC 3339, UTC

	// High is the end of what windows have covered: the next one begins an overlap before it.
	High    int64    `json:"high"`
	Backlog []Window `json:"backlog"` // newest to oldest

	Filter audit.Filter `json:"filter,omitempty"`

	// Covered is what is collected or in the backlog, newest to oldest, up to High. It is empty
	// where that is unknown, as where another function began the state.
	Covered []Span `json:"covered,omitempty"`

	// Recent are the collected records that a later read can return again. Its keys are "recent_ids",
	// with each id's latest effective_at, and "recent", with the records of each id; older releases
	// read only the first. An id that is not in "recent" means a record of any type.
	Recent Recent `json:"-"`
	// RecentSince is the time from which they are complete. No new window reaches further back, so
	// that OVERLAP_SECONDS may be raised without repeating older records.
	RecentSince int64 `json:"recent_since,omitempty"`

	// Untouched is set while no run has read any of it: the state only has the range of the look-back.
	Untouched bool `json:"unread,omitempty"`

	// Distinct is set once tenant-scoped records were seen to be others than come without tenant_only.
	Distinct bool `json:"apart,omitempty"`

	// Unknown has the members that this release does not know, as text: `,"key":value`, or more.
	Unknown string `json:"-"`

	// Own is set if High and RecentIDs are the collector's own: a record below High that is not
	// among them has appeared late.
	Own bool `json:"-"`
	// Rewound is set if the watermark was set back by hand and no run has committed that yet: the
	// new window reads again what windows with its filter have.
	Rewound bool `json:"-"`
}

// ImpliedWatermark is what last_effective_at must be, given the other keys.
func (s *Stream) ImpliedWatermark() int64 {
	watermark := s.High
	for _, w := range s.Backlog {
		watermark = min(watermark, w.Gte)
	}
	return watermark
}

// CollectedTo is the latest time before which all new records are known to be collected, but for
// windows that are set aside. Backfills are not of new records.
func (s *Stream) CollectedTo() int64 {
	to, open := s.High, false
	for _, w := range s.Backlog {
		if !w.SetAside && !w.IsBackfill() {
			to, open = min(to, w.Gte), true
		}
	}
	if run, err := time.Parse(time.RFC3339, s.LastRun); err == nil && s.Own && !open {
		to = max(to, run.Unix())
	}
	return to
}

// Remaining is what is left of a backfill.
type Remaining struct {
	Span       // as asked for
	Left int64 // seconds
}

// Backfills lists the backfills that are not read to their end, without what is set aside.
func (s *Stream) Backfills() (list []Remaining) {
	for _, w := range s.Backlog {
		if w.SetAside || !w.IsBackfill() {
			continue
		}
		i := slices.IndexFunc(list, func(r Remaining) bool { return r.Span == w.Backfill })
		if i < 0 {
			i, list = len(list), append(list, Remaining{Span: w.Backfill})
		}
		left := w.Left()
		list[i].Left += left.Seconds()
	}
	return list
}

// Backfills lists those of all counted streams. Of one in two streams, more of it is left in one.
func (s *State) Backfills(tenant bool) (list []Remaining) {
	for _, stream := range s.counted(tenant) {
		for _, b := range stream.Backfills() {
			if i := slices.IndexFunc(list, func(r Remaining) bool { return r.Span == b.Span }); i >= 0 {
				list[i].Left = max(list[i].Left, b.Left)
			} else {
				list = append(list, b)
			}
		}
	}
	return list
}

// Gaps lists the ranges that are neither collected nor in the backlog, with any filter, newest first.
func (s *Stream) Gaps() []Span {
	if len(s.Covered) == 0 {
		return nil // unknown
	}
	whole := s.Covered[0]
	for _, c := range s.Covered {
		whole.Gte, whole.Lte = min(whole.Gte, c.Gte), max(whole.Lte, c.Lte)
	}
	whole.Filter = ""
	return whole.Without(s.Covered)
}

// counted lists the streams whose backlog and lag count; tenant is TENANT_EVENTS. A stream that was
// never read shows in the errors of runs instead.
func (s *State) counted(tenant bool) []*Stream {
	if tenant && s.Tenant != nil && !s.Tenant.Untouched {
		return []*Stream{&s.Stream, s.Tenant}
	}
	return []*Stream{&s.Stream}
}

// CollectedTo is the earliest of all counted streams; tenant is TENANT_EVENTS.
func (s *State) CollectedTo(tenant bool) int64 {
	to := s.Stream.CollectedTo()
	for _, stream := range s.counted(tenant) {
		to = min(to, stream.CollectedTo())
	}
	return to
}

// Counts are numbers of windows.
type Counts struct {
	Open     int // of new records, not read to their end
	Backfill int // of backfills
	SetAside int // of both, set aside
}

// Windows counts the windows in the backlogs of all counted streams.
func (s *State) Windows(tenant bool) (n Counts) {
	for _, stream := range s.counted(tenant) {
		for _, w := range stream.Backlog {
			switch {
			case w.SetAside:
				n.SetAside++
			case w.IsBackfill():
				n.Backfill++
			default:
				n.Open++
			}
		}
	}
	return n
}

// Overlap is how many seconds, at the end of what is collected, all records are remembered: the
// shortest of all counted streams.
func (s *State) Overlap(tenant bool) int64 {
	since := s.RecentSince
	overlap := s.High - since
	for _, stream := range s.counted(tenant) {
		overlap, since = min(overlap, stream.High-stream.RecentSince), min(since, stream.RecentSince)
	}
	if since == 0 { // another function's state
		return 0
	}
	return overlap
}

// Adopt prepares the state for a run to build on. It forgets the last run of each stream that an
// edit or another function has left, since no run has looked at what is left to do there.
func (s *State) Adopt() {
	for _, stream := range []*Stream{&s.Stream, s.Tenant} {
		if stream != nil && !stream.Own {
			stream.LastRun = ""
		}
	}
}

// edit makes the other keys follow a watermark that was set by hand. If it moved back, everything
// from it on is read and written again. If it moved forward, everything before it is given up.
func (s *Stream) edit(watermark int64) {
	if watermark < s.ImpliedWatermark() {
		s.High, s.Rewound = watermark, true
		s.Recent = s.Recent.Only(func(r Remembered) bool { return r.At < watermark })
		if s.RecentSince == 0 || s.RecentSince > watermark { // the ids below are not complete
			s.RecentSince = watermark
		}
		return
	}
	var kept []Window
	for _, w := range s.Backlog {
		if watermark > w.LeftTo() {
			continue // nothing of it is left to read
		}
		w.Gte = max(w.Gte, watermark)
		kept = append(kept, w)
	}
	s.Backlog, s.High = kept, max(s.High, watermark)
}
