package auditlog

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// pager is an API in memory: records that become visible over time, in some
// order that pages consistently.
type pager struct {
	records []record
	compare func(a, b record) int
}

func newestFirst(a, b record) int {
	if a.at != b.at {
		return int(b.at - a.at)
	}
	return strings.Compare(b.id, a.id)
}

func oldestFirst(a, b record) int { return newestFirst(b, a) }

func shuffled(a, b record) int {
	h := func(r record) uint32 { f := fnv.New32a(); f.Write([]byte(r.id)); return f.Sum32() }
	if x, y := h(a), h(b); x != y {
		return int(int64(x) - int64(y))
	}
	return strings.Compare(a.id, b.id)
}

func (p *pager) add(r record) {
	i, _ := slices.BinarySearchFunc(p.records, r, p.compare)
	p.records = slices.Insert(p.records, i, r)
}

func (p *pager) page(q query) page {
	var found page
	past := q.after == ""
	for _, r := range p.records {
		if past && r.at >= q.gte && r.at <= q.lte {
			if len(found.records) == q.limit {
				found.more = true
				break
			}
			found.records = append(found.records, r)
			found.cursor = r.id
		}
		past = past || r.id == q.after
	}
	return found
}

// choices are those of a scenario: one a byte of data, so that a fuzzer can
// steer them, and from a generator once data is used up.
type choices struct {
	data []byte
	rnd  *rand.Rand
}

// n chooses from 0 to n-1; n is at most 256.
func (c *choices) n(n int64) int64 {
	if len(c.data) == 0 {
		return c.rnd.Int64N(n)
	}
	b := c.data[0]
	c.data = c.data[1:]
	return int64(b) % n
}

// windowStory is what happens to a run from outside.
type windowStory struct {
	refuse  func() bool // the cursor is refused
	fails   func() bool // time passes before a page, and the API gives none
	repeats func()      // the run may have begun to repeat records
	pick    func(n int) int
	got     func(record)
}

// windowRun does what a run does with windows, without the network: up to width
// requests are under way, and answered in any order. local is the host's clock,
// api the API's, zero when it tells none.
func windowRun(s *Stream, p *pager, local, api time.Time, overlap, pageSize, maxRecords int64, width int, story windowStory) *Stream {
	type request struct {
		w  *part
		q  query
		pg page
	}
	r := plan(s, local, overlap, 10_000, "")
	var sent []request
	asked, stopped := int64(0), false // asked counts the records collected, too
	for {
		for _, w := range r.idle() {
			if limit := min(pageSize, maxRecords-asked); !stopped && len(sent) < width && limit > 0 {
				q := query{gte: w.Gte, lte: w.Lte, after: w.After, limit: int(limit)}
				w.busy = true
				asked += limit
				sent = append(sent, request{w, q, p.page(q)})
			}
		}
		if len(sent) == 0 {
			break
		}
		i := story.pick(len(sent))
		w, q, pg := sent[i].w, sent[i].q, sent[i].pg
		sent = slices.Delete(sent, i, i+1)
		w.busy = false
		asked -= int64(q.limit)
		if q.after != "" && !w.restarted && story.refuse() {
			w.restarted = true
			if r.restart(w) {
				story.repeats()
			}
			continue
		}
		if story.fails() {
			stopped = true
			continue
		}
		pg.date = api
		for _, rec := range pg.records {
			if !r.seen(rec) {
				story.got(rec)
				r.meet(w, rec)
				asked++
			}
		}
		r.take(w, pg)
		r.share(w, width-len(sent)-len(r.idle()), int(pageSize))
	}
	if !r.answered {
		return s // nothing to commit
	}
	return r.next(local)
}

var windowOrders = []struct {
	name    string
	compare func(a, b record) int
	// A refused cursor may lose records where the order is none: of shuffled
	// pages the first few may look ordered.
	cursorsExpire bool
}{
	{"newest first", newestFirst, true},
	{"oldest first", oldestFirst, true},
	{"shuffled", shuffled, false},
}

// TestWindows lets records appear in bursts, ties and late, in several orders,
// and reads them by runs of any page size and cap, with clocks that disagree
// and an API that fails: each must be collected once, and the watermark must
// never pass one that is not.
func TestWindows(t *testing.T) {
	for _, order := range windowOrders {
		t.Run(order.name, func(t *testing.T) {
			seeds := 2000
			if testing.Short() {
				seeds = 200
			}
			for seed := range seeds {
				windowScenario(t, order.compare, order.cursorsExpire, &choices{rnd: rand.New(rand.NewPCG(uint64(seed), 1))})
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

func windowScenario(t *testing.T, compare func(a, b record) int, cursorsExpire bool, choose *choices) {
	p := &pager{compare: compare}
	const start = 1_000_000
	now := int64(start) // by the API's clock
	overlap := choose.n(40)
	late := overlap // an overlap that is raised holds from then on
	pageSize, maxRecords := 1+choose.n(7), 1+choose.n(30)
	spread := 1 + choose.n(60) // few seconds: many ties
	refusals := cursorsExpire && choose.n(3) == 0
	failures, clocks, busy := choose.n(3) == 0, choose.n(3) == 0, choose.n(3) == 0
	width := 1 + int(choose.n(5))
	repeats := false // a restart may repeat, and says so

	counts := map[string]int{}
	var all []record
	appear := func() {
		r := record{id: fmt.Sprintf("%05d", len(all)), at: now - choose.n(late+1)}
		if len(all) > 0 && choose.n(4) == 0 {
			r.at = max(all[len(all)-1].at, now-late) // a tie
		}
		all = append(all, r)
		p.add(r)
	}
	var s *Stream
	check := func() {
		for _, r := range all {
			if counts[r.id] > 1 && !repeats {
				t.Errorf("record %s at %d collected %d times", r.id, r.at, counts[r.id])
			}
			if counts[r.id] == 0 && s != nil && r.at < s.Watermark-late {
				t.Errorf("watermark %d has passed record %s at %d", s.Watermark, r.id, r.at)
			}
		}
	}
	story := windowStory{
		refuse: func() bool { return refusals && choose.n(4) == 0 },
		fails: func() bool {
			if busy && choose.n(4) == 0 { // records appear between pages
				now += choose.n(spread) / 10
				appear()
			}
			return failures && choose.n(6) == 0
		},
		repeats: func() { repeats = true },
		pick: func(n int) int {
			if n == 1 {
				return 0
			}
			return int(choose.n(int64(n)))
		},
		got: func(r record) { counts[r.id]++ },
	}
	for range 4 + choose.n(8) {
		for range choose.n(60) {
			appear()
			now += choose.n(spread) / 10
		}
		if choose.n(4) == 0 {
			overlap = max(overlap, choose.n(60)) // raised by the operator
		}
		local, api := time.Unix(now, 0), time.Unix(now, 0)
		if clocks {
			if choose.n(4) == 0 { // then the host's clock must not be ahead
				local, api = time.Unix(now-choose.n(31), 0), time.Time{}
			} else {
				local = time.Unix(now+choose.n(61)-30, 0)
			}
		}
		s = windowRun(s, p, local, api, overlap, pageSize, maxRecords, width, story)
		check()
		now += choose.n(100)
	}
	now += 30 // as far as the host's clock may have been ahead
	story.refuse = func() bool { return false }
	story.fails = story.refuse
	for range 2000 {
		s = windowRun(s, p, time.Unix(now, 0), time.Unix(now, 0), overlap, pageSize, maxRecords, width, story)
		now += choose.n(100)
		if len(s.Backlog) == 0 {
			break
		}
	}
	check()
	if len(s.Backlog) > 0 {
		t.Errorf("backlog never ends: %+v", s.Backlog)
	}
	for _, r := range all {
		if counts[r.id] == 0 || counts[r.id] > 1 && !repeats {
			t.Errorf("record %s at %d collected %d times, want once", r.id, r.at, counts[r.id])
		}
	}
	for id, at := range s.RecentIDs {
		if at < s.High-overlap {
			t.Errorf("id %s at %d is kept without need: high %d, overlap %d", id, at, s.High, overlap)
		}
	}
}

// FuzzWindows is TestWindows with the choices in the fuzzer's hands.
func FuzzWindows(f *testing.F) {
	for i := range windowOrders {
		f.Add([]byte{byte(i)})
	}
	for _, data := range []string{
		"\x02\x11\x00\x1b*\x01\x00\x00\x1b/",     // records appear while a fast host's window is read
		"\x01\"\x01\x0e1\x01\x01\x00\x00",        // ... and two windows share some
		"962993694",                              // a cursor amid ties is refused
		"13715159196292685457463699541388882",    // windows overlap
		"24585766687310323938470886697252949948", // clocks disagree
	} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		choose := &choices{data, rand.New(rand.NewPCG(0, 1))}
		order := windowOrders[choose.n(int64(len(windowOrders)))]
		windowScenario(t, order.compare, order.cursorsExpire, choose)
	})
}

// TestHigh pins what the new window covers, and with it where the next begins.
func TestHigh(t *testing.T) {
	const now = 1_000_000
	more := page{records: []record{{id: "b", at: now - 50}}, cursor: "b", more: true}
	whole := page{records: []record{{id: "a", at: now - 50}}}
	tests := []struct {
		name   string
		before *Stream
		page   page
		date   int64 // the API's clock, 0 for none
		want   int64
	}{
		{"read to its end: the newest record", known(now - 500), whole, now, now - 50},
		{"never back", known(now - 20), whole, now, now - 20},
		{"empty: its own end", known(now - 500), page{}, now, now},
		{"empty, local clock fast: the API's clock", known(now - 500), page{}, now - 300, now - 300},
		{"empty, API's clock behind what is covered", known(now - 500), page{}, now - 900, now - 500},
		{"empty, API's clock ahead: its own end", known(now - 500), page{}, now + 900, now},
		{"empty, no clock of the API: as before", known(now - 500), page{}, 0, now - 500},
		{"a rest in the backlog: its own end", known(now - 500), more, now, now},
		{"a rest, local clock fast: the API's clock", known(now - 500), more, now - 30, now - 30},
		{"a rest, API's clock wrong: the newest record", known(now - 500), more, now - 400, now - 50},
		{"a rest, no clock of the API: the newest record", known(now - 500), more, 0, now - 50},
		{"first run, empty, no clock of the API: its start", nil, page{}, 0, now - 3600},
		{"local clock set back: as before", known(now + 700), page{}, now, now + 700},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := plan(tt.before, time.Unix(now, 0), 120, 3600, "")
			if tt.date != 0 {
				tt.page.date = time.Unix(tt.date, 0)
			}
			r.take(r.windows[0], tt.page)
			if s := r.next(time.Unix(now, 0)); s.High != tt.want {
				t.Errorf("high %d, want %d", s.High-now, tt.want-now)
			}
		})
	}
}

// TestAppearsWhileRead: what appears while the new window is read, in a second that
// the host's clock has reached and the API's had not, does not move high on:
// others of its kind may have appeared behind the cursor.
func TestAppearsWhileRead(t *testing.T) {
	const now = 1_000_000 // by the host's clock, 100 seconds ahead of the API's
	r := plan(known(now-500), time.Unix(now, 0), 120, 3600, "")
	w := r.windows[0]
	r.take(w, page{records: []record{{id: "a", at: now - 130}}, cursor: "a", more: true, date: time.Unix(now-100, 0)})
	late := record{id: "b", at: now - 60}
	r.meet(w, late)
	r.take(w, page{records: []record{late}, cursor: "b", date: time.Unix(now-50, 0)})
	if s := r.next(time.Unix(now, 0)); s.High != now-130 || s.RecentIDs["b"] == 0 {
		t.Errorf("high %d, want -130; ids %v", s.High-now, s.RecentIDs)
	}
}

// TestUnreadPart: a part of the new window that is left counts as its rest, also
// where the part with its newest records is read.
func TestUnreadPart(t *testing.T) {
	const now = 1_000_000
	r := plan(known(now-5000), time.Unix(now, 0), 120, 3600, "")
	w := r.windows[0]
	first := page{records: []record{{id: "a", at: now - 10}, {id: "b", at: now - 20}}, cursor: "b", more: true, date: time.Unix(now, 0)}
	r.take(w, first)
	r.share(w, 3, 2)
	if len(r.windows) != 4 || w.Lte != now || w.Gte >= now-20 || r.windows[3].Gte != now-5120 {
		t.Fatalf("shared into %d windows, the first %+v", len(r.windows), w)
	}
	for i, w := range r.windows[1:] {
		if w.Lte != r.windows[i].Gte-1 || w.Gte > w.Lte || !w.fresh {
			t.Errorf("part %d is %+v, after %+v", i+1, w.window, r.windows[i].window)
		}
	}
	r.take(w, page{date: time.Unix(now, 0)})
	s := r.next(time.Unix(now, 0))
	if s.High != now || len(s.Backlog) != 3 || s.Watermark != now-5120 || len(s.Covered) != 0 {
		t.Errorf("%+v", s)
	}
}

// TestDateStandsStill: an API whose Date stands still, as behind a cache, and
// whose pages come oldest first, does not hold high up.
func TestDateStandsStill(t *testing.T) {
	const now = 1_000_000
	r := plan(known(now-500), time.Unix(now, 0), 120, 3600, "")
	w := r.windows[0]
	for i, at := range []int64{now - 600, now - 400, now - 50} {
		rec := record{id: fmt.Sprint(i), at: at}
		r.meet(w, rec)
		r.take(w, page{records: []record{rec}, cursor: rec.id, more: i < 2, date: time.Unix(now-9000, 0)})
	}
	if s := r.next(time.Unix(now, 0)); s.High != now-50 || len(s.RecentIDs) != 1 {
		t.Errorf("high %d, want -50; ids %v", s.High-now, s.RecentIDs)
	}
}

// TestOneDescentIsNeeded: a first page of one second, or of one record, proves
// no order; a refused cursor then must not give up what lies above.
func TestOneDescentIsNeeded(t *testing.T) {
	w := window{Gte: 0, Lte: 100}
	w.advance(page{records: []record{{id: "a", at: 7}}, cursor: "a", more: true})
	if w.descends() || !w.unread(50) {
		t.Errorf("%+v counts as newest first", w)
	}
	w.advance(page{records: []record{{id: "b", at: 6}}, cursor: "b", more: true})
	if !w.descends() || w.unread(50) {
		t.Errorf("%+v does not count as newest first", w)
	}
}

func known(high int64) *Stream { return &Stream{High: high, continues: true} }

// TestInclusiveCursor: an API whose page begins with the cursor's own record,
// and the others of its second, repeats nothing.
func TestInclusiveCursor(t *testing.T) {
	r := plan(nil, time.Unix(1000, 0), 0, 1000, "")
	w := r.windows[0]
	var got []string
	for _, p := range []page{
		{records: []record{{id: "d", at: 900}, {id: "c", at: 500}}, cursor: "c", more: true},
		{records: []record{{id: "c", at: 500}, {id: "b", at: 500}}, cursor: "b", more: true},
		{records: []record{{id: "c", at: 500}, {id: "b", at: 500}, {id: "a", at: 400}}},
	} {
		for _, rec := range p.records {
			if !r.seen(rec) {
				got = append(got, rec.id)
				r.meet(w, rec)
			}
		}
		r.take(w, p)
	}
	if s := strings.Join(got, ""); s != "dcba" {
		t.Errorf("collected %s, want dcba", s)
	}
}

// TestFlatMemory: ids are remembered for what can come again only, whatever
// the order.
func TestFlatMemory(t *testing.T) {
	for name, at := range map[string]func(i int64) int64{
		"newest first": func(i int64) int64 { return 1_000_000 - i },
		"oldest first": func(i int64) int64 { return i + 1 },
	} {
		t.Run(name, func(t *testing.T) {
			r := plan(nil, time.Unix(1_000_000, 0), 120, 1_000_000, "")
			w := r.windows[0]
			most := 0
			for i := int64(0); i < 200_000; i += 100 {
				p := page{more: true}
				for j := range int64(100) {
					rec := record{id: fmt.Sprint(i + j), at: at(i + j)}
					p.records, p.cursor = append(p.records, rec), rec.id
					r.meet(w, rec)
				}
				r.take(w, p)
				most = max(most, len(r.ids))
			}
			if most > 3000 {
				t.Errorf("held %d ids", most)
			}
			if n := len(r.next(time.Unix(1_000_000, 0)).RecentIDs); n > 200 {
				t.Errorf("state holds %d ids", n)
			}
		})
	}
}

func TestRestart(t *testing.T) {
	tests := []struct {
		name    string
		w       window
		want    window
		repeats bool
	}{
		{"newest first: from the time reached", window{Gte: 10, Lte: 90, After: "x", AfterAt: 50, Top: 51}, window{Gte: 10, Lte: 50}, false},
		{"unordered: from the start", window{Gte: 10, Lte: 90, After: "x", AfterAt: 50, Top: 51, Unordered: true}, window{Gte: 10, Lte: 90}, true},
		{"one second read: from the start, its ids are known", window{Gte: 10, Lte: 90, After: "x", AfterAt: 50, Top: 50}, window{Gte: 10, Lte: 90}, false},
		{"no time known: from the start", window{Gte: 10, Lte: 90, After: "x"}, window{Gte: 10, Lte: 90}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if repeats := tt.w.restart(); tt.w != tt.want || repeats != tt.repeats {
				t.Errorf("got %+v, repeats %v; want %+v, %v", tt.w, repeats, tt.want, tt.repeats)
			}
		})
	}
}

// TestUnordered: a window knows whether its pages came newest first, within and
// across pages.
func TestUnordered(t *testing.T) {
	tests := map[string]struct {
		pages [][]int64
		want  bool
	}{
		"newest first": {[][]int64{{90, 80}, {80, 70}}, false},
		"within":       {[][]int64{{90, 80, 85}}, true},
		"across":       {[][]int64{{90, 80}, {81, 70}}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := window{Gte: 0, Lte: 100}
			for i, ats := range tt.pages {
				p := page{more: true}
				for j, at := range ats {
					p.cursor = fmt.Sprint(i, j)
					p.records = append(p.records, record{id: p.cursor, at: at})
				}
				w.advance(p)
			}
			if w.Unordered != tt.want {
				t.Errorf("unordered %v, want %v", w.Unordered, tt.want)
			}
		})
	}
}

func TestLoopDetector(t *testing.T) {
	for period := 1; period < 40; period++ {
		var d loopDetector
		found := false
		for i := range 10 * (period + 20) {
			n := i
			if i > 13 { // a tail of 13, then the circle
				n = 13 + (i-13)%period
			}
			if d.closes(fmt.Sprint(n)) {
				found = i > 13
				break
			}
		}
		if !found {
			t.Errorf("period %d: circle not found, or found too early", period)
		}
	}
	var d loopDetector
	for i := range 100_000 {
		if d.closes(fmt.Sprint(i)) {
			t.Fatalf("straight line taken for a circle at %d", i)
		}
	}
}
