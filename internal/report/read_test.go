package report_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"example.com/auditlog"
	"example.com/auditlog/internal/config"
	"example.com/auditlog/internal/proof/product"
	"example.com/auditlog/internal/report"
	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/sim/harness"
	"example.com/auditlog/internal/state"
	"example.com/auditlog/internal/store"
)

const stateName = "state/openai-auditlog/state.json"

// inBubble runs f in a world where the function makes runs happen.
func inBubble(t *testing.T, f func(t *testing.T, h *harness.H)) {
	t.Helper()
	harness.InBubble(t, product.Function, f)
}

// storeOf is the store of a new instance.
func storeOf(h *harness.H) *store.Store {
	h.T.Helper()
	cfg, err := config.Load(h.Env)
	if err != nil {
		h.T.Fatal(err)
	}
	return store.New(h.Connect(nil).Storage, store.Options{Layout: cfg.Layout(), Step: cfg.StepTimeout()})
}

// options are those of the command, without its progress.
func options(h *harness.H) report.Options {
	return report.Options{Days: 3, MaxBytes: 256 << 20, TenantEvents: h.Env["TENANT_EVENTS"] == "true", MaxLag: 3 * time.Hour, Progress: func(string, ...any) {}}
}

// read makes a report, and fails the test where that asks for much, or changes
// anything.
func read(h *harness.H) (*report.Report, error) {
	h.T.Helper()
	h.BucketFaults.Set(nil)
	r, err := report.Read(h.T.Context(), storeOf(h), time.Now(), options(h))
	most := 3 // the state, what is staged, the list
	if r != nil && r.Feed != nil {
		most += len(r.Feed.Objects)
	}
	if n := h.BucketFaults.Count(); n > most {
		h.T.Errorf("%d requests, want at most %d", n, most)
	}
	for _, r := range h.BucketFaults.Log() {
		if r.Method != http.MethodGet {
			h.T.Errorf("reading does %s %s", r.Method, r.Path)
		}
	}
	return r, err
}

func mustRead(h *harness.H) *report.Report {
	h.T.Helper()
	r, err := read(h)
	if err != nil {
		h.T.Fatal(err)
	}
	return r
}

// now is what a report says has become of the staged object, "" for none.
func now(r *report.Report) string {
	if r.State.Staged == nil {
		return ""
	}
	return r.State.Staged.Now
}

// TestRead follows what a report says through the life of a state.
func TestRead(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness.H) {
		r := mustRead(h)
		if s := r.State; s.Committed || s.Object != "gs://logs/"+stateName || s.LagSeconds != 0 || s.Staged != nil || !s.WatermarkTime.IsZero() || !s.LastRun.IsZero() {
			t.Errorf("before the first run: %+v", s)
		}
		if r.Feed.Prefix != "gs://logs/openai-auditlog/" || len(r.Feed.Objects) != 0 || !r.Time.Equal(time.Now()) {
			t.Errorf("before the first run: %s, %+v", r.Time, r.Feed)
		}

		h.Env["MAX_RECORDS"] = "25"
		h.Add(30, 5, 60)
		run := h.MustRun()
		s, stored := mustRead(h).State, h.Stored()
		if !s.Committed || len(s.Windows) != 1 || s.Watermark != run.Watermark || s.WatermarkTime.Unix() != run.Watermark || s.Note != "" || s.Organization != "example-org" || s.RecentIDs == 0 || s.High != stored.High {
			t.Errorf("with a backlog: %+v", s)
		}
		want := &report.Staged{Object: "gs://logs/" + stored.Staged, PublishesAs: run.Object, Now: report.StagedPublished}
		if diff := cmp.Diff(want, s.Staged); diff != "" {
			t.Error(diff)
		}
		if s.LagSeconds != run.Lag {
			t.Errorf("lag %d, the run says %d", s.LagSeconds, run.Lag)
		}
		first := stored.Backlog[0]
		if w := s.Windows[0]; w.Span != (state.Span{Gte: first.Gte, Lte: first.Lte}) || w.GteTime.Unix() != w.Gte || w.LeftTo != first.AfterAt || w.Kind != report.KindNew {
			t.Errorf("%+v", w)
		}
		if got, err := storeOf(h).Load(t.Context()); err != nil || got.First() || time.Since(got.Written) > time.Minute {
			t.Errorf("%+v, %v", got, err)
		}
		h.MustRun()
		time.Sleep(time.Hour)
		if s := mustRead(h).State; len(s.Windows) != 0 || s.LagSeconds != 3600 || time.Since(s.LastRun) != time.Hour {
			t.Errorf("without a backlog: %+v", s)
		}

		// Published, and then one that is not.
		h.Add(3, 5, 60)
		h.Bucket.Deny(func(_, op, _, _ string) bool { return op == "move" })
		if _, err := h.Run(); err == nil {
			t.Fatal("the run ends well")
		}
		h.Bucket.Deny(nil)
		staged := h.Stored().Staged
		data, err := h.Bucket.Read("logs", staged)
		if err != nil {
			t.Fatal(err)
		}
		if r := mustRead(h); now(r) != report.StagedPending || r.State.Staged.Bytes != int64(len(data)) {
			t.Errorf("not published: %+v", r.State.Staged)
		}
		write(h, "logs", staged, string(data))
		if r := mustRead(h); now(r) != report.StagedRewritten || r.State.Staged.Bytes != int64(len(data)) {
			t.Errorf("written again: %+v", r.State.Staged)
		}
		stateData := string(h.ReadState())
		h.Env["STATE_BUCKET"] = "states"
		write(h, "states", stateName, stateData)
		if r := mustRead(h); now(r) != report.StagedElsewhere || r.State.Object != "gs://states/"+stateName || r.State.Staged.Object != "gs://logs/"+staged {
			t.Errorf("in another bucket: %+v", r.State)
		}
		h.Env["STATE_BUCKET"] = ""

		// The Python function's state, whose last run may have lost records; and an edit.
		at := time.Now()
		write(h, "logs", stateName, fmt.Sprintf(`{"last_effective_at": %d, "last_run": %q}`, at.Unix()-100, at.UTC().Format(time.RFC3339)))
		if s := mustRead(h).State; s.LagSeconds != 100 || s.Note != "" || len(s.Collected) != 0 || !s.Unknown {
			t.Errorf("another function's: %+v", s)
		}
		write(h, "logs", stateName, fmt.Sprintf(`{"last_effective_at": %d, "high": %d, "last_run": "yesterday"}`, at.Unix()-500, at.Unix()-100))
		if s := mustRead(h).State; s.LagSeconds != 500 || !strings.Contains(s.Note, "by hand") || !s.LastRun.IsZero() {
			t.Errorf("edited: %+v", s)
		}
	})
}

func write(h *harness.H, bucket, name, data string) {
	h.T.Helper()
	if err := h.Bucket.Write(bucket, name, []byte(data)); err != nil {
		h.T.Fatal(err)
	}
}

// TestReadBackfill: a backfill is no lag of new records. What a filter has left out is not shown as covered, and what
// is asked for again is not counted twice.
func TestReadBackfill(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness.H) {
		h.Add(10, 7200, 60)
		h.MustRun()
		high := h.Stored().High
		h.Env["EVENT_TYPES"] = "login.succeeded"
		time.Sleep(time.Hour)
		h.MustRun()
		backfill := func(from, to int64, again bool) {
			t.Helper()
			cfg, err := config.Load(h.Env)
			if err != nil {
				t.Fatal(err)
			}
			c, err := auditlog.New(t.Context(), cfg, auditlog.Options{Storage: h.Connect(nil).Storage})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Backfill(t.Context(), h.Log, state.Backfill{From: time.Unix(from, 0), To: time.Unix(to, 0), Again: again}); err != nil {
				t.Fatal(err)
			}
		}
		backfill(1, 500, false)
		r := mustRead(h)
		s := r.State
		if !r.OK || !strings.Contains(r.Verdict, "0 s ago; 1 backfill under way; 1 gap") || s.LagSeconds != 0 || s.Watermark != 1 || s.CollectedTo != time.Now().Unix() {
			t.Errorf("%v, %s, %+v", r.OK, r.Verdict, s)
		}
		if len(s.Backfills) != 1 || s.Backfills[0].Span != (state.Span{Gte: 1, Lte: 500}) || s.Backfills[0].LeftSeconds != 500 || s.Windows[0].Kind != report.KindBackfill {
			t.Errorf("backfills %+v, windows %+v", s.Backfills, s.Windows)
		}
		if len(s.Collected) != 2 || s.Collected[0].Filter != "EVENT_TYPES=login.succeeded" || s.Collected[1].Lte != high || s.Collected[1].Filter != "" || len(s.Gaps) != 1 {
			t.Errorf("collected %+v, gaps %+v", s.Collected, s.Gaps)
		}
		h.Env["EVENT_TYPES"] = ""
		h.MustRun()
		before := mustRead(h).Feed
		backfill(high-7200, high-200, true)
		h.MustRun()
		after := mustRead(h).Feed
		if after.Repeats == 0 || after.Repeats != after.Objects[0].Repeats || after.Records != before.Records || after.Objects[0].Oldest != 0 {
			t.Errorf("%d records before, %d after it and %d repeats: %+v", before.Records, after.Records, after.Repeats, after.Objects[0])
		}
		time.Sleep(4 * time.Hour)
		if r := mustRead(h); r.OK || !strings.Contains(r.Verdict, "4 h ago, which is more than 3 h") {
			t.Errorf("%v, %s", r.OK, r.Verdict)
		}
	})
}

// TestReadTenant: the stream of tenant-scoped records has figures of its own, and
// the lag is that of the one further behind.
func TestReadTenant(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness.H) {
		h.Env["TENANT_EVENTS"], h.Env["EVENT_TYPES"] = "true", "a"
		h.Put(false, "a", 5)
		h.Put(true, "a", 5)
		run := h.MustRun()
		stored, s := h.Stored(), mustRead(h).State
		if s.Filter != "EVENT_TYPES=a" || s.Tenant == nil || s.LagSeconds != run.Lag {
			t.Fatalf("%+v", s)
		}
		if tenant := s.Tenant; tenant.Watermark != stored.Tenant.Watermark || tenant.CollectedTo != s.LastRun.Unix() || tenant.Filter != "EVENT_TYPES=a" || tenant.RecentIDs != 1 || len(tenant.Windows) != 0 {
			t.Errorf("%+v", tenant)
		}
		h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault {
			if r.URL.Query().Has("tenant_only") {
				return fault.Fault{Kind: fault.Refuse, Status: 401}
			}
			return fault.Fault{}
		})
		time.Sleep(time.Hour)
		if _, err := h.Run(); err == nil {
			t.Fatal("the run ends well")
		}
		if s := mustRead(h).State; s.LagSeconds != 3600 {
			t.Errorf("lag %d, while tenant-scoped records are an hour behind", s.LagSeconds)
		}
		h.Env["TENANT_EVENTS"] = "false"
		if s := mustRead(h).State; s.LagSeconds != 0 || s.Tenant == nil {
			t.Errorf("lag %d, where tenant-scoped records are not wanted", s.LagSeconds)
		}
	})
}

// TestReadFails: what cannot be read is named, and the rest is there.
func TestReadFails(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness.H) {
		h.Add(3, 5, 1)
		h.MustRun()
		good := string(h.ReadState())
		pending := fmt.Sprintf(`{"last_effective_at": %d, "high": %[1]d, "staged": "staged/x.ndjson", "last_object": "openai_auditlog_20000101_000000.ndjson"}`, time.Now().Unix())
		none := func(_, _, _, _ string) bool { return false }
		for _, tt := range []struct {
			name   string
			state  string
			deny   func(method, op, bucket, object string) bool
			none   bool     // there is no report
			errors []string // parts of each
			staged string
			feed   bool
		}{
			{"staged", pending, func(_, _, _, object string) bool { return object == "staged/x.ndjson" }, false,
				[]string{`looking for gs://logs/staged/x.ndjson: whoever reads needs the role Storage Object Viewer on bucket "logs": `}, report.StagedUnknown, true},
			{"all but the state", pending, func(_, _, _, object string) bool { return object != stateName }, false,
				[]string{"looking for gs://logs/staged/x.ndjson: ", `listing gs://logs/openai-auditlog/: whoever reads needs the role Storage Object Viewer on bucket "logs": `}, report.StagedUnknown, false},
			{"list", good, func(_, op, _, prefix string) bool { return op == "list" && prefix == "openai-auditlog/" }, false,
				[]string{"listing gs://logs/openai-auditlog/: "}, report.StagedPublished, false},
			{"object", good, func(_, op, _, object string) bool {
				return op == "get" && strings.HasPrefix(object, "openai-auditlog/")
			}, false,
				[]string{"reading gs://logs/openai-auditlog/openai_auditlog_"}, report.StagedPublished, true},
			{"damaged", `{"last_effective_at": "soon"}`, none, true,
				[]string{"state gs://logs/" + stateName + " is damaged: "}, "", false},
			{"not a staged name", strings.ReplaceAll(pending, "staged/x", "openai-auditlog/x"), none, true,
				[]string{`is damaged: "staged" is "openai-auditlog/x.ndjson"`}, "", false},
			{"denied", good, func(_, op, _, _ string) bool { return op == "get" }, true,
				[]string{"reading state gs://logs/" + stateName + `: whoever reads needs the role Storage Object Viewer on bucket "logs": `}, "", false},
		} {
			write(h, "logs", stateName, tt.state)
			h.Bucket.Deny(tt.deny)
			r, err := read(h)
			if err == nil {
				t.Errorf("%s: no error", tt.name)
				continue
			}
			for _, part := range tt.errors {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s: error %q lacks %q", tt.name, err, part)
				}
			}
			if tt.none {
				if r != nil {
					t.Errorf("%s: a report %+v", tt.name, r)
				}
				if damaged := strings.Contains(err.Error(), "is damaged"); damaged != strings.Contains(err.Error(), "restore an older generation of the object, or mend last_effective_at") {
					t.Errorf("%s: %v", tt.name, err)
				}
				continue
			}
			if len(r.Errors) != len(tt.errors) || !r.State.Committed || now(r) != tt.staged || (r.Feed != nil) != tt.feed {
				t.Errorf("%s: errors %q, state %+v, feed %+v", tt.name, r.Errors, r.State, r.Feed)
			}
			for i, part := range tt.errors {
				if i < len(r.Errors) && (!strings.Contains(r.Errors[i], part) || strings.Contains(r.Errors[i], "\n")) {
					t.Errorf("%s: error %d is %q, want one line with %q", tt.name, i, r.Errors[i], part)
				}
			}
		}

		h.Bucket.Deny(nil)
		h.Env["GCS_BUCKET"] = "nowhere"
		if r, err := read(h); r != nil || err == nil || !strings.Contains(err.Error(), "no such bucket") {
			t.Errorf("no bucket: %+v, %v", r, err)
		}
	})
}

// TestReadFeed: all under the feed prefix is listed, and each record is counted
// whatever it holds.
func TestReadFeed(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness.H) {
		h.Env["MAX_RECORDS"] = "150"
		h.Add(400, 5, 60)
		for range 3 {
			h.MustRun()
			time.Sleep(time.Hour)
		}
		sizes := map[string]int64{}
		var whole int64
		for _, o := range h.Bucket.Objects("logs", "openai-auditlog/") {
			name := strings.TrimPrefix(o.Name, "openai-auditlog/")
			sizes[name] = o.Size
			whole += o.Size
		}
		f := mustRead(h).Feed
		if len(f.Objects) != 3 || f.Records != 400 || f.Bytes != whole || f.Bad != 0 || f.Unread != 0 || f.Others != 0 || f.Older != 0 || f.Outside != 0 {
			t.Errorf("%+v", f)
		}
		for i, o := range f.Objects {
			if !o.Read || o.Bytes != sizes[o.Name] || o.Records == 0 || o.Newest < o.Oldest || i > 0 && o.Created.After(f.Objects[i-1].Created) {
				t.Errorf("object %d of %v: %+v", i, sizes, o)
			}
		}
		if len(f.Types) != 19 { // all that the generator has
			t.Errorf("types %v", f.Types)
		}

		// Lines that are odd, in an object of a run's name; and another's.
		odd := strings.Join([]string{
			`{"type":"a","effective_at":946684807}`,
			`{"id":"x","nested":{"type":"no","effective_at":1},"effective_at":946684808e0,"actor":null}`,
			``, `{"type":"no time"}`, `[1]`, `{"effective_at":"soon"}`, `cut {`,
			`{"type":"line\u2028\u0007break","effective_at":10}`, // and no end
		}, "\n")
		write(h, "logs", "openai-auditlog/openai_auditlog_19991231_235959.ndjson", odd)
		write(h, "logs", "openai-auditlog/sub/odd.ndjson", odd)
		f = mustRead(h).Feed
		if len(f.Objects) != 4 || f.Records != 403 || f.Bad != 4 || f.Others != 1 || f.Other != "sub/odd.ndjson" || f.Outside != 1 || len(f.Types) != 22 {
			t.Errorf("%+v", f)
		}
		want := &report.Object{Name: "openai_auditlog_19991231_235959.ndjson", Created: time.Now().UTC(), Bytes: int64(len(odd)), Read: true, Records: 3, Bad: 4, Oldest: 10, OldestTime: time.Unix(10, 0).UTC(), Newest: 946684808, NewestTime: time.Unix(946684808, 0).UTC()}
		if diff := cmp.Diff(want, f.Objects[0], cmpopts.IgnoreUnexported(report.Object{})); diff != "" {
			t.Error(diff)
		}

		// The bound leaves out the oldest, and what the feed deletes meanwhile is left
		// out altogether.
		o := options(h)
		o.MaxBytes = f.Objects[0].Bytes + f.Objects[1].Bytes
		r, err := report.Read(t.Context(), storeOf(h), time.Now(), o)
		if err != nil || len(r.Feed.Objects) != 4 || r.Feed.Unread != 2 || r.Feed.Records != 3+f.Objects[1].Records {
			t.Errorf("bounded: %v, %+v", err, r.Feed)
		}
		h.BucketFaults.SetHooks(func(_ int, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, f.Objects[0].Name) {
				if err := h.Bucket.Delete("logs", "openai-auditlog/"+f.Objects[0].Name); err != nil {
					t.Error(err)
				}
			}
		}, nil)
		if r, err := report.Read(t.Context(), storeOf(h), time.Now(), options(h)); err != nil || len(r.Feed.Objects) != 3 || r.Feed.Records != 400 || r.Feed.Unread != 0 {
			t.Errorf("deleted meanwhile: %v, %+v", err, r.Feed)
		}
		h.BucketFaults.SetHooks(nil, nil)

		// A day later, what is older is counted and not read.
		time.Sleep(72 * time.Hour)
		o = options(h)
		o.Days = 1
		h.BucketFaults.Set(nil)
		if r, err := report.Read(t.Context(), storeOf(h), time.Now(), o); err != nil || r.Feed.Older != 3 || len(r.Feed.Objects) != 0 || h.BucketFaults.Count() > 3 {
			t.Errorf("%v, %d requests, %+v", err, h.BucketFaults.Count(), r.Feed)
		}
	})
}
