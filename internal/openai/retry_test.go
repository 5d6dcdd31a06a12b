package openai

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/auditlog/internal/audit"
)

func TestRetryAfter(t *testing.T) {
	const date = "Tue, 24 Nov 2026 01:00:00 GMT"
	tests := []struct {
		ms, seconds string
		want        time.Duration
	}{
		{"", "", -1},
		{"", "2", 2 * time.Second},
		{"", " 0.25 ", 250 * time.Millisecond},
		{"1500", "60", 1500 * time.Millisecond},
		{"x", "3", 3 * time.Second},
		{"", "Tue, 24 Nov 2026 01:00:30 GMT", 30 * time.Second},
		{"", "Tue, 24 Nov 2026 00:59:00 GMT", 0},
		{"", "-5", -1},
		{"", "NaN", -1},
		{"", "Inf", -1},
		{"", "soon", -1},
		{"", "1e300", 100 * 365 * 24 * time.Hour},
		{"", "0", 0},
	}
	for _, tt := range tests {
		h := http.Header{}
		h.Set("Date", date)
		h.Set("retry-after-ms", tt.ms)
		h.Set("Retry-After", tt.seconds)
		if got := retryAfter(h); got != tt.want {
			t.Errorf("retry-after-ms %q, Retry-After %q: %v, want %v", tt.ms, tt.seconds, got, tt.want)
		}
	}
}

// TestRetryAfterWithoutDate: where the answer has no date, a date in it is taken
// against this host's clock.
func TestRetryAfterWithoutDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for value, want := range map[string]time.Duration{
			time.Now().Add(30 * time.Second).UTC().Format(http.TimeFormat):  30 * time.Second,
			time.Now().Add(-30 * time.Second).UTC().Format(http.TimeFormat): 0,
		} {
			for _, date := range []string{"", "now"} {
				if got := retryAfter(http.Header{"Retry-After": {value}, "Date": {date}}); got != want {
					t.Errorf("Retry-After %q, Date %q: %v, want %v", value, date, got, want)
				}
			}
		}
	})
}

// FuzzRetryAfter: any header is a wait that fits a Duration, or none.
func FuzzRetryAfter(f *testing.F) {
	const date = "Tue, 24 Nov 2026 01:00:00 GMT"
	for _, h := range [][3]string{
		{"", "2", date}, {"1500", "60", ""}, {"", " 0.25 ", ""}, {"NaN", "-Inf", ""}, {"-1", "-0", ""}, {"1e300", "", ""}, {"1e400", "0x1p4", ""},
		{"", "Tue, 24 Nov 2026 01:00:30 GMT", date}, {"", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT"}, {"soon", "Tuesday, 24-Nov-26 01:00:30 GMT", date},
	} {
		f.Add(h[0], h[1], h[2])
	}
	f.Fuzz(func(t *testing.T, ms, after, date string) {
		h := http.Header{}
		h.Set("retry-after-ms", ms)
		h.Set("Retry-After", after)
		h.Set("Date", date)
		got := retryAfter(h)

		want := float64(-1) // seconds
		if n, err := strconv.ParseFloat(strings.TrimSpace(ms), 64); err == nil && n >= 0 && n <= math.MaxFloat64 {
			want = n / 1000
		} else if n, err := strconv.ParseFloat(strings.TrimSpace(after), 64); err == nil && n >= 0 && n <= math.MaxFloat64 {
			want = n
		} else if at, err := http.ParseTime(after); err == nil {
			now, err := http.ParseTime(date)
			if err != nil { // by this host's clock
				if got < 0 {
					t.Fatalf("%v for a date", got)
				}
				return
			}
			want = float64(max(0, at.Unix()-now.Unix()))
		}
		switch century := 100 * 365 * 24 * time.Hour; {
		case want < 0:
			if got != -1 {
				t.Fatalf("%v, want none", got)
			}
		case want > century.Seconds():
			if got < century {
				t.Fatalf("%v, want a century or more", got)
			}
		case math.Abs(got.Seconds()-want) > 1e-6+want*1e-9:
			t.Fatalf("%v, want %v s", got, want)
		}
		if again := retryAfter(h); again != got {
			t.Fatalf("%v, then %v", got, again)
		}
	})
}

func TestRetryable(t *testing.T) {
	for status, want := range map[int]bool{
		204: false, 301: false, 400: false, 401: false, 403: false, 404: false, 407: false, 408: true, 409: true, 410: false,
		425: false, 428: false, 429: true, 430: false, 499: false, 500: true, 501: true, 503: true, 599: true, 600: true,
	} {
		if err := fmt.Errorf("x: %w", &Error{Status: status, API: true}); retryable(err) != want {
			t.Errorf("%d: %v, want %v", status, !want, want)
		}
	}
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{audit.ErrCutBody, true},
		{fmt.Errorf("x: %w", audit.ErrCutBody), true},
		{&Unreachable{Err: io.EOF}, true},
		{fmt.Errorf("x: %w", &Unreachable{Err: io.EOF}), true},
		{errPageTooLarge, false},
		{errors.New("audit log API answered 200 with a bad list"), false},
		{io.EOF, false},
		{&Error{Status: 403}, true}, // a CDN's
		{&Error{Status: 401}, false},
		{&Error{Status: 429, API: true, Code: "insufficient_quota"}, false},
		{&Error{Status: 429, API: true, Code: "rate_limit_exceeded"}, true},
	} {
		if got := retryable(tt.err); got != tt.want {
			t.Errorf("%v: %v", tt.err, got)
		}
	}
}

// retries notes what a Retried is told.
type retries struct {
	errs  []error
	waits []time.Duration
}

func (r *retries) add(err error, wait time.Duration) {
	r.errs, r.waits = append(r.errs, err), append(r.waits, wait)
}

func (r *retries) total() (sum time.Duration) {
	for _, wait := range r.waits {
		sum += wait
	}
	return sum
}

// TestWaits: attempts follow after what the API asks for, else after a back-off
// that begins anew with each page; the caller is told of each.
func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requests := 0
		header := []string{}
		c := inMemory(func(*http.Request) (*http.Response, error) { requests++; return response(503, "busy", header...), nil })
		c.options.Backoff = DefaultBackoff
		limits := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second}
		var longest time.Duration
		for range 3 {
			began := time.Now()
			requests = 0
			var told retries
			_, err := c.Page(t.Context(), testRequest, new(bytes.Buffer), told.add)
			if requests != 8 || len(told.waits) != 7 || fmt.Sprint(err) != "audit log API answered 503 Service Unavailable: busy; gave up after 8 attempts" {
				t.Fatalf("%d requests, waits %v, error %v", requests, told.waits, err)
			}
			for i, wait := range told.waits {
				if wait <= 0 || wait > limits[i] {
					t.Errorf("wait %d is %v, want at most %v", i+1, wait, limits[i])
				}
				longest = max(longest, wait)
				if e, ok := told.errs[i].(*Error); !ok || e.Status != 503 {
					t.Errorf("told of %v", told.errs[i])
				}
			}
			if took := time.Since(began); took != told.total() {
				t.Errorf("took %v, told of %v", took, told.total())
			}
		}
		if longest <= time.Second { // by chance once in 10^18 times
			t.Errorf("the back-off does not grow: of 21 waits, %v is the longest", longest)
		}
		if c.options.Backoff != DefaultBackoff {
			t.Errorf("the back-off of the next page is %+v", c.options.Backoff)
		}

		header = []string{"Retry-After", "100"}
		began := time.Now()
		var told retries
		if _, err := c.Page(t.Context(), testRequest, new(bytes.Buffer), told.add); err == nil || told.total() != 700*time.Second || time.Since(began) != 700*time.Second {
			t.Errorf("took %v, told of %v, error %v", time.Since(began), told.waits, err)
		}
		// Who asks for no wait, or for one that is over, does not get eight requests at once.
		for _, value := range []string{"0", "Tue, 24 Nov 2020 01:00:00 GMT"} {
			header, told = []string{"Retry-After", value}, retries{}
			if _, err := c.Page(t.Context(), testRequest, new(bytes.Buffer), told.add); err == nil || len(told.waits) != 7 || told.total() < time.Second || slices.Min(told.waits) <= 0 {
				t.Errorf("asked for %s: told of %v, error %v", value, told.waits, err)
			}
		}
	})
}

// TestLongWaitEndsAtOnce: a wait that would pass the deadline is not begun.
func TestLongWaitEndsAtOnce(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	_, n, err := fetchFrom(t, ctx, testRequest, func(n int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "86400")
		w.WriteHeader(429)
	})
	if n != 1 || err == nil || !strings.Contains(err.Error(), "24h0m0s") {
		t.Errorf("%d requests, error %v", n, err)
	}
}

// TestDeadline: a wait is begun where it ends before the deadline, and not where
// it ends with it.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for value, want := range map[string]int{"9.999": 2, "10": 1, "10.0014": 1} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			requests := 0
			c := inMemory(func(*http.Request) (*http.Response, error) {
				if requests++; requests == 1 {
					return response(429, "", "Retry-After", value), nil
				}
				return response(200, goodPage), nil
			})
			began := time.Now()
			var told retries
			_, err := c.Page(ctx, testRequest, new(bytes.Buffer), told.add)
			cancel()
			if requests != want || (err == nil) != (want == 2) {
				t.Errorf("wait of %s s: %d requests, error %v", value, requests, err)
			}
			if want == 1 && (time.Since(began) > 0 || len(told.waits) > 0 || !strings.Contains(err.Error(), "answered 429 Too Many Requests; the next attempt in 10") || strings.Contains(err.Error(), "0014")) {
				t.Errorf("wait of %s s: after %v, told of %v, error %v", value, time.Since(began), told.waits, err)
			}
		}
	})
}

// TestEndOfContext: where the context ends the first attempt, the error is the
// context's own; later, it is the API's last word.
func TestEndOfContext(t *testing.T) {
	hang := func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	for _, tt := range []struct {
		name  string
		end   time.Duration // of the context
		hangs int           // the request that gets no answer
		own   bool          // the error is the context's own
		took  time.Duration
	}{
		{"in the first attempt", 10 * time.Second, 1, true, 10 * time.Second},
		{"in a wait", 3 * time.Second, 9, false, 3 * time.Second},
		{"in the second attempt", 10 * time.Second, 2, false, 10 * time.Second},
	} {
		for _, canceled := range []bool{false, true} {
			if !canceled && tt.name == "in a wait" {
				continue // TestDeadline
			}
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				want := context.Canceled
				if canceled {
					time.AfterFunc(tt.end, cancel)
				} else {
					ctx, cancel = context.WithTimeout(t.Context(), tt.end)
					want = context.DeadlineExceeded
				}
				defer cancel()
				requests := 0
				c := inMemory(func(r *http.Request) (*http.Response, error) {
					if requests++; requests == tt.hangs {
						return hang(r)
					}
					return response(503, "busy", "Retry-After", "5"), nil
				})
				began := time.Now()
				_, err := c.Page(ctx, testRequest, new(bytes.Buffer), func(error, time.Duration) {})
				var f *audit.Failure
				switch {
				case time.Since(began) != tt.took:
					t.Errorf("%s: took %v, want %v", tt.name, time.Since(began), tt.took)
				case tt.own && err != want:
					t.Errorf("%s: error %v, want %v", tt.name, err, want)
				case !tt.own && (!errors.As(err, &f) || f.Kind != audit.Other || err.Error() != "audit log API answered 503 Service Unavailable: busy"):
					t.Errorf("%s: error %v", tt.name, err)
				}
			})
		}
	}
}

// stuck is a body that says something, and then no more until ctx ends.
type stuck struct {
	io.Reader
	ctx context.Context
}

func (s stuck) Read(p []byte) (int, error) {
	if n, _ := s.Reader.Read(p); n > 0 {
		return n, nil
	}
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

// TestHungAttempt: an attempt that gets no answer, or not all of it, ends in two
// minutes, or sooner where its client is limited, and another follows.
func TestHungAttempt(t *testing.T) {
	for _, tt := range []struct {
		inBody bool
		limit  time.Duration
		took   time.Duration
		want   string
	}{
		{false, time.Hour, 2 * time.Minute, "no whole answer within 2m0s"},
		{true, time.Hour, 2 * time.Minute, "no whole answer within 2m0s"},
		{false, 10 * time.Second, 10 * time.Second, "no whole answer within 10s: is RUN_TIMEOUT_SECONDS, or the service's request timeout, too short?"},
		{true, 10 * time.Second, 10 * time.Second, "no whole answer within 10s: is RUN_TIMEOUT_SECONDS, or the service's request timeout, too short?"},
	} {
		inBody := tt.inBody
		synctest.Test(t, func(t *testing.T) {
			requests := 0
			c := inMemory(func(r *http.Request) (*http.Response, error) {
				switch requests++; {
				case requests > 1:
					return response(200, goodPage), nil
				case inBody:
					got := response(200, "")
					got.Body = io.NopCloser(stuck{strings.NewReader(goodPage[:50]), r.Context()})
					return got, nil
				}
				<-r.Context().Done()
				return nil, r.Context().Err()
			})
			began := time.Now()
			var told retries
			p, err := c.Within(tt.limit).Page(t.Context(), testRequest, new(bytes.Buffer), told.add)
			if err != nil || len(p.Records) != 1 || requests != 2 || time.Since(began) != tt.took+told.total() {
				t.Errorf("%+v: %d requests in %v, page %+v, error %v", tt, requests, time.Since(began), p, err)
			}
			if len(told.errs) != 1 || told.errs[0].Error() != "reaching the audit log API: "+tt.want {
				t.Errorf("%+v: told of %v", tt, told.errs)
			}
		})
	}
}

// TestSilentConnection: a connection is given up where it brings no header in
// half a minute, or no handshake in ten seconds.
func TestSilentConnection(t *testing.T) {
	for base, want := range map[string]time.Duration{"http://api.example.com": 30 * time.Second, "https://api.example.com": 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			transport := NewTransport()
			defer transport.CloseIdleConnections()
			transport.Proxy = nil
			transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
				here, there := net.Pipe()
				go io.Copy(io.Discard, there)
				return here, nil
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c := New(Options{Base: base, Key: testKey, Transport: transport, Backoff: quick})
			began := time.Now()
			_, err := c.Page(ctx, testRequest, new(bytes.Buffer), func(error, time.Duration) { cancel() })
			var u *Unreachable
			if time.Since(began) != want || !errors.As(err, &u) {
				t.Errorf("%s: after %v: error %v", base, time.Since(began), err)
			}
		})
	}
}

// TestLongHeader: a header has a bound, and it is beyond what servers send.
func TestLongHeader(t *testing.T) {
	for size, good := range map[int]bool{200 << 10: true, 300 << 10: false} {
		_, n, err := fetchFrom(t, t.Context(), testRequest, func(n int, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", size))
			io.WriteString(w, goodPage)
		})
		if (err == nil) != good || good && n != 1 {
			t.Errorf("a header of %d bytes: %d requests, error %v", size, n, err)
		}
	}
}

// TestHTTP2: a transport with a dialer of its own speaks HTTP/2 all the same.
func TestHTTP2(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("asked in %s", r.Proto)
		}
		io.WriteString(w, goodPage)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	transport := NewTransport()
	defer transport.CloseIdleConnections()
	transport.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	transport.TLSClientConfig.NextProtos = nil
	if _, err := New(Options{Base: server.URL, Key: testKey, Transport: transport, Backoff: quick}).Page(t.Context(), testRequest, new(bytes.Buffer), func(error, time.Duration) {}); err != nil {
		t.Error(err)
	}
}

// TestConnectionsAreKept: as many requests at once as there may be find the
// connections of those before them open.
func TestConnectionsAreKept(t *testing.T) {
	var opened atomic.Int32
	arrived, answer := make(chan bool), make(chan bool)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- true
		<-answer
		io.WriteString(w, goodPage)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	transport := NewTransport()
	defer transport.CloseIdleConnections()
	c := New(Options{Base: server.URL, Key: testKey, Transport: transport, Backoff: quick})
	for range 2 {
		var pages sync.WaitGroup
		for range MaxConcurrency {
			pages.Go(func() {
				if _, err := c.Page(t.Context(), testRequest, new(bytes.Buffer), func(err error, _ time.Duration) { t.Error(err) }); err != nil {
					t.Error(err)
				}
			})
		}
		for range MaxConcurrency {
			<-arrived
		}
		for range MaxConcurrency {
			answer <- true
		}
		pages.Wait()
	}
	if n := opened.Load(); n != MaxConcurrency {
		t.Errorf("%d connections for %d requests at once", n, MaxConcurrency)
	}
}
