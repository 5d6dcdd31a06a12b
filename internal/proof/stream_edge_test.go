package proof

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/state"
)

// once checks that nothing was written more than once, and all once.
func (h *simulation) once(all bool) {
	h.T.Helper()
	have := h.Collected(h.Stored())
	bad := 0
	h.API.Each(func(id string, at int64, tenant bool) {
		if n := have[id]; n > 1 || n == 0 && all {
			if bad++; bad < 6 {
				h.T.Errorf("%s at %d, tenant %v: written %d times", id, at, tenant, n)
			}
		}
	})
	if bad > 0 {
		h.T.Errorf("%d records in all", bad)
	}
}

// TestBackfillOfAnEditedState: a backfill before the next run gives up no window
// that the edit left.
func TestBackfillOfAnEditedState(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Since = 0
		h.Env["EVENT_TYPES"] = "k"
		for i := range int64(20) {
			h.Put(false, "a", 3*86400+i*10)
		}
		h.Put(false, "k", 600)
		h.MustRun()
		backfill := func(from, to time.Time) {
			h.Env["EVENT_TYPES"] = "a"
			if _, err := h.collector().Backfill(t.Context(), h.Log, state.Backfill{From: from, To: to}); err != nil {
				t.Fatal(err)
			}
			h.Env["EVENT_TYPES"] = "k"
		}
		backfill(ago(4*day), ago(3*day-time.Hour))
		h.SetWatermark(time.Now().Unix() - 6*86400) // k again from six days ago
		backfill(ago(9*day), ago(8*day))
		for range 3 {
			h.MustRun()
		}
		have := h.Collected(h.Stored())
		if have["a-1"] != 1 || have["a-20"] != 1 {
			t.Errorf("the backfilled records are lost: %v\n%+v", have, h.state())
		}
	})
}

// TestLookbackIsHeld: one refusal does not let go of a look-back that is held.
func TestLookbackIsHeld(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.Put(false, "a", 5)
		h.Put(true, "b", 5)
		h.APIFaults.Set(ofTenant(true, fault.Fault{Kind: fault.Refuse, Status: 500}))
		h.Run()
		time.Sleep(30 * time.Hour)
		h.Run()
		h.APIFaults.Set(ofTenant(true, fault.Fault{Kind: fault.Refuse, Status: 403, Body: `{"error":{"message":"Try later."}}`}))
		h.Run()
		h.APIFaults.Set(nil)
		h.MustRun()
		h.once(true)
	})
}

// TestEditThenFilter: an edit that the other stream's commit has taken over,
// while its own failed, has given up nothing that a change of filters then
// leaves out.
func TestEditThenFilter(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.Env["EVENT_TYPES"], h.Env["MAX_RECORDS"], h.Env["PAGE_SIZE"] = "a", "5", "5"
		for i := range int64(20) {
			h.Put(false, "a", 600+i*10)
		}
		h.MustRun()
		h.SetWatermark(time.Now().Unix() - 3*86400)
		h.APIFaults.Set(ofTenant(false, fault.Fault{Kind: fault.Refuse, Status: 500}))
		h.Run()
		h.APIFaults.Set(nil)
		h.Env["EVENT_TYPES"], h.Env["MAX_RECORDS"] = "b", "100"
		for range 3 {
			h.MustRun()
		}
		for id, n := range map[string]int{"a-6": 1, "a-20": 1} {
			if got := h.Collected(h.Stored())[id]; got < n {
				h.T.Errorf("%s was written %d times", id, got)
			}
		}
	})
}

// TestTenantOnlyDroppedCompare: the request that compares is sent again.
func TestTenantOnlyDroppedCompare(t *testing.T) {
	for _, f := range []fault.Fault{{Kind: fault.Refuse, Status: 429, Header: http.Header{"Retry-After": {"1"}}}, {Kind: fault.Refuse, Status: 500}, {Kind: fault.Drop}, {Kind: fault.Cut}} {
		t.Run(fmt.Sprint(f.Kind, f.Status), func(t *testing.T) {
			inTenant(t, func(h *simulation) {
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
					h.Run()
					time.Sleep(time.Hour)
				}
				h.once(true)
			})
		})
	}
}

// TestTenantBesideBadRecord: a record of the others that the API cannot serve does not keep
// the tenant's first records waiting.
func TestTenantBesideBadRecord(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.API.SetBad(h.Put(false, "a", 500), 500)
		h.Put(false, "a", 3600)
		id := h.Put(true, "b", 400)
		h.Run()
		if n := h.Collected(h.Stored())[id]; n != 1 {
			h.T.Errorf("the tenant's record was written %d times", n)
		}
		h.API.Heal()
		h.Settle()
	})
}

// TestTenantOnlyDroppedEmpty: where there was nothing to compare at first, later
// pages are compared.
func TestTenantOnlyDroppedEmpty(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.Since = 0
		for i := range int64(50) {
			h.Put(false, "a", 3*86400+i*10)
		}
		h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault { dropTenantOnly(r); return fault.Fault{} })
		h.MustRun()
		if s := h.state().Tenant; s == nil || s.Untouched {
			h.T.Fatalf("%+v", s)
		}
		if _, err := h.collector().Backfill(h.T.Context(), h.Log, state.Backfill{From: ago(5 * day)}); err != nil {
			h.T.Fatal(err)
		}
		for range 3 {
			h.Run() // fails
			time.Sleep(time.Hour)
		}
		h.once(true)
	})
}

// TestTenantOnlyDroppedRace: ... also where a record appears in between.
func TestTenantOnlyDroppedRace(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.collectedThenQuiet()
		n := 0
		h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault {
			if dropTenantOnly(r) {
				n = 1
			} else if n == 1 {
				n = 2
				h.Put(false, "a", 1) // 1 second late
			}
			return fault.Fault{}
		})
		for range 3 {
			h.Run()
			time.Sleep(time.Hour)
		}
		h.once(true)
	})
}

// TestTenantOnlyDroppedLater: also where the tenant's records have long been known to be
// others, what begins to drop tenant_only while a backfill is open neither has records
// written twice nor takes the others' for the tenant's.
func TestTenantOnlyDroppedLater(t *testing.T) {
	for _, width := range []string{"1", "4"} {
		inTenant(t, func(h *simulation) {
			h.Since = 0
			h.Env["FETCH_CONCURRENCY"], h.Env["PAGE_SIZE"] = width, "10"
			for i := range int64(50) {
				h.Put(false, "a", 3*86400+i*10)
				h.Put(true, "b", 3*86400+i*10)
			}
			h.Put(false, "a", 7200)
			h.Put(true, "b", 5) // so that the tenant's newest window has none of the others
			h.MustRun()
			if s := h.state().Tenant; s == nil || !s.Distinct {
				h.T.Fatalf("%+v", s)
			}
			if _, err := h.collector().Backfill(h.T.Context(), h.Log, state.Backfill{From: ago(5 * day)}); err != nil {
				h.T.Fatal(err)
			}
			h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault { dropTenantOnly(r); return fault.Fault{} })
			for range 3 {
				if _, err := h.Run(); err == nil || !strings.Contains(err.Error(), "same records with tenant_only and without") {
					h.T.Errorf("error %v", err)
				}
				time.Sleep(time.Hour)
			}
			h.Settle()
		})
	}
}

// TestTenantOnlyDroppedInWindow: ... also where it begins in the middle of a window, and
// the API takes the tenant's cursor for a place among the others.
func TestTenantOnlyDroppedInWindow(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.Since = 0
		start := time.Now().Unix()
		h.Env["PAGE_SIZE"], h.Env["MAX_RECORDS"] = "10", "20"
		for i := range int64(50) {
			h.Put(true, "b", 3*86400+i*10+5)
			if i >= 35 {
				h.Put(false, "a", 3*86400+i*10)
			}
		}
		h.Put(false, "a", 7200)
		h.Put(true, "b", 5)
		h.MustRun()
		if _, err := h.collector().Backfill(h.T.Context(), h.Log, state.Backfill{From: ago(5 * day)}); err != nil {
			h.T.Fatal(err)
		}
		h.MustRun() // leaves the tenant's window at its 20th record
		h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault {
			dropTenantOnly(r)
			if q := r.URL.Query(); strings.HasPrefix(q.Get("after"), "b-") {
				var n int64
				fmt.Sscanf(q.Get("after"), "b-%d", &n)
				q.Del("after")
				q.Set("effective_at[lt]", fmt.Sprint(start-3*86400-n*10))
				r.URL.RawQuery = q.Encode()
			}
			return fault.Fault{}
		})
		for range 3 {
			h.Run()
			time.Sleep(time.Hour)
		}
		h.Settle()
	})
}

// TestTenantOnlyDroppedWhileDown: ... nor where the others cannot be read as the tenant's
// records are read first.
func TestTenantOnlyDroppedWhileDown(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.collectedThenQuiet()
		h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault {
			if dropTenantOnly(r) {
				return fault.Fault{}
			}
			return fault.Fault{Kind: fault.Refuse, Status: 500}
		})
		for range 2 {
			if _, err := h.Run(); err == nil || !strings.Contains(err.Error(), "tenant-scoped records wait") {
				h.T.Errorf("error %v", err)
			}
			time.Sleep(time.Hour)
		}
		h.Settle()
	})
}

// TestHangingWindows: a stream of several windows that hang takes the only
// request once.
func TestHangingWindows(t *testing.T) {
	for _, width := range []string{"1", "2"} {
		inTenant(t, func(h *simulation) {
			h.Since = 0
			h.Env["FETCH_CONCURRENCY"], h.Env["PAGE_SIZE"], h.Env["RUN_TIMEOUT_SECONDS"] = width, "10", "300"
			h.Put(false, "a", 500)
			h.Put(true, "b", 500)
			h.MustRun()
			for d := range 5 {
				to := ago(time.Duration(2+2*d) * day)
				if _, err := h.collector().Backfill(h.T.Context(), h.Log, state.Backfill{From: to.Add(-day), To: to}); err != nil {
					h.T.Fatal(err)
				}
			}
			time.Sleep(time.Hour)
			for i := range int64(900) {
				h.Put(false, "a", 10+i)
			}
			cut := time.Now().Unix() - 86400
			h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault {
				var end int64
				fmt.Sscan(r.URL.Query().Get("effective_at[lt]"), &end)
				if r.URL.Query().Has("tenant_only") && end <= cut {
					return fault.Fault{Kind: fault.Hang}
				}
				return fault.Fault{}
			})
			sum, err := h.Run()
			if sum.Records != 900 {
				h.T.Errorf("width %s: %d records, %v, in %s", width, sum.Records, err, sum.Duration)
			}
		})
	}
}

// TestTakenAndQuiet: a record that the other stream has taken is remembered.
func TestTakenAndQuiet(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.oneTakenByTenant()
		h.APIFaults.Set(nil)
		failed := 0
		for range 10 {
			time.Sleep(time.Hour)
			h.Put(true, "b", 10)
			if _, err := h.Run(); err != nil {
				failed++
			}
		}
		if failed > 1 {
			h.T.Errorf("%d of 10 runs failed", failed)
		}
		h.once(true)
	})
}

// TestIDsOfExcludedWindows: backfills of types that exclude each other need no
// ids of each other.
func TestIDsOfExcludedWindows(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Since = 0
		h.Env["EVENT_TYPES"] = "k"
		for i := range int64(4000) {
			h.Put(false, []string{"a", "b"}[i%2], 3*86400+i*10)
		}
		h.MustRun()
		for _, types := range []string{"a", "b"} {
			h.Env["EVENT_TYPES"] = types
			if _, err := h.collector().Backfill(t.Context(), h.Log, state.Backfill{From: ago(8 * day), To: ago(2 * day)}); err != nil {
				t.Fatal(err)
			}
		}
		h.Env["EVENT_TYPES"], h.Env["MAX_RECORDS"] = "k", "1000"
		for range 4 {
			h.MustRun()
			if n := len(h.state().Recent); n > 100 {
				t.Errorf("%d ids", n)
			}
		}
		h.once(true)
	})
}

// TestAgainOverOtherWindows: ... nor forget those that a window with another
// filter needs.
func TestAgainOverOtherWindows(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Since = 0
		h.Env["EVENT_TYPES"], h.Env["PAGE_SIZE"] = "a", "5"
		for i := range int64(40) {
			h.Put(false, []string{"a", "b"}[i%2], 3*86400+i*100)
		}
		h.Put(false, "a", 7200)
		h.Bucket.Write("logs", stateName, fmt.Appendf(nil, `{"last_effective_at":%d,"last_run":"x"}`, time.Now().Unix()-9000))
		h.MustRun()
		h.Env["EVENT_TYPES"] = "b"
		r := state.Backfill{From: ago(8 * day), To: ago(2 * day), Again: true}
		if _, err := h.collector().Backfill(t.Context(), h.Log, r); err != nil {
			t.Fatal(err)
		}
		h.Env["EVENT_TYPES"], h.Env["MAX_RECORDS"] = "a", "5"
		h.MustRun()
		h.Env["EVENT_TYPES"] = "a"
		if _, err := h.collector().Backfill(t.Context(), h.Log, r); err != nil {
			return // refused
		}
		h.API.ExpireCursors()
		h.Env["MAX_RECORDS"] = "100"
		h.MustRun()
		h.MustRun()
		h.once(true)
	})
}

// TestLagOfAnEditBackfilled: nor does a backfill hide it.
func TestLagOfAnEditBackfilled(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.Put(false, "a", 5)
		h.Put(true, "b", 5)
		h.MustRun()
		time.Sleep(time.Hour)
		began := h.state().Covered[len(h.state().Covered)-1].Gte
		s := h.state()
		// the tenant's watermark is set back a week
		s.Tenant.Watermark = time.Now().Unix() - 7*86400
		h.Bucket.Write("logs", stateName, encoded(t, s))
		// a backfill of the others puts nothing into the tenant's backlog, since it is refused there...
		h.APIFaults.Set(ofTenant(true, fault.Fault{Kind: fault.Refuse, Status: 500}))
		from, to := time.Unix(began-7200, 0), time.Unix(began-3600, 0)
		h.Env["TENANT_EVENTS"] = "false"
		_, err := h.collector().Backfill(h.T.Context(), h.Log, state.Backfill{From: from, To: to})
		h.Env["TENANT_EVENTS"] = "true"
		if err != nil {
			h.T.Fatal(err)
		}
		for range 3 {
			if sum, err := h.Run(); err == nil || sum.Lag < 7*86400 {
				h.T.Errorf("lag %d, error %v", sum.Lag, err)
			}
			time.Sleep(10 * time.Minute)
		}
	})
}
