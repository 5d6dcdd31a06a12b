package state

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/auditlog/internal/audit"
)

// Backfill asks for records of the past. Times are whole seconds, both ends included.
type Backfill struct {
	From time.Time
	To   time.Time // zero: up to what has been collected
	// Again also collects what is collected already: its records are written again.
	Again bool
	// Here means: by runs with these settings, not by the function.
	Here bool
	// Cancel takes the range out of the backlog, as far as nothing of it is read or it is set aside.
	Cancel bool
	// DryRun changes nothing: it is for what a backfill would do.
	DryRun bool
}

// Backfilled is what a backfill comes to. With two streams, each list has what is so for either.
// Lists are newest first.
type Backfilled struct {
	Asked   Span   // limited to what has been collected
	Limited bool   // more was asked for
	Parts   []Span // put into the backlog; with Cancel, taken out of it
	Waiting []Span // in the backlog before
	// Unsure is what is left alone, since records of it may have been collected, and others not.
	Unsure []Span
	Why    string // it is unsure
	Cancel bool
}

// Refused is a backfill that the state does not allow: asking again at once is of no use.
type Refused struct{ Reason error }

func (r *Refused) Error() string { return r.Reason.Error() }

func (r *Refused) Unwrap() error { return r.Reason }

// errNewer is of a range that is newer than what has been collected of a stream.
var errNewer = errors.New("the next run collects what is newer")

// AddBackfill adds what is missing of a range to the backlog, for the next runs to collect with this
// filter. With tenant it does so for tenant-scoped records, too, if runs have read any. What is
// collected, or in the backlog, is added only if it is asked for again: a backfill that is done twice
// adds nothing the second time.
//
// Every error is a *Refused; the state may be changed then.
func (s *State) AddBackfill(want Backfill, f audit.Filter, tenant bool) (Backfilled, error) {
	b, err := s.Stream.backfill(want, f)
	if s.Tenant != nil && (want.Cancel || tenant && !s.Tenant.Untouched) && (err == nil || errors.Is(err, errNewer)) {
		changed := *s.Tenant
		s.Tenant = &changed
		switch other, tenantErr := changed.backfill(want, f); {
		case errors.Is(tenantErr, errNewer): // the other stream's answer counts
		case tenantErr != nil:
			err = fmt.Errorf("tenant events: %w", tenantErr)
		case err != nil:
			b, err = other, nil
		default:
			b.add(other)
		}
	}
	if err == nil && want.Cancel && len(b.Parts) == 0 {
		err = fmt.Errorf("the backlog has nothing from %s that could be cancelled: a window that runs have begun to read stays until it is read", b.Asked)
	}
	if err != nil {
		return b, &Refused{err}
	}
	return b, nil
}

func (b *Backfilled) add(other Backfilled) {
	b.Asked.Gte, b.Asked.Lte = min(b.Asked.Gte, other.Asked.Gte), max(b.Asked.Lte, other.Asked.Lte)
	b.Limited = b.Limited && other.Limited
	b.Why = cmp.Or(b.Why, other.Why)
	for _, lists := range [][2]*[]Span{{&b.Parts, &other.Parts}, {&b.Waiting, &other.Waiting}, {&b.Unsure, &other.Unsure}} {
		for _, part := range *lists[1] {
			*lists[0] = Cover(*lists[0], part)
		}
	}
}

// String says what becomes of which part of the range.
func (b Backfilled) String() string {
	if b.Cancel {
		return fmt.Sprintf("cancelled: %s: these records are not collected", list(b.Parts))
	}
	collected := []Span{b.Asked}
	for _, known := range [][]Span{b.Parts, b.Waiting, b.Unsure} {
		collected = without(collected, known)
	}
	var clauses []string
	say := func(what string, parts []Span) {
		switch {
		case len(parts) == 1 && parts[0] == b.Asked:
			clauses = append(clauses, what+": all of it")
		case len(parts) > 0:
			clauses = append(clauses, what+": "+list(parts))
		}
	}
	say("to collect", b.Parts)
	say("in the backlog already", b.Waiting)
	say("collected already", collected)
	say("unknown", b.Unsure)
	if b.Limited {
		clauses = append(clauses, "newer than "+audit.Time(b.Asked.Lte)+": the next run collects it")
	}
	return fmt.Sprintf("%s: %s", b.Asked, strings.Join(clauses, "; "))
}

// Idle reports whether all is collected.
func (b Backfilled) Idle() bool { return len(b.Parts)+len(b.Waiting)+len(b.Unsure) == 0 }

func list(spans []Span) string {
	text := make([]string, len(spans))
	for i, s := range spans {
		text[i] = s.String()
	}
	return strings.Join(text, ", ")
}

// Again is the command that has all records of a range written, whether they have been before or not.
// It is whole: a message has no "again", and whoever reads a log has not typed the command before.
func (s Span) Again() string {
	return fmt.Sprintf("auditlog backfill --again --from %s --to %s", audit.Time(s.Gte), audit.Time(s.Lte))
}

func (s *Stream) backfill(want Backfill, f audit.Filter) (Backfilled, error) {
	if want.Cancel {
		asked := Span{Gte: want.From.Unix(), Lte: want.To.Unix()}
		return Backfilled{Asked: asked, Parts: s.cancel(asked), Cancel: true}, nil
	}
	asked, err := s.limit(want, f)
	if err != nil {
		return Backfilled{}, err
	}
	if want.Here && s.Filter != f {
		return Backfilled{}, fmt.Errorf("the runs have other filters (%s) than these settings (%s), and what is new would be read with these: leave the range to the scheduled runs (--detach)", s.Filter, f)
	}
	b := Backfilled{Asked: asked, Limited: want.To.Unix() > asked.Lte, Waiting: s.waiting(asked)}
	switch {
	case !want.Again:
		b.Parts = asked.Without(s.coveredBy(f))
		b.Unsure = without(asked.Without(b.Parts), s.collectedBy(f))
		b.Why = s.unsure()
	case !s.awaits(asked):
		if err := s.refuseAgain(asked); err != nil {
			return Backfilled{}, err
		}
		b.Parts = []Span{asked}
	}
	for _, part := range b.Parts {
		s.enqueue(part, Span{Gte: asked.Gte, Lte: asked.Lte}, want.Again)
	}
	return b, nil
}

// limit returns the requested range, limited to what runs have covered.
func (s *Stream) limit(want Backfill, f audit.Filter) (Span, error) {
	asked := Span{want.From.Unix(), s.High, f}
	if !want.To.IsZero() {
		asked.Lte = min(want.To.Unix(), s.High)
	}
	switch {
	case asked.Gte < 0:
		return Span{}, errors.New("the range begins before 1970")
	case !want.To.IsZero() && want.From.Unix() > want.To.Unix():
		return Span{}, fmt.Errorf("the range ends, at %s, before it begins", audit.Time(want.To.Unix()))
	case asked.Gte > s.High:
		return Span{}, fmt.Errorf("the range begins after %s, the end of what has been collected so far: %w", audit.Time(s.High), errNewer)
	}
	return asked, nil
}

// unsure says why it may be unknown what is collected.
func (s *Stream) unsure() string {
	if len(s.Covered) == 0 {
		return "another function, or an older release, began the state, which does not say since when records have been collected"
	}
	return `it has been collected with other filters ("covered" in the state); to collect types that these left out, set EVENT_TYPES to them and use --detach`
}

// cancel takes a range out of the backlog and of what is covered. It returns the parts that were there.
func (s *Stream) cancel(asked Span) (parts []Span) {
	var backlog []Window
	for _, w := range s.Backlog {
		left := w.Left()
		kept := []Span{left}
		switch {
		case w.After == "":
			kept = left.Without([]Span{asked})
		case w.SetAside && asked.Gte <= left.Gte && left.Lte <= asked.Lte:
			kept = nil
		}
		gone := left.Without(kept)
		if len(gone) == 0 {
			backlog = append(backlog, w)
			continue
		}
		for _, k := range kept {
			backlog = append(backlog, Window{Gte: k.Gte, Lte: k.Lte, SetAside: w.SetAside, Backfill: w.Backfill, Filter: w.Filter})
		}
		parts = append(parts, gone...)
		var covered []Span
		for _, c := range s.Covered {
			if c.Filter == w.Filter {
				covered = append(covered, c.Without(gone)...)
			} else {
				covered = append(covered, c)
			}
		}
		s.Covered = covered
	}
	s.Backlog = backlog
	s.Watermark = s.ImpliedWatermark()
	return parts
}

// refuseAgain refuses a range that cannot be repeated completely, without repeating anything else.
func (s *Stream) refuseAgain(asked Span) error {
	for _, w := range s.Backlog {
		if left := w.Left(); left.overlaps(asked) && !w.Filter.Excludes(asked.Filter) {
			return fmt.Errorf("the backlog has part of the range still to be read, %s: let runs read it first", left)
		}
	}
	if !s.mixed(asked) {
		return nil
	}
	recent := false
	for _, r := range s.Recent { // it is unknown which of these pass the filter
		if asked.Gte <= r.At && r.At <= asked.Lte {
			if r.At < s.RecentSince {
				return errors.New("the backlog has windows with other filters in the range: let runs read them first")
			}
			recent = true
		}
	}
	if recent {
		return fmt.Errorf("the range must end before %s: what is later has been collected with other filters, too, and is still needed to tell it apart", audit.Time(s.RecentSince))
	}
	return nil
}

// mixed reports whether records in a range have been collected with another filter than the range's.
func (s *Stream) mixed(asked Span) bool {
	return s.Filter != asked.Filter ||
		slices.ContainsFunc(s.Covered, func(c Span) bool { return c.Filter != asked.Filter && c.overlaps(asked) }) ||
		slices.ContainsFunc(s.Backlog, func(w Window) bool {
			return w.Filter != asked.Filter && Span{Gte: w.Gte, Lte: w.Lte}.overlaps(asked)
		})
}

// collectedBy lists what is collected or in the backlog, with all records that pass the filter.
func (s *Stream) collectedBy(f audit.Filter) []Span {
	list := s.waiting(Span{Lte: s.High, Filter: f})
	for _, c := range s.Covered {
		if c.Filter.Includes(f) {
			list = append(list, c)
		}
	}
	return list
}

// waiting lists the parts of a range that the backlog has yet to read, with all records that pass
// its filter.
func (s *Stream) waiting(asked Span) (parts []Span) {
	for _, w := range s.Backlog {
		if left := w.Left(); left.overlaps(asked) && w.Filter.Includes(asked.Filter) {
			parts = Cover(parts, Span{max(left.Gte, asked.Gte), min(left.Lte, asked.Lte), asked.Filter})
		}
	}
	return parts
}

// coveredBy lists what is collected or in the backlog, newest first, as far as it may hold records
// that pass the filter. If the stream does not know, that is everything.
func (s *Stream) coveredBy(f audit.Filter) []Span {
	if len(s.Covered) == 0 {
		return []Span{{Lte: s.High}}
	}
	var list []Span
	for _, c := range s.Covered {
		if !c.Filter.Excludes(f) {
			list = Cover(list, Span{Gte: c.Gte, Lte: c.Lte})
		}
	}
	for _, w := range s.Backlog { // as a rule, these are among them
		if !w.Filter.Excludes(f) {
			list = Cover(list, Span{Gte: w.Gte, Lte: w.Lte})
		}
	}
	return list
}

// awaits reports whether the backlog has exactly this range, not begun.
func (s *Stream) awaits(want Span) bool {
	return slices.ContainsFunc(s.Backlog, func(w Window) bool {
		return Span{w.Gte, w.Lte, w.Filter} == want && w.After == ""
	})
}

// enqueue adds a part of what was asked for to the backlog.
func (s *Stream) enqueue(part, asked Span, again bool) {
	s.Backlog = append(slices.Clone(s.Backlog), Window{Gte: part.Gte, Lte: part.Lte, Backfill: asked, Filter: part.Filter})
	slices.SortStableFunc(s.Backlog, NewestToOldest)
	if len(s.Covered) > 0 {
		s.Covered = Cover(s.Covered, part)
	}
	if again { // what is asked for again must not count as collected
		s.Recent = s.Recent.Only(func(r Remembered) bool { return r.At < part.Gte || part.Lte < r.At })
	}
	s.Watermark = s.ImpliedWatermark()
}
