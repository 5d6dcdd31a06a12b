package state

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/auditlog/internal/audit"
)

func TestCover(t *testing.T) {
	var c []Span
	for _, s := range spans(10, 20, 40, 50, 22, 30, 21, 21, 5, 5) {
		c = Cover(c, s)
	}
	if diff := cmp.Diff(spans(40, 50, 10, 30, 5, 5), c); diff != "" {
		t.Errorf("covered differs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(spans(31, 39, 6, 9, 0, 4), (Span{Gte: 0, Lte: 45}).Without(c)); diff != "" {
		t.Errorf("the rest differs (-want +got):\n%s", diff)
	}
	filtered := Span{Gte: 0, Lte: 15, Filter: filterA}
	want := []Span{{Gte: 40, Lte: 50}, {Gte: 10, Lte: 30}, {Gte: 5, Lte: 5}, filtered}
	if diff := cmp.Diff(want, Cover(c, filtered)); diff != "" {
		t.Errorf("covered with another filter differs (-want +got):\n%s", diff)
	}
	if s := (Span{Gte: 5, Lte: 15}); s.String() != "1970-01-01T00:00:05Z to 1970-01-01T00:00:15Z" || s.Seconds() != 11 {
		t.Errorf("%s, %d seconds", s, s.Seconds())
	}
}

// TestSpansBySecond: spans say the same of each second as a list of seconds does,
// newest first, and join what touches.
func TestSpansBySecond(t *testing.T) {
	const seconds = 24
	random := rand.New(rand.NewPCG(1, 1))
	some := func(filters ...audit.Filter) Span {
		gte := random.Int64N(seconds)
		return Span{Gte: gte, Lte: gte + random.Int64N(seconds-gte), Filter: filters[random.IntN(len(filters))]}
	}
	for range 2000 {
		var covered []Span
		has := map[audit.Filter]*[seconds]bool{"": {}, filterA: {}}
		for range 1 + random.IntN(6) {
			s := some("", filterA)
			for at := s.Gte; at <= s.Lte; at++ {
				has[s.Filter][at] = true
			}
			covered = Cover(covered, s)
		}
		check := func(what string, list []Span, has map[audit.Filter]*[seconds]bool) {
			t.Helper()
			count := map[audit.Filter]*[seconds]int{"": {}, filterA: {}}
			last := map[audit.Filter]int64{"": seconds + 1, filterA: seconds + 1}
			for i, s := range list {
				if i > 0 && s.Gte > list[i-1].Gte || s.Lte >= last[s.Filter]-1 {
					t.Fatalf("%s is %v: not newest first, or in pieces that touch", what, list)
				}
				last[s.Filter] = s.Gte
				for at := s.Gte; at <= s.Lte; at++ {
					count[s.Filter][at]++
				}
			}
			for f, in := range has {
				for at, want := range in {
					if n := count[f][at]; n > 1 || (n == 1) != want {
						t.Fatalf("%s is %v: second %d, filter %q, is in %d, want it in: %v", what, list, at, f, n, want)
					}
				}
			}
		}
		check("covered", covered, has)

		s := some("", filterA)
		left := map[audit.Filter]*[seconds]bool{"": {}, filterA: {}}
		for at := s.Gte; at <= s.Lte; at++ {
			left[s.Filter][at] = !has[""][at] && !has[filterA][at]
		}
		check("the rest", s.Without(covered), left)
		o := some("")
		overlap := false
		for at := s.Gte; at <= s.Lte; at++ {
			overlap = overlap || o.Gte <= at && at <= o.Lte
		}
		if s.overlaps(o) != overlap {
			t.Fatalf("%v overlaps %v: %v", s, o, !overlap)
		}
	}
}
