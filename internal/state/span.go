package state

import (
	"cmp"
	"slices"

	"example.com/auditlog/internal/audit"
)

// Span is a range of effective_at, Unix seconds, both ends included.
type Span struct {
	Gte    int64        `json:"gte"`
	Lte    int64        `json:"lte"`
	Filter audit.Filter `json:"filter,omitempty"` // of what is meant
}

func (s Span) String() string { return audit.Time(s.Gte) + " to " + audit.Time(s.Lte) }

// Seconds is the length of the span.
func (s Span) Seconds() int64 { return s.Lte - s.Gte + 1 }

func (s Span) overlaps(o Span) bool { return s.Gte <= o.Lte && o.Gte <= s.Lte }

// Cover adds a span to those covered, newest first. It joins spans that touch and have the same filter.
func Cover(covered []Span, s Span) []Span {
	rest := []Span{}
	for _, c := range covered {
		if c.Filter != s.Filter || c.Lte < s.Gte-1 || c.Gte > s.Lte+1 {
			rest = append(rest, c)
		} else {
			s.Gte, s.Lte = min(s.Gte, c.Gte), max(s.Lte, c.Lte)
		}
	}
	rest = append(rest, s)
	slices.SortFunc(rest, func(a, b Span) int { return cmp.Compare(b.Gte, a.Gte) })
	return rest
}

// Without returns the parts of s outside all others, newest first, whatever the others' filters.
func (s Span) Without(others []Span) []Span {
	parts := []Span{s}
	for _, o := range others {
		var rest []Span
		for _, p := range parts {
			if !p.overlaps(o) {
				rest = append(rest, p)
				continue
			}
			if p.Lte > o.Lte {
				rest = append(rest, Span{o.Lte + 1, p.Lte, p.Filter})
			}
			if p.Gte < o.Gte {
				rest = append(rest, Span{p.Gte, o.Gte - 1, p.Filter})
			}
		}
		parts = rest
	}
	return parts
}

// without is Without for each of the spans.
func without(spans, others []Span) []Span {
	var parts []Span
	for _, s := range spans {
		parts = append(parts, s.Without(others)...)
	}
	return parts
}
