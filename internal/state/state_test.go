package state

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"example.com/auditlog/internal/audit"
)

// The filters of these tests, and which they share records with.
const (
	filterA  audit.Filter = "event_types%5B%5D=a"
	filterB  audit.Filter = "event_types%5B%5D=b"
	filterAB audit.Filter = "event_types%5B%5D=a&event_types%5B%5D=b"
	filterP  audit.Filter = "project_ids%5B%5D=p" // with all of them
)

var (
	testNow   = time.Date(2026, 11, 24, 1, 0, 0, 0, time.UTC)
	testLimit = testNow.Add(24 * time.Hour).Unix() // the latest time that a state may hold
)

// encoded is a state as it is stored.
func encoded(t testing.TB, s State) string {
	t.Helper()
	var object strings.Builder
	if err := Encode(&object, s); err != nil {
		t.Fatal(err)
	}
	return object.String()
}

// recent is these ids, each with its time.
func recent(ids map[string]int64) Recent {
	var list []Remembered
	for id, at := range ids {
		list = append(list, remembered(id, at, audit.AnyType, 0))
	}
	return Recent(nil).With(list)
}

// spans makes ranges of pairs.
func spans(ends ...int64) (list []Span) {
	for i := 0; i < len(ends); i += 2 {
		list = append(list, Span{Gte: ends[i], Lte: ends[i+1]})
	}
	return list
}

func TestDecodeState(t *testing.T) {
	const w1, w2 = 1795397838, 1795484238
	full := fmt.Sprintf(`{"last_effective_at":%d,"last_run":"2026-11-24T01:00:02Z","high":%d,
		"backlog":[{"gte":%d,"lte":%d,"after":"audit_log-a","after_at":1795430000,"top":1795484000}],
		"recent_ids":{"audit_log-b":%d},"recent_since":1795484000,
		"last_object":"openai-auditlog/openai_auditlog_20261124_010002.ndjson","staged":"state/openai-auditlog/staged/x"}`, w1, w2, w1, w2, w2)
	watermark := func(at int64) string {
		return strings.Replace(full, fmt.Sprintf(`_at":%d`, w1), fmt.Sprintf(`_at":%d`, at), 1)
	}
	ours := func(change func(*State)) State {
		s := State{
			Stream: Stream{
				Watermark: w1, LastRun: "2026-11-24T01:00:02Z", High: w2,
				Backlog: []Window{{Gte: w1, Lte: w2, After: "audit_log-a", AfterAt: 1795430000, Top: 1795484000}},
				Recent:  recent(map[string]int64{"audit_log-b": w2}), RecentSince: 1795484000,
			},
			Staging: Staging{LastObject: "openai-auditlog/openai_auditlog_20261124_010002.ndjson", Staged: "state/openai-auditlog/staged/x"},
		}
		change(&s)
		return s
	}
	edited := func(from, to int64) string {
		return fmt.Sprintf("last_effective_at was set by hand from %d to %d: reading goes on from there", from, to)
	}
	tests := []struct {
		name, data string
		want       State
		note       string
	}{
		{"ours", full, ours(func(s *State) { s.Own = true }), ""},
		{"the Python function's", `{"last_effective_at": 1795397838, "last_run": "2026-11-24T01:00:02.123456+00:00"}`,
			State{Stream: Stream{Watermark: w1, High: w1, LastRun: "2026-11-24T01:00:02.123456+00:00"}}, ""},
		{"the Python function's, as a float", `{"last_effective_at": 1795397838.0}`, State{Stream: Stream{Watermark: w1, High: w1}}, ""},
		{"without high, none of the other keys counts",
			`{"last_effective_at": 8, "recent_since": 40, "recent_ids": {"a": 8}, "backlog": [{"gte": 1, "lte": 2}], "covered": [{"gte": 1, "lte": 8}], "filter": "event_types%5B%5D=a"}`,
			State{Stream: Stream{Watermark: 8, High: 8}}, ""},
		{"a last_run that is no text", `{"last_effective_at": 8, "last_run": 5, "high": 8}`, State{Stream: Stream{Watermark: 8, High: 8, Own: true}}, ""},
		{"edited back: read again from there", watermark(1795000000), ours(func(s *State) {
			s.Watermark, s.High, s.RecentSince, s.Recent = 1795000000, 1795000000, 1795000000, Recent{}
			s.Rewound = true
		}), edited(w1, 1795000000)},
		{"edited into the backlog: its rest from there", watermark(1795400000), ours(func(s *State) {
			s.Watermark, s.Backlog[0].Gte = 1795400000, 1795400000
		}), edited(w1, 1795400000)},
		{"edited to the last second of what is left of the backlog", watermark(1795430000), ours(func(s *State) {
			s.Watermark, s.Backlog[0].Gte = 1795430000, 1795430000
		}), edited(w1, 1795430000)},
		{"edited beyond what is left of the backlog", watermark(1795430001), ours(func(s *State) {
			s.Watermark, s.Backlog = 1795430001, nil
		}), edited(w1, 1795430001)},
		{"edited beyond high: nothing before it", watermark(1795485000), ours(func(s *State) {
			s.Watermark, s.High, s.Backlog = 1795485000, 1795485000, nil
		}), edited(w1, 1795485000)},
		{"of two streams", `{"last_effective_at":9,"high":9,"tenant":{"last_effective_at":5,"last_run":"x","high":5,"apart":true},"organization":"org-x","last_backfill":"b","staged_generation":7,"staged_bucket":"states"}`,
			State{
				Stream: Stream{Watermark: 9, High: 9, Own: true}, Tenant: &Stream{Watermark: 5, High: 5, LastRun: "x", Distinct: true, Own: true},
				Organization: "org-x", LastBackfill: "b", Staging: Staging{StagedGeneration: 7, StagedBucket: "states"},
			}, ""},
		{"the tenant's edited", `{"last_effective_at":9,"high":9,"tenant":{"last_effective_at":6,"high":5}}`,
			State{Stream: Stream{Watermark: 9, High: 9, Own: true}, Tenant: &Stream{Watermark: 6, High: 6}}, "tenant events: " + edited(5, 6)},
		{"both edited", `{"last_effective_at":8,"high":9,"tenant":{"last_effective_at":6,"high":5}}`,
			State{Stream: Stream{Watermark: 8, High: 8, RecentSince: 8, Rewound: true}, Tenant: &Stream{Watermark: 6, High: 6}},
			edited(9, 8) + "; tenant events: " + edited(5, 6)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, note, err := Decode(strings.NewReader(tt.data), testNow)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); diff != "" || note != tt.note {
				t.Errorf("note %q, want %q; state differs (-want +got):\n%s", note, tt.note, diff)
			}
		})
	}
}

func TestDecodeStateRefuses(t *testing.T) {
	ahead := testLimit + 1
	tests := []struct{ name, data, why string }{
		{"empty", ``, "empty or cut off"},
		{"cut", `{"last_effective_at": 17953`, "empty or cut off"},
		{"null", `null`, "no JSON object"},
		{"array", `[]`, "array"},
		{"string", `"x"`, "string"},
		{"two values", `{"last_effective_at": 1} {}`, "something follows"},
		{"no watermark", `{"last_run": "x"}`, `no JSON object with "last_effective_at"`},
		{"null watermark", `{"last_effective_at": null}`, `"last_effective_at": null is not a whole number`},
		{"text watermark", `{"last_effective_at": "1795397838"}`, `"last_effective_at": "1795397838" is not`},
		{"fractional watermark", `{"last_effective_at": 1795397838.5}`, "whole number"},
		{"huge watermark", `{"last_effective_at": 1e300}`, "whole number"},
		{"negative watermark", `{"last_effective_at": -1}`, `"last_effective_at" is -1`},
		{"watermark ahead", fmt.Sprintf(`{"last_effective_at": %d}`, ahead), `"last_effective_at" is`},
		{"high ahead", fmt.Sprintf(`{"last_effective_at": 1, "high": %d}`, ahead), `"high" is`},
		{"high negative", `{"last_effective_at": 1, "high": -1}`, `"high" is -1`},
		{"high text", `{"last_effective_at": 1, "high": "1"}`, "high"},
		{"ids since ahead", fmt.Sprintf(`{"last_effective_at": 1, "high": 1, "recent_since": %d}`, ahead), `"recent_since" is`},
		{"ids since negative", `{"last_effective_at": 1, "high": 1, "recent_since": -1}`, `"recent_since" is -1, which is negative`},
		{"ids since after high", `{"last_effective_at": 1, "high": 1, "recent_since": 2}`, `"recent_since" is 2, after "high", 1`},
		{"window backwards", `{"last_effective_at": 1, "high": 9, "backlog": [{"gte": 5, "lte": 4}]}`, "from 5 back to 4"},
		{"window ahead", fmt.Sprintf(`{"last_effective_at": 1, "high": 9, "backlog": [{"gte": 1, "lte": %d}]}`, ahead), `"lte" is`},
		{"window negative", `{"last_effective_at": 1, "high": 9, "backlog": [{"gte": -1, "lte": 4}]}`, `"gte" is -1`},
		{"cursor negative", `{"last_effective_at": 1, "high": 9, "backlog": [{"gte": 1, "lte": 4, "after_at": -1}]}`, `"after_at" is -1`},
		{"second window", `{"last_effective_at": 1, "high": 9, "backlog": [{"gte": 1, "lte": 4}, {"gte": 3, "lte": 2}]}`, "from 3 back to 2"},
		{"filter not of ours", `{"last_effective_at": 1, "high": 9, "backlog": [{"gte": 1, "lte": 4, "filter": "limit=1"}]}`, "limit"},
		{"covered backwards", `{"last_effective_at": 9, "high": 9, "covered": [{"gte": 5, "lte": 4}]}`, `"covered" has a range from 5 to 4`},
		{"covered negative", `{"last_effective_at": 9, "high": 9, "covered": [{"gte": -1, "lte": 4}]}`, `"covered" has a range from -1 to 4`},
		{"staged generation negative", `{"last_effective_at": 9, "high": 9, "staged_generation": -1}`, `"staged_generation" is -1: remove it`},
		{"tenant damaged", `{"last_effective_at": 1, "high": 9, "tenant": {"high": 1}}`, `"tenant": it is no JSON object`},
		{"tenant a list", `{"last_effective_at": 1, "high": 9, "tenant": []}`, "tenant"},
		{"ids a list", `{"last_effective_at": 1, "high": 1, "recent_ids": ["x"]}`, "recent_ids"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, note, err := Decode(strings.NewReader(tt.data), testNow)
			if err == nil || !strings.Contains(err.Error(), tt.why) {
				t.Errorf("error %v, want one with %q", err, tt.why)
			}
			if diff := cmp.Diff(State{}, got); diff != "" || note != "" {
				t.Errorf("note %q, state %+v with an error", note, got)
			}
		})
	}
}

// TestDecodeStateBounds: what stands on a bound is taken.
func TestDecodeStateBounds(t *testing.T) {
	for _, data := range []string{
		`{"last_effective_at": 0}`,
		`{"last_effective_at": 0, "high": 0, "recent_since": 0, "backlog": [{"gte": 0, "lte": 0, "after": "a"}], "covered": [{"gte": 0, "lte": 0}]}`,
		fmt.Sprintf(`{"last_effective_at": %d}`, testLimit),
		fmt.Sprintf(`{"last_effective_at": %[1]d, "high": %[1]d, "recent_since": %[1]d, "backlog": [{"gte": %[1]d, "lte": %[1]d, "after_at": %[1]d}]}`, testLimit),
	} {
		if _, note, err := Decode(strings.NewReader(data), testNow); err != nil || note != "" {
			t.Errorf("%s: note %q, error %v", data, note, err)
		}
	}
}

// TestEdit: an edit keeps the ids that stay complete, and no others.
func TestEdit(t *testing.T) {
	window := Window{Gte: 40, Lte: 60, After: "c", AfterAt: 50, Top: 59}
	ids := func() map[string]int64 { return map[string]int64{"a": 19, "b": 20, "c": 21, "d": 90} }
	tests := []struct {
		name   string
		before Stream
		to     int64
		want   Stream
	}{
		{"back, before what is remembered",
			Stream{High: 90, Recent: recent(ids()), RecentSince: 21, Backlog: []Window{window}}, 20,
			Stream{High: 20, Recent: recent(map[string]int64{"a": 19}), RecentSince: 20, Backlog: []Window{window}, Rewound: true}},
		{"back, without a backlog",
			Stream{High: 90, RecentSince: 19, Backlog: []Window{}}, 20,
			Stream{High: 20, RecentSince: 19, Backlog: []Window{}, Rewound: true}},
		{"back, within what is remembered",
			Stream{High: 90, Recent: recent(ids()), RecentSince: 19}, 20,
			Stream{High: 20, Recent: recent(map[string]int64{"a": 19}), RecentSince: 19, Rewound: true}},
		{"back, where nothing says since when ids are complete",
			Stream{High: 90, Recent: recent(ids())}, 20,
			Stream{High: 20, Recent: recent(map[string]int64{"a": 19}), RecentSince: 20, Rewound: true}},
		{"forward: what is before a window's beginning changes nothing of it",
			Stream{High: 90, Backlog: []Window{window, {Gte: 10, Lte: 30}}}, 35,
			Stream{High: 90, Backlog: []Window{window}}},
		{"forward, to a window's only second",
			Stream{High: 90, Backlog: []Window{{Gte: 40, Lte: 40}, {Gte: 10, Lte: 30}}}, 40,
			Stream{High: 90, Backlog: []Window{{Gte: 40, Lte: 40}}}},
		{"forward, within a window without order",
			Stream{High: 90, Backlog: []Window{{Gte: 40, Lte: 60, After: "c", AfterAt: 50, Top: 59, Unordered: true}}}, 60,
			Stream{High: 90, Backlog: []Window{{Gte: 60, Lte: 60, After: "c", AfterAt: 50, Top: 59, Unordered: true}}}},
		{"forward, beyond high",
			Stream{High: 90, Recent: recent(ids()), RecentSince: 80}, 91,
			Stream{High: 91, Recent: recent(ids()), RecentSince: 80}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.before.edit(tt.to)
			if diff := cmp.Diff(tt.want, tt.before, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("differs (-want +got):\n%s", diff)
			}
		})
	}
}

// TestGivenUpStaysCovered: what a watermark set forward gives up may hold
// collected records, so that a backfill must be told to write them again.
func TestGivenUpStaysCovered(t *testing.T) {
	s := Stream{High: 1000, Covered: spans(100, 1000), Backlog: []Window{{Gte: 400, Lte: 600, After: "c", AfterAt: 500, Top: 590}, {Gte: 100, Lte: 200}}}
	s.edit(450)
	if diff := cmp.Diff(spans(100, 1000), s.Covered); diff != "" || len(s.Backlog) != 1 {
		t.Errorf("backlog %v, covered differs (-want +got):\n%s", s.Backlog, diff)
	}
}

// fullState has every key, and some of a later release.
func fullState() State {
	tenant := Stream{
		Watermark: 1795400000, LastRun: "2026-11-24T00:00:02Z", High: 1795400000, Backlog: []Window{},
		Untouched: true, Distinct: true, Unknown: `,"later":null`,
	}
	return State{
		Stream: Stream{
			Watermark: 1795397838, LastRun: "2026-11-24T01:00:02Z", High: 1795484238,
			Backlog: []Window{
				{Gte: 1795397838, Lte: 1795484238, After: "audit_log-a", AfterAt: 1795430000, Top: 1795484000, TopID: "audit_log-t", Unordered: true, Filter: filterA},
				{Gte: 1795397838, Lte: 1795400000, Unknown: `,"later":[1.50,{}]`},
			},
			Filter:      filterA,
			Covered:     []Span{{Gte: 1795397838, Lte: 1795484238, Filter: filterA}, {Gte: 1795390000, Lte: 1795397837}},
			RecentSince: 1795484000,
			Recent: Recent{
				remembered("audit_log-a", 1795484230, 3, 0),
				remembered("audit_log-a", 1795484237, 1, 2),
				remembered("audit_log-b", 1795484238, 1, 1<<64-1),
				remembered("audit_log-c", 1795484236, audit.AnyType, 0),
			},
			Unknown: `,"later":{"a":"b"},"latest":2`,
		},
		Tenant: &tenant,
		Staging: Staging{
			LastObject: "openai-auditlog/openai_auditlog_20261124_010002.ndjson", Staged: "state/openai-auditlog/staged/x",
			StagedGeneration: 1795484300123456, StagedBucket: "states",
		},
		Organization: "org-x",
		LastBackfill: "abcdefgh",
	}
}

// TestStoredKeys: keys never change: states of every version are read by every
// other, and by people. A key that says nothing is left out, but for those that
// tell whose state it is.
func TestStoredKeys(t *testing.T) {
	for _, tt := range []struct {
		file string
		s    State
	}{{"full.json", fullState()}, {"empty.json", State{}}} {
		want, err := os.ReadFile(filepath.Join("testdata", tt.file))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), encoded(t, tt.s)); diff != "" {
			t.Errorf("%s differs (-want +got):\n%s", tt.file, diff)
		}
	}
}

// TestStoredText: what an object, an array or a text holds changes nothing of what it
// says.
func TestStoredText(t *testing.T) {
	for _, text := range []string{`"`, `\`, `\"`, `\\"},[{:`, `{"a":[1,2]}`, "[]", "{}", ", : {\n\t}", "\u2028é"} {
		s := State{
			Stream: Stream{Own: true, Backlog: []Window{{After: text, Gte: 1, Lte: 2}, {}},
				Recent: Recent{{Identity: audit.Identity{ID: text, At: 5, Type: 1}}}},
			Organization: text,
		}
		data := encoded(t, s)
		got, _, err := Decode(strings.NewReader(data), testNow)
		if err != nil {
			t.Fatalf("%q is stored as %s: %v", text, data, err)
		}
		if diff := cmp.Diff(s, got); diff != "" {
			t.Errorf("%q is stored as %s (-want +got):\n%s", text, data, diff)
		}
		// Each window begins on a line of its own, and each text is on one.
		if n := strings.Count(data, "\n"); n != 24 {
			t.Errorf("%q makes %d lines:\n%s", text, n, data)
		}
	}
}

// TestStateRoundTrip: what is stored is what is read, whatever the windows.
func TestStateRoundTrip(t *testing.T) {
	other := fullState()
	other.Backlog = []Window{{Gte: 10, Lte: 20}, {Gte: 1, Lte: 9, After: "x", AfterAt: 5, Top: 4, Unordered: true}}
	other.Watermark = 1
	tenant := other.Stream
	tenant.Filter = filterA + "&" + filterP
	other.Tenant = &tenant
	for _, s := range []State{fullState(), other} {
		got, note, err := Decode(strings.NewReader(encoded(t, s)), testNow)
		if err != nil {
			t.Fatal(err)
		}
		tenant := *s.Tenant
		s.Own, tenant.Own, s.Tenant = true, true, &tenant
		if diff := cmp.Diff(s, got); diff != "" || note != "" {
			t.Errorf("note %q, differs (-want +got):\n%s", note, diff)
		}
	}
}

// TestImpliedWatermark: it is the beginning of what is not collected.
func TestImpliedWatermark(t *testing.T) {
	for _, tt := range []struct {
		s    Stream
		want int64
	}{
		{Stream{High: 90}, 90},
		{Stream{High: 90, Backlog: []Window{{Gte: 50, Lte: 60}, {Gte: 10, Lte: 20}, {Gte: 30, Lte: 40}}}, 10},
		{Stream{High: 90, Backlog: []Window{{Gte: 95, Lte: 99}}}, 90},
	} {
		if got := tt.s.ImpliedWatermark(); got != tt.want {
			t.Errorf("%+v: %d, want %d", tt.s, got, tt.want)
		}
	}
}

// TestCollectedTo: a run without a backlog has collected up to when it was, as
// far as it is this collector's; an edit or a backlog holds it back.
func TestCollectedTo(t *testing.T) {
	const run = "2026-11-24T01:00:00Z"
	at := testNow.Unix()
	own := func(watermark int64, lastRun string, backlog ...Window) Stream {
		return Stream{Watermark: watermark, High: watermark, LastRun: lastRun, Own: true, Backlog: backlog}
	}
	edited := own(50, run)
	edited.Own = false
	untouched := own(40, "")
	untouched.Untouched = true
	open := own(30, run, Window{Gte: 30, Lte: 60}, Window{Gte: 50, Lte: 60})
	backfill := Window{Gte: 5, Lte: 9, Backfill: Span{Gte: 5, Lte: 9}}
	editedBackfill := own(90, run, backfill)
	editedBackfill.Watermark, editedBackfill.Own = 7, false
	quiet, later := own(50, run), own(at+5, run)
	tests := []struct {
		name   string
		main   Stream
		tenant *Stream
		on     bool // TENANT_EVENTS
		to     int64

		windows Counts
	}{
		{"the last run", quiet, nil, true, at, Counts{}},
		{"the watermark, where it is later", later, nil, false, at + 5, Counts{}},
		{"the watermark, where a window is open", open, nil, false, 30, Counts{Open: 2}},
		{"the watermark, where it was edited", edited, nil, false, 50, Counts{}},
		{"the watermark, where no run is known", own(50, "x"), nil, false, 50, Counts{}},
		{"both, the tenant's behind", quiet, &open, true, 30, Counts{Open: 2}},
		{"both, the others behind", open, &quiet, true, 30, Counts{Open: 2}},
		{"both behind", open, &edited, true, 30, Counts{Open: 2}},
		{"without TENANT_EVENTS", quiet, &open, false, at, Counts{}},
		{"without the tenant's, which no run has read", quiet, &untouched, true, at, Counts{}},
		{"the last run, with one set aside", own(50, run, Window{Gte: 30, Lte: 30, SetAside: true}), nil, true, at, Counts{SetAside: 1}},
		{"a window that is open beside it", own(50, run, Window{Gte: 40, Lte: 45}, Window{Gte: 30, Lte: 30, SetAside: true}), nil, true, 40, Counts{Open: 1, SetAside: 1}},
		{"the last run, with a backfill", own(90, run, backfill), nil, true, at, Counts{Backfill: 1}},
		{"a window that is open beside it", own(90, run, Window{Gte: 40, Lte: 45}, backfill), nil, true, 40, Counts{Open: 1, Backfill: 1}},
		{"the end of what is covered, where the watermark was set into a backfill", editedBackfill, nil, true, 90, Counts{Backfill: 1}},
		{"the tenant's, with a backfill", open, &Stream{High: 20, Backlog: []Window{backfill}}, true, 20, Counts{Open: 2, Backfill: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := State{Stream: tt.main, Tenant: tt.tenant}
			if to := s.CollectedTo(tt.on); to != tt.to {
				t.Errorf("collected to %d, want %d", to, tt.to)
			}
			if diff := cmp.Diff(tt.windows, s.Windows(tt.on)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestBackfills: a backfill that a run has split is one, until all its windows are read. What is set
// aside of it is not left for runs to read.
func TestBackfills(t *testing.T) {
	a, b := Span{Gte: 10, Lte: 49}, Span{Gte: 100, Lte: 199}
	s := Stream{Backlog: []Window{
		{Gte: 300, Lte: 399},
		{Gte: 150, Lte: 199, Backfill: b, SetAside: true},
		{Gte: 100, Lte: 149, Backfill: b, After: "x", Top: 148, AfterAt: 119},
		{Gte: 40, Lte: 49, Backfill: a},
		{Gte: 10, Lte: 19, Backfill: a},
	}}
	want := []Remaining{{b, 20}, {a, 20}}
	if diff := cmp.Diff(want, s.Backfills()); diff != "" {
		t.Error(diff)
	}
	both := State{Stream: s, Tenant: &Stream{Backlog: []Window{{Gte: 10, Lte: 40, Backfill: a}}}}
	want[1].Left = 31
	if diff := cmp.Diff(want, both.Backfills(true)); diff != "" {
		t.Error(diff)
	}
}

// TestGaps: what no range covers, whatever their filters.
func TestGaps(t *testing.T) {
	s := Stream{High: 90, Covered: []Span{{Gte: 60, Lte: 90}, {Gte: 50, Lte: 70, Filter: filterA}, {Gte: 40, Lte: 45, Filter: filterA}, {Gte: 10, Lte: 20}}}
	if diff := cmp.Diff(spans(46, 49, 21, 39), s.Gaps()); diff != "" {
		t.Error(diff)
	}
	if list := new(Stream).Gaps(); list != nil {
		t.Errorf("gaps %v of a state that does not know", list)
	}
}

// TestAdopt: of a stream that was edited, no run has seen what is left to do.
func TestAdopt(t *testing.T) {
	for _, own := range []bool{true, false} {
		for _, tenantOwn := range []bool{true, false} {
			s := State{Stream: Stream{LastRun: "x", Own: own}, Tenant: &Stream{LastRun: "y", Own: tenantOwn}}
			s.Adopt()
			if (s.LastRun == "x") != own || (s.Tenant.LastRun == "y") != tenantOwn {
				t.Errorf("own %v and %v: last runs %q and %q", own, tenantOwn, s.LastRun, s.Tenant.LastRun)
			}
		}
	}
	alone := State{Stream: Stream{LastRun: "x"}}
	if alone.Adopt(); alone.LastRun != "" || alone.Tenant != nil {
		t.Errorf("%+v", alone)
	}
}

func TestStaging(t *testing.T) {
	for _, tt := range []struct {
		named, found int64
		want         bool
	}{{7, 7, true}, {7, 8, false}, {7, 0, false}, {0, 8, true}, {0, 0, false}} {
		if got := (Staging{StagedGeneration: tt.named}).Stages(tt.found); got != tt.want {
			t.Errorf("generation %d where %d is named: %v", tt.found, tt.named, got)
		}
	}
	for _, tt := range []struct {
		named string
		want  bool
	}{{"", false}, {"here", false}, {"there", true}} {
		if got := (Staging{StagedBucket: tt.named}).Elsewhere("here"); got != tt.want {
			t.Errorf("bucket %q is named: %v", tt.named, got)
		}
	}
	if diff := cmp.Diff(Staging{LastObject: fullState().LastObject}, fullState().Published()); diff != "" {
		t.Errorf("published differs (-want +got):\n%s", diff)
	}
}

// TestCountObject: objects are counted from the first on, and anew where some were not.
func TestCountObject(t *testing.T) {
	written := time.Unix(100, 0)
	var s State
	s.Objects, s.LastObject = s.CountObject("p/a", time.Time{}), "p/a"
	if diff := cmp.Diff(&Objects{Count: 1, Last: "p/a"}, s.Objects); diff != "" {
		t.Errorf("of a first run (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&Objects{Count: 2, Last: "p/b"}, s.CountObject("p/b", written)); diff != "" || s.Objects.Count != 1 {
		t.Errorf("of a second one (-want +got):\n%s", diff)
	}
	s.LastObject = "p/b" // by a release that does not count
	if diff := cmp.Diff(&Objects{Count: 1, Last: "p/c", Since: 101}, s.CountObject("p/c", written)); diff != "" {
		t.Errorf("after an older release (-want +got):\n%s", diff)
	}
	if _, _, err := Decode(strings.NewReader(`{"last_effective_at":90,"objects":{"count":-1}}`), time.Unix(100, 0)); err == nil {
		t.Error("a negative count is taken")
	}
}
