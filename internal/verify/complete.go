package verify

import (
	"math"
	"path"
	"slices"

	"example.com/auditlog/internal/state"
)

// completeFrom returns the time from which on every record that was collected is in an object that is there:
// the feed has deleted none that is newer. Objects are numbered, and an object is newer than its records. One
// that was rewritten by hand has no number: the numbers on both sides of it show that it is there.
func completeFrom(objects []*object, s *state.State) int64 {
	counted := s.Objects
	if counted == nil || counted.Last != s.LastObject {
		return math.MaxInt64
	}
	from, expected, rewritten := int64(math.MaxInt64), counted.Count, false
	for _, o := range slices.Backward(objects) {
		last := path.Base(counted.Last)
		if !o.Collected || o.gone || o.Number > counted.Count || o.Name > last && o.Number == 0 { // by later runs
			continue
		}
		rewritten = o.Number == 0 && o.Name != last
		if !rewritten {
			if o.Number != 0 && o.Number != expected {
				return from
			}
			from = o.Created.Unix()
		}
		if expected--; expected == 0 {
			break
		}
	}
	// Instead of a rewritten first one, an object that was not counted may be there.
	if expected == 0 && (counted.Since == 0 || !rewritten) {
		return counted.Since
	}
	return from
}
