package plan

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

// fail has a request fail in some way, with this text.
func fail(p *Plan, r Request, kind audit.Kind, text string) Outcome {
	return p.Fail(r, &audit.Failure{Kind: kind, Err: errors.New(text)})
}

// windows is a backlog of so many windows, of 99 seconds each, and a second between them.
func windows(n int64) (list []state.Window) {
	for i := range n {
		list = append(list, state.Window{Gte: 9000 - 100*i, Lte: 9098 - 100*i})
	}
	return list
}

// twoStreams is a state of both with as many windows in each backlog.
func twoStreams(n int64) *state.State {
	return stateOf(collected(now-500, backlog(windows(n)...)), collected(now-500, backlog(windows(n)...)))
}

// askAll is all that is wanted now.
func askAll(p *Plan) (list []Request) {
	for r, ok := p.Next(false); ok; r, ok = p.Next(false) {
		list = append(list, r)
	}
	return list
}

// freshRead is a plan whose new windows are read and empty.
func freshRead(t *testing.T, before *state.State, settings Settings) *Plan {
	t.Helper()
	p := begin(before, settings)
	take(t, p, page())
	if settings.Tenant {
		take(t, p, page())
	}
	return p
}

// stopped checks what has kept a plan from being read to its end.
func stopped(t *testing.T, p *Plan, stopped, failure string) {
	t.Helper()
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	if got := text(p.Stopped()); got != stopped {
		t.Errorf("stopped by %q, want %q", got, stopped)
	}
	if got := text(p.Failure()); got != failure {
		t.Errorf("failure %q, want %q", got, failure)
	}
}

// TestFreshFirst: as long as any of the new window is unread, nothing of the backlog
// is asked for, also where the new one is split, fails or is left for another run.
func TestFreshFirst(t *testing.T) {
	before := stateOf(collected(now-5000, backlog(windows(2)...)), nil)
	p := begin(before, usual(func(s *Settings) { s.PageSize = 2 }))
	p.Take(ask(t, p), more(rec("a", -10), rec("b", -20)), noOthers, 2)
	list := askAll(p)
	if len(list) != 2 || list[1].Gte != now-5120 {
		t.Fatalf("%+v", list)
	}
	p.Take(list[0], page(), noOthers, 0)
	if more := askAll(p); len(more) != 0 {
		t.Errorf("beside a segment of the new window it wants %+v", more)
	}
	p.Take(list[1], page(), noOthers, 0)
	if more := askAll(p); len(more) != 2 || more[0].Gte != 9000 || more[1].Gte != 8900 {
		t.Errorf("then it wants %+v", more)
	}

	p = begin(before, usual())
	fail(p, ask(t, p), audit.PageTooLarge, "too large")
	if r := ask(t, p); r.Lte != now {
		t.Errorf("after a page that is too large it wants %+v", r)
	}
	p = begin(before, usual())
	fail(p, ask(t, p), audit.Other, "no")
	if more := askAll(p); len(more) != 0 {
		t.Errorf("after a failure it wants %+v", more)
	}
}

// TestTurns: of two streams each gets every other request, whatever the other
// has to read.
func TestTurns(t *testing.T) {
	p := begin(twoStreams(3), usual(withTenant))
	var got []bool
	for i := range 8 {
		r := ask(t, p)
		if r.ID != i+1 || !r.First {
			t.Errorf("request %d is %+v", i+1, r)
		}
		got = append(got, r.Tenant)
		p.Take(r, page(), noOthers, 0)
	}
	if diff := cmp.Diff([]bool{false, true, false, true, false, true, false, true}, got); diff != "" {
		t.Errorf("turns differ (-want +got):\n%s", diff)
	}
	// One that has been asked less catches up.
	p = freshRead(t, stateOf(collected(now-500, backlog(windows(1)...)), collected(now-500, backlog(windows(4)...))), usual(withTenant))
	got = nil
	for _, r := range askAll(p) {
		got = append(got, r.Tenant)
	}
	if diff := cmp.Diff([]bool{false, true, true, true, true}, got); diff != "" {
		t.Errorf("turns of unlike streams differ (-want +got):\n%s", diff)
	}
}

// TestFirstOfItsWindow: a window's first request is told from those that go on.
func TestFirstOfItsWindow(t *testing.T) {
	p := begin(nil, usual())
	r := ask(t, p)
	p.Take(r, more(rec("a", -10)), noOthers, 0)
	next := ask(t, p)
	if !r.First || next.First || next.After != "a" {
		t.Errorf("first %v, then %+v", r.First, next)
	}
}

// TestIdleOnly: where all workers are busy with requests that fail, only a stream
// without any gets one more.
func TestIdleOnly(t *testing.T) {
	p := freshRead(t, twoStreams(3), usual(withTenant))
	first, ok := p.Next(true)
	if !ok || first.Tenant {
		t.Fatalf("%+v, %v", first, ok)
	}
	second, ok := p.Next(true)
	if !ok || !second.Tenant {
		t.Fatalf("beside a request of the others %+v, %v", second, ok)
	}
	if r, ok := p.Next(true); ok {
		t.Errorf("no stream is idle, and it wants %+v", r)
	}
	p.Take(first, page(), noOthers, 0)
	if r, ok := p.Next(true); !ok || r.Tenant {
		t.Errorf("the others are idle, and it wants %+v, %v", r, ok)
	}
	if r, ok := p.Next(false); !ok {
		t.Errorf("not only of idle streams: %+v, %v", r, ok)
	}
}

// TestBudget: requests under way count with all that they may bring, so that
// MAX_RECORDS bounds a run; what they do not bring is free again.
func TestBudget(t *testing.T) {
	five := func(s *Settings) { s.MaxRecords, s.PageSize = 5, 2 }
	p := freshRead(t, stateOf(collected(now-500, backlog(windows(9)...)), nil), usual(five))
	list := askAll(p)
	var limits []int
	for _, r := range list {
		limits = append(limits, r.Limit)
	}
	if diff := cmp.Diff([]int{2, 2, 1}, limits); diff != "" {
		t.Fatalf("limits differ (-want +got):\n%s", diff)
	}
	stopped(t, p, "", "") // as long as answers are to come
	in := func(i int, id string) audit.Record {
		return audit.Record{ID: id, At: list[i].Gte}
	}
	p.Take(list[0], page(in(0, "a")), noOthers, 0)
	r := ask(t, p)
	if r.Limit != 1 {
		t.Errorf("one of two records came, and the limit is %d", r.Limit)
	}
	fail(p, r, audit.Other, "no") // asked for one record, and stops
	stopped(t, p, "no", "no")

	p = freshRead(t, stateOf(collected(now-500, backlog(windows(9)...)), nil), usual(five))
	list = askAll(p)
	p.Take(list[0], page(in(0, "a"), in(0, "b")), noOthers, 0)
	p.Take(list[1], page(in(1, "c"), in(1, "d")), noOthers, 0)
	if len(askAll(p)) > 0 {
		t.Error("it wants more than MAX_RECORDS")
	}
	stopped(t, p, "", "")
	p.Take(list[2], page(in(2, "e")), noOthers, 0)
	if len(askAll(p)) > 0 {
		t.Error("it wants more than MAX_RECORDS")
	}
	stopped(t, p, "MAX_RECORDS is reached", "")
	if s := p.State(); len(s.Backlog) != 6 || !p.Answered() {
		t.Errorf("%d windows are left, answered %v", len(s.Backlog), p.Answered())
	}
}

// TestBudgetIsEnough: a run that has just what it may have was not stopped, and
// records that were known count nothing.
func TestBudgetIsEnough(t *testing.T) {
	p := begin(stateOf(collected(now-500, func(s *state.Stream) { s.Recent = recent(map[string]int64{"k": now - 510}) }), nil), usual(func(s *Settings) { s.MaxRecords = 2 }))
	take(t, p, more(rec("k", -510)), page(rec("a", -520), rec("b", -530)))
	if len(askAll(p)) > 0 {
		t.Error("it wants more")
	}
	stopped(t, p, "", "")
}

// TestBudgetOfEach: each stream has a MAX_RECORDS of its own.
func TestBudgetOfEach(t *testing.T) {
	p := begin(twoStreams(1), usual(withTenant, func(s *Settings) { s.MaxRecords, s.PageSize = 2, 2 }))
	main, tenant := ask(t, p), ask(t, p)
	p.Take(main, more(rec("a", -10), rec("b", -20)), noOthers, 0)
	p.Take(tenant, page(), noOthers, 0)
	if list := askAll(p); len(list) != 1 || !list[0].Tenant || list[0].Limit != 2 {
		t.Errorf("%+v", list)
	}
	stopped(t, p, "MAX_RECORDS is reached", "")
}

// TestIdleWorkers: what is left of a window is split up for the workers that have
// nothing to do, and not for more of them.
func TestIdleWorkers(t *testing.T) {
	dense := more(rec("a", -10), rec("b", -20))
	small := func(s *Settings) { s.PageSize, s.Tenant = 2, true }
	few := func(s *Settings) { s.MaxRecords = 60 }
	burst := func(n int64) audit.Page { // of one second, so that it is not split
		p := more()
		for i := range n {
			p.Records = append(p.Records, rec(fmt.Sprint("t", i), 0))
		}
		p.Cursor = string(p.Records[n-1].ID)
		return p
	}
	tests := []struct {
		name     string
		settings Settings
		before   *state.State
		prepare  func(t *testing.T, p *Plan)
		idle     int
		want     int // requests of the stream that can be sent at once
	}{
		{"three workers", usual(small), nil, nil, 3, 2}, // the tenant's first request takes one
		{"nobody", usual(small), nil, nil, 0, 1},
		{"the tenant's is under way", usual(small), nil, func(t *testing.T, p *Plan) { ask(t, p) }, 3, 3},
		{"the tenant's has stopped", usual(small), nil, func(t *testing.T, p *Plan) { fail(p, ask(t, p), audit.Other, "no") }, 3, 3},
		{"the tenant's has all it may have", usual(small, few), nil, func(t *testing.T, p *Plan) { p.Take(ask(t, p), burst(60), noOthers, 0) }, 3, 3},
		{"... but for one", usual(small, few), nil, func(t *testing.T, p *Plan) { p.Take(ask(t, p), burst(59), noOthers, 0) }, 3, 2},
		{"each of the tenant's windows wants one", usual(small), twoStreams(2), func(t *testing.T, p *Plan) { p.Take(ask(t, p), page(), noOthers, 0) }, 4, 2},
		{"MAX_RECORDS has room for two more pages", usual(small, func(s *Settings) { s.MaxRecords = 6 }), nil, nil, 9, 2},
		{"... for one", usual(small, func(s *Settings) { s.MaxRecords = 5 }), nil, nil, 9, 1},
		{"... for three", usual(small, func(s *Settings) { s.MaxRecords = 8 }), nil, nil, 9, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := begin(tt.before, tt.settings)
			r := ask(t, p)
			if tt.prepare != nil {
				tt.prepare(t, p)
			}
			p.Take(r, dense, noOthers, tt.idle)
			if n := len(p.streams[0].ready()); n != tt.want {
				t.Errorf("%d segments, want %d: %v", n, tt.want, bounds(p.streams[0].segments))
			}
		})
	}
}

// TestNoSplitOnceStopped: a page that was under way as its stream stopped counts,
// and leaves what follows in one window.
func TestNoSplitOnceStopped(t *testing.T) {
	for _, kind := range []audit.Kind{audit.Other, audit.OutOfTime} {
		p := begin(stateOf(collected(now-5000), nil), usual(func(s *Settings) { s.PageSize = 2 }))
		p.Take(ask(t, p), more(rec("a", -10), rec("b", -20)), noOthers, 3)
		list := askAll(p)
		fail(p, list[1], kind, "no")
		o := p.Take(list[0], more(rec("c", -30), rec("d", -40)), noOthers, 9)
		if !o.Taken || len(o.New) != 2 || p.streams[0].windows() != len(list) {
			t.Errorf("%+v, of %d windows %d", o, len(list), p.streams[0].windows())
		}
	}
}

// TestFigures: what has been taken, as it is told.
func TestFigures(t *testing.T) {
	before := stateOf(collected(now-500, func(s *state.Stream) {
		s.RecentSince, s.Recent = now-600, recent(map[string]int64{"k": now - 510})
	},
		backlog(state.Window{Gte: 100, Lte: 300, After: "c", AfterAt: 250, Top: 260}, state.Window{Gte: 50, Lte: 90})), nil)
	p := begin(before, usual())
	check := func(want Figures) {
		t.Helper()
		if diff := cmp.Diff(want, p.Figures()); diff != "" {
			t.Errorf("figures differ (-want +got):\n%s", diff)
		}
	}
	check(Figures{})
	take(t, p, more(rec("a", -10), rec("k", -510)))
	check(Figures{Records: 1, Skipped: 1, Pages: 1, Reached: now - 510})
	fail(p, ask(t, p), audit.PageTooLarge, "does not fit")
	check(Figures{Records: 1, Skipped: 1, Pages: 1, Reached: now - 510})
	take(t, p, page(rec("b", -530), rec("c", -520)))
	check(Figures{Records: 3, Skipped: 1, Pages: 2, Reached: now - 520, Late: 2, MaxLateness: 30})
	take(t, p, more(audit.Record{ID: "d", At: 240}))
	check(Figures{Records: 4, Skipped: 1, Pages: 3, Reached: 240, Late: 2, MaxLateness: 30, Oldest: 240})
	take(t, p, page())
	check(Figures{Records: 4, Skipped: 1, Pages: 4, Reached: 240, Late: 2, MaxLateness: 30, Oldest: 240})
	take(t, p, page(audit.Record{ID: "e", At: 60}))
	check(Figures{Records: 5, Skipped: 1, Pages: 5, Reached: 60, Late: 2, MaxLateness: 30, Oldest: 60})
}

// TestBacklogNotes: a window of the backlog that is read to its end says how far
// back the API has answered.
func TestBacklogNotes(t *testing.T) {
	begun := state.Window{Gte: 100, Lte: 300, After: "c", AfterAt: 250, Top: 260}
	empty := state.Window{Gte: 50, Lte: 90}
	full := state.Window{Gte: 20, Lte: 40}
	p := begin(stateOf(collected(now-500, backlog(begun, empty, full)), nil), usual())
	note := func(pg audit.Page, text string, w state.Window) {
		t.Helper()
		o := p.Take(ask(t, p), pg, noOthers, 0)
		var want []Note
		if text != "" {
			want = []Note{{Text: "Read a window of the backlog to its end: " + text, Attrs: []any{"gte", w.Gte, "lte", w.Lte}}}
		}
		if diff := cmp.Diff(want, o.Notes); diff != "" {
			t.Errorf("notes differ (-want +got):\n%s", diff)
		}
	}
	note(page(rec("a", -10)), "", begun)
	note(page(), "the oldest record that the API returned since 1970-01-01T00:01:40Z is from 1970-01-01T00:04:10Z", begun)
	note(page(), "the API has no record from 1970-01-01T00:00:50Z to 1970-01-01T00:01:30Z", empty)
	note(more(audit.Record{ID: "b", At: 35}), "", full)
	note(page(audit.Record{ID: "c", At: 30}), "the oldest record that the API returned since 1970-01-01T00:00:20Z is from 1970-01-01T00:00:30Z", full)
}

// TestOrganization: the first that answers is the state's from then on; another's
// records must not share its watermark.
func TestOrganization(t *testing.T) {
	of := func(name string, p audit.Page) audit.Page { p.Organization = name; return p }
	p := begin(nil, usual())
	take(t, p, of("org-a", more(rec("a", -10))), of("", more(rec("b", -20))), of("org-a", more(rec("c", -30))))
	if s := p.State(); s.Organization != "org-a" {
		t.Errorf("organization %q", s.Organization)
	}
	o := p.Take(ask(t, p), of("org-b", more(rec("d", -40))), noOthers, 0)
	if o.Taken || len(o.New) > 0 {
		t.Errorf("%+v", o)
	}
	const text = `OPENAI_ADMIN_KEY belongs to organization "org-b", but the state to "org-a": give each organization a STATE_KEY and GCS_PREFIX of its own; if it was renamed, remove "organization" from the state object`
	stopped(t, p, text, text)
	if s := p.State(); s.Organization != "org-a" || len(askAll(p)) > 0 || p.Figures().Records != 3 || !p.Answered() {
		t.Errorf("organization %q, %+v", s.Organization, p.Figures())
	}

	before := stateOf(collected(now-500), nil)
	before.Organization = "org-a"
	p = begin(before, usual())
	if o := p.Take(ask(t, p), of("org-b", page(rec("a", -10))), noOthers, 0); o.Taken || p.Answered() {
		t.Errorf("%+v of another organization than the state's", o)
	}
	if s := p.State(); s.Organization != "org-a" {
		t.Errorf("organization %q", s.Organization)
	}
	p = begin(before, usual())
	take(t, p, page())
	if s := p.State(); s.Organization != "org-a" {
		t.Errorf("organization %q of an API that names none", s.Organization)
	}
	p = begin(before, usual())
	long := strings.Repeat("o", 1000) + "\n"
	p.Take(ask(t, p), of(long, page()), noOthers, 0)
	if text := p.Stopped().Error(); len(text) > 800 || strings.Contains(text, "\n") {
		t.Errorf("says %q", text)
	}
}

// TestFastClock: where the host's clock is so fast that a first window begins
// after the API's now, records yet to be written would be left out.
func TestFastClock(t *testing.T) {
	untouched := func(s *state.Stream) { s.Untouched, s.RecentSince = true, s.High }
	const text = "this host's clock is fast: by the API's it is 1970-01-12T12:46:39Z, before the first run's window begins"
	tests := []struct {
		name   string
		before *state.State
		date   int64
		want   string
	}{
		{"behind it", nil, now - 3601, text},
		{"as it begins", nil, now - 3600, ""},
		{"no clock of the API", nil, 0, ""},
		{"a later run", stateOf(collected(now-3600), nil), now - 3721, ""},
		{"a stream that was never read", stateOf(collected(now-3600, untouched), nil), now - 3601, text},
		{"a stream that was never read, as it begins", stateOf(collected(now-3600, untouched), nil), now - 3600, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := begin(tt.before, usual())
			o := p.Take(ask(t, p), dated(page(), tt.date), noOthers, 0)
			if o.Taken != (tt.want == "") || p.Answered() != o.Taken {
				t.Errorf("%+v, answered %v", o, p.Answered())
			}
			stopped(t, p, tt.want, tt.want)
		})
	}
}

// noOthers is the answer without tenant_only that has nothing of the tenant's.
var noOthers = new(audit.Page)

// TestCompare: the first page of each tenant window is compared with what comes
// without tenant_only; where that does not come, those that are not yet known to be
// others wait.
func TestCompare(t *testing.T) {
	some := page(rec("a", -10), rec("b", -20))
	others := func(records ...audit.Record) *audit.Page { p := page(records...); return &p }
	tests := []struct {
		name     string
		page     audit.Page
		others   *audit.Page
		distinct bool
		same     bool
	}{
		{"others", some, others(rec("x", -10)), true, false},
		{"none", some, others(), true, false},
		{"not answered", some, nil, false, false},
		{"nothing to compare", page(), others(rec("x", -10)), false, false},
		{"the same", some, others(rec("a", -10), rec("b", -20)), false, true},
		{"one that has appeared in between", some, others(rec("c", 0), rec("a", -10)), false, true},
		{"that begin with another", some, others(rec("b", -20)), true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := begin(nil, usual(withTenant))
			take(t, p, page())
			r := ask(t, p)
			if !r.Compare {
				t.Error("it is not to be compared")
			}
			o := p.Take(r, tt.page, tt.others, 0)
			waits := tt.others == nil
			if o.Taken == (tt.same || waits) || (p.contradiction != nil) != tt.same || p.Answered() == tt.same || waits != (p.Failure() != nil && strings.Contains(p.Failure().Error(), "tenant-scoped records wait")) {
				t.Errorf("%+v, stopped by %v", o, p.Stopped())
			}
			if s := p.State(); !tt.same && s.Tenant.Distinct != tt.distinct {
				t.Errorf("known to be others: %v", s.Tenant.Distinct)
			}
		})
	}
	t.Run("what is asked for first, or without a cursor", func(t *testing.T) {
		begun := state.Window{Gte: 100, Lte: 300, After: "c", AfterAt: 250, Top: 260}
		p := begin(stateOf(collected(now-500), collected(now-500, backlog(begun))), usual(withTenant))
		ask(t, p)
		r := ask(t, p)
		fail(p, r, audit.PageTooLarge, "does not fit")
		again := ask(t, p)
		if !r.Compare || !again.Compare {
			t.Errorf("compares %v, asked again %v", r.Compare, again.Compare)
		}
		p.Take(again, page(), noOthers, 0)
		r = ask(t, p)
		p.Take(r, more(audit.Record{ID: "d", At: 240}), noOthers, 0)
		if next := ask(t, p); r.After != "c" || !r.Compare || next.After != "d" || next.Compare {
			t.Errorf("of a window that an earlier run began compares %v, of its next page %v", r.Compare, next.Compare)
		}
	})
	t.Run("what is asked for", func(t *testing.T) {
		before := stateOf(collected(now-500), collected(now-500, backlog(windows(2)...)))
		p := begin(before, usual(withTenant))
		if main := ask(t, p); main.Compare {
			t.Error("of the others it is")
		}
		r := ask(t, p)
		p.Take(r, more(rec("a", -10)), noOthers, 0)
		next := ask(t, p)
		if !r.Compare || next.Compare {
			t.Errorf("compares %v, of a later page %v", r.Compare, next.Compare)
		}
		p.Take(next, page(), noOthers, 0)
		r = ask(t, p)
		if !r.Compare {
			t.Error("of a window of the backlog it is not")
		}
		p.Take(r, page(audit.Record{ID: "b", At: r.Gte}), others(), 0)
		if !ask(t, p).Compare {
			t.Error("it is not, though something on the way may have come to drop tenant_only")
		}
		before.Tenant.Distinct = true
		p = begin(before, usual(withTenant))
		ask(t, p)
		r = ask(t, p)
		if o := p.Take(r, page(rec("a", -10)), nil, 0); !r.Compare || !o.Taken {
			t.Errorf("known to be others, they wait for others that do not answer: %+v", o)
		}
		p = begin(before, usual(withTenant))
		ask(t, p)
		if o := p.Take(ask(t, p), page(rec("a", -10)), others(rec("a", -10)), 0); o.Taken || p.contradiction == nil {
			t.Errorf("known to be others, the same are taken: %+v", o)
		}
	})
}

// sameText is what is said where tenant_only makes no difference.
const sameText = "audit log API brings the same records with tenant_only and without: does a proxy on the way drop it?"

// circle brings a plan's next window into a circle, and returns that window.
func circle(t *testing.T, p *Plan) audit.Request {
	t.Helper()
	first := ask(t, p)
	r := first
	for i := range 3 {
		at := r.Lte
		o := p.Take(r, audit.Page{Records: []audit.Record{{ID: fmt.Sprint("circle", i, r.Lte), At: at}}, Cursor: fmt.Sprint(i%2, r.Lte), More: true}, noOthers, 0)
		if i == 2 {
			if o.Taken || o.New != nil || p.Answered() {
				t.Fatalf("a circle makes %+v, answered %v", o, p.Answered())
			}
			return first.Request
		}
		if !o.Taken {
			t.Fatalf("page %d makes %+v, stopped by %v", i, o, p.Stopped())
		}
		s := r.stream
		r = s.request(0, p.pageSize) // whatever the other stream wants
	}
	panic("not reached")
}

func circleText(r audit.Request) string {
	return fmt.Sprintf("audit log API pages in circles: its cursor comes back to where it was, in %s from %s to %s", r.What(), audit.Time(r.Gte), audit.Time(r.Lte))
}

// TestCircle: a window whose pages come back to where they were is left for
// another run; all else is read again, with a page size that is known to fit.
func TestCircle(t *testing.T) {
	before := stateOf(collected(now-500, backlog(windows(3)...), func(s *state.Stream) { s.LastRun = "x" }), collected(now-500))
	p := begin(before, usual(withTenant))
	if next, note := p.StartOver(); next != nil || note.Text != "" {
		t.Fatalf("with nothing wrong it starts over: %+v", note)
	}
	main, tenant := ask(t, p), ask(t, p)
	p.Take(main, page(rec("a", -10)), noOthers, 0)
	fail(p, tenant, audit.PageTooLarge, "does not fit")
	for range 3 { // the tenant's once more, and two windows of the others
		r := ask(t, p)
		if o := p.Take(r, page(audit.Record{ID: fmt.Sprint(r.Tenant, r.Gte), At: r.Lte}), noOthers, 0); !o.Taken || r.Limit != 5 {
			t.Fatalf("%+v makes %+v", r, o)
		}
	}
	bad := circle(t, p)
	stopped(t, p, circleText(bad), circleText(bad))
	if f := p.Figures(); bad.Gte != 8800 || len(askAll(p)) > 0 || f.Records != 6 || f.Pages != 6 || f.Oldest != 8898 {
		t.Fatalf("%+v, %+v", bad, f)
	}
	next, note := p.StartOver()
	if next == nil {
		t.Fatal("it does not start over")
	}
	if diff := cmp.Diff(Note{Severity: Warning, Text: circleText(bad) + ": this window is left for another run, and the others are read again"}, note); diff != "" {
		t.Errorf("note differs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Figures{Pages: 6}, next.Figures()); diff != "" {
		t.Errorf("figures differ (-want +got):\n%s", diff)
	}
	stopped(t, next, circleText(bad), circleText(bad))

	// The same place again would not help.
	if again, note := p.StartOver(); again != nil || note.Text != "" || p.Answered() {
		t.Errorf("it starts over twice: %+v", note)
	}

	var got []audit.Request
	for r, ok := next.Next(false); ok; r, ok = next.Next(false) {
		got = append(got, r.Request)
		if o := next.Take(r, page(), noOthers, 0); !o.Taken {
			t.Errorf("%+v makes %+v", r, o)
		}
	}
	want := []audit.Request{
		{Gte: now - 620, Lte: now, Limit: 5}, {Gte: now - 620, Lte: now, Limit: 5, Tenant: true},
		{Gte: 9000, Lte: 9098, Limit: 10}, {Gte: 8900, Lte: 8998, Limit: 10}, // after 8 pages
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what is read again differs (-want +got):\n%s", diff)
	}
	stopped(t, next, circleText(bad), circleText(bad))
	if s := next.State(); !next.Answered() || len(s.Backlog) != 1 || s.Backlog[0].Gte != 8800 || s.High != now || s.Tenant.High != now {
		t.Errorf("answered %v, %+v, tenant %+v", next.Answered(), s.Stream, s.Tenant)
	}
}

// TestCircles: each window that goes in circles is left, whichever stream's it is.
// Where that is a new one, its stream stays as it is.
func TestCircles(t *testing.T) {
	before := twoStreams(1)
	before.LastRun, before.Tenant.LastRun = "x", "y"
	p := begin(before, usual(withTenant))
	main := circle(t, p)
	if main.Tenant {
		t.Fatalf("%+v", main)
	}
	p, _ = p.StartOver()
	tenant := circle(t, p)
	if !tenant.Tenant || tenant.Gte != main.Gte {
		t.Fatalf("%+v", tenant)
	}
	both := circleText(main) + "\n" + circleText(tenant)
	stopped(t, p, both, both)
	p, note := p.StartOver()
	if !strings.HasPrefix(note.Text, circleText(tenant)) {
		t.Errorf("%+v", note)
	}
	if list := askAll(p); len(list) > 0 {
		t.Errorf("it wants %+v", list)
	}
	stopped(t, p, both, both)
	if p.Answered() || p.Figures().Pages != 4 {
		t.Errorf("answered, %+v", p.Figures())
	}
	if diff := cmp.Diff(*before, p.State()); diff != "" {
		t.Errorf("state differs (-want +got):\n%s", diff)
	}
}

// TestIgnoredCursorWithoutOrder: where the first record of a window comes again and
// its pages did not come newest first, or begin it anew once more, what has been
// written may be there twice: the window is left for another run.
func TestIgnoredCursorWithoutOrder(t *testing.T) {
	early, late, tie, later := rec("a", -20), rec("b", -10), rec("c", -20), rec("d", -5)
	for _, tt := range []struct {
		name  string
		first audit.Page
		again []audit.Page // each in answer to the cursor of the one before
	}{
		{"with another cursor", more(early, late), []audit.Page{more(early, late, later)}},
		{"with the same cursor", more(early, late), []audit.Page{more(early, late)}},
		{"of one second, twice", more(early, tie), []audit.Page{more(early, tie), more(early, tie), more(early, tie)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := begin(stateOf(collected(now-500), nil), usual())
			bad := ask(t, p)
			p.Take(bad, tt.first, noOthers, 0)
			for i, pg := range tt.again {
				if p.contradiction != nil {
					t.Fatalf("page %d: %v", i, p.Stopped())
				}
				p.Take(ask(t, p), pg, noOthers, 0)
			}
			stopped(t, p, circleText(bad.Request), circleText(bad.Request))
			if next, _ := p.StartOver(); next == nil || p.Answered() {
				t.Errorf("it does not start over; answered %v", p.Answered())
			}
		})
	}
}

// TestCircleOfATenantWindow: it leaves the tenant's other windows to be read, the first
// of the backlog as well as any.
func TestCircleOfATenantWindow(t *testing.T) {
	for n := range 3 {
		p := begin(twoStreams(3), usual(withTenant))
		var bad Request
		for r, ok := p.Next(false); ok; r, ok = p.Next(false) {
			if r.Tenant && r.Gte == 9000-100*int64(n) {
				bad = r
				break
			}
			p.Take(r, page(), noOthers, 0)
		}
		for i := range 3 {
			p.Take(bad, audit.Page{Records: []audit.Record{{ID: fmt.Sprint(i), At: bad.Lte}}, Cursor: fmt.Sprint(i % 2), More: true}, noOthers, 0)
			if i < 2 {
				bad = bad.stream.request(0, 10)
			}
		}
		p, _ = p.StartOver()
		if p == nil {
			t.Fatal("it does not start over")
		}
		got := allRequests(t, p)
		if s := p.State(); len(got) != 7 || len(s.Backlog) != 0 || len(s.Tenant.Backlog) != 1 || s.Tenant.Backlog[0].Gte != 9000-100*int64(n) || s.Tenant.High != now {
			t.Errorf("window %d: %d requests, %+v, tenant %+v", n, len(got), s.Stream, s.Tenant)
		}
	}
}

// TestAfterContradiction: what comes after pages that contradict each other is
// neither taken nor counted, and all that is under way is cancelled.
func TestAfterContradiction(t *testing.T) {
	p := freshRead(t, twoStreams(3), usual(withTenant))
	list := askAll(p)
	same := audit.Record{ID: "a", At: list[0].Gte}
	if list[1].Tenant == list[0].Tenant || list[1].Gte != list[0].Gte {
		t.Fatalf("%+v", list)
	}
	p.Take(list[0], more(same), noOthers, 0)
	o := p.Take(list[1], more(same), noOthers, 0)
	if o.Taken || o.New != nil {
		t.Errorf("%+v", o)
	}
	slices.Sort(o.Cancel)
	var want []int
	for _, r := range list[2:] {
		want = append(want, r.ID)
	}
	if diff := cmp.Diff(want, o.Cancel); diff != "" || len(want) != 4 {
		t.Errorf("cancelled differs (-want +got):\n%s", diff)
	}
	figures := p.Figures()
	none := Outcome{}
	if o := p.Take(list[2], page(audit.Record{ID: "b", At: list[2].Gte}), noOthers, 3); !cmp.Equal(o, none) {
		t.Errorf("a page makes %+v", o)
	}
	for i, kind := range []audit.Kind{audit.CursorRefused, audit.PageTooLarge, audit.Other} {
		if o := fail(p, list[3+i], kind, "no"); !cmp.Equal(o, none) {
			t.Errorf("a failure makes %+v", o)
		}
	}
	if p.Figures() != figures || p.pageSize != 10 || p.Answered() || len(askAll(p)) > 0 {
		t.Errorf("%+v, then %+v", figures, p.Figures())
	}
	stopped(t, p, sameText, sameText)
}

// TestContradictionCountsMost: it is told whatever has stopped the streams before.
func TestContradictionCountsMost(t *testing.T) {
	p := freshRead(t, twoStreams(2), usual(withTenant))
	list := askAll(p)
	fail(p, list[2], audit.Other, "no")
	p.Take(list[1], more(audit.Record{ID: "a", At: 9000}), noOthers, 0)
	o := p.Take(list[0], more(audit.Record{ID: "a", At: 9000}), noOthers, 0)
	if diff := cmp.Diff([]int{list[3].ID}, o.Cancel); diff != "" {
		t.Errorf("cancelled differs (-want +got):\n%s", diff)
	}
	stopped(t, p, sameText, sameText)
}

// TestSameRecords: where the other stream knows a record, tenant_only makes no
// difference: the tenant's is left for another run, and its records are not
// written a second time.
func TestSameRecords(t *testing.T) {
	for _, mainFirst := range []bool{true, false} {
		p := begin(twoStreams(1), usual(withTenant))
		main, tenant := ask(t, p), ask(t, p)
		first, second := main, tenant
		if !mainFirst {
			first, second = tenant, main
		}
		pg := page(rec("a", -10), rec("b", -20))
		if o := p.Take(first, pg, noOthers, 0); len(o.New) != 2 {
			t.Errorf("%+v", o)
		}
		if o := p.Take(second, pg, noOthers, 0); o.Taken || o.New != nil {
			t.Errorf("%+v", o)
		}
		next, _ := p.StartOver()
		got := allRequests(t, next)
		if len(got) != 2 || got[0].Tenant || got[1].Tenant {
			t.Errorf("it reads %+v", got)
		}
		if s := next.State(); s.High != now || len(s.Backlog) != 0 || !cmp.Equal(s.Tenant, twoStreams(1).Tenant) {
			t.Errorf("%+v, tenant %+v", s.Stream, s.Tenant)
		}
		stopped(t, next, sameText, sameText)
		again := &Plan{settings: next.settings, quarantined: next.quarantined, contradiction: errTenantOnly}
		if plan, _ := again.StartOver(); plan != nil {
			t.Error("it starts over in the same place")
		}
	}
}

// TestTakenByTheOther: a record that the tenant's stream has in the state stays
// where it was written; once that stream is left aside, it holds its own stream up
// no longer, and is remembered there.
func TestTakenByTheOther(t *testing.T) {
	before := twoStreams(0)
	before.Tenant.Recent = recent(map[string]int64{"a": now - 510})
	p := begin(before, usual(withTenant))
	if o := p.Take(ask(t, p), page(rec("a", -510), rec("b", -520)), noOthers, 0); o.Taken {
		t.Errorf("%+v", o)
	}
	p, _ = p.StartOver()
	got := take(t, p, page(rec("a", -510), rec("b", -520)))
	if diff := cmp.Diff([]string{"b"}, got); diff != "" {
		t.Errorf("collected differs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Figures{Records: 1, Skipped: 1, Pages: 1, Reached: now - 520}, p.Figures()); diff != "" {
		t.Errorf("figures differ (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int64{"a": now - 510, "b": now - 520}, times(p.State().Recent)); diff != "" {
		t.Errorf("ids differ (-want +got):\n%s", diff)
	}
}

// TestFail: what each kind of failure stops, says and cancels.
func TestFail(t *testing.T) {
	const unanswered = "audit log API gave no answer before the deadline: is RUN_TIMEOUT_SECONDS, or the service's request timeout, too short?"
	const interrupted = "run was stopped: by Ctrl-C, or since the host shuts down or the caller has gone"
	const noTime = "RUN_TIMEOUT_SECONDS is nearly over"
	read := twoStreams(3)
	never := stateOf(collected(now-500, backlog(windows(3)...)), collected(now-500, backlog(windows(3)...), func(s *state.Stream) { s.Untouched = true }))
	tests := []struct {
		name     string
		before   *state.State
		tenant   bool
		answered bool // a page of the new window has come before
		kind     audit.Kind
		stopped  string
		failure  bool // it is one, not a limit
		refused  bool // there is no tenant
	}{
		{"another", read, false, true, audit.Other, "no page", true, false},
		{"another of the tenant", read, true, true, audit.Other, "tenant events: no page", true, false},
		{"refused", read, false, true, audit.Refused, "no page", true, false},
		{"a bad request for a tenant never read", never, true, false, audit.BadRequest, "", false, true},
		{"refused for the tenant that was read", read, true, true, audit.Refused, "tenant events: no page", true, false},
		{"refused for the tenant that was read, at once", read, true, false, audit.Refused, "tenant events: no page", true, false},
		{"refused for the tenant that is read", never, true, true, audit.Refused, "tenant events: no page", true, false},
		{"refused for a tenant never read", never, true, false, audit.Refused, "", false, true},
		{"refused for a tenant that was not there", stateOf(collected(now-500), nil), true, false, audit.Refused, "", false, true},
		{"refused for the others, never read", nil, false, false, audit.Refused, "no page", true, false},
		{"another for a tenant never read", never, true, false, audit.Other, "tenant events: no page", true, false},
		{"out of time", read, false, true, audit.OutOfTime, noTime, false, false},
		{"out of time, of the tenant", read, true, true, audit.OutOfTime, noTime, false, false},
		{"out of time, with no answer", read, false, false, audit.OutOfTime, unanswered, true, false},
		{"out of time, with no answer of the tenant", read, true, false, audit.OutOfTime, "tenant events: " + unanswered, true, false},
		{"interrupted", read, false, true, audit.Interrupted, interrupted, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := begin(tt.before, usual(withTenant))
			var bad Request
			for range 2 { // the new windows
				if r := ask(t, p); r.Tenant == tt.tenant && !tt.answered {
					bad = r
				} else {
					p.Take(r, page(), noOthers, 0)
				}
			}
			var own []int // of its stream, beside it
			for _, r := range askAll(p) {
				switch {
				case r.Tenant != tt.tenant:
				case bad.ID == 0:
					bad = r
				default:
					own = append(own, r.ID)
				}
			}
			if !tt.failure {
				own = nil // they may still be answered
			}
			o := fail(p, bad, tt.kind, "no page")
			if diff := cmp.Diff(Outcome{Cancel: own}, o, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("outcome differs (-want +got):\n%s", diff)
			}
			failure := ""
			if tt.failure {
				failure = tt.stopped
			}
			stopped(t, p, tt.stopped, failure)
			stream := p.streams[0]
			if tt.tenant {
				stream = p.streams[1]
			}
			if stream.stopReason == nil || (stream.refused != nil) != tt.refused {
				t.Errorf("stopped by %v, refused %v", stream.stopReason, stream.refused)
			}
			// What stops one stream stops no other.
			if other := p.streams[len(p.streams)-1-slices.Index(p.streams, stream)]; other.stopReason != nil {
				t.Errorf("the other is stopped by %v", other.stopReason)
			}
			if len(askAll(p)) > 0 {
				t.Error("it wants more")
			}
		})
	}
}

// TestGoesOnBeside: a stream that fails keeps no request from the other, whichever
// it is.
func TestGoesOnBeside(t *testing.T) {
	for _, tenant := range []bool{false, true} {
		p := begin(twoStreams(2), usual(withTenant))
		main, other := ask(t, p), ask(t, p)
		if tenant {
			main, other = other, main
		}
		fail(p, main, audit.Other, "no")
		p.Take(other, page(), noOthers, 0)
		if list := askAll(p); len(list) != 2 || list[0].Tenant == tenant {
			t.Errorf("tenant fails %v: it wants %+v", tenant, list)
		}
	}
}

// TestPageTooLarge: pages are halved until they fit, for both streams and however
// many requests fail at once; a single record that does not fit is an error.
func TestPageTooLarge(t *testing.T) {
	p := freshRead(t, twoStreams(3), usual(withTenant))
	list := askAll(p)
	for i, r := range list[:2] {
		o := fail(p, r, audit.PageTooLarge, "the page does not fit")
		want := Outcome{Notes: []Note{{Severity: Warning, Text: "the page does not fit: asking for 5 records a page"}}}
		if diff := cmp.Diff(want, o); diff != "" {
			t.Errorf("failure %d makes another outcome (-want +got):\n%s", i, diff)
		}
	}
	for i, want := range []int{5, 2, 1} {
		r := ask(t, p)
		if r.Limit != want {
			t.Errorf("asks for %d records, want %d", r.Limit, want)
		}
		fail(p, r, audit.PageTooLarge, "the page does not fit")
		if i == 0 { // one of before says less
			fail(p, list[2], audit.PageTooLarge, "the page does not fit")
		}
		stopped(t, p, "", "")
	}
	if r := ask(t, p); !r.Tenant || r.Limit != 1 {
		t.Errorf("of the other %+v", r)
	}

	// A page that MAX_RECORDS has cut short says more.
	p = begin(nil, usual(func(s *Settings) { s.MaxRecords = 7 }))
	fail(p, ask(t, p), audit.PageTooLarge, "does not fit")
	if r := ask(t, p); r.Limit != 3 {
		t.Errorf("asks for %d records", r.Limit)
	}
}

// TestWhatStops: what is wrong counts more than a limit, and the first error more
// than those that follow from it.
func TestWhatStops(t *testing.T) {
	const noTime = "RUN_TIMEOUT_SECONDS is nearly over"
	const full = "MAX_RECORDS is reached"
	type step struct {
		tenant bool
		kind   audit.Kind
		text   string
	}
	reached := audit.Kind(-1) // as many records as MAX_RECORDS
	tests := []struct {
		name             string
		steps            []step
		stopped, failure string
	}{
		{"nothing", nil, "", ""},
		{"a limit", []step{{false, audit.OutOfTime, ""}}, noTime, ""},
		{"a limit of the tenant", []step{{true, audit.OutOfTime, ""}}, noTime, ""},
		{"two limits: the others'", []step{{true, audit.OutOfTime, ""}, {false, reached, ""}}, full, ""},
		{"two limits of one: the later", []step{{false, audit.OutOfTime, ""}, {false, reached, ""}}, noTime, ""},
		{"a limit, then an error", []step{{false, audit.OutOfTime, ""}, {false, audit.Other, "no"}}, "no", "no"},
		{"an error, then a limit", []step{{false, audit.Other, "no"}, {false, audit.OutOfTime, ""}}, "no", "no"},
		{"an error, then another", []step{{false, audit.Other, "no"}, {false, audit.Other, "neither"}}, "no", "no"},
		{"an error beside a limit", []step{{false, audit.Other, "no"}, {true, audit.OutOfTime, ""}}, "no", "no"},
		{"a limit beside an error", []step{{false, audit.OutOfTime, ""}, {true, audit.Other, "no"}}, "tenant events: no", "tenant events: no"},
		{"the same error of both", []step{{false, audit.Other, "no"}, {true, audit.Other, "no"}}, "no", "no"},
		{"an error of each", []step{{true, audit.Other, "neither"}, {false, audit.Other, "no"}}, "no\ntenant events: neither", "no\ntenant events: neither"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := freshRead(t, twoStreams(3), usual(withTenant))
			list := askAll(p)
			for _, s := range tt.steps {
				i := slices.IndexFunc(list, func(r Request) bool { return r.Tenant == s.tenant })
				r := list[i]
				list = slices.Delete(list, i, i+1)
				if s.kind != reached {
					fail(p, r, s.kind, s.text)
					continue
				}
				p.settings.MaxRecords = 0
				for _, r := range list {
					if r.Tenant == s.tenant {
						p.Take(r, page(), noOthers, 0)
					}
				}
				p.Take(r, more(audit.Record{ID: "x", At: r.Gte}), noOthers, 0)
				p.Next(false)
			}
			stopped(t, p, tt.stopped, tt.failure)
		})
	}
	t.Run("one error is that error", func(t *testing.T) {
		p := begin(nil, usual())
		want := errors.New("no")
		p.Fail(ask(t, p), &audit.Failure{Err: want})
		if err := p.Failure(); err != want {
			t.Errorf("%v", err)
		}
	})
	t.Run("the tenant's is still to be found in it", func(t *testing.T) {
		p := begin(nil, usual(withTenant))
		want := errors.New("no")
		take(t, p, page())
		p.Fail(ask(t, p), &audit.Failure{Err: want})
		if err := p.Failure(); !errors.Is(err, want) {
			t.Errorf("%v", err)
		}
	})
	t.Run("a limit does not hide what is left aside", func(t *testing.T) {
		p := begin(twoStreams(1), usual(withTenant))
		bad := circle(t, p)
		p, _ = p.StartOver()
		fail(p, ask(t, p), audit.Other, "no")
		stopped(t, p, circleText(bad)+"\ntenant events: no", circleText(bad)+"\ntenant events: no")
		p = begin(twoStreams(1), usual(withTenant))
		circle(t, p)
		p, _ = p.StartOver()
		take(t, p, page())
		fail(p, ask(t, p), audit.OutOfTime, "")
		stopped(t, p, circleText(bad), circleText(bad))
	})
}

// TestFinish: that there is no tenant is said once, and only where the API answers
// for the others; else they share the reason.
func TestFinish(t *testing.T) {
	for _, tt := range []struct {
		name     string
		answered bool
		kind     audit.Kind
		want     []Note
	}{
		{"refused", true, audit.Refused, []Note{{Severity: Warning,
			Text:  "The API has no tenant-scoped events for this key: set TENANT_EVENTS to false, or see to the tenant and the key's role in it",
			Attrs: []any{"error", "Organization has no tenant."}}}},
		{"refused altogether", false, audit.Refused, nil},
		{"another", true, audit.Other, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := begin(nil, usual(withTenant))
			if r := ask(t, p); tt.answered {
				p.Take(r, page(), noOthers, 0)
			} else {
				fail(p, r, tt.kind, "You are not allowed.")
			}
			fail(p, ask(t, p), tt.kind, "Organization has no tenant.")
			if diff := cmp.Diff(tt.want, p.Finish()); diff != "" {
				t.Errorf("notes differ (-want +got):\n%s", diff)
			}
		})
	}
}

// TestAnswered: there is something to commit once a page of any new window has
// come.
func TestAnswered(t *testing.T) {
	for _, tenant := range []bool{false, true} {
		p := begin(nil, usual(withTenant))
		main, other := ask(t, p), ask(t, p)
		if tenant {
			main, other = other, main
		}
		if p.Answered() {
			t.Error("before any page")
		}
		p.Take(main, page(), noOthers, 0)
		if !p.Answered() {
			t.Errorf("tenant %v: not by a page", tenant)
		}
		fail(p, other, audit.Other, "no")
		if !p.Answered() {
			t.Errorf("tenant %v: not by one that came before a failure", tenant)
		}
	}
}

// TestState: a run changes what it has read, and nothing else of the state.
func TestState(t *testing.T) {
	before := twoStreams(1)
	before.Organization, before.LastBackfill = "org-x", "b"
	before.Staging = state.Staging{LastObject: "o", Staged: "s", StagedGeneration: 5, StagedBucket: "states"}
	kept := twoStreams(1)
	kept.Organization, kept.LastBackfill, kept.Staging = before.Organization, before.LastBackfill, before.Staging

	p := begin(before, usual())
	allRequests(t, p)
	got := p.State()
	want := *kept
	want.Stream = p.State().Stream
	if diff := cmp.Diff(want, got); diff != "" || got.High != now || len(got.Backlog) != 0 {
		t.Errorf("high %d, %d windows, differs (-want +got):\n%s", got.High, len(got.Backlog), diff)
	}
	if diff := cmp.Diff(kept, before); diff != "" {
		t.Errorf("changes the state that it began with (-want +got):\n%s", diff)
	}

	p = begin(nil, usual(withTenant))
	allRequests(t, p)
	if got := p.State(); got.High != now || got.Tenant == nil || got.Tenant.High != now {
		t.Errorf("of a first run %+v", got)
	}
	p = begin(nil, usual())
	allRequests(t, p)
	if got := p.State(); got.High != now || got.Tenant != nil {
		t.Errorf("of a first run without tenant %+v", got)
	}
}

// TestWindowsByPlace: a window is known by its stream and its place, newest first,
// whatever order the backlog is stored in.
func TestWindowsByPlace(t *testing.T) {
	list := windows(6)
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	p := New(stateOf(collected(now-500, backlog(list...)), collected(now-500, backlog(list...))), usual(withTenant), time.Unix(now, 0))
	for _, s := range p.streams {
		for i, w := range s.segments {
			if want := (windowID{s.tenant, i}); w.id != want || i > 1 && w.Lte >= s.segments[i-1].Lte {
				t.Errorf("window %d is %v, %v", i, w.id, w.Window)
			}
		}
	}
}
