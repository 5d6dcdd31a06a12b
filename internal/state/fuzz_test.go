package state

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"example.com/auditlog/internal/audit"
)

// knownKeys are the keys of this release, at any level.
var knownKeys = strings.Fields(`last_effective_at last_run high backlog gte lte after after_at top top_id unordered backfill filter covered
	recent_ids recent recent_since tenant unread apart last_object staged staged_generation staged_bucket organization objects count last since last_backfill version`)

// FuzzDecodeState: any bytes are an error, or a state that a run can go on
// from: it comes back as it was from being stored, and an edited watermark gives
// up nothing at or after it, and where it was moved forward has nothing read
// again. Keys that are not known survive. A backfill that it takes leaves such a state, too.
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
		`{"last_effective_at":90,"high":90,"covered":[{"gte":60,"lte":90,"filter":"event_types%5B%5D=a"},{"gte":10,"lte":20}],"tenant":{"last_effective_at":90,"high":90,"covered":[{"gte":30,"lte":90}]}}`,
		`{"last_effective_at":90,"high":90,"version":1,"later":{"a":[1.50]},"backlog":[{"gte":10,"lte":60,"latest":"x"}],"tenant":{"last_effective_at":90,"high":90,"newer":null}}`,
		`{"last_effective_at":90,"high":90,"last_object":"p/a","objects":{"count":3,"last":"p/a","since":20}}`,
		`{"last_effective_at":10,"high":90,"backlog":[{"gte":10,"lte":60,"backfill":{"gte":5,"lte":60}}]}`,
		`{"last_effective_at":-1}`,
		`[]`,
	} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, note, err := Decode(bytes.NewReader(data), testNow)
		if err != nil {
			return
		}
		if s.Watermark < 0 || s.Watermark > testLimit || s.High < s.Watermark && len(s.Backlog) == 0 {
			t.Fatalf("accepted watermark %d, high %d", s.Watermark, s.High)
		}
		// The range before the rest of an edited backlog is not read again.
		if implied := s.ImpliedWatermark(); s.Watermark > implied || s.Watermark < implied && note == "" {
			t.Fatalf("watermark %d, note %q; the rest implies %d", s.Watermark, note, implied)
		}
		stays(t, s)
		keeps(t, data, s)

		// covers reports whether a record at this time can still be collected.
		covers := func(s *State, at int64) bool {
			return at >= max(s.High, s.RecentSince) || slices.ContainsFunc(s.Backlog, func(w Window) bool { return w.Unread(at) })
		}
		var before State // as it was before an edit
		_ = json.Unmarshal(data, &before)
		edges := []int64{s.Watermark, before.High, before.RecentSince}
		for _, w := range before.Backlog {
			edges = append(edges, w.Gte, w.Lte, w.AfterAt)
		}
		for _, edge := range edges {
			for _, at := range []int64{edge - 1, edge, edge + 1} {
				if at >= s.Watermark && covers(&before, at) && !covers(&s, at) {
					t.Fatalf("records at %d are given up, watermark %d:\n%+v\n%+v", at, s.Watermark, before, s)
				}
				if note != "" && s.Watermark >= before.ImpliedWatermark() && covers(&s, at) && !covers(&before, at) {
					t.Fatalf("records at %d are read again, watermark %d:\n%+v\n%+v", at, s.Watermark, before, s)
				}
			}
		}

		for _, edge := range edges[:min(len(edges), 8)] {
			for _, want := range []Backfill{since(edge-5, edge-1), since(edge-5, -1), again(since(edge, edge+5))} {
				for _, filter := range []audit.Filter{"", filterA} {
					next := s
					b, err := next.AddBackfill(want, filter, true)
					added := len(next.Backlog) > len(s.Backlog) || s.Tenant != nil && len(next.Tenant.Backlog) > len(s.Tenant.Backlog)
					switch {
					case err != nil:
						continue
					case added != (len(b.Parts) > 0):
						t.Fatalf("%+v, added %v", b, added)
					case b.Asked.Gte != want.From.Unix() || b.Asked.Gte > b.Asked.Lte || !want.To.IsZero() && b.Limited != (b.Asked.Lte < want.To.Unix()):
						t.Fatalf("%+v, for %+v", b, want)
					}
					stays(t, next)
					twice := next
					if b, err := twice.AddBackfill(want, filter, true); !want.Again && (err != nil || len(b.Parts) > 0) {
						t.Fatalf("a second time: %+v, %v", b, err)
					}
				}
			}
		}
	})
}

// keeps checks that a state is stored with the keys that this release does not
// know, as they were in data.
func keeps(t *testing.T, data []byte, s State) {
	t.Helper()
	var before, after map[string]any
	if err := json.Unmarshal(bytes.TrimPrefix(data, []byte("\ufeff")), &before); err != nil {
		return // a number that is none in Go
	}
	if err := json.Unmarshal([]byte(encoded(t, s)), &after); err != nil {
		t.Fatal(err)
	}
	compare := func(before, after map[string]any) {
		for key, value := range before {
			known := slices.ContainsFunc(knownKeys, func(k string) bool { return strings.EqualFold(k, key) })
			if !known && !cmp.Equal(after[key], value) {
				t.Fatalf("%q was %v, and is %v", key, value, after[key])
			}
		}
	}
	compare(before, after)
	tenants := 0
	for key := range before {
		if strings.EqualFold(key, "tenant") {
			tenants++
		}
	}
	if tenant, ok := before["tenant"].(map[string]any); ok && tenants == 1 {
		compare(tenant, after["tenant"].(map[string]any))
	}
}

// stays checks that a state comes back as it was from being stored.
func stays(t *testing.T, s State) {
	t.Helper()
	s.Watermark, s.Own, s.Rewound = s.ImpliedWatermark(), true, false
	if s.Tenant != nil {
		tenant := *s.Tenant
		tenant.Watermark, tenant.Own, tenant.Rewound = tenant.ImpliedWatermark(), true, false
		s.Tenant = &tenant
	}
	got, note, err := Decode(strings.NewReader(encoded(t, s)), testNow.Add(time.Second))
	if err != nil {
		t.Fatalf("refuses its own state: %v", err)
	}
	if diff := cmp.Diff(s, got, cmpopts.EquateEmpty()); diff != "" || note != "" {
		t.Fatalf("note %q, differs (-want +got):\n%s", note, diff)
	}
}
