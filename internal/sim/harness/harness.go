// Package harness lets tests live with a function in a simulated world: they add
// records, let runs happen and fail, and check that in the end each record has
// reached the feed once, unchanged. It judges by the objects in the bucket and by
// what the log says, and imports nothing of what it judges.
package harness

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
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/storage"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/option"

	"example.com/auditlog/internal/sim/auditapi"
	"example.com/auditlog/internal/sim/bucket"
	"example.com/auditlog/internal/sim/world"
)

// Function is what is tested: runs of new instances, and how they log.
type Function struct {
	// Run does one run of a new instance with these settings, which reaches the
	// world through these connections.
	Run       func(ctx context.Context, settings map[string]string, log *slog.Logger, c Connections) error
	Logger    func(io.Writer) *slog.Logger
	Transport func() *http.Transport // to the API, as in production
}

// Connections are what an instance reaches the world through.
type Connections struct {
	API     http.RoundTripper
	Storage *storage.Client
	Backoff gax.Backoff // between attempts at one page; zero for the function's own
}

// H is a world of an API and a bucket, and what tests do in it.
type H struct {
	*world.World
	T        testing.TB
	Function Function
	Env      map[string]string
	Records  *auditapi.Generator
	Logs     bytes.Buffer
	Log      *slog.Logger // to Logs; one for all runs, since its lock is what keeps them apart
	Pause    func()       // between runs of Settle

	// Replace, if set, does the runs in place of Run: a simulation's.
	Replace func() (Figures, error)
	// Heal, if set, ends what Replace lets fail, for Settle.
	Heal func()

	added    int // records
	clients  []func()
	contents map[string][]string // ids by object; see ids
}

// InBubble runs f in a world of its own, with a clock that stands still but
// while everything waits.
func InBubble(t *testing.T, fn Function, f func(t *testing.T, h *H)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := New(t, fn, world.Options{InMemory: true, Buckets: []string{"logs", "states"}})
		defer h.Close()
		f(t, h)
	})
}

// OverTCP returns a harness whose world other processes can reach.
func OverTCP(t testing.TB, fn Function) *H {
	h := New(t, fn, world.Options{})
	h.Pause = func() {}
	t.Cleanup(h.Close)
	return h
}

// New returns a harness. Close ends it.
func New(t testing.TB, fn Function, o world.Options) *H {
	t.Helper()
	w, err := world.New(o)
	if err != nil {
		t.Fatal(err)
	}
	// The bubble's clock begins at midnight: let a day of records lie behind it.
	h := &H{World: w, T: t, Function: fn, Env: w.Settings(), Records: auditapi.NewGenerator(1), contents: map[string][]string{},
		Pause: func() { time.Sleep(time.Hour) }} // of the bubble's clock
	h.Env["FETCH_CONCURRENCY"] = "1" // so that requests come in one order
	h.Log = fn.Logger(&h.Logs)
	return h
}

// Close ends the clients, then the world.
func (h *H) Close() {
	for _, f := range h.clients {
		f()
	}
	h.World.Close()
}

// Connect returns connections of a new instance: over the world's transport where
// through is nil, which may fail what passes.
func (h *H) Connect(through http.RoundTripper) Connections {
	h.T.Helper()
	opts := h.StorageOptions()
	if through == nil {
		transport := h.Function.Transport()
		transport.Proxy, transport.DialContext = nil, h.Transport().DialContext
		h.clients = append(h.clients, transport.CloseIdleConnections)
		through = transport
	} else {
		opts = append(opts, option.WithHTTPClient(&http.Client{Transport: through}))
	}
	client, err := storage.NewClient(context.Background(), opts...)
	if err != nil {
		h.T.Fatal(err)
	}
	return Connections{API: through, Storage: client}
}

// Run does one run of a new instance, as a cold start does.
func (h *H) Run() (Figures, error) {
	h.T.Helper()
	if h.Replace != nil {
		return h.Replace()
	}
	return h.RunWith(h.T.Context(), h.Connect(nil))
}

// RunWith does one run of a new instance with these connections.
func (h *H) RunWith(ctx context.Context, c Connections) (Figures, error) {
	h.T.Helper()
	var f Figures
	err := h.Function.Run(ctx, h.Env, slog.New(figuresHandler{h.Log.Handler(), &f}), c)
	return f, err
}

// MustRun does a run that must end well.
func (h *H) MustRun() Figures {
	h.T.Helper()
	f, err := h.Run()
	if err != nil {
		h.T.Fatalf("run: %v\n%s", err, h.Logs.String())
	}
	return f
}

// Add makes n records appear, the newest ago seconds old, step seconds apart. Where
// those of a tenant are collected, every third is one.
func (h *H) Add(n int, ago, step int64) {
	h.T.Helper()
	for i := range int64(n) {
		h.added++
		h.AddRecord(h.Env["TENANT_EVENTS"] == "true" && h.added%3 == 0, h.Records.Next(time.Now().Unix()-ago-i*step))
	}
}

// AddRecord makes one record appear.
func (h *H) AddRecord(tenant bool, raw []byte) {
	h.T.Helper()
	add := h.API.Add
	if tenant {
		add = h.API.AddTenant
	}
	if err := add(raw); err != nil {
		h.T.Fatal(err)
	}
}

// Put makes one record of a type appear, and returns its id.
func (h *H) Put(tenant bool, kind string, ago int64) (id string) {
	h.T.Helper()
	h.added++
	id = fmt.Sprintf("%s-%d", kind, h.added)
	h.AddRecord(tenant, fmt.Appendf(nil, `{"id":"%s","type":"%s","effective_at":%d,"project":{"id":"p+1"}}`, id, kind, time.Now().Unix()-ago))
	return id
}

// Conceal makes the bucket answer as to an account with roles on folders alone: 403
// for what does not exist, and lists only in the state's folder.
func (h *H) Conceal() {
	h.Bucket.Conceal()
	folder := path.Dir(h.Env["STATE_KEY"]) + "/"
	h.Bucket.Deny(func(_, op, bucket, name string) bool {
		return op == "list" && (bucket != h.BucketOf("STATE_BUCKET") || !strings.HasPrefix(name, folder))
	})
}

// Settle heals everything and runs until nothing is left to do; then each
// record must have reached the feed once, unchanged.
func (h *H) Settle() {
	h.T.Helper()
	h.API.Heal()
	h.APIFaults.Set(nil)
	h.BucketFaults.Set(nil)
	if h.Heal != nil {
		h.Heal()
	}
	for range 200 {
		h.Pause()
		if f := h.MustRun(); f.OpenWindows+f.Backfills+f.SetAside+f.Records == 0 {
			if err := h.Check(); err != nil {
				h.T.Errorf("%v\n%s", err, h.Logs.String())
			}
			if s := h.Stored(); s.Staged != "" {
				h.T.Errorf("state still names %s as staged", s.Staged)
			}
			return
		}
	}
	h.T.Error("runs never settle")
}

// BucketOf is the bucket that a setting names, GCS_BUCKET's where it is not set.
func (h *H) BucketOf(setting string) string {
	if b := h.Env[setting]; b != "" {
		return b
	}
	return h.Env["GCS_BUCKET"]
}

// ReadState returns the state object's bytes.
func (h *H) ReadState() []byte {
	h.T.Helper()
	data, err := h.Bucket.Read(h.BucketOf("STATE_BUCKET"), h.Env["STATE_KEY"])
	if err != nil {
		h.T.Fatal(err)
	}
	return data
}

// WriteState replaces the state object.
func (h *H) WriteState(data []byte) {
	h.T.Helper()
	if err := h.Bucket.Write(h.BucketOf("STATE_BUCKET"), h.Env["STATE_KEY"], data); err != nil {
		h.T.Fatal(err)
	}
}

// SetWatermark sets the watermark by hand.
func (h *H) SetWatermark(watermark int64) {
	h.T.Helper()
	h.WriteState(regexp.MustCompile(`^\{\s*"last_effective_at": \d+`).ReplaceAll(h.ReadState(), fmt.Appendf(nil, `{"last_effective_at": %d`, watermark)))
}

// Names lists the objects of the log bucket under a prefix.
func (h *H) Names(prefix string) []string {
	var names []string
	for _, o := range h.Bucket.Objects("logs", prefix) {
		names = append(names, o.Name)
	}
	return names
}

// WantLog checks that the log has each of the parts.
func (h *H) WantLog(parts ...string) {
	h.T.Helper()
	for _, p := range parts {
		if !strings.Contains(h.Logs.String(), p) {
			h.T.Errorf("log lacks %q:\n%s", p, h.Logs.String())
		}
	}
}

// CheckInvariants checks what must hold at any time: every object under the feed
// prefix is whole, and the watermark has passed nothing that is not there or in
// the staged object that the state names.
func (h *H) CheckInvariants() {
	h.T.Helper()
	data, err := h.Bucket.Read(h.BucketOf("STATE_BUCKET"), h.Env["STATE_KEY"])
	if err != nil {
		return // no run has committed
	}
	s, err := DecodeStored(data)
	if err != nil {
		h.T.Fatal(err)
	}
	if s.Edited() {
		h.T.Errorf("our own state counts as edited:\n%s", data)
	}
	h.CheckWatermark(s, nil)
}

// CheckWatermark checks that the watermark has passed nothing that is not
// collected: of the first records shown, to a tenant's stream or the other, exactly;
// of later ones, as far as the Python function would look back.
func (h *H) CheckWatermark(s Stored, shown map[bool]int) {
	h.T.Helper()
	have, n := h.Collected(s), 0
	h.API.Each(func(id string, at int64, tenant bool) {
		n++
		watermark := s.Watermark
		if tenant {
			if watermark = 0; s.Tenant != nil {
				watermark = s.Tenant.Watermark
			}
		}
		if have[id] == 0 && at >= h.Since && (at < watermark-120 || n <= shown[tenant] && at < watermark) {
			h.T.Errorf("the watermark %d has passed %s at %d, which is nowhere", watermark, id, at)
		}
	})
}

// Collected counts how often each record has been taken by the feed, lies under
// the feed prefix, or in what s names as staged.
func (h *H) Collected(s Stored) map[string]int {
	h.T.Helper()
	have := h.Taken()
	for id := range h.Published() {
		have[id]++
	}
	for _, id := range h.Staged(s) {
		have[id]++
	}
	return have
}

// Published goes through the records under the feed prefix, each with the name
// of its object.
func (h *H) Published() iter.Seq2[string, string] {
	return func(yield func(id, object string) bool) {
		for _, o := range h.Bucket.Objects("logs", h.Env["GCS_PREFIX"]+"/") {
			for _, id := range h.ids("logs", o) {
				if !yield(id, o.Name) {
					return
				}
			}
		}
	}
}

// Staged lists what s names as staged and is not published; nil where that is
// nothing.
func (h *H) Staged(s Stored) []string {
	if s.Staged == "" {
		return nil
	}
	states := h.BucketOf("STATE_BUCKET")
	for _, o := range h.Bucket.Objects(states, s.Staged) {
		if o.Generation == s.StagedGeneration {
			return h.ids(states, o)
		}
	}
	return nil
}

// ids lists an object's records.
func (h *H) ids(where string, o bucket.Object) []string {
	h.T.Helper()
	key := fmt.Sprint(where, o.Name, o.Generation)
	ids, ok := h.contents[key]
	if ok {
		return ids
	}
	data, err := h.Bucket.Read(where, o.Name)
	if err != nil {
		h.T.Errorf("%s: %v", o.Name, err)
	}
	for line := range bytes.Lines(data) {
		var r struct{ ID string }
		if err := json.Unmarshal(line, &r); err != nil {
			h.T.Errorf("%s: %v", o.Name, err)
		}
		ids = append(ids, r.ID)
	}
	h.contents[key] = ids
	return ids
}

// Stored is what the state object says, as far as tests judge by it.
type Stored struct {
	Stream
	Tenant           *Stream `json:"tenant"`
	Staged           string  `json:"staged"`
	StagedGeneration int64   `json:"staged_generation"`
	LastObject       string  `json:"last_object"`
}

// Stream is one of the state's.
type Stream struct {
	Watermark int64            `json:"last_effective_at"`
	LastRun   string           `json:"last_run"`
	High      int64            `json:"high"`
	Backlog   []Window         `json:"backlog"`
	RecentIDs map[string]int64 `json:"recent_ids"`
}

// Window is one of a stream's backlog.
type Window struct {
	Gte       int64  `json:"gte"`
	Lte       int64  `json:"lte"`
	After     string `json:"after"`
	AfterAt   int64  `json:"after_at"`
	Top       int64  `json:"top"`
	Unordered bool   `json:"unordered"`
}

// Open reports whether the window may still bring a record at this time.
func (w Window) Open(at int64) bool {
	passed := w.After != "" && !w.Unordered && w.AfterAt < w.Top && w.Gte <= w.AfterAt && w.AfterAt <= w.Lte
	return w.Gte <= at && at <= w.Lte && !(passed && at > w.AfterAt)
}

// Edited reports whether the watermark is not what the rest implies.
func (s *Stored) Edited() bool {
	return s.Stream.edited() || s.Tenant != nil && s.Tenant.edited()
}

func (s *Stream) edited() bool {
	implied := s.High
	for _, w := range s.Backlog {
		implied = min(implied, w.Gte)
	}
	return s.Watermark != implied
}

// DecodeStored reads a state object.
func DecodeStored(data []byte) (s Stored, err error) {
	if err := json.Unmarshal(data, &s); err != nil {
		return s, err
	}
	if s.LastRun == "" && s.Watermark == 0 && s.High == 0 {
		return s, errors.New("it is no state")
	}
	return s, nil
}

// Stored returns what the state object says.
func (h *H) Stored() Stored {
	h.T.Helper()
	s, err := DecodeStored(h.ReadState())
	if err != nil {
		h.T.Fatal(err)
	}
	return s
}

// Figures are a run's, as its last log entry has them.
type Figures struct {
	Records, Skipped, Late int
	MaxLateness            int64
	Pages, Retries         int
	RateLimitWait          time.Duration
	Bytes                  int64
	Object                 string
	OpenWindows, Backfills int
	SetAside               int
	Watermark, Lag         int64
	Duration               time.Duration
}

// figuresHandler takes a run's figures out of its log.
type figuresHandler struct {
	slog.Handler
	f *Figures
}

// Handle implements slog.Handler.
func (h figuresHandler) Handle(ctx context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if v := a.Value.Resolve(); a.Key == "run" && v.Kind() == slog.KindGroup {
			for _, a := range v.Group() {
				h.f.set(a.Key, a.Value)
			}
		}
		return true
	})
	return h.Handler.Handle(ctx, r)
}

func (f *Figures) set(name string, v slog.Value) {
	seconds := func() time.Duration { return time.Duration(v.Float64() * float64(time.Second)).Round(time.Millisecond) }
	switch name {
	case "records":
		f.Records = int(v.Int64())
	case "skipped":
		f.Skipped = int(v.Int64())
	case "late":
		f.Late = int(v.Int64())
	case "max_lateness_seconds":
		f.MaxLateness = v.Int64()
	case "pages":
		f.Pages = int(v.Int64())
	case "retries":
		f.Retries = int(v.Int64())
	case "rate_limit_wait_seconds":
		f.RateLimitWait = seconds()
	case "bytes":
		f.Bytes = v.Int64()
	case "object":
		f.Object = v.String()
	case "open_windows":
		f.OpenWindows = int(v.Int64())
	case "backfill_windows":
		f.Backfills = int(v.Int64())
	case "set_aside":
		f.SetAside = int(v.Int64())
	case "watermark":
		f.Watermark = v.Int64()
	case "lag_seconds":
		f.Lag = v.Int64()
	case "duration_seconds":
		f.Duration = seconds()
	}
}
