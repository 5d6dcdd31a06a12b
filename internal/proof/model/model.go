// Package model is the collector's commit protocol, small enough to check in
// every state that it can reach.
//
// It is plain Go, so that a reader needs only what runs the tests, and a
// counterexample prints as the steps that lead to it:
//
//	go test -v ./internal/proof/model
//
// Read State, the bucket and the runs at one moment; then apply, what a request
// does to the bucket; then run, the steps of Collector.Run. check.go has what
// must hold.
//
// Each request that changes the bucket is answered, or fails, or is applied and
// its answer lost, or is left in flight: the run gives it up, and it lands at
// any later time or never. A run may end at any step, for a crash, a failed
// read or an error of the API. New ones begin at any time.
//
// Neither faults nor runs are counted. Generations are not either: all that a
// precondition asks is whether the state that was loaded is still there. What
// is bounded is how much there is at once (Bounds). Two runs are enough to race:
// of all that loaded the same state one commits, and the others cannot tell
// whether it was one or several that got ahead. The tests try three as well.
//
// A run reads any choice of the records that the state it loaded has not
// collected; the rest has not appeared yet, or goes to the backlog. That
// windows, cursors and ids come down to this is for TestWindows in the root
// package. Left out are strangers' objects under the feed prefix, state edited by
// hand, and the day that a sweep waits: here it takes at once what was there
// before its commit, so that safety rests on that order and on no clock.
package model

// Bounds say how much there is at once.
type Bounds struct {
	Records   int // of the API, at most 2
	Instances int // runs under way
	Attempts  int // those, and ended ones that have left something; at most maxAttempts
}

const maxAttempts = 4

// Model is the protocol, and what it runs against.
type Model struct {
	Bounds
	Copy        bool   // publish by copy and delete (a STATE_BUCKET of its own), not by move
	FeedDeletes bool   // the feed deletes what it has taken
	LateUpload  bool   // one upload is left in flight and sent again by the client: both may land
	Broken      Broken // "" for the protocol as it is
}

// Broken is a protocol that must not pass.
type Broken string

// The rules that can be broken.
const (
	NoPrecondition Broken = "commit without precondition"
	NotDurable     Broken = "commit before the staged object is durable"
	StagesInFeed   Broken = "stage under the feed prefix"
	NoRecovery     Broken = "commit without publishing what the loaded state names"
	YieldsAlways   Broken = "take a commit without an answer for a failed one"
	YieldsEarly    Broken = "delete the staged object though the generation is unchanged"
	ClaimsAny      Broken = "take a failed precondition for the run's own write"
	SweepsEarly    Broken = "sweep without having committed"
	SweepsNamed    Broken = "sweep what the state names"
	SweepsYoung    Broken = "sweep what was made after the commit"
	NeverSweeps    Broken = "never sweep"
	LooksAtFinal   Broken = "read from the final object whether it is published"
	AnyGeneration  Broken = "publish a staged object of another generation than was committed"
)

// State is the bucket and the runs at one moment.
type State struct {
	// The state object: the records that it says are collected, and the attempt
	// whose object it names as staged (0: none).
	collected set
	staged    uint8

	// The records that have come under the feed prefix, and those that have come
	// there again. The feed takes what comes, sooner or later, and deletes it
	// only then: to come there is to be taken.
	arrived, repeated set

	attempts [1 + maxAttempts + 1]attempt // 0 is none; the last is for healthy
	resent   bool                         // LateUpload has happened
}

// attempt is a run, its objects, and its requests in flight.
type attempt struct {
	at        step
	current   bool  // the state that it loaded has not been replaced
	records   set   // that it has read
	collected set   // that the state it loaded has, and from reading on its own commit
	publishes uint8 // the attempt whose object it publishes: the one loaded, then itself
	sweeps    set   // the attempts whose objects were there at its commit

	there     bool // the staged object
	late      bool // and that is another generation than was committed
	final     bool // the object under the feed prefix
	committed bool // the state names the staged object, or has named it
	released  bool // it has come under the feed prefix
	inFlight  set  // requests
}

// set is of records, attempts or requests.
type set uint8

func only[T ~int | ~uint8](i T) set { return 1 << i }

func (s set) has(i int) bool { return s&only(i) != 0 }

// request is one that changes the bucket.
type request uint8

const (
	upload request = iota
	commit
	publish // a move, or a copy
	remove
)

// apply does to the bucket what a request asks for, and reports whether its
// preconditions let it.
func (m Model) apply(s *State, q request, i int) bool {
	a := &s.attempts[i]
	switch q {
	case upload: // DoesNotExist
		if a.there {
			return false
		}
		a.there, a.late = true, a.committed
		if m.Broken == StagesInFeed {
			s.arrive(a)
		}
	case commit: // GenerationMatch, or DoesNotExist for the first
		if !a.current && m.Broken != NoPrecondition {
			return false
		}
		s.collected, s.staged, a.committed = a.collected, 0, true
		if a.records != 0 {
			s.staged = uint8(i)
		}
		for j := range s.attempts {
			s.attempts[j].current = false
		}
		a.sweeps = s.there() &^ only(i)
	case publish: // DoesNotExist for the final object
		if !a.there || a.late && m.Broken != AnyGeneration || m.Copy && a.final {
			return false
		}
		s.arrive(a)
		if !m.Copy {
			s.discard(i)
		}
	case remove:
		if !a.there {
			return false
		}
		s.discard(i)
	}
	return true
}

func (s *State) arrive(a *attempt) {
	s.repeated |= s.arrived & a.records
	s.arrived |= a.records
	a.final, a.released = true, true
}

func (s *State) discard(i int) {
	s.attempts[i].there, s.attempts[i].late = false, false
	for j := range s.attempts {
		s.attempts[j].sweeps &^= only(i) // should it come again, it is younger
	}
}

// there returns the attempts that have a staged object.
func (s *State) there() (attempts set) {
	for i, a := range s.attempts {
		if a.there {
			attempts |= only(i)
		}
	}
	return attempts
}

// step is what a run does next.
type step uint8

const (
	ended      step = iota
	recovering      // is there what the loaded state names?
	publishing      // of that, and of the run's own object
	comparing       // after a copy without success: is it there?
	removing        // after a copy
	looking         // after any other failure: is it still staged?
	reading
	uploading
	checking // after an upload without success: is it there?
	committing
	settling // after a commit without success: what does the state say?
	yielding
	sweeping
)

// load begins a run.
func (m Model) load(s State, i int) State {
	s.attempts[i] = attempt{at: recovering, current: true, collected: s.collected, publishes: s.staged}
	if s.staged == 0 || m.Broken == NoRecovery {
		s.attempts[i].at = reading
	}
	return s
}

// run adds what a run can do next: first, what it does where nothing fails.
func (m Model) run(s State, i int, add func(Event)) {
	a := s.attempts[i]
	goes := func(t State, to step) State {
		t.attempts[i].at = to
		return t
	}
	sees := func(what string, to step) { add(Event{i, what, 0, "", goes(s, to)}) }
	look := func(object int, found bool, yes, no step) {
		if found {
			add(Event{i, "finds", object, "", goes(s, yes)})
		} else {
			add(Event{i, "does not find", object, "", goes(s, no)})
		}
	}
	request := func(q request, object int, answered, unclear step) {
		if t := s; m.apply(&t, q, object) {
			add(Event{i, q.String(), object, "", goes(t, answered)})
			add(Event{i, q.String(), object, ", the answer is lost", goes(t, unclear)})
		}
		add(Event{i, q.String(), object, ", which fails", goes(s, unclear)})
		t := s
		t.attempts[object].inFlight |= only(q)
		add(Event{i, q.String(), object, ", left in flight", goes(t, unclear)})
		if m.LateUpload && q == upload && !s.resent {
			t.resent = true
			add(Event{i, q.String(), object, ", left in flight and sent again", t})
		}
	}

	object := int(a.publishes)
	o := s.attempts[object]
	staged := o.there && (!o.late || m.Broken == AnyGeneration)
	if m.Broken == LooksAtFinal {
		staged = !o.final
	}
	published, failed := reading, ended
	if object == i {
		published, failed = sweeping, sweeping
	}

	switch a.at {
	case recovering:
		look(object, staged, publishing, reading)
	case publishing:
		if m.Copy {
			request(publish, object, removing, comparing)
		} else {
			request(publish, object, published, looking)
		}
	case comparing:
		look(object, o.there && o.final, removing, looking)
	case removing:
		request(remove, object, published, looking)
	case looking:
		look(object, staged, failed, published)

	case reading:
		s.attempts[i].publishes = uint8(i)
		news := (only(m.Records) - 1) &^ a.collected
		for in := news; in > 0; in = (in - 1) & news {
			t := goes(s, uploading)
			t.attempts[i].records, t.attempts[i].collected = in, a.collected|in
			add(Event{i, "reads for", i, [...]string{1: ": record 1", 2: ": record 2", 3: ": records 1, 2"}[in], t})
		}
		sees("reads nothing new", committing)
	case uploading:
		if m.Broken == NotDurable {
			request(upload, i, committing, committing)
		} else {
			request(upload, i, committing, checking)
		}
	case checking:
		look(i, a.there, committing, ended)
	case committing:
		if a.records == 0 {
			request(commit, i, sweeping, settling)
		} else {
			request(commit, i, publishing, settling)
		}
	case settling:
		mine := int(s.staged) == i || m.Broken == ClaimsAny && !a.current
		switch {
		case a.records == 0: // where another run wrote the same, the sweep is that one's
			sees("has no news to settle", sweeping)
		case mine && m.Broken != YieldsAlways:
			sees("finds itself committed", publishing)
		case !a.current || m.Broken == YieldsAlways || m.Broken == YieldsEarly:
			sees("finds itself overtaken", yielding)
		case m.Broken == SweepsEarly:
			s.attempts[i].sweeps = s.there() &^ (only(i) | only(s.staged))
			sees("finds the state unchanged", sweeping)
		default: // the commit may still land
			sees("finds the state unchanged", ended)
		}
	case yielding:
		request(remove, i, ended, ended)
	case sweeping:
		switch m.Broken {
		case SweepsNamed:
			a.sweeps |= s.there() & only(i)
		case SweepsYoung:
			a.sweeps = s.there() &^ only(i)
		case NeverSweeps:
			a.sweeps = 0
		}
		for j := range s.attempts {
			if a.sweeps.has(j) {
				request(remove, j, sweeping, ended)
				return
			}
		}
		sees("ends", ended)
	}
}

// next returns all that can happen in a state.
func (m Model) next(s State) (events []Event) {
	add := func(e Event) {
		e.next = m.forget(e.next)
		events = append(events, e)
	}
	underWay, free := 0, 0
	for i := m.Attempts; i > 0; i-- {
		if s.attempts[i].at != ended {
			underWay++
		} else if s.attempts[i] == (attempt{}) && int(s.staged) != i {
			free = i
		}
	}
	if underWay < m.Instances && free > 0 {
		add(Event{free, begins, 0, "", m.load(s, free)})
	}
	for i, a := range s.attempts {
		if a.at != ended {
			m.run(s, i, add)
			t := s
			t.attempts[i].at = ended
			add(Event{i, "is cut short", 0, "", t})
		}
		for q := upload; q <= remove; q++ {
			if a.inFlight.has(int(q)) {
				t := s
				t.attempts[i].inFlight &^= only(q)
				m.apply(&t, q, i)
				add(Event{0, q.String(), i, ", in flight until now", t})
			}
		}
		if a.final && m.FeedDeletes {
			t := s
			t.attempts[i].final = false
			add(Event{0, "the feed deletes", i, "", t})
		}
	}
	return events
}

// forget drops what makes no difference to anything that can happen later.
func (m Model) forget(s State) State {
	used := only(s.staged)
	for _, a := range s.attempts {
		if a.at != ended {
			used |= only(a.publishes)
		}
	}
	for i := range s.attempts {
		a := &s.attempts[i]
		if m.Broken == "" { // else the reasons need not hold
			if !a.current { // its precondition fails for good
				a.inFlight &^= only(commit)
			}
			if !a.there && !a.inFlight.has(int(upload)) && a.at != uploading { // gone for good
				a.inFlight &^= only(publish) | only(remove)
			}
			if !a.current && !a.committed && a.records != 0 { // it will not count, whatever it has read
				a.records, a.collected = 1, 0
			}
			if !m.Copy { // nobody looks at it
				a.final = false
			}
		}
		if a.at == ended {
			a.publishes, a.sweeps = 0, 0
			if !a.inFlight.has(int(commit)) {
				a.current, a.collected = false, 0
			}
			if !a.there && a.inFlight == 0 && !used.has(i) {
				*a = attempt{}
			}
		}
	}
	return s
}
