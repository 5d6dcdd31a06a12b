package proof

import (
	"bytes"
	"fmt"
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

// TestSideBySide: with eight requests at once, 20,000 records take at most a
// sixth of the time, and at most a twentieth more requests, where they come
// evenly; in a burst of a few minutes some more, for parts that are empty.
func TestSideBySide(t *testing.T) {
	type cost struct {
		requests int
		took     time.Duration
	}
	spreads := []struct {
		name string
		at   func(i int64) int64 // seconds ago of record i
		more int                 // requests in a hundred
	}{
		{"evenly", func(i int64) int64 { return 5 + 4*i }, 5},
		{"in a burst", func(i int64) int64 { return 40_000 + i/20 }, 12},
	}
	records := int64(20_000)
	if testing.Short() {
		records = 2000 // too few to measure with
	}
	for _, tt := range spreads {
		name, at := tt.name, tt.at
		costs := map[int]cost{}
		for _, width := range []int{1, 8} {
			inBubble(t, func(t *testing.T, h *simulation) {
				h.Env["FETCH_CONCURRENCY"], h.Env["MAX_RECORDS"] = fmt.Sprint(width), "30000"
				now := time.Now().Unix()
				for i := range records {
					if err := h.API.Add(h.Records.Next(now - at(i))); err != nil {
						t.Fatal(err)
					}
				}
				var f inFlight
				h.APIFaults.SetHooks(f.wait(50*time.Millisecond), nil)
				sum := h.MustRun()
				if int64(sum.Records) != records || sum.OpenWindows != 0 || f.most > width {
					t.Errorf("%s, %d at once: %+v, at most %d requests at once", name, width, sum, f.most)
				}
				costs[width] = cost{h.APIFaults.Count(), sum.Duration}
				h.APIFaults.SetHooks(nil, nil)
				h.Settle()
			})
		}
		t.Logf("%s: %+v one at a time, %+v eight at once", name, costs[1], costs[8])
		if testing.Short() {
			continue
		}
		if costs[8].took*6 > costs[1].took {
			t.Errorf("%s: %v, one at a time %v", name, costs[8].took, costs[1].took)
		}
		if costs[8].requests*100 > costs[1].requests*(100+tt.more) {
			t.Errorf("%s: %d requests, one at a time %d", name, costs[8].requests, costs[1].requests)
		}
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
