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
	"unicode"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

// Report describes the collection at one time. Times of records are Unix seconds.
type Report struct {
	Time   time.Time `json:"time"`
	State  State     `json:"state"`
	Feed   *Feed     `json:"feed,omitempty"`   // nil: it could not be read
	Errors []string  `json:"errors,omitempty"` // why something is missing
}

// State is the content of the state object.
type State struct {
	Object        string       `json:"object"`    // URL
	Committed     bool         `json:"committed"` // false: no run has yet, and the rest is empty
	Note          string       `json:"note,omitempty"`
	Organization  string       `json:"organization,omitempty"`
	Watermark     int64        `json:"watermark"`
	WatermarkTime time.Time    `json:"watermark_time,omitzero"`
	LagSeconds    int64        `json:"lag_seconds"`
	LastRun       time.Time    `json:"last_run,omitzero"`
	High          int64        `json:"high"`
	Covered       []state.Span `json:"covered"` // newest first; none: unknown
	Gaps          []state.Span `json:"gaps"`    // between them
	Backlog       Backlog      `json:"backlog"`
	Staged        *Staged      `json:"staged,omitempty"`
	RecentIDs     int          `json:"recent_ids"`
	Filter        string       `json:"filter,omitempty"` // of new records; "" for none
	Tenant        *Tenant      `json:"tenant,omitempty"`
}

// Tenant is the stream of tenant-scoped records. The feed has them among the others.
type Tenant struct {
	Watermark     int64     `json:"watermark"`
	WatermarkTime time.Time `json:"watermark_time"`
	LastRun       time.Time `json:"last_run,omitzero"`
	Filter        string    `json:"filter,omitempty"`
	Backlog       Backlog   `json:"backlog"`
	RecentIDs     int       `json:"recent_ids"`
}

// Backlog is what is left to read.
type Backlog struct {
	Windows     []Window `json:"windows"`
	SpanSeconds int64    `json:"span_seconds"` // of the parts left
	AgeSeconds  int64    `json:"age_seconds"`  // of the oldest
}

// Window is a range that is not read to its end.
type Window struct {
	state.Span
	LeftTo   int64  `json:"left_to"` // the newest second that may be unread
	Cursor   string `json:"cursor,omitempty"`
	SetAside bool   `json:"set_aside,omitempty"` // the API cannot serve it
}

func (w Window) left() state.Span { return state.Span{Gte: w.Gte, Lte: w.LeftTo} }

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

// SetWindows sets the backlog and the gaps. Windows are newest first.
func (s *State) SetWindows(covered []state.Span, backlog []Window, now time.Time) {
	s.Covered, s.Gaps, s.Backlog = covered, []state.Span{}, NewBacklog(backlog, now)
	for i := 1; i < len(covered); i++ {
		s.Gaps = append(s.Gaps, state.Span{Gte: covered[i].Lte + 1, Lte: covered[i-1].Gte - 1})
	}
}

// NewBacklog makes a backlog of windows, newest first.
func NewBacklog(windows []Window, now time.Time) Backlog {
	b := Backlog{Windows: windows}
	for _, w := range windows {
		b.SpanSeconds += w.left().Seconds()
		b.AgeSeconds = max(b.AgeSeconds, now.Unix()-w.Gte)
	}
	return b
}

// Feed describes the objects under the feed prefix, without those that the feed has deleted.
type Feed struct {
	Prefix  string    `json:"prefix"` // URL
	Since   time.Time `json:"since"`
	Objects []*Object `json:"objects"` // made since then, newest first
	Older   int       `json:"older_objects"`
	Others  int       `json:"other_objects"` // with names that no run gives
	Other   string    `json:"other_object,omitempty"`
	Bytes   int64     `json:"bytes"`   // of Objects
	Records int       `json:"records"` // in those that were read
	Unread  int       `json:"unread_objects"`
	Bad     int       `json:"bad_lines"`
	Outside int       `json:"records_outside"` // of Hours: mostly older
	Types   []Count   `json:"types"`           // of all records, the most frequent first
	Hours   []Hour    `json:"hours"`           // by effective_at, oldest first

	types map[string]int
	until time.Time
}

// Object is an object under the feed prefix.
type Object struct {
	Name    string    `json:"name"` // below the prefix
	Created time.Time `json:"created"`
	Bytes   int64     `json:"bytes"`
	Read    bool      `json:"read"` // false: the rest means nothing
	Records int       `json:"records"`
	Bad     int       `json:"bad_lines,omitempty"`
	Oldest  int64     `json:"oldest,omitempty"` // effective_at
	Newest  int64     `json:"newest,omitempty"`
}

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

// NewFeed returns a Feed without objects, for the days before now.
func NewFeed(prefix string, days int, now time.Time) *Feed {
	f := &Feed{
		Prefix:  prefix,
		Since:   now.UTC().Add(-time.Duration(days) * 24 * time.Hour).Truncate(time.Hour),
		Objects: []*Object{},
		types:   map[string]int{},
		until:   now.UTC(),
	}
	for t := f.Since; !t.After(f.until); t = t.Add(time.Hour) {
		f.Hours = append(f.Hours, Hour{Start: t})
	}
	return f
}

// AddRecord counts a record of o.
func (f *Feed) AddRecord(o *Object, at int64, typ string) {
	if o.Records == 0 || at < o.Oldest {
		o.Oldest = at
	}
	if o.Records == 0 || at > o.Newest {
		o.Newest = at
	}
	o.Records++
	if typ == "" {
		typ = noType
	}
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

// Finish computes the sums, once all objects are read.
func (f *Feed) Finish() {
	slices.SortStableFunc(f.Objects, func(a, b *Object) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.Name, a.Name))
	})
	f.Bytes, f.Records, f.Unread, f.Bad, f.Types = 0, 0, 0, 0, []Count{}
	for _, o := range f.Objects {
		f.Bytes += o.Bytes
		f.Records += o.Records
		f.Bad += o.Bad
		if !o.Read {
			f.Unread++
		}
	}
	for t, n := range f.types {
		f.Types = append(f.Types, Count{t, n})
	}
	slices.SortFunc(f.Types, func(a, b Count) int {
		return cmp.Or(cmp.Compare(b.Records, a.Records), strings.Compare(a.Type, b.Type))
	})
}

func (f *Feed) days() int { return int(f.until.Sub(f.Since).Hours()) / 24 }

// stamp formats a time for people and programs.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.UTC().Format(time.RFC3339)
}

// span formats a length of time in its two largest units.
func span(seconds int64) string {
	units := []struct {
		name   string
		length int64
	}{{"d", 86400}, {"h", 3600}, {"min", 60}, {"s", 1}}
	for i, u := range units {
		if seconds < u.length {
			continue
		}
		text := fmt.Sprintf("%d %s", seconds/u.length, u.name)
		if i+1 < len(units) {
			if rest := seconds % u.length / units[i+1].length; rest > 0 {
				text += fmt.Sprintf(" %d %s", rest, units[i+1].name)
			}
		}
		return text
	}
	return "0 s"
}

// size formats a number of bytes in the largest unit with a digit before the point.
func size(bytes int64) string {
	if bytes < 1000 {
		return fmt.Sprintf("%d B", bytes)
	}
	n, unit := float64(bytes), ""
	for _, unit = range []string{"kB", "MB", "GB", "TB"} {
		if n /= 1000; n < 999.95 {
			break
		}
	}
	return fmt.Sprintf("%.1f %s", n, unit)
}

// are returns "1 noun is" or "n nouns are".
func are(n int, noun string) string {
	if n == 1 {
		return audit.Count(n, noun) + " is"
	}
	return audit.Count(n, noun) + " are"
}

// printable returns outside text without control codes for the terminal, and of at most this length.
func printable(s string, most int) string {
	runes := []rune(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '·'
		}
		return r
	}, s))
	if len(runes) > most {
		runes = append(runes[:most-1], '…')
	}
	return string(runes)
}

// notes are what a reader must know to judge the figures.
func (f *Feed) notes() []string {
	notes := []string{"Objects that the feed has deleted after transfer are not counted."}
	if f.Unread > 0 {
		notes = append(notes, fmt.Sprintf("%s not read, the oldest: the figures of records are too low. Raise --max-bytes, or lower --days.",
			are(f.Unread, "object")))
	}
	if f.Outside > 0 {
		notes = append(notes, fmt.Sprintf("%s not of these days, and so not in the chart.", are(f.Outside, "record")))
	}
	if f.Bad > 0 {
		notes = append(notes, fmt.Sprintf("%s no record, and not counted.", are(f.Bad, "line")))
	}
	if f.Others > 0 {
		notes = append(notes, fmt.Sprintf("%s under the prefix without being named as a run names its own, such as %s: the feed reads that, too.",
			are(f.Others, "object"), printable(f.Other, 200)))
	}
	return notes
}

func (f *Feed) summary() string {
	older := ""
	if f.Older > 0 {
		older = fmt.Sprintf("; %s older", audit.Number(f.Older))
	}
	return fmt.Sprintf("%s with %s, %s, in %s%s", audit.Count(len(f.Objects), "object"), audit.Count(f.Records, "record"), size(f.Bytes), audit.Count(f.days(), "day"), older)
}

func (s *Staged) fate() string {
	switch s.Now {
	case StagedPublished:
		return "nothing; the last object is published as " + s.PublishesAs
	case StagedPending:
		return fmt.Sprintf("%s (%s): the next run publishes it as %s", s.Object, size(s.Bytes), s.PublishesAs)
	case StagedRewritten:
		return fmt.Sprintf("%s (%s) was written again after its commit: the next run says what becomes of it", s.Object, size(s.Bytes))
	case StagedUnknown:
		return s.Object + ", or it is published by now: it could not be looked for"
	}
	return s.Object + " lies in a bucket that STATE_BUCKET no longer names: set it back for one run"
}
