package auditlog

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var testQuery = query{gte: 100, lte: 200, limit: 100}

func TestDecodePage(t *testing.T) {
	const rest = `"first_id":"a","last_id":"b","has_more":true`
	tests := []struct {
		name, body string
		err        string // part of it; "" for none
		records    string // id@at, one after the other
		cursor     string
		more       bool
	}{
		{"last page", `{"object":"list","data":[{"id":"a","effective_at":100}],"first_id":"a","last_id":"a","has_more":false}`, "", "a@100 ", "a", false},
		{"more", `{"object":"list","data":[{"id":"a","effective_at":200},{"effective_at":150,"id":"b"}],` + rest + `}`, "", "a@200 b@150 ", "b", true},
		{"keys in any order", `{"has_more":true,"last_id":"a","new_key":{"data":[1]},"data":[{"x":{"id":"no","effective_at":1},"id":"a","effective_at":100}],"object":"list"}`, "", "a@100 ", "a", true},
		{"empty", `{"object":"list","data":[],"first_id":null,"last_id":null,"has_more":false}`, "", "", "", false},
		{"white space around", " \r\n\t" + `{"object":"list","data":[],"has_more":false}` + " \n", "", "", "", false},
		{"escaped names", `{"obj\u0065ct":"list","data":[{"\u0069d":"a","effective_at":1.5e2}],"has_more":false}`, "", "a@150 ", "", false},
		{"the last of two ids", `{"object":"list","data":[{"id":"x","id":"a","effective_at":100}],"has_more":false}`, "", "a@100 ", "", false},
		{"names of another case do not count", `{"object":"list","data":[{"id":"a","ID":"x","effective_at":100,"Effective_At":"x"}],"has_more":false}`, "", "a@100 ", "", false},

		{"empty body", ``, "cut off", "", "", false},
		{"cut in a record", `{"object":"list","data":[{"id":"a","effecti`, "cut off", "", "", false},
		{"cut before the end", `{"object":"list","data":[],"has_more":false`, "cut off", "", "", false},
		{"HTML", `<html>Sign in</html>`, "no JSON list", "", "", false},
		{"array", `[]`, "wanted an object", "", "", false},
		{"null", `null`, "wanted an object", "", "", false},
		{"no list", `{"object":"error","data":[],"has_more":false}`, `"object" is "error"`, "", "", false},
		{"object missing", `{"data":[],"has_more":false}`, "is missing", "", "", false},
		{"data missing", `{"object":"list","has_more":false}`, "is missing", "", "", false},
		{"has_more missing", `{"object":"list","data":[]}`, "is missing", "", "", false},
		{"has_more null", `{"object":"list","data":[],"has_more":null}`, "has_more", "", "", false},
		{"has_more text", `{"object":"list","data":[],"has_more":"false"}`, "has_more", "", "", false},
		{"data null", `{"object":"list","data":null,"has_more":false}`, "data", "", "", false},
		{"data twice", `{"object":"list","data":[],"data":[],"has_more":false}`, "twice", "", "", false},
		{"bytes after it", `{"object":"list","data":[],"has_more":false}{}`, "2 bytes follow", "", "", false},
		{"no white space of JSON after it", `{"object":"list","data":[],"has_more":false}` + "\u00a0", "2 bytes follow", "", "", false},
		{"more, but no records", `{"object":"list","data":[],` + rest + `}`, "no records", "", "", false},
		{"more, but no cursor", `{"object":"list","data":[{"id":"a","effective_at":100}],"last_id":null,"has_more":true}`, "last_id", "", "", false},
		{"more, cursor a number", `{"object":"list","data":[{"id":"a","effective_at":100}],"last_id":5,"has_more":true}`, "last_id", "", "", false},
		{"cursor does not advance", `{"object":"list","data":[{"id":"a","effective_at":100}],"last_id":"asked","has_more":true}`, "does not advance", "", "", false},
		{"record is no object", `{"object":"list","data":["a"],"has_more":false}`, "record 1", "", "", false},
		{"record without id", `{"object":"list","data":[{"effective_at":100}],"has_more":false}`, "no id", "", "", false},
		{"record with an empty id", `{"object":"list","data":[{"id":"","effective_at":100}],"has_more":false}`, "no id", "", "", false},
		{"record with a null id", `{"object":"list","data":[{"id":null,"effective_at":100}],"has_more":false}`, "id", "", "", false},
		{"record without time", `{"object":"list","data":[{"id":"a"}],"has_more":false}`, "no effective_at", "", "", false},
		{"record with a text time", `{"object":"list","data":[{"id":"a","effective_at":"100"}],"has_more":false}`, "whole number", "", "", false},
		{"record with a fraction", `{"object":"list","data":[{"id":"a","effective_at":100.5}],"has_more":false}`, "whole number", "", "", false},
		{"record before the window", `{"object":"list","data":[{"id":"a","effective_at":99}],"has_more":false}`, "filter was ignored", "", "", false},
		{"record after the window", `{"object":"list","data":[{"id":"a","effective_at":201}],"has_more":false}`, "filter was ignored", "", "", false},
		{"bad JSON in a record", `{"object":"list","data":[{"id":"a","effective_at":100,"x":tru}],"has_more":false}`, "no JSON list", "", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := testQuery
			q.after = "asked"
			p, err := decodePage([]byte(tt.body), q)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var records strings.Builder
			for _, r := range p.records {
				fmt.Fprintf(&records, "%s@%d ", r.id, r.at)
			}
			if records.String() != tt.records || p.cursor != tt.cursor || p.more != tt.more {
				t.Errorf("got %q, cursor %q, more %v", records.String(), p.cursor, p.more)
			}
		})
	}
}

// hardRecords are records whose bytes are easily changed by decoding and
// encoding them.
func hardRecords(t testing.TB) []string {
	samples, err := os.ReadFile("testdata/samples.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Split(strings.TrimSpace(string(samples)), "\n")
	return append(list,
		`{"id":"h1","effective_at":150,"a":9007199254740993,"b":1.50,"c":1E+5,"d":-0.0,"e":1e400,"f":123456789012345678901234567890}`,
		`{"effective_at":150,"type":"x","id":"h2","html":"<&>","ls":"\u2028","raw":"`+"\u2028\u2029\u007f"+`","sur":"\ud83d\ude00","lone":"\ud83d","slash":"\/","ctl":"\u0000\b\f"}`,
		`{"id":"h3","effective_at":150,"actor":null,"dup":1,"dup":2,"":{"":[]},"quote":"\\\"","end":"\\"}`,
		`{"id":"h4","effective_at":150,"bad utf8":"`+"\xff\xfe"+`","spaces":"  two  ","tab":"\t","empty":{},"list":[ ]}`,
		`{"id":"h5","effective_at":150,"big":"`+strings.Repeat("x\\n", 350_000)+`"}`,
	)
}

// TestRecordsKeepTheirBytes: pretty-printed or not, what is written of a record
// is what the API sent, without white space between tokens.
func TestRecordsKeepTheirBytes(t *testing.T) {
	records := hardRecords(t)
	joined := `{"object":"list","data":[` + strings.Join(records, ",") + `],"last_id":null,"has_more":false}`
	var indented bytes.Buffer
	if err := json.Indent(&indented, []byte(joined), "\t", "  "); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string][]byte{"compact": []byte(joined), "indented": indented.Bytes()} {
		t.Run(name, func(t *testing.T) {
			p, err := decodePage(body, query{gte: 0, lte: 1 << 40})
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range records {
				var compacted bytes.Buffer
				if err := json.Compact(&compacted, []byte(want)); err != nil {
					t.Fatal(err)
				}
				if got := compact(nil, p.records[i].raw); !bytes.Equal(got, compacted.Bytes()) {
					t.Errorf("record %d:\n got %.300s\nwant %.300s", i, got, compacted.Bytes())
				}
			}
		})
	}
}

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

const goodPage = `{"object":"list","data":[{"id":"a","effective_at":150}],"first_id":"a","last_id":"a","has_more":false}`

// fetchFrom reads a page from a real listener and counts the requests.
func fetchFrom(t *testing.T, ctx context.Context, q query, handler func(n int, w http.ResponseWriter, r *http.Request)) (page, int, error) {
	t.Helper()
	n := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		handler(n, w, r)
	}))
	defer server.Close()
	transport := newTransport()
	defer transport.CloseIdleConnections()
	var buf bytes.Buffer
	p, err := newAPI(server.URL+"/v1", testKey, transport).page(ctx, q, &buf, func(error, time.Duration) {})
	if err != nil && strings.Contains(err.Error(), testKey) {
		t.Errorf("error shows the key: %v", err)
	}
	return p, n, err
}

func TestRequest(t *testing.T) {
	q := query{gte: 100, lte: 200, after: "audit_log-x", limit: 7}
	p, _, err := fetchFrom(t, t.Context(), q, func(n int, w http.ResponseWriter, r *http.Request) {
		if r.Method != "GET" || r.URL.Path != "/v1/organization/audit_logs" {
			t.Errorf("%s %s", r.Method, r.URL.Path)
		}
		if got, want := r.URL.Query().Encode(), "after=audit_log-x&effective_at%5Bgte%5D=100&effective_at%5Blte%5D=200&limit=7"; got != want {
			t.Errorf("query %s, want %s", got, want)
		}
		for name, want := range map[string]string{"Authorization": "Bearer " + testKey, "User-Agent": "auditlog/" + Version, "Accept-Encoding": "gzip"} {
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
	if err != nil || len(p.records) != 1 || p.organization != "org-x" || p.date.IsZero() {
		t.Errorf("page %+v, error %v", p, err)
	}
}

// TestAnswers: what each kind of answer leads to, and how often it is asked for.
func TestAnswers(t *testing.T) {
	openAI := func(status int, message, param string) func(int, http.ResponseWriter, *http.Request) {
		return func(n int, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("retry-after-ms", "0")
			w.WriteHeader(status)
			json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"message": message, "type": "x", "param": param, "code": nil}})
		}
	}
	raw := func(status int, body string) func(int, http.ResponseWriter, *http.Request) {
		return func(n int, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("retry-after-ms", "0")
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
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
		{"403", openAI(403, "Audit logging is not enabled", ""), 1, []string{"403", "Audit logging is not enabled", "Data controls", "Organization Owner"}},
		{"404", raw(404, "<h1>Not Found</h1>"), 1, []string{"404", "OPENAI_BASE_URL", "Not Found"}},
		{"400", openAI(400, "Bad limit", "limit"), 1, []string{"400", "Bad limit"}},
		{"a proxy that answers with the key", raw(403, "you sent Authorization: Bearer "+testKey), 1, []string{"403", "you sent", "[secret]"}},
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
		{"200 with HTML", raw(200, "<html>Sign in</html>"), 1, []string{"no JSON list", "Sign in"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "connection dropped, then good" || strings.Contains(tt.name, "cut off") {
				t.Parallel() // they wait for a back-off of up to a second
			}
			p, n, err := fetchFrom(t, t.Context(), testQuery, tt.handler)
			if n != tt.requests {
				t.Errorf("%d requests, want %d", n, tt.requests)
			}
			if len(tt.err) == 0 && (err != nil || len(p.records) != 1) {
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

// TestLongWaitEndsAtOnce: a wait that would pass the deadline is not begun.
func TestLongWaitEndsAtOnce(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	_, n, err := fetchFrom(t, ctx, testQuery, func(n int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "86400")
		w.WriteHeader(429)
	})
	if n != 1 || err == nil || !strings.Contains(err.Error(), "24h0m0s") {
		t.Errorf("%d requests, error %v", n, err)
	}
}

// TestNoRedirect: the key goes nowhere but to the configured host.
func TestNoRedirect(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("request went to %s with %q", r.Host, r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		_, n, err := fetchFrom(t, t.Context(), testQuery, func(n int, w http.ResponseWriter, r *http.Request) {
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
	sent := 0
	_, _, err := fetchFrom(t, t.Context(), testQuery, func(n int, w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(403)
		chunk := bytes.Repeat([]byte("never "), 10_000)
		for sent = 0; sent < 20<<20; sent += len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	if err == nil || len(err.Error()) > 3*maxErrorText {
		t.Errorf("error of %d bytes", len(fmt.Sprint(err)))
	}
	if sent >= 20<<20 {
		t.Error("read the whole body of an error")
	}

	_, n, err := fetchFrom(t, t.Context(), testQuery, func(n int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip") // 64 MB in a few KB
		z := gzip.NewWriter(w)
		defer z.Close()
		zeros := make([]byte, 1<<20)
		for range 64 {
			z.Write(zeros)
		}
	})
	if n != 1 || !errors.Is(err, errPageTooLarge) {
		t.Errorf("%d requests, error %v", n, err)
	}
}

func TestCursorRefused(t *testing.T) {
	q := query{after: "audit_log-x"}
	for _, tt := range []struct {
		err  error
		q    query
		want bool
	}{
		{&apiError{api: true, status: 400, param: "after"}, q, true},
		{&apiError{api: true, status: 404, message: "No audit log audit_log-x"}, q, true},
		{&apiError{api: true, status: 400, message: "The pagination Cursor has expired"}, q, true},
		{fmt.Errorf("x: %w", &apiError{api: true, status: 404, param: "after"}), q, true},
		{&apiError{api: true, status: 400, param: "limit"}, q, false},
		{&apiError{api: true, status: 404}, q, false},
		{&apiError{api: true, status: 500, param: "after"}, q, false},
		{&apiError{api: true, status: 400, param: "after"}, query{}, false},
		{&apiError{status: 404, message: "Not found: /v1/x?after=audit_log-x"}, q, false}, // a proxy's
		{errCutBody, q, false},
	} {
		if got := cursorRefused(tt.err, tt.q); got != tt.want {
			t.Errorf("%v with cursor %q: %v", tt.err, tt.q.after, got)
		}
	}
}

func TestCompactMatchesTheStandardLibrary(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	space := func() string { return strings.Repeat([]string{" ", "\n", "\t", "\r"}[rnd.IntN(4)], rnd.IntN(3)) }
	var value func(depth int) string
	value = func(depth int) string {
		switch n := rnd.IntN(8); {
		case n < 2 && depth < 5:
			return "{" + space() + `"a \" b"` + space() + ":" + space() + value(depth+1) + space() + "}"
		case n < 4 && depth < 5:
			return "[" + space() + value(depth+1) + space() + "," + space() + value(depth+1) + space() + "]"
		}
		return []string{`"x  y"`, `"\\"`, `"\\\""`, `""`, "1.50", "-0", "1E+5", "true", "null"}[rnd.IntN(9)]
	}
	for range 20_000 {
		s := space() + value(0) + space()
		var want bytes.Buffer
		if err := json.Compact(&want, []byte(s)); err != nil {
			t.Fatal(err)
		}
		if got := compact(nil, []byte(s)); string(got) != want.String() {
			t.Fatalf("%q: %q, want %q", s, got, want.String())
		}
	}
}

// sampleRecords returns records as the API has them, of those seconds, with ids
// and other such tokens of their own.
func sampleRecords(t testing.TB, times []int64) [][]byte {
	samples := hardRecords(t)[:18]
	token := regexp.MustCompile(`\b[0-9a-f]{12,}\b|ex[0-9]{10,}`)
	at := regexp.MustCompile(`"effective_at":[0-9]+`)
	rnd := rand.New(rand.NewPCG(1, 2))
	var records [][]byte
	for i, second := range times {
		record := token.ReplaceAllStringFunc(samples[i%len(samples)], func(old string) string {
			if strings.Trim(old, "0123456789") == "" {
				return old // a number
			}
			return fmt.Sprintf("%016x%016x", rnd.Uint64(), rnd.Uint64())[:max(16, min(32, len(old)))]
		})
		records = append(records, []byte(at.ReplaceAllString(record, fmt.Sprintf(`"effective_at":%d`, second))))
	}
	return records
}

// samplePages are answers of a hundred records as the API sends them:
// pretty-printed. They are as many as those of 5,000 records: a processor soon
// knows every branch that a single one takes.
func samplePages(b *testing.B) (pages [][]byte, size int64) {
	for part := range slices.Chunk(sampleRecords(b, make([]int64, 5000)), 100) {
		var page bytes.Buffer
		if err := json.Indent(&page, []byte(`{"object":"list","data":[`+string(bytes.Join(part, []byte(",")))+`],"last_id":"x","has_more":true}`), "", "  "); err != nil {
			b.Fatal(err)
		}
		pages, size = append(pages, page.Bytes()), size+int64(page.Len())
	}
	return pages, size
}

// BenchmarkPage is all that a run does to its pages' bytes: decode, check, compact.
func BenchmarkPage(b *testing.B) {
	pages, size := samplePages(b)
	b.SetBytes(size)
	b.ReportAllocs()
	var line []byte
	for b.Loop() {
		for _, body := range pages {
			p, err := decodePage(body, query{gte: 0, lte: 1 << 40, limit: 100})
			if err != nil {
				b.Fatal(err)
			}
			for _, r := range p.records {
				line = compact(line[:0], r.raw)
			}
		}
	}
}

// BenchmarkValid is the measure for BenchmarkPage: one pass of the standard
// library over the same bytes.
func BenchmarkValid(b *testing.B) {
	pages, size := samplePages(b)
	b.SetBytes(size)
	for b.Loop() {
		for _, body := range pages {
			if !json.Valid(body) {
				b.Fatal("not valid")
			}
		}
	}
}
