package auditlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"
)

// Stream is what has been collected of one kind of records, and what is left to
// do. Times are Unix seconds.
type Stream struct {
	// Watermark says that all records before it are collected: High when there
	// is no backlog, else the oldest Gte of it. People edit it by hand to have a
	// range read again.
	Watermark int64  `json:"last_effective_at"`
	LastRun   string `json:"last_run"` // RFC 3339, UTC

	// High bounds what windows have covered: the next one begins an overlap
	// before it.
	High    int64    `json:"high"`
	Backlog []window `json:"backlog"` // newest to oldest

	// Filter is that of the last new window.
	Filter filter `json:"filter,omitempty"`

	// Covered is what is collected or in the backlog, newest to oldest, up to
	// High. None: it is not known, as where another function began the state.
	Covered []span `json:"covered,omitempty"`

	// RecentIDs are the collected records that a later read can bring again,
	// each with its effective_at. From RecentSince on they are complete, and no
	// new window reaches further back: OVERLAP_SECONDS may be raised without
	// repeating what lies before.
	RecentIDs   map[string]int64 `json:"recent_ids"`
	RecentSince int64            `json:"recent_since,omitempty"`

	// Unread is set while no run has read any of it: what the look-back reaches is
	// noted, and nothing else.
	Unread bool `json:"unread,omitempty"`

	// Apart is set, of tenant-scoped records, once they were seen to be others than
	// come without tenant_only.
	Apart bool `json:"apart,omitempty"`

	// continues is set where High and RecentIDs are the collector's own, so that
	// a record below High that is not among them has appeared late.
	continues bool
	// setBack is set where the watermark was set back by hand, for as long as no run
	// has committed that: the new window reads again what windows with its filter have.
	setBack bool
}

// watermark is what last_effective_at must be for the other keys.
func (s *Stream) watermark() int64 {
	watermark := s.High
	for _, w := range s.Backlog {
		watermark = min(watermark, w.Gte)
	}
	return watermark
}

// collectedTo is a time before which all is collected, the latest that is known.
func (s *Stream) collectedTo() int64 {
	if run, err := time.Parse(time.RFC3339, s.LastRun); err == nil && s.continues && len(s.Backlog) == 0 {
		return max(run.Unix(), s.Watermark)
	}
	return s.Watermark
}

// decodeStream reads a stream. It refuses what no collector can have written:
// guessing would lose or repeat records. note says where it was edited by hand.
func decodeStream(data []byte, now time.Time) (s Stream, note string, err error) {
	var stored struct {
		Stream
		// These hide Stream's keys: their absence, or another spelling, tells.
		Watermark json.RawMessage `json:"last_effective_at"`
		LastRun   json.RawMessage `json:"last_run"`
		High      *int64          `json:"high"`
	}
	if err := json.Unmarshal(data, &stored); err != nil {
		return s, "", err
	}
	limit := now.Add(24 * time.Hour).Unix()
	plausible := func(name string, t int64) error {
		if t < 0 || t > limit {
			return fmt.Errorf("%q is %d, which is negative or more than a day ahead", name, t)
		}
		return nil
	}

	if stored.Watermark == nil {
		return s, "", errors.New(`it is no JSON object with "last_effective_at"`)
	}
	watermark, err := wholeNumber(stored.Watermark)
	if err != nil {
		return s, "", fmt.Errorf(`"last_effective_at": %w`, err)
	}
	if err := plausible("last_effective_at", watermark); err != nil {
		return s, "", err
	}
	s = stored.Stream
	_ = json.Unmarshal(stored.LastRun, &s.LastRun) // informs only: whatever it is will do
	if stored.High != nil {
		s.High = *stored.High
	}
	if err := errors.Join(plausible("high", s.High), plausible("recent_since", s.RecentSince)); err != nil {
		return s, "", err
	}
	if stored.High != nil && s.RecentSince > s.High { // the next window would begin beyond what is covered
		return s, "", fmt.Errorf(`"recent_since" is %d, after "high", %d: remove "recent_since"`, s.RecentSince, s.High)
	}
	for _, w := range s.Backlog {
		if err := errors.Join(plausible("gte", w.Gte), plausible("lte", w.Lte), plausible("after_at", w.AfterAt), w.Filter.check()); err != nil {
			return s, "", err
		}
		if w.Gte > w.Lte {
			return s, "", fmt.Errorf(`"backlog" has a window from %d back to %d`, w.Gte, w.Lte)
		}
	}
	for _, c := range s.Covered {
		if c.Gte < 0 || c.Gte > c.Lte {
			return s, "", fmt.Errorf(`"covered" has a range from %d to %d: remove "covered"`, c.Gte, c.Lte)
		}
	}

	s.continues = true
	if stored.High == nil { // the Python function's
		s = Stream{LastRun: s.LastRun, High: watermark}
	}
	if implied := s.watermark(); watermark != implied {
		note = fmt.Sprintf("last_effective_at was set by hand from %d to %d: reading goes on from there", implied, watermark)
		s.edit(watermark)
		s.continues = false
	}
	s.Watermark = watermark
	return s, note, nil
}

// edit makes the other keys follow a watermark that was set by hand. Moved
// back, everything from it on is read again, and written again. Moved forward,
// what lies before it is given up.
func (s *Stream) edit(watermark int64) {
	if watermark < s.watermark() {
		s.High, s.setBack = watermark, true
		maps.DeleteFunc(s.RecentIDs, func(_ string, at int64) bool { return at >= watermark })
		if s.RecentSince == 0 || s.RecentSince > watermark { // the ids below are not complete
			s.RecentSince = watermark
		}
		return
	}
	var kept []window
	for _, w := range s.Backlog {
		if watermark > w.Lte || w.descends() && watermark > w.AfterAt {
			continue // nothing of it is left to read
		}
		w.Gte = max(w.Gte, watermark)
		kept = append(kept, w)
	}
	s.Backlog, s.High = kept, max(s.High, watermark)
}
