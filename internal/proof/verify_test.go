package proof

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/googleapis/gax-go/v2"

	"example.com/auditlog/internal/config"
	"example.com/auditlog/internal/openai"
	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/sim/harness"
	"example.com/auditlog/internal/state"
	"example.com/auditlog/internal/store"
	"example.com/auditlog/internal/verify"
)

// repair checks, and adds what is missing, as a new process that reaches the world through c.
func (h *simulation) repair(ctx context.Context, c harness.Connections) (*verify.Report, error) {
	h.T.Helper()
	cfg, err := config.Load(h.Env)
	if err != nil {
		h.T.Fatal(err)
	}
	if c.Backoff == (gax.Backoff{}) {
		c.Backoff = openai.DefaultBackoff
	}
	api := openai.New(openai.Options{Base: cfg.BaseURL, Key: cfg.AdminKey, Transport: c.API, Backoff: c.Backoff})
	st := store.New(c.Storage, store.Options{Layout: cfg.Layout(), Step: cfg.StepTimeout()})
	collector := h.collectorThrough(c)
	v := verify.New(api, st, verify.Options{Tenant: cfg.TenantEvents, PageSize: cfg.PageSize, Concurrency: cfg.Concurrency, Overlap: cfg.Overlap})
	return v.Repair(ctx, func(ctx context.Context, snapshot *store.Snapshot, write func(context.Context, *store.Staged) (int, error)) (string, error) {
		sum, err := collector.Add(ctx, h.Log, snapshot, write)
		return sum.Object, err
	})
}

// lateRecords lives through some hours, in which records appear, at three times, much later than OVERLAP_SECONDS.
func (h *simulation) lateRecords() (late int) {
	h.T.Helper()
	for hour := range 8 {
		h.Add(12, 10, 250)
		if hour%3 == 2 {
			h.Add(3, 2*3600, 7) // one of them a tenant's
			late += 3
		}
		h.MustRun()
		time.Sleep(time.Hour)
	}
	h.MustRun()
	return late
}

var repairSettings = []setting{
	{name: "one bucket"},
	{name: "state bucket, tenant events", stateBucket: "states", tenant: "true"},
}

// inRepair runs f in a world whose feed has missed records, none of which runs collect.
func inRepair(t *testing.T, s setting, f func(t *testing.T, h *simulation, late int)) {
	t.Helper()
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["STATE_BUCKET"], h.Env["TENANT_EVENTS"] = s.stateBucket, s.tenant
		f(t, h, h.lateRecords())
	})
}

// TestRepair: what is missing is added once, and OVERLAP_SECONDS is judged by it.
func TestRepair(t *testing.T) {
	for _, s := range repairSettings {
		t.Run(s.name, func(t *testing.T) {
			inRepair(t, s, func(t *testing.T, h *simulation, late int) {
				r, err := h.repair(t.Context(), h.Connect(nil))
				if err != nil || !r.Right || r.Missing.Count != late || r.Repaired == nil || r.Repaired.Records != late {
					t.Fatalf("error %v, report %+v", err, r)
				}
				// Two hours later than their time, one after a run that has read it.
				if r.Late < 3000 || r.Late > 7200 {
					t.Errorf("late by %d s", r.Late)
				}
				h.WantLog("Wrote 6 records to " + r.Repaired.Object)
				r, err = h.repair(t.Context(), h.Connect(nil))
				if err != nil || !r.Right || r.Missing.Count != 0 || r.Repaired != nil {
					t.Errorf("again: error %v, report %+v", err, r)
				}
				h.Settle()
			})
		})
	}
}

// TestRepairFaults strikes each request of a repair with each fault: what is missing is added once, by this repair
// or by the next.
func TestRepairFaults(t *testing.T) {
	few := []string{"refused for good", "applied, answer lost", "503, applied too late", "the process dies", "cursor refused"}
	for _, s := range repairSettings {
		// live returns the number of requests to the API, and to the bucket. Both sides are read at the same time.
		live := func(t *testing.T, strike struck) map[bool]int {
			n := map[bool]int{}
			inRepair(t, s, func(t *testing.T, h *simulation, late int) {
				var mu sync.Mutex
				tr := &fault.Transport{Decide: func(r *http.Request) fault.Fault {
					mu.Lock()
					defer mu.Unlock()
					if n[toAPI(r)]++; toAPI(r) == strike.toAPI && n[strike.toAPI] == strike.n {
						return strike.Fault
					}
					return fault.Fault{}
				}}
				ctx, c, cancel := h.through(tr)
				defer cancel()
				_, _ = h.repair(ctx, c)
				h.noneTwice()
				h.Add(2, 10, 10)
				if strike.n%2 == 0 { // a run comes before what was sent too late, or after
					h.MustRun()
				}
				tr.Land()
				time.Sleep(time.Hour)
				h.MustRun()
				if r, err := h.repair(t.Context(), h.Connect(nil)); err != nil || !r.Right {
					t.Errorf("error %v, report %+v", err, r)
				}
				h.Settle()
				h.tidied()
			})
			return n
		}
		for toAPI, requests := range live(t, struck{}) {
			side := map[bool]string{true: "API", false: "bucket"}[toAPI]
			for n := range requests {
				for _, f := range faultsOf(n+1, toAPI) {
					if brief() && (!slices.Contains(few, f.name) || s.tenant != "") {
						continue
					}
					t.Run(s.name+"/"+side+"/"+f.String(), func(t *testing.T) {
						t.Parallel()
						live(t, f)
					})
				}
			}
		}
	}
}

// noneTwice checks that no record is twice under the feed prefix.
func (h *simulation) noneTwice() {
	h.T.Helper()
	for id, n := range h.Collected(harness.Stored{}) {
		if n > 1 {
			h.T.Errorf("%s is there %d times", id, n)
		}
	}
}

// TestRepairOvertaken: where somebody commits while a repair writes, the repair looks again.
func TestRepairOvertaken(t *testing.T) {
	for name, tt := range map[string]struct {
		other     func(h *simulation)
		written   int // by the repair, of 6
		meanwhile int
	}{
		"by a run": {func(h *simulation) {
			h.Add(3, 10, 10)
			h.MustRun()
		}, 6, 0},
		"by another repair": {func(h *simulation) {
			if r, err := h.repair(h.T.Context(), h.Connect(nil)); err != nil || r.Repaired.Records != 6 {
				h.T.Fatalf("error %v, report %+v", err, r)
			}
		}, 0, 6},
		"by a backfill that is not read yet": {func(h *simulation) {
			if err := h.backfill(&fault.Transport{}, state.Backfill{From: ago(day), To: ago(6 * time.Hour), Again: true}); err != nil {
				h.T.Fatal(err)
			}
		}, 3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			inRepair(t, repairSettings[0], func(t *testing.T, h *simulation, late int) {
				overtaken := false
				tr := &fault.Transport{}
				tr.Decide = func(r *http.Request) fault.Fault {
					if !overtaken && strings.Contains(r.URL.Query().Get("name"), "/staged/") {
						overtaken = true
						tt.other(h)
					}
					return fault.Fault{}
				}
				ctx, c, cancel := h.through(tr)
				defer cancel()
				r, err := h.repair(ctx, c)
				if err != nil || !overtaken || !r.Right || r.Repaired.Records != tt.written || r.Repaired.Meanwhile != tt.meanwhile {
					t.Fatalf("overtaken %t, error %v, report %+v, %+v", overtaken, err, r, r.Repaired)
				}
				h.noneTwice()
				if name != "by a backfill that is not read yet" { // which writes again
					h.Settle()
				}
			})
		})
	}
}

// TestRepairRefuses: where the feed has deleted objects, before or meanwhile, nothing is written.
func TestRepairRefuses(t *testing.T) {
	remove := func(h *simulation) { h.Bucket.Delete("logs", h.Names("openai-auditlog/")[6]) }
	for name, tt := range map[string]struct {
		before, meanwhile func(h *simulation)
		want              string
	}{
		"deleted":          {before: remove, want: "the feed has deleted objects of the range"},
		"edited":           {before: func(h *simulation) { h.SetWatermark(h.Stored().High - 10) }, want: "set by hand"},
		"edited meanwhile": {meanwhile: func(h *simulation) { h.SetWatermark(h.Stored().High - 10) }, want: "set by hand"},
		"deleted meanwhile": {meanwhile: func(h *simulation) {
			h.Add(3, 10, 10)
			h.MustRun()
			names := h.Names("openai-auditlog/")
			h.Bucket.Delete("logs", names[len(names)-1]) // before it could be read
		}, want: "the feed has deleted objects meanwhile"},
	} {
		t.Run(name, func(t *testing.T) {
			inRepair(t, repairSettings[0], func(t *testing.T, h *simulation, late int) {
				if tt.before != nil {
					tt.before(h)
				}
				before := len(h.Names("openai-auditlog/"))
				tr := &fault.Transport{}
				tr.Decide = func(r *http.Request) fault.Fault {
					if tt.meanwhile != nil && r.URL.Query().Get("name") == stateName {
						tt.meanwhile(h)
						tt.meanwhile = nil
					}
					return fault.Fault{}
				}
				ctx, c, cancel := h.through(tr)
				defer cancel()
				if r, err := h.repair(ctx, c); err == nil || !strings.Contains(err.Error(), tt.want) || r.Right {
					t.Errorf("error %v, report %+v", err, r)
				}
				if n := len(h.Names("openai-auditlog/")); n != before {
					t.Errorf("%d objects, and before %d", n, before)
				}
			})
		})
	}
}
