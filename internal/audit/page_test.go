package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var testRequest = Request{Gte: 100, Lte: 200, After: "asked", Limit: 100}

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
		{"first and last second", `{"object":"list","data":[{"id":"b","effective_at":200},{"id":"a","effective_at":100}],"has_more":false}`, "", "b@200 a@100 ", "", false},
		{"the last of two ids", `{"object":"list","data":[{"id":"x","id":"a","effective_at":100}],"has_more":false}`, "", "a@100 ", "", false},
		{"the last of two times", `{"object":"list","data":[{"id":"a","effective_at":1,"effective_at":100}],"has_more":false}`, "", "a@100 ", "", false},
		{"last page, with the cursor asked with", `{"object":"list","data":[],"last_id":"asked","has_more":false}`, "", "", "asked", false},
		{"names of another case do not count", `{"object":"list","data":[{"id":"a","ID":"x","effective_at":100,"Effective_At":"x"}],"has_more":false}`, "", "a@100 ", "", false},

		{"empty body", ``, "cut off", "", "", false},
		{"cut in a record", `{"object":"list","data":[{"id":"a","effecti`, "cut off", "", "", false},
		{"cut before the end", `{"object":"list","data":[],"has_more":false`, "cut off", "", "", false},
		{"HTML", `<html>Sign in</html>`, "no JSON list", "", "", false},
		{"array", `[]`, "wanted an object, not []", "", "", false},
		{"null", `null`, "wanted an object, not null", "", "", false},
		{"no list", `{"object":"error","data":[],"has_more":false}`, `"object" is "error"`, "", "", false},
		{"object no text", `{"object":7,"data":[],"has_more":false}`, `"object" to be a string, not 7`, "", "", false},
		{"object null", `{"object":null,"data":[],"has_more":false}`, `"object" to be a string, not null`, "", "", false},
		{"object missing", `{"data":[],"has_more":false}`, "is missing", "", "", false},
		{"data missing", `{"object":"list","has_more":false}`, "is missing", "", "", false},
		{"has_more missing", `{"object":"list","data":[]}`, "is missing", "", "", false},
		{"has_more null", `{"object":"list","data":[],"has_more":null}`, `"has_more" to be true or false, not null`, "", "", false},
		{"has_more text", `{"object":"list","data":[],"has_more":"false"}`, `"has_more" to be true or false, not "false"`, "", "", false},
		{"data null", `{"object":"list","data":null,"has_more":false}`, "data", "", "", false},
		{"data an object", `{"object":"list","data":{},"has_more":false}`, `"data" to be an array, not {}`, "", "", false},
		{"data twice", `{"object":"list","data":[],"data":[],"has_more":false}`, "twice", "", "", false},
		{"object twice", `{"object":"list","object":"list","data":[],"has_more":false}`, `"object" stands twice`, "", "", false},
		{"last_id twice", `{"object":"list","data":[],"last_id":null,"last_id":null,"has_more":false}`, `"last_id" stands twice`, "", "", false},
		{"has_more twice", `{"object":"list","data":[],"has_more":false,"has_m\u006fre":false}`, `"has_more" stands twice`, "", "", false},
		{"bytes after it", `{"object":"list","data":[],"has_more":false}{}`, "2 bytes follow", "", "", false},
		{"a byte after it", `{"object":"list","data":[],"has_more":false}X`, "1 bytes follow", "", "", false},
		{"no white space of JSON after it", `{"object":"list","data":[],"has_more":false}` + "\u00a0", "2 bytes follow", "", "", false},
		{"more, but no records", `{"object":"list","data":[],` + rest + `}`, "", "", "b", true},
		{"more, but no cursor", `{"object":"list","data":[{"id":"a","effective_at":100}],"last_id":null,"has_more":true}`, `no "last_id"`, "", "", false},
		{"more, cursor missing", `{"object":"list","data":[{"id":"a","effective_at":100}],"has_more":true}`, `no "last_id"`, "", "", false},
		{"more, cursor empty", `{"object":"list","data":[{"id":"a","effective_at":100}],"last_id":"","has_more":true}`, `no "last_id"`, "", "", false},
		{"more, cursor a number", `{"object":"list","data":[{"id":"a","effective_at":100}],"last_id":5,"has_more":true}`, `"last_id" to be a string, not 5`, "", "", false},
		{"record is no object", `{"object":"list","data":["a"],"has_more":false}`, "record 1", "", "", false},
		{"second record is no object", `{"object":"list","data":[{"id":"a","effective_at":100},null],"has_more":false}`, "record 2 of the page: wanted an object, not null", "", "", false},
		{"record without id", `{"object":"list","data":[{"effective_at":100}],"has_more":false}`, "no id", "", "", false},
		{"record with an empty id", `{"object":"list","data":[{"id":"","effective_at":100}],"has_more":false}`, "no id", "", "", false},
		{"record with a null id", `{"object":"list","data":[{"id":null,"effective_at":100}],"has_more":false}`, `"id" to be a string, not null`, "", "", false},
		{"record whose second id is a number", `{"object":"list","data":[{"id":"a","effective_at":100,"id":1}],"has_more":false}`, `"id" to be a string, not 1`, "", "", false},
		{"record without time", `{"object":"list","data":[{"id":"a"}],"has_more":false}`, "no effective_at", "", "", false},
		{"record with a text time", `{"object":"list","data":[{"id":"a","effective_at":"100"}],"has_more":false}`, "number of seconds", "", "", false},
		{"record with a fraction", `{"object":"list","data":[{"id":"a","effective_at":100.5},{"id":"b","effective_at":2009.9e-1}],"has_more":false}`, "", "a@100 b@200 ", "", false},
		{"record just before the window", `{"object":"list","data":[{"id":"a","effective_at":99.9}],"has_more":false}`, "filter was ignored", "", "", false},
		{"record whose second time is null", `{"object":"list","data":[{"id":"a","effective_at":100,"effective_at":null}],"has_more":false}`, "number of seconds", "", "", false},
		{"record before the window", `{"object":"list","data":[{"id":"a","effective_at":99}],"has_more":false}`, "filter was ignored", "", "", false},
		{"record a second after the window", `{"object":"list","data":[{"id":"a","effective_at":201}],"has_more":false}`, "rounds times up", "", "", false},
		{"record after the window", `{"object":"list","data":[{"id":"a","effective_at":202}],"has_more":false}`, "filter was ignored", "", "", false},
		{"bad JSON in a record", `{"object":"list","data":[{"id":"a","effective_at":100,"x":tru}],"has_more":false}`, "no JSON list", "", "", false},
		{"comma at the end of the page", `{"object":"list","data":[],"has_more":false,}`, "no JSON list", "", "", false},
		{"comma at the end of the list", `{"object":"list","data":[{"id":"a","effective_at":100},],"has_more":false}`, "no JSON list", "", "", false},
		{"comma at the end of a record", `{"object":"list","data":[{"id":"a","effective_at":100,}],"has_more":false}`, "no JSON list", "", "", false},
		{"no colon", `{"object":"list","data":[{"id" "a","effective_at":100}],"has_more":false}`, "no JSON list", "", "", false},
		{"name no string", `{"object":"list","data":[{"id":"a",effective_at:100}],"has_more":false}`, "no JSON list", "", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := DecodePage([]byte(tt.body), testRequest)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want one with %q", err, tt.err)
				}
				if cut := tt.err == "cut off"; errors.Is(err, ErrCutBody) != cut {
					t.Errorf("error %v: is it ErrCutBody? want %v", err, cut)
				}
				if diff := cmp.Diff(Page{}, p); diff != "" {
					t.Errorf("a page comes with the error:\n%s", diff)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var records strings.Builder
			for _, r := range p.Records {
				fmt.Fprintf(&records, "%s@%d ", r.ID, r.At)
			}
			if records.String() != tt.records || p.Cursor != tt.cursor || p.More != tt.more {
				t.Errorf("got %q, cursor %q, more %v", records.String(), p.Cursor, p.More)
			}
		})
	}
}

// TestPageErrorsAreShort: whatever the API sends, an error shows little of it,
// and on one line.
func TestPageErrorsAreShort(t *testing.T) {
	long := strings.Repeat("<p>\u2028\nnever</p> ", 10_000)
	quoted, err := json.Marshal(long)
	if err != nil {
		t.Fatal(err)
	}
	of := func(record string) string { return `{"object":"list","data":[` + record + `],"has_more":false}` }
	for name, body := range map[string]string{
		"HTML":               long,
		"object":             `{"object":` + string(quoted) + `}`,
		"has_more":           `{"has_more":` + string(quoted) + `}`,
		"last_id":            `{"last_id":[` + string(quoted) + `]}`,
		"data":               `{"data":` + string(quoted) + `}`,
		"record":             of(string(quoted)),
		"time of a record":   of(`{"id":"a","effective_at":` + string(quoted) + `}`),
		"id without a time":  of(`{"id":` + string(quoted) + `}`),
		"id out of range":    of(`{"id":` + string(quoted) + `,"effective_at":1}`),
		"characters of four": strings.Repeat("\U0001f600", 10_000),
	} {
		_, err := DecodePage([]byte(body), testRequest)
		if err == nil || len([]rune(err.Error())) > 2*maxText || strings.ContainsAny(err.Error(), "\n\u2028") {
			t.Errorf("%s: error %v", name, err)
		}
		if name == "HTML" && !strings.Contains(fmt.Sprint(err), `never</p> <p>`) || name == "characters of four" && strings.Count(fmt.Sprint(err), "\U0001f600") != maxText {
			t.Errorf("%s: the error shows too little of it: %v", name, err)
		}
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
			p, err := DecodePage(body, Request{Gte: 0, Lte: 1 << 40})
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range records {
				var compacted bytes.Buffer
				if err := json.Compact(&compacted, []byte(want)); err != nil {
					t.Fatal(err)
				}
				if got := p.Records[i].Line; !bytes.Equal(got, compacted.Bytes()) {
					t.Errorf("record %d:\n got %.300s\nwant %.300s", i, got, compacted.Bytes())
				}
			}
		})
	}
}

// judgePage and what it uses judge by other means than the code's own:
// encoding/json for what jsontext has read.

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
func judgePage(body []byte, q Request) (p Page, ok bool) {
	list, ok := members(body)
	if !json.Valid(body) || !ok {
		return Page{}, false
	}
	found := map[string]json.RawMessage{}
	for _, m := range list {
		if found[m.name] != nil && slices.Contains([]string{"object", "data", "last_id", "has_more"}, m.name) {
			return Page{}, false
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
		return Page{}, false
	}
	p.More = *more
	if cursor != nil {
		p.Cursor = judgeText(*cursor, found["last_id"])
	}
	for _, raw := range data {
		r, ok := judgeRecord(raw)
		if !ok || r.At < q.Gte || r.At > q.Lte {
			return Page{}, false
		}
		p.Records = append(p.Records, r)
	}
	return p, !p.More || p.Cursor != ""
}

func judgeRecord(raw []byte) (r Record, ok bool) {
	list, ok := members(raw)
	if !ok {
		return r, false
	}
	var line bytes.Buffer
	if err := json.Compact(&line, raw); err != nil {
		panic(err)
	}
	r.Line = line.Bytes()
	timed := false
	for _, m := range list {
		switch m.name {
		case "id":
			var id *string
			if json.Unmarshal(m.value, &id) != nil || id == nil {
				return r, false
			}
			r.ID = judgeText(*id, m.value)
		case "effective_at":
			var at *float64
			if json.Unmarshal(m.value, &r.At) != nil {
				if json.Unmarshal(m.value, &at) != nil || at == nil || math.Abs(*at) > 1<<53 {
					return r, false
				}
				r.At = int64(math.Floor(*at))
			} else if m.value[0] == 'n' { // null leaves it as it is
				return r, false
			}
			timed = true
		}
	}
	return r, timed && r.ID != ""
}

// judgeText is what a string says, or its literal where decoding it has put
// replacement characters in the place of what is no Unicode.
func judgeText(decoded string, literal []byte) string {
	own := strings.Count(string(literal), "\uFFFD")
	for i := 0; i < len(literal); i++ {
		if literal[i] == '\\' {
			if bytes.EqualFold(literal[i+1:min(len(literal), i+6)], []byte("ufffd")) {
				own++
			}
			i++
		}
	}
	if !utf8.Valid(literal) || strings.Count(decoded, "\uFFFD") != own {
		return strconv.QuoteToASCII(string(literal))
	}
	return decoded
}

// TestIdentity: what tells records apart is id, type and time, and two ids that
// differ in what is no Unicode are two.
func TestIdentity(t *testing.T) {
	const same = `{"object":"list","data":[
		{"id":"r","type":"api_key.created","effective_at":150},
		{"id":"r","type":"user.added","effective_at":150},
		{"id":"r","type":"api_key.created","effective_at":151},
		{"id":"r","effective_at":150},
		{"id":"r","type":null,"effective_at":150},
		{"id":"x-\ud800","effective_at":150},
		{"id":"x-\udbff","effective_at":150},
		{"id":"x-\ufffd","effective_at":150},
		{"id":"x-RAW","effective_at":150},
		{"id":"x-RAWRAW","effective_at":150}
	],"has_more":false}`
	p, err := DecodePage([]byte(strings.ReplaceAll(same, "RAW", "\xff")), testRequest)
	if err != nil {
		t.Fatal(err)
	}
	all := map[Identity]bool{}
	for _, r := range p.Records {
		if all[r.Identity()] = true; r.Type == AnyType || !utf8.ValidString(r.ID) {
			t.Errorf("%+v", r)
		}
	}
	if len(all) != len(p.Records) || p.Records[0].Type != TypeOf("api_key.created") {
		t.Errorf("%d identities of %d records", len(all), len(p.Records))
	}
	again, err := DecodePage([]byte(`{"object":"list","data":[{ "type" : "a", "id":"r", "effective_at":150},{"type":"a","id":"r","effective_at":150},{"type":"a","id":"r","effective_at":150.0}],"has_more":false}`), testRequest)
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := again.Records[0], again.Records[1], again.Records[2]
	if a.Identity() != b.Identity() || a.Hash() != b.Hash() || b.Identity() != c.Identity() || b.Hash() == c.Hash() || a.Hash() == 0 {
		t.Errorf("%+v, %+v, %+v", a, b, c)
	}
}

// FuzzDecodePage: any bytes are an error, or the very page that encoding/json
// reads: the elements of "data", each with its bytes. Cut anywhere, a page is
// cut and no shorter page.
func FuzzDecodePage(f *testing.F) {
	for _, body := range []string{
		`{"object":"list","data":[{"id":"a","effective_at":150}],"first_id":"a","last_id":"a","has_more":false}`,
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
		q := testRequest
		want, ok := judgePage(body, q)
		p, err := DecodePage(bytes.Clone(body), q)
		if (err == nil) != ok {
			t.Fatalf("error %v, where encoding/json says %v", err, ok)
		}
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("error has more than one line: %q", err)
			}
			return
		}
		if p.More != want.More || p.Cursor != want.Cursor || len(p.Records) != len(want.Records) {
			t.Fatalf("more %v, cursor %q, %d records; want %v, %q, %d", p.More, p.Cursor, len(p.Records), want.More, want.Cursor, len(want.Records))
		}
		for i, r := range p.Records {
			if w := want.Records[i]; r.ID != w.ID || r.At != w.At || !bytes.Equal(r.Line, w.Line) || bytes.ContainsAny(r.Line, "\n\r") {
				t.Fatalf("record %d: %q at %d %q, want %q at %d %q", i, r.ID, r.At, r.Line, w.ID, w.At, w.Line)
			}
			// The state keeps ids and cursors, and must give them back as they were.
			if !utf8.ValidString(string(r.ID)) || !utf8.ValidString(p.Cursor) {
				t.Fatalf("id %q or cursor %q will not outlast the state", r.ID, p.Cursor)
			}
		}
		whole := bytes.TrimRight(body, " \t\r\n")
		if _, err := DecodePage(whole[:int(cut)%len(whole)], q); !errors.Is(err, ErrCutBody) {
			t.Fatalf("cut at %d: error %v", int(cut)%len(whole), err)
		}
	})
}

// sampleRecords returns n records as the API has them, with ids and other such
// tokens of their own.
func sampleRecords(t testing.TB, n int) [][]byte {
	samples := hardRecords(t)[:18]
	token := regexp.MustCompile(`\b[0-9a-f]{12,}\b|ex[0-9]{10,}`)
	rnd := rand.New(rand.NewPCG(1, 2))
	var records [][]byte
	for i := range n {
		record := token.ReplaceAllStringFunc(samples[i%len(samples)], func(old string) string {
			if strings.Trim(old, "0123456789") == "" {
				return old // a number
			}
			return fmt.Sprintf("%016x%016x", rnd.Uint64(), rnd.Uint64())[:max(16, min(32, len(old)))]
		})
		records = append(records, []byte(record))
	}
	return records
}

// samplePages are answers of a hundred records as the API sends them:
// pretty-printed. They are as many as those of 5,000 records: a processor soon
// knows every branch that a single one takes.
func samplePages(b *testing.B) (pages [][]byte, size int64) {
	for part := range slices.Chunk(sampleRecords(b, 5000), 100) {
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
	var body []byte
	for b.Loop() {
		for _, page := range pages {
			body = append(body[:0], page...) // as it comes from the network
			if _, err := DecodePage(body, Request{Gte: 0, Lte: 1 << 40, Limit: 100}); err != nil {
				b.Fatal(err)
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
