package plan

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

var (
	exhaustive = flag.Bool("exhaustive", false, "try 20,000 histories: a minute")
	long       = flag.Bool("long", false, "try a million histories: hours")
)

// TestWindows lets records appear in bursts, ties and late, in several orders,
// and reads them by runs of any page size and cap, with clocks that disagree
// and an API that fails: each must be collected once, and the watermark must
// never pass one that is not. A page with a record that the API cannot serve keeps
// only that second's records from being collected. What one run leaves is stored
// for the next.
func TestWindows(t *testing.T) {
	for _, order := range orders {
		t.Run(order.name, func(t *testing.T) {
			t.Parallel()
			seeds := 700
			switch {
			case *long:
				seeds = 340_000
			case *exhaustive:
				seeds = 6700
			case testing.Short():
				seeds = 150
			}
			for seed := range seeds {
				windowHistory(t, order, &choices{rnd: rand.New(rand.NewPCG(uint64(seed), 1))})
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

func windowHistory(t *testing.T, order order, choose *choices) {
	p := &pager{compare: order.compare}
	const start = 1_000_000
	now := int64(start) // by the API's clock
	overlap := choose.n(40)
	late := overlap // an overlap that is raised holds from then on
	pageSize, maxRecords := 1+choose.n(7), 1+choose.n(30)
	spread := 1 + choose.n(60) // few seconds: many ties
	refusals := order.cursorsExpire && choose.n(3) == 0
	failures, clocks, busy := choose.n(3) == 0, choose.n(3) == 0, choose.n(3) == 0
	width := 1 + int(choose.n(5))
	bad := map[string]bool{} // records that no page is served with
	bads, hollow := choose.n(3) == 0, choose.n(4) == 0
	ignores := order.cursorsExpire && choose.n(4) == 0 // something on the way drops the cursor
	repeats := false                                   // a restart may repeat, and says so

	counts := map[string]int{}
	var all []audit.Record
	appear := func() {
		r := audit.Record{ID: fmt.Sprintf("%05d", len(all)), At: now - choose.n(late+1)}
		if len(all) > 0 && choose.n(4) == 0 {
			r.At = max(all[len(all)-1].At, now-late) // a tie
		}
		all = append(all, r)
		p.add(r)
		bad[r.ID] = bads && choose.n(40) == 0
	}
	var s *state.State
	check := func() {
		for _, r := range all {
			if counts[r.ID] > 1 && !repeats {
				t.Errorf("record %s at %d collected %d times", r.ID, r.At, counts[r.ID])
			}
			if counts[r.ID] == 0 && s != nil && r.At < s.Watermark-late {
				t.Errorf("watermark %d has passed record %s at %d", s.Watermark, r.ID, r.At)
			}
		}
	}
	var local, api time.Time // the host's clock, and the API's, zero where it tells none
	api = time.Unix(now, 0)
	refuse := func() bool { return refusals && choose.n(4) == 0 }
	fails := func() bool {
		if busy && choose.n(4) == 0 { // records appear between pages
			now += choose.n(spread) / 10
			appear()
		}
		return failures && choose.n(6) == 0
	}
	read := &reader{
		t: t, width: width,
		pick: func(n int) int { return int(choose.n(int64(n))) },
		send: func(r Request) answer {
			switch {
			case hollow && choose.n(6) == 0: // though there is more
				return answer{page: audit.Page{Date: api, More: true, Cursor: r.After + "~"}}
			case ignores && choose.n(10) == 0:
				r.After = ""
			}
			return answer{page: p.page(r.Request, api)}
		},
		arrive: func(r Request, cancelled bool, a answer) answer {
			switch {
			case cancelled && choose.n(2) == 0: // else it was answered just before
				return failed(audit.Other)
			case r.After != "" && !r.segment.restarted && refuse():
				return failed(audit.CursorRefused)
			case fails():
				return failed([]audit.Kind{audit.Other, audit.Unserved}[choose.n(2)])
			case slices.ContainsFunc(a.page.Records, func(r audit.Record) bool { return bad[r.ID] }):
				return failed(audit.Unserved)
			}
			return a
		},
		heard: func(_ Request, o Outcome) {
			for _, n := range o.Notes {
				repeats = repeats || strings.Contains(n.Text, "may be repeated")
			}
		},
	}
	runs := 0
	run := func() {
		settings := Settings{MaxWindows: 64, MaxIDs: 1 << 30, MaxRecords: int(maxRecords), PageSize: int(pageSize), Overlap: overlap, Lookback: 10_000}
		plan, written, restarts := read.run(New(s, settings, local))
		if !plan.Answered() || restarts > 0 {
			if !ignores && restarts > 0 || !plan.Answered() && restarts == 0 && len(written) > 0 {
				t.Fatalf("%d records of an API that does not answer, read %d times", len(written), restarts+1)
			}
			if !plan.Answered() {
				return // nothing to commit
			}
		}
		for _, r := range written {
			counts[r.ID]++
		}
		next := plan.State()
		if runs++; runs < 4 || runs%8 == 0 { // each time would take half of the time
			next = stored(t, next, local)
		}
		s = &next
	}
	for range 4 + choose.n(8) {
		for range choose.n(60) {
			appear()
			now += choose.n(spread) / 10
		}
		if choose.n(4) == 0 {
			overlap = max(overlap, choose.n(60)) // raised by the operator
		}
		local, api = time.Unix(now, 0), time.Unix(now, 0)
		if clocks {
			if choose.n(4) == 0 { // then the host's clock must not be ahead
				local, api = time.Unix(now-choose.n(31), 0), time.Time{}
			} else {
				local = time.Unix(now+choose.n(61)-30, 0)
			}
		}
		run()
		check()
		now += choose.n(100)
	}
	now += 30 // as far as the host's clock may have been ahead
	refuse = func() bool { return false }
	fails = refuse
	ignores, hollow = false, false
	if bads && order.name == "newest first" {
		stuck := map[int64]bool{}
		for _, r := range all {
			stuck[r.At] = stuck[r.At] || bad[r.ID]
		}
		for n, same := 0, 0; n < 5000 && same < 2; n++ {
			before := s.Backlog
			now++
			local, api = time.Unix(now, 0), time.Unix(now, 0)
			if run(); slices.Equal(before, s.Backlog) {
				same++
			} else {
				same = 0
			}
		}
		for _, r := range all {
			if counts[r.ID] == 0 && !stuck[r.At] {
				t.Fatalf("record %s at %d waits for others that the API cannot serve: %+v", r.ID, r.At, s.Backlog)
			}
		}
	}
	clear(bad)
	for range 2000 {
		local, api = time.Unix(now, 0), time.Unix(now, 0)
		run()
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
		if counts[r.ID] == 0 || counts[r.ID] > 1 && !repeats {
			t.Errorf("record %s at %d collected %d times, want once", r.ID, r.At, counts[r.ID])
		}
	}
	idsAreNeeded(t, &s.Stream, overlap)
}

// idsAreNeeded checks that a stream without a backlog remembers only what its
// next new window can bring again.
func idsAreNeeded(t *testing.T, s *state.Stream, overlap int64) {
	t.Helper()
	for _, r := range s.Recent {
		if r.At < s.High-overlap {
			t.Errorf("id %s at %d is kept without need: high %d, overlap %d", r.ID, r.At, s.High, overlap)
		}
	}
}

// FuzzWindows is TestWindows with the choices in the fuzzer's hands.
func FuzzWindows(f *testing.F) {
	for i := range orders {
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
		choose := &choices{slices.Clone(data), rand.New(rand.NewPCG(0, 1))}
		order := orders[choose.n(int64(len(orders)))]
		windowHistory(t, order, choose)
	})
}
