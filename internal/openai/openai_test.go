package openai

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/googleapis/gax-go/v2"

	"example.com/auditlog/internal/audit"
)

const (
	testKey   = "sk-admin-0123456789"
	testAgent = "auditlog/test"
)

var (
	testRequest = audit.Request{Gte: 100, Lte: 200, Limit: 100}
	quick       = gax.Backoff{Initial: time.Millisecond, Max: time.Millisecond}
)

const goodPage = `{"object":"list","data":[{"id":"a","effective_at":150}],"first_id":"a","last_id":"a","has_more":false}`

// fetchFrom reads a page from a real listener and counts the requests. Where the
// API asks for no wait, the next attempt follows at once.
func fetchFrom(t *testing.T, ctx context.Context, q audit.Request, handler func(n int, w http.ResponseWriter, r *http.Request)) (audit.Page, int, error) {
	t.Helper()
	n := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		handler(n, w, r)
	}))
	defer server.Close()
	transport := NewTransport()
	defer transport.CloseIdleConnections()
	var buf bytes.Buffer
	p, err := New(Options{Base: server.URL + "/v1", Key: testKey, Agent: testAgent, Transport: transport, Backoff: quick}).Page(ctx, q, &buf, func(error, time.Duration) {})
	if err != nil && strings.Contains(err.Error(), testKey) {
		t.Errorf("error shows the key: %v", err)
	}
	return p, n, err
}

func TestRequest(t *testing.T) {
	q := audit.Request{Gte: 100, Lte: 200, After: "audit_log-x", Limit: 7}
	p, _, err := fetchFrom(t, t.Context(), q, func(n int, w http.ResponseWriter, r *http.Request) {
		if r.Method != "GET" || r.URL.Path != "/v1/organization/audit_logs" {
			t.Errorf("%s %s", r.Method, r.URL.Path)
		}
		if got, want := r.URL.Query().Encode(), "after=audit_log-x&effective_at%5Bgte%5D=100&effective_at%5Blt%5D=201&limit=7"; got != want {
			t.Errorf("query %s, want %s", got, want)
		}
		for name, want := range map[string]string{"Authorization": "Bearer " + testKey, "User-Agent": testAgent, "Accept": "application/json", "Accept-Encoding": "gzip"} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		w.Header().Set("openai-organization", "org-x")
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		io.WriteString(z, goodPage)
		z.Close()
	})
	if err != nil || len(p.Records) != 1 || p.Organization != "org-x" || p.Date.IsZero() {
		t.Errorf("page %+v, error %v", p, err)
	}
}

const hollowPage = `{"object":"list","data":[],"first_id":null,"last_id":"a-77","has_more":true}`

// TestHollowPage: an empty page with more to come is asked for again three times, and
// then an answer like any other.
func TestHollowPage(t *testing.T) {
	requests := 0
	c := inMemory(func(*http.Request) (*http.Response, error) { requests++; return response(200, hollowPage), nil })
	p, err := c.Page(t.Context(), testRequest, new(bytes.Buffer), func(err error, _ time.Duration) {
		if err != errHollow {
			t.Errorf("told of %v", err)
		}
	})
	if err != nil || requests != 4 || !p.Hollow() || p.Cursor != "a-77" {
		t.Errorf("%d requests, %+v, %v", requests, p, err)
	}
}

// TestAnswers: what each kind of answer leads to, and how often it is asked for.
func TestAnswers(t *testing.T) {
	raw := func(status int, body string) func(int, http.ResponseWriter, *http.Request) {
		return func(n int, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("retry-after-ms", "0")
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	openAI := func(status int, message, param string) func(int, http.ResponseWriter, *http.Request) {
		return raw(status, apiError(message, param))
	}
	// once gives a fault, then a good page.
	once := func(fault func(int, http.ResponseWriter, *http.Request)) func(int, http.ResponseWriter, *http.Request) {
		return func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				fault(n, w, r)
				return
			}
			io.WriteString(w, goodPage)
		}
	}
	tests := []struct {
		name     string
		handler  func(int, http.ResponseWriter, *http.Request)
		requests int
		err      []string // parts; none for a good page
	}{
		{"401", openAI(401, "Incorrect API key provided", ""), 1, []string{"401", "Incorrect API key provided", "OPENAI_ADMIN_KEY"}},
		{"401 for want of a scope", openAI(401, "Missing scopes: api.audit_logs.read", ""), 1, []string{"401", "give the key the scope api.audit_logs.read"}},
		{"403", openAI(403, "Audit logging is not enabled", ""), 1, []string{"403", "Audit logging is not enabled", "audit logging is off", "Data controls"}},
		{"404", raw(404, "<h1>Not Found</h1>"), 1, []string{"404", "OPENAI_BASE_URL", "Not Found"}},
		{"400", openAI(400, "Bad limit", "limit"), 1, []string{"400", "Bad limit"}},
		{"a proxy that answers with the key", raw(403, "you sent Authorization: Bearer "+testKey), maxAttempts, []string{"403", "you sent", "[secret]", "something between here and the API refuses"}},
		{"a CDN's 403, then good", once(raw(403, "<html>Access denied</html>")), 2, nil},
		{"429 without quota", raw(429, `{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}`), 1, []string{"429", "waiting does not help"}},
		{"HTML with control characters", raw(400, "<html>\n\x1b[31m\u2028bad\xff</html>"), 1, []string{"<html> [31m bad\uFFFD</html>"}},
		{"429, then good", once(openAI(429, "Rate limit reached", "")), 2, nil},
		{"408, then good", once(raw(408, "")), 2, nil},
		{"409, then good", once(raw(409, "")), 2, nil},
		{"502 with HTML, then good", once(raw(502, "<html>Bad gateway</html>")), 2, nil},
		{"500 for good", openAI(500, "The server had an error", ""), maxAttempts, []string{"500", "The server had an error", fmt.Sprint(maxAttempts)}},
		{"body cut off by the connection, then good", once(func(n int, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(goodPage)))
			io.WriteString(w, goodPage[:50])
			panic(http.ErrAbortHandler)
		}), 2, nil},
		{"body cut off by a proxy, then good", once(raw(200, goodPage[:50])), 2, nil},
		{"connection dropped, then good", once(func(int, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), 2, nil},
		{"an empty page with more to come, then good", once(raw(200, hollowPage)), 2, nil},
		{"200 with HTML", raw(200, "<html>Sign in</html>"), 1, []string{"no JSON list", "Sign in"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, n, err := fetchFrom(t, t.Context(), testRequest, tt.handler)
			if n != tt.requests {
				t.Errorf("%d requests, want %d", n, tt.requests)
			}
			if len(tt.err) == 0 && (err != nil || len(p.Records) != 1) {
				t.Errorf("page %+v, error %v", p, err)
			}
			for _, want := range tt.err {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q: %v", want, err)
				}
			}
			if err != nil && strings.ContainsAny(err.Error(), "\n\x1b\u2028") {
				t.Errorf("error has control characters: %q", err)
			}
		})
	}
}

// TestNoRedirect: the key goes nowhere but to the configured host.
func TestNoRedirect(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("request went to %s with %q", r.Host, r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		_, n, err := fetchFrom(t, t.Context(), testRequest, func(n int, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, status)
		})
		if n != 1 || err == nil || !strings.Contains(err.Error(), "OPENAI_BASE_URL") {
			t.Errorf("%d: %d requests, error %v", status, n, err)
		}
	}
}

// TestBigBodies: neither an error's body nor a page's costs more memory than
// its bound, and little of it shows.
func TestBigBodies(t *testing.T) {
	var whole atomic.Bool
	_, _, err := fetchFrom(t, t.Context(), testRequest, func(n int, w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(403)
		chunk := bytes.Repeat([]byte("never "), 10_000)
		for range 20 << 20 / len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
		whole.Store(true)
	})
	if err == nil || len(err.Error()) > 1000 {
		t.Errorf("error of %d bytes", len(fmt.Sprint(err)))
	}
	if whole.Load() {
		t.Error("read the whole body of an error")
	}

	var zeros bytes.Buffer
	z := gzip.NewWriter(&zeros)
	z.Write(make([]byte, 1<<20))
	z.Close()
	_, n, err := fetchFrom(t, t.Context(), testRequest, func(n int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip") // 64 MB in a few KB
		for range 64 {
			w.Write(zeros.Bytes())
		}
	})
	if n != 1 || !errors.Is(err, errPageTooLarge) {
		t.Errorf("%d requests, error %v", n, err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// inMemory is a client whose requests get no further than to answer.
func inMemory(answer roundTripper) *Client {
	return New(Options{Base: "https://api.example.com/v1", Key: testKey, Agent: testAgent, Transport: answer, Backoff: quick})
}

// response is an answer with these headers, pairs of name and value.
func response(status int, body string, headers ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}
}

// apiError is the body of an error of the API's own.
func apiError(message, param string) string {
	return fmt.Sprintf(`{"error":{"message":%q,"type":"x","param":%q,"code":null}}`, message, param)
}

// TestRefusals: what an answer other than 200 says, and what to do about it.
func TestRefusals(t *testing.T) {
	const (
		redirect = "redirect not followed, it would carry the key elsewhere (set OPENAI_BASE_URL to the API's final address)"
		notSo    = "(the audit log API does not answer so: check OPENAI_BASE_URL, and a proxy or a cache on the way)"
		between  = "(something between here and the API refuses, a proxy, a firewall or a CDN: let requests to OPENAI_BASE_URL pass)"
		address  = "(ask an owner of the organization to add the address that requests leave from to its IP allow list, or give the function a fixed one)"
		owner    = "(OPENAI_ADMIN_KEY must be an Admin key of an Organization Owner, and audit logging must be enabled: Settings > Organization > Data controls)"
		wrong    = "(OPENAI_ADMIN_KEY is wrong or revoked: create an Admin key and set it)"
	)
	for _, tt := range []struct {
		status     int
		body, want string // want follows the status
	}{
		{204, "", " No Content " + notSo},
		{299, "x", " : x " + notSo},
		{300, "x", " Multiple Choices: " + redirect},
		{304, "", " Not Modified " + notSo},
		{399, "x", " : " + redirect},
		{400, "x", " Bad Request: x"},
		{400, apiError("Missing scopes: x", ""), " Bad Request: Missing scopes: x"},
		{401, "", " Unauthorized " + between},
		{401, apiError("No such key", ""), " Unauthorized: No such key " + wrong},
		{401, `{"error":{"code":"ip_not_authorized","message":"Your request IP 203.0.113.7 does not match the configured IP allowlist for this organization."}}`, " Unauthorized: Your request IP 203.0.113.7 does not match the configured IP allowlist for this organization. " + address},
		{401, apiError("Your request IP 203.0.113.7 does not match", ""), " Unauthorized: Your request IP 203.0.113.7 does not match " + address},
		{403, `{"error":{"code":"unsupported_country_region_territory","message":"Country, region, or territory not supported"}}`, " Forbidden: Country, region, or territory not supported (OpenAI does not serve the country that the request came from: run the function in a region that it serves)"},
		{403, `{"error":{"code":7,"message":"No"}}`, " Forbidden: No " + owner},
		{401, apiError("Missing scopes", ""), " Unauthorized: Missing scopes (give the key the scope api.audit_logs.read)"},
		{403, apiError("No", ""), " Forbidden: No " + owner},
		{404, "", " Not Found (check OPENAI_BASE_URL)"},
		{404, apiError("No such thing", ""), " Not Found: No such thing (check OPENAI_BASE_URL)"},
		{404, apiError("No such cursor", "after"), " Not Found: No such cursor"},
		{422, `{"error":{"message":"null"}}`, " Unprocessable Entity: null"},
		{422, `{"error":{"message":null,"param":"x"}}`, ` Unprocessable Entity: {"error":{"message":null,"param":"x"}}`},
		{422, `{"error":"text"}`, ` Unprocessable Entity: {"error":"text"}`},
	} {
		requests := 0
		c := inMemory(func(*http.Request) (*http.Response, error) { requests++; return response(tt.status, tt.body), nil })
		_, err := c.Page(t.Context(), testRequest, new(bytes.Buffer), nil)
		if want := fmt.Sprintf("audit log API answered %d%s", tt.status, tt.want); err == nil || err.Error() != want || requests != 1 {
			t.Errorf("%d requests, error\n%v, want\n%s", requests, err, want)
		}
	}
}

// TestAdvice: code, message and key say what is wrong where the status alone does not.
func TestAdvice(t *testing.T) {
	const (
		wrong = "OPENAI_ADMIN_KEY is wrong or revoked: create an Admin key and set it"
		other = "OPENAI_ADMIN_KEY is not an Admin key: " + KeyRemedy
	)
	for _, tt := range []struct {
		key    Key
		file   string
		header []string
		want   string
	}{
		{testKey, "error-401-ip.json", nil, "ask an owner of the organization to add the address that requests leave from to its IP allow list, or give the function a fixed one"},
		{testKey, "error-401-key.json", nil, wrong},
		{testKey, "error-401-scopes.json", nil, "give the key the scope api.audit_logs.read"},
		{testKey, "error-403-cdn.html", nil, "something between here and the API refuses, a proxy, a firewall or a CDN: let requests to OPENAI_BASE_URL pass"},
		{testKey, "error-403-country.json", nil, "OpenAI does not serve the country that the request came from: run the function in a region that it serves"},
		{testKey, "error-403-kind.json", nil, other},
		{testKey, "error-403-off.json", nil, "audit logging is off: ask an owner of the organization to enable it, Settings > Organization > Data controls"},
		{testKey, "error-403-role.json", nil, "OPENAI_ADMIN_KEY must be an Admin key of an Organization Owner, and audit logging must be enabled: Settings > Organization > Data controls"},
		{testKey, "error-429-quota.json", nil, "the organization has no quota left, and waiting does not help: look at its billing and limits"},
		{testKey, "error-429-quota.json", []string{"Retry-After", "1"}, ""},

		{"sk-proj-0123", "error-401-key.json", nil, other},
		{"sk-proj-0123", "error-401-scopes.json", nil, other},
		{"sk-proj-0123", "error-401-ip.json", nil, "ask an owner of the organization to add the address that requests leave from to its IP allow list, or give the function a fixed one"},
		{"sk-proj-0123", "error-403-cdn.html", nil, "something between here and the API refuses, a proxy, a firewall or a CDN: let requests to OPENAI_BASE_URL pass"},
		{"sk-proj-0123", "error-403-off.json", nil, "audit logging is off: ask an owner of the organization to enable it, Settings > Organization > Data controls"},
		{"sk-svcacct-0123", "error-403-role.json", nil, other},
		{"sess-0123", "error-401-key.json", nil, other},
		{"sk-0123", "error-401-key.json", nil, wrong},
	} {
		body, err := os.ReadFile("testdata/" + tt.file)
		if err != nil {
			t.Fatal(err)
		}
		status, err := strconv.Atoi(strings.Split(tt.file, "-")[1])
		if err != nil {
			t.Fatal(err)
		}
		c := inMemory(func(*http.Request) (*http.Response, error) { return response(status, string(body), tt.header...), nil })
		c.options.Key = tt.key
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2) // no attempt follows a wait of a second
		_, err = c.Page(ctx, testRequest, new(bytes.Buffer), func(error, time.Duration) {})
		cancel()
		var e *Error
		if !errors.As(err, &e) || e.Hint != tt.want || e.API != (tt.file != "error-403-cdn.html") {
			t.Errorf("%s with the key %.8s…: error %v", tt.file, string(tt.key), err)
		}
		if waits := strings.Contains(fmt.Sprint(err), "the next attempt"); waits != (tt.header != nil) {
			t.Errorf("%s, %v: %v", tt.file, tt.header, err)
		}
	}

	// Missing scopes are the API's word also where the error is a text alone.
	c := inMemory(func(*http.Request) (*http.Response, error) {
		return response(401, `{"error":"You have insufficient permissions. Missing scopes: api.audit_logs.read."}`), nil
	})
	if _, err := c.Page(t.Context(), testRequest, new(bytes.Buffer), nil); err == nil || !strings.Contains(err.Error(), "give the key the scope") {
		t.Errorf("error %v", err)
	}
}

// TestUnreachable: an error of the network shows neither the key nor the URL,
// and stays what it was.
func TestUnreachable(t *testing.T) {
	cause := errors.New("proxy says:\n" + testKey + " is\x1b[1m odd")
	c := inMemory(func(*http.Request) (*http.Response, error) { return nil, fmt.Errorf("dialing: %w", cause) })
	_, err := c.Page(t.Context(), testRequest, new(bytes.Buffer), func(error, time.Duration) {})
	var u *Unreachable
	if want := "reaching the audit log API: dialing: proxy says: [secret] is [1m odd"; !errors.As(err, &u) || u.Error() != want || err.Error() != want+"; gave up after 8 attempts" {
		t.Errorf("error %v, want %s", err, want)
	}
	if !errors.Is(err, cause) {
		t.Errorf("the error is not its cause: %v", err)
	}

	c = New(Options{Base: "https://api example.com", Key: testKey, Transport: roundTripper(nil)})
	if _, err := c.Page(t.Context(), testRequest, new(bytes.Buffer), nil); fmt.Sprint(err) != "OPENAI_BASE_URL makes no valid request" {
		t.Errorf("error %v", err)
	}
}

// TestPageHeaders: what the headers of an answer say of the page.
func TestPageHeaders(t *testing.T) {
	date := time.Date(2026, 11, 24, 1, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		headers      []string
		organization string
		date         time.Time
	}{
		{nil, "", time.Time{}},
		{[]string{"OpenAI-Organization", "org-x", "Date", "Tue, 24 Nov 2026 01:00:00 GMT"}, "org-x", date},
		{[]string{"OpenAI-Organization", "org-\xff", "Date", "soon"}, "org-\uFFFD", time.Time{}},
	} {
		c := inMemory(func(*http.Request) (*http.Response, error) { return response(200, goodPage, tt.headers...), nil })
		buf := bytes.NewBufferString("of the page before")
		p, err := c.Page(t.Context(), testRequest, buf, nil)
		if err != nil || p.Organization != tt.organization || !p.Date.Equal(tt.date) || buf.String() != goodPage {
			t.Errorf("headers %q: page %+v, error %v", tt.headers, p, err)
		}
	}
}

// endless is a body that begins with a text and goes on with white space, and
// notes what becomes of it.
type endless struct {
	text        *strings.Reader
	white, left int // bytes read of the white space, and to come
	closed      bool
}

var manySpaces = bytes.Repeat([]byte(" "), 1<<20)

func (e *endless) Read(p []byte) (int, error) {
	if e.text.Len() > 0 {
		return e.text.Read(p)
	}
	n := copy(p[:min(len(p), e.left)], manySpaces)
	e.white, e.left = e.white+n, e.left-n
	if e.left == 0 {
		return n, io.EOF
	}
	return n, nil
}

func (e *endless) Close() error { e.closed = true; return nil }

// TestLongestBodies: a body is taken whole up to its bound, not read much
// further, and closed.
func TestLongestBodies(t *testing.T) {
	const ever = 1 << 40
	var body *endless
	var buf bytes.Buffer
	buf.Grow(32<<20 + 2*bytes.MinRead) // what it would grow to by itself takes longer
	answer := func(status int, text string, white int) (audit.Page, error) {
		body = &endless{text: strings.NewReader(text), left: white}
		c := inMemory(func(*http.Request) (*http.Response, error) {
			r := response(status, "")
			r.Body = body
			return r, nil
		})
		p, err := c.Page(t.Context(), testRequest, &buf, nil)
		if !body.closed {
			t.Errorf("the body of a %d, %.20s, stays open", status, text)
		}
		return p, err
	}
	if p, err := answer(200, goodPage, 32<<20-len(goodPage)); err != nil || len(p.Records) != 1 {
		t.Errorf("a page as large as may be: %d records, error %v", len(p.Records), err)
	}
	_, err := answer(200, goodPage, ever)
	var f *audit.Failure
	if !errors.As(err, &f) || f.Kind != audit.PageTooLarge || !errors.Is(err, errPageTooLarge) || err.Error() != "page is larger than 32 MiB" || body.white > 33<<20 {
		t.Errorf("an endless page: %d bytes read, error %#v", body.white, err)
	}
	var e *Error
	if _, err := answer(400, apiError("no", ""), ever); !errors.As(err, &e) || !e.API || body.white > 16<<10 {
		t.Errorf("an endless error: %d bytes read, error %v", body.white, err)
	}
	longest := strings.Repeat("x", 16<<10-len(apiError("", "")))
	for n, own := range map[int]bool{0: true, 1: false} {
		if _, err := answer(400, apiError(longest+strings.Repeat("x", n), ""), ever); !errors.As(err, &e) || e.API != own || len(err.Error()) > 1000 {
			t.Errorf("an error of %d bytes more than is read: the API's own %v, error %v", n, e.API, err)
		}
	}
}

// TestKeyIsNotShown: neither logs nor errors show a key, however they print it.
func TestKeyIsNotShown(t *testing.T) {
	key := Key(testKey)
	within := struct {
		Key  Key
		Keys []Key
	}{key, []Key{key}}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewJSONHandler(&log, nil), slog.NewTextHandler(&log, nil)} {
		slog.New(h).Info("x", "key", key, "within", within)
	}
	js, err := json.Marshal(within)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{log.String(), string(js), fmt.Sprint(key), fmt.Sprintf("%v %s %q %+v %#v %x", key, key, key, key, key, key), fmt.Sprintf("%v %+v %#v", within, within, within)} {
		if strings.Contains(s, testKey) || strings.Contains(s, fmt.Sprintf("%x", testKey)) || !strings.Contains(s, "[secret]") {
			t.Errorf("shows the key, or not that there is one: %s", s)
		}
	}
	if got := key.Hide("a " + testKey + ", " + testKey + "."); got != "a [secret], [secret]." {
		t.Error(got)
	}
}
