package proof

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/state"
)

func ago(d time.Duration) time.Time { return time.Now().Add(-d) }

const day = 24 * time.Hour

// backfill does one backfill of a new instance that reaches the world through tr.
func (h *simulation) backfill(tr *fault.Transport, want state.Backfill) error {
	h.T.Helper()
	ctx, c, cancel := h.through(tr)
	defer cancel()
	_, err := h.collectorThrough(c).Backfill(ctx, h.Log, want)
	return err
}

// TestBackfill: records before the first run are collected once, however their range is
// asked for: in parts, twice, and with seconds that are collected.
func TestBackfill(t *testing.T) {
	inSimulation(t, simulated[0], func(h *simulation) {
		h.Env["MAX_RECORDS"] = "20"
		began := time.Now()
		at := func(d time.Duration) time.Time { return began.Add(-d) }
		ask := func(want state.Backfill, comes string, parts ...state.Span) {
			t.Helper()
			b, err := h.collector().Backfill(h.T.Context(), h.Log, want)
			said := b.String()
			if err != nil {
				said = err.Error()
			}
			if !strings.Contains(said, comes) || !slices.Equal(b.Parts, parts) {
				t.Errorf("%s, parts %v; want %q, %v", said, b.Parts, comes, parts)
			}
		}
		part := func(from, to time.Time) state.Span { return state.Span{Gte: from.Unix(), Lte: to.Unix()} }
		ask(state.Backfill{From: ago(10 * day)}, "first run")
		h.Since = began.Unix() - 24*3600
		h.Add(30, 8*24*3600, 3600)
		h.Add(5, 10, 1)
		h.MustRun()
		if s := h.state(); !reflect.DeepEqual(s.Covered, []state.Span{{Gte: began.Unix() - 24*3600, Lte: s.High}}) {
			t.Errorf("covered %v, high %d", s.Covered, s.High)
		}

		before := h.state()
		ask(state.Backfill{From: at(5 * day), To: at(2 * day), DryRun: true}, "to collect: all of it", part(at(5*day), at(2*day)))
		if diff := cmp.Diff(before, h.state()); diff != "" {
			t.Errorf("a dry run changes the state:\n%s", diff)
		}
		ask(state.Backfill{From: at(5 * day), To: at(2 * day)}, "to collect: all of it", part(at(5*day), at(2*day)))
		ask(state.Backfill{From: at(5 * day), To: at(2 * day)}, "in the backlog already: all of it")
		if s := h.state(); len(s.Backlog) != 1 || s.Watermark != at(5*day).Unix() || len(s.Covered) != 2 {
			t.Errorf("state %+v", s)
		}
		time.Sleep(time.Hour)
		h.MustRun()
		if s := h.state(); len(s.Covered) != 2 || s.Covered[0].Lte != s.High {
			t.Errorf("after a run covered %v, high %d", s.Covered, s.High)
		}
		ask(state.Backfill{From: at(6 * day), To: at(3 * day)}, "to collect: 1999-12-26T00:00:00Z to 1999-12-26T23:59:59Z", part(at(6*day), at(5*day+time.Second)))
		ask(state.Backfill{From: at(2 * day), To: at(3 * day)}, "before it begins")
		ask(state.Backfill{From: at(-2 * time.Hour)}, "the next run collects what is newer")
		ask(state.Backfill{From: time.Unix(-5, 0), To: at(7 * day)}, "before 1970")
		h.MustRun()
		ask(state.Backfill{From: at(4 * day), To: at(3 * day)}, "collected already: all of it")
		h.WantLog("Backfill: nothing to do: 1999-12-28T00:00:00Z to 1999-12-29T00:00:00Z: collected already: all of it. " +
			"To write the records once more: auditlog backfill --again --from 1999-12-28T00:00:00Z --to 1999-12-29T00:00:00Z")
		ask(state.Backfill{From: at(20 * day), To: time.Now().Add(day)}, "newer than", part(at(2*day-time.Second), at(day+time.Second)), part(at(20*day), at(6*day+time.Second)))
		h.Since = 0
		if s := h.state(); len(s.Covered) != 1 {
			t.Errorf("covered %v", s.Covered)
		}
		h.Settle()
		h.WantLog("Read a window of the backlog to its end: the oldest record that the API returned since 1999-12-12T00:00:00Z is from 1999-12-22T",
			"the API has no record from 1999-12-27T00:00:00Z to 1999-12-30T00:00:00Z")
		h.tidied()
	})
}

// TestBackfillCancelled: what is cancelled before it is read is not collected, and can be
// asked for again.
func TestBackfillCancelled(t *testing.T) {
	inSimulation(t, simulated[0], func(h *simulation) {
		h.Since = ago(day).Unix()
		h.Add(9, 3*24*3600, 60)
		h.MustRun()
		covered := h.state().Covered
		for range 2 {
			want := state.Backfill{From: ago(9 * day), To: ago(2 * day)}
			if err := h.backfill(&fault.Transport{}, want); err != nil {
				t.Fatal(err)
			}
			want.Cancel = true
			if err := h.backfill(&fault.Transport{}, want); err != nil {
				t.Fatal(err)
			}
			if err := h.backfill(&fault.Transport{}, want); err == nil || !strings.Contains(err.Error(), "nothing from") {
				t.Errorf("error %v", err)
			}
			if s := h.state(); len(s.Backlog) > 0 || s.Watermark != s.High || !slices.Equal(s.Covered, covered) {
				t.Errorf("%+v", s)
			}
			if sum := h.MustRun(); sum.Records > 0 {
				t.Errorf("collected %d records", sum.Records)
			}
			covered = h.state().Covered
		}
		if err := h.backfill(&fault.Transport{}, state.Backfill{From: ago(9 * day), To: ago(2 * day)}); err != nil {
			t.Fatal(err)
		}
		h.Since = 0
		h.Settle()
	})
}

// TestBackfillIsNoLag: while a backfill goes on, split by runs with several requests at once, new
// records are as recent as without it. What a run leaves of its new window counts.
func TestBackfillIsNoLag(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["FETCH_CONCURRENCY"], h.Env["MAX_RECORDS"], h.Env["PAGE_SIZE"] = "4", "40", "10"
		h.Add(400, 2*24*3600+600, 1500)
		h.MustRun()
		asked := state.Backfill{From: ago(10 * day), To: ago(2 * day)}
		if err := h.backfill(&fault.Transport{}, asked); err != nil {
			t.Fatal(err)
		}
		split := false
		for range 3 {
			time.Sleep(time.Hour)
			sum, s := h.MustRun(), h.state()
			if sum.Lag > 60 || sum.OpenWindows != 0 || sum.Backfills != len(s.Backlog) || sum.Watermark != asked.From.Unix() {
				t.Errorf("lag %d, %d windows of new records, %d of backfills, state %+v", sum.Lag, sum.OpenWindows, sum.Backfills, s)
			}
			want := state.Span{Gte: asked.From.Unix(), Lte: asked.To.Unix()}
			if list := s.Backfills(false); len(list) != 1 || list[0].Span != want || list[0].Left >= want.Seconds() {
				t.Errorf("backfills %+v", list)
			}
			split = split || len(s.Backlog) > 1
		}
		if !split {
			t.Error("no run has split the backfill")
		}
		h.WantLog("Backfills go on in the next runs: ")
		time.Sleep(time.Hour)
		h.Add(60, 1000, 10)
		if sum := h.MustRun(); sum.OpenWindows == 0 || sum.Lag < 1000 {
			t.Errorf("lag %d, %d windows of new records, where a run leaves some", sum.Lag, sum.OpenWindows)
		}
		h.Settle()
	})
}

// TestBackfillAgain: collected records are written once more, each.
func TestBackfillAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["MAX_RECORDS"] = "7"
		h.Add(20, 5, 30)
		for range 4 {
			h.MustRun()
		}
		c := h.collector()
		want := state.Backfill{From: ago(6 * time.Minute), To: time.Unix(h.state().High, 0), Again: true}
		in := 0
		h.API.Each(func(_ string, at int64, _ bool) {
			if at >= want.From.Unix() {
				in++
			}
		})
		if _, err := c.Backfill(h.T.Context(), h.Log, want); err != nil {
			t.Fatal(err)
		}
		again := 0
		for range 5 {
			again += h.MustRun().Records
		}
		counts := maps.Collect(maps.All(h.Collected(h.Stored())))
		for id, n := range counts {
			if n > 2 {
				t.Errorf("%s is there %d times", id, n)
			}
		}
		if in < 10 || again != in || len(counts) != 20 {
			t.Errorf("wrote %d again of %d, %d in all", again, in, len(counts))
		}
	})
}

// TestBackfillDuringRun asks for a range before each request of a run, and after
// the last: between them each record is collected once.
func TestBackfillDuringRun(t *testing.T) {
	for _, set := range settings() {
		for n, asked := 1, true; asked; n++ {
			asked = false
			inSimulation(t, set, func(h *simulation) {
				h.Env["MAX_RECORDS"], h.Env["PAGE_SIZE"] = "6", "4"
				h.Since = ago(day).Unix()
				h.Add(9, 3*24*3600, 60)
				h.Add(3, 5, 1)
				leaveStaged(h)
				want, count := state.Backfill{From: ago(9 * day)}, 0
				h.simulate(&fault.Transport{Decide: func(*http.Request) fault.Fault {
					if count++; count == n {
						asked = true
						if err := h.backfill(&fault.Transport{}, want); err != nil {
							t.Error(err)
						}
					}
					return fault.Fault{}
				}})
				if !asked {
					if n < 6 {
						t.Errorf("a run of %d requests", n-1)
					}
					if err := h.backfill(&fault.Transport{}, want); err != nil {
						t.Error(err)
					}
				}
				h.Since = 0
				h.watch.feed()
				h.Settle()
			})
			if t.Failed() {
				t.Fatalf("%s, at request %d", set.name, n)
			}
		}
	}
}

// TestBackfillFaults strikes each request of a backfill with each fault. One that
// fails is asked for again, as people do: then each record is collected once.
func TestBackfillFaults(t *testing.T) {
	for name, f := range bucketFaults {
		for n := 1; ; n++ {
			struck := false
			inSimulation(t, simulated[0], func(h *simulation) {
				h.Since = ago(day).Unix()
				h.Add(9, 3*24*3600, 60)
				h.Add(3, 5, 1)
				leaveStaged(h)
				want := state.Backfill{From: ago(9 * day)}
				count := 0
				tr := &fault.Transport{Decide: func(*http.Request) fault.Fault {
					if count++; count == n {
						struck = true
						return f
					}
					return fault.Fault{}
				}}
				if h.backfill(tr, want) != nil {
					tr.Land()
					if err := h.backfill(&fault.Transport{}, want); err != nil {
						t.Error(err)
					}
				}
				tr.Land()
				h.Since = 0
				h.watch.feed()
				h.Settle()
			})
			if t.Failed() {
				t.Fatalf("%s at request %d", name, n)
			}
			if !struck {
				break
			}
		}
	}
}

// TestTwoBackfills: of two at once, both count, though the state names the same
// staged object after either.
func TestTwoBackfills(t *testing.T) {
	inSimulation(t, simulated[0], func(h *simulation) {
		h.Since = ago(day).Unix()
		h.Add(9, 3*24*3600, 3600)
		h.Add(3, 5, 1)
		leaveStaged(h)
		other := state.Backfill{From: ago(9 * day), To: ago(3*day + 5*time.Hour)}
		asked := false
		err := h.backfill(&fault.Transport{Decide: func(r *http.Request) fault.Fault {
			if r.Method != http.MethodGet && !asked {
				asked = true
				if err := h.backfill(&fault.Transport{}, other); err != nil {
					t.Error(err)
				}
			}
			return fault.Fault{}
		}}, state.Backfill{From: other.To.Add(time.Second)})
		if err != nil || !asked {
			t.Error(err, asked)
		}
		if n := len(h.state().Backlog); n != 2 {
			t.Errorf("%d windows in the backlog", n)
		}
		h.Since = 0
		h.Settle()
	})
}

// TestBackfillTwice does one backfill twice, the second before each request of the first, as where
// a message is delivered twice at once: it is in the backlog once, and each record is collected once.
func TestBackfillTwice(t *testing.T) {
	for n, asked := 1, true; asked; n++ {
		asked = false
		inSimulation(t, simulated[0], func(h *simulation) {
			h.Since = ago(day).Unix()
			h.Add(9, 3*24*3600, 60)
			h.MustRun()
			want, count := state.Backfill{From: ago(9 * day), To: ago(time.Hour)}, 0
			err := h.backfill(&fault.Transport{Decide: func(*http.Request) fault.Fault {
				if count++; count == n {
					asked = true
					if err := h.backfill(&fault.Transport{}, want); err != nil {
						t.Error(err)
					}
				}
				return fault.Fault{}
			}}, want)
			if len(h.state().Backlog) != 1 || err != nil {
				t.Errorf("error %v, backlog %+v", err, h.state().Backlog)
			}
			h.Since = 0
			h.Settle()
		})
	}
}

// TestBackfillOfWhatIsPartlyRead: what the backlog has yet to read is not asked for
// again, since two windows of the same records would have to be distinguished by
// all their ids; once it is read, it is.
func TestBackfillOfWhatIsPartlyRead(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.MustRun()
		h.Add(150, 3*24*3600, 60)
		h.Env["MAX_RECORDS"] = "100"
		c := h.collector()
		want := state.Backfill{From: ago(4 * day), To: ago(2 * day)}
		again := func() error {
			t.Helper()
			_, err := c.Backfill(h.T.Context(), h.Log, want)
			return err
		}
		if err := again(); err != nil {
			t.Fatal(err)
		}
		h.MustRun()
		want.Again = true
		if err := again(); err == nil || !strings.Contains(err.Error(), "still to be read") {
			t.Error(err)
		}
		h.MustRun()
		if err := again(); err != nil {
			t.Error(err)
		}
		for range 5 {
			h.MustRun()
		}
		for id, n := range h.Collected(h.Stored()) {
			if n != 2 {
				t.Errorf("%s was written %d times, want 2", id, n)
			}
		}
		if n := len(h.state().Backlog); n > 0 {
			t.Errorf("%d windows are left", n)
		}
	})
}
