// Package proof holds the proofs that drive whole runs through the collector's
// public door, against the simulated API and the embedded bucket: every fault at
// every request, every order of two instances, months of runs, two streams,
// real processes. Model and mutations are beside it.
package proof

import (
	"bytes"
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/storage"
	"github.com/googleapis/gax-go/v2"

	"example.com/auditlog"
	"example.com/auditlog/internal/proof/product"
	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/sim/harness"
	"example.com/auditlog/internal/sim/world"
	"example.com/auditlog/internal/state"
)

const stateName = "state/openai-auditlog/state.json"

// simulation is a harness, and where a witness follows it, what that sees.
type simulation struct {
	*harness.H
	watch  *witness
	decide func(*http.Request) fault.Fault // the fate of each request of a watched run
	steady bool                            // no waits, and so no jitter, between attempts
}

// inBubble runs f in a world of its own, with a clock that stands still but
// while everything waits.
func inBubble(t *testing.T, f func(t *testing.T, h *simulation)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &simulation{H: harness.New(t, product.Function, world.Options{InMemory: true, Buckets: []string{"logs", "states"}})}
		defer h.Close()
		f(t, h)
	})
}

// overTCP returns a harness whose world other processes can reach.
func overTCP(t testing.TB) *simulation { return &simulation{H: harness.OverTCP(t, product.Function)} }

// collector returns a new instance of the function.
func (h *simulation) collector() *auditlog.Collector {
	h.T.Helper()
	return h.collectorThrough(h.Connect(nil))
}

func (h *simulation) collectorThrough(c harness.Connections) *auditlog.Collector {
	h.T.Helper()
	collector, err := product.New(h.Env, c)
	if err != nil {
		h.T.Fatal(err)
	}
	return collector
}

// state is what the product makes of the state object.
func (h *simulation) state() state.State {
	h.T.Helper()
	s, _, err := state.Decode(bytes.NewReader(h.ReadState()), time.Now())
	if err != nil {
		h.T.Fatal(err)
	}
	return s
}

// encoded is what a commit writes.
func encoded(t testing.TB, s state.State) []byte {
	t.Helper()
	var object bytes.Buffer
	if err := state.Encode(&object, s); err != nil {
		t.Fatal(err)
	}
	return object.Bytes()
}

func (h *simulation) checkInvariants() {
	h.T.Helper()
	if h.watch == nil { // else the witness has looked
		h.CheckInvariants()
	}
}

// setting is what differs between simulations.
type setting struct {
	name        string
	stateBucket string
	eager       bool   // the feed takes an object as soon as it is there; else after the run
	remove      bool   // the feed deletes what it has taken
	width       string // FETCH_CONCURRENCY, "" for 1
	tenant      string // TENANT_EVENTS
	conceals    bool   // the bucket answers 403 for what is missing
}

var simulated = []setting{
	{"feed deletes at once", "", true, true, "", "", true},
	{"feed deletes later", "", false, true, "", "", false},
	{"state bucket, tenant events", "states", true, false, "", "true", true},
	{"side by side", "", true, true, "4", "", false},
}

// settings are those to simulate exhaustively. When the feed comes matters
// little, and is left to -long, the soak and random schedules.
func settings() []setting {
	switch {
	case brief():
		return simulated[:1]
	case *long:
		return simulated
	}
	return slices.DeleteFunc(slices.Clone(simulated), func(s setting) bool { return s.stateBucket == "" && !s.eager })
}

// inSimulation runs f in a world whose every request a witness follows.
func inSimulation(t *testing.T, s setting, f func(h *simulation)) {
	t.Helper()
	inBubble(t, func(t *testing.T, h *simulation) {
		h.Env["STATE_BUCKET"] = s.stateBucket
		h.Env["FETCH_CONCURRENCY"] = cmp.Or(s.width, "1")
		h.Env["TENANT_EVENTS"] = s.tenant
		if s.conceals {
			h.Conceal()
		}
		h.watch = &witness{h: h, setting: s, named: map[string]bool{}, shown: map[bool]int{}}
		h.Heal = func() { h.decide = nil }
		h.Replace = func() (harness.Figures, error) {
			tr := &fault.Transport{Decide: h.decide}
			defer tr.Land()
			sum, err := h.simulate(tr)
			if err == nil {
				h.watch.complete()
			}
			return sum, err
		}
		f(h)
	})
}

// unwatch sends the witness away: what follows breaks its rules.
func (h *simulation) unwatch() { h.watch, h.Replace = nil, nil }

// simulate does one run of a new instance that reaches the world through tr.
func (h *simulation) simulate(tr *fault.Transport) (harness.Figures, error) {
	h.T.Helper()
	ctx, c, cancel := h.through(tr)
	defer cancel()
	shown := len(h.API.Records())
	tr.Handled = func(r *http.Request) {
		if r.Method != http.MethodGet {
			h.watch.look(shown)
		}
	}
	if h.steady {
		c.Backoff = gax.Backoff{Initial: 1, Max: 1, Multiplier: 1}
		c.Storage.SetRetry(storage.WithBackoff(c.Backoff))
	}
	return h.RunWith(ctx, c)
}

// through returns connections of a new instance that reaches the world through
// tr, and its process's life.
func (h *simulation) through(tr *fault.Transport) (context.Context, harness.Connections, context.CancelFunc) {
	h.T.Helper()
	ctx, cancel := context.WithCancel(h.T.Context())
	tr.Handler = h.Handler()
	if decide := tr.Decide; decide != nil {
		var silent sync.Map
		tr.Decide = func(r *http.Request) fault.Fault {
			f := decide(r)
			if f.Kind == fault.Die {
				cancel() // nor does it wait any longer
			}
			return inEachAttempt(&silent, r, f)
		}
	}
	return ctx, h.Connect(tr), cancel
}

// inEachAttempt makes the bucket leave each attempt at a request without an answer if it
// has left one. Else another attempt would get over most faults, and TestStorageHangs
// tries that.
func inEachAttempt(silent *sync.Map, r *http.Request, f fault.Fault) fault.Fault {
	request := r.Method + r.URL.String()
	switch before, ok := silent.Load(request); {
	case ok && f.Kind == fault.None:
		return before.(fault.Fault)
	case !toAPI(r) && f.Status == 0 && (f.Kind == fault.Hang || f.Kind == fault.HangAfter || f.Kind == fault.Late):
		silent.Store(request, f)
	}
	return f
}

// witness looks at the bucket after every request that has changed it, and
// checks what must hold at any time, whatever has failed.
type witness struct {
	h *simulation
	setting
	state      harness.Stored
	generation int64           // of the state; 0: there is none yet
	shown      map[bool]int    // records that the last run which read a stream, tenant or not, could have been shown
	named      map[string]bool // ids in the objects that the states have named as staged

	// Of long stories, whose records are too many to be looked through each time.
	skipRecords bool
}

func (w *witness) look(shown int) {
	h := w.h
	h.T.Helper()
	o, data, err := h.Bucket.Get(h.BucketOf("STATE_BUCKET"), h.Env["STATE_KEY"])
	switch {
	case err != nil && w.generation != 0:
		h.T.Errorf("the state is gone: %v", err)
	case err == nil && o.Generation != w.generation:
		if _, note, err := state.Decode(bytes.NewReader(data), time.Now()); err != nil || note != "" {
			h.T.Errorf("a run wrote a state that is damaged or counts as edited: %v %s\n%s", err, note, data)
		}
		next, err := harness.DecodeStored(data)
		if err != nil || next.Edited() {
			h.T.Errorf("a run wrote a state that counts as edited: %v\n%s", err, data)
		}
		if h.Staged(w.state) != nil && next.Staged != w.state.Staged {
			h.T.Errorf("the commit replaces the name of %s, which is not published", w.state.Staged)
		}
		known := next.Staged == w.state.Staged // a backfill keeps the name
		if next.LastRun != w.state.LastRun {
			w.shown[false] = shown
		}
		if t := w.state.Tenant; next.Tenant != nil && (t == nil || t.LastRun != next.Tenant.LastRun) {
			w.shown[true] = shown
		}
		w.state, w.generation = next, o.Generation
		ids := h.Staged(w.state)
		if ids == nil && next.Staged != "" && !known {
			h.T.Errorf("the state names %s as staged, which is not there", next.Staged)
		}
		for _, id := range ids {
			w.named[id] = true
		}
	}

	for id, object := range h.Published() {
		if !w.named[id] {
			h.T.Errorf("the feed prefix shows %s in %s, which no state has named", id, object)
		}
	}
	if !w.skipRecords {
		h.CheckWatermark(w.state, w.shown)
	}
	if w.eager {
		w.feed()
	}
}

// complete checks that a run that has ended well, and that no other got ahead
// of, hides nothing: all that the API has is collected, or the state says that
// it is left.
func (w *witness) complete() {
	w.h.T.Helper()
	have := w.h.Collected(harness.Stored{})
	w.h.API.Each(func(id string, at int64, tenant bool) {
		stream := &w.state.Stream
		if tenant {
			if stream = w.state.Tenant; stream == nil && strings.Contains(w.h.Logs.String(), "no tenant-scoped events") {
				return // it says so
			}
			stream = cmp.Or(stream, &harness.Stream{})
		}
		left := slices.ContainsFunc(stream.Backlog, func(b harness.Window) bool { return b.Open(at) })
		if have[id] == 0 && !left && at >= w.h.Since {
			w.h.T.Errorf("a run ended well without %s at %d, and does not say so", id, at)
		}
	})
}

func (w *witness) feed() {
	w.h.T.Helper()
	if err := w.h.Feed(w.remove); err != nil {
		w.h.T.Error(err)
	}
}

// tidied checks that a day later nothing staged is left.
func (h *simulation) tidied() {
	h.T.Helper()
	time.Sleep(25 * time.Hour)
	h.MustRun()
	for _, o := range h.Bucket.Objects(h.BucketOf("STATE_BUCKET"), "") {
		if strings.Contains(o.Name, "/staged/") && !strings.Contains(o.Name, "/kept/") {
			h.T.Errorf("after a day %s is still there", o.Name)
		}
	}
}
