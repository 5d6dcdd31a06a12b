package verify

import (
	"slices"
	"testing"

	"example.com/auditlog/internal/state"
	"example.com/auditlog/internal/store"
)

// TestProgress: the slower side is shown, in steps that are not too small, and the end.
func TestProgress(t *testing.T) {
	var shown []float64
	p := progress{}
	p.begin([]*piece{{query: query{Span: state.Span{Gte: 1, Lte: 9999}}}}, []*object{{Object: store.Object{Size: 9999}}},
		func(done float64) { shown = append(shown, done) })
	for range 9999 {
		p.add(1, 0)
	}
	for _, bytes := range []int64{4999, 1, 4990, 8, 1} {
		p.add(0, bytes)
	}
	if want := []float64{0.5, 0.9991, 1}; !slices.Equal(shown, want) {
		t.Errorf("shown %v, want %v", shown, want)
	}
}
