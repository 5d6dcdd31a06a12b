package proof

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/auditlog/internal/sim/fault"
)

// inFlight lets each request to the API take a while, and counts those that are
// under way at once.
type inFlight struct {
	mu        sync.Mutex
	now, most int
}

// wait is a hook that takes so long.
func (f *inFlight) wait(d time.Duration) fault.Hook {
	return func(int, *http.Request) {
		f.mu.Lock()
		f.now++
		f.most = max(f.most, f.now)
		f.mu.Unlock()
		time.Sleep(d)
		f.mu.Lock()
		f.now--
		f.mu.Unlock()
	}
}

// answerTime is how long the API takes for a request: 200 to 400 ms, always the same for the same one.
func answerTime(r *http.Request) time.Duration {
	h := fnv.New32a()
	io.WriteString(h, r.URL.RawQuery)
	return 200*time.Millisecond + time.Duration(h.Sum32())%(200*time.Millisecond)
}

// TestSideBySide: parallel requests for a thousand pages take little more than the time of one at a time
// divided by their number, and few more requests. It bounds both where records come evenly, in one burst
// of an hour and a half, and in 300 bursts, which cost more since parts are empty. -v shows the figures;
// -exhaustive takes pages of 100 records, not 20, and more widths.
func TestSideBySide(t *testing.T) {
	spreads := []struct {
		name  string
		at    func(i int64) int64 // seconds ago of record i, of 100,000
		ideal float64             // least percentage of the ideal time, with 16 requests at once
		more  int                 // requests in a hundred, with up to 16 at once
	}{
		{"evenly", func(i int64) int64 { return 5 + 4*i }, 88, 5},
		{"in a burst", func(i int64) int64 { return 40_000 + i/20 }, 88, 12},
		{"in 300 bursts", func(i int64) int64 { return 500 + i/333*1200 + i/333*i/333%100 + i%333/3 }, 80, 12},
	}
	pages, size, widths := int64(1000), int64(20), []int{16}
	switch {
	case testing.Short():
		pages = 50 // too few to measure with
	case !brief():
		size, widths = 100, []int{4, 8, 16, 32}
	}
	records := pages * size
	for _, tt := range spreads {
		inBubble(t, func(t *testing.T, h *simulation) {
			h.Env["MAX_RECORDS"], h.Env["LOOKBACK_HOURS"] = "200000", "240"
			h.Env["PAGE_SIZE"] = fmt.Sprint(size)
			now := time.Now().Unix()
			for i := range records {
				if err := h.API.Add(h.Records.Next(now - tt.at(i*100/size))); err != nil {
					t.Fatal(err)
				}
			}
			run := func(width int) (took time.Duration, requests int) {
				h.Env["FETCH_CONCURRENCY"], h.Env["STATE_KEY"] = fmt.Sprint(width), fmt.Sprintf("state/%d.json", width)
				var f inFlight
				h.APIFaults.Set(nil)
				h.APIFaults.SetHooks(func(n int, r *http.Request) { f.wait(answerTime(r))(n, r) }, nil)
				sum := h.MustRun()
				if int64(sum.Records) != records || sum.OpenWindows != 0 || f.most > width {
					t.Errorf("%s, %d at once: %+v, at most %d requests at once", tt.name, width, sum, f.most)
				}
				return sum.Duration, h.APIFaults.Count()
			}
			one, fewest := run(1)
			for _, width := range widths {
				took, requests := run(width)
				ideal := 100 * float64(one) / float64(width) / float64(took)
				t.Logf("%s, %2d at once: %.1f s, %.1f %% of ideal; %d requests, %d one at a time", tt.name, width, took.Seconds(), ideal, requests, fewest)
				if testing.Short() || width > 16 {
					continue
				}
				if ideal < tt.ideal {
					t.Errorf("%s, %d at once: %v, one at a time %v", tt.name, width, took, one)
				}
				if requests*100 > fewest*(100+tt.more) {
					t.Errorf("%s, %d at once: %d requests, one at a time %d", tt.name, width, requests, fewest)
				}
			}
			h.APIFaults.SetHooks(nil, nil)
		})
	}
}

// TestFreshFirst: what is new never waits behind a backlog, however large, nor
// behind one that the API refuses to answer for.
func TestFreshFirst(t *testing.T) {
	for _, refused := range []bool{false, true} {
		inBubble(t, func(t *testing.T, h *simulation) {
			h.Env["FETCH_CONCURRENCY"], h.Env["MAX_RECORDS"] = "4", "300"
			h.Add(3000, 5, 20)
			h.MustRun()
			began := time.Now().Unix()
			if refused {
				h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault {
					if gte, err := strconv.ParseInt(r.URL.Query().Get("effective_at[gte]"), 10, 64); err == nil && gte < began-200 {
						return fault.Fault{Kind: fault.Refuse, Status: 400, Body: `{"error":{"message":"too long ago"}}`}
					}
					return fault.Fault{}
				})
			}
			for range 4 {
				time.Sleep(time.Hour)
				h.Add(280, 5, 10)
				if _, err := h.Run(); (err != nil) != refused {
					t.Fatal(err)
				}
				have := h.Collected(h.Stored())
				h.API.Each(func(id string, at int64, _ bool) {
					if at > began && have[id] == 0 {
						t.Errorf("refused %v: %s at +%d s waits", refused, id, at-began)
					}
				})
			}
			h.Settle()
		})
	}
}

// TestCursorBoundToRange: an API that takes a cursor only for the range that it
// was given for is read in one piece once it has said so.
func TestCursorBoundToRange(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["FETCH_CONCURRENCY"] = "4"
		h.Add(3000, 5, 20)
		var mu sync.Mutex
		ranges := map[string]bool{} // that were begun without a cursor
		h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault {
			mu.Lock()
			defer mu.Unlock()
			q := r.URL.Query()
			bounds, after := q.Get("effective_at[gte]")+" "+q.Get("effective_at[lt]"), q.Get("after")
			if after == "" {
				ranges[bounds] = true
			} else if !ranges[bounds] {
				return fault.Fault{Kind: fault.Refuse, Status: 400, Body: `{"error":{"message":"another query's cursor","param":"after"}}`}
			}
			return fault.Fault{}
		})
		if sum := h.MustRun(); sum.Records != 3000 || sum.OpenWindows != 0 {
			t.Errorf("%+v", sum)
		}
		h.Settle()
	})
}

// TestFractions: an API that keeps fractions of a second which it does not show
// loses nothing between two ranges.
func TestFractions(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["FETCH_CONCURRENCY"], h.Env["PAGE_SIZE"] = "8", "10"
		h.Add(4000, 2, 1)
		if sum := h.MustRun(); sum.Records != 4000 {
			t.Errorf("%+v", sum)
		}
		h.Settle()
	})
}

// TestIgnoredCursor: a cursor that something on the way drops repeats nothing.
func TestIgnoredCursor(t *testing.T) {
	for _, width := range []string{"1", "4"} {
		inBubble(t, func(t *testing.T, h *simulation) {
			h.Env["FETCH_CONCURRENCY"] = width
			h.Add(500, 5, 20)
			h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault {
				q := r.URL.Query()
				q.Del("after")
				r.URL.RawQuery = q.Encode()
				return fault.Fault{}
			})
			for range 3 {
				if _, err := h.Run(); err == nil || !strings.Contains(err.Error(), "ignores the cursor") {
					t.Errorf("error %v", err)
				}
				time.Sleep(time.Minute)
			}
			if err := h.Feed(false); err != nil {
				t.Error(err)
			}
			h.Settle()
		})
	}
}

// TestFirstAlone: until the API has answered once, nothing is sent beside.
func TestFirstAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["FETCH_CONCURRENCY"], h.Env["MAX_RECORDS"] = "4", "450"
		h.Add(1000, 5, 80)
		h.MustRun()
		if n := len(h.state().Backlog); n < 2 {
			t.Fatalf("%d windows in the backlog", n)
		}
		time.Sleep(time.Hour)
		h.API.SetKey("another")
		h.APIFaults.Set(nil)
		if _, err := h.Run(); err == nil || h.APIFaults.Count() != 1 {
			t.Errorf("%d requests, %v", h.APIFaults.Count(), err)
		}
		h.API.SetKey(h.Env["OPENAI_ADMIN_KEY"])
		h.Settle()
	})
}

// TestCapSideBySide: MAX_RECORDS bounds a run however many requests it sends at
// once, and what is left is collected by the next ones.
func TestCapSideBySide(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["FETCH_CONCURRENCY"], h.Env["MAX_RECORDS"], h.Env["PAGE_SIZE"] = "8", "95", "10"
		h.Add(1000, 5, 60)
		for range 3 {
			if sum := h.MustRun(); sum.Records != 95 || sum.OpenWindows > 12 {
				t.Errorf("%+v", sum)
			}
		}
		h.Settle()
	})
}

// TestRateLimitSideBySide: an API that takes two requests at once has soon no
// more of them.
func TestRateLimitSideBySide(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["FETCH_CONCURRENCY"] = "8"
		h.Add(5000, 5, 15)
		var f inFlight
		wait := f.wait(50 * time.Millisecond)
		h.APIFaults.SetHooks(wait, nil)
		h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.now > 2 {
				return fault.Fault{Kind: fault.Refuse, Status: 429, Header: http.Header{"Retry-After": {"1"}}}
			}
			return fault.Fault{}
		})
		sum := h.MustRun()
		if sum.Records != 5000 || sum.Retries == 0 || sum.Retries > 25 {
			t.Errorf("%+v", sum)
		}
		h.APIFaults.SetHooks(nil, nil)
		h.Settle()
	})
}

// TestOneSecondSideBySide: what cannot be cut is read one page after the other.
func TestOneSecondSideBySide(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["FETCH_CONCURRENCY"] = "4"
		h.Add(2500, 100, 0)
		h.Add(1, 50, 0)
		if sum := h.MustRun(); sum.Records != 2501 {
			t.Errorf("%+v", sum)
		}
		h.Settle()
	})
}

// padded pads each answer of the API with white space for each record that is asked for, and counts the
// bytes that are under way at once.
type padded struct {
	http.RoundTripper
	size      int // of a record's
	mu        sync.Mutex
	now, most int
}

func (p *padded) add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now += n
	p.most = max(p.most, p.now)
}

var spaces = bytes.Repeat([]byte(" "), 64<<20)

func (p *padded) RoundTrip(r *http.Request) (*http.Response, error) {
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil {
		return nil, err
	}
	n := limit * p.size
	p.add(n)
	resp, err := p.RoundTripper.RoundTrip(r)
	if err != nil {
		p.add(-n)
		return nil, err
	}
	resp.Body = &paddedBody{io.MultiReader(resp.Body, bytes.NewReader(spaces[:n])), resp.Body, func() { p.add(-n) }}
	return resp, nil
}

type paddedBody struct {
	io.Reader
	io.Closer
	closed func()
}

func (b *paddedBody) Close() error {
	b.closed()
	return b.Closer.Close()
}

// TestLargePages: the pages under way at once fit into a budget of memory, however many
// FETCH_CONCURRENCY allows.
func TestLargePages(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(256 << 20))
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["FETCH_CONCURRENCY"], h.Env["PAGE_SIZE"] = "8", "20"
		h.Add(240, 5, 300)
		h.APIFaults.SetHooks(new(inFlight).wait(50*time.Millisecond), nil)
		c := h.Connect(nil)
		api := &padded{RoundTripper: c.API, size: 1 << 20} // 32 MiB of a buffer each
		c.API = api
		if f, err := h.RunWith(t.Context(), c); err != nil || f.Records != 240 || api.most > 80<<20 || api.most < 40<<20 {
			t.Errorf("%+v, %v; %d MiB at once", f, err, api.most>>20)
		}
		h.APIFaults.SetHooks(nil, nil)
		h.Settle()
	})
}

// TestLargeRecords: pages that are too large are asked for with fewer records, also where tenant-scoped
// ones are compared with the others.
func TestLargeRecords(t *testing.T) {
	inTenant(t, func(h *simulation) {
		h.Add(30, 5, 300)
		c := h.Connect(nil)
		c.API = &padded{RoundTripper: c.API, size: 600 << 10}
		if f, err := h.RunWith(h.T.Context(), c); err != nil || f.Records != 30 {
			h.T.Errorf("%+v, %v", f, err)
		}
		h.Settle()
	})
}
