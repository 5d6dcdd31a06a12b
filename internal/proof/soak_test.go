package proof

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/auditlog/internal/sim/auditapi"
	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/sim/harness"
	"example.com/auditlog/internal/state"
)

// TestSoak lives through days, with -long months, of hourly runs: faults and
// outages of the API and the bucket, processes that die, deliveries repeated
// while the first is under way, bursts beyond the cap, late records, cursors
// that expire, a feed that deletes. It logs the figures of docs/reliability.md.
func TestSoak(t *testing.T) {
	days, sets := 10, simulated
	switch {
	case *long:
		days = 90
	case brief():
		days, sets = 1, sets[:1]
	}
	all := make([]figures, len(sets))
	t.Run("group", func(t *testing.T) { // so that its parallel tests end before the table
		for i, set := range sets {
			t.Run(set.name, func(t *testing.T) {
				t.Parallel()
				all[i] = soak(t, set, days, uint64(i))
			})
		}
	})
	t.Logf("%d days each:\n%s", days, table(all))
	for _, row := range rows {
		happened := slices.ContainsFunc(all, func(f figures) bool { return row.of(f) != 0 })
		switch bad := row.name == "lost" || row.name == "repeated" || row.name == "changed"; {
		case bad && happened:
			t.Errorf("records were %s", row.name)
		case !bad && !happened && !brief(): // a day is too short for everything
			t.Errorf("%s: never", row.name)
		}
	}
	for _, f := range all {
		if f.longest > 1 {
			t.Errorf("%s: a range of %d seconds waits for a bad record", f.name, f.longest)
		}
	}
}

// figures are what a soak has been through.
type figures struct {
	name                             string
	runs, failed, died, raced        int
	faults, outages, expired, landed int
	bad, quirks, aside, longest      int
	appeared, records, late          int
	backlog                          int           // most windows
	lag                              time.Duration // longest
	lost, repeated, altered          int
}

// rows are those of the table.
var rows = []struct {
	name string
	of   func(f figures) int
}{
	{"runs", func(f figures) int { return f.runs }},
	{"runs that failed", func(f figures) int { return f.failed }},
	{"processes that died", func(f figures) int { return f.died }},
	{"hours with two instances", func(f figures) int { return f.raced }},
	{"faults of single requests", func(f figures) int { return f.faults }},
	{"requests that landed late", func(f figures) int { return f.landed }},
	{"outages of hours", func(f figures) int { return f.outages }},
	{"times all cursors expired", func(f figures) int { return f.expired }},
	{"records that the API could not serve", func(f figures) int { return f.bad }},
	{"hours with empty pages or ignored cursors", func(f figures) int { return f.quirks }},
	{"runs with ranges set aside", func(f figures) int { return f.aside }},
	{"longest range set aside for half a day, in seconds", func(f figures) int { return f.longest }},
	{"most windows in the backlog", func(f figures) int { return f.backlog }},
	{"longest lag, in minutes", func(f figures) int { return int(f.lag.Minutes()) }},
	{"late records collected", func(f figures) int { return f.late }},
	{"records of the API", func(f figures) int { return f.appeared }},
	{"records taken by the feed", func(f figures) int { return f.records }},
	{"lost", func(f figures) int { return f.lost }},
	{"repeated", func(f figures) int { return f.repeated }},
	{"changed", func(f figures) int { return f.altered }},
}

func table(all []figures) string {
	var b strings.Builder
	head, line := "| simulation |", "| --- |"
	for _, f := range all {
		head, line = head+" "+f.name+" |", line+" --: |"
	}
	fmt.Fprintf(&b, "%s\n%s\n", head, line)
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s |", row.name)
		for _, f := range all {
			fmt.Fprintf(&b, " %d |", row.of(f))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// outage is a time in which all requests to one side fail alike.
type outage struct {
	until time.Time
	toAPI bool
	fault.Fault
}

func soak(t *testing.T, set setting, days int, seed uint64) (f figures) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	one := func(in int) bool { return rnd.IntN(in) == 0 }
	f.name = set.name
	inSimulation(t, set, func(h *simulation) {
		h.Env["MAX_RECORDS"] = "200"
		h.watch.skipRecords = true
		start := time.Now()
		var down outage
		aside := map[state.Span]int{} // hours
		for hour := range 24 * days {
			for quarter := range 4 {
				time.Sleep(time.Until(start.Add(time.Duration(4*hour+quarter) * 15 * time.Minute)))
				n := rnd.IntN(8)
				if one(150) {
					n = 600 + rnd.IntN(600)
				}
				for range n {
					h.Add(1, rnd.Int64N(100), 0)
				}
				f.appeared += n
				h.watch.feed()
			}
			for _, o := range h.Bucket.Objects("logs", h.Env["GCS_PREFIX"]+"/") {
				if time.Since(o.Created) > 7*24*time.Hour { // a lifecycle rule
					h.Bucket.Delete("logs", o.Name)
				}
			}
			if one(60) {
				h.API.ExpireCursors()
				f.expired++
			}
			if one(20) { // for a day or so
				records := h.API.Records()
				h.API.SetBad(idOf(t, records[len(records)-1-rnd.IntN(min(20, len(records)))]), []int{200, 400, 500}[rnd.IntN(3)])
				f.bad++
			}
			if one(24) {
				h.API.Heal()
			}
			if one(30) {
				h.API.SetQuirks(auditapi.Quirks{Hollow: rnd.IntN(4), Ignored: 3 * rnd.IntN(3)})
				f.quirks++
			} else {
				h.API.SetQuirks(auditapi.Quirks{})
			}
			if one(100) {
				down = outage{until: time.Now().Add(time.Duration(1+rnd.IntN(8)) * time.Hour), toAPI: one(2)}
				switch f.outages++; {
				case one(3):
					down.Kind = fault.Hang
				case down.toAPI:
					down.Fault = fault.Fault{Kind: fault.Refuse, Status: []int{401, 403, 500, 429}[rnd.IntN(4)]}
				default:
					down.Fault = fault.Fault{Kind: fault.Refuse, Status: 403}
				}
			}
			s := newScheduler(h)
			instances := 1
			if one(8) {
				instances = 2
				f.raced++
			}
			var mu sync.Mutex
			for i := range instances {
				s.start(i, func(run func() (harness.Figures, error)) {
					// Pub/Sub delivers again what has failed.
					for wait := time.Minute; wait < 10*time.Minute; wait *= 3 {
						sum, err := run()
						mu.Lock()
						f.runs++
						f.late += sum.Late
						f.backlog = max(f.backlog, sum.OpenWindows)
						f.lag = max(f.lag, time.Duration(sum.Lag)*time.Second)
						if err != nil {
							f.failed++
						}
						if sum.SetAside > 0 {
							f.aside++
						}
						mu.Unlock()
						if err == nil {
							return
						}
						time.Sleep(wait)
					}
				})
			}
			for waiting := s.wait(); len(waiting) > 0; waiting = s.wait() {
				p, strike := waiting[rnd.IntN(len(waiting))], struck{}
				switch {
				case time.Now().Before(down.until) && toAPI(p.r) == down.toAPI:
					strike.Fault = down.Fault
				case one(15):
					strike = anyFault(rnd, p)
					f.faults++
					if strike.Kind == fault.Die {
						f.died++
					}
				}
				if one(40) {
					h.Add(1, rnd.Int64N(100), 0)
					f.appeared++
				}
				if one(50) && s.land(rnd) {
					f.landed++
				}
				s.grant(p, strike.Fault)
			}
			for s.land(rnd) {
				f.landed++
			}
			for _, span := range h.setAside() {
				if aside[span]++; aside[span] > 12 { // no outage is that long
					f.longest = max(f.longest, int(span.Seconds()))
				}
			}
			h.Logs.Reset()
			if t.Failed() {
				t.Fatalf("in hour %d, in this order:\n%s", hour, s.trace.String())
			}
		}
		h.watch.feed()
		h.Settle()
		h.tidied()
		r := h.Report()
		f.records, f.lost, f.repeated, f.altered = r.Collected, r.Missing, r.Repeated, r.Altered+r.Unexpected
	})
	return f
}

func idOf(t *testing.T, raw []byte) string {
	t.Helper()
	var record struct{ ID string }
	if err := json.Unmarshal(raw, &record); err != nil {
		t.Fatal(err)
	}
	return record.ID
}

// setAside lists what windows of the state that are set aside have left.
func (h *simulation) setAside() (list []state.Span) {
	if len(h.Bucket.Objects(h.BucketOf("STATE_BUCKET"), h.Env["STATE_KEY"])) == 0 {
		return nil
	}
	s := h.state()
	backlog := s.Backlog
	if s.Tenant != nil {
		backlog = slices.Concat(backlog, s.Tenant.Backlog)
	}
	for _, w := range backlog {
		if w.SetAside {
			list = append(list, w.Left())
		}
	}
	return list
}
