package plan

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

// FuzzPlanOfState: of whatever state there is, a run lays out ranges, newest
// first, that reach back to what is covered and leave none of the backlog out but
// what the new window reads again. A run without news makes a state of it that
// covers no less and comes back as it was from being stored.
func FuzzPlanOfState(f *testing.F) {
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
		`{"last_effective_at":5,"high":90,"backlog":[{"gte":70,"lte":90},{"gte":10,"lte":60,"filter":"event_types%5B%5D=a"}],"tenant":{"last_effective_at":90,"high":90,"covered":[{"gte":30,"lte":90}],"unread":true}}`,
		`{"last_effective_at":-1}`,
		`[]`,
	} {
		f.Add([]byte(data))
	}
	now := time.Date(2026, 11, 24, 1, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, _, err := state.Decode(bytes.NewReader(data), now)
		if err != nil {
			return
		}
		s.Adopt()
		var before, after bytes.Buffer
		if err := state.Encode(&before, s); err != nil {
			t.Fatal(err)
		}
		for _, overlap := range []int64{0, 120, 366 * 24 * 3600} {
			for _, filter := range []audit.Filter{"", filterA} {
				settings := Settings{MaxWindows: 64, MaxIDs: 1 << 30, Tenant: true, Filter: filter, MaxRecords: 10, PageSize: 10, Overlap: overlap, Lookback: 24 * 3600}
				p := New(&s, settings, now)
				for _, x := range p.streams {
					planOfState(t, x, filter, now.Unix())
				}
				asked := 0
				for r, ok := p.Next(false); ok; r, ok = p.Next(false) {
					if asked++; r.Gte < 0 || r.Gte > r.Lte {
						t.Fatalf("request %+v", r.Request)
					}
					if o := p.Take(r, audit.Page{Date: now}, noOthers, 3); !o.Taken {
						t.Fatalf("a page without news makes %+v, stopped by %v", o, p.Stopped())
					}
				}
				windows := 0
				for _, x := range p.streams {
					windows += len(x.segments)
				}
				if err := p.Stopped(); err != nil || asked != windows {
					t.Fatalf("%d requests for %d windows, stopped by %v", asked, windows, err)
				}
				next := p.State()
				if next.High < s.High || s.Tenant != nil && next.Tenant.High < s.Tenant.High || next.Windows(true) != (state.Counts{}) || next.Staging != s.Staging {
					t.Fatalf("a run without news makes\n%+v of\n%+v", next, s)
				}
				if diff := cmp.Diff(next, stored(t, next, now), cmpopts.EquateEmpty()); diff != "" {
					t.Fatalf("differs once stored (-want +got):\n%s", diff)
				}
			}
		}
		if err := state.Encode(&after, s); err != nil || after.String() != before.String() {
			t.Fatalf("changes the state that it begins with:\n%s\n%s", &before, &after)
		}
	})
}

// planOfState checks what is laid out for a stream.
func planOfState(t *testing.T, s *stream, filter audit.Filter, now int64) {
	t.Helper()
	fresh := s.segments[0]
	left := 0 // to the new window
	for _, w := range s.before.Backlog {
		if s.before.Rewound && w.Filter == filter {
			left++
		}
	}
	if len(s.segments)-1 != len(s.before.Backlog)-left || fresh.Gte > s.before.High && !s.first || fresh.Lte < now || fresh.Filter != filter {
		t.Fatalf("%d windows, the new one %+v, of %+v", len(s.segments), fresh.Window, s.before)
	}
	for i, w := range s.segments {
		if w.Gte < 0 || w.Gte > w.Lte || i > 1 && w.Lte > s.segments[i-1].Lte || w.fresh != (i == 0) {
			t.Fatalf("window %d of the plan: %+v", i, w.Window)
		}
	}
}
