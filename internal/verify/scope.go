package verify

import (
	"fmt"
	"slices"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

// scope is what is checked, and what of the range that was asked for is not.
type scope struct {
	asked        state.Span
	queries      []query
	left         []Left
	organization string
}

// query is a range of one stream that is collected with one filter.
type query struct {
	state.Span
	Tenant bool
}

// Left is a part of the range that is not checked.
type Left struct {
	state.Span
	Why string
}

// layOut decides what of the range can be checked: what is collected, of each stream with each filter,
// except what runs still read. Runs find records that appear late in what they read again.
func layOut(s *state.State, o Options) (scope, error) {
	sc := scope{organization: s.Organization}
	streams := []*state.Stream{&s.Stream}
	if o.Tenant && s.Tenant != nil {
		streams = append(streams, s.Tenant)
	}
	oldest, settled := s.High, s.High
	for _, stream := range streams {
		settled = min(settled, stream.RecentSince-1)
		for _, c := range covered(s, stream) {
			oldest = min(oldest, c.Gte)
		}
	}
	sc.asked = state.Span{Gte: oldest, Lte: settled}
	if !o.From.IsZero() {
		sc.asked.Gte = o.From.Unix()
	}
	if !o.To.IsZero() {
		sc.asked.Lte = o.To.Unix()
	}
	if sc.asked.Gte > sc.asked.Lte {
		return scope{}, fmt.Errorf("nothing to check: the range ends before it begins; what can be checked is from %s to %s", audit.Time(oldest), audit.Time(settled))
	}
	sc.leave(intersect(sc.asked, state.Span{Gte: settled + 1, Lte: sc.asked.Lte}), "too recent: the next runs read it again")
	if within := intersect(sc.asked, state.Span{Lte: settled}); within.Gte <= within.Lte {
		sc.ask(s, streams, within, !o.From.IsZero())
	}
	return sc, nil
}

// ask lays out the queries within a range. named says to name what of it is not collected.
func (sc *scope) ask(s *state.State, streams []*state.Stream, within state.Span, named bool) {
	var open []state.Span // of all streams: a line does not show its own
	for _, stream := range streams {
		for _, w := range stream.Backlog {
			why := "in the backlog"
			if w.SetAside {
				why = "set aside: the API could not serve it to runs"
			}
			open = append(open, w.Left())
			sc.leave(intersect(w.Left(), within), why)
		}
	}
	for i, stream := range streams {
		list, what := covered(s, stream), []string{"", "tenant events "}[i]
		if named || stream.Untouched {
			for _, gap := range within.Without(list) {
				sc.leave(gap, what+"not collected")
			}
		}
		for _, c := range list {
			if part := intersect(c, within); part.Gte <= part.Lte {
				for _, p := range part.Without(open) {
					sc.queries = append(sc.queries, query{p, i > 0})
				}
			}
		}
	}
}

// covered lists what a stream has collected. Where another function has begun the state, that is at least what
// runs have since they count objects.
func covered(s *state.State, stream *state.Stream) []state.Span {
	switch {
	case stream.Untouched:
		return nil
	case len(stream.Covered) == 0 && s.Objects != nil:
		return []state.Span{{Gte: s.Objects.Since, Lte: stream.High, Filter: stream.Filter}}
	}
	return stream.Covered
}

func (sc *scope) leave(s state.Span, why string) {
	if s.Gte <= s.Lte {
		sc.left = append(sc.left, Left{s, why})
	}
}

// intersect returns the part of s within the other; its Gte is after its Lte where there is none.
func intersect(s, other state.Span) state.Span {
	return state.Span{Gte: max(s.Gte, other.Gte), Lte: min(s.Lte, other.Lte), Filter: s.Filter}
}

// has reports whether a record of this time is in what is checked.
func (sc *scope) has(at int64) bool {
	return slices.ContainsFunc(sc.queries, func(q query) bool { return q.Gte <= at && at <= q.Lte })
}

// day is the length of what is compared at once, in seconds.
const day = 24 * 3600

// piece is what is left of a query in one day.
type piece struct {
	query
	index  int
	failed error // the API could not serve it
}

// pieces splits the queries at the ends of days.
func (sc *scope) pieces() (list []*piece) {
	for _, q := range sc.queries {
		for from := q.Gte; from <= q.Lte; from = (from/day + 1) * day {
			part := q
			part.Gte, part.Lte = from, min(q.Lte, (from/day+1)*day-1)
			list = append(list, &piece{query: part, index: len(list)})
		}
	}
	return list
}
