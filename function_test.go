package auditlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/api/option"

	"example.com/auditlog/internal/sim/auditapi"
	"example.com/auditlog/internal/sim/bucket"
	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/sim/world"
)

const (
	apiPath   = "/v1/organization/audit_logs"
	stateName = "state/openai-auditlog/state.json"
)

// harness is a world of an API and a bucket, and what the tests do in it.
type harness struct {
	*world.World
	t       testing.TB
	env     map[string]string
	records *auditapi.Generator
	added   int // records
	logs    bytes.Buffer
	log     *slog.Logger // to logs; one for all runs, since its lock is what keeps them apart
	clients []func()
	pause   func() // between runs of settle

	contents map[string][]string // ids by object; see ids

	// Of a simulation; see inSimulation.
	watch  *witness
	decide func(*http.Request) fault.Fault
	steady bool // no waits, and so no jitter, between attempts
}

// inBubble runs f in a world of its own, with a clock that stands still but
// while everything waits.
func inBubble(t *testing.T, f func(t *testing.T, h *harness)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, world.Options{InMemory: true, Buckets: []string{"logs", "states"}})
		defer h.Close()
		f(t, h)
	})
}

func newHarness(t testing.TB, o world.Options) *harness {
	t.Helper()
	w, err := world.New(o)
	if err != nil {
		t.Fatal(err)
	}
	// The bubble's clock begins at midnight: let a day of records lie behind it.
	h := &harness{World: w, t: t, env: w.Settings(), records: auditapi.NewGenerator(1), contents: map[string][]string{},
		pause: func() { time.Sleep(time.Hour) }} // of the bubble's clock
	h.env["FETCH_CONCURRENCY"] = "1" // so that requests come in one order
	h.log = slog.New(slog.NewJSONHandler(&h.logs, &slog.HandlerOptions{ReplaceAttr: cloudNames}))
	return h
}

func (h *harness) Close() {
	for _, f := range h.clients {
		f()
	}
	h.World.Close()
}

// collector returns a new instance of the function.
func (h *harness) collector() *Collector {
	h.t.Helper()
	transport := newTransport()
	transport.Proxy, transport.DialContext = nil, h.Transport().DialContext
	h.clients = append(h.clients, transport.CloseIdleConnections)
	return h.collectorThrough(transport)
}

// collectorThrough returns an instance that reaches the API through transport.
func (h *harness) collectorThrough(transport http.RoundTripper, opts ...option.ClientOption) *Collector {
	h.t.Helper()
	cfg, err := LoadConfig(h.env)
	if err != nil {
		h.t.Fatal(err)
	}
	c, err := newCollector(context.Background(), cfg, transport, append(h.StorageOptions(), opts...)...)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// run does one run of a new instance, as a cold start does.
func (h *harness) run() (Summary, error) {
	h.t.Helper()
	if h.watch != nil {
		tr := &fault.Transport{Decide: h.decide}
		defer tr.Land()
		sum, err := h.simulate(tr)
		if err == nil {
			h.watch.complete()
		}
		return sum, err
	}
	return h.runOf(h.t.Context(), h.collector())
}

func (h *harness) runOf(ctx context.Context, c *Collector) (Summary, error) {
	return c.Run(ctx, h.log)
}

// mustRun does a run that must end well.
func (h *harness) mustRun() Summary {
	h.t.Helper()
	sum, err := h.run()
	if err != nil {
		h.t.Fatalf("run: %v\n%s", err, h.logs.String())
	}
	return sum
}

// add makes n records appear, the newest ago seconds old, step seconds apart. Where
// those of a tenant are collected, every third is one.
func (h *harness) add(n int, ago, step int64) {
	h.t.Helper()
	for i := range int64(n) {
		add := h.API.Add
		if h.added++; h.env["TENANT_EVENTS"] == "true" && h.added%3 == 0 {
			add = h.API.AddTenant
		}
		if err := add(h.records.Next(time.Now().Unix() - ago - i*step)); err != nil {
			h.t.Fatal(err)
		}
	}
}

// settle heals everything and runs until nothing is left to do; then each
// record must have reached the feed once, unchanged.
func (h *harness) settle() {
	h.t.Helper()
	h.APIFaults.Set(nil)
	h.BucketFaults.Set(nil)
	h.decide = nil
	for range 200 {
		h.pause()
		if sum := h.mustRun(); sum.OpenWindows == 0 && sum.Records == 0 {
			if err := h.Check(); err != nil {
				h.t.Errorf("%v\n%s", err, h.logs.String())
			}
			if s := h.state(); s.Staged != "" {
				h.t.Errorf("state still names %s as staged", s.Staged)
			}
			return
		}
	}
	h.t.Error("runs never settle")
}

func (h *harness) state() State {
	h.t.Helper()
	data, err := h.Bucket.Read(h.bucketOf("STATE_BUCKET"), h.env["STATE_KEY"])
	if err != nil {
		h.t.Fatal(err)
	}
	s, err := decodeState(data, time.Now())
	if err != nil {
		h.t.Fatalf("%v in %s", err, data)
	}
	return s.State
}

func (h *harness) bucketOf(setting string) string {
	if b := h.env[setting]; b != "" {
		return b
	}
	return h.env["GCS_BUCKET"]
}

// names lists the objects of the log bucket under a prefix.
func (h *harness) names(prefix string) []string {
	var names []string
	for _, o := range h.Bucket.Objects("logs", prefix) {
		names = append(names, o.Name)
	}
	return names
}

// setWatermark sets the watermark by hand.
func (h *harness) setWatermark(watermark int64) {
	h.t.Helper()
	data, err := h.Bucket.Read("logs", stateName)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Bucket.Write("logs", stateName, regexp.MustCompile(`^\{\s*"last_effective_at": \d+`).ReplaceAll(data, fmt.Appendf(nil, `{"last_effective_at": %d`, watermark)))
}

// wantLog checks that the log has a line with each of the parts.
func (h *harness) wantLog(parts ...string) {
	h.t.Helper()
	for _, p := range parts {
		if !strings.Contains(h.logs.String(), p) {
			h.t.Errorf("log lacks %q:\n%s", p, h.logs.String())
		}
	}
}

// at returns a script that lets a fault strike request n only.
func at(n int, f fault.Fault) fault.Script {
	return func(i int, _ *http.Request) fault.Fault {
		if i == n {
			return f
		}
		return fault.Fault{}
	}
}

// from returns a script that lets a fault strike every request from n on.
func from(n int, f fault.Fault) fault.Script {
	return func(i int, _ *http.Request) fault.Fault {
		if i >= n {
			return f
		}
		return fault.Fault{}
	}
}

// TestRun follows one first run from the records to the feed, the state and
// the log.
func TestRun(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.add(250, 5, 60)
		started := time.Now()
		sum := h.mustRun()

		name := "openai-auditlog/" + started.UTC().Format("openai_auditlog_20060102_150405.ndjson")
		objects := h.Bucket.Objects("logs", "openai-auditlog/")
		if len(objects) != 1 || objects[0].Name != name || objects[0].ContentType != "application/x-ndjson" {
			t.Fatalf("objects under the feed prefix: %+v", objects)
		}
		data, err := h.Bucket.Read("logs", name)
		if err != nil {
			t.Fatal(err)
		}
		if want := append(bytes.Join(h.API.Records(), []byte("\n")), '\n'); len(data) != len(want) || bytes.Count(data, []byte("\n")) != 250 {
			t.Errorf("object has %d bytes, %d lines; want %d, 250", len(data), bytes.Count(data, []byte("\n")), len(want))
		}
		s := h.state()
		want := started.Unix() - 5
		if s.Watermark != want || s.High != want || len(s.Backlog) != 0 || s.LastObject != name || s.LastRun != started.UTC().Format(time.RFC3339) {
			t.Errorf("state %+v, want watermark %d", s, want)
		}
		if len(s.RecentIDs) != 3 { // at 5, 65 and 125 seconds' age; overlap 120
			t.Errorf("recent ids %v", s.RecentIDs)
		}
		if sum.Records != 250 || sum.Pages != 3 || sum.Bytes != int64(len(data)) || sum.Object != "gs://logs/"+name || sum.Watermark != want || sum.Lag != 0 || sum.Retries != 0 {
			t.Errorf("figures %+v", sum)
		}
		h.wantLog(
			`"Fetching audit logs from 1999-12-31T00:00:00Z to 2000-01-01T00:00:00Z"`,
			`"Page 1: Retrieved 100 events"`, `"Page 3: Retrieved 50 events"`,
			fmt.Sprintf(`"Saved state: last_effective_at=%d"`, want),
			`"Wrote 250 records to gs://logs/`+name+`"`, `"Successfully processed 250 records"`,
			`"severity":"INFO"`, `"message":"Run ended","run":{"records":250,`,
		)
		for _, secret := range []string{h.env["OPENAI_ADMIN_KEY"]} {
			if strings.Contains(h.logs.String(), secret) {
				t.Error("the log shows the key")
			}
		}
		h.settle()
	})
}

// TestRequests: how many requests runs cost.
func TestRequests(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.env["OVERLAP_SECONDS"] = "0" // the newest record is read again all the same
		count := func() (shown, api, reads, writes int) {
			h.APIFaults.Set(nil)
			h.BucketFaults.Set(nil)
			sum := h.mustRun()
			for _, r := range h.BucketFaults.Log() {
				if r.Method == http.MethodGet {
					reads++
				} else {
					writes++
				}
			}
			return sum.Records + sum.Skipped, h.APIFaults.Count(), reads, writes
		}
		for _, n := range []int{100, 99, 100, 199, 0, 1, 0, 0} {
			h.add(n, 1, 1)
			shown, api, reads, writes := count()
			if pages := (shown + 99) / 100; api != pages {
				t.Errorf("%d records: %d API requests, want %d", shown, api, pages)
			}
			if n == 0 && (reads > 2 || writes != 1) {
				t.Errorf("no news: %d storage reads, %d writes, want at most 2 and 1: %+v", reads, writes, h.BucketFaults.Log())
			}
			if n > 0 && writes != 3 { // staged object, state, move
				t.Errorf("%d records: %d storage writes, want 3: %+v", n, writes, h.BucketFaults.Log())
			}
			time.Sleep(time.Hour)
		}
		h.wantLog("No new audit log records found.")
		h.settle()
	})
}

// scenario lives through what a collector meets in a day: a first run, news
// and late records, a burst beyond the cap, quiet hours. The faults that a test
// has set strike somewhere in it.
func (h *harness) scenario(remove bool) {
	h.t.Helper()
	h.env["MAX_RECORDS"], h.env["PAGE_SIZE"] = "25", "10"
	tick := func() {
		h.run() // whether it fails or not
		h.checkInvariants()
		if err := h.Feed(remove); err != nil {
			h.t.Error(err)
		}
		time.Sleep(time.Hour)
	}
	h.add(12, 30, 7)
	tick()
	h.add(1, 3600+100, 0) // late
	h.add(5, 10, 1)
	tick()
	h.add(40, 1, 2)
	tick()
	tick()
	tick()
	h.settle()
}

// checkInvariants checks what must hold at any time: what lies under the feed
// prefix is whole, and the watermark has passed nothing that is not there or in
// the staged object that the state names.
func (h *harness) checkInvariants() {
	h.t.Helper()
	if h.watch != nil {
		return // the witness has looked
	}
	data, err := h.Bucket.Read(h.bucketOf("STATE_BUCKET"), h.env["STATE_KEY"])
	if err != nil {
		return // no run has committed
	}
	s, err := decodeState(data, time.Now())
	if err != nil {
		h.t.Fatal(err)
	}
	if s.note != "" {
		h.t.Errorf("our own state counts as edited: %s\n%s", s.note, data)
	}
	h.checkWatermark(s.State, nil)
}

// checkWatermark checks that the watermark has passed nothing that is not
// collected: of the first records shown, to a tenant's stream or the other, exactly;
// of later ones, as far as the Python function would look back.
func (h *harness) checkWatermark(s State, shown map[bool]int) {
	h.t.Helper()
	have, n := h.collected(s), 0
	h.API.Each(func(id string, at int64, tenant bool) {
		n++
		watermark := s.Watermark
		if tenant {
			if watermark = 0; s.Tenant != nil {
				watermark = s.Tenant.Watermark
			}
		}
		if have[id] == 0 && at >= h.Since && (at < watermark-120 || n <= shown[tenant] && at < watermark) {
			h.t.Errorf("the watermark %d has passed %s at %d, which is nowhere", watermark, id, at)
		}
	})
}

// collected counts how often each record has been taken by the feed, lies under
// the feed prefix, or in what s names as staged.
func (h *harness) collected(s State) map[string]int {
	h.t.Helper()
	have := h.Taken()
	for id := range h.published() {
		have[id]++
	}
	for _, id := range h.staged(s) {
		have[id]++
	}
	return have
}

// published goes through the records under the feed prefix, each with the name
// of its object.
func (h *harness) published() iter.Seq2[string, string] {
	return func(yield func(id, object string) bool) {
		for _, o := range h.Bucket.Objects("logs", h.env["GCS_PREFIX"]+"/") {
			for _, id := range h.ids("logs", o) {
				if !yield(id, o.Name) {
					return
				}
			}
		}
	}
}

// staged lists what s names as staged and is not published; nil where that is
// nothing.
func (h *harness) staged(s State) []string {
	if s.Staged == "" {
		return nil
	}
	states := h.bucketOf("STATE_BUCKET")
	for _, o := range h.Bucket.Objects(states, s.Staged) {
		if o.Generation == s.StagedGeneration {
			return h.ids(states, o)
		}
	}
	return nil
}

// ids lists an object's records.
func (h *harness) ids(where string, o bucket.Object) []string {
	h.t.Helper()
	key := fmt.Sprint(where, o.Name, o.Generation)
	ids, ok := h.contents[key]
	if ok {
		return ids
	}
	data, err := h.Bucket.Read(where, o.Name)
	if err != nil {
		h.t.Errorf("%s: %v", o.Name, err)
	}
	for line := range bytes.Lines(data) {
		var r struct{ ID string }
		if err := json.Unmarshal(line, &r); err != nil {
			h.t.Errorf("%s: %v", o.Name, err)
		}
		ids = append(ids, r.ID)
	}
	h.contents[key] = ids
	return ids
}

// TestLostAnswers: where a write was applied and only its answer was lost, the
// run finds out and ends well, with one object.
func TestLostAnswers(t *testing.T) {
	for _, stateBucket := range []string{"", "states"} {
		for kind, f := range map[string]fault.Fault{
			"lost":      {Kind: fault.Lose},
			"a 503":     {Kind: fault.Fail, Status: 503},
			"a 500":     {Kind: fault.Fail, Status: 500},
			"never":     {Kind: fault.HangAfter},
			"cut short": {Kind: fault.Cut},
		} {
			writes := []string{"/staged/", "state.json", "/moveTo/"}
			if stateBucket != "" {
				writes[2] = "/rewriteTo/"
			}
			for _, write := range writes {
				t.Run(kind+write+stateBucket, func(t *testing.T) {
					inBubble(t, func(t *testing.T, h *harness) {
						h.env["STATE_BUCKET"] = stateBucket
						h.add(10, 1, 1)
						struck := false
						h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
							body, _ := io.ReadAll(r.Body)
							r.Body = io.NopCloser(bytes.NewReader(body))
							upload := r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/upload/") && bytes.Contains(body[:min(len(body), 1000)], []byte(write))
							if struck || !upload && !strings.Contains(r.URL.Path, write) || r.Method == http.MethodGet {
								return fault.Fault{}
							}
							struck = true
							return f
						})
						sum := h.mustRun()
						if !struck {
							t.Fatal("no such write")
						}
						if sum.Records != 10 || len(h.names("openai-auditlog/")) != 1 {
							t.Errorf("figures %+v, objects %v", sum, h.names(""))
						}
						h.settle()
					})
				})
			}
		}
	}
}

// TestCorruptedUpload: an object that does not hold what was sent is not
// committed.
func TestCorruptedUpload(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.add(10, 1, 1)
		staged := func(r *http.Request) bool { return strings.Contains(r.URL.Query().Get("name"), "/staged/") }
		h.BucketFaults.SetHooks(nil, func(_ int, r *http.Request) {
			if staged(r) {
				h.Bucket.Write("logs", r.URL.Query().Get("name"), []byte("other\n"))
			}
		})
		h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
			if staged(r) {
				return fault.Fault{Kind: fault.Lose}
			}
			return fault.Fault{}
		})
		if _, err := h.run(); err == nil || !strings.Contains(err.Error(), "other bytes than were sent") {
			t.Errorf("error %v", err)
		}
		if names := h.names(""); len(names) != 1 || !strings.Contains(names[0], "/staged/") {
			t.Errorf("objects %v", names)
		}
		h.BucketFaults.SetHooks(nil, nil)
		h.settle()
	})
}

// TestFatalAnswers: a key that is not good ends the run within one request and
// changes nothing.
func TestFatalAnswers(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404} {
		inBubble(t, func(t *testing.T, h *harness) {
			h.add(3, 1, 1)
			h.APIFaults.Set(from(1, fault.Fault{Kind: fault.Refuse, Status: status}))
			_, err := h.run()
			if err == nil || h.APIFaults.Count() != 1 {
				t.Errorf("%d: %d requests, error %v", status, h.APIFaults.Count(), err)
			}
			if names := h.names(""); len(names) != 0 {
				t.Errorf("%d: objects %v", status, names)
			}
			h.wantLog(`"severity":"ERROR"`, `"message":"Run failed: audit log API answered `+fmt.Sprint(status))
			h.settle()
		})
	}
}

// TestRateLimitedForADay: the wait is not begun, what has been read is
// committed, and the error is returned.
func TestRateLimitedForADay(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.add(250, 5, 10)
		h.APIFaults.Set(from(3, fault.Fault{Kind: fault.Refuse, Status: 429, Header: http.Header{"Retry-After": {"86400"}}}))
		started := time.Now()
		sum, err := h.run()
		if err == nil || !strings.Contains(err.Error(), "429") {
			t.Errorf("error %v", err)
		}
		if sum.Records != 200 || sum.OpenWindows != 1 || time.Since(started) > time.Second || sum.Object == "" {
			t.Errorf("after %v: %+v", time.Since(started), sum)
		}
		h.settle()
	})
}

// TestRateLimitWaits: the API's wait is obeyed, logged as by the Python
// function, and counted.
func TestRateLimitWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.add(3, 1, 1)
		h.APIFaults.Set(at(1, fault.Fault{Kind: fault.Refuse, Status: 429, Header: http.Header{"Retry-After": {"20"}}}))
		started := time.Now()
		sum := h.mustRun()
		if sum.RateLimitWait != 20*time.Second || sum.Retries != 1 || time.Since(started) != 20*time.Second {
			t.Errorf("after %v: %+v", time.Since(started), sum)
		}
		h.wantLog(`"severity":"WARNING","message":"Rate limited (429). Retrying after 20s..."`, `"rate_limit_wait_seconds":20`)
	})
}

// TestDeadline: a run ends in time to commit, whatever hangs.
func TestDeadline(t *testing.T) {
	hang := fault.Fault{Kind: fault.Hang}
	t.Run("the API from its first answer on", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *harness) {
			h.add(3, 1, 1)
			h.APIFaults.Set(from(1, hang))
			started := time.Now()
			_, err := h.run()
			if d := time.Since(started); err == nil || d > 480*time.Second {
				t.Errorf("after %v: %v", d, err)
			}
			h.settle()
		})
	})
	t.Run("the API after a page", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *harness) {
			h.add(300, 1, 1)
			h.APIFaults.Set(from(2, hang))
			started := time.Now()
			sum, err := h.run()
			if d := time.Since(started); err == nil || d > 480*time.Second || sum.Records != 100 || sum.OpenWindows != 1 {
				t.Errorf("after %v: %v, %+v", d, err, sum)
			}
			h.settle()
		})
	})
	t.Run("slow, but well", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *harness) {
			h.add(5000, 1, 1)
			h.APIFaults.SetHooks(func(int, *http.Request) { time.Sleep(25 * time.Second) }, nil)
			started := time.Now()
			sum, err := h.run()
			if d := time.Since(started); err != nil || d != 420*time.Second || sum.Records != 1600 || sum.OpenWindows != 1 {
				t.Errorf("after %v: %v, %+v", d, err, sum)
			}
			h.wantLog("RUN_TIMEOUT_SECONDS is nearly over")
			h.APIFaults.SetHooks(nil, nil)
			h.settle()
		})
	})
	t.Run("the bucket", func(t *testing.T) {
		for n := 1; n <= 4; n++ {
			inBubble(t, func(t *testing.T, h *harness) {
				h.add(3, 1, 1)
				h.BucketFaults.Set(from(n, hang))
				started := time.Now()
				_, err := h.run()
				if d := time.Since(started); err == nil || d > 480*time.Second {
					t.Errorf("from request %d on: after %v: %v", n, d, err)
				}
				h.settle()
			})
		}
	})
}

// TestInterrupted: when the caller goes away or the host shuts down, what has
// been read is committed and published at once.
func TestInterrupted(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.add(300, 1, 1)
		ctx, cancel := context.WithCancel(t.Context())
		h.APIFaults.Set(func(n int, _ *http.Request) fault.Fault {
			if n < 3 {
				return fault.Fault{}
			}
			cancel()
			return fault.Fault{Kind: fault.Hang}
		})
		started := time.Now()
		sum, err := h.collector().Run(ctx, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), "interrupted") || time.Since(started) > 0 {
			t.Errorf("after %v: %v", time.Since(started), err)
		}
		if sum.Records != 200 || len(h.names("openai-auditlog/")) != 1 {
			t.Errorf("figures %+v, objects %v", sum, h.names(""))
		}
		h.settle()
	})
}

// TestFullSecond: more records in one second than a run may hold.
func TestFullSecond(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.env["MAX_RECORDS"] = "70"
		h.add(400, 30, 0)
		for range 10 {
			h.run()
			h.checkInvariants()
			h.add(30, 10, 0)
			time.Sleep(time.Hour)
		}
		h.settle()
	})
}

// TestOrders: nothing depends on the order of pages.
func TestOrders(t *testing.T) {
	for name, order := range map[string]auditapi.Order{"oldest first": auditapi.OldestFirst, "shuffled": auditapi.Shuffled(7)} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *harness) {
				h.API.SetOrder(order)
				h.scenario(true)
			})
		})
	}
}

// TestExpiredCursors: a backlog whose cursor is no longer taken is read on from
// the time reached in it.
func TestExpiredCursors(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.env["MAX_RECORDS"] = "100"
		h.add(1000, 1, 30)
		for range 5 {
			h.mustRun()
			h.API.ExpireCursors()
			time.Sleep(time.Minute)
		}
		h.wantLog("The API refuses the cursor of a window: reading on from the time reached in it")
		h.settle()
	})
}

// TestLateness: the figures tell how late records were.
func TestLateness(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.add(5, 10, 1)
		h.mustRun() // covers up to 10 s ago
		h.add(1, 10+90, 0)
		h.add(1, 10+20, 0)
		h.add(1, 0, 0)
		sum := h.mustRun()
		if sum.Late != 2 || sum.MaxLateness != 90 || sum.Records != 3 || sum.Skipped != 5 {
			t.Errorf("%+v", sum)
		}
		h.settle()
	})
}

// TestPythonState: the Python function's state is taken over.
func TestPythonState(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		watermark := time.Now().Unix() - 7200
		h.add(10, 7300, 0) // before its watermark's overlap ends: Python had them, we bring them once more
		h.add(20, 100, 10)
		h.Bucket.Write("logs", stateName, fmt.Appendf(nil, `{"last_effective_at": %d, "last_run": "1999-12-31T22:00:00.123456+00:00"}`, watermark))
		sum := h.mustRun()
		if sum.Records != 30 || sum.Late != 0 {
			t.Errorf("%+v", sum)
		}
		h.wantLog(`"Fetching audit logs from 1999-12-31T21:58:00Z to 2000-01-01T00:00:00Z"`)
		h.settle()
	})
}

// TestPythonStateBackfilled: what the Python function has collected, and a run
// brings once more, has not appeared late, though a backfill has made the state
// the collector's own.
func TestPythonStateBackfilled(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.add(10, 7300, 0)
		h.Bucket.Write("logs", stateName, fmt.Appendf(nil, `{"last_effective_at": %d, "last_run": "1999-12-31T22:00:00.123456+00:00"}`, time.Now().Unix()-7200))
		if err := h.backfill(&fault.Transport{}, BackfillRange{From: ago(2 * day), To: ago(day), Again: true}); err != nil {
			t.Fatal(err)
		}
		if sum := h.mustRun(); sum.Records != 10 || sum.Late != 0 {
			t.Errorf("%+v", sum)
		}
	})
}

// TestEditedState: a watermark set by hand wins, and is read from exactly.
func TestEditedState(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.add(100, 0, 60)
		h.mustRun()
		h.setWatermark(time.Now().Unix() - 600)
		if sum := h.mustRun(); sum.Records != 11 || sum.Late != 0 {
			t.Errorf("edited back by 600 s: %+v", sum)
		}
		h.wantLog(`"severity":"WARNING","message":"last_effective_at was set by hand`)
		if sum := h.mustRun(); sum.Records != 0 {
			t.Errorf("read again once more: %+v", sum)
		}
		time.Sleep(time.Hour)
		h.add(60, 0, 60)
		h.setWatermark(time.Now().Unix() - 300)
		if sum := h.mustRun(); sum.Records != 8 { // 300 s and the overlap of 120
			t.Errorf("edited forward to 300 s ago: %+v", sum)
		}
	})
}

// TestEditedBackALittle: a record that appears late, just below a watermark that
// was set back, is collected as without the edit.
func TestEditedBackALittle(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.add(5, 5, 1)
		h.mustRun()
		high := h.state().High
		data, err := h.Bucket.Read("logs", stateName)
		if err != nil {
			t.Fatal(err)
		}
		h.Bucket.Write("logs", stateName, bytes.Replace(data, fmt.Appendf(nil, `"last_effective_at": %d`, high), fmt.Appendf(nil, `"last_effective_at": %d`, high-10), 1))
		time.Sleep(30 * time.Second)
		if err := h.API.Add(h.records.Next(high - 50)); err != nil {
			t.Fatal(err)
		}
		if sum := h.mustRun(); sum.Records != 5+1 { // those after the edit again, and the late one
			t.Errorf("%+v", sum)
		}
	})
}

// TestDamagedState: it is refused, named, and left as it is.
func TestDamagedState(t *testing.T) {
	for _, data := range []string{"", "{", "null", `{"last_effective_at": -1}`, `{"last_run": "x"}`, `{"last_effective_at": 4102444800}`} {
		inBubble(t, func(t *testing.T, h *harness) {
			h.add(10, 1, 1)
			h.Bucket.Write("logs", stateName, []byte(data))
			_, err := h.run()
			if err == nil || !strings.Contains(err.Error(), "gs://logs/"+stateName) || !strings.Contains(err.Error(), "restore") {
				t.Errorf("%q: %v", data, err)
			}
			if after, _ := h.Bucket.Read("logs", stateName); string(after) != data {
				t.Errorf("%q became %q", data, after)
			}
			if h.APIFaults.Count() != 0 || len(h.names("")) != 1 {
				t.Errorf("%q: %d API requests, objects %v", data, h.APIFaults.Count(), h.names(""))
			}
		})
	}
}

// TestOrganization: a key of another organization is refused before anything of
// it is collected.
func TestOrganization(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.add(10, 1, 1)
		h.mustRun()
		own := h.state().Organization
		if own == "" {
			t.Fatal("state does not know the organization")
		}
		before, _ := h.Bucket.Read("logs", stateName)
		h.API.SetOrganization("org-another")
		h.add(5, 0, 0)
		_, err := h.run()
		if err == nil || !strings.Contains(err.Error(), "org-another") || !strings.Contains(err.Error(), own) {
			t.Errorf("error %v", err)
		}
		if after, _ := h.Bucket.Read("logs", stateName); !bytes.Equal(before, after) || len(h.names("openai-auditlog/")) != 1 {
			t.Errorf("objects %v, state %s", h.names(""), after)
		}
		h.API.SetOrganization("") // no header: nothing to compare
		h.settle()
	})
}

// TestStrangersObject: a final name that somebody else has taken is left alone.
func TestStrangersObject(t *testing.T) {
	for _, stateBucket := range []string{"", "states"} {
		inBubble(t, func(t *testing.T, h *harness) {
			h.env["STATE_BUCKET"] = stateBucket
			h.add(10, 1, 1)
			var strangers []string
			for i := range 3 {
				name := "openai-auditlog/" + time.Now().UTC().Add(time.Duration(i)*time.Second).Format(objectLayout)
				h.Bucket.Write("logs", name, []byte("a stranger's\n"))
				strangers = append(strangers, name)
			}
			sum := h.mustRun()
			want := "gs://logs/openai-auditlog/" + time.Now().UTC().Add(3*time.Second).Format(objectLayout)
			if sum.Object != want {
				t.Errorf("wrote %s, want %s", sum.Object, want)
			}
			for _, name := range strangers {
				if data, err := h.Bucket.Read("logs", name); err != nil || string(data) != "a stranger's\n" {
					t.Errorf("%s is %q, %v", name, data, err)
				}
				h.Bucket.Delete("logs", name)
			}
			h.settle()
		})
	}
}

// TestRetention: with a state bucket of its own, the collector does no more than
// create in a log bucket whose objects can be neither replaced nor deleted.
func TestRetention(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.env["STATE_BUCKET"] = "states"
		h.Bucket.Retain("logs")
		h.scenario(false)
		for _, o := range h.Bucket.Objects("states", "") {
			if o.Name != stateName {
				t.Errorf("left in the state bucket: %s", o.Name)
			}
		}
	})
}

// TestSweep: staged objects that no state names go once they are a day old.
func TestSweep(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		orphan := func(name string) string {
			name = "state/openai-auditlog/staged/state.json/" + name
			h.Bucket.Write("logs", name, []byte("x\n"))
			return name
		}
		old := orphan("old")
		time.Sleep(24*time.Hour - time.Minute)
		young := orphan("young")
		h.add(1, 0, 0)
		h.mustRun()
		if got := h.names("state/openai-auditlog/staged/"); !slices.Equal(got, []string{old, young}) {
			t.Errorf("swept before its day: left %v", got)
		}
		time.Sleep(2 * time.Minute)
		h.mustRun() // looks for the staged object of the run before instead
		h.mustRun()
		if got := h.names("state/openai-auditlog/staged/"); !slices.Equal(got, []string{young}) {
			t.Errorf("left %v", got)
		}
		h.wantLog("Removed 1 staged objects")
		// A named one stays, however old.
		h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
			if strings.Contains(r.URL.Path, "/moveTo/") {
				return fault.Fault{Kind: fault.Refuse, Status: 403}
			}
			return fault.Fault{}
		})
		h.add(1, 0, 0)
		if _, err := h.run(); err == nil || !strings.Contains(err.Error(), "next run publishes") {
			t.Errorf("error %v", err)
		}
		time.Sleep(50 * time.Hour)
		if _, err := h.run(); err == nil {
			t.Error("a run that cannot publish what is staged ended well")
		}
		h.settle()
	})
}

// TestSharedFolder: a sweep leaves alone what another state, in the same
// folder, names.
func TestSharedFolder(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.add(10, 1, 1)
		h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
			if strings.Contains(r.URL.Path, "/moveTo/") {
				return fault.Fault{Kind: fault.Refuse, Status: 403}
			}
			return fault.Fault{}
		})
		if _, err := h.run(); err == nil {
			t.Fatal("a move that is refused is no error")
		}
		h.BucketFaults.Set(nil)
		own := h.env["STATE_KEY"]
		h.env["STATE_KEY"], h.env["GCS_PREFIX"] = "state/openai-auditlog/b.json", "b"
		for range 4 {
			time.Sleep(20 * time.Hour)
			h.mustRun()
		}
		h.env["STATE_KEY"], h.env["GCS_PREFIX"] = own, "openai-auditlog"
		h.settle()
	})
}

// TestEditedDuringCommit: the write landed, its answer was lost, and somebody
// edited the state before it was read back.
func TestEditedDuringCommit(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.add(10, 1, 1)
		h.BucketFaults.Set(func(n int, r *http.Request) fault.Fault {
			if n == 4 { // state, sweep's list comes last: load, upload, commit, read back
				data, err := h.Bucket.Read("logs", stateName)
				if err != nil {
					t.Fatal(err)
				}
				h.Bucket.Write("logs", stateName, bytes.Replace(data, []byte(`"last_run": "2`), []byte(`"last_run": "3`), 1))
			}
			if n == 3 {
				return fault.Fault{Kind: fault.Fail, Status: 403}
			}
			return fault.Fault{}
		})
		if sum := h.mustRun(); sum.Records != 10 || sum.Object == "" {
			t.Errorf("%+v", sum)
		}
		h.settle()
	})
}

// TestChangedStateBucket: what is staged in the bucket of before is not taken
// for published.
func TestChangedStateBucket(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.add(10, 1, 1)
		h.BucketFaults.Set(from(4, fault.Fault{Kind: fault.Refuse, Status: 403})) // the move
		if _, err := h.run(); err == nil {
			t.Fatal("a move that is refused is no error")
		}
		h.BucketFaults.Set(nil)
		data, _ := h.Bucket.Read("logs", stateName)
		h.Bucket.Write("states", stateName, data)
		h.env["STATE_BUCKET"] = "states"
		if _, err := h.run(); err == nil || !strings.Contains(err.Error(), "STATE_BUCKET") {
			t.Errorf("error %v", err)
		}
		h.env["STATE_BUCKET"] = ""
		h.settle()
	})
}

// TestShortRequestTimeout: a deadline of the host's, shorter than the settings
// allow for, leaves time to read.
func TestShortRequestTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.add(10, 1, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		if sum, err := h.collector().Run(ctx, slog.New(slog.DiscardHandler)); err != nil || sum.Records != 10 {
			t.Errorf("%+v, %v", sum, err)
		}
		h.settle()
	})
}

// TestRefusedWithinARun: a cursor that is refused as soon as it is given is no
// circle, whatever the order.
func TestRefusedWithinARun(t *testing.T) {
	for name, order := range map[string]auditapi.Order{"newest first": auditapi.NewestFirst, "oldest first": auditapi.OldestFirst} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *harness) {
				h.API.SetOrder(order)
				h.add(150, 1, 0)
				h.APIFaults.Set(at(2, fault.Fault{Kind: fault.Refuse, Status: 400, Body: `{"error":{"message":"No such cursor","param":"after"}}`}))
				if sum := h.mustRun(); sum.Records != 150 {
					t.Errorf("%+v", sum)
				}
				h.settle()
			})
		})
	}
}

// TestFailingUntilTheDeadline: an API that fails until the time is over is an
// error, though pages came before.
func TestFailingUntilTheDeadline(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.env["RUN_TIMEOUT_SECONDS"] = "60"
		h.add(150, 1, 1)
		h.APIFaults.Set(from(2, fault.Fault{Kind: fault.Hang}))
		if sum, err := h.run(); err == nil || !strings.Contains(err.Error(), "API") || sum.Records != 100 {
			t.Errorf("%+v, %v", sum, err)
		}
		h.settle()
	})
}

// TestFastClock: a first run whose window lies ahead of the API's time is
// refused.
func TestFastClock(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.env["LOOKBACK_HOURS"] = "1"
		h.APIFaults.Set(func(int, *http.Request) fault.Fault {
			return fault.Fault{Kind: fault.Refuse, Status: 200, Body: `{"object":"list","data":[],"has_more":false}`,
				Header: http.Header{"Date": {time.Now().UTC().Add(-2 * time.Hour).Format(http.TimeFormat)}}}
		})
		if _, err := h.run(); err == nil || !strings.Contains(err.Error(), "clock is fast") {
			t.Errorf("error %v", err)
		}
		if names := h.names(""); len(names) != 0 {
			t.Errorf("objects %v", names)
		}
	})
}

// TestStateInFeed: with the Python function's default STATE_KEY, the log warns
// and staged objects stay out of the feed.
func TestStateInFeed(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		delete(h.env, "STATE_KEY")
		h.env["STATE_KEY"] = "openai-auditlog/state.json"
		h.BucketFaults.SetHooks(nil, func(_ int, r *http.Request) {
			for _, name := range h.names("openai-auditlog/") {
				if strings.Contains(name, "staged") {
					t.Errorf("the feed sees %s", name)
				}
			}
		})
		h.add(10, 1, 1)
		h.mustRun()
		h.wantLog("STATE_KEY lies under GCS_PREFIX")
	})
}

// TestMissingBucket and permissions: the error names what to look at.
func TestStorageErrors(t *testing.T) {
	t.Run("no such bucket", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *harness) {
			h.env["GCS_BUCKET"] = "absent"
			h.add(1, 1, 1)
			if _, err := h.run(); err == nil || !strings.Contains(err.Error(), "GCS_BUCKET") {
				t.Errorf("error %v", err)
			}
		})
	})
	t.Run("no permission", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *harness) {
			h.add(1, 1, 1)
			h.BucketFaults.Set(from(1, fault.Fault{Kind: fault.Refuse, Status: 403}))
			if _, err := h.run(); err == nil || !strings.Contains(err.Error(), "service account") {
				t.Errorf("error %v", err)
			}
		})
	})
}

// TestLongRecords: one of a megabyte is collected, and one that the feed cannot
// take is collected and named.
func TestLongRecords(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		for i, size := range []int{1 << 20, 5 << 20} {
			raw := fmt.Appendf(nil, `{"id":"long-%d","effective_at":%d,"x":"%s"}`, i, time.Now().Unix(), strings.Repeat("x", size))
			if err := h.API.Add(raw); err != nil {
				t.Fatal(err)
			}
		}
		h.mustRun()
		h.wantLog(`"A record is longer than the feed takes`, `"id":"long-1"`)
		if strings.Contains(h.logs.String(), "long-0") {
			t.Error("warns of a record that the feed takes")
		}
		h.settle()
	})
}

// TestHugePages: where a page is too large for memory, smaller ones are read.
func TestHugePages(t *testing.T) {
	if testing.Short() {
		t.Skip("tens of megabytes a page")
	}
	inBubble(t, func(t *testing.T, h *harness) {
		h.API.SetGzip(false)
		for i := range 34 {
			raw := fmt.Appendf(nil, `{"id":"huge-%d","effective_at":%d,"x":"%s"}`, i, time.Now().Unix(), strings.Repeat("x", 1<<20))
			if err := h.API.Add(raw); err != nil {
				t.Fatal(err)
			}
		}
		if sum := h.mustRun(); sum.Records != 34 {
			t.Errorf("%+v", sum)
		}
		h.wantLog("page is larger than 32 MiB: asking for 50 records a page")
		h.settle()
	})
}

// TestPagesInCircles: nothing of an API that does not page consistently is
// committed.
func TestPagesInCircles(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.APIFaults.Set(func(n int, r *http.Request) fault.Fault {
			body := fmt.Sprintf(`{"object":"list","data":[{"id":"%d","effective_at":%d}],"last_id":"%d","has_more":true}`, n%7, time.Now().Unix(), n%7)
			return fault.Fault{Kind: fault.Refuse, Status: 200, Body: body}
		})
		if _, err := h.run(); !errors.As(err, new(*inconsistent)) {
			t.Errorf("error %v", err)
		}
		if names := h.names(""); len(names) != 0 {
			t.Errorf("objects %v", names)
		}
	})
}
