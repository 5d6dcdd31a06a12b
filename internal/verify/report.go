package verify

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

// Report is what a check has found. Times are UTC.
type Report struct {
	Verdict string `json:"verdict"`
	Right   bool   `json:"right"` // all that was asked for is checked, and right
	Range   Range  `json:"range"`
	Left    []Part `json:"not_checked,omitempty"`

	Records int `json:"records"` // of the API
	Lines   int `json:"lines"`   // of the range, in objects
	Objects int `json:"objects"` // read

	Missing      Findings `json:"missing"`       // the API has it, no object does
	Repeated     Findings `json:"repeated"`      // a second line of the same record
	Altered      Findings `json:"altered"`       // a member of the line is not the API's
	Damaged      Findings `json:"damaged"`       // a line that is no record
	NotCheckable Findings `json:"not_checkable"` // in no object, and the feed has deleted objects
	Enriched     Findings `json:"enriched"`      // the API has added members since
	Foreign      Findings `json:"foreign"`       // in an object, no longer at the API

	// Late is how late, in seconds, a missing record must have appeared at least, if it was not taken out of an
	// object: OVERLAP_SECONDS should be more.
	Late     int64     `json:"late_seconds,omitempty"`
	Repaired *Repaired `json:"repaired,omitempty"`

	mu sync.Mutex
}

// Range is a range of effective_at, both ends included.
type Range struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

func rangeOf(s state.Span) Range { return Range{time.Unix(s.Gte, 0).UTC(), time.Unix(s.Lte, 0).UTC()} }

func (r Range) String() string { return audit.Time(r.From.Unix()) + " to " + audit.Time(r.To.Unix()) }

// Part is a part of the range that is not checked, and why.
type Part struct {
	Range
	Why string `json:"why"`
}

// Findings counts what is found of a kind, and names the first.
type Findings struct {
	Count int       `json:"count"`
	First []Finding `json:"first,omitempty"`
}

// Finding is one record, or line, and where it is: object:line.
type Finding struct {
	ID          string   `json:"id,omitempty"`
	EffectiveAt int64    `json:"effective_at,omitempty"`
	Places      []string `json:"places,omitempty"`
	Error       string   `json:"error,omitempty"`
}

func (f Finding) String() string {
	var list []string
	if f.ID != "" {
		list = append(list, audit.Shorten(f.ID)+" of "+audit.Time(f.EffectiveAt))
	}
	if len(f.Places) > 0 {
		list = append(list, "in "+strings.Join(f.Places, " and "))
	}
	return strings.Join(list, " ") + f.Error
}

// LogValue returns the figures as a group.
func (r *Report) LogValue() slog.Value {
	figures := []slog.Attr{slog.Bool("right", r.Right), slog.Int("records", r.Records), slog.Int("lines", r.Lines), slog.Int("objects", r.Objects)}
	for _, k := range r.Kinds() {
		figures = append(figures, slog.Int(strings.ReplaceAll(k.Name, " ", "_"), k.Count))
	}
	figures = append(figures, slog.Int("not_checked", len(r.Left)), slog.Int64("late_seconds", r.Late))
	if r.Repaired != nil {
		figures = append(figures, slog.Int("repaired", r.Repaired.Records), slog.String("object", r.Repaired.Object))
	}
	return slog.GroupValue(figures...)
}

// mostNamed is how many of a kind are named.
const mostNamed = 100

func (f *Findings) add(id audit.Identity, places ...string) {
	f.name(Finding{ID: id.ID, EffectiveAt: id.At, Places: places})
}

func (f *Findings) name(one Finding) {
	if f.Count++; f.Count <= mostNamed {
		f.First = append(f.First, one)
	}
}

func newReport(sc scope) *Report {
	r := &Report{Range: rangeOf(sc.asked)}
	for _, l := range sc.left {
		r.leave(l)
	}
	return r
}

func (r *Report) leave(l Left) { r.Left = append(r.Left, Part{rangeOf(l.Span), l.Why}) }

func (r *Report) damaged(place string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Damaged.name(Finding{Places: []string{place}, Error: ": " + audit.Shorten(err.Error())})
}

// Kind is what can be found.
type Kind struct {
	Name string
	*Findings
	Fault bool // not only noted
}

// Kinds lists all that can be found, faults first.
func (r *Report) Kinds() []Kind {
	return []Kind{
		{"missing", &r.Missing, true}, {"repeated", &r.Repeated, true}, {"altered", &r.Altered, true}, {"damaged", &r.Damaged, true},
		{"not checkable", &r.NotCheckable, true}, {"enriched", &r.Enriched, false}, {"foreign", &r.Foreign, false},
	}
}

// Repaired is what has become of missing records.
type Repaired struct {
	Records   int    `json:"records"`             // added
	Object    string `json:"object"`              // to this one
	Meanwhile int    `json:"meanwhile,omitempty"` // collected by runs, or left to them, while this was under way
}

// judge sets the verdict.
func (r *Report) judge(allowDeleted bool) {
	var faults, notes []string
	for _, k := range r.Kinds() {
		text := fmt.Sprintf("%d %s", k.Count, k.Name)
		switch {
		case k.Count == 0:
		case k.Findings == &r.Missing && r.Repaired != nil && r.Repaired.Records+r.Repaired.Meanwhile == k.Count:
			notes = append(notes, text+" before the repair")
		case !k.Fault, allowDeleted && k.Findings == &r.NotCheckable:
			notes = append(notes, text)
		default:
			faults = append(faults, text)
		}
	}
	if n := len(r.Left); n > 0 {
		faults = append(faults, audit.Count(n, "part")+" of the range not checked")
	}
	r.Right = len(faults) == 0
	r.Verdict = "right"
	if !r.Right {
		r.Verdict = "not right: " + strings.Join(faults, ", ")
	}
	r.Verdict += fmt.Sprintf("; %s of the API and %s in %s, %s", audit.Count(r.Records, "record"), audit.Count(r.Lines, "line"), audit.Count(r.Objects, "object"), r.Range)
	if len(notes) > 0 {
		r.Verdict += "; noted: " + strings.Join(notes, ", ")
	}
}
