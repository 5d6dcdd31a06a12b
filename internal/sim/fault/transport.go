package fault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The kinds of fault that only a Transport knows.
const (
	// Late is a request that is handled long after its client has given it up:
	// when Land is called. It is answered with Status, Header and Body or, where
	// Status is 0, never.
	Late Kind = "late"
	// Die is the death of the client before its request leaves: neither this
	// request is handled nor any that comes after it. For what is left behind, a
	// death after the answer to one request is a death before the next one.
	Die Kind = "die"
)

// ErrDead is what a dead client's requests end with.
var ErrDead = errors.New("fault: the client is dead")

// Transport is an http.RoundTripper that hands requests to a handler in memory,
// without connections: one client's way to a world, fast enough to try
// thousands of faults. It knows all kinds of fault.
type Transport struct {
	Handler http.Handler
	// Decide says what happens to a request. It may block, and must not read the
	// body; nil lets all succeed.
	Decide func(*http.Request) Fault
	// Handled, if set, is called when a request has been handled and is not yet
	// answered.
	Handled func(*http.Request)

	dead atomic.Bool
	mu   sync.Mutex
	late []func()
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		defer r.Body.Close()
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	switch {
	case t.dead.Load():
		return nil, ErrDead
	case r.Context().Err() != nil:
		return nil, r.Context().Err()
	}
	var f Fault
	if t.Decide != nil {
		f = t.Decide(r)
	}
	switch f.Kind {
	case Refuse:
		return f.answer().response(r), nil
	case Drop:
		return nil, io.EOF // as from a connection that ends in place of an answer
	case Lose:
		t.handle(r, body)
		return nil, io.EOF
	case Fail:
		t.handle(r, body)
		return f.answer().response(r), nil
	case Cut:
		res := t.handle(r, body)
		size := res.halve()
		if size == 0 {
			return nil, io.EOF
		}
		cut := res.response(r)
		cut.ContentLength = int64(size)
		cut.Body = io.NopCloser(io.MultiReader(&res.body, cutOff{}))
		return cut, nil
	case HangAfter:
		t.handle(r, body)
	case Late:
		t.mu.Lock()
		t.late = append(t.late, func() { t.handle(r, body) })
		t.mu.Unlock()
		if f.Status != 0 {
			return f.answer().response(r), nil
		}
	case Die:
		t.dead.Store(true)
		return nil, ErrDead
	case None:
		res := t.handle(r, body)
		if r.Method != http.MethodHead {
			res.header.Set("Content-Length", strconv.Itoa(res.body.Len()))
		}
		return res.response(r), nil
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// Land lets what is Late be handled, in the order in which it was sent, and
// returns how much that was.
func (t *Transport) Land() int {
	t.mu.Lock()
	late := t.late
	t.late = nil
	t.mu.Unlock()
	for _, land := range late {
		land()
	}
	return len(late)
}

// Flying reports whether anything is Late.
func (t *Transport) Flying() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.late) > 0
}

func (t *Transport) handle(r *http.Request, body []byte) *recorder {
	// What a server gets to see, beyond the life of the client's context.
	served := r.Clone(context.WithoutCancel(r.Context()))
	served.Body = io.NopCloser(bytes.NewReader(body))
	served.RequestURI = r.URL.RequestURI()
	if served.Host == "" {
		served.Host = r.URL.Host
	}
	rec := &recorder{header: http.Header{"Date": {time.Now().UTC().Format(http.TimeFormat)}}} // as a server adds it
	t.Handler.ServeHTTP(rec, served)
	if t.Handled != nil {
		t.Handled(r)
	}
	return rec
}

// response is what the client gets to see of the answer.
func (r *recorder) response(to *http.Request) *http.Response {
	r.WriteHeader(http.StatusOK)
	return &http.Response{
		Status:        strconv.Itoa(r.status) + " " + http.StatusText(r.status),
		StatusCode:    r.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        r.header,
		Body:          io.NopCloser(bytes.NewReader(r.body.Bytes())),
		ContentLength: int64(r.body.Len()),
		Request:       to,
	}
}

// cutOff ends a body before its length.
type cutOff struct{}

func (cutOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
