package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"

	"example.com/auditlog/internal/audit"
)

// Remembered is a collected record that a later read can return again.
type Remembered struct {
	audit.Identity
	Line uint64 // of the record; 0: unknown
}

// Version is one of the records that share an id, as stored: its effective_at, and hashes of its
// type and line.
type Version struct {
	At         int64
	Type, Line uint64
}

// MarshalJSON implements json.Marshaler.
func (v Version) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, `[%d,"%016x","%016x"]`, v.At, v.Type, v.Line), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *Version) UnmarshalJSON(data []byte) error {
	var typ, line string
	err := json.Unmarshal(data, &[3]any{&v.At, &typ, &line})
	if err == nil {
		v.Type, err = strconv.ParseUint(typ, 16, 64)
	}
	if err == nil {
		v.Line, err = strconv.ParseUint(line, 16, 64)
	}
	if err != nil {
		return errors.New(`"recent" has a record that is not its time and two hashes`)
	}
	return nil
}

// Remembered yields the records that a later read can return again.
func (s *Stream) Remembered() iter.Seq[Remembered] {
	return func(yield func(Remembered) bool) {
		for id, at := range s.RecentIDs {
			if len(s.Recent[id]) == 0 && !yield(Remembered{Identity: audit.Identity{ID: id, At: at}}) {
				return
			}
		}
		for id, versions := range s.Recent {
			for _, v := range versions {
				if !yield(Remembered{audit.Identity{ID: id, At: v.At, Type: v.Type}, v.Line}) {
					return
				}
			}
		}
	}
}

// Remember replaces the records that a later read can return again.
func (s *Stream) Remember(records iter.Seq[Remembered]) {
	s.RecentIDs, s.Recent = map[string]int64{}, nil
	var untyped []Remembered
	for r := range records {
		s.RecentIDs[r.ID] = max(r.At, s.RecentIDs[r.ID])
		if r.Type == audit.AnyType {
			untyped = append(untyped, r)
			continue
		}
		if s.Recent == nil {
			s.Recent = map[string][]Version{}
		}
		s.Recent[r.ID] = append(s.Recent[r.ID], Version{r.At, r.Type, r.Line})
	}
	for _, r := range untyped { // beside others with its id, it must not be forgotten
		if versions := s.Recent[r.ID]; len(versions) > 0 {
			s.Recent[r.ID] = append(versions, Version{At: r.At})
		}
	}
}

func (s *Stream) forget(drop func(at int64) bool) {
	if len(s.RecentIDs) == 0 {
		return
	}
	old := *s
	s.Remember(func(yield func(Remembered) bool) {
		for r := range old.Remembered() {
			if !drop(r.At) && !yield(r) {
				return
			}
		}
	})
}
