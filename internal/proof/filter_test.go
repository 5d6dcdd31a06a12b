package proof

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/auditlog/internal/sim/auditapi"
	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/state"
)

// TestFilters: the settings go to the API, and each window keeps its own, though
// the settings change.
func TestFilters(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		of := func(kind string, n int, ago int64) {
			t.Helper()
			for i := range int64(n) {
				h.Put(false, kind, ago+i)
			}
		}
		have := func(want string) {
			t.Helper()
			count := map[string]int{}
			for id, n := range h.Collected(h.Stored()) {
				if n != 1 {
					t.Errorf("%s was written %d times", id, n)
				}
				kind, _, _ := strings.Cut(id, "-")
				count[kind] += n
			}
			if got := fmt.Sprint(count); got != want {
				t.Errorf("collected %s, want %s", got, want)
			}
		}
		h.Env["MAX_RECORDS"], h.Env["PAGE_SIZE"] = "6", "3"
		h.Env["EVENT_TYPES"], h.Env["PROJECT_IDS"] = " login.failed,key.created ,,login.failed", "p+1"
		of("login.failed", 5, 500)
		of("key.created", 5, 600)
		of("role.updated", 5, 700)
		h.MustRun()
		have("map[key.created:1 login.failed:5]")
		if q, _ := url.ParseQuery(h.APIFaults.Log()[0].Query); !slices.Equal(q["event_types[]"], []string{"key.created", "login.failed"}) || q.Get("project_ids[]") != "p+1" {
			t.Errorf("query %v", q)
		}

		// The rest of the first window is read as it was begun; the new one is not.
		time.Sleep(time.Hour)
		h.Env["EVENT_TYPES"], h.Env["PROJECT_IDS"] = "role.updated", ""
		h.Env["MAX_RECORDS"] = "100"
		of("login.failed", 1, 500)
		of("role.updated", 1, 500)
		h.Logs.Reset()
		h.MustRun()
		have("map[key.created:5 login.failed:5 role.updated:1]")
		h.WantLog("The filters have changed", "They were: EVENT_TYPES=key.created,login.failed PROJECT_IDS=p+1; they are: EVENT_TYPES=role.updated", `"severity":"WARNING"`)
		s := h.state()
		if len(s.Covered) != 2 || s.Filter != "event_types%5B%5D=role.updated" || s.Covered[1].Filter != "event_types%5B%5D=key.created&event_types%5B%5D=login.failed&project_ids%5B%5D=p%2B1" {
			t.Errorf("state %+v", s)
		}
		h.Logs.Reset()
		h.MustRun()
		if strings.Contains(h.Logs.String(), "filters have changed") {
			t.Error("says so twice")
		}

		// What was left out can be had: of other types as it is, of the same only again.
		back := state.Backfill{From: ago(2 * time.Hour), To: ago(70 * time.Minute)}
		if _, err := h.collector().Backfill(t.Context(), h.Log, back); err != nil {
			t.Error(err)
		}
		h.MustRun()
		have("map[key.created:5 login.failed:5 role.updated:6]")
		h.Env["EVENT_TYPES"] = "key.created,user.added"
		if b, err := h.collector().Backfill(t.Context(), h.Log, back); err != nil || len(b.Parts) > 0 || len(b.Unsure) != 1 || !strings.Contains(b.Why, "left out") {
			t.Errorf("%+v, error %v", b, err)
		}
		h.Env["EVENT_TYPES"] = "login.failed"
		end := time.Unix(h.state().High, 0)
		if _, err := h.collector().Backfill(t.Context(), h.Log, state.Backfill{From: end.Add(-20 * time.Minute), To: end, Again: true}); err == nil || !strings.Contains(err.Error(), "must end before") {
			t.Errorf("error %v", err)
		}
		if _, err := h.collector().Backfill(t.Context(), h.Log, state.Backfill{From: end.Add(-20 * time.Minute), To: end}); err != nil {
			t.Error(err)
		}
		h.MustRun()
		have("map[key.created:5 login.failed:6 role.updated:6]")
	})
}

// TestEditKeepsOtherFilters: a watermark set back has what the settings let through
// read again; what the backlog has yet to bring of other records stays there.
func TestEditKeepsOtherFilters(t *testing.T) {
	for _, name := range []string{"of a backfill", "of a window begun before a change"} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *simulation) {
				h.Env["EVENT_TYPES"] = "login.failed"
				var want string
				if name == "of a backfill" {
					want = h.Put(false, "role.updated", 4*3600)
					h.Put(false, "login.failed", 600)
					h.MustRun()
					h.Env["EVENT_TYPES"] = "role.updated"
					if _, err := h.collector().Backfill(t.Context(), h.Log, state.Backfill{From: ago(5 * time.Hour), To: ago(2 * time.Hour)}); err != nil {
						t.Fatal(err)
					}
					h.Env["EVENT_TYPES"] = "login.failed"
				} else {
					h.Env["MAX_RECORDS"] = "1"
					h.Put(false, "login.failed", 600)
					want = h.Put(false, "login.failed", 1200)
					h.MustRun()
					h.Env["EVENT_TYPES"], h.Env["MAX_RECORDS"] = "role.updated", "100"
				}
				s := h.state()
				s.Watermark -= 3600
				h.Bucket.Write("logs", stateName, encoded(t, s))
				h.MustRun()
				if h.Collected(h.Stored())[want] != 1 {
					t.Errorf("%s, which the backlog had, is lost: %+v", want, h.state())
				}
			})
		})
	}
}

// TestBackfillKeepsToItsFilter: asked for again is what passes the filter; where it
// cannot be told from what else was collected, the range is refused.
func TestBackfillKeepsToItsFilter(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		askFor := func(types string, r state.Backfill) (state.Backfilled, error) {
			t.Helper()
			before := h.Env["EVENT_TYPES"]
			defer func() { h.Env["EVENT_TYPES"] = before }()
			h.Env["EVENT_TYPES"] = types
			return h.collector().Backfill(t.Context(), h.Log, r)
		}
		backfill := func(types string, r state.Backfill) error {
			_, err := askFor(types, r)
			return err
		}
		refused := func(err error, why string) {
			t.Helper()
			if err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("error %v, want %q", err, why)
			}
		}
		h.Env["OVERLAP_SECONDS"] = "1200"
		h.Env["EVENT_TYPES"], h.Env["MAX_RECORDS"], h.Env["PAGE_SIZE"] = "a", "5", "5"
		for i := range int64(20) {
			h.Put(false, "a", 600+i*100)
		}
		h.Put(false, "b", 4*3600)
		h.MustRun()
		h.Env["EVENT_TYPES"] = "b"
		high := time.Unix(h.state().High, 0)
		time.Sleep(time.Minute)
		h.Put(false, "b", 5)
		h.MustRun() // both have collected in the overlap
		h.Env["MAX_RECORDS"] = "1"

		refused(backfill("b", state.Backfill{From: ago(time.Hour), To: high, Again: true}), "let runs read them first")
		refused(backfill("a", state.Backfill{From: ago(time.Hour), To: high, Again: true, Here: true}), "--detach")
		if b, err := askFor("a", state.Backfill{From: ago(time.Hour), To: high}); err != nil || len(b.Parts) > 0 {
			t.Errorf("%+v, error %v", b, err)
		}

		// Without an end, it is all that has not been collected of such types.
		if err := backfill("b", state.Backfill{From: ago(5 * time.Hour)}); err != nil {
			t.Error(err)
		}
		if s := h.state(); !slices.ContainsFunc(s.Backlog, func(w state.Window) bool { return w.Filter == "event_types%5B%5D=b" && w.Lte > high.Unix()-1300 }) {
			t.Errorf("%+v", s.Backlog)
		}
		if b, err := askFor("c", state.Backfill{From: ago(5 * time.Hour)}); err != nil || len(b.Parts) != 1 {
			t.Errorf("%+v, error %v", b, err)
		}
		h.Env["MAX_RECORDS"], h.Env["EVENT_TYPES"] = "100", ""
		for range 3 {
			h.MustRun()
			time.Sleep(time.Minute)
		}
		for id, n := range h.Collected(h.Stored()) {
			if n != 1 {
				t.Errorf("%s was written %d times", id, n)
			}
		}
	})
}

// TestRandomFilters changes filters, streams, caps and orders between runs and
// backfills, with an API that fails: nothing is written twice, and what all
// filters let through is collected.
func TestRandomFilters(t *testing.T) {
	seeds := uint64(60)
	if brief() {
		seeds = 10
	}
	for seed := range seeds {
		inTenant(t, func(h *simulation) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			pick := func(s ...string) string { return s[rnd.IntN(len(s))] }
			overlap := []int64{0, 120, 3000}[rnd.IntN(3)]
			h.Env["OVERLAP_SECONDS"] = fmt.Sprint(overlap)
			h.Env["FETCH_CONCURRENCY"] = pick("1", "4", "32")
			h.Env["PAGE_SIZE"] = pick("1", "3", "10")
			descending := rnd.IntN(2) == 0
			if !descending {
				h.API.SetOrder([]auditapi.Order{auditapi.OldestFirst, auditapi.Shuffled(seed)}[rnd.IntN(2)])
			}
			for range 25 {
				h.Env["EVENT_TYPES"] = pick("k", "a,k", "b,k", "", "a,b,k", "c,k")
				h.Env["MAX_RECORDS"] = pick("1", "3", "10", "100")
				h.Env["TENANT_EVENTS"] = pick("true", "true", "true", "false")
				for range rnd.IntN(12) {
					h.Put(rnd.IntN(2) == 0, pick("a", "b", "c", "k"), rnd.Int64N(overlap/2+1))
				}
				switch rnd.IntN(6) {
				case 0:
					h.APIFaults.Set(ofTenant(rnd.IntN(2) == 0, fault.Fault{Kind: fault.Refuse, Status: []int{500, 401, 429}[rnd.IntN(3)]}))
				case 1:
					h.APIFaults.Set(from(1+rnd.IntN(5), fault.Fault{Kind: fault.Refuse, Status: 500}))
				case 2:
					if descending {
						h.API.ExpireCursors()
					}
				}
				h.Run()
				h.APIFaults.Set(nil)
				h.Env["TENANT_EVENTS"] = "true"
				if rnd.IntN(4) == 0 {
					h.Env["EVENT_TYPES"] = pick("a", "b", "c", "d", "a,c")
					r := state.Backfill{From: ago(time.Duration(1+rnd.IntN(30)) * time.Hour)}
					r.To = r.From.Add(time.Duration(rnd.IntN(4)) * 30 * time.Minute)
					h.collector().Backfill(h.T.Context(), h.Log, r) // refused or not
				}
				time.Sleep(time.Duration(rnd.IntN(3)) * 20 * time.Minute)
			}
			h.Env["EVENT_TYPES"], h.Env["MAX_RECORDS"] = "k", "1000"
			for range 5 {
				time.Sleep(time.Hour)
				h.MustRun()
			}
			have := h.Collected(h.Stored())
			h.API.Each(func(id string, at int64, tenant bool) {
				if n := have[id]; n > 1 || n == 0 && strings.HasPrefix(id, "k-") {
					h.T.Errorf("seed %d: %s at %d, tenant %v: written %d times", seed, id, at, tenant, n)
				}
			})
			if s := h.state(); len(s.Backlog)+len(s.Tenant.Backlog) > 0 {
				h.T.Errorf("seed %d: backlog left %+v", seed, s)
			}
		})
	}
}
