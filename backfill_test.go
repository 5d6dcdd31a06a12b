package auditlog

import (
	"errors"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/auditlog/internal/sim/fault"
)

func ago(d time.Duration) time.Time { return time.Now().Add(-d) }

const day = 24 * time.Hour

// backfill does one backfill of a new instance that reaches the world through tr.
func (h *harness) backfill(tr *fault.Transport, want BackfillRange) error {
	h.t.Helper()
	ctx, c, cancel := h.through(tr)
	defer cancel()
	_, _, err := c.Backfill(ctx, h.log, want)
	return err
}

// TestBackfill: what lies before the first run is collected once, though the
// range is asked for in parts, and those with collected seconds are refused.
func TestBackfill(t *testing.T) {
	inSimulation(t, simulated[0], func(h *harness) {
		h.env["MAX_RECORDS"] = "20"
		ask := func(want BackfillRange, parts ...string) {
			t.Helper()
			err := h.backfill(&fault.Transport{}, want)
			if err == nil {
				err = errors.New("")
			}
			for _, part := range parts {
				if !strings.Contains(err.Error(), part) || (part == "") != (err.Error() == "") {
					t.Errorf("error %q lacks %q", err, part)
				}
			}
		}
		began := time.Now()
		ask(BackfillRange{From: ago(10 * day)}, "first run")
		h.Since = began.Unix() - 24*3600
		h.add(30, 8*24*3600, 3600)
		h.add(5, 10, 1)
		h.mustRun()
		if s := h.state(); !reflect.DeepEqual(s.Covered, []span{{Gte: began.Unix() - 24*3600, Lte: s.High}}) {
			t.Errorf("covered %v, high %d", s.Covered, s.High)
		}

		at := func(d time.Duration) time.Time { return began.Add(-d) }
		ask(BackfillRange{From: at(5 * day), To: at(2 * day)}, "")
		ask(BackfillRange{From: at(5 * day), To: at(2 * day)}, "") // it is asked for
		if s := h.state(); len(s.Backlog) != 1 || s.Watermark != at(5*day).Unix() || len(s.Covered) != 2 {
			t.Errorf("state %+v", s)
		}
		time.Sleep(time.Hour)
		h.mustRun()
		if s := h.state(); len(s.Covered) != 2 || s.Covered[0].Lte != s.High {
			t.Errorf("after a run covered %v, high %d", s.Covered, s.High)
		}
		ask(BackfillRange{From: at(6 * day), To: at(3 * day)}, "part of the range is collected, or in the backlog", "1999-12-26T00:00:00Z to 1999-12-26T23:59:59Z")
		ask(BackfillRange{From: at(4 * day), To: at(3 * day)}, "the range is collected")
		ask(BackfillRange{From: at(10 * day)}, "part of the range", "1999-12-22T00:00:00Z to 1999-12-26T23:59:59Z", "1999-12-30T00:00:01Z to 1999-12-30T23:59:59Z")
		ask(BackfillRange{From: at(10 * day), To: time.Now().Add(day)}, "the next run collects what is newer")
		ask(BackfillRange{From: at(2 * day), To: at(3 * day)}, "before it begins")
		ask(BackfillRange{From: at(-time.Hour)}, "is collected, or in the backlog: all from 1999-12-31T00:00:00Z on")
		ask(BackfillRange{From: time.Unix(-5, 0), To: at(7 * day)}, "before 1970")
		ask(BackfillRange{From: at(2*day - time.Second)}, "")
		ask(BackfillRange{From: at(20 * day), To: at(5*day + time.Second)}, "")
		h.Since = 0
		if s := h.state(); len(s.Covered) != 1 {
			t.Errorf("covered %v", s.Covered)
		}
		h.settle()
		h.wantLog("Read a window of the backlog to its end: the API's oldest record since 1999-12-12T00:00:00Z is of 1999-12-22T",
			"the API has no record from 1999-12-27T00:00:00Z to 1999-12-30T00:00:00Z")
		h.tidied()
	})
}

// TestBackfillAgain: collected records are written once more, each.
func TestBackfillAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.env["MAX_RECORDS"] = "7"
		h.add(20, 5, 30)
		for range 4 {
			h.mustRun()
		}
		c := h.collector()
		want := BackfillRange{From: ago(6 * time.Minute), To: time.Unix(h.state().High, 0), Again: true}
		in := 0
		h.API.Each(func(_ string, at int64, _ bool) {
			if at >= want.From.Unix() {
				in++
			}
		})
		if _, _, err := c.Backfill(h.t.Context(), h.log, want); err != nil {
			t.Fatal(err)
		}
		again := 0
		for range 5 {
			again += h.mustRun().Records
		}
		counts := maps.Collect(maps.All(h.collected(h.state())))
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
			inSimulation(t, set, func(h *harness) {
				h.env["MAX_RECORDS"], h.env["PAGE_SIZE"] = "6", "4"
				h.Since = ago(day).Unix()
				h.add(9, 3*24*3600, 60)
				h.add(3, 5, 1)
				leaveStaged(h)
				want, count := BackfillRange{From: ago(9 * day)}, 0
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
				h.settle()
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
			inSimulation(t, simulated[0], func(h *harness) {
				h.Since = ago(day).Unix()
				h.add(9, 3*24*3600, 60)
				h.add(3, 5, 1)
				leaveStaged(h)
				want := BackfillRange{From: ago(9 * day)}
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
					if err := h.backfill(&fault.Transport{}, want); err != nil && !strings.Contains(err.Error(), "all from") {
						t.Error(err)
					}
				}
				tr.Land()
				h.Since = 0
				h.watch.feed()
				h.settle()
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
	inSimulation(t, simulated[0], func(h *harness) {
		h.Since = ago(day).Unix()
		h.add(9, 3*24*3600, 3600)
		h.add(3, 5, 1)
		leaveStaged(h)
		other := BackfillRange{From: ago(9 * day), To: ago(3*day + 5*time.Hour)}
		asked := false
		err := h.backfill(&fault.Transport{Decide: func(r *http.Request) fault.Fault {
			if r.Method != http.MethodGet && !asked {
				asked = true
				if err := h.backfill(&fault.Transport{}, other); err != nil {
					t.Error(err)
				}
			}
			return fault.Fault{}
		}}, BackfillRange{From: other.To.Add(time.Second)})
		if err != nil || !asked {
			t.Error(err, asked)
		}
		if n := len(h.state().Backlog); n != 2 {
			t.Errorf("%d windows in the backlog", n)
		}
		h.Since = 0
		h.settle()
	})
}

// TestBackfillOfWhatIsPartlyRead: what the backlog has yet to read is not asked for
// again, since two windows of the same records would have to be told apart by
// all their ids; once it is read, it is.
func TestBackfillOfWhatIsPartlyRead(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.mustRun()
		h.add(150, 3*24*3600, 60)
		h.env["MAX_RECORDS"] = "100"
		c := h.collector()
		want := BackfillRange{From: ago(4 * day), To: ago(2 * day)}
		again := func() error {
			t.Helper()
			_, _, err := c.Backfill(h.t.Context(), h.log, want)
			return err
		}
		if err := again(); err != nil {
			t.Fatal(err)
		}
		h.mustRun()
		want.Again = true
		if err := again(); err == nil || !strings.Contains(err.Error(), "still to be read") {
			t.Error(err)
		}
		h.mustRun()
		if err := again(); err != nil {
			t.Error(err)
		}
		for range 5 {
			h.mustRun()
		}
		for id, n := range h.collected(h.state()) {
			if n != 2 {
				t.Errorf("%s was written %d times, want 2", id, n)
			}
		}
		if n := len(h.state().Backlog); n > 0 {
			t.Errorf("%d windows are left", n)
		}
	})
}

// TestGivenUpStaysCovered: what a watermark set forward gives up may hold
// collected records, so that a backfill must be told to write them again.
func TestGivenUpStaysCovered(t *testing.T) {
	s := Stream{High: 1000, Covered: []span{{Gte: 100, Lte: 1000}}, Backlog: []window{{Gte: 400, Lte: 600, After: "c", AfterAt: 500, Top: 590}, {Gte: 100, Lte: 200}}}
	s.edit(450)
	if want := []span{{Gte: 100, Lte: 1000}}; !slices.Equal(s.Covered, want) || len(s.Backlog) != 1 {
		t.Errorf("covered %v, want %v; backlog %v", s.Covered, want, s.Backlog)
	}
}

// spans makes ranges of pairs.
func spans(ends ...int64) (list []span) {
	for pair := range slices.Chunk(ends, 2) {
		list = append(list, span{Gte: pair[0], Lte: pair[1]})
	}
	return list
}

func TestCover(t *testing.T) {
	var c []span
	for _, s := range spans(10, 20, 40, 50, 22, 30, 21, 21, 5, 5) {
		c = cover(c, s)
	}
	if want := spans(40, 50, 10, 30, 5, 5); !slices.Equal(c, want) {
		t.Errorf("covered %v, want %v", c, want)
	}
	if got, want := uncovered(c, span{Gte: 0, Lte: 45}), spans(31, 39, 6, 9, 0, 4); !slices.Equal(got, want) {
		t.Errorf("uncovered %v, want %v", got, want)
	}
}

func TestReadOrder(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		message string
		want    string // of the order, or in the error
	}{
		{"", "run"},
		{"{}", "run"},
		{"run now", "run"},
		{`"check"`, "run"},
		{`{"other": 1}`, "run"},
		{`{"check": true}`, "check"},
		{`{"check": false}`, `message must be {"check": true}`},
		{`{"check": true, "backfill": {}}`, "no other key"},
		{`{"backfill": {"from": "2026-11-01", "to": "2026-11-03"}}`, "2026-11-01T00:00:00Z 2026-11-03T23:59:59Z"},
		{`{"backfill": {"from": "2026-11-01T05:00:00+01:00", "to": "2026-11-03"}}`, "2026-11-01T04:00:00Z 2026-11-03T23:59:59Z"},
		{`{"backfill": {"from": "2026-11-01"}}`, "2026-11-01T00:00:00Z -"},
		{`{"backfill": "30d"}`, `"backfill": `},
		{`{"backfill": {}}`, `from: ""`},
		{`{"backfill": {"from": "yesterday"}}`, `from: "yesterday"`},
		{`{"backfill": {"from": "1d", "to": "1w"}}`, `to: "1w"`},
		{`{"backfill": {"since": "1d"}}`, "since"},
		{`{"backfill": {"from": "1d", "again": true}}`, "again"},
	} {
		o, err := readOrder([]byte(tt.message), now)
		var got string
		switch {
		case err != nil:
			got = err.Error()
		case o.check:
			got = "check"
		case o.backfill != nil:
			to := "-"
			if !o.backfill.To.IsZero() {
				to = o.backfill.To.UTC().Format(time.RFC3339)
			}
			got = o.backfill.From.UTC().Format(time.RFC3339) + " " + to
		default:
			got = "run"
		}
		if err == nil && got != tt.want || err != nil && !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.message, got, tt.want)
		}
	}
	for text, want := range map[string]time.Duration{"30d": 30 * day, "12h": 12 * time.Hour} {
		if r, err := ParseBackfill(text, "", now); err != nil || now.Sub(r.From).Round(time.Hour) != want {
			t.Errorf("%s: %v, %v", text, r.From, err)
		}
	}
	for _, text := range []string{"d", "-1d", "0d", "1.5d", "30", "30dd", "30d ", "1000000d", "+3d"} {
		if r, err := ParseBackfill(text, "", now); err == nil {
			t.Errorf("%q is taken for %v", text, r.From)
		}
	}
}
