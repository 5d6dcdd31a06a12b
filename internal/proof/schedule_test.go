package proof

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/auditlog/internal/sim/bucket"
	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/sim/harness"
)

// scheduler runs instances of the function side by side and owns each of their
// requests: while all wait, it picks the one that goes on.
type scheduler struct {
	h     *simulation
	trace strings.Builder // of what has been granted

	stagers map[string]int // instances, by the object that each stages; see touches

	mu      sync.Mutex
	pending []*pending
	running int
	runs    []*fault.Transport
	arrived chan struct{} // has room for one
}

// pending is a request that waits for its turn.
type pending struct {
	instance int
	r        *http.Request
	turn     chan fault.Fault
}

func newScheduler(h *simulation) *scheduler {
	h.steady = true // what happens depends on what the scheduler decides, and on nothing else
	return &scheduler{h: h, stagers: map[string]int{}, arrived: make(chan struct{}, 1)}
}

// start begins an instance, whose life is to call run.
func (s *scheduler) start(instance int, life func(run func() (harness.Figures, error))) {
	s.mu.Lock()
	s.running++
	s.mu.Unlock()
	go func() {
		life(func() (harness.Figures, error) {
			tr := &fault.Transport{Decide: func(r *http.Request) fault.Fault { return s.ask(instance, r) }}
			s.mu.Lock()
			s.runs = append(s.runs, tr)
			s.mu.Unlock()
			return s.h.simulate(tr)
		})
		s.mu.Lock()
		s.running--
		s.mu.Unlock()
		s.wake()
	}()
}

func (s *scheduler) wake() {
	select {
	case s.arrived <- struct{}{}:
	default:
	}
}

// ask waits for the request's turn, or for its client to give up.
func (s *scheduler) ask(instance int, r *http.Request) fault.Fault {
	p := &pending{instance, r, make(chan fault.Fault)}
	s.mu.Lock()
	s.pending = append(s.pending, p)
	s.mu.Unlock()
	s.wake()
	select {
	case f := <-p.turn:
		return f
	case <-r.Context().Done():
		s.forget(p)
		return fault.Fault{Kind: fault.Hang}
	}
}

func (s *scheduler) forget(p *pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = slices.DeleteFunc(s.pending, func(other *pending) bool { return other == p })
}

// wait waits until every instance waits, and returns the requests that wait for
// their turn, by instance; none when all runs have ended. The clock moves on
// only where all instances wait for it.
func (s *scheduler) wait() []*pending {
	for {
		synctest.Wait()
		s.mu.Lock()
		waiting, running := slices.Clone(s.pending), s.running
		s.mu.Unlock()
		if len(waiting) > 0 || running == 0 {
			slices.SortStableFunc(waiting, func(a, b *pending) int { return a.instance - b.instance })
			return waiting
		}
		<-s.arrived
	}
}

// grant gives a request its turn.
func (s *scheduler) grant(p *pending, f fault.Fault) {
	fmt.Fprintf(&s.trace, "\tinstance %d: %s %s %s\n", p.instance, p.r.Method, p.r.URL.Path, f.Kind)
	s.forget(p)
	p.turn <- f
}

// touches lists the objects that an instance's request reads and writes. A
// staged object goes by the instance that stages it, since its name is another
// in each execution. Listing them counts as reading none: it is for those of the
// day before.
func (s *scheduler) touches(instance int, r *http.Request) (reads, writes []string) {
	if toAPI(r) {
		return nil, nil
	}
	names := strings.Split(r.URL.Path, "/o/")[1:] // of /b/<bucket>/o/<object>, once or twice
	if r.URL.Query().Get("uploadType") != "" {
		name := r.URL.Query().Get("name")
		s.stagers[name] = instance
		names = []string{name}
	}
	for i := range names {
		for _, verb := range []string{"/moveTo", "/rewriteTo"} {
			names[i], _, _ = strings.Cut(names[i], verb)
		}
		if !strings.Contains(names[i], "/staged/") {
			continue
		}
		if stager, ok := s.stagers[names[i]]; ok {
			names[i] = fmt.Sprint("staged by ", stager)
		} else {
			names[i] = "staged before"
		}
	}
	if r.Method == http.MethodGet {
		return names, nil
	}
	return nil, names // the source of a copy is only read; to call it written is to try more
}

// action is what a scheduler can do next: grant an instance's request, or let
// its process die before it.
type action struct {
	*pending
	dies          bool
	reads, writes []string
}

func (a action) is(b action) bool { return a.instance == b.instance && a.dies == b.dies }

// same reports whether a does in this execution what b did in another.
func (a action) same(b action) bool {
	return a.is(b) && slices.Equal(a.reads, b.reads) && slices.Equal(a.writes, b.writes)
}

// commutes reports whether the order of two actions makes no difference to
// anybody.
func (a action) commutes(b action) bool {
	switch {
	case a.instance == b.instance, a.dies && b.dies: // only one process may die
		return false
	case a.dies, b.dies:
		return true
	}
	share := func(x, y []string) bool {
		return slices.ContainsFunc(x, func(name string) bool { return slices.Contains(y, name) })
	}
	return !share(a.writes, b.writes) && !share(a.writes, b.reads) && !share(a.reads, b.writes)
}

// explorer walks, one execution after the other, through all choices between
// actions whose order matters. What has been tried at a fork sleeps in the
// executions tried there later, until something is done that it does not
// commute with (Godefroid's sleep sets): fewer executions, all states.
type explorer struct {
	path []*fork
	made int // choices of this execution
}

type fork struct {
	actions []action
	at      int      // the one taken
	asleep  []action // not to be taken
}

// choose picks an action; nil where all of them have been tried in another
// order, so that the execution may end here.
func (e *explorer) choose(actions []action) *action {
	if e.made == len(e.path) {
		next := &fork{actions: actions, at: -1}
		if e.made > 0 {
			last := e.path[e.made-1]
			for _, a := range append(slices.Clone(last.asleep), last.actions[:last.at]...) {
				if a.commutes(last.actions[last.at]) {
					next.asleep = append(next.asleep, a)
				}
			}
		}
		next.advance()
		e.path = append(e.path, next)
	}
	f := e.path[e.made]
	if !slices.EqualFunc(actions, f.actions, action.same) {
		panic("the same choices led elsewhere")
	}
	if f.at == len(actions) {
		return nil
	}
	e.made++
	return &actions[f.at]
}

// advance moves on to the next action that is awake.
func (f *fork) advance() {
	for f.at++; f.at < len(f.actions) && slices.ContainsFunc(f.asleep, f.actions[f.at].is); f.at++ {
	}
}

// next prepares another execution, and reports whether there is one.
func (e *explorer) next() bool {
	e.made = 0
	for len(e.path) > 0 {
		f := e.path[len(e.path)-1]
		if f.advance(); f.at < len(f.actions) {
			return true
		}
		e.path = e.path[:len(e.path)-1]
	}
	return false
}

// effort is how long a story takes: a medium one is left out of short tests, a
// high one is for -long.
type effort int

const (
	low effort = iota
	medium
	high
)

// TestEverySchedule runs two and three instances side by side, in every order
// of their requests that can make a difference, with and without the death of
// one: whatever the order, everything reaches the feed once.
func TestEverySchedule(t *testing.T) {
	stories := []struct {
		name      string
		instances int
		mayDie    bool
		before    func(h *simulation)
		effort    effort
	}{
		{"first run", 2, true, func(*simulation) {}, low},
		{"news", 2, true, func(h *simulation) {
			h.MustRun()
			time.Sleep(time.Hour)
			h.Add(3, 5, 1)
		}, low},
		{"no news", 2, true, func(h *simulation) { h.MustRun() }, low},
		{"something staged", 2, true, leaveStaged, low},
		{"a burst beyond the cap", 2, true, func(h *simulation) {
			h.Env["MAX_RECORDS"], h.Env["PAGE_SIZE"] = "5", "4"
			h.MustRun()
			time.Sleep(time.Hour)
			h.Add(9, 5, 1)
		}, medium},
		{"a backlog", 2, true, func(h *simulation) {
			h.Env["MAX_RECORDS"], h.Env["PAGE_SIZE"] = "5", "4"
			h.Add(9, 5, 1)
			h.MustRun()
			time.Sleep(time.Hour)
			h.Add(2, 5, 1)
		}, medium},
		{"first run", 3, false, func(*simulation) {}, high},
		{"something staged", 3, false, leaveStaged, high},
	}
	for _, set := range settings() {
		if set.width != "" {
			continue // with several requests of one instance at once, the same choices lead elsewhere
		}
		for _, story := range stories {
			effort := story.effort
			if set.stateBucket != "" {
				effort *= 2 // a copy and a delete make three times the schedules
			}
			if effort >= high && !*long || effort == medium && brief() {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s/%d instances", set.name, story.name, story.instances), func(t *testing.T) {
				t.Parallel()
				e, executions := &explorer{}, 0
				for more := true; more && !t.Failed(); more = e.next() {
					inSimulation(t, set, func(h *simulation) {
						h.Add(3, 5, 1)
						story.before(h)
						s := newScheduler(h)
						for i := range story.instances {
							s.start(i, func(run func() (harness.Figures, error)) { run() })
						}
						if s.explore(e, story.mayDie) {
							executions++
							h.watch.feed()
							h.Settle()
							h.tidied()
						}
						if t.Failed() {
							t.Logf("in this order:\n%s", s.trace.String())
						}
					})
				}
				t.Logf("%d executions", executions)
				if executions < 2 {
					t.Error("no choice was made")
				}
			})
		}
	}
}

// leaveStaged leaves an object that is committed and not published, and news.
func leaveStaged(h *simulation) {
	h.simulate(&fault.Transport{Decide: func(r *http.Request) fault.Fault {
		if r.Method == http.MethodPost && strings.Contains(r.URL.Path, "To/") {
			return fault.Fault{Kind: fault.Die}
		}
		return fault.Fault{}
	}})
	if h.watch.state.Staged == "" {
		h.T.Fatal("nothing is staged")
	}
	time.Sleep(time.Hour)
	h.Add(3, 5, 1)
}

// TestPublishedByAnother: what is staged is published by another instance just
// before the move, and its upload, sent twice, lands once more: the move must
// not take that for the same object.
func TestPublishedByAnother(t *testing.T) {
	inSimulation(t, simulated[0], func(h *simulation) {
		h.Add(3, 5, 1)
		leaveStaged(h)
		name := h.watch.state.Staged
		data, err := h.Bucket.Read("logs", name)
		if err != nil {
			t.Fatal(err)
		}
		done := false
		h.simulate(&fault.Transport{Decide: func(r *http.Request) fault.Fault {
			if !done && strings.Contains(r.URL.Path, "/moveTo/") {
				done = true
				h.MustRun()
				if err := h.Bucket.Write("logs", name, data); err != nil {
					t.Error(err)
				}
			}
			return fault.Fault{}
		}})
		if !done {
			t.Error("nothing was moved")
		}
		h.Settle()
		h.tidied()
	})
}

// TestWrittenAgain: a staged object that is rewritten before it is published, as a
// restore does, is kept, and its records wait for somebody to move it. One that
// has been published and came back needs nobody.
func TestWrittenAgain(t *testing.T) {
	for _, set := range simulated {
		for _, tt := range []struct {
			name                string
			published, readable bool
		}{
			{"not published", false, true},
			{"published", true, true},
			{"published, but not to be read", true, false}, // to create is all that the collector needs there
		} {
			t.Run(set.name+"/"+tt.name, func(t *testing.T) {
				inSimulation(t, set, func(h *simulation) {
					h.watch.eager = false // it has not come yet
					h.Add(3, 5, 1)
					leaveStaged(h)
					states, s := h.BucketOf("STATE_BUCKET"), h.watch.state
					data, err := h.Bucket.Read(states, s.Staged)
					if err != nil {
						t.Fatal(err)
					}
					if tt.published {
						if err := h.Bucket.Write("logs", s.LastObject, data); err != nil {
							t.Fatal(err)
						}
					}
					h.Bucket.Delete(states, s.Staged)
					if err := h.Bucket.Write(states, s.Staged, data); err != nil {
						t.Fatal(err)
					}
					h.unwatch() // its rules are broken
					if !tt.readable {
						h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
							if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, s.LastObject) {
								return fault.Fault{Kind: fault.Refuse, Status: 403}
							}
							return fault.Fault{}
						})
					}
					h.MustRun()
					time.Sleep(49 * time.Hour)
					h.MustRun()
					h.MustRun()
					kept := slices.DeleteFunc(h.Bucket.Objects(states, ""), func(o bucket.Object) bool { return !strings.Contains(o.Name, "/staged/") })
					if tt.published && tt.readable {
						if len(kept) != 0 || strings.Contains(h.Logs.String(), "written again") {
							t.Errorf("left %v; the log:\n%s", kept, h.Logs.String())
						}
					} else {
						if len(kept) != 1 {
							t.Fatalf("left %v", kept)
						}
						h.WantLog("is kept as gs://"+states+"/"+kept[0].Name, "move it to gs://logs/"+s.LastObject)
						if err := h.Bucket.Write("logs", s.LastObject, data); err != nil { // as the log says
							t.Fatal(err)
						}
					}
					h.Settle()
				})
			})
		}
	}
}

// explore lets the runs go on as e chooses, and reports whether they ended in a
// way that has not been tried.
func (s *scheduler) explore(e *explorer, mayDie bool) (tried bool) {
	for {
		waiting := s.wait()
		if len(waiting) == 0 {
			return true
		}
		var actions []action
		for _, p := range waiting {
			reads, writes := s.touches(p.instance, p.r)
			actions = append(actions, action{p, false, reads, writes})
		}
		if mayDie {
			for _, p := range waiting {
				actions = append(actions, action{p, true, nil, nil})
			}
		}
		a := e.choose(actions)
		if a == nil {
			for ; len(waiting) > 0; waiting = s.wait() {
				s.grant(waiting[0], fault.Fault{Kind: fault.Die})
			}
			return false
		}
		f := fault.Fault{}
		if a.dies {
			f.Kind, mayDie = fault.Die, false
		}
		s.grant(a.pending, f)
	}
}

// TestRandomSchedules lives through days with two or three instances that come
// and go, in random order of their requests, with random faults, records that
// appear meanwhile, requests that land late and time that passes.
func TestRandomSchedules(t *testing.T) {
	seeds := 500
	switch {
	case *long:
		seeds = 100_000
	case brief():
		seeds = 30
	}
	const shards = 4
	for shard := range shards {
		t.Run(fmt.Sprint(shard), func(t *testing.T) {
			t.Parallel()
			for seed := shard; seed < seeds && !t.Failed(); seed += shards {
				randomSchedule(t, uint64(seed))
			}
		})
	}
}

func randomSchedule(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 3))
	inSimulation(t, simulated[rnd.IntN(len(simulated))], func(h *simulation) {
		h.Env["MAX_RECORDS"], h.Env["PAGE_SIZE"] = fmt.Sprint(3+rnd.IntN(20)), fmt.Sprint(1+rnd.IntN(10))
		h.Add(rnd.IntN(10), 5, rnd.Int64N(3))
		s := newScheduler(h)
		for i := range 2 + rnd.IntN(2) {
			runs, pause := 1+rnd.IntN(3), time.Duration(rnd.IntN(3*3600))*time.Second
			s.start(i, func(run func() (harness.Figures, error)) {
				for range runs {
					time.Sleep(pause)
					run() // whether it fails or not
				}
			})
		}
		rate := 4 + rnd.IntN(30) // of faults: one request of so many
		for waiting := s.wait(); len(waiting) > 0 && !t.Failed(); waiting = s.wait() {
			switch rnd.IntN(30) {
			case 0, 1, 2:
				h.Add(1+rnd.IntN(5), rnd.Int64N(100), rnd.Int64N(3))
			case 3:
				s.land(rnd)
			case 4:
				h.watch.feed()
			case 5:
				time.Sleep(time.Duration(rnd.IntN(90)) * time.Second)
				continue // what waited may have given up
			}
			p, f := waiting[rnd.IntN(len(waiting))], struck{}
			if rnd.IntN(rate) == 0 {
				f = anyFault(rnd, p)
			}
			s.grant(p, f.Fault)
		}
		for s.land(rnd) {
		}
		h.watch.feed()
		h.Settle()
		h.tidied()
		if t.Failed() {
			t.Logf("seed %d, in this order:\n%s", seed, s.trace.String())
		}
	})
}

// anyFault is one of those that can become of a request.
func anyFault(rnd *rand.Rand, p *pending) struck {
	all := faultsOf(0, toAPI(p.r))
	return all[rnd.IntN(len(all))]
}

// land lets what one of the runs has sent too late reach the bucket, and
// reports whether there was anything.
func (s *scheduler) land(rnd *rand.Rand) bool {
	s.mu.Lock()
	flying := slices.DeleteFunc(slices.Clone(s.runs), func(tr *fault.Transport) bool { return !tr.Flying() })
	s.mu.Unlock()
	if len(flying) == 0 {
		return false
	}
	s.trace.WriteString("\ta late request lands\n")
	flying[rnd.IntN(len(flying))].Land()
	return true
}
