package plan

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

// TestStreams reads two streams by runs whose settings change, and whose API
// fails, in turn: filters, TENANT_EVENTS and caps; failures of one stream or of
// both; pages too large; cursors refused; tenant_only dropped on the way; pages in
// circles; and backfills in between. Nothing is written twice, what all filters
// let through is collected, no watermark passes it before, what stops one
// stream stops no other, and no id is kept without need.
func TestStreams(t *testing.T) {
	for _, order := range orders {
		t.Run(order.name, func(t *testing.T) {
			seeds := 400
			if testing.Short() {
				seeds = 60
			}
			met := map[string]int{}
			for seed := range seeds {
				h := newStreamHistory(t, order.compare, order.cursorsExpire, rand.New(rand.NewPCG(uint64(seed), 2)))
				h.tell()
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
				for what, n := range h.met {
					met[what] += n
				}
			}
			if order.name != "newest first" {
				met["split"] = seeds // never
			}
			for _, what := range []string{"circle", "same records", "no tenant", "shared id", "limit", "main fails", "tenant fails", "too large", "split", "backfill", "beside"} {
				if met[what] < seeds/10 {
					t.Errorf("%d times %s in %d histories: %v", met[what], what, seeds, met)
				}
			}
		})
	}
}

// streamHistory is one history of both streams.
type streamHistory struct {
	t             *testing.T
	rnd           *rand.Rand
	cursorsExpire bool

	now      int64
	overlap  int64
	late     int64           // by how much records appear late, at most
	apis     map[bool]*pager // by tenant
	all      map[bool][]audit.Record
	counts   map[audit.Identity]int
	state    *state.State
	repeats  bool           // a restart may repeat, and says so
	noTenant int            // runs before the organization gets a tenant
	met      map[string]int // what the history had
}

func newStreamHistory(t *testing.T, compare func(a, b audit.Record) int, cursorsExpire bool, rnd *rand.Rand) *streamHistory {
	overlap := []int64{0, 20, 200}[rnd.IntN(3)]
	return &streamHistory{
		t: t, rnd: rnd, cursorsExpire: cursorsExpire, now: 1_000_000, overlap: overlap, late: overlap,
		apis: map[bool]*pager{false: {compare: compare}, true: {compare: compare}},
		all:  map[bool][]audit.Record{}, counts: map[audit.Identity]int{}, met: map[string]int{}, noTenant: max(0, rnd.IntN(12)-6),
	}
}

// appear makes a record of either stream appear.
func (h *streamHistory) appear(tenant bool, kind string, at int64) {
	r := audit.Record{ID: fmt.Sprintf("%s-%v-%d", kind, tenant, len(h.all[tenant])), At: at, Type: 1}
	h.all[tenant] = append(h.all[tenant], r)
	h.apis[tenant].add(r)
	if h.rnd.IntN(6) == 0 { // one request can cause several records, which share its id
		r.Type = 2
		h.all[tenant] = append(h.all[tenant], r)
		h.apis[tenant].add(r)
		h.met["shared id"]++
	}
}

func (h *streamHistory) appearAny() {
	h.appear(h.rnd.IntN(2) == 0, []string{"a", "b", "c", "k"}[h.rnd.IntN(4)], h.now-h.rnd.Int64N(h.late+1))
}

func types(list ...string) audit.Filter {
	return audit.NewFilter(map[string][]string{"EVENT_TYPES": list})
}

// streamFaults are what goes wrong in one run.
type streamFaults struct {
	kinds      map[bool][]audit.Kind // a stream's requests may fail so
	refuse     bool                  // cursors
	dropped    bool                  // tenant_only is, on the way
	tooLarge   int                   // records of a page, 0 for none
	circle     *windowID             // that pages in circles
	noCompare  bool                  // what comes without tenant_only is not answered
	busy, hang bool
}

// tell goes through the history.
func (h *streamHistory) tell() {
	pick := func(n ...int) int { return n[h.rnd.IntN(len(n))] }
	settings := Settings{MaxWindows: 64, MaxIDs: 1 << 30, Lookback: 500_000}
	width := pick(1, 2, 4, 8)
	for range 14 {
		settings.PageSize, settings.MaxRecords = pick(1, 3, 10), pick(1, 3, 10, 100)
		settings.Tenant = h.rnd.IntN(4) > 0
		settings.Filter = []audit.Filter{types("k"), types("a", "k"), types("b", "k"), "", types("a", "b", "k"), types("c", "k")}[h.rnd.IntN(6)]
		if h.rnd.IntN(6) == 0 {
			h.overlap = max(h.overlap, h.rnd.Int64N(300)) // raised by the operator
		}
		settings.Overlap = h.overlap
		for range h.rnd.IntN(30) {
			h.appearAny()
			h.now += h.rnd.Int64N(8)
		}
		faults := streamFaults{busy: h.rnd.IntN(3) == 0, hang: h.rnd.IntN(3) == 0, noCompare: h.rnd.IntN(2) == 0, kinds: map[bool][]audit.Kind{}}
		kinds := []audit.Kind{audit.Other, audit.OutOfTime, audit.Interrupted, audit.Refused}
		switch h.rnd.IntN(9) {
		case 0:
			faults.kinds[false] = kinds
		case 1:
			faults.kinds[true] = kinds
		case 2:
			faults.kinds[false], faults.kinds[true] = kinds, kinds
		case 3:
			faults.refuse = h.cursorsExpire
		case 4, 5:
			faults.tooLarge = 1 + h.rnd.IntN(4)
		case 6:
			// Pages that contradict each other are seen to do so where they are read
			// to the end.
			if h.noTenant > 0 {
				break
			}
			settings.MaxRecords, settings.Tenant = 10_000, true
			faults = streamFaults{dropped: true, hang: faults.hang}
			h.now++
			h.appear(false, "k", h.now)
		case 7, 8:
			settings.MaxRecords = 10_000
			faults = streamFaults{circle: &windowID{h.rnd.IntN(2) == 0, h.rnd.IntN(3)}, hang: faults.hang}
		}
		h.run(settings, width, faults)
		h.check()
		h.backfill()
		h.noTenant--
		h.now += h.rnd.Int64N(3) * 100
	}
	settings = Settings{MaxWindows: 64, MaxIDs: 1 << 30, Tenant: true, Filter: types("k"), MaxRecords: 500, PageSize: 10, Overlap: h.overlap, Lookback: 500_000}
	for range 6 {
		h.now += h.overlap + 1
		h.run(settings, width, streamFaults{})
		h.check()
	}
	for _, tenant := range []bool{false, true} {
		s := &h.state.Stream
		if tenant {
			s = h.state.Tenant
		}
		if len(s.Backlog) > 0 {
			h.t.Errorf("tenant %v: backlog never ends: %+v", tenant, s.Backlog)
		}
		idsAreNeeded(h.t, s, h.overlap)
		for _, r := range h.all[tenant] {
			if n := h.counts[r.Identity()]; n == 0 && kindOf(r.ID) == "k" {
				h.t.Errorf("record %s at %d is not collected", r.ID, r.At)
			}
		}
	}
}

// check looks at what has been collected.
func (h *streamHistory) check() {
	for tenant, list := range h.all {
		watermark := int64(0)
		switch {
		case h.state == nil:
		case !tenant:
			watermark = h.state.Watermark
		case h.state.Tenant != nil:
			watermark = h.state.Tenant.Watermark
		}
		for _, r := range list {
			n := h.counts[r.Identity()]
			if n > 1 && !h.repeats {
				h.t.Errorf("record %s at %d is collected %d times", r.ID, r.At, n)
			}
			if n == 0 && kindOf(r.ID) == "k" && r.At < watermark-h.late {
				h.t.Errorf("watermark %d has passed record %s at %d", watermark, r.ID, r.At)
			}
		}
	}
}

// backfill asks for some range of some types; it is refused or not.
func (h *streamHistory) backfill() {
	if h.state == nil || h.rnd.IntN(3) > 0 {
		return
	}
	from := h.now - h.rnd.Int64N(1500)
	want := state.Backfill{From: time.Unix(from, 0), To: time.Unix(from+h.rnd.Int64N(400), 0)}
	if h.rnd.IntN(4) == 0 {
		want.To = time.Time{}
	}
	next := *h.state
	filter := []audit.Filter{types("a"), types("b"), types("c"), types("a", "c")}[h.rnd.IntN(4)]
	if b, err := next.AddBackfill(want, filter, h.rnd.IntN(2) == 0); err == nil && len(b.Parts) > 0 {
		h.met["backfill"]++
		next = stored(h.t, next, time.Unix(h.now, 0))
		h.state = &next
	}
}

// run does one run.
func (h *streamHistory) run(settings Settings, width int, faults streamFaults) {
	before := h.state
	compares := map[int]bool{}
	circles := map[*segment][]string{} // the cursors of a window that pages in circles
	circled := false
	date := time.Unix(h.now, 0)
	api := func(q audit.Request) audit.Page {
		return h.apis[q.Tenant && !faults.dropped].page(q, date)
	}
	failures := map[bool]bool{}
	read := &reader{
		t: h.t, width: width, pick: h.rnd.IntN,
		send: func(r Request) answer {
			// A circle that comes back to a window's first record counts as a cursor that
			// is refused, after which nothing may be lost where pages come in some order.
			if faults.circle != nil && r.segment.id == *faults.circle && (h.cursorsExpire || r.After != "") {
				list := circles[r.segment]
				if list == nil || r.After == "" {
					list = []string{r.After}
				}
				if len(list) == 3 { // after the second page the first comes again
					if r.After != list[2] {
						h.t.Fatalf("after %q, and the second page's cursor was %q", r.After, list[2])
					}
					circled = true
					failures[r.Tenant] = true // where it counts as a cursor that is ignored, again and again
					again := r.Request
					again.After = list[0]
					list = list[:1]
					circles[r.segment] = list
					pg := api(again)
					circles[r.segment] = append(list, pg.Cursor)
					return answer{page: pg}
				}
				pg := api(r.Request)
				circles[r.segment] = append(list, pg.Cursor)
				return answer{page: pg, others: new(audit.Page)}
			}
			a := answer{page: api(r.Request)}
			if r.Compare && faults.noCompare {
				failures[true] = true // it waits where it is not yet known to be another
			} else if r.Compare {
				others := r.Request
				others.Tenant = false
				pg := api(others)
				a.others = &pg
				compares[r.ID] = true
			}
			return a
		},
		arrive: func(r Request, cancelled bool, a answer) answer {
			if faults.busy && h.rnd.IntN(6) == 0 {
				h.now += h.rnd.Int64N(5)
				h.appearAny()
			}
			kinds := faults.kinds[r.Tenant]
			switch {
			case r.Tenant && h.noTenant > 0:
				failures[true] = true
				return failed(audit.Refused)
			case cancelled && h.rnd.IntN(2) == 0: // else it was answered just before
				return failed(audit.Other)
			case faults.refuse && r.After != "" && !r.segment.restarted && h.rnd.IntN(3) == 0:
				return failed(audit.CursorRefused)
			case faults.tooLarge > 0 && len(a.page.Records) > faults.tooLarge && r.Limit > 1:
				h.met["too large"]++
				return failed(audit.PageTooLarge)
			case len(kinds) > 0 && h.rnd.IntN(4) == 0:
				failures[r.Tenant] = true
				return failed(kinds[h.rnd.IntN(len(kinds))])
			}
			return a
		},
		hangs: func(r Request) bool { return faults.hang && h.rnd.IntN(2) == 0 },
		heard: func(r Request, o Outcome) {
			for _, n := range o.Notes {
				h.repeats = h.repeats || strings.Contains(n.Text, "may be repeated")
			}
		},
	}
	p, written, restarts := read.run(New(before, settings, date))
	h.met["beside"] += read.beside
	h.heard(p, settings, faults, failures, before)
	// A circle that comes back to a window's first record may count as a cursor that
	// is ignored: then nothing is read again.
	if faults.circle != nil && restarts > 0 && !circled || faults.dropped != (restarts > 0 && faults.circle == nil) {
		h.t.Errorf("circled %v, dropped %v, started over %d times", circled, faults.dropped, restarts)
	}
	if circled {
		h.met["circle"]++
	}
	if faults.dropped {
		h.met["same records"]++
	}
	if !p.Answered() {
		if len(written) > 0 {
			h.t.Fatalf("%d records of an API that does not answer", len(written))
		}
		return
	}
	for _, r := range written {
		h.counts[r.Identity()]++
	}
	next := stored(h.t, p.State(), date)
	if faults.dropped && (before == nil || before.Tenant == nil) {
		if s := next.Tenant; s == nil || !s.Untouched || len(s.Recent) > 0 || s.High != h.now-settings.Lookback {
			h.t.Errorf("a tenant's stream that was left as it began is %+v", s)
		}
	} else if faults.dropped {
		if diff := cmp.Diff(before.Tenant, next.Tenant); diff != "" {
			h.t.Errorf("a tenant's stream that was left has changed (-before +after):\n%s", diff)
		}
	}
	h.state = &next
}

// heard checks what a plan says at its end.
func (h *streamHistory) heard(p *Plan, settings Settings, faults streamFaults, failures map[bool]bool, before *state.State) {
	next := p.State()
	text := ""
	if err := p.Stopped(); err != nil {
		text = err.Error()
	}
	for _, s := range p.streams {
		kind := "main"
		stream := &next.Stream
		if s.tenant {
			kind, stream = "tenant", next.Tenant
		}
		if len(s.segments) > 1+len(s.before.Backlog) {
			h.met["split"]++
		}
		switch {
		case s.stopReason == errNoTenant:
			h.met["no tenant"]++
			continue
		case failure(s.stopReason) != nil:
			h.met[kind+" fails"]++
		case s.stopReason != nil:
			h.met["limit"]++
		case s.quarantined || s.segments[0].quarantined:
		default:
			// What stops one stream stops no other: it is read to its end, but for
			// what is left aside.
			for _, w := range stream.Backlog {
				if !slices.ContainsFunc(s.segments, func(x *segment) bool { return x.quarantined && x.Window == w }) {
					h.t.Errorf("%s stream with nothing wrong leaves %+v", kind, w)
				}
			}
			if stream.LastRun != time.Unix(p.now.Unix(), 0).UTC().Format(time.RFC3339) {
				h.t.Errorf("%s stream with nothing wrong was last read at %s", kind, stream.LastRun)
			}
		}
		if failure(s.stopReason) != nil && !failures[s.tenant] {
			h.t.Errorf("%s stream is stopped by %v", kind, s.stopReason)
		}
		if s.tenant && failure(s.stopReason) != nil && (p.streams[0].stopReason == nil || p.streams[0].stopReason.Error() != s.stopReason.Error()) && !strings.Contains(text, "tenant events: ") {
			h.t.Errorf("%q says nothing of the tenant's", text)
		}
	}
	if !settings.Tenant && before != nil {
		if diff := cmp.Diff(before.Tenant, next.Tenant); diff != "" {
			h.t.Errorf("a tenant's stream that was not read has changed (-before +after):\n%s", diff)
		}
	}
}
