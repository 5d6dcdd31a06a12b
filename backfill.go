package auditlog

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
)

// span is a range of effective_at, Unix seconds, both ends included.
type span struct {
	Gte    int64  `json:"gte"`
	Lte    int64  `json:"lte"`
	Filter filter `json:"filter,omitempty"` // of what is meant
}

func (s span) String() string { return rfc3339(s.Gte) + " to " + rfc3339(s.Lte) }

// cover adds a span to those covered, newest first, and joins what touches and
// has the same filter.
func cover(covered []span, s span) []span {
	rest := []span{}
	for _, c := range covered {
		if c.Filter != s.Filter || c.Lte < s.Gte-1 || c.Gte > s.Lte+1 {
			rest = append(rest, c)
		} else {
			s.Gte, s.Lte = min(s.Gte, c.Gte), max(s.Lte, c.Lte)
		}
	}
	rest = append(rest, s)
	slices.SortFunc(rest, func(a, b span) int { return cmp.Compare(b.Gte, a.Gte) })
	return rest
}

// uncovered returns the parts of s that are not covered, newest first.
func uncovered(covered []span, s span) []span {
	parts := []span{s}
	for _, c := range covered {
		var rest []span
		for _, p := range parts {
			if c.Lte < p.Gte || c.Gte > p.Lte {
				rest = append(rest, p)
				continue
			}
			if p.Lte > c.Lte {
				rest = append(rest, span{c.Lte + 1, p.Lte, p.Filter})
			}
			if p.Gte < c.Gte {
				rest = append(rest, span{p.Gte, c.Gte - 1, p.Filter})
			}
		}
		parts = rest
	}
	return parts
}

// BackfillRange asks for records of the past. Times count to the second, both
// ends included.
type BackfillRange struct {
	From time.Time
	To   time.Time // zero: up to what has been collected
	// Again collects what has been collected before once more: its records are
	// then written again.
	Again bool
	// Here collects it by runs with the same settings, not the function's.
	Here bool
}

// Backfill puts a range into the backlog, for the next runs to collect with the
// filters that the settings have now, and returns it as it was put there. With
// TENANT_EVENTS that is done for tenant-scoped records, too. It changes the state as
// a run does, on the condition that nobody else has, so that it goes together with
// runs under way.
//
// A range that holds collected seconds is refused, unless it is asked for again.
// One that the backlog has already is left at that.
func (c *Collector) Backfill(ctx context.Context, log *slog.Logger, want BackfillRange) (from, to time.Time, err error) {
	for range 5 {
		state, err := c.load(ctx)
		if err != nil {
			return from, to, err
		}
		if state.generation == 0 {
			return from, to, errors.New("there is no state yet: let a first run begin it; LOOKBACK_HOURS says how far back that reaches")
		}
		if state.note != "" { // what is committed below has it in it
			log.Warn(state.note)
		}
		next := state.State
		s, added, err := c.backfillInto(&next.Stream, want)
		if next.Tenant != nil && next.Tenant.Unread && c.cfg.TenantEvents {
			log.Warn("Backfill of tenant-scoped events: none, as no run has been able to read them yet")
		} else if next.Tenant != nil && c.cfg.TenantEvents && (err == nil || errors.Is(err, errCollected)) {
			tenant := *next.Tenant
			next.Tenant = &tenant
			t, tenantAdded, tenantErr := c.backfillInto(next.Tenant, want)
			switch {
			case tenantErr == nil && err == nil:
				s.Gte, s.Lte, added = min(s.Gte, t.Gte), max(s.Lte, t.Lte), added || tenantAdded
			case tenantErr == nil: // of the others all is collected
				s, added, err = t, tenantAdded, nil
			case !errors.Is(tenantErr, errCollected):
				err = fmt.Errorf("tenant events: %w", tenantErr)
			}
		}
		if err != nil {
			return from, to, err
		}
		from, to = time.Unix(s.Gte, 0).UTC(), time.Unix(s.Lte, 0).UTC()
		if !added {
			return from, to, nil
		}
		next.LastBackfill = strings.ToLower(rand.Text())
		_, err = c.commit(ctx, state, next)
		if !errors.Is(err, errOvertaken) {
			return from, to, err
		}
	}
	return from, to, errors.New("runs got ahead of this five times: try again")
}

// backfillInto adds a range to a stream's backlog, unless it has it already.
func (c *Collector) backfillInto(s *Stream, want BackfillRange) (asked span, added bool, err error) {
	asked, err = s.backfillSpan(want, c.cfg.filter)
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
	s.backfill(asked, want.Again)
	return asked, true, nil
}

// backfillSpan is what is asked for, within what runs have covered.
func (s *Stream) backfillSpan(want BackfillRange, f filter) (span, error) {
	asked := span{want.From.Unix(), want.To.Unix(), f}
	if want.To.IsZero() {
		asked.Lte = s.High
		if covered := s.covered(f); len(covered) > 0 {
			asked.Lte = covered[0].Gte - 1
		}
		if asked.Gte > asked.Lte {
			return span{}, fmt.Errorf("%w: all from %s on", errCollected, rfc3339(asked.Lte+1))
		}
	}
	switch {
	case asked.Gte < 0:
		return span{}, errors.New("the range begins before 1970")
	case asked.Gte > asked.Lte:
		return span{}, fmt.Errorf("the range ends, at %s, before it begins", rfc3339(asked.Lte))
	case asked.Lte > s.High:
		return span{}, fmt.Errorf("the range ends after %s, up to where runs have come: the next run collects what is newer", rfc3339(s.High))
	}
	return asked, nil
}

// refuseCovered refuses a range that would repeat records without being asked to.
func (s *Stream) refuseCovered(asked span, again bool) error {
	if again {
		return s.refuseAgain(asked)
	}
	missing := uncovered(s.covered(asked.Filter), asked)
	if len(missing) == 1 && missing[0] == asked {
		return nil
	}
	list := make([]string, len(missing))
	for i, m := range missing {
		list[i] = m.String()
	}
	switch {
	case len(missing) > 0:
		return fmt.Errorf("part of the range is collected, or in the backlog: what is not is %s", strings.Join(list, ", and "))
	case len(s.Covered) == 0:
		return errors.New("the state does not know since when records have been collected (another function, or an older version, began it): ask for the range again to have its records written, whether they have been before or not")
	case s.mixed(asked):
		return fmt.Errorf("%w, with filters of its own (\"covered\" in the state): set EVENT_TYPES to types that these left out, or ask for it again to have its records written, whether they have been before or not", errCollected)
	}
	return fmt.Errorf("%w: ask for it again to have its records written once more", errCollected)
}

// refuseAgain refuses a range that cannot be repeated as a whole, and nothing else.
func (s *Stream) refuseAgain(asked span) error {
	for _, w := range s.Backlog {
		if w.Gte <= asked.Lte && asked.Gte <= w.LeftTo() && !w.Filter.excludes(asked.Filter) {
			return fmt.Errorf("the backlog has part of the range still to be read, %s to %s: let runs read it first", rfc3339(w.Gte), rfc3339(w.LeftTo()))
		}
	}
	if !s.mixed(asked) {
		return nil
	}
	recent := false
	for _, at := range s.RecentIDs { // which of these pass the filter is not known
		if asked.Gte <= at && at <= asked.Lte {
			if at < s.RecentSince {
				return errors.New("the backlog has windows with other filters in the range: let runs read them first")
			}
			recent = true
		}
	}
	if recent {
		return fmt.Errorf("the range must end before %s: what is later has been collected with other filters, too, and is still needed to tell it apart", rfc3339(s.RecentSince))
	}
	return nil
}

// mixed reports whether records in a range have been collected with filters other
// than the range's.
func (s *Stream) mixed(asked span) bool {
	return s.Filter != asked.Filter ||
		slices.ContainsFunc(s.Covered, func(c span) bool {
			return c.Filter != asked.Filter && c.Gte <= asked.Lte && asked.Gte <= c.Lte
		}) ||
		slices.ContainsFunc(s.Backlog, func(w window) bool {
			return w.Filter != asked.Filter && w.Gte <= asked.Lte && asked.Gte <= w.Lte
		})
}

// errCollected is a backfill of what has been collected.
var errCollected = errors.New("the range is collected, or in the backlog")

// covered lists what is collected or in the backlog, newest first, as far as it may
// have records that pass the filter. Where a stream does not know, that is all.
func (s *Stream) covered(f filter) []span {
	if len(s.Covered) == 0 {
		return []span{{Lte: s.High}}
	}
	var list []span
	for _, c := range s.Covered {
		if !c.Filter.excludes(f) {
			list = cover(list, span{Gte: c.Gte, Lte: c.Lte})
		}
	}
	return list
}

// CoveredRanges lists what is collected or in the backlog, with whatever filter,
// newest first; none where that is not known.
func (s *Stream) CoveredRanges() (list [][2]int64) {
	if len(s.Covered) > 0 {
		for _, c := range s.covered("") {
			list = append(list, [2]int64{c.Gte, c.Lte})
		}
	}
	return list
}

// awaits reports whether the backlog has just this range; with again, all of it.
func (s *Stream) awaits(want span, again bool) bool {
	return slices.ContainsFunc(s.Backlog, func(w window) bool {
		return span{w.Gte, w.Lte, w.Filter} == want && (w.After == "" || !again)
	})
}

// backfill adds a range to the backlog.
func (s *Stream) backfill(want span, again bool) {
	s.Backlog = append(slices.Clone(s.Backlog), window{Gte: want.Gte, Lte: want.Lte, Filter: want.Filter})
	slices.SortStableFunc(s.Backlog, newestToOldest)
	if len(s.Covered) > 0 {
		s.Covered = cover(s.Covered, want)
	}
	// What is asked for again must not count as collected.
	ids := map[string]int64{}
	for id, at := range s.RecentIDs {
		if !again || at < want.Gte || at > want.Lte {
			ids[id] = at
		}
	}
	s.RecentIDs = ids
	s.Watermark = s.watermark()
}

// order is what a message asks for.
type order struct {
	check    bool
	backfill *BackfillRange
}

// backfillAsked does the backfill that a message asks for.
func (c *Collector) backfillAsked(ctx context.Context, log *slog.Logger, want BackfillRange) error {
	from, to, err := c.Backfill(ctx, log, want)
	switch {
	case errors.Is(err, errCollected): // as where the message is delivered twice
		log.Warn("Backfill: nothing to do: " + err.Error())
		return nil
	case err != nil:
		log.Error("Backfill refused: " + err.Error())
		return err
	}
	log.Info(fmt.Sprintf("Backfill from %s to %s: the next runs collect it", from.Format(time.RFC3339), to.Format(time.RFC3339)))
	return nil
}

// readOrder reads a message. One that asks for nothing, whatever it holds, asks
// for a run: people press "Force run", or publish any text. How long ago counts
// from when it was published, so that it says the same when delivered again.
func readOrder(message []byte, published time.Time) (order, error) {
	var keys map[string]json.RawMessage
	if json.Unmarshal(message, &keys) != nil {
		return order{}, nil
	}
	check, checks := keys["check"]
	backfill, backfills := keys["backfill"]
	switch {
	case !checks && !backfills:
		return order{}, nil
	case len(keys) > 1:
		return order{}, errors.New(`message with "check" or "backfill" must have no other key`)
	case checks:
		if string(check) != "true" {
			return order{}, errors.New(`message must be {"check": true}, or have no "check"`)
		}
		return order{check: true}, nil
	}
	// No "again": a message may be delivered twice.
	var text struct{ From, To string }
	d := json.NewDecoder(bytes.NewReader(backfill))
	d.DisallowUnknownFields()
	if err := d.Decode(&text); err != nil {
		return order{}, fmt.Errorf(`"backfill": %s: it must be {"from": "...", "to": "..."}`, shorten(err.Error()))
	}
	want, err := ParseBackfill(text.From, text.To, published)
	if err != nil {
		return order{}, fmt.Errorf(`"backfill": %w`, err)
	}
	return order{backfill: &want}, nil
}

// ParseBackfill reads the ends of a range: dates (UTC; as an end, the day
// included), RFC 3339 times, or how long ago (30d, 12h). No end means up to what
// has been collected.
func ParseBackfill(from, to string, now time.Time) (BackfillRange, error) {
	var r BackfillRange
	var err error
	if r.From, err = parseTime(from, now, false); err != nil {
		return r, fmt.Errorf("from: %w", err)
	}
	if to != "" {
		if r.To, err = parseTime(to, now, true); err != nil {
			return r, fmt.Errorf("to: %w", err)
		}
	}
	return r, nil
}

func parseTime(s string, now time.Time, end bool) (time.Time, error) {
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		if end {
			t = t.Add(24*time.Hour - time.Second)
		}
		return t, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	for unit, hours := range map[string]int{"d": 24, "h": 1} {
		text, ok := strings.CutSuffix(s, unit)
		if n, err := strconv.ParseUint(text, 10, 16); ok && err == nil && n > 0 {
			return now.Add(-time.Duration(n) * time.Duration(hours) * time.Hour), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no date (2026-11-24), no time (2026-11-24T01:00:00Z), and no time ago (30d, 12h)", s)
}
