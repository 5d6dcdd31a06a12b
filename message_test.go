package auditlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"example.com/auditlog/internal/sim/harness"
)

// testNow is when the tests' messages are published.
var testNow = time.Date(2026, 11, 24, 1, 0, 0, 0, time.UTC)

// messages are what people publish, and what each asks for, a part of why it is
// taken for a run, or a part of the error.
var messages = []struct{ message, want string }{
	{"", "run"},
	{"{}", "run"},
	{" {\n}\n", "run"},
	{"null", "run"},
	{"run now", "run"},
	{`"check"`, "run"},
	{`["check"]`, "run"},
	{`[{"check": true}]`, "run"},
	{`{"other": 1}`, `doubt: it has "other"; known are "backfill", "check"`},
	{`{"Check": true}`, `doubt: it has "Check" (did you mean "check"?)`},
	{`{"chek": true}`, `doubt: it has "chek" (did you mean "check"?); known are`},
	{`{"backfil": {"from": "1d"}}`, `doubt: it has "backfil" (did you mean "backfill"?); known are`},
	{`{"backfill ": {}, "a\nb": 1}`, `doubt: it has "a\nb", "backfill " (did you mean "backfill"?); known are`},
	{`{"backfill":{"from":"2026-10-01","to":"2026-10-02"}`, `doubt: it begins like a JSON object, and is none: {"backfill":{"from":"2026-10-01","to":"2026-10-02"}`},
	{`{check: true}`, "doubt: it begins like a JSON object, and is none: {check: true}"},
	{`{"check": true} {}`, "doubt: it begins like a JSON object"},
	{`'{"check": true}'`, "doubt: it begins like a JSON object"},       // as some shells pass it
	{`"{\"check\": true}"`, "doubt: it begins like a JSON object"},     // ... or quote it
	{"\ufeff{\"check\": true}", "doubt: it begins like a JSON object"}, // as some editors write it
	{`{"check": true}`, "check"},
	{"{\r\n\t\"check\" : true\r\n}\r\n", "check"},
	{`{"check": false}`, `error: message must be {"check": true}, or have no "check": it is false`},
	{`{"check": "yes"}`, `error: message must be {"check": true}, or have no "check": it is "yes"`},
	{`{"check": null}`, `error: message must be {"check": true}, or have no "check": it is null`},
	{`{"check": true, "backfill": {}}`, `error: message with "check" or "backfill" must have no other key: it has "backfill", "check"`},
	{`{"check": true, "other": 1}`, `no other key: it has "check", "other"`},
	{`{"backfill": {"from": "2026-11-01", "to": "2026-11-03"}}`, "2026-11-01T00:00:00Z 2026-11-03T23:59:59Z"},
	{`{"backfill": {"from": "2026-11-01T05:00:00+01:00", "to": "2026-11-03"}}`, "2026-11-01T04:00:00Z 2026-11-03T23:59:59Z"},
	{`{"backfill": {"from": "2026-11-01"}}`, "2026-11-01T00:00:00Z -"},
	{`{"backfill": {"from": "2026-11-01", "to": null}}`, "2026-11-01T00:00:00Z -"},
	{`{"backfill": {"From": "2d", "TO": "12h"}}`, "2026-11-22T01:00:00Z 2026-11-23T13:00:00Z"},
	{`{"backfill": {"from": "1d"}, "other": 1}`, "no other key"},
	{`{"backfill": "30d"}`, `error: "backfill": it must be {"from": "...", "to": "..."}, and is "30d"`},
	{`{"backfill": ["30d"]}`, `error: "backfill": it must be {"from": "...", "to": "..."}, and is ["30d"]`},
	{`{"backfill": null}`, `error: "backfill": it must be {"from": "...", "to": "..."}, and is null`},
	{`{"backfill": {}}`, `from: ""`},
	{`{"backfill": {"from": 30}}`, `error: "backfill": it must be {"from": "...", "to": "..."}: "from" is 30`},
	{`{"backfill": {"from": "1d", "to": {"day": 1}}}`, `"to" is {"day": 1}`},
	{`{"backfill": {"from": "2w", "to": "yesterday"}}`, "2026-11-10T01:00:00Z 2026-11-23T23:59:59Z"},
	{`{"backfill": {"from": "last week"}}`, `"backfill": from: "last week" is neither a day (2026-11-24, yesterday, today), a time (2026-11-24T01:00:00Z, now) nor an age (2w, 30d, 12h, 90m)`},
	{`{"backfill": {"from": "1d", "to": "1y"}}`, `"backfill": to: "1y" is neither a day (`},
	{`{"backfill": {"since": "1d"}}`, `error: "backfill": it has "since"; known are "from", "to"`},
	{`{"backfill": {"form": "1d", "until": "12h"}}`, `error: "backfill": it has "form" (did you mean "from"?), "until"; known are "from", "to"`},
	{`{"backfill": {"from": "1d", "again": true}}`, `error: "backfill": it has "again"; known are`}, // a message may be delivered twice
}

func TestReadMessage(t *testing.T) {
	for _, tt := range messages {
		m, err := readMessage([]byte(tt.message), testNow)
		var got string
		switch {
		case err != nil:
			got = "error: " + err.Error()
		case m.doubt != "":
			got = "doubt: " + m.doubt
		case m.check:
			got = "check"
		case m.backfill != nil:
			to := "-"
			if !m.backfill.To.IsZero() {
				to = m.backfill.To.UTC().Format(time.RFC3339)
			}
			got = m.backfill.From.UTC().Format(time.RFC3339) + " " + to
		default:
			got = "run"
		}
		if whole := err == nil && m.doubt == ""; whole && got != tt.want || !whole && (tt.want == "run" || !strings.Contains(got, tt.want)) {
			t.Errorf("%s: %q, want %q", tt.message, got, tt.want)
		}
		for _, never := range []string{"json", "unmarshal", "unexpected", "invalid"} { // Go's words, not ours
			if strings.Contains(got, never) {
				t.Errorf("%s: %q has %q", tt.message, got, never)
			}
		}
	}
}

func TestParseBackfill(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Time{
		"30d":                       testNow.Add(-30 * day),
		"12h":                       testNow.Add(-12 * time.Hour),
		"1h":                        testNow.Add(-time.Hour),
		"90m":                       testNow.Add(-90 * time.Minute),
		"2w":                        testNow.Add(-14 * day),
		"now":                       testNow,
		"today":                     time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC),
		"yesterday":                 time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC),
		"036500d":                   testNow.Add(-36500 * day),
		"2026-11-01":                time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
		"2024-02-29":                time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC),
		"2026-11-01T05:00:00+01:00": time.Date(2026, 11, 1, 4, 0, 0, 0, time.UTC),
	} {
		r, err := ParseBackfill(text, "", testNow)
		if err != nil || !r.From.Equal(want) || !r.To.IsZero() || r.Again {
			t.Errorf("from %s: %+v, %v; want %v", text, r, err, want)
		}
		if strings.Count(text, "-") == 2 && !strings.Contains(text, "T") || strings.HasSuffix(text, "day") {
			want = want.Add(day - time.Second) // the day is part of the range
		}
		if r, err = ParseBackfill("2020-01-01", text, testNow); err != nil || !r.To.Equal(want) {
			t.Errorf("to %s: %+v, %v; want %v", text, r, err, want)
		}
	}
	for _, text := range []string{
		"", "d", "-1d", "0d", "1.5d", "30", "30dd", "30d ", " 30d", "1000000d", "+3d", "1D", "36501d", "52560001m", "Today", "tomorrow", "1y", "0x1d", "1_0d",
		"2026-11-31", "2025-02-29", "2026-11-1", "01.11.2026", "2026-11-01T05:00:00", "2026-11-01 05:00:00Z",
	} {
		if r, err := ParseBackfill(text, "", testNow); err == nil || !strings.HasPrefix(err.Error(), `from: "`+text+`" is neither a day (`) {
			t.Errorf("from %q: %v, %v", text, r.From, err)
		}
		if r, err := ParseBackfill("1d", text, testNow); err == nil && text != "" {
			t.Errorf("to %q is taken for %v", text, r.To)
		}
	}
}

// TestOpenEvent: a message says the same when it is delivered again, since how
// long ago counts from when it was published.
func TestOpenEvent(t *testing.T) {
	for _, tt := range []struct {
		publishTime string
		want        time.Time // zero: now
	}{
		{`,"publishTime":"2026-11-24T01:00:00Z"`, testNow},
		{`,"publishTime":"2026-11-24T02:00:00.000+01:00"`, testNow},
		{"", time.Time{}},
		{`,"publishTime":""`, time.Time{}},
		{`,"publishTime":null`, time.Time{}},
		{`,"publishTime":1795482000`, time.Time{}},
	} {
		e := event.New()
		e.SetType(harness.PublishedType)
		e.DataEncoded = []byte(`{"message":{"data":"cnVu"` + tt.publishTime + `}}`)
		before := time.Now()
		data, published, err := openEvent(e)
		if err != nil || string(data) != "run" {
			t.Errorf("%s: %q, %v", tt.publishTime, data, err)
		}
		if tt.want.IsZero() && (published.Before(before) || published.After(time.Now())) || !tt.want.IsZero() && !published.Equal(tt.want) {
			t.Errorf("%s: published at %v, want %v", tt.publishTime, published, tt.want)
		}
	}
}

// The tests below take any input at all, and judge by encoding/json, member by
// member.

// member is one name and value of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// members lists those of a JSON object in their order, names that stand twice
// included; ok is false where data is something else.
func members(data []byte) (list []member, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') || !json.Valid(data) {
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

// checkOneLine checks that an error fits a log entry.
func checkOneLine(t *testing.T, err error) {
	t.Helper()
	if err == nil || err.Error() == "" || strings.ContainsAny(err.Error(), "\n\r") {
		t.Fatalf("error %q, want one line", err)
	}
}

// FuzzMessage: any bytes ask for a run, a check or a backfill, or are an error of
// one line. What asks for something and cannot be followed is never a run; a run that
// an object with other keys is taken for says why, in one line.
func FuzzMessage(f *testing.F) {
	for _, m := range messages {
		f.Add([]byte(m.message))
	}
	f.Add([]byte(`{"check":false,"check":true}`))
	f.Add([]byte(`{"backfill":{"from":"1d","from":"2d"},"backfill":{"FROM":"9999-12-31","to":"9999-12-31"}}`))
	f.Add([]byte(`{"backfill":{"from":"0000-01-01T00:00:00.123+23:59","to":"36500d"}}`))
	f.Add([]byte("{\"backfill\":{\"\\n\xff\":1}}"))
	f.Add([]byte(`{"\u0063heck":true}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, isObject := members(data)
		found := map[string]string{}
		for _, m := range list {
			found[m.name] = string(m.value)
		}
		check, checks := found["check"]
		_, backfills := found["backfill"]
		m, err := readMessage(data, testNow)
		if m.doubt != "" {
			checkOneLine(t, errors.New(m.doubt))
		}
		switch {
		case err != nil:
			checkOneLine(t, err)
			if !checks && !backfills || m != (message{}) {
				t.Fatalf("error %v, and %+v", err, m)
			}
		case isObject && (m.doubt != "") != (len(found) > 0 && !checks && !backfills), m.doubt != "" && !bytes.ContainsRune(data, '{'):
			t.Fatalf("taken for a run because %q", m.doubt)
		case m.check && m.backfill != nil:
			t.Fatal("asks for two things")
		case m.check != (checks && check == "true"), (m.backfill != nil) != backfills, (checks || backfills) && len(found) != 1:
			t.Fatalf("%+v", m)
		case m.backfill != nil:
			// Spelled out, the ends are the same.
			to := ""
			if !m.backfill.To.IsZero() {
				to = m.backfill.To.Format(time.RFC3339Nano)
			}
			again, err := ParseBackfill(m.backfill.From.Format(time.RFC3339Nano), to, time.Time{})
			if err != nil || !again.From.Equal(m.backfill.From) || !again.To.Equal(m.backfill.To) || m.backfill.Again {
				t.Fatalf("%+v; spelled out %+v, %v", *m.backfill, again, err)
			}
		}
	})
}

// FuzzEvent: any event is refused, or is a Pub/Sub message, whose data are those
// of the event.
func FuzzEvent(f *testing.F) {
	f.Add(harness.PublishedType, []byte(`{"message":{"data":"cnVu","messageId":"1","publishTime":"2026-11-24T01:00:00Z","attributes":{}},"subscription":"projects/p/subscriptions/s"}`))
	f.Add(harness.PublishedType, []byte(`{"message":{}}`))
	f.Add(harness.PublishedType, []byte(`{"message":{"data":"no base64!"}}`))
	f.Add(harness.PublishedType, []byte(`{"message":{"data":"cnVu","data":null,"data":[1,2]},"MESSAGE":{"Data":[null]}}`))
	f.Add(harness.PublishedType, []byte(`{"message":{"data":"cnVu"},"message":null,"message":{}}`))
	f.Add(harness.PublishedType, []byte(`{"message":null}`))
	f.Add(harness.PublishedType, []byte(`"message"`))
	f.Add(harness.PublishedType, []byte{})
	f.Add("google.cloud.storage.object.v1.finalized", []byte(`{"bucket":"logs","name":"%s\n"}`))
	f.Fuzz(func(t *testing.T, kind string, data []byte) {
		e := event.New()
		e.SetType(kind)
		e.DataEncoded = data
		got, _, err := openEvent(e)
		want, ok := judgeEvent(data)
		if ok = ok && kind == harness.PublishedType; (err == nil) != ok {
			t.Fatalf("error %v, want none: %v", err, ok)
		}
		if err != nil {
			checkOneLine(t, err)
		} else if !bytes.Equal(got, want) {
			t.Fatalf("message %q, want %q", got, want)
		}
	})
}

// judgeEvent reads the data of the last "message" that is an object; ok is false
// where there is none. encoding/json takes names in any case, and reads what
// stands twice into the same place.
func judgeEvent(event []byte) (data []byte, ok bool) {
	list, isObject := members(event)
	if !isObject {
		return nil, false
	}
	for _, m := range list {
		if !strings.EqualFold(m.name, "message") {
			continue
		}
		if string(m.value) == "null" {
			data, ok = nil, false
			continue
		}
		fields, isObject := members(m.value)
		if !isObject {
			return nil, false
		}
		ok = true
		for _, field := range fields {
			if strings.EqualFold(field.name, "data") && json.Unmarshal(field.value, &data) != nil {
				return nil, false
			}
		}
	}
	return data, ok
}

// FuzzAnswer: any error becomes an answer that the framework can print: one
// line, without a URL and without verbs.
func FuzzAnswer(f *testing.F) {
	f.Add("Run failed: Get \"https://api.openai.com/v1/x?a%5Bgte%5D=1\": EOF\nand more")
	f.Add("googleapi: got HTTP response code 502 with body: <html>\r\n<a href=HTTPS://proxy/%73>")
	f.Add("100%")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		got := answer(http.StatusInternalServerError, errors.New(text))
		checkOneLine(t, got)
		for _, never := range []string{"%", "http://", "https://"} {
			if strings.Contains(strings.ToLower(got.Error()), never) {
				t.Fatalf("answers %q", got)
			}
		}
		if !strings.HasPrefix(got.Error(), "500: ") {
			t.Fatalf("answers %q without its status", got)
		}
	})
}
