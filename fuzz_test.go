package auditlog

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// The tests here take any input at all, and judge by other means than the
// code's own: encoding/json for what jsontext has read, bounds spelled out
// anew. FuzzWindows is beside TestWindows.

// member is one name and value of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// members lists those of a valid JSON object in their order, names that stand
// twice included; ok is false where v is something else.
func members(v []byte) (list []member, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(v))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, false
		}
		m := member{name: name.(string)}
		if dec.Decode(&m.value) != nil {
			return nil, false
		}
		list = append(list, m)
	}
	return list, true
}

// judgePage reads an answer with encoding/json; ok is false where it must be
// refused.
func judgePage(body []byte, q query) (p page, ok bool) {
	list, ok := members(body)
	if !json.Valid(body) || !ok {
		return page{}, false
	}
	found := map[string]json.RawMessage{}
	for _, m := range list {
		if found[m.name] != nil && slices.Contains([]string{"object", "data", "last_id", "has_more"}, m.name) {
			return page{}, false
		}
		found[m.name] = m.value
	}
	var object, cursor *string
	var more *bool
	var data []json.RawMessage
	if found["last_id"] == nil {
		found["last_id"] = json.RawMessage("null")
	}
	if json.Unmarshal(found["object"], &object) != nil || object == nil || *object != "list" ||
		json.Unmarshal(found["has_more"], &more) != nil || more == nil ||
		json.Unmarshal(found["last_id"], &cursor) != nil ||
		json.Unmarshal(found["data"], &data) != nil || data == nil {
		return page{}, false
	}
	p.more = *more
	if cursor != nil {
		p.cursor = *cursor
	}
	for _, raw := range data {
		r, ok := judgeRecord(raw)
		if !ok || r.at < q.gte || r.at > q.lte {
			return page{}, false
		}
		p.records = append(p.records, r)
	}
	return p, !p.more || len(p.records) > 0 && p.cursor != "" && p.cursor != q.after
}

func judgeRecord(raw []byte) (r record, ok bool) {
	list, ok := members(raw)
	if !ok {
		return r, false
	}
	r.raw = raw
	timed := false
	for _, m := range list {
		switch m.name {
		case "id":
			var id *string
			if json.Unmarshal(m.value, &id) != nil || id == nil {
				return r, false
			}
			r.id = *id
		case "effective_at":
			var at *float64
			if json.Unmarshal(m.value, &r.at) != nil {
				if json.Unmarshal(m.value, &at) != nil || at == nil || *at != math.Trunc(*at) || math.Abs(*at) > 1<<53 {
					return r, false
				}
				r.at = int64(*at)
			} else if m.value[0] == 'n' { // null leaves it as it is
				return r, false
			}
			timed = true
		}
	}
	return r, timed && r.id != ""
}

// FuzzDecodePage: any bytes are an error, or the very page that encoding/json
// reads: the elements of "data", each with its bytes. Cut anywhere, a page is
// cut and no shorter page.
func FuzzDecodePage(f *testing.F) {
	for _, body := range []string{
		goodPage,
		`{"object":"list","data":[{"id":"a","effective_at":150,"x":[1.50,"\u2028"," "]}],"last_id":"a","has_more":true}`,
		"{\"object\" : \"list\", \"data\":[\n{ \"id\":\"a\" , \"effective_at\":1e2}\n], \"has_more\":false}",
		"{\r\n\t\"object\": \"list\",\r\n\t\"data\": [ {\r\n\t\"id\": \"a\",\r\n\t\"effective_at\": 150\r\n\t} ],\r\n\t\"has_more\": false\r\n}",
		`{"object":"list","data":[{"id":"a","effective_at":1e17,"effective_at":150}],"has_more":false}`,
		`{"object":"list","data":[{"id":"a","effective_at":1,"effective_at":150},{"id":"b","id":"c","effective_at":200.0}],"last_id":"c","has_more":true}`,
		"{\"object\":\"list\",\"data\":[{\"id\":\"\xff\\ud800\u2028\",\"effective_at\":150,\"\\u0069d\":\"\xc3\"}],\"last_id\":null,\"has_more\":false}\r\n",
		`{"object":"list","data":[],"last_id":"asked","has_more":false}` + "\u00a0",
		`{"object":"list","data":[{"id":"a","effective_at":150}],"last_id":"asked","has_more":true}`,
		`{"error":{"message":"no","type":"x","param":null,"code":null}}`,
		`<html>Sign in</html>`,
	} {
		f.Add([]byte(body), uint16(len(body)/2))
	}
	f.Fuzz(func(t *testing.T, body []byte, cut uint16) {
		q := testQuery
		q.after = "asked"
		p, err := decodePage(body, q)
		want, ok := judgePage(body, q)
		if (err == nil) != ok {
			t.Fatalf("error %v, where encoding/json says %v", err, ok)
		}
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("error has more than one line: %q", err)
			}
			return
		}
		if p.more != want.more || p.cursor != want.cursor || len(p.records) != len(want.records) {
			t.Fatalf("more %v, cursor %q, %d records; want %v, %q, %d", p.more, p.cursor, len(p.records), want.more, want.cursor, len(want.records))
		}
		for i, r := range p.records {
			if w := want.records[i]; r.id != w.id || r.at != w.at || !bytes.Equal(r.raw, w.raw) {
				t.Fatalf("record %d: %q at %d %q, want %q at %d %q", i, r.id, r.at, r.raw, w.id, w.at, w.raw)
			}
			var line bytes.Buffer
			if err := json.Compact(&line, r.raw); err != nil {
				t.Fatal(err)
			}
			if got := compact(nil, r.raw); !bytes.Equal(got, line.Bytes()) || bytes.ContainsAny(got, "\n\r") {
				t.Fatalf("compacted to %q, want %q", got, line.Bytes())
			}
			// The state keeps ids and cursors, and must give them back as they were.
			if !utf8.ValidString(r.id) || !utf8.ValidString(p.cursor) {
				t.Fatalf("id %q or cursor %q will not outlast the state", r.id, p.cursor)
			}
		}
		whole := bytes.TrimRight(body, " \t\r\n")
		if _, err := decodePage(whole[:int(cut)%len(whole)], q); !errors.Is(err, errCutBody) {
			t.Fatalf("cut at %d: error %v", int(cut)%len(whole), err)
		}
	})
}

// encoded is what commit writes.
func encoded(t *testing.T, s State) []byte {
	t.Helper()
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// FuzzDecodeState: any bytes are an error, or a state that a run can go on
// from: it comes back as it was from being stored, its windows are ranges, and
// an edited watermark gives up nothing at or after it, and where it was moved
// forward has nothing read again.
func FuzzDecodeState(f *testing.F) {
	for _, data := range []string{
		`{"last_effective_at":1795397838,"last_run":"2026-11-24T01:00:02Z","high":1795484238,"backlog":[{"gte":1795397838,"lte":1795484238,"after":"audit_log-a","after_at":1795430000,"top":1795484000}],"recent_ids":{"audit_log-b":1795484238},"recent_since":1795484000,"last_object":"openai-auditlog/openai_auditlog_20261124_010002.ndjson","staged":"state/openai-auditlog/staged/x"}`,
		`{"last_effective_at":50,"last_run":"x","high":90,"backlog":[{"gte":70,"lte":90},{"gte":10,"lte":60,"after":"a","after_at":30,"top":40,"unordered":true}],"recent_ids":null,"organization":"org-x","staged_bucket":"b"}`,
		`{"last_effective_at": 1795397838, "last_run": "2026-11-24T01:00:02.123456+00:00"}`,
		`{"last_effective_at": 1795397838.0, "last_run": null}`,
		`{"last_effective_at":30,"high":90,"backlog":[{"gte":10,"lte":60,"after":"a","after_at":30,"top":40}],"recent_ids":{}}`,
		`{"last_effective_at":65,"high":90,"backlog":[{"gte":70,"lte":90},{"gte":10,"lte":60}],"recent_ids":{}}`,
		`{"last_effective_at":40,"high":90,"backlog":[],"recent_ids":{"a":90,"b":50},"recent_since":50}`,
		`{"last_effective_at":95,"high":90,"backlog":[],"recent_ids":{"a":90},"recent_since":50}`,
		`{"last_effective_at":10,"high":10,"backlog":[],"recent_ids":{},"recent_since":90}`,
		`{"last_effective_at":90,"high":90,"filter":"event_types%5B%5D=a","tenant":{"last_effective_at":10,"high":60,"backlog":[{"gte":10,"lte":60,"filter":"project_ids%5B%5D=p"}]},"last_backfill":"b"}`,
		`{"last_effective_at":-1}`,
		`[]`,
	} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		snap, err := decodeState(data, testNow)
		if err != nil {
			return
		}
		if ahead := testNow.Add(24 * time.Hour).Unix(); snap.Watermark < 0 || snap.Watermark > ahead || snap.High < snap.Watermark && len(snap.Backlog) == 0 {
			t.Fatalf("accepted watermark %d, high %d", snap.Watermark, snap.High)
		}
		// What lies before the rest of an edited backlog is not read again.
		if implied := snap.watermark(); snap.Watermark > implied || snap.Watermark < implied && snap.note == "" {
			t.Fatalf("watermark %d, note %q; the rest implies %d", snap.Watermark, snap.note, implied)
		}
		stays := func(s State) {
			t.Helper()
			s.Watermark = s.watermark()
			if s.Tenant != nil {
				tenant := *s.Tenant
				tenant.Watermark = tenant.watermark()
				s.Tenant = &tenant
			}
			got, err := decodeState(encoded(t, s), testNow)
			if err != nil {
				t.Fatalf("refuses its own state: %v", err)
			}
			if diff := cmp.Diff(s, got.State, cmpopts.IgnoreUnexported(Stream{})); diff != "" || got.note != "" || !got.continues {
				t.Fatalf("note %q, continues %v, differs (-want +got):\n%s", got.note, got.continues, diff)
			}
		}
		stays(snap.State)

		// covers reports whether a record at this time can still be collected.
		covers := func(s *State, at int64) bool {
			return at >= max(s.High, s.RecentSince) || slices.ContainsFunc(s.Backlog, func(w window) bool { return w.unread(at) })
		}
		var before State // as it was before an edit
		_ = json.Unmarshal(data, &before)
		edges := []int64{snap.Watermark, before.High, before.RecentSince}
		for _, w := range before.Backlog {
			edges = append(edges, w.Gte, w.Lte, w.AfterAt)
		}
		for _, at := range edges {
			for _, at := range []int64{at - 1, at, at + 1} {
				if at >= snap.Watermark && covers(&before, at) && !covers(&snap.State, at) {
					t.Fatalf("records at %d are given up, watermark %d:\n%+v\n%+v", at, snap.Watermark, before, snap.State)
				}
				if snap.note != "" && snap.Watermark >= before.watermark() && covers(&snap.State, at) && !covers(&before, at) {
					t.Fatalf("records at %d are read again, watermark %d:\n%+v\n%+v", at, snap.Watermark, before, snap.State)
				}
			}
		}

		for _, overlap := range []int64{0, 120, 366 * 24 * 3600} {
			r := plan(&snap.Stream, testNow, overlap, 24*3600, "")
			fresh := r.windows[0]
			if planned := len(r.windows) - 1; planned > len(snap.Backlog) || planned < len(snap.Backlog) && snap.note == "" || fresh.Gte > snap.High || fresh.Lte < testNow.Unix() {
				t.Fatalf("%d windows, the new one %+v, of %+v", len(r.windows), fresh, snap.State)
			}
			for i, w := range r.windows {
				if w.Gte < 0 || w.Gte > w.Lte || i > 1 && w.Lte > r.windows[i-1].Lte {
					t.Fatalf("window %d of the plan: %+v", i, w)
				}
			}
			r.take(fresh, page{date: testNow})
			next := r.next(testNow)
			if next.High < snap.High || len(next.Backlog) != len(r.windows)-1 {
				t.Fatalf("a run without news makes\n%+v of\n%+v", next, snap.State)
			}
			stays(State{Stream: *next})
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

// FuzzFilter: whatever the settings hold, a request asks for just that and for what
// it would ask without.
func FuzzFilter(f *testing.F) {
	f.Add("login.failed, key.created", "a+b@x.org,")
	f.Add("a&limit=1", "=,%,%zz,;")
	f.Add(" ,\u00a0,\u2028", "\xff")
	f.Fuzz(func(t *testing.T, types, emails string) {
		c, err := LoadConfig(environ("EVENT_TYPES", types, "ACTOR_EMAILS", emails))
		if err != nil {
			return
		}
		if err := c.filter.check(); err != nil {
			t.Fatal(err)
		}
		got, err := url.ParseQuery(query{gte: 1, lte: 2, limit: 3, after: "x", filter: c.filter}.encode())
		if err != nil {
			t.Fatal(err)
		}
		want := url.Values{"effective_at[gte]": {"1"}, "effective_at[lte]": {"2"}, "limit": {"3"}, "after": {"x"}}
		for name, list := range map[string]string{"event_types[]": types, "actor_emails[]": emails} {
			var values []string
			for v := range strings.SplitSeq(list, ",") {
				if v = strings.TrimSpace(v); v != "" && !slices.Contains(values, v) {
					values = append(values, v)
				}
			}
			if slices.Sort(values); len(values) > 0 {
				want[name] = values
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q and %q make another query (-want +got):\n%s", types, emails, diff)
		}
	})
}

// FuzzConfig: any values of the settings are an error that names those at
// fault and shows no key, or settings within their bounds, with names that do
// not get in each other's way.
func FuzzConfig(f *testing.F) {
	f.Add("logs", testKey, "", "", "", "", "", "", "", "", "")
	f.Add("logs", testKey+"\r\n", "/logs/openai/", "state/openai-auditlog/state.json", "states", "1", "100", "1", "0", "http://proxy:8080/v1/", "60")
	f.Add("gs://logs", "two keys", "/", "a/", "b/c", "0", "101", "-1", "1.5", "ftp://u:hunter2@x", "99999999999999999999")
	f.Add("logs", testKey, "state/staged/state.json/feed", "state/state.json", "logs", "5000", "1", "24", "120", "", "480")
	f.Add("logs", testKey, "staged", "state/..", "", "", "", "", "", "", "")
	f.Add("logs", testKey, "staged", "staged/state", "", "2147483648", "", "", "", "https://proxy/v1#", "")
	f.Add("logs", testKey, "", "", "", "", "", "", "", "https://proxy/v1?", "")
	f.Add("logs\t", testKey, "feed\n", "\xfcber", "a b", "", "", "", "", "", "")
	f.Add("logs", "", "feed", "x/..", "", "", "", "", "", "https://proxy?key=x", "")
	numbers := []struct {
		name      string
		low, high int64
		of        func(Config) int64
	}{
		{"MAX_RECORDS", 1, math.MaxInt32, func(c Config) int64 { return int64(c.MaxRecords) }},
		{"PAGE_SIZE", 1, 100, func(c Config) int64 { return int64(c.PageSize) }},
		{"LOOKBACK_HOURS", 1, 100 * 366 * 24, func(c Config) int64 { return c.Lookback }},
		{"OVERLAP_SECONDS", 0, 366 * 24 * 3600, func(c Config) int64 { return c.Overlap }},
		{"RUN_TIMEOUT_SECONDS", 1, 24 * 3600, func(c Config) int64 { return c.RunTimeout }},
	}
	f.Fuzz(func(t *testing.T, bucket, key, prefix, stateKey, stateBucket, maxRecords, pageSize, lookback, overlap, base, timeout string) {
		const mark = "sk-admin-" // begins each key, so that it is told apart from what the error says
		if key != "" {
			key = mark + strings.TrimPrefix(key, mark)
		}
		environ := map[string]string{
			"GCS_BUCKET": bucket, "OPENAI_ADMIN_KEY": key, "GCS_PREFIX": prefix, "STATE_KEY": stateKey, "STATE_BUCKET": stateBucket,
			"MAX_RECORDS": maxRecords, "PAGE_SIZE": pageSize, "LOOKBACK_HOURS": lookback, "OVERLAP_SECONDS": overlap,
			"OPENAI_BASE_URL": base, "RUN_TIMEOUT_SECONDS": timeout,
		}
		c, err := LoadConfig(environ)
		for _, n := range numbers {
			v, parseErr := strconv.ParseInt(environ[n.name], 10, 64)
			good := environ[n.name] == "" || parseErr == nil && v >= n.low && v <= n.high
			if named := err != nil && strings.Contains(err.Error(), " "+n.name+": "); named == good {
				t.Fatalf("%s is %q, error %v", n.name, environ[n.name], err)
			}
			if err == nil && environ[n.name] != "" && n.of(c) != v {
				t.Fatalf("%s is %q, read as %d", n.name, environ[n.name], n.of(c))
			}
		}
		if err != nil {
			text := err.Error()
			if !slices.ContainsFunc(Settings(), func(s Setting) bool { return strings.HasPrefix(text, "bad settings: "+s.Name+": ") }) {
				t.Fatalf("error begins with no setting: %v", err)
			}
			delete(environ, "OPENAI_ADMIN_KEY")
			if strings.Contains(text, mark) && !strings.Contains(fmt.Sprintf("%q", environ), mark) {
				t.Fatalf("error shows the key: %v", err)
			}
			if strings.ContainsAny(text, "\n\r") {
				t.Fatalf("error has more than one line: %q", err)
			}
			return
		}

		for _, name := range []string{c.Bucket, c.StateBucket, c.Prefix, c.StateKey} {
			if name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") {
				t.Fatalf("accepted the name %q", name)
			}
		}
		if strings.Contains(c.Bucket+c.StateBucket, "/") {
			t.Fatalf("accepted the buckets %q and %q", c.Bucket, c.StateBucket)
		}
		if c.AdminKey == "" || strings.ContainsFunc(string(c.AdminKey), notVisibleASCII) {
			t.Fatalf("accepted the key %q", string(c.AdminKey))
		}
		u, err := url.Parse(newAPI(c.BaseURL, c.AdminKey, nil).url + "?" + testQuery.encode())
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Fragment != "" ||
			!strings.HasSuffix(u.Path, "/organization/audit_logs") || u.RawQuery != testQuery.encode() {
			t.Fatalf("accepted the base URL %q: error %v, %+v", c.BaseURL, err, u)
		}

		// A sweep deletes what lies in the folder of staged objects: that must be
		// this state's alone.
		staged, feed := c.stagedDir(), c.Prefix+"/"
		folder, name := path.Split(c.StateKey)
		moved, own := strings.CutSuffix(staged, folder+"staged/"+name+"/")
		if !own || strings.ReplaceAll(moved, "staged-", "") != "" || strings.HasPrefix(c.StateKey, staged) {
			t.Fatalf("staged objects of state %q lie under %q", c.StateKey, staged)
		}
		if c.StateBucket == c.Bucket && (strings.HasPrefix(staged, feed) || strings.HasPrefix(feed, staged)) {
			t.Fatalf("staged objects lie under %q, the feed's under %q", staged, feed)
		}
		if step := c.stepTimeout(); step < 5*time.Second || step > time.Minute {
			t.Fatalf("%v for a step", step)
		}
	})
}

// FuzzEvent: any event is refused, or is a Pub/Sub message.
func FuzzEvent(f *testing.F) {
	const published = "google.cloud.pubsub.topic.v1.messagePublished"
	f.Add(published, []byte(`{"message":{"data":"cnVu","messageId":"1","publishTime":"2026-11-24T01:00:00Z","attributes":{}},"subscription":"projects/p/subscriptions/s"}`))
	f.Add(published, []byte(`{"message":{}}`))
	f.Add(published, []byte(`{"message":{"data":"no base64!"}}`))
	f.Add(published, []byte(`{"message":null}`))
	f.Add(published, []byte(`"message"`))
	f.Add(published, []byte{})
	f.Add("google.cloud.storage.object.v1.finalized", []byte(`{"bucket":"logs","name":"%s\n"}`))
	f.Fuzz(func(t *testing.T, kind string, data []byte) {
		e := event.New()
		e.SetType(kind)
		e.DataEncoded = data
		_, _, err := checkEvent(e)
		if good := kind == published && isMessage(data); (err == nil) != good {
			t.Fatalf("error %v, want none: %v", err, good)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n\r") {
			t.Fatalf("error has more than one line: %q", err)
		}
	})
}

// isMessage reports whether data is an object with an object as "message",
// whose "data", if there is any, is base64. encoding/json takes names in any
// case, and of those that stand twice the last one.
func isMessage(data []byte) bool {
	list, ok := members(data)
	if !json.Valid(data) || !ok {
		return false
	}
	found := false
	for _, m := range list {
		if !strings.EqualFold(m.name, "message") {
			continue
		}
		fields, ok := members(m.value)
		if found = ok; !ok && string(m.value) != "null" {
			return false
		}
		for _, field := range fields {
			var s *string
			if !strings.EqualFold(field.name, "data") {
				continue
			}
			if json.Unmarshal(field.value, &s) != nil {
				return false
			}
			if s != nil {
				if _, err := base64.StdEncoding.DecodeString(*s); err != nil {
					return false
				}
			}
		}
	}
	return found
}

// FuzzAnswer: any error becomes an answer that the framework can print: one
// line, without a URL and without verbs.
func FuzzAnswer(f *testing.F) {
	f.Add("Run failed: Get \"https://api.openai.com/v1/x?a%5Bgte%5D=1\": EOF\nand more")
	f.Add("googleapi: got HTTP response code 502 with body: <html>\r\n<a href=HTTPS://proxy/%73>")
	f.Add("100%")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		err := answer(500, errors.New(text))
		got := err.Error()
		if strings.ContainsAny(got, "%\n\r") || strings.Contains(strings.ToLower(got), "http://") || strings.Contains(strings.ToLower(got), "https://") {
			t.Fatalf("answers %q", got)
		}
		if !strings.HasPrefix(got, "500: ") {
			t.Fatalf("answers %q without its status", got)
		}
	})
}
