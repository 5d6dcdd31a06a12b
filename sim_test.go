package auditlog

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/storage"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/option"

	"example.com/auditlog/internal/sim/auditapi"
	"example.com/auditlog/internal/sim/fault"
)

var long = flag.Bool("long", false, "try what takes long: all pairs of faults, 100,000 schedules, months of runs")

// setting is what differs between simulations.
type setting struct {
	name        string
	stateBucket string
	eager       bool   // the feed takes an object as soon as it is there; else after the run
	remove      bool   // the feed deletes what it has taken
	width       string // FETCH_CONCURRENCY, "" for 1
	tenant      string // TENANT_EVENTS
}

var simulated = []setting{
	{"feed deletes at once", "", true, true, "", ""},
	{"feed deletes later", "", false, true, "", ""},
	{"state bucket, tenant events", "states", true, false, "", "true"},
	{"side by side", "", true, true, "4", ""},
}

// settings are those to simulate exhaustively. When the feed comes matters
// little, and is left to -long, the soak and random schedules.
func settings() []setting {
	switch {
	case testing.Short():
		return simulated[:1]
	case *long:
		return simulated
	}
	return slices.DeleteFunc(slices.Clone(simulated), func(s setting) bool { return s.stateBucket == "" && !s.eager })
}

// inSimulation runs f in a world whose every request a witness follows.
func inSimulation(t *testing.T, s setting, f func(h *harness)) {
	t.Helper()
	inBubble(t, func(t *testing.T, h *harness) {
		h.env["STATE_BUCKET"] = s.stateBucket
		h.env["FETCH_CONCURRENCY"] = cmp.Or(s.width, "1")
		h.env["TENANT_EVENTS"] = s.tenant
		h.watch = &witness{h: h, setting: s, named: map[string]bool{}, shown: map[bool]int{}}
		f(h)
	})
}

// simulate does one run of a new instance that reaches the world through tr.
func (h *harness) simulate(tr *fault.Transport) (Summary, error) {
	h.t.Helper()
	ctx, c, cancel := h.through(tr)
	defer cancel()
	shown := len(h.API.Records())
	tr.Handled = func(r *http.Request) {
		if r.Method != http.MethodGet {
			h.watch.look(shown)
		}
	}
	if h.steady {
		noWait := gax.Backoff{Initial: 1, Max: 1, Multiplier: 1}
		c.api.backoff = noWait
		c.states, c.logs = c.states.Retryer(storage.WithBackoff(noWait)), c.logs.Retryer(storage.WithBackoff(noWait))
		c.state = c.states.Object(c.cfg.StateKey)
	}
	return h.runOf(ctx, c)
}

// through returns a new instance that reaches the world through tr, and its
// process's life.
func (h *harness) through(tr *fault.Transport) (context.Context, *Collector, context.CancelFunc) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	tr.Handler = h.Handler()
	if decide := tr.Decide; decide != nil {
		tr.Decide = func(r *http.Request) fault.Fault {
			f := decide(r)
			if f.Kind == fault.Die {
				cancel() // nor does it wait any longer
			}
			return f
		}
	}
	return ctx, h.collectorThrough(tr, option.WithHTTPClient(&http.Client{Transport: tr})), cancel
}

// witness looks at the bucket after every request that has changed it, and
// checks what must hold at any time, whatever has failed.
type witness struct {
	h *harness
	setting
	state      State
	generation int64           // of the state; 0: there is none yet
	shown      map[bool]int    // records that the last run which read a stream, tenant or not, could have been shown
	named      map[string]bool // ids in the objects that the states have named as staged

	// Of long stories, whose records are too many to be looked through each time.
	skipRecords bool
}

func (w *witness) look(shown int) {
	h := w.h
	h.t.Helper()
	o, data, err := h.Bucket.Get(h.bucketOf("STATE_BUCKET"), h.env["STATE_KEY"])
	switch {
	case err != nil && w.generation != 0:
		h.t.Errorf("the state is gone: %v", err)
	case err == nil && o.Generation != w.generation:
		next, err := decodeState(data, time.Now())
		if err != nil || next.note != "" {
			h.t.Errorf("a run wrote a state that is damaged or counts as edited: %v %s\n%s", err, next.note, data)
		}
		if h.staged(w.state) != nil && next.Staged != w.state.Staged {
			h.t.Errorf("the commit replaces the name of %s, which is not published", w.state.Staged)
		}
		known := next.Staged == w.state.Staged // a backfill keeps the name
		if next.LastRun != w.state.LastRun {
			w.shown[false] = shown
		}
		if t := w.state.Tenant; next.Tenant != nil && (t == nil || t.LastRun != next.Tenant.LastRun) {
			w.shown[true] = shown
		}
		w.state, w.generation = next.State, o.Generation
		ids := h.staged(w.state)
		if ids == nil && next.Staged != "" && !known {
			h.t.Errorf("the state names %s as staged, which is not there", next.Staged)
		}
		for _, id := range ids {
			w.named[id] = true
		}
	}

	for id, object := range h.published() {
		if !w.named[id] {
			h.t.Errorf("the feed prefix shows %s in %s, which no state has named", id, object)
		}
	}
	if !w.skipRecords {
		h.checkWatermark(w.state, w.shown)
	}
	if w.eager {
		w.feed()
	}
}

// complete checks that a run that has ended well, and that no other got ahead
// of, hides nothing: all that the API has is collected, or the state says that
// it is left.
func (w *witness) complete() {
	w.h.t.Helper()
	have := w.h.collected(State{})
	w.h.API.Each(func(id string, at int64, tenant bool) {
		stream := &w.state.Stream
		if tenant {
			if stream = w.state.Tenant; stream == nil && strings.Contains(w.h.logs.String(), "no tenant-scoped events") {
				return // it says so
			}
			stream = cmp.Or(stream, &Stream{})
		}
		left := slices.ContainsFunc(stream.Backlog, func(b window) bool { return b.unread(at) })
		if have[id] == 0 && !left && at >= w.h.Since {
			w.h.t.Errorf("a run ended well without %s at %d, and does not say so", id, at)
		}
	})
}

func (w *witness) feed() {
	w.h.t.Helper()
	if err := w.h.Feed(w.remove); err != nil {
		w.h.t.Error(err)
	}
}

// tidied checks that a day later nothing staged is left.
func (h *harness) tidied() {
	h.t.Helper()
	time.Sleep(25 * time.Hour)
	h.mustRun()
	for _, o := range h.Bucket.Objects(h.bucketOf("STATE_BUCKET"), "") {
		if strings.Contains(o.Name, "/staged/") && !strings.Contains(o.Name, "/kept/") {
			h.t.Errorf("after a day %s is still there", o.Name)
		}
	}
}

func toAPI(r *http.Request) bool { return r.URL.Path == auditapi.Path }

// bucketFaults and apiFaults are what can become of a request.
var (
	bucketFaults = map[string]fault.Fault{
		"refused for good":          {Kind: fault.Refuse, Status: 403},
		"a precondition that fails": {Kind: fault.Refuse, Status: 412},
		"503":                       {Kind: fault.Refuse, Status: 503},
		"dropped":                   {Kind: fault.Drop},
		"applied, answer a 503":     {Kind: fault.Fail, Status: 503},
		"applied, answer a 403":     {Kind: fault.Fail, Status: 403},
		"applied, answer lost":      {Kind: fault.Lose},
		"applied, answer cut":       {Kind: fault.Cut},
		"never answered":            {Kind: fault.Hang},
		"applied, never answered":   {Kind: fault.HangAfter},
		"applied too late":          {Kind: fault.Late},
		"503, applied too late":     {Kind: fault.Late, Status: 503},
		"the process dies":          {Kind: fault.Die},
	}
	apiFaults = map[string]fault.Fault{
		"refused for good": {Kind: fault.Refuse, Status: 401},
		"500":              {Kind: fault.Refuse, Status: 500},
		"429":              {Kind: fault.Refuse, Status: 429, Header: http.Header{"Retry-After": {"7"}}},
		"429 for a day":    {Kind: fault.Refuse, Status: 429, Header: http.Header{"Retry-After": {"86400"}}},
		"HTML":             {Kind: fault.Refuse, Status: 200, Body: "<html>"},
		"redirect":         {Kind: fault.Refuse, Status: 302, Header: http.Header{"Location": {"/elsewhere"}}},
		"dropped":          {Kind: fault.Drop},
		"answer cut":       {Kind: fault.Cut},
		"never answered":   {Kind: fault.Hang},
		"cursor refused":   {Kind: fault.Refuse, Status: 400, Body: `{"error":{"message":"No such cursor","param":"after"}}`},
		"the process dies": {Kind: fault.Die},
	}
)

// struck is one fault at one request of a story, which counts from 1.
type struck struct {
	n     int
	toAPI bool
	name  string
	fault.Fault
}

func (s struck) String() string { return fmt.Sprintf("request %d: %s", s.n, s.name) }

// faultsOf lists what can become of request n.
func faultsOf(n int, toAPI bool) []struck {
	faults := bucketFaults
	if toAPI {
		faults = apiFaults
	}
	var all []struck
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		all = append(all, struck{n, toAPI, name, faults[name]})
	}
	return all
}

// TestEveryFault strikes each request of the scenario with each fault, once and
// for the worst also from there on: whatever happens, everything reaches the
// feed once, and the witness finds nothing wrong on the way.
func TestEveryFault(t *testing.T) {
	few := []string{"refused for good", "dropped", "applied, answer lost", "applied too late", "503, applied too late", "the process dies", "500", "answer cut", "cursor refused"}
	for _, s := range settings() {
		// live lives through the scenario and tells which requests went to the API.
		live := func(t *testing.T, script fault.Script) (toAPIs []bool) {
			inSimulation(t, s, func(h *harness) {
				var mu sync.Mutex
				h.decide = func(r *http.Request) fault.Fault {
					mu.Lock()
					defer mu.Unlock()
					toAPIs = append(toAPIs, toAPI(r))
					return script(len(toAPIs), r)
				}
				h.scenario(s.remove)
				h.tidied()
			})
			return toAPIs
		}
		requests := live(t, at(0, fault.Fault{}))
		byName := map[string][]struck{}
		for i, toAPI := range requests {
			for _, f := range faultsOf(i+1, toAPI) {
				if testing.Short() && !slices.Contains(few, f.name) {
					continue
				}
				byName[f.name] = append(byName[f.name], f)
			}
		}
		for name, all := range byName {
			t.Run(s.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				for _, f := range all {
					live(t, at(f.n, f.Fault))
					if slices.Contains([]string{"refused for good", "applied, answer lost", "never answered", "500"}, name) {
						live(t, func(n int, r *http.Request) fault.Fault {
							if n >= f.n && toAPI(r) == f.toAPI {
								return f.Fault
							}
							return fault.Fault{}
						})
					}
					if t.Failed() {
						t.Fatal(f)
					}
				}
			})
		}
	}
}

// TestEveryPair strikes each request of a run with each fault, and in each case
// each request of the run after it with each fault. What the first run has sent
// too late lands before the request that the second fault strikes.
func TestEveryPair(t *testing.T) {
	// The faults after which a run goes on as after none are left to TestEveryFault.
	worst := []string{"the process dies"}
	if !testing.Short() {
		worst = append(worst, "applied, answer lost", "503, applied too late", "applied too late", "refused for good")
	}
	faults := func(n int, toAPI bool) []struck {
		return slices.DeleteFunc(faultsOf(n, toAPI), func(f struck) bool { return !*long && !slices.Contains(worst, f.name) })
	}
	runs := []int{1}
	if *long {
		runs = []int{0, 1, 2}
	}
	for _, s := range settings() {
		for _, first := range runs {
			// live lives through a first run, a small one, one with a burst beyond the
			// cap, and quiet ones; the faults strike in the run number first and in the
			// next. It tells which requests of these went to the API.
			live := func(t *testing.T, strikes ...struck) (toAPIs [2][]bool) {
				inSimulation(t, s, func(h *harness) {
					h.env["MAX_RECORDS"] = "12"
					early := &fault.Transport{}
					var mu sync.Mutex
					for run := range 5 {
						h.add(3, 10, 7)
						if run == 2 {
							h.add(12, 1, 1)
						}
						tr, which := &fault.Transport{}, run-first
						if which == 0 {
							tr = early
						}
						if which == 0 || which == 1 {
							tr.Decide = func(r *http.Request) (f fault.Fault) {
								mu.Lock()
								defer mu.Unlock()
								toAPIs[which] = append(toAPIs[which], toAPI(r))
								if which < len(strikes) && strikes[which].n == len(toAPIs[which]) {
									early.Land()
									f = strikes[which].Fault
								}
								return f
							}
						}
						h.simulate(tr) // whether it fails or not
						if which > 0 {
							early.Land()
							tr.Land()
						}
						h.watch.feed()
						time.Sleep(time.Hour)
					}
					h.settle()
					h.tidied()
				})
				return toAPIs
			}
			for i, toAPI := range live(t)[0] {
				for _, f := range faults(i+1, toAPI) {
					t.Run(fmt.Sprintf("%s/run %d/%s", s.name, first, f), func(t *testing.T) {
						t.Parallel()
						for j, toAPI := range live(t, f)[1] {
							for _, g := range faults(j+1, toAPI) {
								if live(t, f, g); t.Failed() {
									t.Fatalf("then %s", g)
								}
							}
						}
					})
				}
			}
		}
	}
}
