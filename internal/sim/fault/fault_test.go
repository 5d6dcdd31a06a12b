package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"example.com/auditlog/internal/sim/fault"
)

const answer = "0123456789"

// start serves a handler that counts what reaches it, behind faults.
func start(t *testing.T) (h *fault.Handler, url string, handled *atomic.Int32) {
	t.Helper()
	handled = new(atomic.Int32)
	h = fault.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != "question" {
			t.Errorf("body = %q, %v", body, err)
		}
		handled.Add(1)
		w.Header().Set("X-Inner", "yes")
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, answer)
	}))
	srv := httptest.NewServer(h)
	t.Cleanup(func() {
		h.Close()
		srv.Close()
	})
	return h, srv.URL, handled
}

// ask posts a question. The error is that of the request or of the body.
func ask(ctx context.Context, url string) (*http.Response, string, error) {
	// A connection of its own: on a used one the client may try again.
	return askThrough(ctx, &http.Transport{DisableKeepAlives: true}, url)
}

func askThrough(ctx context.Context, transport http.RoundTripper, url string) (*http.Response, string, error) {
	client := &http.Client{Transport: transport}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("question"))
	if err != nil {
		return nil, "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, string(body), err
}

func TestKinds(t *testing.T) {
	for _, tt := range []struct {
		fault   fault.Fault
		handled int32
		status  int // 0: no answer
		body    string
		err     error // of the body; nil: any, where there is no answer
	}{
		{fault.Fault{}, 1, 201, answer, nil},
		{fault.Fault{Kind: fault.Refuse, Status: 429, Header: http.Header{"Retry-After": {"7"}}, Body: "slow"}, 0, 429, "slow", nil},
		{fault.Fault{Kind: fault.Refuse}, 0, 503, "", nil},
		{fault.Fault{Kind: fault.Drop}, 0, 0, "", nil},
		{fault.Fault{Kind: fault.Lose}, 1, 0, "", nil},
		{fault.Fault{Kind: fault.Fail, Status: 500, Body: "oh"}, 1, 500, "oh", nil},
		{fault.Fault{Kind: fault.Cut}, 1, 201, answer[:5], io.ErrUnexpectedEOF},
	} {
		t.Run(string(tt.fault.Kind), func(t *testing.T) {
			h, url, handled := start(t)
			h.Set(func(int, *http.Request) fault.Fault { return tt.fault })

			res, body, err := ask(t.Context(), url)
			if got := handled.Load(); got != tt.handled {
				t.Errorf("handled %d times, want %d", got, tt.handled)
			}
			switch {
			case tt.status == 0:
				if res != nil || err == nil {
					t.Errorf("answered: %v, %v", res, err)
				}
			case res == nil:
				t.Fatalf("no answer: %v", err)
			default:
				if res.StatusCode != tt.status || body != tt.body || !errors.Is(err, tt.err) {
					t.Errorf("got %d %q %v, want %d %q %v", res.StatusCode, body, err, tt.status, tt.body, tt.err)
				}
				if got, want := res.Header.Get("Retry-After"), tt.fault.Header.Get("Retry-After"); got != want {
					t.Errorf("Retry-After %q, want %q", got, want)
				}
			}
			want := fault.Request{Method: "POST", Path: "/", Fault: tt.fault.Kind, Status: tt.status}
			if got := h.Log(); len(got) != 1 || got[0] != want {
				t.Errorf("log %+v, want %+v", got, want)
			}
		})
	}
}

func TestHang(t *testing.T) {
	for _, kind := range []fault.Kind{fault.Hang, fault.HangAfter} {
		for _, end := range []string{"client", "handler"} {
			t.Run(string(kind)+"/"+end, func(t *testing.T) {
				h, url, handled := start(t)
				reached := make(chan struct{})
				h.SetHooks(nil, func(int, *http.Request) { close(reached) })
				h.Set(func(int, *http.Request) fault.Fault {
					if kind == fault.Hang {
						close(reached)
					}
					return fault.Fault{Kind: kind}
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan error)
				go func() {
					_, _, err := ask(ctx, url)
					done <- err
				}()
				<-reached
				if end == "client" {
					cancel()
				} else {
					h.Close()
				}
				if err := <-done; err == nil {
					t.Error("the request was answered")
				}
				if got := handled.Load() == 1; got != (kind == fault.HangAfter) {
					t.Errorf("handled: %v", got)
				}
			})
		}
	}
}

func TestScript(t *testing.T) {
	h, url, handled := start(t)
	var order []int
	h.Set(func(n int, r *http.Request) fault.Fault {
		order = append(order, n) // races unless the calls are serialised
		if n%2 == 0 {
			return fault.Fault{Kind: fault.Refuse}
		}
		return fault.Fault{}
	})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() { ask(t.Context(), url) })
	}
	wg.Wait()
	if got := handled.Load(); got != 5 {
		t.Errorf("handled %d of 10, want 5", got)
	}
	if want := []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}; !slices.Equal(order, want) {
		t.Errorf("numbers %v, want %v", order, want)
	}
	if h.Count() != 10 || len(h.Log()) != 10 {
		t.Errorf("count %d, log %v", h.Count(), h.Log())
	}

	h.Set(nil)
	if h.Count() != 0 || len(h.Log()) != 0 {
		t.Errorf("after Set: count %d, log %v", h.Count(), h.Log())
	}
	if res, _, err := ask(t.Context(), url+"/a%2Fb?c=%20"); err != nil || res.StatusCode != 201 {
		t.Errorf("without a script: %v, %v", res, err)
	}
	want := fault.Request{Method: "POST", Path: "/a/b", Query: "c=%20", Status: 201}
	if got := h.Log(); len(got) != 1 || got[0] != want {
		t.Errorf("log %+v, want %+v", got, want)
	}
}

func TestHooks(t *testing.T) {
	h, url, handled := start(t)
	var seen []int32
	h.SetHooks(
		func(n int, _ *http.Request) { seen = append(seen, int32(n), handled.Load()) },
		func(n int, _ *http.Request) { seen = append(seen, int32(n), handled.Load()) },
	)
	ask(t.Context(), url)
	h.Set(func(int, *http.Request) fault.Fault { return fault.Fault{Kind: fault.Refuse} })
	ask(t.Context(), url)
	if want := []int32{1, 0, 1, 1}; !slices.Equal(seen, want) {
		t.Errorf("hooks saw %v, want %v", seen, want)
	}
}

// A Transport and a Handler answer alike.
func TestTransport(t *testing.T) {
	answers := func(f fault.Fault) (overHTTP, inMemory string) {
		h, url, handled := start(t)
		h.Set(func(int, *http.Request) fault.Fault { return f })
		tell := func(res *http.Response, body string, err error) string {
			if res == nil {
				return fmt.Sprintf("handled %d times, no answer", handled.Swap(0))
			}
			return fmt.Sprintf("handled %d times, %d %v %d %q %v", handled.Swap(0), res.StatusCode, res.Header["X-Inner"], res.ContentLength, body, err)
		}
		overHTTP = tell(ask(t.Context(), url))

		h.Set(nil)
		tr := &fault.Transport{Handler: h, Decide: func(*http.Request) fault.Fault { return f }}
		return overHTTP, tell(askThrough(t.Context(), tr, url))
	}
	for _, f := range []fault.Fault{
		{},
		{Kind: fault.Refuse, Status: 429, Header: http.Header{"Retry-After": {"7"}}, Body: "slow"},
		{Kind: fault.Refuse},
		{Kind: fault.Drop},
		{Kind: fault.Lose},
		{Kind: fault.Fail, Status: 500, Body: "oh"},
		{Kind: fault.Cut},
	} {
		if overHTTP, inMemory := answers(f); overHTTP != inMemory {
			t.Errorf("%s: over HTTP %s, in memory %s", f.Kind, overHTTP, inMemory)
		}
	}
}

func TestTransportHangs(t *testing.T) {
	for _, tt := range []struct {
		kind            fault.Kind
		before, landing int32 // times handled until the client gives up, and by Land
	}{{fault.Hang, 0, 0}, {fault.HangAfter, 1, 0}, {fault.Late, 0, 1}} {
		h, url, handled := start(t)
		ctx, cancel := context.WithCancel(t.Context())
		tr := &fault.Transport{Handler: h, Decide: func(*http.Request) fault.Fault {
			cancel()
			return fault.Fault{Kind: tt.kind}
		}}
		if _, _, err := askThrough(ctx, tr, url); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", tt.kind, err)
		}
		if got := handled.Load(); got != tt.before || tr.Flying() != (tt.landing > 0) {
			t.Errorf("%s: handled %d times, flying %v", tt.kind, got, tr.Flying())
		}
		if n := tr.Land(); int32(n) != tt.landing || handled.Load() != tt.before+tt.landing || tr.Flying() {
			t.Errorf("%s: landed %d, handled %d times", tt.kind, n, handled.Load())
		}
	}
}

func TestTransportAnswersLate(t *testing.T) {
	h, url, handled := start(t)
	tr := &fault.Transport{Handler: h, Decide: func(*http.Request) fault.Fault {
		return fault.Fault{Kind: fault.Late, Status: 503}
	}}
	if res, _, err := askThrough(t.Context(), tr, url); err != nil || res.StatusCode != 503 || handled.Load() != 0 {
		t.Errorf("%v, %v, handled %d times", res, err, handled.Load())
	}
	if n := tr.Land(); n != 1 || handled.Load() != 1 {
		t.Errorf("landed %d, handled %d times", n, handled.Load())
	}
}

func TestTransportDies(t *testing.T) {
	h, url, handled := start(t)
	asked := 0
	tr := &fault.Transport{Handler: h, Decide: func(*http.Request) fault.Fault {
		asked++
		return fault.Fault{Kind: fault.Die}
	}}
	for range 2 {
		if _, _, err := askThrough(t.Context(), tr, url); !errors.Is(err, fault.ErrDead) {
			t.Errorf("error %v", err)
		}
	}
	if handled.Load() != 0 || asked != 1 {
		t.Errorf("handled %d times, asked %d times", handled.Load(), asked)
	}
}

// A request that did not arrive whole must not be handled: the sender cannot
// have meant half of it.
func TestHalfRequest(t *testing.T) {
	h, url, handled := start(t)
	body, w := io.Pipe()
	go func() {
		io.WriteString(w, "ques")
		w.CloseWithError(errors.New("sender died"))
	}()
	if _, err := http.Post(url, "text/plain", body); err == nil {
		t.Error("half a request was answered")
	}
	if handled.Load() != 0 || h.Count() != 0 {
		t.Errorf("handled %d, counted %d", handled.Load(), h.Count())
	}
}
