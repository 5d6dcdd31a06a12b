package auditlog

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var testNow = time.Date(2026, 11, 24, 1, 0, 0, 0, time.UTC)

func TestDecodeState(t *testing.T) {
	const w1, w2 = 1795397838, 1795484238
	full := fmt.Sprintf(`{"last_effective_at":%d,"last_run":"2026-11-24T01:00:02Z","high":%d,
		"backlog":[{"gte":%d,"lte":%d,"after":"audit_log-a","after_at":1795430000,"top":1795484000}],
		"recent_ids":{"audit_log-b":%d},"recent_since":1795484000,
		"last_object":"openai-auditlog/openai_auditlog_20261124_010002.ndjson","staged":"state/openai-auditlog/staged/x"}`, w1, w2, w1, w2, w2)
	backlog := []window{{Gte: w1, Lte: w2, After: "audit_log-a", AfterAt: 1795430000, Top: 1795484000}}
	staged := State{LastObject: "openai-auditlog/openai_auditlog_20261124_010002.ndjson", Staged: "state/openai-auditlog/staged/x"}
	with := func(s State, change func(*State)) State { change(&s); return s }

	tests := []struct {
		name, data string
		want       State
		continues  bool
		note       bool
	}{
		{"ours", full,
			with(staged, func(s *State) {
				s.Watermark, s.High, s.Backlog = w1, w2, backlog
				s.RecentIDs, s.RecentSince = map[string]int64{"audit_log-b": w2}, 1795484000
			}), true, false},
		{"the Python function's", `{"last_effective_at": 1795397838, "last_run": "2026-11-24T01:00:02.123456+00:00"}`,
			State{Stream: Stream{Watermark: w1, High: w1}}, false, false},
		{"the Python function's, as a float", `{"last_effective_at": 1795397838.0}`, State{Stream: Stream{Watermark: w1, High: w1}}, false, false},
		{"edited back: read again from there", strings.Replace(full, `_at":1795397838`, `_at":1795000000`, 1),
			with(staged, func(s *State) {
				s.Watermark, s.High, s.RecentSince, s.Backlog = 1795000000, 1795000000, 1795000000, backlog
				s.RecentIDs = map[string]int64{}
			}), false, true},
		{"edited into the backlog: its rest from there", strings.Replace(full, `_at":1795397838`, `_at":1795400000`, 1),
			with(staged, func(s *State) {
				s.Watermark, s.High = 1795400000, w2
				s.Backlog = []window{{Gte: 1795400000, Lte: w2, After: "audit_log-a", AfterAt: 1795430000, Top: 1795484000}}
				s.RecentIDs, s.RecentSince = map[string]int64{"audit_log-b": w2}, 1795484000
			}), false, true},
		{"edited beyond what is left of the backlog", strings.Replace(full, `_at":1795397838`, `_at":1795440000`, 1),
			with(staged, func(s *State) {
				s.Watermark, s.High = 1795440000, w2
				s.RecentIDs, s.RecentSince = map[string]int64{"audit_log-b": w2}, 1795484000
			}), false, true},
		{"edited beyond high: nothing before it", strings.Replace(full, `_at":1795397838`, `_at":1795485000`, 1),
			with(staged, func(s *State) {
				s.Watermark, s.High = 1795485000, 1795485000
				s.RecentIDs, s.RecentSince = map[string]int64{"audit_log-b": w2}, 1795484000
			}), false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := decodeState([]byte(tt.data), testNow)
			if err != nil {
				t.Fatal(err)
			}
			got.LastRun = ""
			if diff := cmp.Diff(tt.want, got.State, cmpopts.IgnoreUnexported(Stream{})); diff != "" {
				t.Errorf("state differs (-want +got):\n%s", diff)
			}
			if got.continues != tt.continues || (got.note != "") != tt.note {
				t.Errorf("continues %v, note %q", got.continues, got.note)
			}
		})
	}
}

func TestDecodeStateRefuses(t *testing.T) {
	ahead := testNow.Add(25 * time.Hour).Unix()
	tests := map[string]string{
		"empty":                ``,
		"cut":                  `{"last_effective_at": 17953`,
		"null":                 `null`,
		"array":                `[]`,
		"string":               `"x"`,
		"two values":           `{"last_effective_at": 1} {}`,
		"no watermark":         `{"last_run": "x"}`,
		"null watermark":       `{"last_effective_at": null}`,
		"text watermark":       `{"last_effective_at": "1795397838"}`,
		"fractional watermark": `{"last_effective_at": 1795397838.5}`,
		"huge watermark":       `{"last_effective_at": 1e300}`,
		"negative watermark":   `{"last_effective_at": -1}`,
		"watermark ahead":      fmt.Sprintf(`{"last_effective_at": %d}`, ahead),
		"high ahead":           fmt.Sprintf(`{"last_effective_at": 1, "high": %d}`, ahead),
		"high text":            `{"last_effective_at": 1, "high": "1"}`,
		"ids since after high": `{"last_effective_at": 1, "high": 1, "recent_since": 2}`,
		"window backwards":     `{"last_effective_at": 1, "high": 9, "backlog": [{"gte": 5, "lte": 1}]}`,
		"window ahead":         fmt.Sprintf(`{"last_effective_at": 1, "high": 9, "backlog": [{"gte": 1, "lte": %d}]}`, ahead),
		"window negative":      `{"last_effective_at": 1, "high": 9, "backlog": [{"gte": -1, "lte": 4}]}`,
		"filter not of ours":   `{"last_effective_at": 1, "high": 9, "backlog": [{"gte": 1, "lte": 4, "filter": "limit=1"}]}`,
		"tenant damaged":       `{"last_effective_at": 1, "high": 9, "tenant": {"high": 1}}`,
		"tenant a list":        `{"last_effective_at": 1, "high": 9, "tenant": []}`,
		"ids a list":           `{"last_effective_at": 1, "high": 1, "recent_ids": ["x"]}`,
		"staged elsewhere":     `{"last_effective_at": 1, "high": 1, "staged": "x/y", "last_object": "p/openai_auditlog_20261124_010002.ndjson"}`,
		"staged without name":  `{"last_effective_at": 1, "high": 1, "staged": "x/staged/y"}`,
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := decodeState([]byte(data), testNow); err == nil {
				t.Errorf("accepted as %+v", got)
			}
		})
	}
}

// TestStateRoundTrip: what is stored is what is read, whatever the windows.
func TestStateRoundTrip(t *testing.T) {
	s := State{Stream: Stream{
		LastRun: "2026-11-24T01:00:02Z", High: 1795484238, Backlog: []window{{Gte: 10, Lte: 20}, {Gte: 1, Lte: 9, After: "x", AfterAt: 5, Top: 4, Unordered: true}},
		RecentIDs: map[string]int64{"a": 1}, RecentSince: 1, Covered: []span{{Gte: 1, Lte: 2, Filter: "event_types%5B%5D=a"}},
	}, LastObject: "p/openai_auditlog_20261124_010002.ndjson", Staged: "s/staged/x", Organization: "org-x", LastBackfill: "b",
	}
	s.Watermark = s.watermark()
	tenant := s.Stream
	tenant.Filter = "event_types%5B%5D=a&project_ids%5B%5D=p"
	s.Tenant = &tenant
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeState(data, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, got.State, cmpopts.IgnoreUnexported(Stream{})); diff != "" || got.note != "" || s.Watermark != 1 {
		t.Errorf("watermark %d, note %q, differs (-want +got):\n%s", s.Watermark, got.note, diff)
	}
}

func TestNameAfter(t *testing.T) {
	for _, tt := range []struct{ last, want string }{
		{"", "openai_auditlog_20261124_010000.ndjson"},
		{"p/openai_auditlog_20261123_235959.ndjson", "openai_auditlog_20261124_010000.ndjson"},
		{"p/openai_auditlog_20261124_010000.ndjson", "openai_auditlog_20261124_010001.ndjson"},
		{"p/openai_auditlog_20261124_235959.ndjson", "openai_auditlog_20261125_000000.ndjson"},
		{"p/somebody's.ndjson", "openai_auditlog_20261124_010000.ndjson"},
	} {
		if got := nameAfter(tt.last, testNow.Add(123*time.Millisecond)); got != tt.want {
			t.Errorf("after %q: %q, want %q", tt.last, got, tt.want)
		}
	}
}
