package state

import (
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
}

// ErrCollected means that the range is collected, or in the backlog.
var ErrCollected = errors.New("the range is collected, or in the backlog")

// Refused is a backfill that the state does not allow: asking again at once is of no use.
type Refused struct{ Reason error }

func (r *Refused) Error() string { return r.Reason.Error() }

func (r *Refused) Unwrap() error { return r.Reason }

// AddBackfill adds a range to the backlog, for the next runs to collect with this filter, and
// returns the range as added. With tenant it does so for tenant-scoped records, too, if runs have
// read any. added is false if the backlog has the range already.
//
// A range that overlaps what is already collected is refused, unless it is asked for again. Every
// error is a *Refused.
func (s *State) AddBackfill(want Backfill, f audit.Filter, tenant bool) (asked Span, added bool, err error) {
	if want.Cancel {
		asked, err = s.cancel(Span{Gte: want.From.Unix(), Lte: want.To.Unix()})
		added = true
	} else {
		asked, added, err = s.addBackfill(want, f, tenant)
	}
	if err != nil {
		err = &Refused{err}
	}
	return asked, added, err
}

func (s *State) cancel(asked Span) (Span, error) {
	found := s.Stream.cancel(asked)
	if s.Tenant != nil {
		changed := *s.Tenant
		s.Tenant = &changed
		found = s.Tenant.cancel(asked) || found
	}
	if !found {
		return asked, fmt.Errorf("the backlog has nothing from %s that could be cancelled: a window that runs have begun to read stays until it is read", asked)
	}
	return asked, nil
}

// cancel takes a range out of the backlog and of what is covered, and reports whether there was any.
func (s *Stream) cancel(asked Span) (found bool) {
	var backlog []Window
	for _, w := range s.Backlog {
		left := w.Left()
		var kept []Span
		switch {
		case w.After == "":
			kept = left.Without([]Span{asked})
		case !w.SetAside || left.Gte < asked.Gte || left.Lte > asked.Lte:
			kept = []Span{left}
		}
		if len(kept) == 1 && kept[0] == left {
			backlog = append(backlog, w)
			continue
		}
		found = true
		for _, k := range kept {
			backlog = append(backlog, Window{Gte: k.Gte, Lte: k.Lte, SetAside: w.SetAside, Backfill: w.Backfill, Filter: w.Filter})
		}
		left.Filter = w.Filter
		var covered []Span
		for _, c := range s.Covered {
			if c.Filter == w.Filter {
				covered = append(covered, c.Without(left.Without(kept))...)
			} else {
				covered = append(covered, c)
			}
		}
		s.Covered = covered
	}
	s.Backlog = backlog
	s.Watermark = s.ImpliedWatermark()
	return found
}

func (s *State) addBackfill(want Backfill, f audit.Filter, tenant bool) (asked Span, added bool, err error) {
	asked, added, err = s.Stream.addBackfill(want, f)
	if !tenant || s.Tenant == nil || s.Tenant.Untouched || err != nil && !errors.Is(err, ErrCollected) {
		return asked, added, err
	}
	changed := *s.Tenant
	s.Tenant = &changed
	tenantAsked, tenantAdded, tenantErr := s.Tenant.addBackfill(want, f)
	switch {
	case tenantErr == nil && err == nil:
		return Span{min(asked.Gte, tenantAsked.Gte), max(asked.Lte, tenantAsked.Lte), f}, added || tenantAdded, nil
	case tenantErr == nil: // all others are collected
		return tenantAsked, tenantAdded, nil
	case !errors.Is(tenantErr, ErrCollected):
		return asked, added, fmt.Errorf("tenant events: %w", tenantErr)
	}
	return asked, added, err
}

func (s *Stream) addBackfill(want Backfill, f audit.Filter) (asked Span, added bool, err error) {
	asked, err = s.backfillSpan(want, f)
	switch {
	case err != nil:
		return asked, false, err
	case want.Here && s.Filter != asked.Filter:
		return asked, false, fmt.Errorf("the runs have other filters (%s) than these settings (%s), and what is new would be read with these: leave the range to the scheduled runs (--detach)", s.Filter, asked.Filter)
	case s.awaits(asked, want.Again):
		return asked, false, nil
	}
	if err := s.refuseCovered(asked, want.Again); err != nil {
		return asked, false, err
	}
	s.enqueue(asked, want.Again)
	return asked, true, nil
}

// backfillSpan returns the requested range, limited to what runs have covered.
func (s *Stream) backfillSpan(want Backfill, f audit.Filter) (Span, error) {
	asked := Span{want.From.Unix(), want.To.Unix(), f}
	if want.To.IsZero() {
		asked.Lte = s.High
		if covered := s.coveredBy(f); len(covered) > 0 {
			asked.Lte = covered[0].Gte - 1
		}
		if asked.Gte > asked.Lte {
			return Span{}, fmt.Errorf("%w: all from %s on", ErrCollected, audit.Time(asked.Lte+1))
		}
	}
	switch {
	case asked.Gte < 0:
		return Span{}, errors.New("the range begins before 1970")
	case asked.Gte > asked.Lte:
		return Span{}, fmt.Errorf("the range ends, at %s, before it begins", audit.Time(asked.Lte))
	case asked.Lte > s.High:
		return Span{}, fmt.Errorf("%s is the end of what has been collected so far; the range must end before it: the next run collects what is newer", audit.Time(s.High))
	}
	return asked, nil
}

// refuseCovered refuses a range that would repeat records, unless again is set.
func (s *Stream) refuseCovered(asked Span, again bool) error {
	if again {
		return s.refuseAgain(asked)
	}
	missing := asked.Without(s.coveredBy(asked.Filter))
	if len(missing) == 1 && missing[0] == asked {
		return nil
	}
	list := make([]string, len(missing))
	for i, m := range missing {
		list[i] = m.String()
	}
	switch {
	case len(missing) > 0:
		return fmt.Errorf("part of the range is collected, or in the backlog; not collected yet: %s", strings.Join(list, ", and "))
	case len(s.Covered) == 0:
		return errors.New("the state does not know since when records have been collected (another function, or an older version, began it): ask for the range again to have its records written, whether they have been before or not")
	case s.mixed(asked):
		return fmt.Errorf("%w, with filters of its own (\"covered\" in the state): set EVENT_TYPES to types that these left out, or ask for it again to have its records written, whether they have been before or not", ErrCollected)
	}
	return fmt.Errorf("%w: ask for it again to have its records written once more", ErrCollected)
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
	for r := range s.Remembered() { // it is unknown which of these pass the filter
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
	return list
}

// awaits reports whether the backlog has exactly this range; with again, not begun.
func (s *Stream) awaits(want Span, again bool) bool {
	return slices.ContainsFunc(s.Backlog, func(w Window) bool {
		return Span{w.Gte, w.Lte, w.Filter} == want && (w.After == "" || !again)
	})
}

func (s *Stream) enqueue(want Span, again bool) {
	s.Backlog = append(slices.Clone(s.Backlog), Window{Gte: want.Gte, Lte: want.Lte, Backfill: Span{Gte: want.Gte, Lte: want.Lte}, Filter: want.Filter})
	slices.SortStableFunc(s.Backlog, NewestToOldest)
	if len(s.Covered) > 0 {
		s.Covered = Cover(s.Covered, want)
	}
	if again { // what is asked for again must not count as collected
		s.forget(func(at int64) bool { return want.Gte <= at && at <= want.Lte })
	}
	s.Watermark = s.ImpliedWatermark()
}
