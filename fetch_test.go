package auditlog

import (
	"bytes"
	"math"
	"runtime/debug"
	"testing"
	"time"
)

// TestPaceWithinMemory: what as many pages take as are read side by side stays within half of the
// memory limit, if each is as large as the largest so far; one is always read.
func TestPaceWithinMemory(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
	for _, tt := range []struct {
		limit int64
		pages []int // MiB
		want  int
	}{
		{math.MaxInt64, nil, 8},
		{math.MaxInt64, []int{0, 16}, 8},
		{math.MaxInt64, []int{17}, 7},
		{math.MaxInt64, []int{32}, 4},
		{192 << 20, []int{32}, 3},
		{192 << 20, []int{32, 1, 1}, 3},
		{192 << 20, []int{1, 32, 48}, 2},
		{192 << 20, []int{500}, 1},
		{1 << 20, []int{1}, 1},
	} {
		debug.SetMemoryLimit(tt.limit)
		p := newPace(8)
		for _, size := range tt.pages {
			p.holds(size << 20)
		}
		if p.width != tt.want {
			t.Errorf("limit %d, pages of %d MiB: %d at once, want %d", tt.limit, tt.pages, p.width, tt.want)
		}
		p.rateLimited()
		for range 100 {
			p.answered(time.Second)
		}
		if p.width != tt.want {
			t.Errorf("limit %d, pages of %d MiB: %d at once in the end, want %d", tt.limit, tt.pages, p.width, tt.want)
		}
	}
}

// TestBuffersWithinMemory: there are no more buffers than requests may be under way, and nothing holds on
// to the others.
func TestBuffersWithinMemory(t *testing.T) {
	p := pace{width: 3}
	for underWay, want := range []int{3, 2, 1, 0, 0} {
		free := make([]*bytes.Buffer, 4)
		for i := range free {
			free[i] = new(bytes.Buffer)
		}
		kept := p.keep(free, underWay)
		held := 0
		for _, b := range free {
			if b != nil {
				held++
			}
		}
		if len(kept) != want || held != want {
			t.Errorf("%d under way: %d buffers kept, %d held, want %d", underWay, len(kept), held, want)
		}
	}
}
