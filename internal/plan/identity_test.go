package plan

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

// typed is a record with a type and bytes of its own.
func typed(id string, at int64, kind, raw string) audit.Record {
	return audit.Record{ID: id, At: at, Type: audit.TypeOf(kind), Line: []byte(raw)}
}

// TestIdentity: records that share an id are as many as their types and times, one
// that comes twice in a page is written once, however old, and one that comes again
// with other bytes is noted and not written.
func TestIdentity(t *testing.T) {
	const at = 999_000 // beyond the overlap
	p := New(nil, Settings{MaxWindows: 64, MaxIDs: 1 << 30, MaxRecords: 100, PageSize: 10, Overlap: 120, Lookback: 3600}, time.Unix(1_000_000, 0))
	r, _ := p.Next(false)
	p.Take(r, audit.Page{Date: time.Unix(1_000_000, 0), More: true, Cursor: "r", Records: []audit.Record{
		typed("r", 1_000_000, "api_key.created", `{"n":1}`),
		typed("r", 1_000_000, "user.added", `{"n":2}`),
	}}, nil, 0)
	r, _ = p.Next(false)
	o := p.Take(r, audit.Page{Records: []audit.Record{
		typed("old", at, "a", `{"n":3}`),
		typed("old", at, "a", `{"n":3}`),
		typed("old", at, "b", `{"n":4}`),
		typed("old", at-1, "a", `{"n":5}`),
		typed("old", at-1, "a", `{"n":6}`),
	}}, nil, 0)
	f := p.Figures()
	if len(o.New) != 3 || f.Records != 5 || f.Skipped != 2 || f.Changed != 1 {
		t.Errorf("%d new, %+v", len(o.New), f)
	}
	if len(o.Notes) != 1 || o.Notes[0].Severity != Warning || !strings.Contains(o.Notes[0].Text, "other bytes") || o.Notes[0].Attrs[1] != "old" {
		t.Errorf("notes %+v", o.Notes)
	}

	// The next run knows what it was.
	var object bytes.Buffer
	if err := state.Encode(&object, p.State()); err != nil {
		t.Fatal(err)
	}
	before, note, err := state.Decode(&object, time.Unix(1_000_060, 0))
	if err != nil || note != "" {
		t.Fatal(err, note)
	}
	p = New(&before, Settings{MaxWindows: 64, MaxIDs: 1 << 30, MaxRecords: 100, PageSize: 10, Overlap: 120, Lookback: 3600}, time.Unix(1_000_060, 0))
	r, _ = p.Next(false)
	o = p.Take(r, audit.Page{Date: time.Unix(1_000_060, 0), Records: []audit.Record{
		typed("r", 1_000_000, "api_key.created", `{"n":1}`),
		typed("r", 1_000_000, "user.added", `{"n":"changed"}`),
		typed("r", 1_000_000, "user.added", `{"n":"changed, too"}`),
		typed("r", 1_000_000, "role.created", `{"n":7}`),
	}}, nil, 0)
	f = p.Figures()
	if len(o.New) != 1 || f.Skipped != 3 || f.Changed != 2 || len(o.Notes) != 1 { // one warning a run
		t.Errorf("%d new, %+v, notes %+v", len(o.New), f, o.Notes)
	}
}

// TestIdentityOfOlderReleases: an id of which no type is stored is that of a record
// of any type at its time, and of no other time.
func TestIdentityOfOlderReleases(t *testing.T) {
	before, _, err := state.Decode(strings.NewReader(`{"last_effective_at":1000000,"high":1000000,"backlog":[],"recent_ids":{"r":1000000},"recent_since":999880}`), time.Unix(1_000_060, 0))
	if err != nil {
		t.Fatal(err)
	}
	p := New(&before, Settings{MaxWindows: 64, MaxIDs: 1 << 30, MaxRecords: 100, PageSize: 10, Overlap: 120, Lookback: 3600}, time.Unix(1_000_060, 0))
	r, _ := p.Next(false)
	o := p.Take(r, audit.Page{Date: time.Unix(1_000_060, 0), Records: []audit.Record{
		typed("r", 1_000_001, "b", `{}`), typed("r", 1_000_000, "a", `{"n":1}`), typed("r", 1_000_000, "b", `{"n":2}`),
	}}, nil, 0)
	if f := p.Figures(); len(o.New) != 1 || o.New[0].At != 1_000_001 || f.Skipped != 2 || f.Changed != 0 {
		t.Errorf("%d new, %+v", len(o.New), f)
	}
}

// TestIgnoredCursor: where the first record of a window comes again, nothing of the
// page is taken, and the window is read on without the cursor; once more, and the
// stream is left to the next run.
func TestIgnoredCursor(t *testing.T) {
	first := audit.Page{Date: time.Unix(1_000_000, 0), More: true, Cursor: "b", Records: []audit.Record{typed("a", 999_990, "k", "1"), typed("b", 999_980, "k", "2")}}
	p := New(nil, Settings{MaxWindows: 64, MaxIDs: 1 << 30, MaxRecords: 100, PageSize: 2, Overlap: 5, Lookback: 3600}, time.Unix(1_000_000, 0))
	r, _ := p.Next(false)
	p.Take(r, first, nil, 0)
	r, _ = p.Next(false)
	again := first
	again.Records = append([]audit.Record{typed("new", 999_999, "k", "0")}, first.Records...)
	o := p.Take(r, again, nil, 0)
	if r.After != "b" || o.Taken || len(o.New) != 0 || len(o.Notes) != 1 || p.Stopped() != nil {
		t.Fatalf("after %q: %+v, stopped by %v", r.After, o, p.Stopped())
	}
	r, _ = p.Next(false)
	if r.After != "" || r.Lte != 999_980 {
		t.Fatalf("reads on with %+v", r)
	}
	below := audit.Page{Date: first.Date, More: true, Cursor: "c", Records: []audit.Record{typed("b", 999_980, "k", "2"), typed("c", 999_970, "k", "3")}}
	if o = p.Take(r, below, nil, 0); len(o.New) != 1 {
		t.Errorf("%+v", o)
	}
	r, _ = p.Next(false)
	if o = p.Take(r, below, nil, 0); o.Taken || p.Failure() == nil || !strings.Contains(p.Failure().Error(), "ignores the cursor") {
		t.Errorf("%+v, stopped by %v", o, p.Stopped())
	}
	if s := p.State(); len(s.Backlog) != 1 || s.Backlog[0].TopID != "b" || p.Figures().Records != 3 {
		t.Errorf("%+v, %+v", s, p.Figures())
	}
}

// TestCursorStands: a cursor that comes back as it was asked with is an error.
func TestCursorStands(t *testing.T) {
	p := New(nil, Settings{MaxWindows: 64, MaxIDs: 1 << 30, MaxRecords: 100, PageSize: 1, Overlap: 5, Lookback: 3600}, time.Unix(1_000_000, 0))
	r, _ := p.Next(false)
	p.Take(r, audit.Page{More: true, Cursor: "a", Records: []audit.Record{typed("a", 999_990, "k", "1")}}, nil, 0)
	r, _ = p.Next(false)
	o := p.Take(r, audit.Page{More: true, Cursor: "a", Records: []audit.Record{typed("b", 999_980, "k", "2")}}, nil, 0)
	if o.Taken || len(o.Notes) != 1 || !strings.Contains(o.Notes[0].Attrs[5].(string), "does not advance") {
		t.Errorf("%+v, stopped by %v", o, p.Stopped())
	}
}

// TestHollowPages: pages without records that more follow are followed, and the hole
// is named once its end is known. One at the beginning leaves the order unknown.
func TestHollowPages(t *testing.T) {
	hollow := func(cursor string) audit.Page {
		return audit.Page{Date: time.Unix(1_000_000, 0), More: true, Cursor: cursor}
	}
	full := func(cursor string, at ...int64) audit.Page {
		p := audit.Page{Date: time.Unix(1_000_000, 0), More: cursor != "", Cursor: cursor}
		for _, at := range at {
			p.Records = append(p.Records, typed(cursor, at, "k", "1"))
		}
		return p
	}
	for _, tt := range []struct {
		name     string
		pages    []audit.Page
		from, to int64 // of the hole
		descends bool  // before the last page
	}{
		{"in the middle", []audit.Page{full("a", 999_990, 999_900), hollow("h"), hollow("i"), full("", 999_800)}, 999_800, 999_900, true},
		{"at the beginning", []audit.Page{hollow("h"), full("b", 999_990), full("", 999_980)}, 999_990, 1_000_000, false},
		{"at the end", []audit.Page{full("a", 999_990, 999_900), hollow("h"), full("")}, 996_400, 999_900, true},
	} {
		p := New(nil, Settings{MaxWindows: 64, MaxIDs: 1 << 30, MaxRecords: 100, PageSize: 2, Overlap: 5, Lookback: 3600}, time.Unix(1_000_000, 0))
		var notes []Note
		for i, page := range tt.pages {
			r, ok := p.Next(false)
			if !ok {
				t.Fatalf("%s: no request for page %d", tt.name, i)
			}
			if w := r.segment; i == len(tt.pages)-1 && w.Descends() != tt.descends {
				t.Errorf("%s: %+v descends: %v", tt.name, w.Window, w.Descends())
			}
			o := p.Take(r, page, nil, 0)
			if !o.Taken {
				t.Fatalf("%s: page %d makes %+v, stopped by %v", tt.name, i, o, p.Stopped())
			}
			notes = append(notes, o.Notes...)
		}
		want := "records from " + audit.Time(tt.from) + " to " + audit.Time(tt.to)
		if len(notes) != 1 || notes[0].Severity != Warning || !strings.HasSuffix(notes[0].Text, want) || p.Stopped() != nil {
			t.Errorf("%s: notes %+v, want %s; stopped by %v", tt.name, notes, want, p.Stopped())
		}
	}
}

// TestCursorIgnoredOnce: a page that was answered as if without its cursor, and has
// nothing but records newer than the window's first, is taken for the next one. A later
// run finds that the cursor is wrong, and begins the window anew.
func TestCursorIgnoredOnce(t *testing.T) {
	rec := func(id string, at int64) audit.Record { return typed(id, at, "k", `"`+id+`"`) }
	log := []audit.Record{rec("a", 999_990), rec("b", 999_980), rec("c", 999_970)}
	var s *state.State
	ignore := true
	var failed error
	for now := int64(1_000_000); now < 1_030_000; now += 3600 {
		p := New(s, Settings{MaxWindows: 64, MaxIDs: 1 << 30, MaxRecords: 4, PageSize: 2, Overlap: 15, Lookback: 3600}, time.Unix(now, 0))
		for r, ok := p.Next(false); ok; r, ok = p.Next(false) {
			if r.After == "b" && ignore {
				ignore = false
				log = append([]audit.Record{rec("n", 999_999), rec("m", 999_998)}, log...) // late, within the overlap
				r.Request.After = ""
			}
			p.Take(r, (&pager{records: log}).page(r.Request, time.Unix(now, 0)), nil, 0)
		}
		next := stored(t, p.State(), time.Unix(now, 0))
		s, failed = &next, p.Failure()
	}
	if ignore || len(s.Backlog) > 0 || failed != nil {
		t.Errorf("%v: %+v", failed, s.Backlog)
	}
}

// TestEmptyLastPage: a last page without records repeats none, whatever its cursor.
func TestEmptyLastPage(t *testing.T) {
	p := New(nil, Settings{MaxWindows: 64, MaxIDs: 1 << 30, MaxRecords: 100, PageSize: 1, Overlap: 120, Lookback: 3600}, time.Unix(1_000_000, 0))
	r, _ := p.Next(false)
	p.Take(r, audit.Page{More: true, Cursor: "a", Records: []audit.Record{typed("a", 999_990, "k", "1")}}, nil, 0)
	r, _ = p.Next(false)
	p.Take(r, audit.Page{Cursor: "a"}, nil, 0)
	if p.Stopped() != nil || len(p.State().Backlog) > 0 {
		t.Errorf("stopped by %v: %+v", p.Stopped(), p.State())
	}
}

// TestUpgradeSharedID: an id of which an older release kept only the time stays known
// beside a record with the same id and a type.
func TestUpgradeSharedID(t *testing.T) {
	before, _, err := state.Decode(strings.NewReader(`{"last_effective_at":1000000,"high":1000000,"backlog":[],"recent_ids":{"r":999999,"x":1000000},"recent_since":999880}`), time.Unix(1_000_060, 0))
	if err != nil {
		t.Fatal(err)
	}
	s := &before
	for i, want := range []int{1, 0} {
		now := time.Unix(1_000_060+60*int64(i), 0)
		p := New(s, Settings{MaxWindows: 64, MaxIDs: 1 << 30, MaxRecords: 100, PageSize: 10, Overlap: 120, Lookback: 3600}, now)
		r, _ := p.Next(false)
		o := p.Take(r, audit.Page{Date: now, Records: []audit.Record{
			typed("r", 1_000_000, "b", `{"n":2}`), typed("x", 1_000_000, "a", `{"n":0}`), typed("r", 999_999, "a", `{"n":1}`),
		}}, nil, 0)
		if len(o.New) != want {
			t.Errorf("run %d: %+v", i, o.New)
		}
		next := stored(t, p.State(), now)
		s = &next
	}
}
