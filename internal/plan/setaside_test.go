package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

// faulty is an API that cannot serve a page with certain records.
type faulty struct {
	pager
	bad   map[string]bool
	down  bool // it serves nothing
	asked int
	retry int // of those, requests that are sent again if they fail
}

// run reads once at a time, one request after the other, and returns what is written
// and the state that follows.
func (f *faulty) run(t *testing.T, before *state.State, settings Settings, at int64) (p *Plan, written []audit.Record, next state.State) {
	t.Helper()
	f.asked, f.retry = 0, 0
	reader := &reader{
		t: t, width: 1,
		send: func(r Request) answer {
			if f.asked++; !r.Once {
				f.retry++
			}
			got := f.page(r.Request, time.Unix(at, 0))
			if f.down || slices.ContainsFunc(got.Records, func(r audit.Record) bool { return f.bad[r.ID] }) {
				return failed(audit.Unserved)
			}
			return answer{page: got}
		},
		arrive: func(_ Request, _ bool, a answer) answer { return a },
	}
	p, written, _ = reader.run(New(before, settings, time.Unix(at, 0)))
	if p.Answered() {
		return p, written, stored(t, p.State(), time.Unix(at, 0))
	}
	return p, written, state.State{}
}

// everySecond is an API with a record each second from one time to another, newest first.
func everySecond(from, to int64) *faulty {
	f := &faulty{pager: pager{compare: newestFirst}, bad: map[string]bool{}}
	for at := to; at >= from; at-- {
		f.records = append(f.records, audit.Record{ID: fmt.Sprint(at), At: at})
	}
	return f
}

// TestBadRecord: a record that the API cannot serve, wherever it is, keeps only itself
// from being collected. Its second is set aside: runs ask for it once each, report it,
// and collect it when the API is well again.
func TestBadRecord(t *testing.T) {
	backlogOf := func(list ...state.Window) *state.State {
		s := stateOf(collected(now-500, backlog(list...)), nil)
		for _, w := range list {
			if w.After != "" {
				s.Recent = s.Recent.With(recent(map[string]int64{w.After: w.AfterAt}))
			}
		}
		return s
	}
	for name, tt := range map[string]struct {
		before *state.State
		bad    int64
		first  int64 // record
	}{
		"newest of a first run":           {nil, now, now - 1000},
		"in a first run":                  {nil, now - 400, now - 1000},
		"oldest of a first run":           {nil, now - 1000, now - 1000},
		"of the new window":               {backlogOf(), now - 3, now - 500},
		"at the top of a backlog":         {backlogOf(state.Window{Gte: now - 900, Lte: now - 700}, state.Window{Gte: now - 1500, Lte: now - 1200}), now - 700, now - 1500},
		"at the end of a backlog":         {backlogOf(state.Window{Gte: now - 900, Lte: now - 700}), now - 900, now - 900},
		"below a cursor":                  {backlogOf(state.Window{Gte: now - 900, Lte: now - 700, After: fmt.Sprint(now - 750), AfterAt: now - 750, Top: now - 700}), now - 751, now - 900},
		"below a cursor of its own time":  {backlogOf(state.Window{Gte: now - 900, Lte: now - 700, After: fmt.Sprint(now - 700), AfterAt: now - 700, Top: now - 700}), now - 701, now - 900},
		"in a window of the tenth of day": {backlogOf(state.Window{Gte: now - 9000, Lte: now - 700}), now - 5000, now - 9000},
	} {
		t.Run(name, func(t *testing.T) {
			settings := usual(func(s *Settings) { s.MaxRecords = 100_000 })
			api := everySecond(tt.first, now)
			api.bad[fmt.Sprint(tt.bad)] = true
			p, written, s := api.run(t, tt.before, settings, now)
			counts := map[int64]int{}
			for _, r := range written {
				counts[r.At]++
			}
			if err := p.Failure(); err == nil || !strings.HasPrefix(err.Error(), "the API cannot serve 1 range, set aside while the rest is read: no page") {
				t.Errorf("failure %v", err)
			}
			if len(s.Backlog) != 1 || s.Backlog[0].Left() != (state.Span{Gte: tt.bad, Lte: tt.bad}) || !s.Backlog[0].SetAside {
				t.Fatalf("backlog %+v", s.Backlog)
			}
			if pages := len(api.records) / settings.PageSize; api.retry > pages+3 || api.asked > pages+40 {
				t.Errorf("%d requests, %d of them with retries, for %d pages", api.asked, api.retry, pages)
			}
			notes := p.Finish()
			if len(notes) != 1 || notes[0].Severity != Error || !strings.Contains(notes[0].Text, "--cancel --from "+audit.Time(tt.bad)+" --to "+audit.Time(tt.bad)) {
				t.Errorf("notes %+v", notes)
			}

			// The next run asks once, and collects what is new.
			api.add(audit.Record{ID: "new", At: now + 60})
			p, written, s = api.run(t, &s, settings, now+60)
			if len(written) != 1 || p.Failure() == nil || api.asked > 14 || api.retry != api.asked-1 || len(s.Backlog) != 1 || !s.Backlog[0].SetAside {
				t.Errorf("%d records, failure %v, %d requests, %d with retries, backlog %+v", len(written), p.Failure(), api.asked, api.retry, s.Backlog)
			}
			counts[now+60]++

			clear(api.bad)
			p, written, s = api.run(t, &s, settings, now+120)
			if len(written) != 1 || written[0].At != tt.bad || p.Failure() != nil || len(s.Backlog) > 0 {
				t.Errorf("once it is well: %+v, failure %v, backlog %+v", written, p.Failure(), s.Backlog)
			}
			counts[tt.bad]++
			for _, r := range api.records {
				read := tt.before == nil || r.At >= now-500-120 // else in the backlog, below the cursor
				if tt.before != nil {
					for _, w := range tt.before.Backlog {
						left := w.Left()
						read = read || left.Gte <= r.At && r.At <= left.Lte && r.ID != w.After
					}
				}
				if want := map[bool]int{true: 1}[read]; counts[r.At] != want {
					t.Errorf("record at %d was written %d times, want %d", r.At, counts[r.At], want)
				}
			}
		})
	}
}

// TestOutage: where no page comes, no window is to blame: what is left is as it was,
// and few requests find that out.
func TestOutage(t *testing.T) {
	wide := backlog(state.Window{Gte: 100_000, Lte: 200_000}, state.Window{Gte: 50_000, Lte: 90_000}, state.Window{Gte: 10_000, Lte: 20_000})
	for name, before := range map[string]*state.State{"first run": nil, "backlog": stateOf(collected(now-500, wide), nil)} {
		t.Run(name, func(t *testing.T) {
			api := everySecond(now-1000, now)
			api.down = true
			p, _, _ := api.run(t, before, usual(), now)
			if p.Answered() || p.Failure() == nil || p.Failure().Error() != "no page" || api.asked > 2*maxFailures || api.retry != 1 {
				t.Errorf("answered %v, failure %v, %d requests, %d with retries", p.Answered(), p.Failure(), api.asked, api.retry)
			}
		})
	}
	before := stateOf(collected(now-500, wide), nil)
	p := freshRead(t, before, usual())
	asked, retry := 0, 0
	for r, ok := p.Next(false); ok; r, ok = p.Next(false) {
		if asked++; !r.Once {
			retry++
		}
		fail(p, r, audit.Unserved, "no page")
	}
	if p.Failure() == nil || p.Failure().Error() != "no page" || asked > 2*maxFailures+2 || retry != 1 {
		t.Errorf("after the new window: failure %v, %d requests, %d with retries", p.Failure(), asked, retry)
	}
	if left, list := p.State().Backlog, before.Backlog; !slices.Equal(left[len(left)-2:], list[1:]) {
		t.Errorf("windows beside the first are %+v", left)
	}
	if notes := p.Finish(); len(notes) > 0 {
		t.Errorf("notes %+v", notes)
	}
}

// TestFaultOfAFilter: a page with another filter proves nothing: the API may refuse the
// filter.
func TestFaultOfAFilter(t *testing.T) {
	p := freshRead(t, stateOf(collected(now-500, backlog(state.Window{Gte: 300, Lte: 300, Filter: filterA}, state.Window{Gte: 200, Lte: 200, Filter: filterB}, state.Window{Gte: 100, Lte: 100})), nil), usual())
	fail(p, ask(t, p), audit.BadRequest, "bad filter")
	p.Take(ask(t, p), page(), noOthers, 0)
	p.Take(ask(t, p), page(), noOthers, 0)
	stopped(t, p, "bad filter", "bad filter")
	if s, notes := p.State(), p.Finish(); len(s.Backlog) != 1 || len(notes) > 0 {
		t.Errorf("backlog %+v, notes %+v", s.Backlog, notes)
	}
}

// TestSetAsideWhole: a window whose order is not known to be newest first stays whole, and
// keeps its cursor; the rest is read.
func TestSetAsideWhole(t *testing.T) {
	bad := state.Window{Gte: 300, Lte: 400, After: "c", AfterAt: 350, Top: 340, Unordered: true}
	p := freshRead(t, stateOf(collected(now-500, backlog(bad, state.Window{Gte: 100, Lte: 200})), nil), usual())
	fail(p, ask(t, p), audit.Unserved, "no page")
	p.Take(ask(t, p), page(), noOthers, 0)
	bad.SetAside = true
	if s := p.State(); len(askAll(p)) > 0 || p.Failure() == nil || !slices.Equal(s.Backlog, []state.Window{bad}) {
		t.Errorf("failure %v, backlog %+v", p.Failure(), s.Backlog)
	}
}

// TestConfirmedByTheNextRun: where no page comes after the bad one, the next run's new
// window shows that the API is well.
func TestConfirmedByTheNextRun(t *testing.T) {
	p := freshRead(t, stateOf(collected(now-500, backlog(state.Window{Gte: 100, Lte: 100})), nil), usual())
	fail(p, ask(t, p), audit.Unserved, "no page")
	stopped(t, p, "no page", "no page")
	s := stored(t, p.State(), time.Unix(now, 0))
	p = freshRead(t, &s, usual())
	r := ask(t, p)
	fail(p, r, audit.Unserved, "no page")
	set := "the API cannot serve 1 range, set aside while the rest is read: no page"
	if stopped(t, p, set, set); !r.Once {
		t.Error("it is asked for with all attempts again")
	}
}

// TestEmptyPageProvesNothing: an empty page that more follow does not show that the API
// serves the range again.
func TestEmptyPageProvesNothing(t *testing.T) {
	bad := state.Window{Gte: 100, Lte: 100, SetAside: true}
	p := freshRead(t, stateOf(collected(now-500, backlog(bad)), nil), usual())
	p.Take(ask(t, p), audit.Page{More: true, Cursor: "~"}, noOthers, 0)
	fail(p, ask(t, p), audit.Unserved, "no page")
	bad.After = "~"
	if s := p.State(); !slices.Equal(s.Backlog, []state.Window{bad}) {
		t.Errorf("backlog %+v", s.Backlog)
	}
	p = freshRead(t, stateOf(collected(now-500, backlog(bad)), nil), usual())
	p.Take(ask(t, p), audit.Page{More: true, Cursor: "~~"}, noOthers, 0)
	if s := p.State(); !s.Backlog[0].SetAside {
		t.Errorf("after an empty page: %+v", s.Backlog)
	}
}

// TestKnownFaultsAreNoOutage: what earlier runs have set aside fails fast, while a window that
// begins with a bad record is still tried again: that one is cut all the same.
func TestKnownFaultsAreNoOutage(t *testing.T) {
	list := []state.Window{{Gte: 5000, Lte: 6000}}
	for i := range int64(maxFailures) {
		list = append(list, state.Window{Gte: 100 + 2*i, Lte: 100 + 2*i, SetAside: true})
	}
	p := freshRead(t, stateOf(collected(now-500, backlog(list...)), nil), usual())
	asked := askAll(p)
	for _, r := range asked[1:] {
		fail(p, r, audit.Unserved, "no page")
	}
	fail(p, asked[0], audit.Unserved, "no page")
	if got := askAll(p); len(got) != 2 {
		t.Errorf("of a window with a bad page it wants %+v", got)
	}
}

// TestSetAsideIsWhatFailed: of a window that a run has begun to cut, only what it could not read is
// set aside. The rest waits like any other window: it counts as lag, and does not come last.
func TestSetAsideIsWhatFailed(t *testing.T) {
	p := freshRead(t, stateOf(collected(now-500, backlog(state.Window{Gte: 100, Lte: 199})), nil), usual(func(s *Settings) { s.MaxRecords = 2 }))
	fail(p, ask(t, p), audit.Unserved, "no page")
	p.Take(ask(t, p), more(audit.Record{ID: "a", At: 140}, audit.Record{ID: "b", At: 130}), noOthers, 0)
	if r, ok := p.Next(false); ok {
		t.Fatalf("beyond MAX_RECORDS it wants %+v", r)
	}
	stopped(t, p, "MAX_RECORDS is reached", "")
	s := p.State()
	if n := s.Windows(false); n.Open != 2 || n.SetAside != 0 {
		t.Errorf("backlog %+v", s.Backlog)
	}
}

// TestSetAsideWithAnOldFilter: a range that is set aside is reported with its times also where no
// other window has its filter.
func TestSetAsideWithAnOldFilter(t *testing.T) {
	p := freshRead(t, stateOf(collected(now-500, backlog(state.Window{Gte: 100, Lte: 100, SetAside: true, Filter: filterA})), nil), usual())
	fail(p, ask(t, p), audit.Unserved, "no page")
	set := "the API cannot serve 1 range, set aside while the rest is read: no page"
	stopped(t, p, set, set)
	if notes := p.Finish(); len(notes) != 1 || notes[0].Severity != Error {
		t.Errorf("notes %+v", notes)
	}
}

// TestBadRecordAmidTies: a bad record in a second that takes several pages adds no window in each run.
func TestBadRecordAmidTies(t *testing.T) {
	api := &faulty{pager: pager{compare: newestFirst}, bad: map[string]bool{"tie10": true}}
	for i := range 30 {
		api.add(audit.Record{ID: fmt.Sprintf("tie%02d", i), At: now - 5})
	}
	settings := usual(func(s *Settings) { s.MaxRecords, s.Overlap = 1000, 100_000 })
	var before *state.State
	counts := map[string]int{}
	run := func(at int64) {
		api.add(audit.Record{ID: fmt.Sprintf("new%d", at), At: at})
		_, written, next := api.run(t, before, settings, at)
		for _, r := range written {
			counts[r.ID]++
		}
		before = &next
	}
	for i := range int64(80) {
		run(now + 60*i)
		if n := len(before.Backlog); n != 1 {
			t.Fatalf("after run %d the backlog has %d windows: %+v", i+1, n, before.Backlog)
		}
	}
	clear(api.bad)
	run(now + 60*80)
	for _, r := range api.records {
		if counts[r.ID] != 1 {
			t.Errorf("%s was written %d times", r.ID, counts[r.ID])
		}
	}
}

// TestGiantRecord: a record too large for a page of its own does not make all other pages small.
func TestGiantRecord(t *testing.T) {
	api := everySecond(now-1000, now)
	asked := 0
	reader := &reader{t: t, width: 1,
		send: func(r Request) answer {
			asked++
			got := api.page(r.Request, time.Unix(now, 0))
			if slices.ContainsFunc(got.Records, func(r audit.Record) bool { return r.At == now-3 }) {
				return failed(audit.PageTooLarge)
			}
			return answer{page: got}
		},
		arrive: func(_ Request, _ bool, a answer) answer { return a },
	}
	p, written, _ := reader.run(New(nil, usual(func(s *Settings) { s.MaxRecords = 100_000 }), time.Unix(now, 0)))
	if p.Failure() == nil || len(written) != 1000 || asked > 150 {
		t.Errorf("failure %v, %d records, %d requests", p.Failure(), len(written), asked)
	}
}

// TestLeftOut: a new window leaves out each second that is set aside, where that brings all records of the
// second that pass the filter. There is always something to ask for.
func TestLeftOut(t *testing.T) {
	all := []state.Span{{Gte: now - 620, Lte: now}}
	for name, tt := range map[string]struct {
		aside state.Window
		want  []state.Span
	}{
		"a second":       {state.Window{Gte: now - 100, Lte: now - 100, SetAside: true}, []state.Span{{Gte: now - 99, Lte: now}, {Gte: now - 620, Lte: now - 101}}},
		"its cursor":     {state.Window{Gte: now - 100, Lte: now - 100, After: "c", AfterAt: now - 100, Top: now - 100, SetAside: true}, all},
		"two seconds":    {state.Window{Gte: now - 100, Lte: now - 99, SetAside: true}, all},
		"another filter": {state.Window{Gte: now - 100, Lte: now - 100, SetAside: true, Filter: filterA}, all},
		"it waits":       {state.Window{Gte: now - 100, Lte: now - 100}, all},
	} {
		var got []state.Span
		for _, r := range askAll(begin(stateOf(collected(now-500, backlog(tt.aside)), nil), usual())) {
			got = append(got, state.Span{Gte: r.Gte, Lte: r.Lte})
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: requests differ (-want +got):\n%s", name, diff)
		}
	}
	before := stateOf(collected(now, backlog(state.Window{Gte: now, Lte: now, SetAside: true}), func(s *state.Stream) { s.RecentSince = now }), nil)
	if r := ask(t, begin(before, usual())); r.Gte != now || r.Lte != now {
		t.Errorf("of a window of that second it wants %+v", r)
	}
}

// TestSetAsideLast: what an earlier run has set aside keeps nothing else waiting, and
// segments that may be cut come before those that may not.
func TestSetAsideLast(t *testing.T) {
	list := []state.Window{{Gte: 900, Lte: 900, SetAside: true}, {Gte: 700, Lte: 800, SetAside: true}, {Gte: 100, Lte: 200}}
	p := freshRead(t, stateOf(collected(now-500, backlog(list...)), nil), usual())
	var got []int64
	for _, r := range askAll(p) {
		if got = append(got, r.Gte); r.Once != (r.Gte > 100) {
			t.Errorf("%+v", r)
		}
	}
	if diff := cmp.Diff([]int64{100, 700, 900}, got); diff != "" {
		t.Errorf("order differs (-want +got):\n%s", diff)
	}
}

// TestMergeSetAside: of two segments that the API cannot serve, one goes if the other returns
// all that it does, whatever the order of pages.
func TestMergeSetAside(t *testing.T) {
	unread := state.Window{Gte: 300, Lte: 350, SetAside: true}
	for name, tt := range map[string]struct {
		window state.Window
		left   int
	}{
		"inside":                  {state.Window{Gte: 310, Lte: 340, SetAside: true}, 1},
		"inside, with a cursor":   {state.Window{Gte: 310, Lte: 340, After: "c", AfterAt: 310, Top: 340, SetAside: true}, 1},
		"around":                  {state.Window{Gte: 200, Lte: 400, SetAside: true}, 1},
		"around, with a cursor":   {state.Window{Gte: 300, Lte: 400, After: "c", AfterAt: 300, Top: 390, SetAside: true}, 2},
		"it overlaps":             {state.Window{Gte: 200, Lte: 310, SetAside: true}, 2},
		"inside, another filter":  {state.Window{Gte: 310, Lte: 340, Filter: filterA, SetAside: true}, 2},
		"inside, it is not aside": {state.Window{Gte: 310, Lte: 340}, 2},
	} {
		p := freshRead(t, stateOf(collected(now-500, backlog(unread, tt.window)), nil), usual())
		s := p.streams[0]
		for _, w := range s.segments[1:] {
			if w.Window == unread {
				s.mergeSetAside(w)
			}
		}
		if n := s.windows(); n != tt.left {
			t.Errorf("%s: %d windows are left, want %d", name, n, tt.left)
		}
	}
}

// TestAppendWindow: windows become one where nothing of both is read, so that the
// order of pages does not matter.
func TestAppendWindow(t *testing.T) {
	above := state.Window{Gte: 200, Lte: 300}
	below := state.Window{Gte: 100, Lte: 199}
	asked := state.Span{Gte: 50, Lte: 300}
	for name, tt := range map[string]struct {
		change func(above, below *state.Window)
		joined bool
	}{
		"of one backfill":          {func(a, b *state.Window) { a.Backfill, b.Backfill = asked, asked }, true},
		"the lower is a backfill":  {func(_, b *state.Window) { b.Backfill = asked }, false},
		"the upper is a backfill":  {func(a, _ *state.Window) { a.Backfill = asked }, false},
		"nothing is read":          {func(_, _ *state.Window) {}, true},
		"a second is between":      {func(_, b *state.Window) { b.Lte-- }, false},
		"they overlap":             {func(_, b *state.Window) { b.Lte++ }, false},
		"the upper has a cursor":   {func(a, _ *state.Window) { a.After, a.AfterAt, a.Top = "c", 250, 300 }, false},
		"the lower has a cursor":   {func(_, b *state.Window) { b.After, b.AfterAt, b.Top = "c", 150, 199 }, false},
		"another filter":           {func(_, b *state.Window) { b.Filter = filterA }, false},
		"the upper is set aside":   {func(a, _ *state.Window) { a.SetAside = true }, false},
		"the lower is set aside":   {func(_, b *state.Window) { b.SetAside = true }, false},
		"both are, the next is no": {func(a, b *state.Window) { a.SetAside, b.SetAside = true, true }, false},
	} {
		a, b := above, below
		tt.change(&a, &b)
		want := []state.Window{a, b}
		if tt.joined {
			want = []state.Window{{Gte: 100, Lte: 300, Backfill: b.Backfill}}
		}
		if got := appendWindow(appendWindow(nil, a), b); !slices.Equal(got, want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestBrokenRuns: runs that break off leave no more windows than a run of all workers
// can use, and what they leave takes few requests more than its pages.
func TestBrokenRuns(t *testing.T) {
	api := everySecond(now-3600, now+20*3600)
	api.records = slices.DeleteFunc(api.records, func(r audit.Record) bool { return r.At%4 != 0 })
	settings := usual(func(s *Settings) { s.MaxRecords = 1_000_000 })
	var before *state.State
	var written int
	at := int64(now)
	run := func(pages int) (p *Plan, asked int) {
		reader := &reader{
			t: t, width: 32, pick: func(n int) int { return n / 2 },
			send: func(r Request) answer {
				asked++
				return answer{page: api.page(r.Request, time.Unix(at, 0))}
			},
			arrive: func(_ Request, _ bool, a answer) answer {
				if pages--; pages < 0 {
					return failed(audit.Other)
				}
				return a
			},
		}
		p, records, _ := reader.run(New(before, settings, time.Unix(at, 0)))
		next := stored(t, p.State(), time.Unix(at, 0))
		before, written, at = &next, written+len(records), at+3600
		return p, asked
	}
	for range 20 {
		if p, _ := run(40); p.Failure() == nil {
			t.Fatal("a run that breaks off has no failure")
		}
	}
	if n := len(before.Backlog); n > 84 {
		t.Errorf("%d windows", n)
	}
	left := (len(api.records) - written) / settings.PageSize
	if p, asked := run(1_000_000); p.Failure() != nil || len(before.Backlog) > 0 || written != len(api.records) || asked > left+left/4 {
		t.Errorf("failure %v, %d windows, %d of %d records, %d requests for %d pages", p.Failure(), len(before.Backlog), written, len(api.records), asked, left)
	}
}

// TestLimitIDs: where the state has no room for all recent records, the oldest are
// forgotten, a second at a time, and the next new window begins after them; none that
// an open window can return is forgotten.
func TestLimitIDs(t *testing.T) {
	const size = idBytes + 2*4
	settings := usual(func(s *Settings) { s.MaxIDs, s.Overlap = 5*size, 1000 })
	open := state.Window{Gte: now - 900, Lte: now - 850}
	before := stateOf(collected(now-500, backlog(open), func(s *state.Stream) {
		s.RecentSince = now - 1500
		s.Recent = recent(map[string]int64{"open": now - 860, "old1": now - 800, "old2": now - 700, "old3": now - 700, "old4": now - 600})
	}), nil)
	p := begin(before, settings)
	p.Take(ask(t, p), page(rec("new1", 0), rec("new2", -10)), noOthers, 0)
	notes := p.Finish()
	s := p.State()
	want := map[string]int64{"open": now - 860, "old4": now - 600, "new1": now, "new2": now - 10}
	if diff := cmp.Diff(want, times(s.Recent)); diff != "" || s.RecentSince != now-699 {
		t.Errorf("since %d; ids differ (-want +got):\n%s", s.RecentSince-now, diff)
	}
	if len(notes) != 1 || notes[0].Severity != Warning || !strings.Contains(notes[0].Text, "begins 699 seconds before") {
		t.Errorf("notes %+v", notes)
	}
	if r := ask(t, begin(&s, settings)); r.Gte != now-699 {
		t.Errorf("the next new window is %+v", r.Request)
	}

	// With room for all there is no word, and nothing is forgotten.
	settings.MaxIDs = 7 * size
	p = begin(before, settings)
	p.Take(ask(t, p), page(rec("new1", 0), rec("new2", -10)), noOthers, 0)
	if notes := p.Finish(); len(notes) > 0 || len(p.State().Recent) != 7 {
		t.Errorf("notes %+v, ids %v", notes, p.State().Recent)
	}

	// Two streams share the room, whether this run reads both or not.
	settings.MaxIDs = 10 * size
	shared := *before
	shared.Tenant = &state.Stream{Watermark: now - 500, High: now - 500}
	for _, tenant := range []bool{false, true} {
		settings.Tenant = tenant
		p = begin(&shared, settings)
		p.Take(ask(t, p), page(rec("new1", 0), rec("new2", -10)), noOthers, 0)
		p.Finish()
		if diff := cmp.Diff(want, times(p.State().Recent)); diff != "" {
			t.Errorf("tenant %v: ids differ (-want +got):\n%s", tenant, diff)
		}
	}
	settings.Tenant = false

	// The newest second stays whatever it takes.
	settings.MaxIDs = 0
	p = begin(stateOf(collected(now-500), nil), settings)
	p.Take(ask(t, p), page(rec("new1", 0), rec("new2", 0), rec("new3", -1)), noOthers, 0)
	p.Finish()
	if s := p.State(); len(s.Recent) != 2 || s.RecentSince != now || s.High != now {
		t.Errorf("%+v", s.Stream)
	}
}
