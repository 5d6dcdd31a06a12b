package udm

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// decode reads JSON for comparison.
func decode(t *testing.T, data string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(data), &v); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return v
}

// mapped maps a record and returns the event as JSON, with the fields that are
// not in it.
func mapped(t *testing.T, record string) (event string, unmapped []string) {
	t.Helper()
	_, err := read([]byte(record), func(path []byte, mapped bool) {
		if !mapped {
			unmapped = append(unmapped, string(path))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	e, err := Map([]byte(record))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(data), unmapped
}

// The guide's table, row by row, and what records may hold instead of what they
// should.
func TestMap(t *testing.T) {
	const (
		constants = `"product_name":"OPENAI_AUDITLOG","vendor_name":"OPENAI_AUDITLOG"`
		generic   = `"metadata":{"event_type":"GENERIC_EVENT",` + constants + `}`
		user      = `"metadata":{"event_type":"USER_UNCATEGORIZED",` + constants + `}`
		status    = `"metadata":{"event_type":"STATUS_UPDATE",` + constants + `}`
	)
	at := func(time string) string {
		return `{"metadata":{"event_timestamp":"` + time + `","event_type":"GENERIC_EVENT",` + constants + `}}`
	}
	session := func(members string) string { return `{"actor":{"session":{` + members + `}}}` }
	details := func(members string) string { return session(`"ip_address_details":{` + members + `}`) }
	place := func(members string) string { return `{` + generic + `,"principal":{"location":{` + members + `}}}` }
	for _, tt := range []struct {
		name, record, want string
		unmapped           []string
	}{
		{"nothing", `{}`, `{` + generic + `}`, nil},

		{"region_code", details(`"region_code":"CA"`), `{` + generic + `,"additional":{"fields":{"region_code":"CA"}}}`, nil},
		{"asn", details(`"asn":"1234"`), `{` + generic + `,"additional":{"fields":{"asn":"1234"}}}`, nil},
		{"asn, a number", details(`"asn":4294967295`), `{` + generic + `,"additional":{"fields":{"asn":"4294967295"}}}`, nil},
		{"both", details(`"region_code":"CA","asn":"1234"`), `{` + generic + `,"additional":{"fields":{"region_code":"CA","asn":"1234"}}}`, nil},

		{"effective_at", `{"effective_at":1770979925}`, at("2026-02-13T10:52:05Z"), nil},
		{"effective_at, a string", `{"effective_at":"1770979925"}`, at("2026-02-13T10:52:05Z"), nil},
		{"effective_at, a fraction", `{"effective_at":1770979925.25}`, at("2026-02-13T10:52:05.250Z"), nil},
		{"effective_at, with an exponent", `{"effective_at":1.770979925e9}`, at("2026-02-13T10:52:05Z"), nil},
		{"effective_at 0", `{"effective_at":0}`, at("1970-01-01T00:00:00Z"), nil},
		{"effective_at before 1970", `{"effective_at":-0.5}`, at("1969-12-31T23:59:59.500Z"), nil},
		{"effective_at, the last", `{"effective_at":253402300799}`, at("9999-12-31T23:59:59Z"), nil},
		{"effective_at too late", `{"effective_at":253402300800}`, `{` + generic + `}`, []string{"effective_at"}},
		{"effective_at too late, a fraction", `{"effective_at":253402300799.9999}`, `{` + generic + `}`, []string{"effective_at"}},
		{"effective_at too large", `{"effective_at":1e999}`, `{` + generic + `}`, []string{"effective_at"}},
		{"effective_at, no number", `{"effective_at":"NaN"}`, `{` + generic + `}`, []string{"effective_at"}},
		{"effective_at, a date", `{"effective_at":"2026-02-13"}`, `{` + generic + `}`, []string{"effective_at"}},

		{"user_agent", session(`"user_agent":"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/144.0.0.0 Safari/537.36"`),
			`{` + generic + `,"network":{"http":{
				"user_agent":"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/144.0.0.0 Safari/537.36",
				"parsed_user_agent":{"family":"APPLEWEBKIT","platform":"Windows","os":"Windows NT 10.0",
					"browser":"Chrome","browser_version":"144.0.0.0","browser_engine_version":"537.36"}}}}`, nil},
		{"ja3", session(`"ja3":"a4"`), `{` + generic + `,"network":{"tls":{"client":{"ja3":"a4"}}}}`, nil},
		{"ip_address", session(`"ip_address":"203.0.113.1"`), `{` + status + `,"principal":{"ip":["203.0.113.1"],"asset":{"ip":["203.0.113.1"]}}}`, nil},
		{"ip_address, IPv6", session(`"ip_address":"2001:db8::1"`), `{` + status + `,"principal":{"ip":["2001:db8::1"],"asset":{"ip":["2001:db8::1"]}}}`, nil},

		{"city", details(`"city":"Zürich"`), place(`"city":"Zürich"`), nil},
		{"country", details(`"country":"CH"`), place(`"country_or_region":"CH"`), nil},
		{"region", details(`"region":"California"`), place(`"state":"California"`), nil},
		{"latitude", details(`"latitude":"37.77490"`), place(`"region_latitude":37.7749`), nil},
		{"latitude, a number", details(`"latitude":37.7749`), place(`"region_latitude":37.7749`), nil},
		{"latitude 0", details(`"latitude":"0"`), place(`"region_latitude":0`), nil},
		{"latitude, no number", details(`"latitude":"north"`), `{` + generic + `}`, []string{"actor.session.ip_address_details.latitude"}},
		{"latitude, not finite", details(`"latitude":"Inf"`), `{` + generic + `}`, []string{"actor.session.ip_address_details.latitude"}},
		{"longitude", details(`"longitude":"-122.41940"`), place(`"region_longitude":-122.4194`), nil},
		{"longitude, a number", details(`"longitude":-122.4194`), place(`"region_longitude":-122.4194`), nil},
		{"longitude, too large", details(`"longitude":1e39`), `{` + generic + `}`, []string{"actor.session.ip_address_details.longitude"}},

		{"email", session(`"user":{"email":"a@example.com"}`), `{` + user + `,"principal":{"user":{"email_addresses":["a@example.com"]}}}`, nil},
		{"user id", session(`"user":{"id":"user-Ab1"}`), `{` + user + `,"principal":{"user":{"userid":"user-Ab1"}}}`, nil},
		{"user id in a longer text", session(`"user":{"id":"org/user-Ab1:x"}`), `{` + user + `,"principal":{"user":{"userid":"user-Ab1"}}}`, nil},
		{"user id of another kind", session(`"user":{"id":"superuser-1"}`), `{` + generic + `}`, []string{"actor.session.user.id"}},
		{"ja4", session(`"ja4":"q13d"`), `{` + generic + `,"security_result":[{"detection_fields":[{"key":"ja4","value":"q13d"}]}]}`, nil},
		{"type", `{"type":"login.succeeded"}`, `{` + generic + `,"security_result":[{"summary":"login.succeeded"}]}`, nil},
		{"type and ja4 in one result", `{"actor":{"session":{"ja4":"q13d"}},"type":"x"}`,
			`{` + generic + `,"security_result":[{"summary":"x","detection_fields":[{"key":"ja4","value":"q13d"}]}]}`, nil},
		{"event type with an address and a user", session(`"user":{"email":"a@example.com"},"ip_address":"203.0.113.1"`),
			`{` + status + `,"principal":{"ip":["203.0.113.1"],"asset":{"ip":["203.0.113.1"]},"user":{"email_addresses":["a@example.com"]}}}`, nil},

		{"no actor", `{"actor":null}`, `{` + generic + `}`, nil},
		{"nothing in the actor", `{"actor":{"session":null}}`, `{` + generic + `}`, nil},
		{"null and empty fields", session(`"ip_address":null,"user":{"email":"","id":null},"ja4":""`), `{` + generic + `}`, nil},
		{"an actor that is no object", `{"actor":"system"}`, `{` + generic + `}`, []string{"actor"}},
		{"a session that is an array", `{"actor":{"session":[{"ip_address":"203.0.113.1"}]}}`, `{` + generic + `}`, []string{"actor.session[].ip_address"}},
		{"an API key's user", `{"actor":{"type":"api_key","api_key":{"user":{"id":"user-1","email":"a@example.com"}}}}`, `{` + generic + `}`,
			[]string{"actor.type", "actor.api_key.user.id", "actor.api_key.user.email"}},
		{"fields of other types", `{"type":true,"actor":{"session":{"ja3":{"x":1},"ip_address":["203.0.113.1"]}}}`, `{` + generic + `}`,
			[]string{"type", "actor.session.ja3.x", "actor.session.ip_address[]"}},
		{"a name with dots", `{"actor.session.ip_address":"203.0.113.1"}`, `{` + generic + `}`, []string{"actor.session.ip_address"}},
		{"names in other case", `{"Type":"x","actor":{"session":{"JA3":"y"}}}`, `{` + generic + `}`, []string{"Type", "actor.session.JA3"}},
		{"a name that stands twice", `{"type":"x","type":"y"}`, `{` + generic + `,"security_result":[{"summary":"y"}]}`, nil},
		{"what is unmapped", `{"a":[1,[2],{"b":null,"c":{"d":false}}],"e":{},"f":[],"g":""}`, `{` + generic + `}`,
			[]string{"a[]", "a[][]", "a[].b", "a[].c.d", "g"}},
		{"invalid UTF-8", "{\"type\":\"a\xff\"}", `{` + generic + `,"security_result":[{"summary":"a�"}]}`, nil},
		{"half a surrogate pair", `{"type":"\ud800"}`, `{` + generic + `,"security_result":[{"summary":"�"}]}`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			event, unmapped := mapped(t, tt.record)
			if diff := cmp.Diff(decode(t, tt.want), decode(t, event)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if diff := cmp.Diff(tt.unmapped, unmapped); diff != "" {
				t.Errorf("unmapped: -want +got\n%s", diff)
			}
		})
	}
}

func TestMapRefuses(t *testing.T) {
	for _, line := range []string{
		``, ` `, `x`, `{`, `{"a":1`, `{"a":1}}`, `{} {}`, `{} x`, `[]`, `null`, `"a"`, `1`, `{"a":01}`, `{a:1}`, "{\"a\":\"\x01\"}",
		strings.Repeat(`{"a":`, 20000) + `1` + strings.Repeat(`}`, 20000), // deeper than any parser goes
	} {
		if e, err := Map([]byte(line)); err == nil {
			t.Errorf("%.40s: mapped to %+v", line, e)
		}
		if _, err := read([]byte(line), func(path []byte, _ bool) { t.Errorf("field %s told of %.40s", path, line) }); err == nil {
			t.Errorf("%.40s: read", line)
		}
	}
}

// All conditions of the table, the most specific first; those that ask for a
// principal do not hold without one.
func TestEventType(t *testing.T) {
	seen := map[string]int{}
	for bits := range 32 {
		is := func(bit int) bool { return bits>>bit&1 == 1 }
		tr := traits{principal: is(0), user: is(1), target: is(2), file: is(3), sourceFile: is(4)}
		want := "GENERIC_EVENT"
		if tr.user {
			want = "USER_UNCATEGORIZED"
		}
		if tr.principal {
			want = "STATUS_UPDATE"
			if tr.target {
				want = "NETWORK_CONNECTION"
			}
			if tr.file {
				want = "FILE_UNCATEGORIZED"
				if tr.sourceFile {
					want = "FILE_COPY"
				}
			}
		}
		if got := tr.eventType(); got != want {
			t.Errorf("%+v: %s, want %s", tr, got, want)
		}
		seen[want]++
	}
	if len(seen) != 6 {
		t.Errorf("tried %v", seen)
	}
}

func TestParseUserAgent(t *testing.T) {
	const mac = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15"
	for s, want := range map[string]UserAgent{
		"": {},
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36 Edg/143.0.3650.75": {
			Family: "APPLEWEBKIT", Platform: "Windows", OS: "Windows NT 10.0", Browser: "Edge", BrowserVersion: "143.0.3650.75", BrowserEngineVersion: "537.36"},
		mac: {Family: "APPLEWEBKIT", Platform: "Macintosh", OS: "Mac OS X 10.15.7", Browser: "Safari", BrowserVersion: "18.1", BrowserEngineVersion: "605.1.15"},
		// Cut after so many bytes, it is still what it begins with.
		mac + strings.Repeat(" x", 1<<20): {Family: "APPLEWEBKIT", Platform: "Macintosh", OS: "Mac OS X 10.15.7", Browser: "Safari", BrowserVersion: "18.1", BrowserEngineVersion: "605.1.15"},
		"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0": {
			Family: "GECKO", Platform: "Linux", OS: "Linux", Browser: "Firefox", BrowserVersion: "140.0"},
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.2 Mobile/15E148 Safari/604.1": {
			Family: "APPLEWEBKIT", Platform: "iOS", Device: "iPhone", OS: "iOS 18.2", Browser: "Mobile Safari", BrowserVersion: "18.2", BrowserEngineVersion: "605.1.15"},
		"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/144.0.0.0 Mobile Safari/537.36": {
			Family: "APPLEWEBKIT", Platform: "Android", Device: "K", OS: "Android 10", Browser: "Chrome Mobile", BrowserVersion: "144.0.0.0", BrowserEngineVersion: "537.36"},
		"Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko": {
			Family: "MSIE", Platform: "Windows", OS: "Windows NT 10.0", Browser: "IE", BrowserVersion: "11.0"},
		"python-requests/2.32.3": {Family: "OTHER", Browser: "Python Requests", BrowserVersion: "2.32.3"},
		"curl/8.5.0":             {Family: "OTHER", Browser: "curl", BrowserVersion: "8.5.0"},
		"nobody knows":           {Family: "OTHER"},
	} {
		if diff := cmp.Diff(want, parseUserAgent(s)); diff != "" {
			t.Errorf("%.100s: -want +got\n%s", s, diff)
		}
	}
}

// leaves are the values in JSON that are neither objects nor arrays, in no order.
func leaves(v any) (list []string) {
	switch v := v.(type) {
	case map[string]any:
		for _, v := range v {
			list = append(list, leaves(v)...)
		}
	case []any:
		for _, v := range v {
			list = append(list, leaves(v)...)
		}
	case string:
		list = append(list, v)
	default:
		data, _ := json.Marshal(v)
		list = append(list, string(data))
	}
	return list
}

// Fields must have all that the JSON has.
func TestEventFields(t *testing.T) {
	line, _, _ := bytes.Cut(samples(t), []byte("\n"))
	line = bytes.Replace(line, []byte("Windows NT 10.0; Win64; x64"), []byte("Linux; Android 15; Pixel 9"), 1)
	e, err := Map(line)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.DeleteFunc(leaves(decode(t, string(data))), func(s string) bool { return s == "ja4" }) // part of a name
	var got []string
	names := map[string]bool{}
	for _, f := range e.Fields() {
		got = append(got, f.Value)
		names[f.Name] = true
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-in JSON +in Fields\n%s", diff)
	}
	if len(names) != 26 || e.Network.HTTP.ParsedUserAgent.Device != "Pixel 9" {
		t.Errorf("%d names: %v", len(names), slices.Sorted(maps.Keys(names)))
	}
}

func samples(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile("../audit/testdata/samples.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestFields(t *testing.T) {
	var f Fields
	if list, more := f.Unmapped(); len(list) != 0 || more || f.Records() != 0 || len(f.Absent()) != len(table) {
		t.Errorf("before any record: %v, %d, absent %v", list, f.Records(), f.Absent())
	}
	for _, line := range []string{
		`{"type":"x","b":1,"list":[{"a":1},{"a":2}]}`,
		`{"b":2,"a":1,"effective_at":"never"}`,
		`{"b":`,
	} {
		err := f.Add([]byte(line))
		if (err == nil) != strings.HasSuffix(line, "}") {
			t.Errorf("%s: %v", line, err)
		}
	}
	list, more := f.Unmapped()
	want := []Field{{"b", 2}, {"a", 1}, {"effective_at", 1}, {"list[].a", 1}}
	if diff := cmp.Diff(want, list); diff != "" || more || f.Records() != 2 {
		t.Errorf("%d records, more %v; -want +got\n%s", f.Records(), more, diff)
	}
	absent := f.Absent()
	if len(absent) != len(table)-1 || absent[0] != "effective_at" || absent[1] != "actor.session.ip_address" {
		t.Errorf("absent %q", absent)
	}
}

// Names are whatever the input says; memory must not be.
func TestFieldsAreBounded(t *testing.T) {
	var f Fields
	var line bytes.Buffer
	for i := range 2 * MaxFields {
		line.WriteString(map[bool]string{true: `{"`, false: `,"`}[i == 0])
		line.WriteString(strings.Repeat("x", 5) + string(rune(0x4e00+i)) + strings.Repeat("é", maxPath) + `":1`)
	}
	line.WriteString("}")
	if err := f.Add(line.Bytes()); err != nil {
		t.Fatal(err)
	}
	list, more := f.Unmapped()
	if len(list) != MaxFields || !more {
		t.Errorf("%d fields, more %v", len(list), more)
	}
	for _, field := range list {
		if len(field.Path) > maxPath+len("…") || !strings.HasSuffix(field.Path, "…") {
			t.Fatalf("a path of %d bytes: %s", len(field.Path), field.Path)
		}
	}
}

func TestSamples(t *testing.T) {
	var f Fields
	types := map[string]int{}
	for line := range bytes.Lines(samples(t)) {
		e, err := Map(line)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Add(line); err != nil {
			t.Fatal(err)
		}
		types[e.Metadata.EventType]++
	}
	if diff := cmp.Diff(map[string]int{"STATUS_UPDATE": 12, "GENERIC_EVENT": 6}, types); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if absent := f.Absent(); len(absent) != 0 {
		t.Errorf("absent %q", absent)
	}
}

// Any line is either refused, as encoding/json would, or gives an event whose
// JSON says what encoding/json finds in the line.
func FuzzMap(f *testing.F) {
	for line := range bytes.Lines(samples(f)) {
		f.Add(line)
	}
	for _, s := range []string{`{"type":5,"actor":null}`, `{"actor":{"session":{"ip_address_details":{"latitude":"1e9","asn":7}}}}`,
		`{"a":[[{"b":[]}]],"a":1}`, "{\"\xff\":\"\\ud800\"}", `[]`, ``, `{"effective_at":-1e18}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		original := bytes.Clone(line)
		var fields Fields
		e, err := Map(line)
		if (fields.Add(line) == nil) != (err == nil) {
			t.Fatalf("only one of Map and Add refused: %v", err)
		}
		if !bytes.Equal(line, original) {
			t.Fatal("the line was changed")
		}
		object := json.Valid(line) && bytes.TrimLeft(line, " \t\r\n")[0] == '{'
		if (err == nil) != object {
			t.Fatalf("error %v, but valid is %v", err, object)
		}
		if err != nil {
			return
		}
		data, err := json.Marshal(e)
		if err != nil || !json.Valid(data) || bytes.ContainsRune(data, '\n') {
			t.Fatalf("%s, %v", data, err)
		}
		list, _ := fields.Unmapped()
		for _, field := range list {
			if field.Records != 1 {
				t.Errorf("%+v of one record", field)
			}
		}
		var record map[string]any
		if json.Unmarshal(line, &record) != nil || bytes.Count(line, []byte(`"type"`)) > 1 || bytes.Contains(line, []byte(`\`)) {
			return // numbers beyond float64; a name may stand twice
		}
		if want, _ := record["type"].(string); want != "" && e.SecurityResult[0].Summary != want {
			t.Errorf("summary %q, want %q", e.SecurityResult[0].Summary, want)
		}
	})
}
