package state

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/auditlog/internal/audit"
)

// pageAt is a page of records at these times, with more to follow.
func pageAt(times ...int64) audit.Page {
	p := audit.Page{More: true}
	for i, at := range times {
		id := fmt.Sprintf("%d-%d", at, i)
		p.Records, p.Cursor = append(p.Records, audit.Record{ID: string(id), At: at}), id
	}
	return p
}

// TestOneDescentIsNeeded: a first page of one second, or of one record, proves
// no order; a refused cursor then must not give up the records above.
func TestOneDescentIsNeeded(t *testing.T) {
	for _, first := range [][]int64{{7}, {7, 7, 7}} {
		w := Window{Gte: 0, Lte: 100}
		w.Advance(pageAt(first...))
		if w.Descends() || !w.Unread(50) {
			t.Errorf("after %v %+v counts as newest first", first, w)
		}
		w.Advance(pageAt(6))
		if !w.Descends() || w.Unread(50) {
			t.Errorf("%+v does not count as newest first", w)
		}
	}
}

func TestDescends(t *testing.T) {
	good := Window{Gte: 10, Lte: 90, After: "x", AfterAt: 50, Top: 51}
	tests := []struct {
		name   string
		change func(w *Window)
		want   bool
	}{
		{"newest first", func(*Window) {}, true},
		{"to its first second", func(w *Window) { w.AfterAt = 10 }, true},
		{"to its last second", func(w *Window) { w.AfterAt, w.Top = 90, 91 }, true},
		{"not begun", func(w *Window) { w.After = "" }, false},
		{"without order", func(w *Window) { w.Unordered = true }, false},
		{"at a time before it", func(w *Window) { w.AfterAt = 9 }, false},
		{"at a time after it", func(w *Window) { w.AfterAt, w.Top = 91, 92 }, false},
		{"of one second", func(w *Window) { w.Top = 50 }, false},
		{"oldest first", func(w *Window) { w.Top = 49 }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := good
			tt.change(&w)
			left := w.Lte
			if tt.want {
				left = w.AfterAt
			}
			if got := w.Descends(); got != tt.want || w.LeftTo() != left || w.Left() != (Span{Gte: 10, Lte: left}) {
				t.Errorf("%+v: newest first %v, left to %d, %v", w, got, w.LeftTo(), w.Left())
			}
			for at, want := range map[int64]bool{9: false, 10: true, left: true, left + 1: false} {
				if w.Unread(at) != want {
					t.Errorf("%+v: %d is unread: %v", w, at, !want)
				}
			}
			for at, want := range map[int64]bool{9: false, 10: true, 90: true, 91: false} {
				if w.Contains(at) != want {
					t.Errorf("%+v contains %d: %v", w, at, !want)
				}
			}
		})
	}
}

// TestAdvance: the cursor moves to the last record of each page, and the window
// knows whether pages came newest first, within and across them.
func TestAdvance(t *testing.T) {
	const gte, lte = 10, 100
	otherCursor := pageAt(90, 80)
	otherCursor.Cursor = "elsewhere"
	last := otherCursor
	last.More = false
	none := audit.Page{Cursor: "end"}
	tests := []struct {
		name  string
		pages []audit.Page
		want  Window
	}{
		{"newest first", []audit.Page{pageAt(90, 80), pageAt(80, 70)}, Window{After: "70-1", AfterAt: 70, Top: 90}},
		{"from its last second", []audit.Page{pageAt(100, 100)}, Window{After: "100-1", AfterAt: 100, Top: 100}},
		{"older within a page", []audit.Page{pageAt(90, 80, 85)}, Window{After: "85-2", AfterAt: 85, Top: 90, Unordered: true}},
		{"older across pages", []audit.Page{pageAt(90, 80), pageAt(81, 70)}, Window{After: "70-1", AfterAt: 70, Top: 90, Unordered: true}},
		{"after what it holds", []audit.Page{pageAt(101, 90)}, Window{After: "90-1", AfterAt: 90, Top: 101, Unordered: true}},
		{"once without order, always so", []audit.Page{pageAt(80, 90), pageAt(70, 60)}, Window{After: "60-1", AfterAt: 60, Top: 80, Unordered: true}},
		{"a cursor that is not the last record's", []audit.Page{otherCursor}, Window{After: "elsewhere", AfterAt: 80, Top: 90, Unordered: true}},
		{"... which nobody goes on from", []audit.Page{last}, Window{After: "elsewhere", AfterAt: 80, Top: 90}},
		{"no records at first", []audit.Page{none, pageAt(90, 80)}, Window{After: "80-1", AfterAt: 80, Top: 90}},
		{"no records", []audit.Page{none}, Window{After: "end"}},
		{"no more records", []audit.Page{pageAt(90, 80), none}, Window{After: "end", AfterAt: 80, Top: 90}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := Window{Gte: gte, Lte: lte}
			for _, p := range tt.pages {
				w.Advance(p)
			}
			tt.want.Gte, tt.want.Lte = gte, lte
			if tt.want.Top != 0 {
				tt.want.TopID = fmt.Sprintf("%d-0", tt.want.Top) // as pageAt names it
			}
			if diff := cmp.Diff(tt.want, w); diff != "" {
				t.Errorf("differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRestart(t *testing.T) {
	tests := []struct {
		name    string
		w       Window
		want    Window
		repeats bool
	}{
		{"newest first: from the time reached", Window{Gte: 10, Lte: 90, After: "x", AfterAt: 50, Top: 51, TopID: "t"}, Window{Gte: 10, Lte: 50}, false},
		{"unordered: from the start", Window{Gte: 10, Lte: 90, After: "x", AfterAt: 50, Top: 51, Unordered: true}, Window{Gte: 10, Lte: 90}, true},
		{"one second read: from the start, its ids are known", Window{Gte: 10, Lte: 90, After: "x", AfterAt: 50, Top: 50}, Window{Gte: 10, Lte: 90}, false},
		{"one second read, without order: from the start", Window{Gte: 10, Lte: 90, After: "x", AfterAt: 50, Top: 50, Unordered: true}, Window{Gte: 10, Lte: 90}, true},
		{"oldest first: from the start", Window{Gte: 10, Lte: 90, After: "x", AfterAt: 50, Top: 49}, Window{Gte: 10, Lte: 90}, true},
		{"no record read: from the start", Window{Gte: 10, Lte: 90, After: "x"}, Window{Gte: 10, Lte: 90}, false},
		{"its filter stays", Window{Gte: 10, Lte: 90, After: "x", AfterAt: 50, Top: 51, Filter: filterA}, Window{Gte: 10, Lte: 50, Filter: filterA}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if repeats := tt.w.Restart(); tt.w != tt.want || repeats != tt.repeats {
				t.Errorf("got %+v, repeats %v; want %+v, %v", tt.w, repeats, tt.want, tt.repeats)
			}
		})
	}
}

func TestNewestToOldest(t *testing.T) {
	want := []Window{{Gte: 5, Lte: 90}, {Gte: 20, Lte: 60}, {Gte: 10, Lte: 60}, {Gte: 30, Lte: 40}}
	got := []Window{want[2], want[3], want[1], want[0]}
	slices.SortFunc(got, NewestToOldest)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order differs (-want +got):\n%s", diff)
	}
}

// TestIgnores: a cursor is ignored where the window's first record comes again.
func TestIgnores(t *testing.T) {
	first := Window{Gte: 0, Lte: 100}
	first.Advance(pageAt(90, 80))
	old := first
	old.TopID = "" // of a release that did not note it
	for _, tt := range []struct {
		name string
		w    Window
		page audit.Page
		want bool
	}{
		{"it begins again", first, pageAt(90, 80), true},
		{"it begins again, below what is new", first, pageAt(95, 90), false}, // pageAt names the second one otherwise
		{"it goes on", first, pageAt(80, 70), false},
		{"another record of that second", first, pageAt(80, 90), false},
		{"empty", first, audit.Page{}, false},
		{"not begun", Window{Gte: 0, Lte: 100}, pageAt(90, 80), false},
		{"begun anew", Window{Gte: 0, Lte: 100, Top: 90, TopID: "90-0"}, pageAt(90, 80), false},
		{"another record of that id", Window{Gte: 0, Lte: 100, After: "c", Top: 91, TopID: "90-0"}, pageAt(90, 80), false},
		{"not noted", old, pageAt(90, 80), false},
	} {
		if got := tt.w.Ignores(tt.page); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	below := audit.Page{Records: append(pageAt(95).Records, pageAt(90).Records...)}
	if !first.Ignores(below) {
		t.Error("a cursor that is ignored is not seen below records that are new")
	}
}
