package auditapi_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"example.com/auditlog/internal/sim/auditapi"
)

const key = "sk-admin-test"

type page struct {
	Object  string            `json:"object"`
	Data    []json.RawMessage `json:"data"`
	FirstID *string           `json:"first_id"`
	LastID  *string           `json:"last_id"`
	HasMore *bool             `json:"has_more"`
}

func (p page) ids() []string {
	ids := make([]string, len(p.Data))
	for i, raw := range p.Data {
		ids[i] = id(raw)
	}
	return ids
}

func id(raw []byte) string {
	var r struct{ ID string }
	json.Unmarshal(raw, &r)
	return r.ID
}

func get(s *auditapi.Server, query string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, auditapi.Path+"?"+query, nil)
	r.Header.Set("Authorization", "Bearer "+key)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func getPage(t testing.TB, s *auditapi.Server, query string) page {
	t.Helper()
	w := get(s, query)
	if w.Code != http.StatusOK {
		t.Fatalf("%s: status %d: %s", query, w.Code, w.Body)
	}
	var p page
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return p
}

// all pages through what the query asks for.
func all(t testing.TB, s *auditapi.Server, query string) (ids []string) {
	t.Helper()
	for after := ""; ; {
		p := getPage(t, s, query+after)
		ids = append(ids, p.ids()...)
		if !*p.HasMore {
			return ids
		}
		after = "&after=" + url.QueryEscape(*p.LastID)
	}
}

func add(t testing.TB, s *auditapi.Server, raw ...string) {
	t.Helper()
	for _, r := range raw {
		if err := s.Add([]byte(r)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnswer(t *testing.T) {
	s := auditapi.New(key, "example-org")
	w := get(s, "")
	if want := "{\n  \"object\": \"list\",\n  \"data\": [],\n  \"first_id\": null,\n  \"last_id\": null,\n  \"has_more\": false\n}"; w.Body.String() != want {
		t.Errorf("empty answer:\n%s", w.Body)
	}
	if w.Header().Get("Content-Type") != "application/json" || w.Header().Get("openai-organization") != "example-org" {
		t.Errorf("header %v", w.Header())
	}

	// Every byte but the white space between tokens stays.
	add(t, s, `{ "type" : "a", "e":{}, "n":[1.50,1E+5,9007199254740993], "s":"\u2028`+"\u2028"+` <&> \ud83d\ude00 a  b",`+
		"\n\t"+`"effective_at":7, "id":"r1"}`)
	want := `{
  "object": "list",
  "data": [
    {
      "type": "a",
      "e": {},
      "n": [
        1.50,
        1E+5,
        9007199254740993
      ],
      "s": "\u2028` + "\u2028" + ` <&> \ud83d\ude00 a  b",
      "effective_at": 7,
      "id": "r1"
    }
  ],
  "first_id": "r1",
  "last_id": "r1",
  "has_more": false
}`
	if got := get(s, "").Body.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	s.Each(func(id string, at int64, tenant bool) {
		if id != "r1" || at != 7 || tenant {
			t.Errorf("record %s at %d, tenant %v", id, at, tenant)
		}
	})
	raw, ok := s.Record("r1")
	if want := `{"type":"a","e":{},"n":[1.50,1E+5,9007199254740993],"s":"\u2028` + "\u2028" + ` <&> \ud83d\ude00 a  b","effective_at":7,"id":"r1"}`; string(raw) != want || !ok {
		t.Errorf("record %s, %v", raw, ok)
	}
}

func TestAddRefuses(t *testing.T) {
	s := auditapi.New(key, "")
	add(t, s, `{"id":"taken","effective_at":1}`)
	for _, raw := range []string{
		`{"effective_at":1}`,
		`{"id":"a"}`,
		`{"id":"a","effective_at":"1"}`,
		`{"id":"a","effective_at":1.5}`,
		`{"id":"a","effective_at":1`,
		`[]`,
		`{"id":"taken","effective_at":2}`,
	} {
		if s.Add([]byte(`{"id":"good","effective_at":1}`), []byte(raw)) == nil {
			t.Errorf("added %s", raw)
		}
	}
	if got := len(s.Records()); got != 1 {
		t.Errorf("%d records, want the first alone", got)
	}
}

func TestOrdersPageConsistently(t *testing.T) {
	g := auditapi.NewGenerator(1)
	s := auditapi.New(key, "")
	var want []string
	for i := range 60 {
		raw := g.Next(int64(1000 + i*7%40)) // ties, and not in the order of time
		add(t, s, string(raw))
		want = append(want, id(raw))
	}
	slices.Sort(want)
	seen := map[string]bool{}
	for _, o := range []auditapi.Order{auditapi.NewestFirst, auditapi.OldestFirst, auditapi.Shuffled(1), auditapi.Shuffled(2)} {
		s.SetOrder(o)
		first := all(t, s, "limit=100")
		seen[strings.Join(first, " ")] = true
		for _, limit := range []int{1, 7, 30, 59, 60} {
			if got := all(t, s, fmt.Sprintf("limit=%d", limit)); !slices.Equal(got, first) {
				t.Errorf("%v: limit %d pages otherwise than limit 100", o, limit)
			}
		}
		sorted := slices.Sorted(slices.Values(first))
		if !slices.Equal(sorted, want) {
			t.Errorf("%v: %d records, want each of %d once", o, len(first), len(want))
		}
		p := getPage(t, s, "limit=10&before="+first[25])
		if !slices.Equal(p.ids(), first[15:25]) || !*p.HasMore {
			t.Errorf("%v: before: %v, want %v", o, p.ids(), first[15:25])
		}
		p = getPage(t, s, "limit=10&before="+first[10])
		if !slices.Equal(p.ids(), first[:10]) || *p.HasMore {
			t.Errorf("%v: before: %v, want %v", o, p.ids(), first[:10])
		}
	}
	if len(seen) != 4 {
		t.Errorf("%d different orders, want 4", len(seen))
	}
}

func TestNewestFirst(t *testing.T) {
	s := auditapi.New(key, "")
	add(t, s, `{"id":"b","effective_at":2}`, `{"id":"c","effective_at":3}`, `{"id":"d","effective_at":4}`)
	p := getPage(t, s, "limit=2")
	add(t, s, `{"id":"a","effective_at":1}`, `{"id":"late","effective_at":3}`, `{"id":"e","effective_at":5}`)
	// Within a second the fraction decides, which is not shown.
	if got := all(t, s, ""); !slices.Equal(got, []string{"e", "d", "late", "c", "b", "a"}) && !slices.Equal(got, []string{"e", "d", "c", "late", "b", "a"}) {
		t.Errorf("order %v", got)
	}
	// What is added above a cursor moves nothing below it.
	if got := all(t, s, "after="+*p.LastID); !slices.Equal(slices.DeleteFunc(got, func(id string) bool { return id == "late" }), []string{"b", "a"}) {
		t.Errorf("after %s: %v", *p.LastID, got)
	}
}

func TestFilters(t *testing.T) {
	s := auditapi.New(key, "")
	add(t, s,
		`{"id":"1","effective_at":10,"type":"a.b","project":{"id":"p1"},"actor":{"type":"session","session":{"user":{"id":"u1","email":"u1@x"}}},"a.b":{"id":"res1"}}`,
		`{"id":"2","effective_at":20,"type":"a.c","project":{"id":"p2"},"actor":{"type":"api_key","api_key":{"user":{"id":"u2","email":"u2@x"}}},"a.b":{"id":"res1"},"a.c":{"id":"res2"}}`,
		`{"id":"3","effective_at":30,"type":"a.b","actor":{"type":"api_key","api_key":{"service_account":{"id":"sa"}}}}`,
		`{"id":"4","effective_at":40,"actor":null,"project":7}`,
	)
	if err := s.AddTenant([]byte(`{"id":"t","effective_at":20}`)); err != nil {
		t.Fatal(err)
	}
	for _, o := range []auditapi.Order{auditapi.NewestFirst, auditapi.OldestFirst, auditapi.Shuffled(3)} {
		s.SetOrder(o)
		for query, want := range map[string]string{
			"":                     "1 2 3 4",
			"effective_at[gt]=20":  "2 3 4",
			"effective_at[gte]=20": "2 3 4",
			"effective_at[lt]=20":  "1",
			"effective_at[lte]=20": "1",
			"effective_at[gte]=20&effective_at[lte]=30": "2", // 3 is at 30 and a fraction
			"effective_at[gte]=20&effective_at[lt]=31":  "2 3",
			"effective_at[gt]=20&effective_at[lt]=30":   "2",
			"effective_at[gte]=30&effective_at[lte]=20": "",
			"effective_at%5Bgte%5D=40":                  "4",
			"event_types[]=a.b":                         "1 3",
			"event_types[]=a.b&event_types[]=a.c":       "1 2 3",
			"event_types[]=a.b&effective_at[gt]=10":     "1 3",
			"project_ids[]=p1":                          "1",
			"actor_ids[]=u1&actor_ids[]=sa":             "1 3",
			"actor_emails[]=u2@x":                       "2",
			"resource_ids[]=res1":                       "1",
			"resource_ids[]=res2":                       "2",
			"tenant_only=true":                          "t",
			"tenant_only=false":                         "1 2 3 4",
		} {
			for _, limit := range []string{"&limit=1", "&limit=100"} {
				got := all(t, s, query+limit)
				slices.Sort(got)
				if got := strings.Join(got, " "); got != want {
					t.Errorf("%v: %s%s: got %q, want %q", o, query, limit, got, want)
				}
			}
		}
	}
	if got := len(s.Records()); got != 5 {
		t.Errorf("%d records, want 5", got)
	}
}

func TestErrors(t *testing.T) {
	type request struct{ method, path, auth string }
	good := request{"GET", auditapi.Path, "Bearer " + key}
	for _, tt := range []struct {
		name   string
		set    func(*auditapi.Server)
		change func(*request)
		status int
		param  any
		text   string
	}{
		{"no key", nil, func(r *request) { r.auth = "" }, 401, nil, "API key"},
		{"wrong key", nil, func(r *request) { r.auth = "Bearer secret-wrong" }, 401, nil, "Incorrect API key"},
		{"no bearer", nil, func(r *request) { r.auth = key }, 401, nil, "Incorrect API key"},
		{"rotated key", func(s *auditapi.Server) { s.SetKey("other") }, nil, 401, nil, "Incorrect API key"},
		{"scopes", func(s *auditapi.Server) { s.SetMissingScopes(true) }, nil, 401, nil, "Missing scopes: api.audit_logs.read"},
		{"forbidden", func(s *auditapi.Server) { s.SetForbidden(true) }, nil, 403, nil, "Audit logging"},
		{"method", nil, func(r *request) { r.method = "POST" }, 405, nil, ""},
		{"path", nil, func(r *request) { r.path = "/v1/organization/audit_log" }, 404, nil, "Invalid URL"},
		{"limit 0", nil, func(r *request) { r.path += "?limit=0" }, 400, "limit", ""},
		{"limit 101", nil, func(r *request) { r.path += "?limit=101" }, 400, "limit", ""},
		{"limit x", nil, func(r *request) { r.path += "?limit=x" }, 400, "limit", ""},
		{"time", nil, func(r *request) { r.path += "?effective_at[gt]=2020-01-01" }, 400, "effective_at[gt]", ""},
		{"tenant", nil, func(r *request) { r.path += "?tenant_only=maybe" }, 400, "tenant_only", ""},
		{"unknown parameter", nil, func(r *request) { r.path += "?event_types=a" }, 400, "event_types", "Unknown parameter"},
		{"unknown cursor", nil, func(r *request) { r.path += "?after=none" }, 400, "after", "none"},
		{"unknown before", nil, func(r *request) { r.path += "?before=none" }, 400, "before", "none"},
		{"both cursors", nil, func(r *request) { r.path += "?before=1&after=1" }, 400, "before", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := auditapi.New(key, "example-org")
			add(t, s, `{"id":"1","effective_at":1}`)
			req := good
			if tt.set != nil {
				tt.set(s)
			}
			if tt.change != nil {
				tt.change(&req)
			}
			r := httptest.NewRequest(req.method, req.path, nil)
			r.Header.Set("Authorization", req.auth)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)

			var body map[string]map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Fatalf("%v: %s", err, w.Body)
			}
			e := body["error"]
			message, _ := e["message"].(string)
			if w.Code != tt.status || e["param"] != tt.param || message == "" || !strings.Contains(message, tt.text) {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			if _, ok := e["code"]; !ok || e["type"] != "invalid_request_error" {
				t.Errorf("no code or type: %s", w.Body)
			}
			if w.Header().Get("Content-Type") != "application/json" || w.Header().Get("openai-organization") != "example-org" {
				t.Errorf("header %v", w.Header())
			}
			if got := w.Body.String(); strings.Contains(got, key) || strings.Contains(got, "secret") {
				t.Errorf("the key is in the answer: %s", got)
			}
		})
	}
}

func TestExpireCursors(t *testing.T) {
	s := auditapi.New(key, "")
	for i := range 4 {
		add(t, s, fmt.Sprintf(`{"id":"%d","effective_at":%d}`, i, i))
	}
	getPage(t, s, "limit=2") // 3 and 2
	s.ExpireCursors()
	if w := get(s, "after=2"); w.Code != 400 || !strings.Contains(w.Body.String(), `"param": "after"`) {
		t.Errorf("expired cursor: %d %s", w.Code, w.Body)
	}
	if got := getPage(t, s, "after=1").ids(); !slices.Equal(got, []string{"0"}) {
		t.Errorf("a cursor not served before: %v", got)
	}
	getPage(t, s, "limit=2")
	if got := getPage(t, s, "after=2").ids(); !slices.Equal(got, []string{"1", "0"}) {
		t.Errorf("a cursor served again: %v", got)
	}
}

func TestGzip(t *testing.T) {
	s := auditapi.New(key, "")
	add(t, s, `{"id":"1","effective_at":1}`)
	plain := get(s, "").Body.Bytes()
	request := func() *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, auditapi.Path, nil)
		r.Header.Set("Authorization", "Bearer "+key)
		r.Header.Set("Accept-Encoding", "gzip")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w
	}
	for range 2 {
		w := request()
		z, err := gzip.NewReader(w.Body)
		if err != nil || w.Header().Get("Content-Encoding") != "gzip" {
			t.Fatalf("not compressed: %v, %v", w.Header(), err)
		}
		if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("got %s, %v", got, err)
		}
	}
	s.SetGzip(false)
	if got := request().Body.Bytes(); !bytes.Equal(got, plain) {
		t.Errorf("switched off: %s", got)
	}
}

func TestGenerator(t *testing.T) {
	s := auditapi.New(key, "")
	a, b := auditapi.NewGenerator(1), auditapi.NewGenerator(1)
	types := map[string]bool{}
	idFirst := 0
	var text bytes.Buffer
	for i := range 500 {
		raw := a.Next(int64(i))
		if !bytes.Equal(raw, b.Next(int64(i))) {
			t.Fatal("one seed makes different records")
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, raw); err != nil || !bytes.Equal(raw, compact.Bytes()) {
			t.Fatalf("not compact: %v: %s", err, raw)
		}
		if keys := topKeys(t, raw); len(keys) != len(slices.Compact(slices.Sorted(slices.Values(keys)))) {
			t.Errorf("a key comes twice: %v", keys)
		} else if keys[0] == "id" {
			idFirst++
		}
		var r struct{ Type string }
		json.Unmarshal(raw, &r)
		types[r.Type] = true
		text.Write(raw)
		add(t, s, string(raw))
	}
	add(t, s, string(auditapi.NewGenerator(2).Next(1)))
	if len(types) < 15 || idFirst == 0 || idFirst == 500 {
		t.Errorf("%d types, %d with the id first", len(types), idFirst)
	}
	for _, want := range []string{`\u2028`, "\u2028", `\ud83d\ude00`, "😀", `<a href`, "9007199254740993", "1.50", "1E+5", `{"a":[{"a":[`, `"actor":null`, "[{},[]"} {
		if !bytes.Contains(text.Bytes(), []byte(want)) {
			t.Errorf("no record has %s", want)
		}
	}
	big := a.NextSize(1, 1<<20)
	if len(big) != 1<<20 {
		t.Errorf("%d bytes, want 1 MiB", len(big))
	}
	add(t, s, string(big))
}

func topKeys(t *testing.T, raw []byte) (keys []string) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.Token()
	for dec.More() {
		k, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k.(string))
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

// BenchmarkPages reads pages deep in 200,000 records, as a client does that
// collects a year.
func BenchmarkPages(b *testing.B) {
	g := auditapi.NewGenerator(1)
	s := auditapi.New(key, "")
	for i := range 200_000 {
		if err := s.Add(g.Next(int64(i / 3))); err != nil {
			b.Fatal(err)
		}
	}
	query, after := "limit=100&effective_at[gte]=1000&effective_at[lte]=60000", ""
	for b.Loop() {
		p := getPage(b, s, query+after)
		after = ""
		if *p.HasMore {
			after = "&after=" + *p.LastID
		}
	}
}
