package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

const (
	now = 1_000_000 // by the host's clock

	filterA audit.Filter = "event_types%5B%5D=a"
	filterB audit.Filter = "event_types%5B%5D=b"
)

// usual are settings that get in no test's way.
func usual(changes ...func(*Settings)) Settings {
	s := Settings{MaxWindows: 64, MaxIDs: 1 << 30, MaxRecords: 1000, PageSize: 10, Overlap: 120, Lookback: 3600}
	for _, change := range changes {
		change(&s)
	}
	return s
}

func withTenant(s *Settings) { s.Tenant = true }

// collected is a stream without a backlog that the collector has read up to high,
// where it remembers nothing.
func collected(high int64, changes ...func(*state.Stream)) *state.Stream {
	s := &state.Stream{Watermark: high, High: high, Own: true, Backlog: []state.Window{}}
	for _, change := range changes {
		change(s)
	}
	s.Watermark = s.ImpliedWatermark()
	return s
}

func backlog(list ...state.Window) func(*state.Stream) {
	return func(s *state.Stream) { s.Backlog = list }
}

// stateOf is a state of these streams; without main there is none.
func stateOf(main, tenant *state.Stream) *state.State {
	if main == nil {
		return nil
	}
	return &state.State{Stream: *main, Tenant: tenant}
}

// rec is a record, at so many seconds from now.
func rec(id string, at int64) audit.Record { return audit.Record{ID: id, At: now + at} }

// page is the last page of a window, with the API's clock as the host's is.
func page(records ...audit.Record) audit.Page {
	p := audit.Page{Records: records, Date: time.Unix(now, 0)}
	if n := len(records); n > 0 {
		p.Cursor = string(records[n-1].ID)
	}
	return p
}

// more is a page that others follow.
func more(records ...audit.Record) audit.Page {
	p := page(records...)
	p.More = true
	return p
}

// dated is a page by another clock; 0 for none.
func dated(p audit.Page, at int64) audit.Page {
	p.Date = time.Time{}
	if at != 0 {
		p.Date = time.Unix(at, 0)
	}
	return p
}

// begin is a plan of a run at now.
func begin(before *state.State, settings Settings) *Plan {
	return New(before, settings, time.Unix(now, 0))
}

// ask is the next request, which must be there.
func ask(t *testing.T, p *Plan) Request {
	t.Helper()
	r, ok := p.Next(false)
	if !ok {
		t.Fatal("no request is wanted")
	}
	return r
}

// take answers the next request with a page, which must be taken.
func take(t *testing.T, p *Plan, pages ...audit.Page) (ids []string) {
	t.Helper()
	for _, pg := range pages {
		o := p.Take(ask(t, p), pg, noOthers, 0)
		if !o.Taken || len(o.Cancel) > 0 {
			t.Fatalf("a page makes %+v, stopped by %v", o, p.Stopped())
		}
		ids = append(ids, idsOf(o.New)...)
	}
	return ids
}

// recent is these ids, each with its time.
func recent(ids map[string]int64) state.Recent {
	var list []state.Remembered
	for id, at := range ids {
		list = append(list, state.Remembered{Identity: audit.Identity{ID: id, At: at}})
	}
	return state.Recent(nil).With(list)
}

// times is the latest time of each id.
func times(r state.Recent) map[string]int64 {
	times := map[string]int64{}
	for _, m := range r {
		times[m.ID] = max(m.At, times[m.ID])
	}
	return times
}

func idsOf(records []audit.Record) (ids []string) {
	for _, r := range records {
		ids = append(ids, r.ID)
	}
	return ids
}

// allRequests answers whatever is wanted with empty pages, and returns it.
func allRequests(t *testing.T, p *Plan) (list []audit.Request) {
	t.Helper()
	for r, ok := p.Next(false); ok; r, ok = p.Next(false) {
		list = append(list, r.Request)
		p.Take(r, page(), noOthers, 0)
	}
	return list
}

// TestWhatIsRead: a new window from an overlap before what is covered, then what
// the backlog has, newest first, each with its own filter.
func TestWhatIsRead(t *testing.T) {
	fresh := func(gte, lte int64) audit.Request { return audit.Request{Gte: gte, Lte: lte, Limit: 10} }
	filtered := func(s *Settings) { s.Filter = filterA }
	old := []state.Window{{Gte: 300, Lte: 400, Filter: filterB}, {Gte: 100, Lte: 500, After: "c", AfterAt: 450, Top: 500, Filter: filterA}, {Gte: 200, Lte: 400}, {Gte: 50, Lte: 60}}
	ofOld := func(list ...int) (requests []audit.Request) {
		for _, i := range list {
			requests = append(requests, audit.Request{Gte: old[i].Gte, Lte: old[i].Lte, After: old[i].After, Filter: old[i].Filter, Limit: 10})
		}
		return requests
	}
	rewound := func(s *state.Stream) { s.Rewound = true }
	tests := []struct {
		name     string
		before   *state.Stream
		settings Settings
		want     []audit.Request
	}{
		{"a first run looks back", nil, usual(), []audit.Request{fresh(now-3600, now)}},
		{"... to 1970 at most", nil, usual(func(s *Settings) { s.Lookback = now + 1 }), []audit.Request{fresh(0, now)}},
		{"an overlap before what is covered", collected(now - 500), usual(), []audit.Request{fresh(now-620, now)}},
		{"... to 1970 at most", collected(50), usual(), []audit.Request{fresh(0, now)}},
		{"... as far as all ids are known", collected(now-500, func(s *state.Stream) { s.RecentSince = now - 550 }), usual(), []audit.Request{fresh(now-550, now)}},
		{"... however far they are", collected(now-500, func(s *state.Stream) { s.RecentSince = now - 900 }), usual(), []audit.Request{fresh(now-620, now)}},
		{"a clock that was set back leaves no gap", collected(now + 700), usual(), []audit.Request{fresh(now+580, now+700)}},
		{"pages no longer than MAX_RECORDS", nil, usual(func(s *Settings) { s.MaxRecords = 3 }), []audit.Request{{Gte: now - 3600, Lte: now, Limit: 3}}},
		{"the backlog, newest first, with its filters", collected(now-500, backlog(old...)), usual(filtered),
			append([]audit.Request{{Gte: now - 620, Lte: now, Limit: 10, Filter: filterA}}, ofOld(1, 0, 2, 3)...)},
		{"a watermark set back: not what the new window has", collected(now-500, backlog(old...), rewound), usual(filtered),
			append([]audit.Request{{Gte: now - 620, Lte: now, Limit: 10, Filter: filterA}}, ofOld(0, 2, 3)...)},
		{"... without a filter", collected(now-500, backlog(old...), rewound), usual(), append([]audit.Request{fresh(now-620, now)}, ofOld(1, 0)...)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, allRequests(t, begin(stateOf(tt.before, nil), tt.settings))); diff != "" {
				t.Errorf("requests differ (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("of both streams", func(t *testing.T) {
		before := stateOf(collected(now-500, backlog(old[3])), collected(now-900, backlog(old[0])))
		got := allRequests(t, begin(before, usual(withTenant)))
		tenantOld := ofOld(0)[0]
		tenantOld.Tenant = true
		want := []audit.Request{fresh(now-620, now), {Gte: now - 1020, Lte: now, Limit: 10, Tenant: true}, ofOld(3)[0], tenantOld}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("requests differ (-want +got):\n%s", diff)
		}
		got = allRequests(t, begin(before, usual()))
		if diff := cmp.Diff([]audit.Request{want[0], want[2]}, got); diff != "" {
			t.Errorf("requests without TENANT_EVENTS differ (-want +got):\n%s", diff)
		}
	})
	t.Run("of a tenant that was never read", func(t *testing.T) {
		got := allRequests(t, begin(stateOf(collected(now-500), nil), usual(withTenant)))
		if diff := cmp.Diff([]audit.Request{fresh(now-620, now), {Gte: now - 3600, Lte: now, Limit: 10, Tenant: true}}, got); diff != "" {
			t.Errorf("requests differ (-want +got):\n%s", diff)
		}
	})
}

// TestHigh pins what the new window covers, and with it where the next begins.
func TestHigh(t *testing.T) {
	rest := more(rec("b", -50))
	whole := page(rec("a", -50))
	tests := []struct {
		name   string
		before *state.Stream
		page   audit.Page
		date   int64 // the API's clock, 0 for none
		want   int64
	}{
		{"read to its end: the newest record", collected(now - 500), whole, now, now - 50},
		{"never back", collected(now - 20), whole, now, now - 20},
		{"read to its end, API's clock at what is covered", collected(now - 500), whole, now - 500, now - 50},
		{"empty: its own end", collected(now - 500), page(), now, now},
		{"empty, local clock fast: the API's clock", collected(now - 500), page(), now - 300, now - 300},
		{"empty, API's clock behind what is covered", collected(now - 500), page(), now - 900, now - 500},
		{"empty, API's clock ahead: its own end", collected(now - 500), page(), now + 900, now},
		{"empty, no clock of the API: as before", collected(now - 500), page(), 0, now - 500},
		{"a rest in the backlog: its own end", collected(now - 500), rest, now, now},
		{"a rest, local clock fast: the API's clock", collected(now - 500), rest, now - 30, now - 30},
		{"a rest, API's clock wrong: the newest record", collected(now - 500), rest, now - 400, now - 50},
		{"a rest, no clock of the API: the newest record", collected(now - 500), rest, 0, now - 50},
		{"a rest beside an older one: its own end", collected(now-500, backlog(state.Window{Gte: 5, Lte: 6})), rest, now, now},
		{"first run: the newest record", nil, whole, now, now - 50},
		{"first run, empty: its own end", nil, page(), now - 20, now - 20},
		{"first run, empty, no clock of the API: its start", nil, page(), 0, now - 3600},
		{"local clock set back: as before", collected(now + 700), page(), now, now + 700},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := begin(stateOf(tt.before, nil), usual())
			take(t, p, dated(tt.page, tt.date))
			if s := p.State(); s.High != tt.want {
				t.Errorf("high %d, want %d", s.High-now, tt.want-now)
			}
		})
	}
}

// TestAppearsWhileRead: what appears while the new window is read, in a second that
// the host's clock has reached and the API's had not, does not move high on:
// others of its kind may have appeared behind the cursor. What the API's clock
// had reached does.
func TestAppearsWhileRead(t *testing.T) {
	for _, tt := range []struct {
		name string
		high int64 // before
		date int64 // the API's clock, at the first page
		late int64 // the record that appears
		want int64
	}{
		{"after the API's clock", -500, -100, -60, -130},
		{"a second after it", -500, -100, -99, -130},
		{"at it", -500, -100, -100, -100},
		{"before it", -500, -100, -101, -101},
		{"after a clock at what was covered", -150, -150, -60, -130},
		{"after a clock that has fallen behind that", -150, -151, -60, -60},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := begin(stateOf(collected(now+tt.high), nil), usual())
			take(t, p, dated(more(rec("a", -130)), now+tt.date), dated(page(rec("b", tt.late)), now))
			if s := p.State(); s.High != now+tt.want || times(s.Recent)["b"] == 0 {
				t.Errorf("high %d, want %d; ids %v", s.High-now, tt.want, s.Recent)
			}
		})
	}
}

// TestUnreadSegment: a segment of the new window that is left counts as its rest,
// also where the segment with its newest records is read; those that nothing is read of
// are one window again.
func TestUnreadSegment(t *testing.T) {
	p := begin(stateOf(collected(now-5000), nil), usual(func(s *Settings) { s.PageSize = 2 }))
	p.Take(ask(t, p), more(rec("a", -10), rec("b", -20)), noOthers, 4)
	var list []Request
	for r, ok := p.Next(false); ok; r, ok = p.Next(false) {
		list = append(list, r)
	}
	if len(list) != 4 || list[0].After != "b" || list[0].Lte != now || list[0].Gte >= now-20 || list[3].Gte != now-5120 {
		t.Fatalf("split into %+v", list)
	}
	for i, r := range list[1:] {
		if r.Lte != list[i].Gte-1 || r.Gte > r.Lte || r.After != "" {
			t.Errorf("segment %d is %+v, after %+v", i+1, r.Request, list[i].Request)
		}
	}
	p.Take(list[0], page(), noOthers, 0)
	s := p.State()
	if s.High != now || len(s.Backlog) != 1 || s.Backlog[0] != (state.Window{Gte: now - 5120, Lte: list[1].Lte}) || s.Watermark != now-5120 || len(s.Covered) != 0 {
		t.Errorf("%+v", s)
	}
}

// TestDateStandsStill: an API whose Date stands still, as behind a cache, and
// whose pages come oldest first, does not hold high up.
func TestDateStandsStill(t *testing.T) {
	p := begin(stateOf(collected(now-500), nil), usual())
	for i, at := range []int64{-600, -400, -50} {
		pg := more(rec(fmt.Sprint(i), at))
		pg.More = i < 2
		take(t, p, dated(pg, now-9000))
	}
	if s := p.State(); s.High != now-50 || len(s.Recent) != 1 {
		t.Errorf("high %d, want -50; ids %v", s.High-now, s.Recent)
	}
}

// TestInclusiveCursor: an API whose page begins with the cursor's own record,
// and the others of its second, repeats nothing.
func TestInclusiveCursor(t *testing.T) {
	d, c, b, a := rec("d", -100), rec("c", -500), rec("b", -500), rec("a", -600)
	p := begin(nil, usual(func(s *Settings) { s.Overlap = 0 }))
	last := page(c, b, a)
	last.Cursor = ""
	got := take(t, p, more(d, c), more(c, b), last)
	if diff := cmp.Diff([]string{"d", "c", "b", "a"}, got); diff != "" {
		t.Errorf("collected differs (-want +got):\n%s", diff)
	}
	if f := p.Figures(); f.Skipped != 3 {
		t.Errorf("%+v", f)
	}
}

// TestFlatMemory: ids are remembered for what can come again only, whatever
// the order.
func TestFlatMemory(t *testing.T) {
	for name, at := range map[string]func(i int64) int64{
		"newest first": func(i int64) int64 { return -i },
		"oldest first": func(i int64) int64 { return i + 1 - now },
	} {
		t.Run(name, func(t *testing.T) {
			p := begin(nil, Settings{MaxWindows: 64, MaxIDs: 1 << 30, MaxRecords: now, PageSize: 100, Overlap: 120, Lookback: now})
			most, least := 0, now
			for i := int64(0); i < 50_000; i += 100 {
				pg := more()
				for j := range int64(100) {
					r := rec(fmt.Sprint(i+j), at(i+j))
					pg.Records, pg.Cursor = append(pg.Records, r), string(r.ID)
				}
				take(t, p, pg)
				n := len(p.streams[0].ids)
				if most, least = max(most, n), min(least, n); n < 100 {
					t.Fatalf("holds %d ids", n)
				}
			}
			if most > 1500 {
				t.Errorf("held %d ids", most)
			}
			if n := len(p.State().Recent); n > 200 {
				t.Errorf("state holds %d ids", n)
			}
		})
	}
}

// TestPrune: ids are looked through once they are twice as many as the last time
// and a thousand, so that this takes a small part of the time.
func TestPrune(t *testing.T) {
	p := begin(nil, Settings{MaxWindows: 64, MaxIDs: 1 << 30, MaxRecords: now, PageSize: now, Overlap: 120, Lookback: now})
	s, seen := p.streams[0], 0
	remember := func(n int, at int64) {
		var records []audit.Record
		for range n {
			seen++
			records = append(records, rec(fmt.Sprint(seen), at))
		}
		take(t, p, more(records...))
	}
	for _, step := range []struct {
		n           int
		at          int64
		ids, pruned int
	}{
		{999, -500, 999, 0}, // all of them are newest, as long as none is newer
		{1, -100, 1000, 0},
		{1, -100, 2, 2}, // these two can come again
		{1002, -50, 1004, 2},
		{1, -50, 1005, 1005},
	} {
		if remember(step.n, step.at); len(s.ids) != step.ids || s.pruned != step.pruned {
			t.Errorf("%d ids, %d after the last look; want %d, %d", len(s.ids), s.pruned, step.ids, step.pruned)
		}
	}
}

// TestRemembers: the state remembers what a later read can bring again, and
// nothing else: what the next new window reaches, what an open window holds that
// another has brought, and records of the second of an open window's cursor.
func TestRemembers(t *testing.T) {
	open := func(gte, lte int64, f audit.Filter) state.Window {
		return state.Window{Gte: now + gte, Lte: now + lte, Filter: f}
	}
	ids := func(list ...audit.Record) func(*state.Stream) {
		return func(s *state.Stream) {
			for _, r := range list {
				s.Recent = s.Recent.With(recent(map[string]int64{r.ID: r.At}))
			}
		}
	}
	filtered := func(s *Settings) { s.Filter = filterA }
	tests := []struct {
		name     string
		before   *state.Stream
		settings Settings
		pages    []audit.Page
		want     []audit.Record
	}{
		{"the overlap", collected(now - 500), usual(), []audit.Page{page(rec("a", 0), rec("b", -120), rec("c", -121))}, []audit.Record{rec("a", 0), rec("b", -120)}},
		{"the overlap, of earlier runs", collected(now-500, ids(rec("a", -500), rec("b", -501), rec("c", -620))), usual(),
			[]audit.Page{page(rec("d", -381))}, []audit.Record{rec("a", -500), rec("b", -501), rec("d", -381)}},
		{"the overlap before the end of an empty window", collected(now-500, ids(rec("a", -500))), usual(), []audit.Page{page()}, nil},
		{"... before the API's clock", collected(now-500, ids(rec("a", -500), rec("b", -501))), usual(), []audit.Page{dated(page(), now-380)}, []audit.Record{rec("a", -500)}},
		{"what an open window shares", collected(now-500, backlog(open(-400, -300, ""))), usual(),
			[]audit.Page{page(rec("a", 0), rec("b", -299), rec("c", -300), rec("d", -400), rec("e", -401))},
			[]audit.Record{rec("a", 0), rec("c", -300), rec("d", -400)}},
		{"... not what it excludes", collected(now-500, backlog(open(-400, -300, filterB))), usual(filtered),
			[]audit.Page{page(rec("a", 0), rec("c", -300))}, []audit.Record{rec("a", 0)}},
		{"... though an earlier run had collected it", collected(now-500, backlog(open(-600, -550, filterB)), ids(rec("a", -550), rec("b", -549))), usual(filtered),
			[]audit.Page{page(rec("c", 0))}, []audit.Record{rec("a", -550), rec("c", 0)}},
		{"not what a window has had by itself, once it goes on", collected(now-500, backlog(open(-9000, -8000, ""))), usual(),
			[]audit.Page{page(), more(rec("a", -8000), rec("b", -8500)), more(rec("c", -8600))}, []audit.Record{rec("c", -8600)}},
		{"the second of the cursor", collected(now-500, backlog(open(-9000, -8000, ""))), usual(),
			[]audit.Page{page(), more(rec("a", -8000), rec("b", -8500), rec("c", -8500)), more(rec("d", -8500))},
			[]audit.Record{rec("b", -8500), rec("c", -8500), rec("d", -8500)}},
		{"nothing of a window that is read to its end", collected(now-500, backlog(open(-9000, -8000, ""))), usual(),
			[]audit.Page{page(), more(rec("a", -8000)), page(rec("b", -8500))}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := slices.Clone(tt.before.Recent)
			p := begin(stateOf(tt.before, nil), tt.settings)
			take(t, p, tt.pages...)
			want := map[string]int64{}
			for _, r := range tt.want {
				want[r.ID] = r.At
			}
			if diff := cmp.Diff(want, times(p.State().Recent)); diff != "" {
				t.Errorf("ids differ (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, tt.before.Recent); diff != "" {
				t.Errorf("changes the state that it began with (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSharedByWindows: what one window has brought, another brings again in vain.
func TestSharedByWindows(t *testing.T) {
	w := state.Window{Gte: now - 400, Lte: now - 300}
	p := begin(stateOf(collected(now-500, backlog(w, w)), nil), usual())
	shared, own := rec("a", -350), rec("b", -360)
	got := take(t, p, page(shared), page(shared, own), page(own, shared, rec("c", -370)))
	if diff := cmp.Diff([]string{"a", "b", "c"}, got); diff != "" {
		t.Errorf("collected differs (-want +got):\n%s", diff)
	}
}

// TestLateness: late is what is older than what the run before has covered, where
// that run has covered the like of it.
func TestLateness(t *testing.T) {
	since := func(s *state.Stream) { s.RecentSince = now - 700 }
	window := state.Window{Gte: now - 560, Lte: now - 500, After: "c", AfterAt: now - 550, Top: now - 510}
	tests := []struct {
		name     string
		before   *state.Stream
		settings Settings
		pages    []audit.Page
		late     int
		most     int64
	}{
		{"late", collected(now-500, since), usual(), []audit.Page{page(rec("a", -499), rec("b", -500), rec("c", -501), rec("d", -600))}, 2, 100},
		{"... whatever the order", collected(now-500, since), usual(), []audit.Page{page(rec("d", -600), rec("c", -501))}, 2, 100},
		{"known", collected(now-500, since, func(s *state.Stream) { s.Recent = s.Recent.With(recent(map[string]int64{"a": now - 600})) }), usual(), []audit.Page{page(rec("a", -600))}, 0, 0},
		{"a first run", nil, usual(), []audit.Page{page(rec("a", -600))}, 0, 0},
		{"after an edit", collected(now-500, since, func(s *state.Stream) { s.Own = false }), usual(), []audit.Page{page(rec("a", -600))}, 0, 0},
		{"after the Python function", collected(now - 500), usual(), []audit.Page{page(rec("a", -600))}, 0, 0},
		{"after other filters", collected(now-500, since, func(s *state.Stream) { s.Filter = filterA }), usual(), []audit.Page{page(rec("a", -600))}, 0, 0},
		{"with the same filter", collected(now-500, since, func(s *state.Stream) { s.Filter = filterA }), usual(func(s *Settings) { s.Filter = filterA }), []audit.Page{page(rec("a", -600))}, 1, 100},
		{"that a window has yet to bring", collected(now-500, since, backlog(window)), usual(), []audit.Page{page(rec("a", -549), rec("b", -550), rec("c", -560), rec("d", -561))}, 2, 61},
		{"through the backlog", collected(now-500, since, backlog(window)), usual(), []audit.Page{page(), page(rec("a", -555))}, 0, 0},
		{"... in whatever order", collected(now-500, since, backlog(window)), usual(), []audit.Page{page(), page(rec("a", -505))}, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := begin(stateOf(tt.before, nil), tt.settings)
			take(t, p, tt.pages...)
			if f := p.Figures(); f.Late != tt.late || f.MaxLateness != tt.most {
				t.Errorf("%d late, by %d s; want %d, %d", f.Late, f.MaxLateness, tt.late, tt.most)
			}
		})
	}
}

// TestCursorRefused: reading goes on from where it was, in one piece, and says
// whether records may be repeated. A window whose cursor is refused twice stops.
func TestCursorRefused(t *testing.T) {
	refused := &audit.Failure{Kind: audit.CursorRefused, Err: fmt.Errorf("no such cursor")}
	for _, tt := range []struct {
		name    string
		first   audit.Page
		next    audit.Request
		repeats bool
	}{
		{"newest first", more(rec("a", -100), rec("b", -200), rec("c", -200)), audit.Request{Gte: now - 620, Lte: now - 200, Limit: 2}, false},
		{"oldest first", more(rec("a", -200), rec("b", -100)), audit.Request{Gte: now - 620, Lte: now, Limit: 2}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := begin(stateOf(collected(now-500), nil), usual(func(s *Settings) { s.PageSize = 2 }))
			take(t, p, tt.first)
			r := ask(t, p)
			o := p.Fail(r, refused)
			text := "reading on from the time reached in it"
			if tt.repeats {
				text = "reading it again from its start, records may be repeated"
			}
			if len(o.Notes) != 1 || o.Notes[0].Severity != Warning || !strings.Contains(o.Notes[0].Text, text) || o.Cancel != nil || p.Stopped() != nil {
				t.Fatalf("it makes %+v, stopped by %v", o, p.Stopped())
			}
			if diff := cmp.Diff([]any{"gte", tt.next.Gte, "lte", tt.next.Lte, "error", "no such cursor"}, o.Notes[0].Attrs); diff != "" {
				t.Errorf("attributes differ (-want +got):\n%s", diff)
			}
			r = ask(t, p)
			if diff := cmp.Diff(tt.next, r.Request); diff != "" || r.First {
				t.Errorf("first %v, the next request differs (-want +got):\n%s", r.First, diff)
			}
			// Records of the cursor's second are known; the rest comes in one piece.
			again := append(slices.Clone(tt.first.Records[1:]), rec("d", -300))
			o = p.Take(r, more(again...), noOthers, 9)
			if diff := cmp.Diff([]string{"d"}, idsOf(o.New)); diff != "" {
				t.Errorf("collected differs (-want +got):\n%s", diff)
			}
			r = ask(t, p)
			if _, ok := p.Next(false); ok {
				t.Error("it is split")
			}
			p.Fail(r, refused)
			if err := p.Failure(); err == nil || err.Error() != "no such cursor" {
				t.Errorf("refused twice: stopped by %v", err)
			}
		})
	}
}

// TestCursorRefusedInCircle: pages that come again after a restart are no circle.
func TestCursorRefusedInCircle(t *testing.T) {
	p := begin(stateOf(collected(now-500), nil), usual())
	one, two := more(rec("a", -200)), more(rec("b", -200))
	take(t, p, one)
	p.Fail(ask(t, p), &audit.Failure{Kind: audit.CursorRefused, Err: fmt.Errorf("no such cursor")})
	if got := take(t, p, one, two); len(got) != 1 {
		t.Errorf("collected %v", got)
	}
	if err := p.Stopped(); err != nil {
		t.Error(err)
	}
}

// TestNextStream: what a run has read becomes the stream that the next begins
// with.
func TestNextStream(t *testing.T) {
	old := []state.Window{{Gte: 300, Lte: 400, Filter: filterB}, {Gte: 50, Lte: 60}}
	known := func(s *state.Stream) { s.Covered = []state.Span{{Gte: 10, Lte: now - 500}} }
	tests := []struct {
		name     string
		before   *state.Stream
		settings Settings
		pages    []audit.Page
		want     state.Stream
	}{
		{"a first one", nil, usual(), []audit.Page{page(rec("a", -50))}, state.Stream{
			High: now - 50, Covered: []state.Span{{Gte: now - 3600, Lte: now - 50}}, Recent: state.Recent{{Identity: audit.Identity{ID: "a", At: now - 50}, Line: rec("a", -50).Hash()}}, RecentSince: now - 170,
		}},
		{"a first one that is new", nil, usual(func(s *Settings) { s.Lookback = 100 }), []audit.Page{page(rec("a", -50))}, state.Stream{
			High: now - 50, Covered: []state.Span{{Gte: now - 100, Lte: now - 50}}, Recent: state.Recent{{Identity: audit.Identity{ID: "a", At: now - 50}, Line: rec("a", -50).Hash()}}, RecentSince: now - 100,
		}},
		{"what is covered goes on", collected(now-500, known), usual(), []audit.Page{page(rec("a", -50))}, state.Stream{
			High: now - 50, Covered: []state.Span{{Gte: 10, Lte: now - 50}}, Recent: state.Recent{{Identity: audit.Identity{ID: "a", At: now - 50}, Line: rec("a", -50).Hash()}}, RecentSince: now - 170,
		}},
		{"with another filter", collected(now-500, known), usual(func(s *Settings) { s.Filter = filterA }), []audit.Page{page(rec("a", -50))}, state.Stream{
			High: now - 50, Covered: []state.Span{{Gte: now - 620, Lte: now - 50, Filter: filterA}, {Gte: 10, Lte: now - 500}}, Filter: filterA,
			Recent: state.Recent{{Identity: audit.Identity{ID: "a", At: now - 50}, Line: rec("a", -50).Hash()}}, RecentSince: now - 170,
		}},
		{"what is not known stays so", collected(now - 500), usual(), []audit.Page{page(rec("a", -50))}, state.Stream{
			High: now - 50, Recent: state.Recent{{Identity: audit.Identity{ID: "a", At: now - 50}, Line: rec("a", -50).Hash()}}, RecentSince: now - 170,
		}},
		{"the backlog without what is read", collected(now-500, backlog(old...)), usual(), []audit.Page{page(), page()}, state.Stream{
			High: now, Backlog: old[1:], RecentSince: now - 120,
		}},
		{"an edit is followed, an untouched stream read", collected(now-500, backlog(old...), func(s *state.Stream) {
			s.Own, s.Rewound, s.Untouched, s.Distinct = false, true, true, true
		}), usual(), []audit.Page{page()}, state.Stream{High: now, Backlog: old[:1], RecentSince: now - 120, Distinct: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := New(stateOf(tt.before, nil), tt.settings, time.Unix(now, 0).In(time.FixedZone("", 3600)))
			take(t, p, tt.pages...)
			tt.want.LastRun, tt.want.Own = "1970-01-12T13:46:40Z", true
			tt.want.Watermark = tt.want.ImpliedWatermark()
			if diff := cmp.Diff(tt.want, p.State().Stream, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("differs (-want +got):\n%s", diff)
			}
			if s := p.State(); s.Backlog == nil {
				t.Error("lists are stored as null")
			}
		})
	}
}

// TestNotAnswered: a stream of which no page of the new window has come stays as
// it is; one that was not there begins with what the look-back reaches, and
// that stays so while it fails.
func TestNotAnswered(t *testing.T) {
	fail := func(p *Plan, r Request, kind audit.Kind) {
		p.Fail(r, &audit.Failure{Kind: kind, Err: fmt.Errorf("refused")})
	}
	untouched := state.Stream{
		Watermark: now - 3600, High: now - 3600, RecentSince: now - 3600, Backlog: []state.Window{},
		Covered: []state.Span{{Gte: now - 3600, Lte: now - 3600, Filter: filterA}}, Filter: filterA, Untouched: true,
	}
	edited := collected(now-500, backlog(state.Window{Gte: 5, Lte: 6}), func(s *state.Stream) { s.Own, s.Rewound, s.LastRun = false, true, "x" })
	later := untouched
	later.Watermark, later.High, later.RecentSince, later.Covered = now-90_000, now-90_000, now-90_000, []state.Span{{Gte: now - 90_000, Lte: now - 90_000, Filter: filterA}}
	tests := []struct {
		name         string
		main, tenant *state.Stream
		kind         audit.Kind
		wantTenant   *state.Stream
	}{
		{"of a tenant that was not there", collected(now - 500), nil, audit.Other, &untouched},
		{"of no tenant", collected(now - 500), nil, audit.Refused, nil},
		{"of a tenant that was never read", collected(now - 500), &later, audit.Other, &later},
		{"of a tenant that was never read, and is refused once", collected(now - 500), &later, audit.Refused, &later},
		{"of a tenant that was read", collected(now - 500), edited, audit.Other, edited},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := begin(stateOf(tt.main, tt.tenant), usual(withTenant, func(s *Settings) { s.Filter = filterA }))
			p.Take(ask(t, p), page(), noOthers, 0)
			fail(p, ask(t, p), tt.kind)
			s := p.State()
			if diff := cmp.Diff(tt.wantTenant, s.Tenant); diff != "" || !p.Answered() || s.High != now {
				t.Errorf("answered %v, high %d; the tenant's differs (-want +got):\n%s", p.Answered(), s.High, diff)
			}
		})
	}
	t.Run("of the others", func(t *testing.T) {
		p := begin(nil, usual(withTenant, func(s *Settings) { s.Filter = filterA }))
		fail(p, ask(t, p), audit.Refused)
		p.Take(ask(t, p), page(), noOthers, 0)
		s := p.State()
		if diff := cmp.Diff(untouched, s.Stream); diff != "" || !p.Answered() || s.Tenant == nil || s.Tenant.High != now {
			t.Errorf("answered %v, tenant %+v; the others' differs (-want +got):\n%s", p.Answered(), s.Tenant, diff)
		}
	})
	t.Run("of none", func(t *testing.T) {
		p := begin(stateOf(edited, nil), usual())
		fail(p, ask(t, p), audit.Other)
		if diff := cmp.Diff(*edited, p.State().Stream); diff != "" || p.Answered() {
			t.Errorf("answered %v, differs (-want +got):\n%s", p.Answered(), diff)
		}
	})
	t.Run("what the look-back reached is read in the end", func(t *testing.T) {
		p := begin(stateOf(collected(now-500), &later), usual(withTenant))
		ask(t, p)
		got := ask(t, p)
		if got.Gte != now-90_000 || got.Lte != now {
			t.Errorf("%+v", got)
		}
	})
}
