// Package fault wraps an HTTP handler so that a script decides, request by
// request, how the answer goes wrong. For a client two failures can look the
// same and yet differ in what they leave behind, so each kind says whether the
// request was handled.
package fault

import (
	"bytes"
	"cmp"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"sync"
)

// Kind says what happens to a request.
type Kind string

// The kinds of fault.
const (
	None      Kind = ""           // handled and answered
	Refuse    Kind = "refuse"     // not handled; answered with Status, Header and Body
	Drop      Kind = "drop"       // not handled; the connection is closed without an answer
	Lose      Kind = "lose"       // handled, then the connection is closed without an answer
	Fail      Kind = "fail"       // handled, then answered with Status, Header and Body instead
	Cut       Kind = "cut"        // handled; half of the body is sent under the full Content-Length
	Hang      Kind = "hang"       // not handled and never answered
	HangAfter Kind = "hang_after" // handled and never answered
)

// Fault is what a Script decides for one request. Status, Header and Body are
// for Refuse and Fail; a Status of 0 means 503.
type Fault struct {
	Kind   Kind
	Status int
	Header http.Header
	Body   string
}

// Script decides the fate of request n, which counts from 1 since Set. Calls
// come one at a time, in the order of n. A Script must neither block nor read
// the request's body.
type Script func(n int, r *http.Request) Fault

// Hook is called around the handling of request n.
type Hook func(n int, r *http.Request)

// Request is one line of the log.
type Request struct {
	Method string
	Path   string // unescaped
	Query  string // as sent
	Fault  Kind
	Status int // of the answer; 0 where there was none, or none yet
}

// Handler serves another handler's answers, with faults.
type Handler struct {
	inner  http.Handler
	closed chan struct{}
	once   sync.Once

	scripting sync.Mutex // orders the calls of a Script; taken before mu

	mu            sync.Mutex
	script        Script
	count         int
	log           []*Request
	before, after Hook
}

// Wrap returns a Handler that serves h without faults until Set is called.
func Wrap(h http.Handler) *Handler {
	return &Handler{inner: h, closed: make(chan struct{})}
}

// Set replaces the script; nil means no faults. The count begins anew and the
// log is emptied.
func (h *Handler) Set(s Script) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.script, h.count, h.log = s, 0, nil
}

// SetHooks sets what is called before a request is handled, and when it has
// been handled and is not yet answered. Requests that are not handled call
// neither; nil means nothing. A process killed in the second hook has made its
// request and never learns so.
func (h *Handler) SetHooks(before, after Hook) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before, h.after = before, after
}

// Count returns the number of requests since Set.
func (h *Handler) Count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

// Log returns the requests since Set, in the order of their numbers.
func (h *Handler) Log() []Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	log := make([]Request, len(h.log))
	for i, r := range h.log {
		log[i] = *r
	}
	return log
}

// Close ends the requests that hang; later ones that would hang are dropped.
func (h *Handler) Close() {
	h.once.Do(func() { close(h.closed) })
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The whole body first: a server notices that a client has left only
	// once the request has been read to its end. A request that did not
	// arrive whole is not counted.
	var body bytes.Buffer
	body.Grow(int(max(0, r.ContentLength)) + bytes.MinRead)
	if _, err := body.ReadFrom(r.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body.Bytes()))

	n, f, entry, before, after := h.next(r)
	switch f.Kind {
	case Refuse:
		h.answer(w, entry, f.answer())
		return
	case Drop:
		panic(http.ErrAbortHandler)
	case Hang:
		h.hang(r)
	}

	if before != nil {
		before(n, r)
	}
	rec := &recorder{header: make(http.Header)}
	h.inner.ServeHTTP(rec, r)
	if after != nil {
		after(n, r)
	}

	switch f.Kind {
	case Lose:
		panic(http.ErrAbortHandler)
	case Fail:
		h.answer(w, entry, f.answer())
	case Cut:
		h.cut(w, entry, rec)
	case HangAfter:
		h.hang(r)
	default:
		if r.Method != http.MethodHead {
			rec.header.Set("Content-Length", strconv.Itoa(rec.body.Len()))
		}
		h.answer(w, entry, rec)
	}
}

// next numbers the request, asks the script about it and logs it.
func (h *Handler) next(r *http.Request) (n int, f Fault, entry *Request, before, after Hook) {
	h.scripting.Lock()
	defer h.scripting.Unlock()

	entry = &Request{Method: r.Method, Path: unescaped(r.URL), Query: r.URL.RawQuery}
	h.mu.Lock()
	h.count++
	n = h.count
	script := h.script
	h.log = append(h.log, entry)
	before, after = h.before, h.after
	h.mu.Unlock()

	// Outside mu, so that a script can look at the count and the log.
	if script != nil {
		f = script(n, r)
	}
	h.mu.Lock()
	entry.Fault = f.Kind
	h.mu.Unlock()
	return n, f, entry, before, after
}

// unescaped returns the path with an escaped slash undone, too.
func unescaped(u *url.URL) string {
	if p, err := url.PathUnescape(u.EscapedPath()); err == nil {
		return p
	}
	return u.Path
}

// hang returns never: it ends the connection when the client has gone or the
// Handler is closed.
func (h *Handler) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-h.closed:
	}
	panic(http.ErrAbortHandler)
}

func (h *Handler) answer(w http.ResponseWriter, entry *Request, rec *recorder) {
	status := cmp.Or(rec.status, http.StatusOK)
	h.mu.Lock()
	entry.Status = status
	h.mu.Unlock()
	maps.Copy(w.Header(), rec.header)
	w.WriteHeader(status)
	w.Write(rec.body.Bytes())
}

// cut sends the first half of rec's body and closes the connection.
func (h *Handler) cut(w http.ResponseWriter, entry *Request, rec *recorder) {
	if rec.halve() == 0 {
		panic(http.ErrAbortHandler)
	}
	h.answer(w, entry, rec)
	http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// answer is the answer that a Refuse or Fail gives.
func (f Fault) answer() *recorder {
	rec := &recorder{header: make(http.Header), status: cmp.Or(f.Status, http.StatusServiceUnavailable)}
	maps.Copy(rec.header, f.Header)
	rec.body.WriteString(f.Body)
	return rec
}

// recorder keeps an answer in memory.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// halve leaves the first half of the body under the Content-Length of the whole,
// which it returns. It is 0 where there is nothing to halve, and the answer is
// lost, header and all: sent, it would look complete.
func (r *recorder) halve() (size int) {
	size = r.body.Len()
	r.header.Set("Content-Length", strconv.Itoa(size))
	r.body.Truncate(size / 2)
	return size
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(p)
}
