package proof

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/sim/harness"
	"example.com/auditlog/internal/state"
)

// ofTenant strikes the requests for tenant-scoped records, or all others.
func ofTenant(tenant bool, f fault.Fault) fault.Script {
	return func(_ int, r *http.Request) fault.Fault {
		if r.URL.Query().Has("tenant_only") == tenant {
			return f
		}
		return fault.Fault{}
	}
}

func inTenant(t *testing.T, f func(h *simulation)) {
	t.Helper()
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["TENANT_EVENTS"] = "true"
		f(h)
	})
}

// TestTenantEvents: they come in the same run, state and object as the others.
func TestTenantEvents(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.Add(30, 5, 60)
		sum := h.MustRun()
		s := h.state()
		if sum.Records != 30 || sum.Pages != 2 || len(h.Names("openai-auditlog/")) != 1 || s.Tenant == nil {
			t.Fatalf("figures %+v, state %+v", sum, s)
		}
		if s.Watermark != time.Now().Unix()-5 || s.Tenant.Watermark != time.Now().Unix()-2*60-5 {
			t.Errorf("watermarks %d and %d at %d", s.Watermark, s.Tenant.Watermark, time.Now().Unix())
		}
		h.WantLog("Fetching audit logs from ", "Fetching tenant-scoped audit logs from ")
		time.Sleep(time.Hour)
		if sum := h.MustRun(); sum.Pages != 2 || sum.Records != 0 || sum.Lag != 0 {
			t.Errorf("without news %+v", sum)
		}
		h.Settle()
	})
}

// TestNoTenant: an organization without one gets one warning a run, and what else
// there is. Should it get a tenant, its records are collected.
func TestNoTenant(t *testing.T) {
	for _, status := range []int{400, 403} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			inTenant(t, func(h *simulation) {
				h.Add(30, 5, 60)
				h.APIFaults.Set(ofTenant(true, fault.Fault{Kind: fault.Refuse, Status: status, Body: `{"error":{"message":"Organization has no tenant."}}`}))
				sum := h.MustRun()
				if n := strings.Count(h.Logs.String(), `"severity":"WARNING"`); n != 1 || sum.Records != 20 || h.state().Tenant != nil {
					t.Errorf("%d warnings, %+v\n%s", n, sum, h.Logs.String())
				}
				h.WantLog("set TENANT_EVENTS to false", "Organization has no tenant.")
				h.Settle()
			})
		})
	}
}

// TestStreamFails: what the API refuses of one stream holds nothing back of the
// other, and is no secret; nor is anything lost, whichever fails first.
func TestStreamFails(t *testing.T) {
	faults := map[string]fault.Fault{
		"403":            {Kind: fault.Refuse, Status: 403},
		"401":            {Kind: fault.Refuse, Status: 401},
		"500":            {Kind: fault.Refuse, Status: 500},
		"429 for a day":  {Kind: fault.Refuse, Status: 429, Header: http.Header{"Retry-After": {"86400"}}},
		"never answered": {Kind: fault.Hang},
		"HTML":           {Kind: fault.Refuse, Status: 200, Body: "<html>"},
	}
	for name, f := range faults {
		for _, tenant := range []bool{true, false} {
			for _, first := range []bool{true, false} {
				for _, width := range []string{"1", "4"} {
					if tenant && first && name == "403" {
						continue // there is no tenant
					}
					t.Run(fmt.Sprintf("%s/tenant %v/first %v/width %s", name, tenant, first, width), func(t *testing.T) {
						inTenant(t, func(h *simulation) {
							h.Env["FETCH_CONCURRENCY"] = width
							if !first {
								h.Add(9, 500, 1)
								h.MustRun()
								time.Sleep(time.Hour)
							}
							h.Add(30, 5, 60)
							before := h.Collected(harness.Stored{})
							h.APIFaults.Set(ofTenant(tenant, f))
							_, err := h.Run()
							if err == nil || strings.Contains(err.Error(), "tenant events: ") != (tenant || first) {
								t.Errorf("error %v", err)
							}
							want := 10
							switch {
							case tenant:
								want = 20
							case first: // not yet known to be others than those that fail
								want = 0
							}
							if got := len(h.Collected(harness.Stored{})) - len(before); got != want {
								t.Errorf("%d records of the other stream, want %d", got, want)
							}
							h.checkInvariants()
							if first && !tenant { // nothing was committed: the look-back begins with the next run
								h.Since = time.Now().Unix()
							}
							time.Sleep(30 * time.Hour) // beyond the look-back
							h.Run()                    // fails, too
							h.checkInvariants()
							h.APIFaults.Set(nil)
							h.Settle()
						})
					})
				}
			}
		}
	}
}

// TestStreamsHaveTheirOwnCap: a burst of one uses up nothing of the other's
// MAX_RECORDS, nor of its turns.
func TestStreamsHaveTheirOwnCap(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.Env["MAX_RECORDS"], h.Env["PAGE_SIZE"] = "20", "5"
		for range 100 {
			if err := h.API.Add(h.Records.Next(time.Now().Unix() - 5)); err != nil {
				t.Fatal(err)
			}
		}
		for range 4 {
			if err := h.API.AddTenant(h.Records.Next(time.Now().Unix() - 5)); err != nil {
				t.Fatal(err)
			}
		}
		sum := h.MustRun()
		if s := h.state(); sum.Records != 24 || len(s.Backlog) != 1 || s.Tenant == nil || len(s.Tenant.Backlog) != 0 {
			t.Errorf("%+v, state %+v", sum, s)
		}
		if second := h.APIFaults.Log()[1].Query; !strings.Contains(second, "tenant_only=true") {
			t.Errorf("second request %s", second)
		}
		h.Settle()
	})
}

// dropTenantOnly does what a proxy does that does not know it, and tells whether
// it was there.
func dropTenantOnly(r *http.Request) bool {
	q := r.URL.Query()
	had := q.Has("tenant_only")
	q.Del("tenant_only")
	r.URL.RawQuery = q.Encode()
	return had
}

// collectedThenQuiet collects records in several runs, so that no id is remembered,
// and turns TENANT_EVENTS on.
func (h *simulation) collectedThenQuiet() {
	h.T.Helper()
	h.Env["TENANT_EVENTS"] = "false"
	h.Env["MAX_RECORDS"] = "10"
	for i := range int64(20) {
		h.Put(false, "a", 600+i*10)
	}
	for range 3 {
		h.MustRun()
		time.Sleep(time.Hour)
	}
	h.Env["TENANT_EVENTS"] = "true"
}

// oneTakenByTenant lets the tenant's stream take a record of the others, which appears
// just as tenant_only is dropped.
func (h *simulation) oneTakenByTenant() {
	h.T.Helper()
	h.Put(false, "a", 7200)
	h.Put(true, "b", 3600)
	h.MustRun()
	time.Sleep(2 * time.Hour)
	h.MustRun()
	time.Sleep(time.Hour)
	plain := 0
	h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault {
		if dropTenantOnly(r) {
			h.Put(false, "a", 0)
		} else if plain++; plain > 1 { // what it would be compared with
			return fault.Fault{Kind: fault.Refuse, Status: 400}
		}
		return fault.Fault{}
	})
	h.MustRun()
}

// TestTenantOnlyDropped: where something on the way drops tenant_only, the same
// records come twice; they are written once.
func TestTenantOnlyDropped(t *testing.T) {
	for _, width := range []string{"1", "4"} {
		inTenant(t, func(h *simulation) {
			h.Env["FETCH_CONCURRENCY"] = width
			for i := range int64(150) {
				if err := h.API.Add(h.Records.Next(time.Now().Unix() - 500 - 60*i)); err != nil {
					t.Fatal(err)
				}
			}
			h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault { dropTenantOnly(r); return fault.Fault{} })
			for range 3 {
				if _, err := h.Run(); err == nil || !strings.Contains(err.Error(), "same records with tenant_only and without") {
					t.Errorf("error %v", err)
				}
				time.Sleep(time.Hour)
			}
			if err := h.Check(); err != nil {
				t.Error(err)
			}
			if s := h.state().Tenant; s == nil || s.LastRun != "" || len(s.Recent) != 0 {
				t.Errorf("the tenant's stream is %+v", s)
			}
		})
	}
}

// TestCirclesElsewhere: a window whose pages come back to where they were is left
// for another run; whatever else there is, is collected once.
func TestCirclesElsewhere(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.Env["MAX_RECORDS"], h.Env["PAGE_SIZE"] = "10", "5"
		h.Add(90, 500, 1)
		h.MustRun()
		if s := h.state(); len(s.Backlog) != 1 || len(s.Tenant.Backlog) != 1 {
			t.Fatalf("%+v", s)
		}
		time.Sleep(time.Hour)
		h.Add(9, 5, 1)
		backlog := h.state().Backlog[0]
		h.Env["MAX_RECORDS"] = "100"
		pages := map[bool]int{}
		h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault { // the tenant's new window, and the backlog of the others
			q := r.URL.Query()
			if q.Has("tenant_only") || q.Get("effective_at[lt]") == fmt.Sprint(backlog.Lte+1) {
				pages[q.Has("tenant_only")]++
				id := fmt.Sprint(q.Has("tenant_only"), pages[q.Has("tenant_only")]%3)
				end, _ := strconv.ParseInt(q.Get("effective_at[lt]"), 10, 64)
				body := fmt.Sprintf(`{"object":"list","data":[{"id":%q,"effective_at":%d}],"last_id":%q,"has_more":true}`, id, end-1, id)
				return fault.Fault{Kind: fault.Refuse, Status: 200, Body: body}
			}
			return fault.Fault{}
		})
		before := len(h.Collected(harness.Stored{}))
		_, err := h.Run()
		if err == nil || strings.Count(err.Error(), "pages in circles") != 2 {
			t.Errorf("error %v", err)
		}
		if got := len(h.Collected(harness.Stored{})) - before; got != 6 {
			t.Errorf("%d records were collected, want those 6 of the new window", got)
		}
		if s := h.state(); !slices.Contains(s.Backlog, backlog) || len(s.Tenant.Backlog) != 1 {
			t.Errorf("backlog %+v, want %+v in it", s.Backlog, backlog)
		}
		h.Settle()
	})
}

// TestBackfillOfStreams: a backfill is for both, and each takes what it lacks.
func TestBackfillOfStreams(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		began := time.Now()
		h.Env["TENANT_EVENTS"] = "true" // for add
		h.Add(30, 5, 7200)
		h.Env["TENANT_EVENTS"] = ""
		h.Since = 0
		h.MustRun()
		backfill := func(days int) (state.Backfilled, error) {
			return h.collector().Backfill(t.Context(), h.Log, state.Backfill{From: began.Add(-time.Duration(days) * day), To: began.Add(-day - time.Second)})
		}
		if _, err := backfill(2); err != nil {
			t.Error(err)
		}
		h.MustRun()
		h.Env["TENANT_EVENTS"] = "true"
		h.MustRun()                            // begins with the look-back
		if _, err := backfill(2); err != nil { // the others have it
			t.Error(err)
		}
		if s := h.state(); len(s.Backlog) != 0 || len(s.Tenant.Backlog) != 1 {
			t.Errorf("%+v", s)
		}
		h.MustRun()
		if b, err := backfill(2); err != nil || !b.Idle() {
			t.Errorf("%+v, error %v", b, err)
		}
		if _, err := h.collector().Backfill(t.Context(), h.Log, state.Backfill{From: began.Add(-5 * day)}); err != nil {
			t.Error(err)
		}
		h.Settle()
	})
}

// TestTenantTurnedOff: what its stream has stays in the state, so that it goes on
// from there when it is turned on again.
func TestTenantTurnedOff(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.Add(30, 5, 60)
		h.MustRun()
		h.Add(9, 5, 1)
		h.Env["TENANT_EVENTS"] = "false"
		time.Sleep(48 * time.Hour)
		if sum := h.MustRun(); sum.Lag != 0 {
			t.Errorf("lag %d", sum.Lag)
		}
		h.Env["TENANT_EVENTS"] = "true"
		h.Settle()
	})
}

// TestBackfillAgainOnce: where the answer to its write is lost and a whole run
// comes before the write is looked for, it is not put into the backlog twice.
func TestBackfillAgainOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Add(9, 500, 60)
		h.MustRun()
		ran := false
		tr := &fault.Transport{}
		tr.Decide = func(r *http.Request) fault.Fault {
			if r.Method == http.MethodPost {
				return fault.Fault{Kind: fault.Lose}
			}
			return fault.Fault{}
		}
		tr.Handled = func(r *http.Request) {
			if r.Method == http.MethodPost && !ran {
				ran = true
				h.MustRun()
			}
		}
		if err := h.backfill(tr, state.Backfill{From: ago(time.Hour), To: ago(500 * time.Second), Again: true}); err != nil || !ran {
			t.Error(err, ran)
		}
		h.MustRun()
		for id, n := range h.Collected(h.Stored()) {
			if n != 2 {
				t.Errorf("%s was written %d times, want 2", id, n)
			}
		}
		synctest.Wait()
	})
}

// TestTakenByTheOtherStream: a record that tenant_only did not keep out, just as it
// appeared, stays where it was written; it does not hold its own stream up.
func TestTakenByTheOtherStream(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.oneTakenByTenant()
		if n := len(h.state().Tenant.Recent); n != 1 {
			t.Fatalf("the tenant's stream has %d ids", n)
		}
		for _, clash := range []bool{true, false} {
			time.Sleep(time.Hour)
			h.Put(false, "a", 10)
			h.APIFaults.Set(from(20, fault.Fault{Kind: fault.Refuse, Status: 401}))
			if _, err := h.Run(); (err != nil) != clash || clash && !strings.Contains(err.Error(), "same records") {
				t.Errorf("error %v", err)
			}
		}
		if err := h.Check(); err != nil {
			t.Error(err)
		}
	})
}

// TestTenantOnlyDroppedAtFirst: also where no stream knows a recent record, a look-back
// through what the other has collected repeats nothing.
func TestTenantOnlyDroppedAtFirst(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.collectedThenQuiet()
		if n := len(h.state().Recent); n > 0 {
			t.Fatalf("%d ids", n)
		}
		h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault { dropTenantOnly(r); return fault.Fault{} })
		for range 2 {
			if _, err := h.Run(); err == nil || !strings.Contains(err.Error(), "same records with tenant_only and without") {
				t.Errorf("error %v", err)
			}
			time.Sleep(time.Hour)
		}
		if err := h.Check(); err != nil {
			t.Error(err)
		}
	})
}

// TestNoTenantAfterError: an error before the API says that there is no tenant
// leaves no stream behind, whose lag would grow.
func TestNoTenantAfterError(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.Put(false, "a", 5)
		h.APIFaults.Set(ofTenant(true, fault.Fault{Kind: fault.Refuse, Status: 500}))
		h.Run()
		back := state.Backfill{From: ago(60 * time.Minute), To: ago(30 * time.Minute), Again: true}
		if _, err := h.collector().Backfill(h.T.Context(), h.Log, back); err != nil {
			t.Errorf("a backfill waits for a stream that was never read: %v", err)
		}
		h.APIFaults.Set(ofTenant(true, fault.Fault{Kind: fault.Refuse, Status: 400, Body: `{"error":{"message":"Organization has no tenant."}}`}))
		time.Sleep(48 * time.Hour)
		if sum := h.MustRun(); sum.Lag > 0 {
			t.Errorf("%+v, %+v", sum, h.state().Tenant)
		}
	})
}

// TestForbiddenAtAll: what the API refuses altogether is not put down to the tenant.
func TestForbiddenAtAll(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.API.SetForbidden(true)
		if _, err := h.Run(); err == nil || strings.Contains(h.Logs.String(), "TENANT_EVENTS") {
			t.Errorf("error %v\n%s", err, h.Logs.String())
		}
	})
}

// TestLagOfAnEdit: a watermark set back counts until it is followed, though the
// stream fails and the other's commits go on.
func TestLagOfAnEdit(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.Put(false, "a", 5)
		h.Put(true, "b", 5)
		h.MustRun()
		time.Sleep(time.Hour)
		h.SetWatermark(time.Now().Unix() - 7*86400)
		h.APIFaults.Set(ofTenant(false, fault.Fault{Kind: fault.Refuse, Status: 403}))
		for range 3 {
			if sum, err := h.Run(); err == nil || sum.Lag < 7*86400 {
				t.Errorf("lag %d, error %v", sum.Lag, err)
			}
			time.Sleep(10 * time.Minute)
		}
	})
}

// TestStreamsShareWorkers: a stream that hangs or is done takes nothing of the other's
// requests at once, nor the only one.
func TestStreamsShareWorkers(t *testing.T) {
	took := func(width, timeout string, f fault.Fault) (d time.Duration) {
		inTenant(t, func(h *simulation) {
			h.Env["FETCH_CONCURRENCY"], h.Env["PAGE_SIZE"], h.Env["RUN_TIMEOUT_SECONDS"] = width, "10", timeout
			for i := range int64(900) {
				h.Put(false, "a", 500+i*90)
			}
			h.APIFaults.Set(ofTenant(true, f))
			h.APIFaults.SetHooks(new(inFlight).wait(200*time.Millisecond), nil)
			sum, _ := h.Run()
			if sum.Records != 900 {
				t.Errorf("width %s: %d records", width, sum.Records)
			}
			d = sum.Duration
		})
		return d
	}
	took("1", "120", fault.Fault{Kind: fault.Hang})
	if alone, beside := took("4", "480", fault.Fault{}), took("4", "480", fault.Fault{Kind: fault.Refuse, Status: 401}); beside > alone*5/4 {
		t.Errorf("beside a stream that is refused reading takes %s, beside an empty one %s", beside, alone)
	}
}

// TestStreamHangsInAShortRun: a stream that hangs takes a third of a run's reading, however
// short that is, and not the other's only request.
func TestStreamHangsInAShortRun(t *testing.T) {
	for _, tenant := range []bool{true, false} {
		for _, timeout := range []string{"8", "40"} {
			inTenant(t, func(h *simulation) {
				h.Env["RUN_TIMEOUT_SECONDS"], h.Env["PAGE_SIZE"] = timeout, "10"
				h.Add(30, 500, 1)
				h.MustRun() // the streams are known to be distinct
				time.Sleep(time.Hour)
				for i := range int64(900) {
					h.Put(!tenant, "a", 5+i)
				}
				h.APIFaults.Set(ofTenant(tenant, fault.Fault{Kind: fault.Hang}))
				others := new(inFlight)
				h.APIFaults.SetHooks(others.wait(time.Millisecond), nil)
				f, err := h.Run()
				if f.Records != 900 || err == nil || !strings.Contains(err.Error(), "no whole answer within ") {
					h.T.Errorf("tenant %v, %s s: %+v, %v", tenant, timeout, f, err)
				}
				h.APIFaults.SetHooks(nil, nil)
				h.Settle()
			})
		}
	}
}

// TestComparisonsWaitLittle: tenant windows do not wait, each anew, for a main stream that hangs; and what
// waits for it says why.
func TestComparisonsWaitLittle(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.Since = 0
		h.Add(30, 500, 1)
		h.MustRun()
		for i := range time.Duration(10) {
			to := time.Now().Add(-3*day - i*2*day)
			for range 3 {
				h.Put(true, "a", int64(time.Since(to)/time.Second)+60)
			}
			if _, err := h.collector().Backfill(h.T.Context(), h.Log, state.Backfill{From: to.Add(-day), To: to}); err != nil {
				h.T.Fatal(err)
			}
		}
		h.APIFaults.Set(ofTenant(false, fault.Fault{Kind: fault.Hang}))
		if f, err := h.Run(); err == nil || f.Records != 30 || len(h.state().Tenant.Backlog) > 0 {
			h.T.Errorf("%+v, %v; tenant %+v", f, err, h.state().Tenant)
		}
		h.Settle()
	})
	inTenant(t, func(h *simulation) {
		h.Add(30, 5, 1)
		h.APIFaults.Set(ofTenant(false, fault.Fault{Kind: fault.Refuse, Status: 500}))
		if _, err := h.Run(); err == nil || !strings.Contains(err.Error(), "could not be read: audit log API answered 500") {
			h.T.Errorf("error %v", err)
		}
		h.Settle()
	})
}
