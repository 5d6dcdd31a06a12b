package auditlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/googleapis/gax-go/v2"
)

const (
	maxPageBytes   = 32 << 20 // of a decoded page held in memory
	maxErrorBytes  = 16 << 10 // read of an error's body
	maxErrorText   = 300      // characters of it in an error
	maxAttempts    = 8        // of one page
	headerTimeout  = 30 * time.Second
	attemptTimeout = 2 * time.Minute // from the request to the last byte of its answer
	maxConcurrency = 32              // requests at once
)

// api reads OpenAI's audit log API. It is safe for concurrent use.
//
// Source of its facts: the published reference of GET
// /organization/audit_logs, and what has been seen of its answers.
type api struct {
	client  *http.Client
	url     string
	key     secret
	backoff gax.Backoff // between the attempts of one page
}

func newAPI(base string, key secret, transport http.RoundTripper) *api {
	return &api{
		client: &http.Client{
			Transport: transport,
			// Go would send the key along to another port and to subdomains.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		url:     base + "/organization/audit_logs",
		key:     key,
		backoff: gax.Backoff{Initial: time.Second, Max: 30 * time.Second, Multiplier: 2},
	}
}

// newTransport keeps connections open between pages, asks for gzip, and bounds
// the wait for a connection and for an answer's header; attemptTimeout bounds
// the body.
func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  headerTimeout,
		MaxResponseHeaderBytes: 256 << 10,
		MaxIdleConnsPerHost:    maxConcurrency,
		IdleConnTimeout:        90 * time.Second,
	}
}

// query is one request: a range of effective_at (Unix seconds, both ends
// included), the cursor to go on from ("" at the start), the most records to
// answer with, and which: tenant-scoped ones or the others, and of them those
// that pass the filter.
type query struct {
	gte, lte int64
	after    string
	limit    int
	tenant   bool
	filter   filter
}

func (q query) encode() string {
	v := url.Values{
		"effective_at[gte]": {strconv.FormatInt(q.gte, 10)},
		"effective_at[lte]": {strconv.FormatInt(q.lte, 10)},
		"limit":             {strconv.Itoa(q.limit)},
	}
	if q.after != "" {
		v.Set("after", q.after)
	}
	if q.tenant {
		v.Set("tenant_only", "true")
	}
	if q.filter != "" {
		return v.Encode() + "&" + string(q.filter)
	}
	return v.Encode()
}

// apiError is an answer that is no page.
type apiError struct {
	status  int           // HTTP status
	api     bool          // the body is the API's own error, not a proxy's
	param   string        // the API's "param": what it finds fault with
	message string        // the API's own message, cut short
	wait    time.Duration // what Retry-After asks for; negative when absent
	hint    string        // what to do
}

func (e *apiError) Error() string {
	s := fmt.Sprintf("audit log API answered %d %s", e.status, http.StatusText(e.status))
	if e.message != "" {
		s += ": " + e.message
	}
	if e.hint != "" {
		s += " (" + e.hint + ")"
	}
	return s
}

// cursorRefused reports whether err says that the API no longer takes the
// cursor that q asked with.
func cursorRefused(err error, q query) bool {
	var e *apiError
	return errors.As(err, &e) && e.api && q.after != "" &&
		(e.status == http.StatusBadRequest || e.status == http.StatusNotFound) &&
		(e.param == "after" || strings.Contains(e.message, q.after) || strings.Contains(strings.ToLower(e.message), "cursor"))
}

var (
	errPageTooLarge = fmt.Errorf("page is larger than %d MiB", maxPageBytes>>20)
	errCutBody      = errors.New("answer was cut off")
)

// retryable reports whether the same request may well succeed when sent again.
func retryable(err error) bool {
	var e *apiError
	if errors.As(err, &e) {
		switch e.status {
		case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
			return true
		}
		return e.status >= 500
	}
	var n *netError
	return errors.As(err, &n) || errors.Is(err, errCutBody)
}

// netError is a request that got no whole answer.
type netError struct {
	err  error
	text string // of err, fit to be shown
}

func (e *netError) Error() string { return "reaching the audit log API: " + e.text }
func (e *netError) Unwrap() error { return e.err }

func (a *api) netError(err error) error {
	// The URL stays out of the error: what prints it takes its escapes for verbs.
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return &netError{err, a.show(err.Error())}
}

// show makes text from outside fit for a log: short, and without the key,
// which some proxies answer with.
func (a *api) show(s string) string {
	return shorten(strings.ReplaceAll(s, string(a.key), "[secret]"))
}

// retried tells the caller of pages of a failed attempt: its error and how
// long the next one waits.
type retried func(err error, wait time.Duration)

// page reads one page into buf, sending the request again where that may help
// until ctx ends. A wait that would pass ctx's deadline ends it at once. Where
// ctx ends the first attempt, the error is ctx's own; later, the API's.
func (a *api) page(ctx context.Context, q query, buf *bytes.Buffer, tell retried) (page, error) {
	backoff := a.backoff
	var last error
	for attempt := 1; ; attempt++ {
		p, err := a.get(ctx, q, buf)
		switch {
		case err == nil:
			return p, nil
		case ctx.Err() != nil && last == nil:
			return page{}, ctx.Err()
		case ctx.Err() != nil:
			return page{}, last
		case !retryable(err):
			return page{}, err
		case attempt == maxAttempts:
			return page{}, fmt.Errorf("%w; gave up after %d attempts", err, attempt)
		}
		wait := backoff.Pause()
		var e *apiError
		if errors.As(err, &e) && e.wait >= 0 {
			wait = e.wait
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
			return page{}, fmt.Errorf("%w; the next attempt in %s would come after this run's deadline", err, wait.Round(time.Millisecond))
		}
		last = err
		tell(err, wait)
		if gax.Sleep(ctx, wait) != nil {
			return page{}, err
		}
	}
}

// get sends one request.
func (a *api) get(ctx context.Context, q query, buf *bytes.Buffer) (page, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+"?"+q.encode(), nil)
	if err != nil {
		return page{}, errors.New("OPENAI_BASE_URL makes no valid request")
	}
	req.Header.Set("Authorization", "Bearer "+string(a.key))
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "auditlog/"+Version)
	resp, err := a.client.Do(req)
	if err != nil {
		return page{}, a.netError(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return page{}, a.failure(resp)
	}

	buf.Reset()
	n, err := buf.ReadFrom(io.LimitReader(resp.Body, maxPageBytes+1))
	if n > maxPageBytes {
		return page{}, errPageTooLarge
	}
	if err != nil {
		return page{}, a.netError(err)
	}
	p, err := decodePage(buf.Bytes(), q)
	if err != nil {
		return page{}, err
	}
	p.organization = strings.ToValidUTF8(resp.Header.Get("openai-organization"), "\uFFFD") // as the state will have it
	p.date, _ = http.ParseTime(resp.Header.Get("Date"))
	return p, nil
}

// failure reads what an answer other than 200 has to say.
func (a *api) failure(resp *http.Response) *apiError {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
	e := &apiError{status: resp.StatusCode, wait: retryAfter(resp.Header)}
	var parsed struct {
		Error struct{ Message, Param *string }
	}
	text := string(body)
	if json.Unmarshal(body, &parsed) == nil && parsed.Error.Message != nil {
		e.api, text = true, *parsed.Error.Message
		if parsed.Error.Param != nil {
			e.param = *parsed.Error.Param
		}
	}
	e.message = a.show(text)
	switch {
	case e.status == http.StatusUnauthorized && strings.Contains(text, "Missing scopes"):
		e.hint = "give the key the scope api.audit_logs.read"
	case e.status == http.StatusUnauthorized:
		e.hint = "OPENAI_ADMIN_KEY is wrong or revoked: create an Admin key and set it"
	case e.status == http.StatusForbidden:
		e.hint = "OPENAI_ADMIN_KEY must be an Admin key of an Organization Owner, and audit logging must be enabled: Settings > Organization > Data controls"
	case e.status == http.StatusNotFound && e.param == "":
		e.hint = "check OPENAI_BASE_URL"
	case e.status >= 300 && e.status < 400:
		e.message = "redirect not followed, it would carry the key elsewhere"
		e.hint = "set OPENAI_BASE_URL to the API's final address"
	}
	return e
}

// shorten makes s fit for an error: one line, without control characters.
func shorten(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if utf8.RuneCountInString(s) > maxErrorText {
		s = string([]rune(s)[:maxErrorText]) + "…"
	}
	return s
}

// retryAfter is the wait that an answer's header asks for: retry-after-ms
// (milliseconds), else Retry-After (seconds, fractions allowed, or an HTTP
// date, taken against the answer's own Date). Negative when there is none.
func retryAfter(h http.Header) time.Duration {
	for _, v := range []struct {
		value string
		unit  time.Duration
	}{{h.Get("retry-after-ms"), time.Millisecond}, {h.Get("Retry-After"), time.Second}} {
		n, err := strconv.ParseFloat(strings.TrimSpace(v.value), 64)
		if err == nil && n >= 0 && !math.IsInf(n, 1) {
			const longest = 100 * 365 * 24 * time.Hour // keeps the product within a Duration
			return time.Duration(math.Min(n*float64(v.unit), float64(longest)))
		}
	}
	if at, err := http.ParseTime(h.Get("Retry-After")); err == nil {
		now, err := http.ParseTime(h.Get("Date"))
		if err != nil {
			now = time.Now()
		}
		return max(0, at.Sub(now))
	}
	return -1
}
