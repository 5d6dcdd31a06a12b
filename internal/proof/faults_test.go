package proof

import (
	"flag"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"example.com/auditlog/internal/sim/auditapi"
	"example.com/auditlog/internal/sim/fault"
)

var (
	exhaustive = flag.Bool("exhaustive", false, "try every fault, pair of faults and order in every set-up: some minutes")
	long       = flag.Bool("long", false, "try what takes hours: all pairs of faults, 100,000 schedules, months of runs")
)

// brief reports whether to try a choice of what is there.
func brief() bool { return !*exhaustive && !*long }

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
			inSimulation(t, s, func(h *simulation) {
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
				if brief() && !slices.Contains(few, f.name) {
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
	if !brief() {
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
				inSimulation(t, s, func(h *simulation) {
					h.Env["MAX_RECORDS"] = "12"
					early := &fault.Transport{}
					var mu sync.Mutex
					for run := range 5 {
						h.Add(3, 10, 7)
						if run == 2 {
							h.Add(12, 1, 1)
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
					h.Settle()
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
