package proof

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/auditlog/internal/names"
	"example.com/auditlog/internal/sim/auditapi"
	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/state"
)

// at returns a script that lets a fault strike request n only.
func at(n int, f fault.Fault) fault.Script {
	return func(i int, _ *http.Request) fault.Fault {
		if i == n {
			return f
		}
		return fault.Fault{}
	}
}

// from returns a script that lets a fault strike every request from n on.
func from(n int, f fault.Fault) fault.Script {
	return func(i int, _ *http.Request) fault.Fault {
		if i >= n {
			return f
		}
		return fault.Fault{}
	}
}

// TestRequests: how many requests runs cost.
func TestRequests(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["OVERLAP_SECONDS"] = "0" // the newest record is read again all the same
		count := func() (shown, api, reads, writes int) {
			h.APIFaults.Set(nil)
			h.BucketFaults.Set(nil)
			sum := h.MustRun()
			for _, r := range h.BucketFaults.Log() {
				if r.Method == http.MethodGet {
					reads++
				} else {
					writes++
				}
			}
			return sum.Records + sum.Skipped, h.APIFaults.Count(), reads, writes
		}
		for _, n := range []int{100, 99, 100, 199, 0, 1, 0, 0} {
			h.Add(n, 1, 1)
			shown, api, reads, writes := count()
			if pages := (shown + 99) / 100; api != pages {
				t.Errorf("%d records: %d API requests, want %d", shown, api, pages)
			}
			if n == 0 && (reads > 2 || writes != 1) {
				t.Errorf("no news: %d storage reads, %d writes, want at most 2 and 1: %+v", reads, writes, h.BucketFaults.Log())
			}
			if n > 0 && writes != 3 { // staged object, state, move
				t.Errorf("%d records: %d storage writes, want 3: %+v", n, writes, h.BucketFaults.Log())
			}
			time.Sleep(time.Hour)
		}
		h.WantLog("No new audit log records found.")
		h.Settle()
	})
}

// scenario lives through what a collector meets in a day: a first run, news
// and late records, a burst beyond the cap, quiet hours. The faults that a test
// has set strike somewhere in it.
func (h *simulation) scenario(remove bool) {
	h.T.Helper()
	h.Env["MAX_RECORDS"], h.Env["PAGE_SIZE"] = "25", "10"
	tick := func() {
		h.Run() // whether it fails or not
		h.checkInvariants()
		if err := h.Feed(remove); err != nil {
			h.T.Error(err)
		}
		time.Sleep(time.Hour)
	}
	h.Add(12, 30, 7)
	tick()
	h.Add(1, 3600+100, 0) // late
	h.Add(5, 10, 1)
	tick()
	h.Add(40, 1, 2)
	tick()
	tick()
	tick()
	h.Settle()
}

// TestLostAnswers: where a write was applied and only its answer was lost, the
// run finds out and ends well, with one object.
func TestLostAnswers(t *testing.T) {
	for _, stateBucket := range []string{"", "states"} {
		for kind, f := range map[string]fault.Fault{
			"lost":      {Kind: fault.Lose},
			"a 503":     {Kind: fault.Fail, Status: 503},
			"a 500":     {Kind: fault.Fail, Status: 500},
			"never":     {Kind: fault.HangAfter},
			"cut short": {Kind: fault.Cut},
		} {
			writes := []string{"/staged/", "state.json", "/moveTo/"}
			if stateBucket != "" {
				writes[2] = "/rewriteTo/"
			}
			for _, write := range writes {
				t.Run(kind+write+stateBucket, func(t *testing.T) {
					inBubble(t, func(t *testing.T, h *simulation) {
						h.Env["STATE_BUCKET"] = stateBucket
						h.Add(10, 1, 1)
						struck := false
						h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
							body, _ := io.ReadAll(r.Body)
							r.Body = io.NopCloser(bytes.NewReader(body))
							upload := r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/upload/") && bytes.Contains(body[:min(len(body), 1000)], []byte(write))
							if struck || !upload && !strings.Contains(r.URL.Path, write) || r.Method == http.MethodGet {
								return fault.Fault{}
							}
							struck = true
							return f
						})
						sum := h.MustRun()
						if !struck {
							t.Fatal("no such write")
						}
						if sum.Records != 10 || len(h.Names("openai-auditlog/")) != 1 {
							t.Errorf("figures %+v, objects %v", sum, h.Names(""))
						}
						h.Settle()
					})
				})
			}
		}
	}
}

// TestCorruptedUpload: an object that does not hold what was sent is not
// committed.
func TestCorruptedUpload(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Add(10, 1, 1)
		staged := func(r *http.Request) bool { return strings.Contains(r.URL.Query().Get("name"), "/staged/") }
		h.BucketFaults.SetHooks(nil, func(_ int, r *http.Request) {
			if staged(r) {
				h.Bucket.Write("logs", r.URL.Query().Get("name"), []byte("other\n"))
			}
		})
		h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
			if staged(r) {
				return fault.Fault{Kind: fault.Lose}
			}
			return fault.Fault{}
		})
		if _, err := h.Run(); err == nil || !strings.Contains(err.Error(), "other bytes than were sent") {
			t.Errorf("error %v", err)
		}
		if names := h.Names(""); len(names) != 1 || !strings.Contains(names[0], "/staged/") {
			t.Errorf("objects %v", names)
		}
		h.BucketFaults.SetHooks(nil, nil)
		h.Settle()
	})
}

// TestStagedObjectFails: where the bucket refuses the staged object, reading ends
// at once, and nothing is committed.
func TestStagedObjectFails(t *testing.T) {
	for _, width := range []string{"1", "4"} {
		inBubble(t, func(t *testing.T, h *simulation) {
			h.Env["FETCH_CONCURRENCY"] = width
			for i := range int64(2000) {
				h.AddRecord(false, h.Records.NextSize(time.Now().Unix()-1-i, 10_000))
			}
			h.APIFaults.Set(nil)
			h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
				if r.Method != http.MethodGet {
					return fault.Fault{Kind: fault.Refuse, Status: 403}
				}
				return fault.Fault{}
			})
			_, err := h.Run()
			if err == nil || !strings.Contains(err.Error(), "writing gs://logs/state/") {
				t.Errorf("error %v", err)
			}
			if n := h.APIFaults.Count(); n > 12 {
				t.Errorf("%d requests for pages that can no longer be written", n)
			}
			if names := h.Names(""); len(names) != 0 {
				t.Errorf("objects %v", names)
			}
			h.Settle()
		})
	}
}

// TestFatalAnswers: a key that is not good ends the run within one request, and what
// looks like a bad page within a few; it changes nothing.
func TestFatalAnswers(t *testing.T) {
	for status, most := range map[int]int{400: 16, 401: 1, 403: 1, 404: 1} {
		inBubble(t, func(t *testing.T, h *simulation) {
			h.Add(3, 1, 1)
			h.APIFaults.Set(from(1, fault.Fault{Kind: fault.Refuse, Status: status, Body: `{"error":{"message":"No."}}`}))
			_, err := h.Run()
			if err == nil || h.APIFaults.Count() > most {
				t.Errorf("%d: %d requests, error %v", status, h.APIFaults.Count(), err)
			}
			if names := h.Names(""); len(names) != 0 {
				t.Errorf("%d: objects %v", status, names)
			}
			h.WantLog(`"severity":"ERROR"`, `"message":"Run failed: audit log API answered `+fmt.Sprint(status))
			h.Settle()
		})
	}
}

// TestRateLimitedForADay: the wait is not begun, what has been read is
// committed, and the error is returned.
func TestRateLimitedForADay(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Add(250, 5, 10)
		h.APIFaults.Set(from(3, fault.Fault{Kind: fault.Refuse, Status: 429, Header: http.Header{"Retry-After": {"86400"}}}))
		started := time.Now()
		sum, err := h.Run()
		if err == nil || !strings.Contains(err.Error(), "429") {
			t.Errorf("error %v", err)
		}
		if sum.Records != 200 || sum.OpenWindows != 1 || time.Since(started) > time.Second || sum.Object == "" {
			t.Errorf("after %v: %+v", time.Since(started), sum)
		}
		h.Settle()
	})
}

// TestRateLimitWaits: the API's wait is obeyed, logged as by the Python
// function, and counted.
func TestRateLimitWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Add(3, 1, 1)
		h.APIFaults.Set(at(1, fault.Fault{Kind: fault.Refuse, Status: 429, Header: http.Header{"Retry-After": {"20"}}}))
		started := time.Now()
		sum := h.MustRun()
		if sum.RateLimitWait != 20*time.Second || sum.Retries != 1 || time.Since(started) != 20*time.Second {
			t.Errorf("after %v: %+v", time.Since(started), sum)
		}
		h.WantLog(`"severity":"WARNING","message":"Rate limited (429). Retrying after 20s..."`, `"rate_limit_wait_seconds":20`)
	})
}

// TestDeadline: a run ends in time to commit, whatever hangs.
func TestDeadline(t *testing.T) {
	hang := fault.Fault{Kind: fault.Hang}
	t.Run("the API from its first answer on", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *simulation) {
			h.Add(3, 1, 1)
			h.APIFaults.Set(from(1, hang))
			started := time.Now()
			_, err := h.Run()
			if d := time.Since(started); err == nil || d > 480*time.Second {
				t.Errorf("after %v: %v", d, err)
			}
			h.Settle()
		})
	})
	t.Run("the API after a page", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *simulation) {
			h.Add(300, 1, 1)
			h.APIFaults.Set(from(2, hang))
			started := time.Now()
			sum, err := h.Run()
			if d := time.Since(started); err == nil || d > 480*time.Second || sum.Records != 100 || sum.OpenWindows != 1 {
				t.Errorf("after %v: %v, %+v", d, err, sum)
			}
			h.Settle()
		})
	})
	t.Run("slow, but well", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *simulation) {
			h.Add(5000, 1, 1)
			h.APIFaults.SetHooks(func(int, *http.Request) { time.Sleep(25 * time.Second) }, nil)
			started := time.Now()
			sum, err := h.Run()
			if d := time.Since(started); err != nil || d != 420*time.Second || sum.Records != 1600 || sum.OpenWindows != 1 {
				t.Errorf("after %v: %v, %+v", d, err, sum)
			}
			h.WantLog("RUN_TIMEOUT_SECONDS is nearly over")
			h.APIFaults.SetHooks(nil, nil)
			h.Settle()
		})
	})
	t.Run("the bucket", func(t *testing.T) {
		for n := 1; n <= 4; n++ {
			inBubble(t, func(t *testing.T, h *simulation) {
				h.Add(3, 1, 1)
				h.BucketFaults.Set(from(n, hang))
				started := time.Now()
				_, err := h.Run()
				if d := time.Since(started); err == nil || d > 480*time.Second {
					t.Errorf("from request %d on: after %v: %v", n, d, err)
				}
				h.Settle()
			})
		}
	})
}

// TestInterrupted: when the caller goes away or the host shuts down, what has
// been read is committed and published at once.
func TestInterrupted(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Add(300, 1, 1)
		ctx, cancel := context.WithCancel(t.Context())
		h.APIFaults.Set(func(n int, _ *http.Request) fault.Fault {
			if n < 3 {
				return fault.Fault{}
			}
			cancel()
			return fault.Fault{Kind: fault.Hang}
		})
		started := time.Now()
		sum, err := h.collector().Run(ctx, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), "run was stopped") || time.Since(started) > 0 {
			t.Errorf("after %v: %v", time.Since(started), err)
		}
		if sum.Records != 200 || len(h.Names("openai-auditlog/")) != 1 {
			t.Errorf("figures %+v, objects %v", sum, h.Names(""))
		}
		h.Settle()
	})
}

// TestFullSecond: more records in one second than a run may hold.
func TestFullSecond(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["MAX_RECORDS"] = "70"
		h.Add(400, 30, 0)
		for range 10 {
			h.Run()
			h.checkInvariants()
			h.Add(30, 10, 0)
			time.Sleep(time.Hour)
		}
		h.Settle()
	})
}

// TestOrders: nothing depends on the order of pages.
func TestOrders(t *testing.T) {
	for name, order := range map[string]auditapi.Order{"oldest first": auditapi.OldestFirst, "shuffled": auditapi.Shuffled(7)} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *simulation) {
				h.API.SetOrder(order)
				h.scenario(true)
			})
		})
	}
}

// TestExpiredCursors: a backlog whose cursor is no longer taken is read on from
// the time reached in it.
func TestExpiredCursors(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["MAX_RECORDS"] = "100"
		h.Add(1000, 1, 30)
		for range 5 {
			h.MustRun()
			h.API.ExpireCursors()
			time.Sleep(time.Minute)
		}
		h.WantLog("The API refuses the cursor of a window: reading on from the time reached in it")
		h.Settle()
	})
}

// TestLateness: the figures tell how late records were.
func TestLateness(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Add(5, 10, 1)
		h.MustRun() // covers up to 10 s ago
		h.Add(1, 10+90, 0)
		h.Add(1, 10+20, 0)
		h.Add(1, 0, 0)
		sum := h.MustRun()
		if sum.Late != 2 || sum.MaxLateness != 90 || sum.Records != 3 || sum.Skipped != 5 {
			t.Errorf("%+v", sum)
		}
		h.Settle()
	})
}

// TestPythonState: the Python function's state is taken over.
func TestPythonState(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		watermark := time.Now().Unix() - 7200
		h.Add(10, 7300, 0) // before its watermark's overlap ends: Python had them, we bring them once more
		h.Add(20, 100, 10)
		h.Bucket.Write("logs", stateName, fmt.Appendf(nil, `{"last_effective_at": %d, "last_run": "1999-12-31T22:00:00.123456+00:00"}`, watermark))
		sum := h.MustRun()
		if sum.Records != 30 || sum.Late != 0 {
			t.Errorf("%+v", sum)
		}
		h.WantLog(`"Fetching audit logs from 1999-12-31T21:58:00Z to 2000-01-01T00:00:00Z"`)
		h.Settle()
	})
}

// TestPythonStateBackfilled: what the Python function has collected, and a run
// brings once more, has not appeared late, though a backfill has made the state
// the collector's own.
func TestPythonStateBackfilled(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Add(10, 7300, 0)
		h.Bucket.Write("logs", stateName, fmt.Appendf(nil, `{"last_effective_at": %d, "last_run": "1999-12-31T22:00:00.123456+00:00"}`, time.Now().Unix()-7200))
		if err := h.backfill(&fault.Transport{}, state.Backfill{From: ago(2 * day), To: ago(day), Again: true}); err != nil {
			t.Fatal(err)
		}
		if sum := h.MustRun(); sum.Records != 10 || sum.Late != 0 {
			t.Errorf("%+v", sum)
		}
	})
}

// TestEditedState: a watermark set by hand wins, and is read from exactly.
func TestEditedState(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Add(100, 0, 60)
		h.MustRun()
		h.SetWatermark(time.Now().Unix() - 600)
		if sum := h.MustRun(); sum.Records != 11 || sum.Late != 0 {
			t.Errorf("edited back by 600 s: %+v", sum)
		}
		h.WantLog(`"severity":"WARNING","message":"last_effective_at was set by hand`)
		if sum := h.MustRun(); sum.Records != 0 {
			t.Errorf("read again once more: %+v", sum)
		}
		time.Sleep(time.Hour)
		h.Add(60, 0, 60)
		h.SetWatermark(time.Now().Unix() - 300)
		if sum := h.MustRun(); sum.Records != 8 { // 300 s and the overlap of 120
			t.Errorf("edited forward to 300 s ago: %+v", sum)
		}
	})
}

// TestEditedBackALittle: a record that appears late, just below a watermark that
// was set back, is collected as without the edit.
func TestEditedBackALittle(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Add(5, 5, 1)
		h.MustRun()
		high := h.state().High
		data, err := h.Bucket.Read("logs", stateName)
		if err != nil {
			t.Fatal(err)
		}
		h.Bucket.Write("logs", stateName, bytes.Replace(data, fmt.Appendf(nil, `"last_effective_at": %d`, high), fmt.Appendf(nil, `"last_effective_at": %d`, high-10), 1))
		time.Sleep(30 * time.Second)
		if err := h.API.Add(h.Records.Next(high - 50)); err != nil {
			t.Fatal(err)
		}
		if sum := h.MustRun(); sum.Records != 5+1 { // those after the edit again, and the late one
			t.Errorf("%+v", sum)
		}
	})
}

// TestDamagedState: it is refused, named, and left as it is.
func TestDamagedState(t *testing.T) {
	for _, data := range []string{"", "{", "null", `{"last_effective_at": -1}`, `{"last_run": "x"}`, `{"last_effective_at": 4102444800}`} {
		inBubble(t, func(t *testing.T, h *simulation) {
			h.Add(10, 1, 1)
			h.Bucket.Write("logs", stateName, []byte(data))
			_, err := h.Run()
			if err == nil || !strings.Contains(err.Error(), "gs://logs/"+stateName) || !strings.Contains(err.Error(), "restore") {
				t.Errorf("%q: %v", data, err)
			}
			if after, _ := h.Bucket.Read("logs", stateName); string(after) != data {
				t.Errorf("%q became %q", data, after)
			}
			if h.APIFaults.Count() != 0 || len(h.Names("")) != 1 {
				t.Errorf("%q: %d API requests, objects %v", data, h.APIFaults.Count(), h.Names(""))
			}
		})
	}
}

// TestOrganization: a key of another organization is refused before anything of
// it is collected.
func TestOrganization(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Add(10, 1, 1)
		h.MustRun()
		own := h.state().Organization
		if own == "" {
			t.Fatal("state does not know the organization")
		}
		before, _ := h.Bucket.Read("logs", stateName)
		h.API.SetOrganization("org-another")
		h.Add(5, 0, 0)
		_, err := h.Run()
		if err == nil || !strings.Contains(err.Error(), "org-another") || !strings.Contains(err.Error(), own) {
			t.Errorf("error %v", err)
		}
		if after, _ := h.Bucket.Read("logs", stateName); !bytes.Equal(before, after) || len(h.Names("openai-auditlog/")) != 1 {
			t.Errorf("objects %v, state %s", h.Names(""), after)
		}
		h.API.SetOrganization("") // no header: nothing to compare
		h.Settle()
	})
}

// TestStrangersObject: a final name that somebody else has taken is left alone.
func TestStrangersObject(t *testing.T) {
	for _, stateBucket := range []string{"", "states"} {
		inBubble(t, func(t *testing.T, h *simulation) {
			h.Env["STATE_BUCKET"] = stateBucket
			h.Add(10, 1, 1)
			var strangers []string
			for i := range 3 {
				name := "openai-auditlog/" + time.Now().UTC().Add(time.Duration(i)*time.Second).Format(names.FinalLayout)
				h.Bucket.Write("logs", name, []byte("a stranger's\n"))
				strangers = append(strangers, name)
			}
			sum := h.MustRun()
			want := "gs://logs/openai-auditlog/" + time.Now().UTC().Add(3*time.Second).Format(names.FinalLayout)
			if sum.Object != want {
				t.Errorf("wrote %s, want %s", sum.Object, want)
			}
			for _, name := range strangers {
				if data, err := h.Bucket.Read("logs", name); err != nil || string(data) != "a stranger's\n" {
					t.Errorf("%s is %q, %v", name, data, err)
				}
				h.Bucket.Delete("logs", name)
			}
			h.Settle()
		})
	}
}

// TestRetention: with a state bucket of its own, the collector does no more than
// create in a log bucket whose objects can be neither replaced nor deleted.
func TestRetention(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["STATE_BUCKET"] = "states"
		h.Bucket.Retain("logs")
		h.scenario(false)
		for _, o := range h.Bucket.Objects("states", "") {
			if o.Name != stateName {
				t.Errorf("left in the state bucket: %s", o.Name)
			}
		}
	})
}

// TestSweep: staged objects that no state names go once they are a day old.
func TestSweep(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		orphan := func(name string) string {
			name = "state/openai-auditlog/staged/state.json/" + name
			h.Bucket.Write("logs", name, []byte("x\n"))
			return name
		}
		old := orphan("old")
		time.Sleep(24*time.Hour - time.Minute)
		young := orphan("young")
		h.Add(1, 0, 0)
		h.MustRun()
		if got := h.Names("state/openai-auditlog/staged/"); !slices.Equal(got, []string{old, young}) {
			t.Errorf("swept before its day: left %v", got)
		}
		time.Sleep(2 * time.Minute)
		h.MustRun()
		if got := h.Names("state/openai-auditlog/staged/"); !slices.Equal(got, []string{young}) {
			t.Errorf("left %v", got)
		}
		h.WantLog("Removed 1 staged objects")
		// A named one stays, however old.
		h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
			if strings.Contains(r.URL.Path, "/moveTo/") {
				return fault.Fault{Kind: fault.Refuse, Status: 403}
			}
			return fault.Fault{}
		})
		h.Add(1, 0, 0)
		if _, err := h.Run(); err == nil || !strings.Contains(err.Error(), "next run publishes") {
			t.Errorf("error %v", err)
		}
		time.Sleep(50 * time.Hour)
		if _, err := h.Run(); err == nil {
			t.Error("a run that cannot publish what is staged ended well")
		}
		h.Settle()
	})
}

// TestSharedFolder: a sweep leaves alone what another state, in the same
// folder, names.
func TestSharedFolder(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Add(10, 1, 1)
		h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
			if strings.Contains(r.URL.Path, "/moveTo/") {
				return fault.Fault{Kind: fault.Refuse, Status: 403}
			}
			return fault.Fault{}
		})
		if _, err := h.Run(); err == nil {
			t.Fatal("a move that is refused is no error")
		}
		h.BucketFaults.Set(nil)
		own := h.Env["STATE_KEY"]
		h.Env["STATE_KEY"], h.Env["GCS_PREFIX"] = "state/openai-auditlog/b.json", "b"
		for range 4 {
			time.Sleep(20 * time.Hour)
			h.MustRun()
		}
		h.Env["STATE_KEY"], h.Env["GCS_PREFIX"] = own, "openai-auditlog"
		h.Settle()
	})
}

// TestEditedDuringCommit: the write landed, its answer was lost, and somebody
// edited the state before it was read back.
func TestEditedDuringCommit(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Add(10, 1, 1)
		h.BucketFaults.Set(func(n int, r *http.Request) fault.Fault {
			if n == 4 { // state, sweep's list comes last: load, upload, commit, read back
				data, err := h.Bucket.Read("logs", stateName)
				if err != nil {
					t.Fatal(err)
				}
				h.Bucket.Write("logs", stateName, bytes.Replace(data, []byte(`"last_run": "2`), []byte(`"last_run": "3`), 1))
			}
			if n == 3 {
				return fault.Fault{Kind: fault.Fail, Status: 403}
			}
			return fault.Fault{}
		})
		if sum := h.MustRun(); sum.Records != 10 || sum.Object == "" {
			t.Errorf("%+v", sum)
		}
		h.Settle()
	})
}

// TestChangedStateBucket: what is staged in the bucket of before is not taken
// for published.
func TestChangedStateBucket(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Add(10, 1, 1)
		h.BucketFaults.Set(from(4, fault.Fault{Kind: fault.Refuse, Status: 403})) // the move
		if _, err := h.Run(); err == nil {
			t.Fatal("a move that is refused is no error")
		}
		h.BucketFaults.Set(nil)
		data, _ := h.Bucket.Read("logs", stateName)
		h.Bucket.Write("states", stateName, data)
		h.Env["STATE_BUCKET"] = "states"
		if _, err := h.Run(); err == nil || !strings.Contains(err.Error(), "STATE_BUCKET") {
			t.Errorf("error %v", err)
		}
		h.Env["STATE_BUCKET"] = ""
		h.Settle()
	})
}

// TestShortRequestTimeout: a deadline of the host's, shorter than the settings
// allow for, leaves time to read.
func TestShortRequestTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Add(10, 1, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		if sum, err := h.collector().Run(ctx, slog.New(slog.DiscardHandler)); err != nil || sum.Records != 10 {
			t.Errorf("%+v, %v", sum, err)
		}
		h.Settle()
	})
}

// TestRefusedWithinARun: a cursor that is refused as soon as it is given is no
// circle, whatever the order.
func TestRefusedWithinARun(t *testing.T) {
	for name, order := range map[string]auditapi.Order{"newest first": auditapi.NewestFirst, "oldest first": auditapi.OldestFirst} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *simulation) {
				h.API.SetOrder(order)
				h.Add(150, 1, 0)
				h.APIFaults.Set(at(2, fault.Fault{Kind: fault.Refuse, Status: 400, Body: `{"error":{"message":"No such cursor","param":"after"}}`}))
				if sum := h.MustRun(); sum.Records != 150 {
					t.Errorf("%+v", sum)
				}
				h.Settle()
			})
		})
	}
}

// TestFailingUntilTheDeadline: an API that fails until the time is over is an
// error, though pages came before.
func TestFailingUntilTheDeadline(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["RUN_TIMEOUT_SECONDS"] = "60"
		h.Add(150, 1, 1)
		h.APIFaults.Set(from(2, fault.Fault{Kind: fault.Hang}))
		if sum, err := h.Run(); err == nil || !strings.Contains(err.Error(), "API") || sum.Records != 100 {
			t.Errorf("%+v, %v", sum, err)
		}
		h.Settle()
	})
}

// TestFastClock: a first run whose window lies ahead of the API's time is
// refused.
func TestFastClock(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["LOOKBACK_HOURS"] = "1"
		h.APIFaults.Set(func(int, *http.Request) fault.Fault {
			return fault.Fault{Kind: fault.Refuse, Status: 200, Body: `{"object":"list","data":[],"has_more":false}`,
				Header: http.Header{"Date": {time.Now().UTC().Add(-2 * time.Hour).Format(http.TimeFormat)}}}
		})
		if _, err := h.Run(); err == nil || !strings.Contains(err.Error(), "clock is fast") {
			t.Errorf("error %v", err)
		}
		if names := h.Names(""); len(names) != 0 {
			t.Errorf("objects %v", names)
		}
	})
}

// TestStateInFeed: with the Python function's default STATE_KEY, the log warns
// and staged objects stay out of the feed.
func TestStateInFeed(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		delete(h.Env, "STATE_KEY")
		h.Env["STATE_KEY"] = "openai-auditlog/state.json"
		h.BucketFaults.SetHooks(nil, func(_ int, r *http.Request) {
			for _, name := range h.Names("openai-auditlog/") {
				if strings.Contains(name, "staged") {
					t.Errorf("the feed sees %s", name)
				}
			}
		})
		h.Add(10, 1, 1)
		h.MustRun()
		h.WantLog("STATE_KEY lies under GCS_PREFIX")
	})
}

// TestMissingBucket and permissions: the error names what to look at.
func TestStorageErrors(t *testing.T) {
	t.Run("no such bucket", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *simulation) {
			h.Env["GCS_BUCKET"] = "absent"
			h.Add(1, 1, 1)
			if _, err := h.Run(); err == nil || !strings.Contains(err.Error(), "GCS_BUCKET") {
				t.Errorf("error %v", err)
			}
		})
	})
	for message, advice := range map[string]string{
		"no storage.objects.get access":                                                      "the function's service account lacks a role on the bucket",
		"Object 'x' is subject to bucket's retention policy":                                 "a retention policy or a hold forbids it",
		"Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier": "VPC Service Controls forbid it",
		"Permission denied on Cloud KMS key.":                                                "the bucket's Cloud KMS key cannot be used",
	} {
		t.Run(advice, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *simulation) {
				h.Add(1, 1, 1)
				for n := 1; n <= 3; n++ { // from reading the state on, from the upload on, from the commit on
					h.BucketFaults.Set(from(n, fault.Fault{Kind: fault.Refuse, Status: 403, Body: fmt.Sprintf(`{"error":{"code":403,"message":%q}}`, message)}))
					_, err := h.Run()
					if err == nil || !strings.Contains(err.Error(), "403 "+message) || !strings.Contains(err.Error(), "("+advice) || strings.Contains(err.Error(), "{") {
						t.Errorf("from request %d: error %v", n, err)
					}
				}
			})
		})
	}
}

// TestLongRecords: one of a megabyte is collected, and one that the feed cannot
// take is collected and named.
func TestLongRecords(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		for i, size := range []int{1 << 20, 5 << 20} {
			raw := fmt.Appendf(nil, `{"id":"long-%d","effective_at":%d,"x":"%s"}`, i, time.Now().Unix(), strings.Repeat("x", size))
			if err := h.API.Add(raw); err != nil {
				t.Fatal(err)
			}
		}
		h.MustRun()
		h.WantLog(`"A record is longer than the feed takes`, `"id":"long-1"`)
		if strings.Contains(h.Logs.String(), "long-0") {
			t.Error("warns of a record that the feed takes")
		}
		h.Settle()
	})
}

// TestHugePages: where a page is too large for memory, smaller ones are read.
func TestHugePages(t *testing.T) {
	if testing.Short() {
		t.Skip("tens of megabytes a page")
	}
	inBubble(t, func(t *testing.T, h *simulation) {
		h.API.SetGzip(false)
		for i := range 34 {
			raw := fmt.Appendf(nil, `{"id":"huge-%d","effective_at":%d,"x":"%s"}`, i, time.Now().Unix(), strings.Repeat("x", 1<<20))
			if err := h.API.Add(raw); err != nil {
				t.Fatal(err)
			}
		}
		if sum := h.MustRun(); sum.Records != 34 {
			t.Errorf("%+v", sum)
		}
		h.WantLog("page is larger than 32 MiB: asking for 50 records a page")
		h.Settle()
	})
}

// TestHollowPage: an empty page with more to come holds nothing back, however often it
// comes, and is no secret.
func TestHollowPage(t *testing.T) {
	for _, width := range []string{"1", "4"} {
		inBubble(t, func(t *testing.T, h *simulation) {
			h.Env["FETCH_CONCURRENCY"] = width
			h.Add(515, 5, 60)
			h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault {
				q := r.URL.Query()
				after := q.Get("after")
				switch before, below := strings.CutSuffix(after, "-hole"); {
				case below: // the hole's cursor goes on from the record before it
					q.Set("after", before)
					r.URL.RawQuery = q.Encode()
				case after != "":
					return fault.Fault{Kind: fault.Refuse, Status: 200, Body: `{"object":"list","data":[],"last_id":"` + after + `-hole","has_more":true}`}
				}
				return fault.Fault{}
			})
			if sum := h.MustRun(); sum.Records != 515 || sum.OpenWindows != 0 {
				t.Errorf("%+v", sum)
			}
			h.WantLog("The API answered with empty pages that more followed", `"severity":"WARNING"`)
			h.Settle()
		})
	}
}

// TestBadRecord: a record that the API cannot serve keeps no other from being collected,
// whatever it answers instead: each run says which second is left, and collects it when
// the API is well again.
func TestBadRecord(t *testing.T) {
	for _, status := range []int{200, 400, 500} {
		for _, width := range []string{"1", "4"} {
			inBubble(t, func(t *testing.T, h *simulation) {
				h.Env["FETCH_CONCURRENCY"] = width
				h.Add(515, 5, 60)
				newest := h.Put(false, "k", 3)
				middle := h.Put(false, "k", 20_003)
				h.API.SetBad(newest, status)
				h.API.SetBad(middle, status)
				records := 0
				for range 3 {
					sum, err := h.Run()
					records += sum.Records
					if err == nil || !strings.Contains(err.Error(), "the API cannot serve 2 ranges, set aside while the rest is read: ") {
						t.Errorf("%d: error %v", status, err)
					}
					if sum.SetAside != 2 || sum.OpenWindows != 0 || sum.Lag > 300 {
						t.Errorf("%d: %+v", status, sum)
					}
					time.Sleep(time.Hour)
				}
				if records != 515 {
					t.Errorf("%d: %d records", status, records)
				}
				h.WantLog(`"severity":"ERROR","message":"A range is set aside, since the API cannot serve it`, "auditlog backfill --cancel --from ")
				h.API.Heal()
				h.Settle()
			})
		}
	}
}

// TestPagesInCircles: nothing of an API that does not page consistently is
// committed.
func TestPagesInCircles(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.APIFaults.Set(func(n int, r *http.Request) fault.Fault {
			body := fmt.Sprintf(`{"object":"list","data":[{"id":"%d","effective_at":%d}],"last_id":"%d","has_more":true}`, n%7, time.Now().Unix(), n%7)
			return fault.Fault{Kind: fault.Refuse, Status: 200, Body: body}
		})
		if _, err := h.Run(); err == nil || !strings.Contains(err.Error(), "pages in circles") {
			t.Errorf("error %v", err)
		}
		if names := h.Names(""); len(names) != 0 {
			t.Errorf("objects %v", names)
		}
	})
}
