// Package report shows the state of the collection: as text, as JSON, and as a page with plots.
// Read makes a Report; every output is a pure function of it.
//
// It promises to change nothing. It knows nothing about the API or how a run reads.
package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

// Report describes the collection at one time. Times are RFC 3339; those of records are also Unix
// seconds, as in the API.
type Report struct {
	Time    time.Time `json:"time"`
	OK      bool      `json:"ok"`
	Verdict string    `json:"verdict"` // one line
	State   State     `json:"state"`
	Feed    *Feed     `json:"feed,omitempty"`   // nil: it could not be read
	Errors  []string  `json:"errors,omitempty"` // why something is missing
}

// State is the content of the state object.
type State struct {
	Object       string `json:"object"`    // URL
	Committed    bool   `json:"committed"` // false: no run has yet, and the rest is empty
	Note         string `json:"note,omitempty"`
	Organization string `json:"organization,omitempty"`
	LagSeconds   int64  `json:"lag_seconds"` // of new records, in all streams that runs read
	Stream
	Staged *Staged `json:"staged,omitempty"`
	Tenant *Stream `json:"tenant,omitempty"` // the feed has its records among the others
}

// Stream is how far one kind of records is collected.
type Stream struct {
	CollectedTo     int64      `json:"collected_to"` // new records, but for what is set aside
	CollectedToTime time.Time  `json:"collected_to_time,omitzero"`
	Watermark       int64      `json:"watermark"` // last_effective_at
	WatermarkTime   time.Time  `json:"watermark_time,omitzero"`
	High            int64      `json:"high"`
	HighTime        time.Time  `json:"high_time,omitzero"`
	LastRun         time.Time  `json:"last_run,omitzero"`
	Filter          string     `json:"filter,omitempty"` // of new records; "" for none
	Collected       []Range    `json:"collected"`        // newest first
	Unknown         bool       `json:"collected_since_unknown,omitempty"`
	Gaps            []Range    `json:"gaps"`      // neither collected nor asked for
	Windows         []Window   `json:"windows"`   // not read to their end, newest first
	Backfills       []Backfill `json:"backfills"` // their windows are among those
	RecentIDs       int        `json:"recent_ids"`
}

// Range is a range of effective_at.
type Range struct {
	state.Span
	GteTime time.Time `json:"gte_time"`
	LteTime time.Time `json:"lte_time"`
	Filter  string    `json:"filter,omitempty"` // of the records that are collected; "" for none
}

// NewRange makes a range.
func NewRange(s state.Span) Range { return Range{s, unix(s.Gte), unix(s.Lte), filterText(s.Filter)} }

// NewRanges makes a list, empty for none.
func NewRanges(spans []state.Span) []Range {
	list := []Range{}
	for _, s := range spans {
		list = append(list, NewRange(s))
	}
	return list
}

// Window is a range that is not read to its end.
type Window struct {
	Range
	LeftTo     int64     `json:"left_to"` // the newest second that may be unread
	LeftToTime time.Time `json:"left_to_time"`
	Kind       string    `json:"kind"`
}

// Kinds of windows.
const (
	KindNew      = "new"       // of new records
	KindBackfill = "backfill"  // of a backfill
	KindSetAside = "set_aside" // of any, which the API cannot serve
)

func (w Window) left() state.Span { return state.Span{Gte: w.Gte, Lte: w.LeftTo} }

// Backfill is a range of the past that is not read to its end.
type Backfill struct {
	Range             // as asked for
	LeftSeconds int64 `json:"left_seconds"`
}

// emptyStream has lists, so that JSON has no null.
func emptyStream() Stream {
	return Stream{Collected: []Range{}, Gaps: []Range{}, Windows: []Window{}, Backfills: []Backfill{}}
}

func newStream(s *state.Stream) Stream {
	r := emptyStream()
	r.CollectedTo, r.CollectedToTime = s.CollectedTo(), unix(s.CollectedTo())
	r.Watermark, r.WatermarkTime = s.Watermark, unix(s.Watermark)
	r.High, r.HighTime = s.High, unix(s.High)
	r.Filter, r.RecentIDs = filterText(s.Filter), len(s.Recent)
	r.Collected, r.Unknown, r.Gaps = NewRanges(collected(s)), len(s.Covered) == 0, NewRanges(s.Gaps())
	r.LastRun, _ = time.Parse(time.RFC3339, s.LastRun) // anything else means unknown
	for _, w := range s.Backlog {
		kind := KindNew
		switch {
		case w.SetAside:
			kind = KindSetAside
		case w.IsBackfill():
			kind = KindBackfill
		}
		r.Windows = append(r.Windows, Window{NewRange(state.Span{Gte: w.Gte, Lte: w.Lte, Filter: w.Filter}), w.LeftTo(), unix(w.LeftTo()), kind})
	}
	for _, b := range s.Backfills() {
		r.Backfills = append(r.Backfills, Backfill{NewRange(b.Span), b.Left})
	}
	return r
}

// collected is what is covered, without what is left to read with the same filter.
func collected(s *state.Stream) (list []state.Span) {
	for _, c := range s.Covered {
		var left []state.Span
		for _, w := range s.Backlog {
			if w.Filter == c.Filter {
				left = append(left, w.Left())
			}
		}
		list = append(list, c.Without(left)...)
	}
	return list
}

// of lists the windows of a kind.
func (s *Stream) of(kind string) (list []Window) {
	for _, w := range s.Windows {
		if w.Kind == kind {
			list = append(list, w)
		}
	}
	return list
}

func unix(at int64) time.Time { return time.Unix(at, 0).UTC() }

// filterText is "" for no filter.
func filterText(f audit.Filter) string {
	if f == "" {
		return ""
	}
	return f.String()
}

// judge says in one line whether new records are collected as they should be.
func (r *Report) judge(maxLag time.Duration) {
	s := &r.State
	if !s.Committed {
		r.Verdict = "no run has committed yet"
		return
	}
	lag := time.Duration(s.LagSeconds) * time.Second
	r.OK = lag <= maxLag && len(r.Errors) == 0
	r.Verdict = fmt.Sprintf("new records are collected up to %s, %s ago", stamp(r.Time.Add(-lag)), span(s.LagSeconds))
	if lag > maxLag {
		r.Verdict += ", which is more than " + span(int64(maxLag.Seconds()))
	}
	if s.Staged != nil && s.Staged.Now == StagedElsewhere {
		r.OK, r.Verdict = false, r.Verdict+"; runs fail, since what is staged lies in another bucket"
	}
	backfills := map[state.Span]bool{}
	aside, gaps := 0, 0
	for _, stream := range s.streams() {
		aside, gaps = aside+len(stream.of(KindSetAside)), gaps+len(stream.Gaps)
		for _, b := range stream.Backfills {
			backfills[b.Span] = true // may be in both
		}
	}
	also := func(n int, noun, what string) {
		if n > 0 {
			r.Verdict += "; " + audit.Count(n, noun) + what
		}
	}
	also(len(backfills), "backfill", " under way")
	also(aside, "range", " set aside")
	also(gaps, "gap", "")
	also(len(r.Errors), "part", " that could not be read")
}

func (s *State) streams() []*Stream {
	if s.Tenant == nil {
		return []*Stream{&s.Stream}
	}
	return []*Stream{&s.Stream, s.Tenant}
}

// Headline is the verdict for people.
func (r *Report) Headline() string {
	if r.OK {
		return "OK: " + r.Verdict
	}
	return "NOT OK: " + r.Verdict
}

// Staged is the object that the state names as staged.
type Staged struct {
	Object      string `json:"object"` // URL
	PublishesAs string `json:"publishes_as"`
	Now         string `json:"now"` // one of those below
	Bytes       int64  `json:"bytes,omitempty"`
}

// What may have become of a staged object. The state names it until the next commit: published is
// the usual case.
const (
	StagedPublished = "published" // it is no longer there
	StagedPending   = "pending"   // the next run publishes it
	StagedRewritten = "rewritten" // its name has another object; the next run looks into it
	StagedElsewhere = "elsewhere" // in a bucket that STATE_BUCKET no longer names: runs fail
	StagedUnknown   = "unknown"   // it could not be looked for
)

// Feed describes the objects under the feed prefix, without those that the feed has deleted.
type Feed struct {
	Prefix  string    `json:"prefix"` // URL
	Since   time.Time `json:"since"`
	Objects []*Object `json:"objects"` // made since then, newest first
	Older   int       `json:"older_objects"`
	Others  int       `json:"other_objects"` // with names that no run gives
	Other   string    `json:"other_object,omitempty"`
	Bytes   int64     `json:"bytes"`   // of Objects
	Records int       `json:"records"` // in those that were read, each counted once
	Repeats int       `json:"repeats"` // beside those
	Unread  int       `json:"unread_objects"`
	Bad     int       `json:"bad_lines"`
	Outside int       `json:"records_outside"` // of Hours: mostly older
	Types   []Count   `json:"types"`           // of all records, the most frequent first
	Hours   []Hour    `json:"hours"`           // by effective_at, oldest first

	days  int
	types map[string]int
}

// Object is an object under the feed prefix.
type Object struct {
	Name    string    `json:"name"` // below the prefix
	Created time.Time `json:"created"`
	Bytes   int64     `json:"bytes"`
	Read    bool      `json:"read"` // false: the rest means nothing
	Records int       `json:"records"`
	Repeats int       `json:"repeats,omitempty"` // of those, records that an older object has, too
	Bad     int       `json:"bad_lines,omitempty"`

	Oldest     int64     `json:"oldest,omitempty"` // effective_at, without repeats
	OldestTime time.Time `json:"oldest_time,omitzero"`
	Newest     int64     `json:"newest,omitempty"`
	NewestTime time.Time `json:"newest_time,omitzero"`

	lines []audit.Line
}

// own is the number of records that no older object has.
func (o *Object) own() int { return o.Records - o.Repeats }

// Count is the number of records of a type.
type Count struct {
	Type    string `json:"type"`
	Records int    `json:"records"`
}

// Hour has the number of records of one hour.
type Hour struct {
	Start   time.Time      `json:"start"`
	Records int            `json:"records"`
	Types   map[string]int `json:"types,omitempty"`
}

const (
	maxTypes   = 200 // that are counted separately
	otherTypes = "(other types)"
	noType     = "(no type)"
)

// newFeed returns a Feed without objects, for the days before now.
func newFeed(prefix string, days int, now time.Time) *Feed {
	f := &Feed{
		Prefix:  prefix,
		Since:   now.UTC().Add(-time.Duration(days) * 24 * time.Hour).Truncate(time.Hour),
		Objects: []*Object{},
		days:    days,
		types:   map[string]int{},
	}
	for t := f.Since; !t.After(now); t = t.Add(time.Hour) {
		f.Hours = append(f.Hours, Hour{Start: t})
	}
	return f
}

// count counts the records of an object. A record that an older one has, too, counts once: a backfill
// with --again writes its range once more.
func (f *Feed) count(o *Object, seen map[uint64]bool) {
	for _, l := range o.lines {
		o.Records++
		if seen[l.Hash] {
			o.Repeats++
			continue
		}
		seen[l.Hash] = true
		if o.own() == 1 {
			o.Oldest, o.Newest = l.At, l.At
		}
		o.Oldest, o.Newest = min(o.Oldest, l.At), max(o.Newest, l.At)
		f.countRecord(l.At, l.Type)
	}
	if o.lines = nil; o.own() > 0 {
		o.OldestTime, o.NewestTime = unix(o.Oldest), unix(o.Newest)
	}
}

func (f *Feed) countRecord(at int64, typ string) {
	typ = cmp.Or(typ, noType)
	if f.types[typ] == 0 && len(f.types) >= maxTypes {
		typ = otherTypes
	}
	f.types[typ]++
	i := int(math.Floor(float64(at-f.Since.Unix()) / 3600))
	if i < 0 || i >= len(f.Hours) {
		f.Outside++
		return
	}
	h := &f.Hours[i]
	if h.Types == nil {
		h.Types = map[string]int{}
	}
	h.Records++
	h.Types[typ]++
}

// finish computes the sums, once all objects are read.
func (f *Feed) finish() {
	seen := map[uint64]bool{}
	for _, o := range slices.Backward(f.Objects) {
		f.count(o, seen)
		f.Bytes += o.Bytes
		f.Records += o.own()
		f.Repeats += o.Repeats
		f.Bad += o.Bad
		if !o.Read {
			f.Unread++
		}
	}
	f.Types = []Count{}
	for t, n := range f.types {
		f.Types = append(f.Types, Count{t, n})
	}
	slices.SortFunc(f.Types, func(a, b Count) int {
		return cmp.Or(cmp.Compare(b.Records, a.Records), strings.Compare(a.Type, b.Type))
	})
}
