package auditlog

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"example.com/auditlog/internal/sim/fault"
)

// once checks that nothing was written more than once, and all once.
func (h *harness) once(all bool) {
	h.t.Helper()
	have := h.collected(h.state())
	bad := 0
	h.API.Each(func(id string, at int64, tenant bool) {
		if n := have[id]; n > 1 || n == 0 && all {
			if bad++; bad < 6 {
				h.t.Errorf("%s at %d, tenant %v: written %d times", id, at, tenant, n)
			}
		}
	})
	if bad > 0 {
		h.t.Errorf("%d records in all", bad)
	}
}

// TestBackfillOfAnEditedState: a backfill before the next run gives up no window
// that the edit left.
func TestBackfillOfAnEditedState(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.Since = 0
		h.env["EVENT_TYPES"] = "k"
		for i := range int64(20) {
			h.put(false, "a", 3*86400+i*10)
		}
		h.put(false, "k", 600)
		h.mustRun()
		backfill := func(from, to time.Time) {
			h.env["EVENT_TYPES"] = "a"
			if _, _, err := h.collector().Backfill(t.Context(), h.log, BackfillRange{From: from, To: to}); err != nil {
				t.Fatal(err)
			}
			h.env["EVENT_TYPES"] = "k"
		}
		backfill(ago(4*day), ago(3*day-time.Hour))
		h.setWatermark(time.Now().Unix() - 6*86400) // k again from six days ago
		backfill(ago(9*day), ago(8*day))
		for range 3 {
			h.mustRun()
		}
		have := h.collected(h.state())
		if have["a-1"] != 1 || have["a-20"] != 1 {
			t.Errorf("the backfilled records are lost: %v\n%+v", have, h.state())
		}
	})
}

// TestLookbackIsHeld: one refusal does not let go of a look-back that is held.
func TestLookbackIsHeld(t *testing.T) {
	inTenant(t, func(h *harness) {
		h.put(false, "a", 5)
		h.put(true, "b", 5)
		h.APIFaults.Set(ofTenant(true, fault.Fault{Kind: fault.Refuse, Status: 500}))
		h.run()
		time.Sleep(30 * time.Hour)
		h.run()
		h.APIFaults.Set(ofTenant(true, fault.Fault{Kind: fault.Refuse, Status: 403, Body: `{"error":{"message":"Try later."}}`}))
		h.run()
		h.APIFaults.Set(nil)
		h.mustRun()
		h.once(true)
	})
}

// TestEditThenFilter: an edit that the other stream's commit has taken over,
// while its own failed, has given up nothing that a change of filters then
// leaves out.
func TestEditThenFilter(t *testing.T) {
	inTenant(t, func(h *harness) {
		h.env["EVENT_TYPES"], h.env["MAX_RECORDS"], h.env["PAGE_SIZE"] = "a", "5", "5"
		for i := range int64(20) {
			h.put(false, "a", 600+i*10)
		}
		h.mustRun()
		h.setWatermark(time.Now().Unix() - 3*86400)
		h.APIFaults.Set(ofTenant(false, fault.Fault{Kind: fault.Refuse, Status: 500}))
		h.run()
		h.APIFaults.Set(nil)
		h.env["EVENT_TYPES"], h.env["MAX_RECORDS"] = "b", "100"
		for range 3 {
			h.mustRun()
		}
		for id, n := range map[string]int{"a-6": 1, "a-20": 1} {
			if got := h.collected(h.state())[id]; got < n {
				h.t.Errorf("%s was written %d times", id, got)
			}
		}
	})
}

// TestTenantOnlyDroppedCompare: the request that compares is sent again.
func TestTenantOnlyDroppedCompare(t *testing.T) {
	for _, f := range []fault.Fault{{Kind: fault.Refuse, Status: 429, Header: http.Header{"Retry-After": {"1"}}}, {Kind: fault.Refuse, Status: 500}, {Kind: fault.Drop}, {Kind: fault.Cut}} {
		t.Run(fmt.Sprint(f.Kind, f.Status), func(t *testing.T) {
			inTenant(t, func(h *harness) {
				h.collectedThenQuiet()
				var had atomic.Bool
				var struck atomic.Int32
				h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault {
					if dropTenantOnly(r) {
						had.Store(true)
					} else if had.Load() && struck.Add(1) == 1 { // the one that compares
						return f
					}
					return fault.Fault{}
				})
				for range 3 {
					h.run()
					time.Sleep(time.Hour)
				}
				h.once(true)
			})
		})
	}
}

// TestTenantOnlyDroppedEmpty: where there was nothing to compare at first, later
// pages are compared.
func TestTenantOnlyDroppedEmpty(t *testing.T) {
	inTenant(t, func(h *harness) {
		h.Since = 0
		for i := range int64(50) {
			h.put(false, "a", 3*86400+i*10)
		}
		h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault { dropTenantOnly(r); return fault.Fault{} })
		h.mustRun()
		if s := h.state().Tenant; s == nil || s.Unread {
			h.t.Fatalf("%+v", s)
		}
		if _, _, err := h.collector().Backfill(h.t.Context(), h.log, BackfillRange{From: ago(5 * day)}); err != nil {
			h.t.Fatal(err)
		}
		for range 3 {
			h.run() // fails
			time.Sleep(time.Hour)
		}
		h.once(true)
	})
}

// TestTenantOnlyDroppedRace: ... also where a record appears in between.
func TestTenantOnlyDroppedRace(t *testing.T) {
	inTenant(t, func(h *harness) {
		h.collectedThenQuiet()
		n := 0
		h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault {
			if dropTenantOnly(r) {
				n = 1
			} else if n == 1 {
				n = 2
				h.put(false, "a", 1) // 1 second late
			}
			return fault.Fault{}
		})
		for range 3 {
			h.run()
			time.Sleep(time.Hour)
		}
		h.once(true)
	})
}

// TestHangingWindows: a stream of several windows that hang takes the only
// request once.
func TestHangingWindows(t *testing.T) {
	for _, width := range []string{"1", "2"} {
		inTenant(t, func(h *harness) {
			h.Since = 0
			h.env["FETCH_CONCURRENCY"], h.env["PAGE_SIZE"], h.env["RUN_TIMEOUT_SECONDS"] = width, "10", "300"
			h.put(false, "a", 500)
			h.put(true, "b", 500)
			h.mustRun()
			for d := range 5 {
				to := ago(time.Duration(2+2*d) * day)
				if _, _, err := h.collector().Backfill(h.t.Context(), h.log, BackfillRange{From: to.Add(-day), To: to}); err != nil {
					h.t.Fatal(err)
				}
			}
			time.Sleep(time.Hour)
			for i := range int64(900) {
				h.put(false, "a", 10+i)
			}
			cut := time.Now().Unix() - 86400
			h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault {
				var lte int64
				fmt.Sscan(r.URL.Query().Get("effective_at[lte]"), &lte)
				if r.URL.Query().Has("tenant_only") && lte < cut {
					return fault.Fault{Kind: fault.Hang}
				}
				return fault.Fault{}
			})
			sum, err := h.run()
			if sum.Records != 900 {
				h.t.Errorf("width %s: %d records, %v, in %s", width, sum.Records, err, sum.Duration)
			}
		})
	}
}

// TestTakenAndQuiet: a record that the other stream has taken is remembered.
func TestTakenAndQuiet(t *testing.T) {
	inTenant(t, func(h *harness) {
		h.oneTakenByTenant()
		h.APIFaults.Set(nil)
		failed := 0
		for range 10 {
			time.Sleep(time.Hour)
			h.put(true, "b", 10)
			if _, err := h.run(); err != nil {
				failed++
			}
		}
		if failed > 1 {
			h.t.Errorf("%d of 10 runs failed", failed)
		}
		h.once(true)
	})
}

// TestIDsOfExcludedWindows: backfills of types that exclude each other need no
// ids of each other.
func TestIDsOfExcludedWindows(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.Since = 0
		h.env["EVENT_TYPES"] = "k"
		for i := range int64(4000) {
			h.put(false, []string{"a", "b"}[i%2], 3*86400+i*10)
		}
		h.mustRun()
		for _, types := range []string{"a", "b"} {
			h.env["EVENT_TYPES"] = types
			if _, _, err := h.collector().Backfill(t.Context(), h.log, BackfillRange{From: ago(8 * day), To: ago(2 * day)}); err != nil {
				t.Fatal(err)
			}
		}
		h.env["EVENT_TYPES"], h.env["MAX_RECORDS"] = "k", "1000"
		for range 4 {
			h.mustRun()
			if n := len(h.state().RecentIDs); n > 100 {
				t.Errorf("%d ids", n)
			}
		}
		h.once(true)
	})
}

// TestAgainOverOtherWindows: ... nor forget those that a window with another
// filter needs.
func TestAgainOverOtherWindows(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.Since = 0
		h.env["EVENT_TYPES"], h.env["PAGE_SIZE"] = "a", "5"
		for i := range int64(40) {
			h.put(false, []string{"a", "b"}[i%2], 3*86400+i*100)
		}
		h.put(false, "a", 7200)
		h.Bucket.Write("logs", stateName, fmt.Appendf(nil, `{"last_effective_at":%d,"last_run":"x"}`, time.Now().Unix()-9000))
		h.mustRun()
		h.env["EVENT_TYPES"] = "b"
		r := BackfillRange{From: ago(8 * day), To: ago(2 * day), Again: true}
		if _, _, err := h.collector().Backfill(t.Context(), h.log, r); err != nil {
			t.Fatal(err)
		}
		h.env["EVENT_TYPES"], h.env["MAX_RECORDS"] = "a", "5"
		h.mustRun()
		h.env["EVENT_TYPES"] = "a"
		if _, _, err := h.collector().Backfill(t.Context(), h.log, r); err != nil {
			return // refused
		}
		h.API.ExpireCursors()
		h.env["MAX_RECORDS"] = "100"
		h.mustRun()
		h.mustRun()
		h.once(true)
	})
}

// TestLagOfAnEditBackfilled: nor does a backfill hide it.
func TestLagOfAnEditBackfilled(t *testing.T) {
	inTenant(t, func(h *harness) {
		h.put(false, "a", 5)
		h.put(true, "b", 5)
		h.mustRun()
		time.Sleep(time.Hour)
		began := h.state().Covered[len(h.state().Covered)-1].Gte
		s := h.state()
		// the tenant's watermark is set back a week
		s.Tenant.Watermark = time.Now().Unix() - 7*86400
		h.Bucket.Write("logs", stateName, encoded(t, s))
		// a backfill of the others puts nothing into the tenant's backlog, since it is refused there...
		h.APIFaults.Set(ofTenant(true, fault.Fault{Kind: fault.Refuse, Status: 500}))
		from, to := time.Unix(began-7200, 0), time.Unix(began-3600, 0)
		h.env["TENANT_EVENTS"] = "false"
		_, _, err := h.collector().Backfill(h.t.Context(), h.log, BackfillRange{From: from, To: to})
		h.env["TENANT_EVENTS"] = "true"
		if err != nil {
			h.t.Fatal(err)
		}
		for range 3 {
			if sum, err := h.run(); err == nil || sum.Lag < 7*86400 {
				h.t.Errorf("lag %d, error %v", sum.Lag, err)
			}
			time.Sleep(10 * time.Minute)
		}
	})
}
