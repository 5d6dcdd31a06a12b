package proof

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/auditlog/internal/sim/harness"
)

// frozenAt is the time of the newest record that the frozen states know of.
var frozenAt = time.Date(2026, 11, 27, 2, 0, 0, 0, time.UTC)

func frozenRecord(stream string, i int) []byte {
	return fmt.Appendf(nil, `{"id":"%s-%d","type":"login.succeeded","effective_at":%d}`, stream, i, frozenAt.Unix()-int64(i)*30)
}

// TestFormats: a run continues from a state of each format. A build of its time wrote
// each, in a first run that collected the newest 20 of 60 records, with a tenant's
// records and a filter from the release on that first had them.
func TestFormats(t *testing.T) {
	files, err := filepath.Glob("../state/testdata/formats/*.json")
	if err != nil || len(files) != 11 {
		t.Fatalf("%v %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *simulation) {
				time.Sleep(time.Until(frozenAt.Add(time.Hour)))
				streams := []string{"audit_log"}
				if bytes.Contains(data, []byte(`"tenant"`)) {
					h.Env["TENANT_EVENTS"], h.Env["EVENT_TYPES"] = "true", "login.succeeded"
					streams = append(streams, "tenant")
				}
				var collected []byte
				for _, stream := range streams {
					h.AddRecord(stream == "tenant", frozenRecord(stream, -100)) // since then
					for i := range 60 {
						raw := frozenRecord(stream, i)
						h.AddRecord(stream == "tenant", raw)
						// All before the Python function's watermark is collected. It keeps no ids, so that
						// the overlap is read again.
						python := !bytes.Contains(data, []byte(`"high"`))
						if python && i > 4 || !python && i < 20 {
							collected = append(append(collected, raw...), '\n')
						}
					}
				}
				h.Bucket.Write("logs", "openai-auditlog/openai_auditlog_20261127_020000.ndjson", collected)
				h.Since = frozenAt.Add(-time.Hour).Unix()
				h.WriteState(data)
				h.Settle()
				if s := string(h.ReadState()); !strings.Contains(s, `"version": 1`) || strings.Contains(h.Logs.String(), "set by hand") {
					t.Errorf("%s\n%s", h.Logs.String(), s)
				}
			})
		})
	}
}

// TestGoBack: what one run of an older release costs. It knows none of the keys
// that later ones have added, and writes the state without them.
func TestGoBack(t *testing.T) {
	added := [][]string{ // by release, the newest first
		{"objects"},
		{"version"},
		{"recent", "top_id"},
		{"apart", "unread"},
		{"tenant", "filter", "last_backfill"},
		{"covered"},
		{"staged_generation"},
		{"recent_since", "top", "staged_bucket"},
		{"high", "backlog", "recent_ids", "last_object", "staged", "organization"}, // the Python function's
	}
	var forgotten []string
	for _, keys := range added {
		forgotten = append(forgotten, keys...)
		t.Run("without "+keys[0], func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *simulation) {
				h.Env["TENANT_EVENTS"], h.Env["MAX_RECORDS"], h.Env["PAGE_SIZE"] = "true", "120", "40"
				for i := range int64(300) {
					h.AddRecord(false, h.Records.Next(time.Now().Unix()-5*i))
					if i < 200 {
						h.AddRecord(true, h.Records.Next(time.Now().Unix()-5*i))
					}
				}
				h.MustRun()
				h.WriteState(without(t, h.ReadState(), forgotten))
				for h.Pause(); ; h.Pause() {
					if f := h.MustRun(); f.OpenWindows == 0 && f.Records == 0 {
						break
					}
				}
				want := map[bool]map[int]int{false: {1: 300}, true: {1: 200}} // by stream and times written
				if slices.Contains(forgotten, "tenant") {
					want[true] = map[int]int{1: 80, 2: 120}
				}
				if slices.Contains(forgotten, "high") {
					want[false] = map[int]int{1: 180, 2: 120}
				}
				if diff := cmp.Diff(want, timesWritten(h.H)); diff != "" {
					t.Errorf("differs (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// without returns a state without these keys, wherever they are.
func without(t *testing.T, data []byte, keys []string) []byte {
	t.Helper()
	var s map[string]any
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	var remove func(v any)
	remove = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			maps.DeleteFunc(v, func(key string, _ any) bool { return slices.Contains(keys, key) })
			for _, member := range v {
				remove(member)
			}
		case []any:
			for _, element := range v {
				remove(element)
			}
		}
	}
	remove(s)
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// timesWritten counts the records of each stream by how often each was written.
func timesWritten(h *harness.H) map[bool]map[int]int {
	have, n := h.Collected(harness.Stored{}), map[bool]map[int]int{false: {}, true: {}}
	h.API.Each(func(id string, _ int64, tenant bool) { n[tenant][have[id]]++ })
	return n
}

// TestLaterKeys: a run keeps what a later release has added to the state.
func TestLaterKeys(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["TENANT_EVENTS"], h.Env["MAX_RECORDS"], h.Env["PAGE_SIZE"] = "true", "20", "10"
		h.Add(180, 5, 5)
		h.MustRun()
		const later = `"later": {"a": [1, 2.50]}`
		h.WriteState(bytes.ReplaceAll(h.ReadState(), []byte(`"last_run"`), []byte(later+`, "last_run"`)))
		h.WriteState(bytes.ReplaceAll(h.ReadState(), []byte(`"after"`), []byte(later+`, "after"`)))
		before := strings.Count(string(h.ReadState()), later)
		h.MustRun()
		if s := string(h.ReadState()); before != 4 || strings.Count(s, "2.50") != before {
			t.Errorf("%d keys of a later release:\n%s", before, s)
		}
		h.Env["MAX_RECORDS"] = "5000"
		h.Settle()
		if s := string(h.ReadState()); strings.Count(s, "2.50") != 2 {
			t.Errorf("without windows:\n%s", s)
		}
	})
}

// TestNewerState: a state with a version that is not known is refused, and left as
// it is.
func TestNewerState(t *testing.T) {
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Add(10, 1, 1)
		h.MustRun()
		newer := bytes.Replace(h.ReadState(), []byte(`"version": 1`), []byte(`"version": 2`), 1)
		h.WriteState(newer)
		requests := h.APIFaults.Count()
		h.Add(10, 1, 1)
		_, err := h.Run()
		if want := "state gs://logs/" + stateName + " is newer than this release: it has version 2, and this release reads version 1 at most; " +
			"nothing was collected or changed: deploy the newer release again, or restore an older generation of the object"; err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if !bytes.Equal(newer, h.ReadState()) || h.APIFaults.Count() != requests || len(h.Names("")) != 2 {
			t.Errorf("%d requests, objects %v, state %s", h.APIFaults.Count()-requests, h.Names(""), h.ReadState())
		}
	})
}
