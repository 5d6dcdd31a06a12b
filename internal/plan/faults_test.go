package plan

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

// faultyHistory is one history of both streams, with faults.
type faultyHistory struct {
	t       *testing.T
	rnd     *rand.Rand
	order   order
	now     int64
	overlap int64
	late    int64                   // by how much records appear late, at most
	apis    map[bool]*pager         // by tenant
	all     map[bool][]*appeared    // likewise
	bad     map[string]bool         // ids that no page is served with
	counts  map[audit.Identity]int  // how often each is collected
	given   map[audit.Identity]bool // up, by a backfill that was cancelled
	state   *state.State
	repeats bool // a restart may repeat, and says so
	short   bool // ids were forgotten, and late records with them
	quiet   bool // nothing appears any more
	log     []string
}

// appeared is a record, and when it appeared.
type appeared struct {
	audit.Record
	at int64
}

// TestFaults reads two streams whose API cannot serve some records, and fails in many
// ways at once: bad, empty and ignored pages, refused cursors, clocks, caps. People cancel and add
// backfills, and set watermarks back. At any time, each record is collected at most once, or
// waits for the next new window or in a window; lag waits for it unless that one is set aside.
// In the end, all are collected but for those that were given up.
func TestFaults(t *testing.T) {
	for _, order := range orders {
		t.Run(order.name, func(t *testing.T) {
			t.Parallel()
			seeds := 100
			switch {
			case *exhaustive:
				seeds = 2000
			case testing.Short():
				seeds = 8
			}
			for seed := range seeds {
				h := newFaultyHistory(t, order, rand.New(rand.NewPCG(uint64(seed), 77)))
				h.tell()
				if t.Failed() {
					t.Fatalf("seed %d:\n%s", seed, strings.Join(h.log, "\n"))
				}
			}
		})
	}
}

func newFaultyHistory(t *testing.T, o order, rnd *rand.Rand) *faultyHistory {
	overlap := []int64{0, 20, 200}[rnd.IntN(3)]
	return &faultyHistory{
		t: t, rnd: rnd, order: o, now: 1_000_000, overlap: overlap, late: overlap,
		apis: map[bool]*pager{false: {compare: o.compare}, true: {compare: o.compare}},
		all:  map[bool][]*appeared{}, counts: map[audit.Identity]int{}, bad: map[string]bool{}, given: map[audit.Identity]bool{},
	}
}

func (h *faultyHistory) appear(badOnes bool) {
	tenant := h.rnd.IntN(2) == 0
	kind := []string{"a", "b", "k", "k"}[h.rnd.IntN(4)]
	at := h.now - h.rnd.Int64N(h.late+1)
	if n := len(h.all[tenant]); n > 0 && h.rnd.IntN(4) == 0 {
		at = max(h.all[tenant][n-1].At, h.now-h.late)
	}
	r := audit.Record{ID: fmt.Sprintf("%s-%v-%d", kind, tenant, len(h.all[tenant])), At: at, Type: 1}
	bad := badOnes && h.rnd.IntN(30) == 0
	add := func() {
		h.all[tenant] = append(h.all[tenant], &appeared{r, h.now})
		h.apis[tenant].add(r)
	}
	add()
	if bad {
		h.bad[r.ID] = true
	}
	if h.rnd.IntN(8) == 0 {
		r.Type = 2
		add()
	}
}

func (h *faultyHistory) tell() {
	pick := func(n ...int) int { return n[h.rnd.IntN(len(n))] }
	width := pick(1, 2, 4, 8)
	settings := Settings{MaxWindows: 2 * width, MaxIDs: 1 << 30, Lookback: 500_000}
	if h.rnd.IntN(3) == 0 {
		settings.MaxIDs = pick(200, 2000, 8000)
	}
	bads, filters := h.rnd.IntN(4) > 0, h.rnd.IntN(2) == 0
	hollow, ignores, refuse := h.rnd.IntN(4) == 0, h.order.cursorsExpire && h.rnd.IntN(4) == 0, h.order.cursorsExpire && h.rnd.IntN(3) == 0
	dates := h.rnd.IntN(3)                                          // 0 good, 1 absent at times, 2 frozen at times
	cancels := h.rnd.IntN(3) == 0 && h.order.name == "newest first" // else what is left of a window is not known
	rewinds := h.rnd.IntN(4) == 0 && !filters
	h.logf("width %d ids %d bads %v filters %v hollow %v ignores %v refuse %v dates %d cancels %v rewinds %v overlap %d", width, settings.MaxIDs, bads, filters, hollow, ignores, refuse, dates, cancels, rewinds, h.overlap)
	for range 14 {
		settings.PageSize, settings.MaxRecords = pick(1, 3, 10), pick(1, 3, 10, 100)
		settings.Tenant = h.rnd.IntN(4) > 0
		settings.Filter = types("k")
		if filters {
			settings.Filter = []audit.Filter{types("k"), types("a", "k"), types("b", "k"), "", types("a", "b", "k")}[h.rnd.IntN(5)]
		}
		if h.rnd.IntN(8) == 0 {
			h.overlap = max(h.overlap, h.rnd.Int64N(300))
		}
		settings.Overlap = h.overlap
		for range h.rnd.IntN(40) {
			h.appear(bads)
			h.now += h.rnd.Int64N(8)
		}
		if h.rnd.IntN(5) == 0 { // some become well
			for id := range h.bad {
				if h.rnd.IntN(2) == 0 {
					delete(h.bad, id)
				}
			}
		}
		f := pageFaults{hollow: hollow && h.rnd.IntN(2) == 0, ignores: ignores && h.rnd.IntN(2) == 0, refuse: refuse && h.rnd.IntN(2) == 0}
		switch h.rnd.IntN(6) {
		case 0:
			f.kinds = []audit.Kind{audit.Other, audit.OutOfTime, audit.Interrupted}
		case 1:
			f.kinds = []audit.Kind{audit.Unserved, audit.BadRequest, audit.PageTooLarge}
		case 2:
			f.kinds = []audit.Kind{audit.Unserved, audit.OutOfTime, audit.Other}
		}
		date := time.Unix(h.now, 0)
		switch {
		case dates == 1 && h.rnd.IntN(2) == 0:
			date = time.Time{}
		case dates == 2 && h.rnd.IntN(2) == 0:
			date = time.Unix(h.now-h.rnd.Int64N(500), 0)
			if h.state == nil {
				date = time.Unix(h.now, 0)
			}
		}
		h.run(settings, width, f, date)
		if cancels && h.state != nil && h.rnd.IntN(3) == 0 {
			h.cancel()
		}
		if h.state != nil && h.rnd.IntN(4) == 0 && filters && dates == 0 {
			h.backfill()
		}
		if rewinds && h.state != nil && h.rnd.IntN(5) == 0 {
			h.rewind()
		}
		h.now += h.rnd.Int64N(3) * 100
		if h.t.Failed() {
			return
		}
	}
	clear(h.bad)
	h.quiet = true
	settings.Tenant, settings.Filter, settings.MaxRecords, settings.PageSize, settings.Overlap = true, types("k"), 1000, 10, h.overlap
	for range 10 {
		h.now += h.overlap + 1
		h.run(settings, width, pageFaults{}, time.Unix(h.now, 0))
	}
	for _, tenant := range []bool{false, true} {
		s := &h.state.Stream
		if tenant {
			s = h.state.Tenant
		}
		if len(s.Backlog) > 0 {
			h.t.Errorf("tenant %v: backlog never ends: %+v", tenant, s.Backlog)
		}
		for _, r := range h.all[tenant] {
			if n := h.counts[r.Identity()]; n == 0 && kindOf(r.ID) == "k" && !h.excuse(r) {
				h.t.Errorf("record %s at %d is not collected", r.ID, r.At)
			}
		}
	}
}

func (h *faultyHistory) excuse(r *appeared) bool {
	return h.given[r.Identity()] || h.short && r.at > r.At
}

func (h *faultyHistory) logf(f string, a ...any) { h.log = append(h.log, fmt.Sprintf(f, a...)) }

type pageFaults struct {
	kinds                   []audit.Kind
	hollow, ignores, refuse bool
}

func (h *faultyHistory) run(settings Settings, width int, f pageFaults, date time.Time) {
	asked := 0
	ignored, failedAny := false, false
	lastFailed := map[bool][]Request{}
	started := h.now
	existed := map[*appeared]bool{}
	for _, list := range h.all {
		for _, r := range list {
			existed[r] = true
		}
	}
	read := &reader{t: h.t, width: width, pick: h.rnd.IntN,
		send: func(r Request) answer {
			if asked++; asked > 30_000 {
				h.t.Fatalf("spins")
			}
			if f.hollow && h.rnd.IntN(6) == 0 {
				return answer{page: audit.Page{Date: date, More: true, Cursor: r.After + "~"}}
			}
			q := r.Request
			if f.ignores && h.rnd.IntN(8) == 0 && q.After != "" {
				q.After = ""
				ignored = true
			}
			a := answer{page: h.apis[q.Tenant].page(q, date)}
			if slices.ContainsFunc(a.page.Records, func(r audit.Record) bool { return h.bad[r.ID] }) {
				kind := []audit.Kind{audit.Unserved, audit.BadRequest, audit.PageTooLarge}[len(a.page.Records[0].ID)%3]
				return failed(kind)
			}
			if r.Compare {
				others := r.Request
				others.Tenant = false
				pg := h.apis[false].page(others, date)
				a.others = &pg
			}
			return a
		},
		arrive: func(r Request, cancelled bool, a answer) answer {
			if !h.quiet && h.rnd.IntN(20) == 0 {
				h.now += h.rnd.Int64N(5)
				h.appear(false)
			}
			switch {
			case cancelled && h.rnd.IntN(2) == 0:
				a = failed(audit.Other)
			case f.refuse && r.After != "" && !r.segment.restarted && h.rnd.IntN(4) == 0:
				a = failed(audit.CursorRefused)
			case len(f.kinds) > 0 && h.rnd.IntN(8) == 0:
				a = failed(f.kinds[h.rnd.IntN(len(f.kinds))])
			}
			if a.failure != nil {
				failedAny = true
				lastFailed[r.Tenant] = append(lastFailed[r.Tenant], r)
			}
			h.logf("  ask %v [%d %d] after %q limit %d once %v -> %d records more %v %v", r.Tenant, r.Gte, r.Lte, r.After, r.Limit, r.Once, len(a.page.Records), a.page.More, a.failure)
			return a
		},
		heard: func(r Request, o Outcome) {
			for _, n := range o.Notes {
				if strings.Contains(n.Text, "cannot serve") {
					lastFailed[r.Tenant] = append(lastFailed[r.Tenant], r)
				}
				h.repeats = h.repeats || strings.Contains(n.Text, "may be repeated")
				h.logf("    %s %v", n.Text, n.Attrs)
			}
		},
	}
	h.logf("run at %d filter %q tenant %v date %d size %d max %d overlap %d", h.now, settings.Filter, settings.Tenant, date.Unix(), settings.PageSize, settings.MaxRecords, settings.Overlap)
	before := h.state
	p, written, restarts := read.run(New(before, settings, time.Unix(h.now, 0)))
	if restarts > 0 && !ignored {
		h.t.Errorf("started over %d times: %v", restarts, p.reasons)
	}
	for _, s := range p.streams {
		h.short = h.short || s.forgotten > 0
	}
	h.logf("  stopped %v", p.Stopped())
	if !p.Answered() {
		if len(written) > 0 && restarts == 0 {
			h.t.Fatalf("%d records not answered", len(written))
		}
		return
	}
	for _, r := range written {
		h.counts[r.Identity()]++
	}
	next := stored(h.t, p.State(), time.Unix(h.now, 0))
	h.state = &next
	h.check(settings, existed, started)
	for _, s := range p.streams {
		if s.answered { // what is set aside has failed
			n := s.next(p.now)
			h.logf("  tenant %v high %d since %d backlog %+v", s.tenant, n.High, n.RecentSince, n.Backlog)
			for _, w := range n.Backlog {
				if w.SetAside && !slices.ContainsFunc(lastFailed[s.tenant], func(r Request) bool { return r.Gte <= w.Lte && w.Gte <= r.Lte }) {
					was := s.before.Backlog
					if !slices.ContainsFunc(was, func(b state.Window) bool { return b.SetAside && b.Gte <= w.Gte && w.Lte <= b.Lte }) {
						h.t.Errorf("set aside without a failure: %+v", w)
					}
				}
			}
		}
	}
	if !failedAny && len(f.kinds) == 0 && p.Failure() != nil && !ignored {
		h.t.Errorf("failure without one: %v", p.Failure())
	}
}

func (h *faultyHistory) streams() map[bool]*state.Stream {
	m := map[bool]*state.Stream{}
	if h.state != nil {
		m[false] = &h.state.Stream
		if h.state.Tenant != nil {
			m[true] = h.state.Tenant
		}
	}
	return m
}

func passes(f audit.Filter, id string) bool {
	return f == "" || strings.Contains(string(f), "="+kindOf(id))
}

func (h *faultyHistory) check(settings Settings, existed map[*appeared]bool, started int64) {
	for tenant, s := range h.streams() {
		for _, r := range h.all[tenant] {
			n := h.counts[r.Identity()]
			if n > 1 && !h.repeats && !h.given[r.Identity()] {
				h.t.Errorf("record %s at %d is collected %d times", r.ID, r.At, n)
			}
			if n > 0 || kindOf(r.ID) != "k" || h.excuse(r) || !existed[r] {
				continue
			}
			if r.At < s.Watermark-h.late {
				h.t.Errorf("watermark %d has passed record %s at %d", s.Watermark, r.ID, r.At)
			}
			waits, aside := r.At >= max(s.High-settings.Overlap, s.RecentSince), false
			for _, w := range s.Backlog {
				if w.Contains(r.At) && passes(w.Filter, r.ID) {
					waits = true
					aside = aside || w.SetAside
				}
			}
			if s.Untouched {
				continue
			}
			if !waits && (tenant == false || settings.Tenant) {
				h.t.Errorf("record %s at %d, appeared %d, waits nowhere: high %d since %d %+v", r.ID, r.At, r.at, s.High, s.RecentSince, s.Backlog)
			}
			if to := s.CollectedTo(); !aside && r.At < min(to, s.High)-h.late {
				h.t.Errorf("record %s at %d not collected, to %d", r.ID, r.At, to)
			}
		}
	}
}

func (h *faultyHistory) cancel() {
	next := *h.state
	var list []state.Window
	for _, s := range h.streams() {
		list = append(list, s.Backlog...)
	}
	if len(list) == 0 {
		return
	}
	w := list[h.rnd.IntN(len(list))]
	left := w.Left()
	from, to := left.Gte, left.Lte
	if h.rnd.IntN(3) == 0 {
		from, to = from-h.rnd.Int64N(30), to+h.rnd.Int64N(30)-15
	}
	if from > to {
		return
	}
	b, err := next.AddBackfill(state.Backfill{From: time.Unix(from, 0), To: time.Unix(to, 0), Cancel: true}, "", true)
	if err != nil {
		return
	}
	h.logf("cancel %d to %d: %s", from, to, b)
	next = stored(h.t, next, time.Unix(h.now, 0))
	h.state = &next
	for _, all := range h.all {
		for _, r := range all {
			if from <= r.At && r.At <= to || h.order.name != "newest first" && w.After != "" && w.Contains(r.At) {
				h.given[r.Identity()] = true
			}
		}
	}
}

func (h *faultyHistory) backfill() {
	from := h.now - h.rnd.Int64N(1500)
	want := state.Backfill{From: time.Unix(from, 0), To: time.Unix(from+h.rnd.Int64N(400), 0)}
	next := *h.state
	filter := []audit.Filter{types("a"), types("b"), types("a", "b")}[h.rnd.IntN(3)]
	if b, err := next.AddBackfill(want, filter, h.rnd.IntN(2) == 0); err == nil && len(b.Parts) > 0 {
		h.logf("backfill %s", b)
		next = stored(h.t, next, time.Unix(h.now, 0))
		h.state = &next
	}
}

// rewind sets the watermark back by hand; what is at or after it may be collected again.
func (h *faultyHistory) rewind() {
	tenant := h.rnd.IntN(2) == 0
	s := h.streams()[tenant]
	if s == nil {
		return
	}
	to := s.Watermark - 1 - h.rnd.Int64N(200)
	s.Watermark = to
	var object bytes.Buffer
	if err := state.Encode(&object, *h.state); err != nil {
		h.t.Fatal(err)
	}
	next, note, err := state.Decode(&object, time.Unix(h.now, 0))
	if err != nil {
		h.t.Fatal(err)
	}
	h.logf("rewind %v to %d: %s", tenant, to, note)
	next.Adopt()
	h.state = &next
	for _, r := range h.all[tenant] {
		if r.At >= to && h.counts[r.Identity()] > 0 {
			h.counts[r.Identity()] = 0
			h.logf("again %s at %d", r.ID, r.At)
		}
	}
}
