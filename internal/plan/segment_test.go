package plan

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

// reading is a window of which a page with so many records, from top down to at, has come.
func reading(gte, lte, top, at int64, records int) *segment {
	return &segment{
		Window:    state.Window{Gte: gte, Lte: lte, After: "c", AfterAt: at, Top: top, Backfill: state.Span{Gte: gte, Lte: lte}, Filter: "event_types%5B%5D=a"},
		perSecond: float64(records) / float64(max(1, top-at)), id: windowID{true, 3},
	}
}

// TestSplit pins what is split off a window: segments that are alike, none of
// more than 100 pages at the density of its last page, the rest in the oldest.
func TestSplit(t *testing.T) {
	tests := []struct {
		name     string
		w        *segment
		idle     int
		pageSize int
		want     []int64 // where the segments begin, newest to oldest
	}{
		{"for each idle worker one", reading(0, 2000, 1000, 900, 100), 3, 100, []int64{675, 450, 225, 0}},
		{"what is over goes to the oldest", reading(3, 2000, 1000, 900, 100), 3, 100, []int64{676, 452, 228, 3}},
		{"no more than there are pages", reading(500, 2000, 1000, 900, 100), 9, 100, []int64{800, 700, 600, 500}},
		{"two pages make one more", reading(700, 2000, 1000, 900, 100), 9, 100, []int64{800, 700}},
		{"none longer than 100 pages", reading(0, 200_000, 101_000, 100_000, 100), 2, 10, []int64{90_000, 80_000, 0}},
		{"... and 99 are not shortened", reading(0, 200_000, 30_700, 29_700, 100), 2, 10, []int64{19_800, 9900, 0}},
		{"three pages of two seconds make one more", reading(898, 2000, 1000, 900, 100_000), 9, 100, []int64{899, 898}},
		{"three seconds", reading(897, 2000, 1000, 900, 100_000), 9, 100, []int64{899, 898, 897}},
		{"one second read at its top", reading(0, 2000, 901, 900, 100), 1, 100, []int64{800, 0}},
		{"many records a second", reading(0, 2000, 901, 900, 100_000), 1, 100, []int64{899, 0}},
		{"a page of one second", reading(0, 2000, 900, 900, 20), 1, 100, []int64{450, 0}},
		{"one record in this run", reading(0, 2000, 900, 900, 1), 1, 1, []int64{800, 0}},
		{"few records", reading(0, 1_000_000, 1000, 900, 3), 9, 10, []int64{450, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.w.Top == tt.w.AfterAt {
				tt.w.Top++ // what came above
			}
			older := &segment{Window: state.Window{Gte: 5, Lte: 9}, done: true}
			newer := &segment{Window: state.Window{Gte: 3000, Lte: 4000}, done: true}
			before := *tt.w
			s := &stream{segments: []*segment{newer, tt.w, older}, settings: &Settings{MaxWindows: 64}}
			s.split(tt.w, tt.idle, tt.pageSize)
			if n := len(tt.want) + 2; len(s.segments) != n || s.segments[0] != newer || s.segments[1] != tt.w || s.segments[n-1] != older {
				t.Fatalf("%d segments: %v", len(s.segments), bounds(s.segments))
			}
			lte := before.Lte
			for i, w := range s.segments[1 : len(tt.want)+1] {
				want := state.Window{Gte: tt.want[i], Lte: lte, Backfill: before.Backfill, Filter: before.Filter}
				if i == 0 {
					want = before.Window
					want.Gte = tt.want[0]
				}
				if diff := cmp.Diff(want, w.Window); diff != "" || w.id != before.id || w.fresh != before.fresh {
					t.Errorf("segment %d of window %v, fresh %v, differs (-want +got):\n%s", i, w.id, w.fresh, diff)
				}
				lte = w.Gte - 1
			}
		})
	}
}

func bounds(list []*segment) (b [][2]int64) {
	for _, w := range list {
		b = append(b, [2]int64{w.Gte, w.Lte})
	}
	return b
}

// TestShare: a window is split for its share of the workers. That counts what is read
// now, by the seconds that are left of it.
func TestShare(t *testing.T) {
	long := func(seconds int64) *segment { return &segment{Window: state.Window{Gte: 5001, Lte: 5000 + seconds}} }
	tests := []struct {
		name   string
		others []*segment
		idle   int
		want   int // segments that it becomes
	}{
		{"alone", nil, 3, 4},
		{"half of what is left", []*segment{long(1000)}, 2, 2},
		{"half, in two segments", []*segment{long(500), long(500)}, 1, 2},
		{"half, and nine workers", []*segment{long(1000)}, 7, 5},
		{"somewhat less than its share", []*segment{long(1020)}, 1, 2},
		{"as much as all others, nobody idle", []*segment{long(1000), long(1000)}, 0, 1},
		{"half of the other", []*segment{long(2000)}, 1, 1},
		{"... and one more is idle", []*segment{long(2000)}, 2, 2},
		{"one of much more", []*segment{long(100_000)}, 7, 1},
		{"the other is nearly read", []*segment{reading(0, 9000, 20, 10, 10)}, 3, 4},
		{"the other waits for another run", []*segment{{Window: long(9000).Window, failure: errRunTime}}, 3, 4},
		{"the other is quarantined", []*segment{{Window: long(9000).Window, quarantined: true}}, 3, 4},
		{"the other is read", []*segment{{Window: long(9000).Window, done: true}}, 3, 4},
		{"the other is under way", []*segment{{Window: long(2000).Window, underWay: true}}, 1, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := reading(1, 2000, 1001, 1000, 10) // 1000 seconds are left
			s := &stream{segments: append([]*segment{w}, tt.others...), settings: &Settings{MaxWindows: 64}}
			s.split(w, tt.idle, 1)
			if n := len(s.segments) - len(tt.others); n != tt.want {
				t.Errorf("split into %d: %v", n, bounds(s.segments))
			}
		})
	}
	backlog, fresh := long(9000), reading(1, 2000, 1001, 1000, 10)
	fresh.fresh = true
	s := &stream{segments: []*segment{fresh, backlog}, settings: &Settings{MaxWindows: 64}}
	if s.split(fresh, 1, 1); len(s.segments) != 3 {
		t.Errorf("a backlog that waits has a share: %v", bounds(s.segments))
	}
}

// TestNoSplit: a window stays whole where nobody is idle, where it is not known
// that all above the cursor is read, where the API minds, and where a segment
// would not be worth its request.
func TestNoSplit(t *testing.T) {
	tests := []struct {
		name   string
		change func(w *segment, s *stream)
		idle   int
	}{
		{"as many windows as may be", func(_ *segment, s *stream) { s.settings.MaxWindows = 1 }, 3},
		{"nobody is idle", func(*segment, *stream) {}, 0},
		{"more than nobody is busy", func(*segment, *stream) {}, -1},
		{"nothing is read in this run", func(w *segment, _ *stream) { w.perSecond = 0 }, 3},
		{"read to its end", func(w *segment, _ *stream) { w.done = true }, 3},
		{"not newest first", func(w *segment, _ *stream) { w.Unordered = true }, 3},
		{"of one second so far", func(w *segment, _ *stream) { w.Top = w.AfterAt }, 3},
		{"the API has refused a cursor", func(_ *segment, s *stream) { s.keepWhole = true }, 3},
		{"less than two pages are left", func(w *segment, _ *stream) { w.Gte = 701 }, 3},
		{"one second is left", func(w *segment, _ *stream) { w.Gte, w.perSecond = 899, 1_000_000 }, 3},
		{"nothing is left", func(w *segment, _ *stream) { w.Gte, w.perSecond = 900, 1_000_000 }, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := reading(0, 2000, 1000, 900, 100)
			s := &stream{segments: []*segment{w}, settings: &Settings{MaxWindows: 5}}
			tt.change(w, s)
			before := w.Window
			if s.split(w, tt.idle, 100); len(s.segments) != 1 || w.Window != before {
				t.Errorf("split into %v", bounds(s.segments))
			}
		})
	}
	w := reading(0, 2000, 1000, 900, 100)
	s := &stream{segments: []*segment{w}, settings: &Settings{MaxWindows: 5}}
	if s.split(w, 3, 100); len(s.segments) != 4 {
		t.Errorf("else it is split into %v", bounds(s.segments))
	}
}

// TestSplitBounds: whatever the window, no second is lost or doubled between
// segments, none is empty or longer than the newest but the oldest, and no more
// are split off than workers are idle.
func TestSplitBounds(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	cut := 0
	for range 20_000 {
		gte := random.Int64N(50)
		at := gte + random.Int64N(1<<random.IntN(20))
		top := at + 1 + random.Int64N(1<<random.IntN(20))
		w := reading(gte, top+random.Int64N(9), top, at, 1+random.IntN(1<<random.IntN(14)))
		w.fresh = random.IntN(2) == 0
		before := *w
		s := &stream{segments: []*segment{w}, settings: &Settings{MaxWindows: 5}}
		idle, pageSize := random.IntN(9), 1+random.IntN(100)
		s.split(w, idle, pageSize)
		n := len(s.segments)
		if n > 1 {
			cut++
		}
		longest := before.AfterAt - w.Gte
		pages := w.perSecond * float64(longest) / float64(pageSize)
		if s.segments[0] != w || n > idle+1 || w.Lte != before.Lte || s.segments[n-1].Gte != gte || n > 1 && longest > 1 && pages > 100.0001 {
			t.Fatalf("%+v for %d workers, %d records a page: %v", before, idle, pageSize, bounds(s.segments))
		}
		for i, x := range s.segments[1:] {
			if x.Lte != s.segments[i].Gte-1 || x.Gte > x.Lte || i < n-2 && x.Lte-x.Gte+1 != longest || i == n-2 && x.Lte-x.Gte+1 < longest ||
				x.fresh != before.fresh || x.id != before.id || x.Filter != before.Filter || x.After != "" || x.Gte > at || x.Lte >= at {
				t.Fatalf("%+v for %d workers, %d records a page: %v, in it %+v", before, idle, pageSize, bounds(s.segments), *x)
			}
		}
	}
	if cut < 5000 {
		t.Errorf("%d windows are split", cut)
	}
}

// TestTakeOfSegment: a segment knows how far back it has been read, how dense its last page
// was, and which records lie in the second that its cursor is in.
func TestTakeOfSegment(t *testing.T) {
	page := func(more bool, times ...int64) audit.Page {
		p := audit.Page{More: more}
		for _, at := range times {
			id := fmt.Sprintf("%d-%d", at, len(p.Records))
			p.Records, p.Cursor = append(p.Records, audit.Record{ID: string(id), At: at}), id
		}
		return p
	}
	type known struct {
		Oldest    int64
		PerSecond float64
		Done      bool
		AtCursor  []string
	}
	tests := []struct {
		name  string
		pages []audit.Page
		want  known
	}{
		{"one page", []audit.Page{page(true, 90, 80, 80)}, known{80, 0.3, false, []string{"80-1", "80-2"}}},
		{"one record", []audit.Page{page(true, 90), page(true, 80)}, known{80, 0.1, false, []string{"80-0"}}},
		{"none at first", []audit.Page{page(true), page(true, 80), page(true, 70)}, known{70, 0.1, false, []string{"70-0"}}},
		{"the next in the same second", []audit.Page{page(true, 90, 80), page(true, 80)}, known{80, 1, false, []string{"80-0", "80-1"}}},
		{"the next in another second", []audit.Page{page(true, 90, 80), page(true, 80, 70)}, known{70, 0.2, false, []string{"70-1"}}},
		{"oldest first", []audit.Page{page(true, 80, 90), page(true, 91)}, known{80, 1, false, []string{"91-0"}}},
		{"the end", []audit.Page{page(true, 90, 80), page(false, 80)}, known{80, 1, true, nil}},
		{"an empty end", []audit.Page{page(false)}, known{0, 0, true, nil}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := &segment{Window: state.Window{Gte: 0, Lte: 100}}
			for _, p := range tt.pages {
				w.take(p)
			}
			got := known{w.oldest, w.perSecond, w.done, nil}
			for id := range w.atCursor {
				got.AtCursor = append(got.AtCursor, id.ID)
			}
			slices.Sort(got.AtCursor)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEarlier(t *testing.T) {
	for _, tt := range []struct{ a, b, want int64 }{{0, 0, 0}, {0, 5, 5}, {5, 0, 5}, {5, 6, 5}, {6, 5, 5}} {
		if got := earlier(tt.a, tt.b); got != tt.want {
			t.Errorf("of %d and %d: %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

// TestLoopDetector: each circle is found, whatever came before it, and nothing
// else; the end of pages, which has no cursor, is no circle.
func TestLoopDetector(t *testing.T) {
	for period := 1; period < 40; period++ {
		var d loopDetector
		found := false
		for i := range 10 * (period + 20) {
			n := i
			if i > 13 { // a tail of 13, then the circle
				n = 13 + (i-13)%period
			}
			if d.closes(fmt.Sprint(n)) {
				found = i > 13
				break
			}
		}
		if !found {
			t.Errorf("period %d: circle not found, or found too early", period)
		}
	}
	var d loopDetector
	for i := range 100_000 {
		if d.closes(fmt.Sprint(i)) {
			t.Fatalf("straight line taken for a circle at %d", i)
		}
	}
	var none loopDetector
	for range 100 {
		if none.closes("") {
			t.Fatal("pages without a cursor are taken for a circle")
		}
	}
}

// TestLoopDetectorIsQuick: a circle is found within three times its way, since
// until then its records are read again and again.
func TestLoopDetectorIsQuick(t *testing.T) {
	for tail := range 20 {
		for period := 1; period < 60; period++ {
			var d loopDetector
			for i := 0; ; i++ {
				n := i
				if i >= tail {
					n = tail + (i-tail)%period
				}
				if d.closes(fmt.Sprint(n)) {
					break
				}
				if i > 3*(tail+period)+1 {
					t.Fatalf("a tail of %d and a circle of %d are read for %d pages", tail, period, i)
				}
			}
		}
	}
}
