package model

import (
	"fmt"
	"strings"
)

// Invariant is what must hold, in the words of the design.
type Invariant struct {
	Name  string
	holds func(Model, State) bool
}

// Always is what holds in every state.
var Always = []Invariant{
	{"nothing repeated", func(_ Model, s State) bool {
		return s.repeated == 0
	}},
	{"the feed never sees uncommitted data", func(_ Model, s State) bool {
		return s.each(func(_ int, a attempt) bool { return !a.released || a.committed })
	}},
	{"the commit never replaces the name of a staged object that is not yet published", func(_ Model, s State) bool {
		return s.each(func(i int, a attempt) bool {
			return !a.committed || a.records == 0 || a.released || int(s.staged) == i
		})
	}},
	{"an object that can still be named is there, and no sweep removes it", func(_ Model, s State) bool {
		return s.each(func(_ int, a attempt) bool {
			can := a.current && a.records != 0 && (a.at == committing || a.inFlight.has(int(commit)))
			return !can || a.there
		})
	}},
	{"the watermark never passes a record that is not in an object that the state names, or has named", func(_ Model, s State) bool {
		durable := s.arrived
		if a := s.attempts[s.staged]; a.there {
			durable |= a.records
		}
		return s.collected&^durable == 0
	}},
}

// Eventually is what holds after one run without faults, begun where no other
// is under way. Since every run may end and every request land at any time, to
// check this where nothing is under way, and no request lands any more, is to
// check it from every state.
var Eventually = []Invariant{
	{"nothing lost, whatever fails", func(m Model, s State) bool {
		all := only(m.Records) - 1
		return s.collected == all && s.arrived == all
	}},
	{"no staged object is left", func(_ Model, s State) bool {
		return s.there() == 0
	}},
}

func (s *State) each(holds func(int, attempt) bool) bool {
	for i, a := range s.attempts {
		if !holds(i, a) {
			return false
		}
	}
	return true
}

// healthy does a run without faults.
func (m Model) healthy(s State) State {
	const i = len(s.attempts) - 1
	for s = m.load(s, i); s.attempts[i].at != ended; {
		var events []Event
		m.run(s, i, func(e Event) { events = append(events, e) })
		s = events[0].next
	}
	return s
}

// Result is what Check has found.
type Result struct {
	States, Transitions int
	Violated            string  // the name of an invariant, or ""
	Trace               []Event // to where it does not hold, as short as any
}

// Check visits every state that can be reached, the nearest first, until an
// invariant does not hold.
func (m Model) Check() (res Result) {
	type visit struct {
		State
		from, by int // the visit before, and which of its events led here
	}
	visits := []visit{{from: -1}}
	seen := map[State]bool{{}: true}
	violated := func(n int, name string) Result {
		res.Violated = name
		for v := visits[n]; v.from >= 0; v = visits[v.from] {
			res.Trace = append([]Event{m.next(visits[v.from].State)[v.by]}, res.Trace...)
		}
		return res
	}
	for n := 0; n < len(visits); n++ {
		s := visits[n].State
		res.States++
		for _, inv := range Always {
			if !inv.holds(m, s) {
				return violated(n, inv.Name)
			}
		}
		for by, e := range m.next(s) {
			res.Transitions++
			if !seen[e.next] {
				seen[e.next] = true
				visits = append(visits, visit{e.next, n, by})
			}
		}
	}
	for n, v := range visits {
		if !v.each(func(_ int, a attempt) bool { return a.at == ended }) {
			continue
		}
		s := m.healthy(v.State)
		for _, inv := range Eventually {
			if !inv.holds(m, s) {
				return violated(n, inv.Name)
			}
		}
	}
	return res
}

// Event is one thing that happens: a step of a run or, with run 0, something
// that waits for none.
type Event struct {
	run    int // its attempt
	what   string
	object int // of an attempt, or 0
	how    string
	next   State
}

const begins = "loads the state"

func (q request) String() string {
	return [...]string{"uploads", "commits", "publishes", "deletes"}[q]
}

// Steps prints the trace, a line for each event, with runs numbered as they
// begin. An object has its run's number.
func (res Result) Steps() string {
	var b strings.Builder
	var number [1 + maxAttempts + 1]int
	begun := 0
	for _, e := range res.Trace {
		if e.what == begins {
			begun++
			number[e.run] = begun
		}
		if e.run > 0 {
			fmt.Fprintf(&b, "run %d ", number[e.run])
		}
		b.WriteString(e.what)
		if e.object > 0 {
			fmt.Fprintf(&b, " object %d", number[e.object])
		}
		b.WriteString(e.how + "\n")
	}
	return b.String()
}
