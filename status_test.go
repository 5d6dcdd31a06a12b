package auditlog

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/storage"
)

// TestStatus follows what status says through the life of a state, and that
// asking changes nothing.
func TestStatus(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		c := h.collector()
		status := func() Status {
			t.Helper()
			h.BucketFaults.Set(nil)
			s, err := c.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if n := h.BucketFaults.Count(); n > 2 {
				t.Errorf("%d requests", n)
			}
			for _, r := range h.BucketFaults.Log() {
				if r.Method != http.MethodGet {
					t.Errorf("status does %s %s", r.Method, r.Path)
				}
			}
			return s
		}
		if s := status(); s.Committed || s.URL != "gs://logs/"+stateName || s.Prefix != "gs://logs/openai-auditlog/" || s.Lag(time.Now()) != 0 || s.StagedNow != StagedNone {
			t.Errorf("before the first run: %+v", s)
		}

		h.env["MAX_RECORDS"] = "25"
		h.add(30, 5, 60)
		sum := h.mustRun()
		s := status()
		if !s.Committed || s.StagedNow != StagedPublished || len(s.Backlog) != 1 || s.Watermark != sum.Watermark || s.Note != "" || time.Since(s.Written) > time.Minute {
			t.Errorf("with a backlog: %+v", s)
		}
		if got := s.Lag(time.Now()); got != sum.Lag {
			t.Errorf("lag %d, the run says %d", got, sum.Lag)
		}
		if got, want := s.Backlog[0].LeftTo(), s.Backlog[0].AfterAt; got != want {
			t.Errorf("left to %d, want %d", got, want)
		}
		h.mustRun()
		time.Sleep(time.Hour)
		if s := status(); len(s.Backlog) != 0 || s.Lag(time.Now()) != 3600 {
			t.Errorf("without a backlog: lag %d, %+v", s.Lag(time.Now()), s)
		}

		// Published, and then one that is not.
		h.add(3, 5, 60)
		h.Bucket.Deny(func(_, op, _, _ string) bool { return op == "move" })
		if _, err := h.run(); err == nil {
			t.Fatal("the run ends well")
		}
		h.Bucket.Deny(nil)
		if s := status(); s.StagedNow != StagedPending || s.StagedSize == 0 {
			t.Errorf("not published: %+v", s)
		}
		data, err := h.Bucket.Read("logs", h.state().Staged)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Bucket.Write("logs", h.state().Staged, data); err != nil {
			t.Fatal(err)
		}
		if s := status(); s.StagedNow != StagedRewritten {
			t.Errorf("written again: %+v", s)
		}
		h.env["STATE_BUCKET"] = "states"
		if err := h.Bucket.Write("states", stateName, mustRead(t, h, stateName)); err != nil {
			t.Fatal(err)
		}
		c = h.collector()
		if s := status(); s.StagedNow != StagedElsewhere || s.URL != "gs://states/"+stateName {
			t.Errorf("in another bucket: %+v", s)
		}
		h.env["STATE_BUCKET"] = ""
		c = h.collector()

		// The Python function's state, whose last run may have lost records; and an edit.
		write := func(format string, args ...any) {
			if err := h.Bucket.Write("logs", stateName, fmt.Appendf(nil, format, args...)); err != nil {
				t.Fatal(err)
			}
		}
		now := time.Now()
		write(`{"last_effective_at": %d, "last_run": %q}`, now.Unix()-100, now.UTC().Format(time.RFC3339))
		if s := status(); s.Lag(now) != 100 || s.Note != "" {
			t.Errorf("another function's: lag %d, %+v", s.Lag(now), s)
		}
		write(`{"last_effective_at": %d, "high": %d, "last_run": "yesterday"}`, now.Unix()-500, now.Unix()-100)
		if s := status(); s.Lag(now) != 500 || !strings.Contains(s.Note, "by hand") {
			t.Errorf("edited: lag %d, %+v", s.Lag(now), s)
		}

		// Something staged that cannot be looked for; a state that cannot be used, or read.
		write(`{"last_effective_at": %d, "high": %[1]d, "staged": "staged/x.ndjson", "last_object": "openai_auditlog_20000101_000000.ndjson"}`, now.Unix())
		h.Bucket.Deny(func(_, _, _, object string) bool { return object != stateName })
		if s, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "looking for gs://logs/staged/x.ndjson: ") || !s.Committed || s.StagedNow != StagedUnknown {
			t.Errorf("nothing to be seen of what is staged: %v, %+v", err, s)
		}
		h.Bucket.Deny(nil)
		write(`{"last_effective_at": "soon"}`)
		if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "gs://logs/"+stateName+" is damaged") || !strings.Contains(err.Error(), "restore an older version") {
			t.Errorf("damaged: %v", err)
		}
		h.Bucket.Deny(func(_, op, _, _ string) bool { return op == "get" })
		if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), `gs://logs/`+stateName+`: `) || !strings.Contains(err.Error(), `Storage Object Viewer on bucket "logs"`) {
			t.Errorf("denied: %v", err)
		}
		h.env["GCS_BUCKET"] = "nowhere"
		if _, err := h.collector().Status(t.Context()); err == nil || !strings.Contains(err.Error(), "no such bucket") {
			t.Errorf("no bucket: %v", err)
		}
	})
}

func mustRead(t *testing.T, h *harness, name string) []byte {
	t.Helper()
	data, err := h.Bucket.Read("logs", name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestObjects: all under the feed prefix is listed, and each record is counted
// whatever it holds.
func TestObjects(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.env["MAX_RECORDS"] = "150"
		h.add(400, 5, 60)
		for range 3 {
			h.mustRun()
			time.Sleep(time.Hour)
		}
		odd := strings.Join([]string{
			`{"type":"a","effective_at":7}`,
			`{"id":"x","nested":{"type":"no","effective_at":1},"effective_at":8e0,"actor":null}`,
			`{"effective_at":9,"type":"long","x":"` + strings.Repeat("x", 3<<20) + `"}`,
			``, `{"type":"no time"}`, `[1]`, `{"effective_at":1.5}`, `cut {`,
			`{"type":"line\u2028\u0007break","effective_at":10}`, // and no end
		}, "\n")
		if err := h.Bucket.Write("logs", "openai-auditlog/sub/odd.ndjson", []byte(odd)); err != nil {
			t.Fatal(err)
		}

		c := h.collector()
		var records, bad, bytes, collected int
		var size int64
		types, found := map[string]int{}, []Record{}
		for o, err := range c.Objects(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			size += o.Size
			if o.Collected {
				collected++
			}
			for r, err := range c.Records(t.Context(), o) {
				if err != nil {
					t.Fatal(err)
				}
				bytes += int(r.Bytes)
				switch {
				case !o.Collected && r.Bad:
					bad++
				case !o.Collected:
					found = append(found, Record{At: r.At, Type: r.Type})
				default:
					records++
					types[r.Type]++
				}
			}
		}
		if collected != 3 || records != 400 || bad != 4 || int64(bytes) != size-1 { // the empty line
			t.Errorf("%d objects, %d records, %d bad, %d of %d bytes", collected, records, bad, bytes, size)
		}
		if got := fmt.Sprint(found); got != "[{7 a 0 false} {8  0 false} {9 long 0 false} {10 line break 0 false}]" {
			t.Errorf("found %s", got)
		}
		if len(types) != 19 || types[""] > 0 { // all that the generator has
			t.Errorf("types %v", types)
		}

		for o := range c.Objects(t.Context()) {
			if err := h.Bucket.Delete("logs", "openai-auditlog/"+o.Name); err != nil {
				t.Fatal(err)
			}
			for _, err := range c.Records(t.Context(), o) {
				if !errors.Is(err, storage.ErrObjectNotExist) {
					t.Errorf("gone: %v", err)
				}
			}
			break
		}
		h.Bucket.Deny(func(_, op, _, _ string) bool { return true })
		for _, err := range c.Objects(t.Context()) {
			if err == nil || !strings.Contains(err.Error(), "listing gs://logs/openai-auditlog/: ") || !strings.Contains(err.Error(), "Storage Object Viewer") {
				t.Errorf("denied: %v", err)
			}
		}
	})
}
