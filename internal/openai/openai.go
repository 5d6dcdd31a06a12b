// Package openai reads OpenAI's audit log API over HTTP, one page per request. It retries where
// that may help, and explains every answer that is not a page.
//
// It promises that the key goes only to the API and is in no error, and that every wait ends with
// its context. It knows nothing about windows, collected records or the bucket.
package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/googleapis/gax-go/v2"

	"example.com/auditlog/internal/audit"
)

const (
	// MaxPageSize is the maximum number of records that the API puts into a page.
	MaxPageSize = 100
	// MaxConcurrency is the maximum number of parallel requests that connections are kept for.
	MaxConcurrency = 32

	maxPageBytes   = 32 << 20 // of a decoded page held in memory
	maxErrorBytes  = 16 << 10 // read of an error's body
	maxAttempts    = 8        // of one page
	hollowAttempts = 3        // further ones for a page without records although more follow
	headerTimeout  = 30 * time.Second
	pingTimeout    = 10 * time.Second // of a silent connection, and of its answer to a ping
	attemptTimeout = 2 * time.Minute  // from the request to the last byte of its answer
)

// Key is an Admin key. It is shown in no log line and no error.
type Key string

const hidden = "[secret]"

func (Key) String() string               { return hidden }
func (Key) GoString() string             { return hidden }
func (Key) LogValue() slog.Value         { return slog.StringValue(hidden) }
func (Key) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Hide removes the key from outside text: some proxies repeat it in their answers.
func (k Key) Hide(s string) string { return strings.ReplaceAll(s, string(k), hidden) }

// otherKeys are prefixes of keys that are not Admin keys. They may change without notice, and the
// API decides: no key is refused for its prefix.
var otherKeys = []struct{ prefix, kind string }{
	{"sk-proj-", "a project's key"},
	{"sk-svcacct-", "a service account's key"},
	{"sess-", "a browser session's key"},
}

// OtherKind returns the prefix that shows that a key is not an Admin key, and what it is; else "".
func (k Key) OtherKind() (prefix, kind string) {
	for _, other := range otherKeys {
		if strings.HasPrefix(string(k), other.prefix) {
			return other.prefix, other.kind
		}
	}
	return "", ""
}

// KeyRemedy is what to do about a key that is not an Admin key.
const KeyRemedy = "create an Admin key (platform.openai.com, Settings > Organization > Admin keys) and set OPENAI_ADMIN_KEY to it"

// DefaultBackoff is the wait between attempts at one page, if the API asks for none.
var DefaultBackoff = gax.Backoff{Initial: time.Second, Max: 30 * time.Second, Multiplier: 2}

// Options configure a Client.
type Options struct {
	Base      string // the API's URL, without a trailing slash
	Key       Key
	Agent     string // User-Agent
	Transport http.RoundTripper
	Backoff   gax.Backoff // between the attempts at one page
}

// Client reads the API. It is safe for concurrent use.
//
// It is based on the published reference of GET /organization/audit_logs, and on answers that have
// been observed.
type Client struct {
	options Options
	http    *http.Client
	attempt time.Duration // the longest attempt
}

// New returns a client of the API.
func New(o Options) *Client {
	return &Client{
		options: o,
		http: &http.Client{
			Transport: o.Transport,
			// After a redirect Go would send the key to another port or a subdomain, too.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		attempt: attemptTimeout,
	}
}

// Within returns a client whose attempts take that long at most.
func (c *Client) Within(longest time.Duration) *Client {
	limited := *c
	limited.attempt = min(c.attempt, longest)
	return &limited
}

// NewTransport keeps connections open between pages, asks for gzip, and bounds the wait for a
// connection and for an answer's header; attemptTimeout bounds the body.
func NewTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  headerTimeout,
		MaxResponseHeaderBytes: 256 << 10,
		MaxIdleConnsPerHost:    MaxConcurrency,
		IdleConnTimeout:        90 * time.Second,
		// Without pings, every attempt would use the same dead connection.
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingTimeout, PingTimeout: pingTimeout},
	}
}

// Error is an answer that is not a page.
type Error struct {
	Status  int           // HTTP status
	API     bool          // the body is the API's own error, not a proxy's
	Code    string        // the API's "code", else its "type"
	Param   string        // the API's "param": the parameter at fault
	Message string        // the API's own message, shortened
	Wait    time.Duration // what Retry-After asks for; negative when absent
	Hint    string        // what to do; "" if unknown
}

func (e *Error) Error() string {
	s := fmt.Sprintf("audit log API answered %d %s", e.Status, http.StatusText(e.Status))
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unreachable is a request that got no complete answer.
type Unreachable struct {
	Err  error
	text string // of Err, safe to show
}

func (e *Unreachable) Error() string { return "reaching the audit log API: " + e.text }
func (e *Unreachable) Unwrap() error { return e.Err }

// unreachable explains the error of an attempt whose context is ctx.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	// The error must not have the URL: whatever prints it takes the URL's escapes for verbs.
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return &Unreachable{err, c.show(err.Error())}
}

// show makes outside text safe for a log.
func (c *Client) show(s string) string { return audit.Shorten(c.options.Key.Hide(s)) }

var errHollow = errors.New("audit log API answered with an empty page, and says that more follow")

var errBadURL = errors.New("OPENAI_BASE_URL makes no valid request")

var errPageTooLarge = fmt.Errorf("page is larger than %d MiB", maxPageBytes>>20)

// failure returns what an error means for the requests that follow.
func failure(err error, r audit.Request) *audit.Failure {
	kind := audit.Other
	var e *Error
	switch {
	case errors.Is(err, errPageTooLarge):
		kind = audit.PageTooLarge
	case errors.As(err, new(*Unreachable)) || errors.Is(err, errBadURL):
	case !errors.As(err, &e) || e.Status >= 500:
		kind = audit.Unserved
	case !e.API:
	case e.refusesCursor(r):
		kind = audit.CursorRefused
	case e.Status == http.StatusBadRequest:
		kind = audit.BadRequest
	case e.Status == http.StatusForbidden:
		kind = audit.Refused
	}
	return &audit.Failure{Kind: kind, Err: err}
}

// refusesCursor reports whether the API no longer accepts the cursor of r.
func (e *Error) refusesCursor(r audit.Request) bool {
	return r.After != "" && (e.Status == http.StatusBadRequest || e.Status == http.StatusNotFound) &&
		(e.Param == "after" || strings.Contains(e.Message, r.After) || strings.Contains(strings.ToLower(e.Message), "cursor"))
}

// retryable reports whether the same request may succeed when sent again.
func retryable(err error) bool {
	if e, ok := errors.AsType[*Error](err); ok {
		switch e.Status {
		case http.StatusRequestTimeout, http.StatusConflict:
			return true
		case http.StatusTooManyRequests:
			return !e.noQuota()
		case http.StatusForbidden:
			return !e.API // a CDN's or proxy's answer, which may differ next time
		}
		return e.Status >= 500
	}
	return errors.As(err, new(*Unreachable)) || errors.Is(err, audit.ErrCutBody) || err == errHollow
}

// Retried is called after a failed attempt that another one follows, with its error and the wait
// until the next one.
type Retried func(err error, wait time.Duration)

// Page reads one page into buf, and retries where that may help, until ctx ends; with r.Once it does
// not send a request again that the API could not serve. It also retries an empty page with more to
// come; one that stays empty is an answer like any other. A wait beyond ctx's deadline ends Page at
// once. If ctx ends the first attempt, the error is ctx's cause. Any other error is an *audit.Failure
// around the last error of an attempt; its kind is Other where ctx has kept Page from another one.
func (c *Client) Page(ctx context.Context, r audit.Request, buf *bytes.Buffer, retried Retried) (audit.Page, error) {
	backoff := c.options.Backoff
	var last error
	for attempt := 1; ; attempt++ {
		p, err := c.get(ctx, r, buf)
		if err == nil && p.Hollow() && attempt <= hollowAttempts && !r.Once {
			err = errHollow
		}
		switch {
		case err == nil:
			return p, nil
		case ctx.Err() != nil && last == nil:
			return audit.Page{}, context.Cause(ctx)
		case ctx.Err() != nil:
			return audit.Page{}, &audit.Failure{Err: last}
		case !retryable(err) || r.Once && failure(err, r).Kind == audit.Unserved:
			return audit.Page{}, failure(err, r)
		case attempt == maxAttempts:
			return audit.Page{}, failure(fmt.Errorf("%w; gave up after %d attempts", err, attempt), r)
		}
		wait := backoff.Pause()
		if e, ok := errors.AsType[*Error](err); ok {
			wait = max(wait, e.Wait) // never below the backoff, even for a Retry-After of 0: others may retry, too
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
			return audit.Page{}, &audit.Failure{Err: fmt.Errorf("%w; the next attempt in %s would come after this run's deadline", err, wait.Round(time.Millisecond))}
		}
		last = err
		retried(err, wait)
		if gax.Sleep(ctx, wait) != nil {
			return audit.Page{}, &audit.Failure{Err: err}
		}
	}
}

func (c *Client) get(ctx context.Context, r audit.Request, buf *bytes.Buffer) (audit.Page, error) {
	slow := fmt.Sprintf("no whole answer within %s", c.attempt)
	if c.attempt < attemptTimeout {
		slow += ": is RUN_TIMEOUT_SECONDS, or the service's request timeout, too short?"
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.attempt, errors.New(slow))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.options.Base+"/organization/audit_logs?"+r.Query(), nil)
	if err != nil {
		return audit.Page{}, errBadURL
	}
	req.Header.Set("Authorization", "Bearer "+string(c.options.Key))
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.options.Agent)
	resp, err := c.http.Do(req)
	if err != nil {
		return audit.Page{}, c.unreachable(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
		return audit.Page{}, c.refusal(resp, body)
	}

	buf.Reset()
	n, err := buf.ReadFrom(io.LimitReader(resp.Body, maxPageBytes+1))
	if n > maxPageBytes {
		return audit.Page{}, errPageTooLarge
	}
	if err != nil {
		return audit.Page{}, c.unreachable(ctx, err)
	}
	p, err := audit.DecodePage(buf.Bytes(), r)
	if err != nil {
		if e := c.refusal(resp, buf.Bytes()[:min(buf.Len(), maxErrorBytes)]); e.API {
			return audit.Page{}, e
		}
		return audit.Page{}, err
	}
	p.Organization = strings.ToValidUTF8(resp.Header.Get("openai-organization"), "\uFFFD") // as the state stores it
	p.Date, _ = http.ParseTime(resp.Header.Get("Date"))
	return p, nil
}

// refusal explains an answer that is not a page.
func (c *Client) refusal(resp *http.Response, body []byte) *Error {
	e := &Error{Status: resp.StatusCode, Wait: retryAfter(resp.Header)}
	var parsed struct {
		Error struct {
			Message, Param *string
			Code, Type     any
		}
	}
	text := string(body)
	if json.Unmarshal(body, &parsed) == nil && parsed.Error.Message != nil {
		e.API, text = true, *parsed.Error.Message
		if parsed.Error.Param != nil {
			e.Param = *parsed.Error.Param
		}
		if e.Code, _ = parsed.Error.Code.(string); e.Code == "" {
			e.Code, _ = parsed.Error.Type.(string)
		}
	}
	e.Message = c.show(text)
	if e.redirects() {
		e.Message = "redirect not followed, it would carry the key elsewhere"
	}
	_, kind := c.options.Key.OtherKind()
	e.Hint = e.advice(strings.ToLower(text), kind != "")
	return e
}

// Codes of errors, where they are more precise than the status.
const (
	badCountry = "unsupported_country_region_territory"
	badAddress = "ip_not_authorized"
)

func (e *Error) redirects() bool {
	return e.Status >= 300 && e.Status < 400 && e.Status != http.StatusNotModified
}

// noQuota reports whether there is no quota left and the API names no time when there will be.
func (e *Error) noQuota() bool { return e.Code == "insufficient_quota" && e.Wait <= 0 }

// advice returns what to do about an error; text is its message in lower case, and otherKey a key that
// is not an Admin key. The status alone would blame the key for the fault of a country, an address or a proxy.
func (e *Error) advice(text string, otherKey bool) string {
	refused := e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	says := func(s string) bool { return strings.Contains(text, s) }
	switch {
	case e.redirects():
		return "set OPENAI_BASE_URL to the API's final address"
	case e.Status < 400 && !e.API:
		return "the audit log API does not answer so: check OPENAI_BASE_URL, and a proxy or a cache on the way"
	case refused && !e.API && !says("missing scopes"):
		return "something between here and the API refuses, a proxy, a firewall or a CDN: let requests to OPENAI_BASE_URL pass"
	case e.Code == badCountry:
		return "OpenAI does not serve the country that the request came from: run the function in a region that it serves"
	case e.Code == badAddress, refused && says("request ip"):
		return "ask an owner of the organization to add the address that requests leave from to its IP allow list, or give the function a fixed one"
	case e.noQuota():
		return "the organization has no quota left, and waiting does not help: look at its billing and limits"
	case e.API && says("audit log") && (says("enable") || says("activat")):
		return "audit logging is off: ask an owner of the organization to enable it, Settings > Organization > Data controls"
	case refused && (otherKey || says("key type") || says("session key")):
		return "OPENAI_ADMIN_KEY is not an Admin key: " + KeyRemedy
	case refused && says("missing scopes"):
		return "give the key the scope api.audit_logs.read"
	case e.Status == http.StatusUnauthorized:
		return "OPENAI_ADMIN_KEY is wrong or revoked: create an Admin key and set it"
	case e.Status == http.StatusForbidden:
		return "OPENAI_ADMIN_KEY must be an Admin key of an Organization Owner, and audit logging must be enabled: Settings > Organization > Data controls"
	case e.Status == http.StatusNotFound && e.Param == "":
		return "check OPENAI_BASE_URL"
	}
	return ""
}

// retryAfter returns the wait that an answer's header asks for: retry-after-ms (milliseconds), else
// Retry-After (seconds, fractions allowed, or an HTTP date, relative to the answer's own Date). It
// is negative if there is none.
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
