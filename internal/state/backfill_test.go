package state

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"example.com/auditlog/internal/audit"
)

// since asks for a range; to is -1 where it has no end.
func since(from, to int64) Backfill {
	want := Backfill{From: time.Unix(from, 0)}
	if to >= 0 {
		want.To = time.Unix(to, 0)
	}
	return want
}

func again(b Backfill) Backfill { b.Again = true; return b }
func here(b Backfill) Backfill  { b.Here = true; return b }

// quietStream has collected from 600 to 1000 and remembers from 900 on.
func quietStream() Stream {
	return Stream{
		Watermark: 1000, High: 1000, Own: true, Covered: spans(600, 1000),
		RecentIDs: map[string]int64{"a": 900, "b": 1000}, RecentSince: 900,
	}
}

// openStream has collected as much, but for the windows of its backlog: of the
// first, what is left ends at 750.
func openStream() Stream {
	s := quietStream()
	s.Backlog = []Window{{Gte: 700, Lte: 800, After: "c", AfterAt: 750, Top: 790}, {Gte: 600, Lte: 650}}
	s.Watermark = 600
	return s
}

// withFilter has the last run's windows have had a filter.
func withFilter(s Stream, f audit.Filter) Stream {
	s.Filter = f
	s.Covered = slices.Clone(s.Covered)
	for i := range s.Covered {
		s.Covered[i].Filter = f
	}
	s.Backlog = slices.Clone(s.Backlog)
	for i := range s.Backlog {
		s.Backlog[i].Filter = f
	}
	return s
}

func with(s Stream, change func(*Stream)) Stream { change(&s); return s }

// TestAddBackfill: what is asked for and not collected goes into the backlog, and
// counts as covered from then on.
func TestAddBackfill(t *testing.T) {
	unknown := func(s *Stream) { s.Covered = nil }
	tests := []struct {
		name   string
		before Stream
		want   Backfill
		filter audit.Filter

		asked   Span
		backlog []Window
		covered []Span
		ids     []string // that are left
	}{
		{"before what is covered", quietStream(), since(100, 500), "",
			Span{Gte: 100, Lte: 500}, []Window{{Gte: 100, Lte: 500}}, spans(600, 1000, 100, 500), []string{"a", "b"}},
		{"up to what is covered", quietStream(), since(100, 599), "",
			Span{Gte: 100, Lte: 599}, []Window{{Gte: 100, Lte: 599}}, spans(100, 1000), []string{"a", "b"}},
		{"without an end", quietStream(), since(100, -1), "",
			Span{Gte: 100, Lte: 599}, []Window{{Gte: 100, Lte: 599}}, spans(100, 1000), []string{"a", "b"}},
		{"one second", quietStream(), since(0, 0), "",
			Span{Gte: 0, Lte: 0}, []Window{{Gte: 0, Lte: 0}}, spans(600, 1000, 0, 0), []string{"a", "b"}},
		{"one second without an end", quietStream(), since(599, -1), "",
			Span{Gte: 599, Lte: 599}, []Window{{Gte: 599, Lte: 599}}, spans(599, 1000), []string{"a", "b"}},
		{"a hole", with(quietStream(), func(s *Stream) { s.Covered = spans(600, 1000, 100, 200) }), since(201, 599), "",
			Span{Gte: 201, Lte: 599}, []Window{{Gte: 201, Lte: 599}}, spans(100, 1000), []string{"a", "b"}},
		{"without an end, beside older ranges", with(quietStream(), func(s *Stream) { s.Covered = spans(600, 1000, 100, 200) }), since(300, -1), "",
			Span{Gte: 300, Lte: 599}, []Window{{Gte: 300, Lte: 599}}, spans(300, 1000, 100, 200), []string{"a", "b"}},
		{"among windows of the backlog", openStream(), since(100, 599), "",
			Span{Gte: 100, Lte: 599}, append(openStream().Backlog, Window{Gte: 100, Lte: 599}), spans(100, 1000), []string{"a", "b"}},

		// Again: its ids must not count as collected.
		{"again", quietStream(), again(since(700, 800)), "",
			Span{Gte: 700, Lte: 800}, []Window{{Gte: 700, Lte: 800}}, spans(600, 1000), []string{"a", "b"}},
		{"again from what is remembered on", quietStream(), again(since(900, 999)), "",
			Span{Gte: 900, Lte: 999}, []Window{{Gte: 900, Lte: 999}}, spans(600, 1000), []string{"b"}},
		{"again just beside it", quietStream(), again(since(901, 999)), "",
			Span{Gte: 901, Lte: 999}, []Window{{Gte: 901, Lte: 999}}, spans(600, 1000), []string{"a", "b"}},
		{"again up to high", quietStream(), again(since(100, 1000)), "",
			Span{Gte: 100, Lte: 1000}, []Window{{Gte: 100, Lte: 1000}}, spans(100, 1000), nil},
		{"again what is read of a window", openStream(), again(since(751, 850)), "",
			Span{Gte: 751, Lte: 850}, append([]Window{{Gte: 751, Lte: 850}}, openStream().Backlog...), spans(600, 1000), []string{"a", "b"}},
		{"again between windows", openStream(), again(since(651, 699)), "",
			Span{Gte: 651, Lte: 699}, slices.Insert(openStream().Backlog, 1, Window{Gte: 651, Lte: 699}), spans(600, 1000), []string{"a", "b"}},
		{"again where it is not known what is covered", with(quietStream(), unknown), again(since(100, 800)), "",
			Span{Gte: 100, Lte: 800}, []Window{{Gte: 100, Lte: 800}}, nil, []string{"a", "b"}},
		{"again beside windows of types that exclude it", withFilter(openStream(), filterA), again(since(600, 850)), filterB,
			Span{Gte: 600, Lte: 850, Filter: filterB},
			[]Window{{Gte: 600, Lte: 850, Filter: filterB}, withFilter(openStream(), filterA).Backlog[0], withFilter(openStream(), filterA).Backlog[1]},
			[]Span{{Gte: 600, Lte: 1000, Filter: filterA}, {Gte: 600, Lte: 850, Filter: filterB}}, []string{"a", "b"}},
		{"again with other filters, before what is remembered", withFilter(quietStream(), filterA), again(since(600, 899)), "",
			Span{Gte: 600, Lte: 899}, []Window{{Gte: 600, Lte: 899}}, []Span{{Gte: 600, Lte: 1000, Filter: filterA}, {Gte: 600, Lte: 899}}, []string{"a", "b"}},
		{"again with other filters, beside what is remembered", withFilter(quietStream(), filterA), again(since(901, 999)), "",
			Span{Gte: 901, Lte: 999}, []Window{{Gte: 901, Lte: 999}}, []Span{{Gte: 901, Lte: 999}, {Gte: 600, Lte: 1000, Filter: filterA}}, []string{"a", "b"}},
		{"again with other filters, where nothing is remembered", with(withFilter(quietStream(), filterA), func(s *Stream) { s.RecentIDs = nil }), again(since(600, 1000)), "",
			Span{Gte: 600, Lte: 1000}, []Window{{Gte: 600, Lte: 1000}}, []Span{{Gte: 600, Lte: 1000, Filter: filterA}, {Gte: 600, Lte: 1000}}, nil},

		// Filters.
		{"types that the last windows left out", withFilter(quietStream(), filterA), since(700, 800), filterB,
			Span{Gte: 700, Lte: 800, Filter: filterB}, []Window{{Gte: 700, Lte: 800, Filter: filterB}},
			[]Span{{Gte: 700, Lte: 800, Filter: filterB}, {Gte: 600, Lte: 1000, Filter: filterA}}, []string{"a", "b"}},
		{"... up to where they have come", withFilter(quietStream(), filterA), since(700, -1), filterB,
			Span{Gte: 700, Lte: 1000, Filter: filterB}, []Window{{Gte: 700, Lte: 1000, Filter: filterB}},
			[]Span{{Gte: 700, Lte: 1000, Filter: filterB}, {Gte: 600, Lte: 1000, Filter: filterA}}, []string{"a", "b"}},
		{"... that another has not left out: up to where it begins", with(withFilter(quietStream(), filterA), func(s *Stream) {
			s.Covered = []Span{{Gte: 800, Lte: 1000, Filter: filterA}, {Gte: 600, Lte: 799, Filter: filterB}}
		}), since(100, -1), filterB,
			Span{Gte: 100, Lte: 599, Filter: filterB}, []Window{{Gte: 100, Lte: 599, Filter: filterB}},
			[]Span{{Gte: 800, Lte: 1000, Filter: filterA}, {Gte: 100, Lte: 799, Filter: filterB}}, []string{"a", "b"}},
		{"here with the filters of runs", withFilter(quietStream(), filterA), here(since(100, 500)), filterA,
			Span{Gte: 100, Lte: 500, Filter: filterA}, []Window{{Gte: 100, Lte: 500, Filter: filterA}},
			[]Span{{Gte: 600, Lte: 1000, Filter: filterA}, {Gte: 100, Lte: 500, Filter: filterA}}, []string{"a", "b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := State{Stream: tt.before}
			kept := tt.before
			kept.Backlog, kept.RecentIDs, kept.Covered = slices.Clone(kept.Backlog), maps.Clone(kept.RecentIDs), slices.Clone(kept.Covered)
			asked, added, err := s.AddBackfill(tt.want, tt.filter, false)
			if err != nil || !added || asked != tt.asked {
				t.Errorf("asked %+v, added %v, error %v; want %+v", asked, added, err, tt.asked)
			}
			want := tt.before
			want.Backlog, want.Covered, want.RecentIDs = tt.backlog, tt.covered, map[string]int64{}
			for _, id := range tt.ids {
				want.RecentIDs[id] = tt.before.RecentIDs[id]
			}
			want.Watermark = min(tt.before.Watermark, asked.Gte)
			if diff := cmp.Diff(want, s.Stream, cmpopts.EquateEmpty(), ofAny); diff != "" {
				t.Errorf("differs (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(kept, tt.before); diff != "" {
				t.Errorf("changes the state that it was made of (-want +got):\n%s", diff)
			}
			// Delivered twice, it is there once.
			once := s.Stream
			if again, added, err := s.AddBackfill(tt.want, tt.filter, false); err == nil && (added || again != asked) {
				t.Errorf("a second time: asked %+v, added %v", again, added)
			}
			if diff := cmp.Diff(once, s.Stream, cmpopts.EquateEmpty(), ofAny); diff != "" {
				t.Errorf("a second time changes it (-want +got):\n%s", diff)
			}
		})
	}
}

// TestBackfillRefused: a range that would be collected twice without being asked
// to, or that no run can collect as a whole, is refused; the state stays as it is.
func TestBackfillRefused(t *testing.T) {
	collected := ErrCollected.Error()
	older := with(quietStream(), func(s *Stream) { s.Covered = spans(600, 1000, 100, 200) })
	unknown := with(quietStream(), func(s *Stream) { s.Covered = nil })
	filtered := withFilter(quietStream(), filterA)
	mixed := with(quietStream(), func(s *Stream) { s.Covered = []Span{{Gte: 600, Lte: 799, Filter: filterA}, {Gte: 800, Lte: 1000}} })
	filteredBacklog := with(openStream(), func(s *Stream) { s.Backlog[0].Filter, s.Backlog[1].Filter = filterA, filterB })
	// The ids below RecentSince are those of windows that are open.
	early := with(filtered, func(s *Stream) { s.RecentIDs = map[string]int64{"a": 899, "b": 1000} })

	tests := []struct {
		name   string
		before Stream
		want   Backfill
		filter audit.Filter
		why    []string
		is     bool // ErrCollected
	}{
		{"collected", quietStream(), since(700, 800), "", []string{collected, "written once more"}, true},
		{"collected to its ends", quietStream(), since(600, 1000), "", []string{collected, "written once more"}, true},
		{"in the backlog", openStream(), since(710, 720), "", []string{collected, "written once more"}, true},
		{"all from there on", quietStream(), since(600, -1), "", []string{collected, "all from 1970-01-01T00:10:00Z on"}, true},
		{"partly collected", quietStream(), since(500, 700), "", []string{"part of the range is collected, or in the backlog; not collected yet: 1970-01-01T00:08:20Z to 1970-01-01T00:09:59Z"}, false},
		{"by one second", quietStream(), since(500, 600), "", []string{"part of the range", "to 1970-01-01T00:09:59Z"}, false},
		{"collected in between", older, since(50, 300), "", []string{"not collected yet: 1970-01-01T00:03:21Z to 1970-01-01T00:05:00Z, and 1970-01-01T00:00:50Z to 1970-01-01T00:01:39Z"}, false},
		{"before 1970", quietStream(), since(-1, 500), "", []string{"before 1970"}, false},
		{"ends before it begins", quietStream(), since(500, 499), "", []string{"ends, at 1970-01-01T00:08:19Z, before it begins"}, false},
		{"later than high", quietStream(), since(500, 1001), "", []string{"1970-01-01T00:16:40Z is the end of what has been collected so far", "the next run collects what is newer"}, false},
		{"... again", quietStream(), again(since(500, 1001)), "", []string{"the next run collects what is newer"}, false},

		{"again, with backlog to be read", openStream(), again(since(720, 730)), "", []string{"the backlog has part of the range still to be read, 1970-01-01T00:11:40Z to 1970-01-01T00:12:30Z"}, false},
		{"... at its last second", openStream(), again(since(750, 760)), "", []string{"still to be read"}, false},
		{"... at its first", openStream(), again(since(690, 700)), "", []string{"still to be read"}, false},
		{"... in the second window", openStream(), again(since(640, 660)), "", []string{"1970-01-01T00:10:00Z to 1970-01-01T00:10:50Z"}, false},
		{"... with a filter that shares types", withFilter(openStream(), filterAB), again(since(720, 730)), filterA, []string{"still to be read"}, false},

		{"not known what is covered", unknown, since(100, 500), "", []string{"does not know since when records have been collected"}, false},
		{"... nor where it ends", unknown, since(100, -1), "", []string{collected, "all from 1970-01-01T00:00:00Z on"}, true},
		{"... to high", unknown, since(0, 1000), "", []string{"does not know since when"}, false},

		{"collected with other filters", filtered, since(700, 800), "", []string{collected, `with filters of its own ("covered" in the state)`, "left out"}, true},
		{"collected with other filters of late", mixed, since(700, 790), "", []string{collected, "with filters of its own"}, true},
		{"... by its last second", mixed, since(799, 900), "", []string{"with filters of its own"}, true},
		{"collected with the same filters, beside others", mixed, since(800, 900), "", []string{collected, "written once more"}, true},
		{"in the backlog with other filters", filteredBacklog, since(690, 700), "", []string{"with filters of its own"}, true},
		{"... by its last second", filteredBacklog, since(800, 810), "", []string{"with filters of its own"}, true},
		{"below other filters of the backlog", with(quietStream(), func(s *Stream) { s.Backlog = []Window{{Gte: 700, Lte: 800, Filter: filterA}} }), since(600, 699), "", []string{"written once more"}, true},
		{"beside other filters of the backlog", filteredBacklog, since(801, 810), "", []string{"written once more"}, true},
		{"with a filter that shares types", withFilter(quietStream(), filterAB), since(700, 800), filterA, []string{"with filters of its own"}, true},

		{"again what other filters have let through of late", filtered, again(since(700, 900)), "", []string{"must end before 1970-01-01T00:15:00Z"}, false},
		{"... by its first second", filtered, again(since(1000, 1000)), "", []string{"must end before 1970-01-01T00:15:00Z"}, false},
		{"... by its last second", with(filtered, func(s *Stream) { s.RecentIDs = map[string]int64{"a": 900} }), again(since(900, 950)), "", []string{"must end before"}, false},
		{"again what open windows with other filters need", early, again(since(700, 899)), "", []string{"windows with other filters in the range: let runs read them first"}, false},
		{"... and what is remembered of late", early, again(since(700, 1000)), "", []string{"let runs read them first"}, false},

		{"again where it is not known what is covered, with another filter than the last", with(unknown, func(s *Stream) { s.Filter = filterA }), again(since(700, 1000)), "", []string{"must end before"}, false},

		{"here with other filters", filtered, here(since(100, 500)), filterB, []string{"the runs have other filters (EVENT_TYPES=a) than these settings (EVENT_TYPES=b)", "--detach"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := State{Stream: tt.before}
			_, added, err := s.AddBackfill(tt.want, tt.filter, false)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, part := range tt.why {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q lacks %q", err, part)
				}
			}
			if refused := new(*Refused); !errors.As(err, refused) || (*refused).Error() != err.Error() {
				t.Errorf("%v is no refusal", err)
			}
			if added || errors.Is(err, ErrCollected) != tt.is {
				t.Errorf("added %v, collected %v, error %v", added, errors.Is(err, ErrCollected), err)
			}
			if !errors.As(err, new(*Refused)) {
				t.Errorf("%v is not known as a refusal", err)
			}
			if diff := cmp.Diff(tt.before, s.Stream); diff != "" {
				t.Errorf("changes the state (-want +got):\n%s", diff)
			}
		})
	}
}

// TestBackfillInBacklog: a range that the backlog has is not put there twice; asked
// for again, only as long as none of it is read.
func TestBackfillInBacklog(t *testing.T) {
	window := Window{Gte: 100, Lte: 500, Filter: filterA}
	begun := window
	begun.After = "c" // and nothing is known of the order
	for _, tt := range []struct {
		name   string
		w      Window
		want   Backfill
		filter audit.Filter
		err    string
	}{
		{"as it is", window, since(100, 500), filterA, ""},
		{"again", window, again(since(100, 500)), filterA, ""},
		{"here", window, here(since(100, 500)), filterA, ""},
		{"begun", begun, since(100, 500), filterA, ""},
		{"begun, again", begun, again(since(100, 500)), filterA, "still to be read"},
		{"a part of it", window, since(100, 499), filterA, "collected"},
		{"its end", window, since(101, 500), filterA, "collected"},
		{"with another filter", window, since(100, 500), "", "filters of its own"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := State{Stream: withFilter(quietStream(), filterA)}
			s.Backlog, s.Covered = []Window{tt.w}, append(s.Covered, Span{Gte: 100, Lte: 500, Filter: filterA})
			asked, added, err := s.AddBackfill(tt.want, tt.filter, false)
			switch {
			case added || len(s.Backlog) != 1:
				t.Errorf("it is put there twice: %+v", s.Backlog)
			case tt.err == "" && (err != nil || asked != Span{Gte: 100, Lte: 500, Filter: filterA}):
				t.Errorf("asked %+v, error %v", asked, err)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("error %v, want one with %q", err, tt.err)
			}
		})
	}
}

// TestBackfillOfStreams: a backfill is for both streams, and each takes what it
// lacks; what one has already does not keep it from the other.
func TestBackfillOfStreams(t *testing.T) {
	later := with(quietStream(), func(s *Stream) { s.Covered = spans(800, 1000) })
	ahead := with(quietStream(), func(s *Stream) { s.High, s.Watermark, s.Covered = 1200, 1200, spans(600, 1200) })
	untouched := with(quietStream(), func(s *Stream) { s.Untouched = true })
	tests := []struct {
		name         string
		main, tenant Stream
		want         Backfill
		off          bool // TENANT_EVENTS

		asked      Span
		added      bool
		inMain     []Window
		inTenant   []Window
		err        string
		notTouched bool // the tenant's stream is the same object
	}{
		{name: "both lack it", main: quietStream(), tenant: quietStream(), want: since(100, 500),
			asked: Span{Gte: 100, Lte: 500}, added: true, inMain: []Window{{Gte: 100, Lte: 500}}, inTenant: []Window{{Gte: 100, Lte: 500}}},
		{name: "each up to what it has", main: quietStream(), tenant: later, want: since(100, -1),
			asked: Span{Gte: 100, Lte: 799}, added: true, inMain: []Window{{Gte: 100, Lte: 599}}, inTenant: []Window{{Gte: 100, Lte: 799}}},
		{name: "each up to what it has, the tenant less", main: later, tenant: quietStream(), want: since(100, -1),
			asked: Span{Gte: 100, Lte: 799}, added: true, inMain: []Window{{Gte: 100, Lte: 799}}, inTenant: []Window{{Gte: 100, Lte: 599}}},
		{name: "the others have it", main: quietStream(), tenant: later, want: since(600, 700),
			asked: Span{Gte: 600, Lte: 700}, added: true, inTenant: []Window{{Gte: 600, Lte: 700}}},
		{name: "the others have it, to where they begin", main: quietStream(), tenant: later, want: since(650, -1),
			asked: Span{Gte: 650, Lte: 799}, added: true, inTenant: []Window{{Gte: 650, Lte: 799}}},
		{name: "the tenant has it", main: later, tenant: quietStream(), want: since(600, 700),
			asked: Span{Gte: 600, Lte: 700}, added: true, inMain: []Window{{Gte: 600, Lte: 700}}},
		{name: "both have it", main: quietStream(), tenant: quietStream(), want: since(600, 700), err: ErrCollected.Error()},
		{name: "in both backlogs", main: with(quietStream(), func(s *Stream) { s.Backlog = []Window{{Gte: 100, Lte: 500}} }),
			tenant: with(quietStream(), func(s *Stream) { s.Backlog = []Window{{Gte: 100, Lte: 500}} }), want: since(100, 500),
			asked: Span{Gte: 100, Lte: 500}, inMain: []Window{{Gte: 100, Lte: 500}}, inTenant: []Window{{Gte: 100, Lte: 500}}},
		{name: "in the others' backlog", main: with(quietStream(), func(s *Stream) { s.Backlog = []Window{{Gte: 100, Lte: 500}} }),
			tenant: quietStream(), want: since(100, 500),
			asked: Span{Gte: 100, Lte: 500}, added: true, inMain: []Window{{Gte: 100, Lte: 500}}, inTenant: []Window{{Gte: 100, Lte: 500}}},
		{name: "in the tenant's backlog", main: quietStream(),
			tenant: with(quietStream(), func(s *Stream) { s.Backlog = []Window{{Gte: 100, Lte: 500}} }), want: since(100, 500),
			asked: Span{Gte: 100, Lte: 500}, added: true, inMain: []Window{{Gte: 100, Lte: 500}}, inTenant: []Window{{Gte: 100, Lte: 500}}},
		{name: "refused for the tenant", main: ahead, tenant: quietStream(), want: again(since(700, 1100)), err: "tenant events: 1970-01-01T00:16:40Z is the end"},
		{name: "refused for the others", main: quietStream(), tenant: ahead, want: again(since(700, 1100)), err: "1970-01-01T00:16:40Z is the end", notTouched: true},
		{name: "the others have it, the tenant in part", main: quietStream(), tenant: later, want: since(700, 900), err: "tenant events: part of the range"},
		{name: "without TENANT_EVENTS", main: quietStream(), tenant: quietStream(), want: since(100, 500), off: true,
			asked: Span{Gte: 100, Lte: 500}, added: true, inMain: []Window{{Gte: 100, Lte: 500}}, notTouched: true},
		{name: "the tenant's was never read", main: quietStream(), tenant: untouched, want: since(100, 500),
			asked: Span{Gte: 100, Lte: 500}, added: true, inMain: []Window{{Gte: 100, Lte: 500}}, notTouched: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := State{Stream: tt.main, Tenant: &tt.tenant}
			before := s.Tenant
			kept := *s.Tenant
			asked, added, err := s.AddBackfill(tt.want, "", !tt.off)
			if diff := cmp.Diff(kept, *before); diff != "" {
				t.Errorf("changes the stream that it was made of (-want +got):\n%s", diff)
			}
			if (s.Tenant == before) != tt.notTouched {
				t.Errorf("the tenant's stream is another: %v", s.Tenant != before)
			}
			if tt.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tt.err) || !errors.As(err, new(*Refused)) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || asked != tt.asked || added != tt.added {
				t.Errorf("asked %+v, added %v, error %v; want %+v, %v", asked, added, err, tt.asked, tt.added)
			}
			if diff := cmp.Diff([][]Window{tt.inMain, tt.inTenant}, [][]Window{s.Backlog, s.Tenant.Backlog}, cmpopts.EquateEmpty(), ofAny); diff != "" {
				t.Errorf("backlogs differ (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("no tenant's stream", func(t *testing.T) {
		s := State{Stream: quietStream()}
		if _, added, err := s.AddBackfill(since(100, 500), "", true); err != nil || !added || s.Tenant != nil {
			t.Errorf("added %v, error %v, tenant %+v", added, err, s.Tenant)
		}
	})
	t.Run("the filter is told", func(t *testing.T) {
		s := State{Stream: withFilter(quietStream(), filterA), Tenant: new(Stream)}
		*s.Tenant = s.Stream
		if asked, _, err := s.AddBackfill(since(100, 500), filterA, true); err != nil || asked.Filter != filterA {
			t.Errorf("asked %+v, error %v", asked, err)
		}
	})
}

// ofAny leaves out which backfill a window is of: TestBackfillIsMarked looks at that.
var ofAny = cmpopts.IgnoreFields(Window{}, "Backfill")

// TestBackfillIsMarked: the window of a backfill says so, and so does what is left where a part is cancelled.
func TestBackfillIsMarked(t *testing.T) {
	s := State{Stream: quietStream()}
	for _, want := range []Backfill{since(100, 500), {From: time.Unix(200, 0), To: time.Unix(300, 0), Cancel: true}} {
		if _, _, err := s.AddBackfill(want, "", false); err != nil {
			t.Fatal(err)
		}
	}
	asked := Span{Gte: 100, Lte: 500}
	if diff := cmp.Diff([]Window{{Gte: 301, Lte: 500, Backfill: asked}, {Gte: 100, Lte: 199, Backfill: asked}}, s.Backlog); diff != "" {
		t.Error(diff)
	}
}

// TestCancel: what nothing is read of leaves the backlog and what is covered, and so does
// what is set aside; what runs have begun to read stays.
func TestCancel(t *testing.T) {
	begun := Window{Gte: 700, Lte: 800, After: "c", AfterAt: 750, Top: 790}
	aside := Window{Gte: 750, Lte: 800, After: "c", AfterAt: 750, Top: 790, SetAside: true}
	unread := Window{Gte: 600, Lte: 650}
	for _, tt := range []struct {
		name     string
		backlog  []Window
		from, to int64
		left     []Window
		covered  []Span
	}{
		{"unread", []Window{begun, unread}, 600, 650, []Window{begun}, spans(651, 1000)},
		{"more than the window", []Window{begun, unread}, 500, 699, []Window{begun}, spans(651, 1000)},
		{"a part", []Window{unread}, 610, 620, []Window{{Gte: 621, Lte: 650}, {Gte: 600, Lte: 609}}, spans(621, 1000, 600, 609)},
		{"set aside", []Window{aside, unread}, 750, 750, []Window{unread}, spans(751, 1000, 600, 749)},
		{"a part of what is set aside", []Window{{Gte: 740, Lte: 800, After: "c", AfterAt: 750, Top: 790, SetAside: true}}, 750, 750, nil, nil},
		{"begun", []Window{begun, unread}, 700, 800, nil, nil},
		{"nothing there", []Window{begun, unread}, 900, 950, nil, nil},
	} {
		for _, tenant := range []bool{false, true} {
			s := State{Stream: with(quietStream(), func(s *Stream) { s.Backlog = tt.backlog })}
			if tenant {
				other := s.Stream
				s.Stream, s.Tenant = quietStream(), &other
			}
			before := s
			if tenant {
				kept := *s.Tenant
				before.Tenant = &kept
			}
			want := since(tt.from, tt.to)
			want.Cancel = true
			_, changed, err := s.AddBackfill(want, "", false)
			if tt.left == nil {
				if !errors.As(err, new(*Refused)) {
					t.Errorf("%s: error %v", tt.name, err)
				}
				continue
			}
			got := s.Stream
			if tenant {
				got = *s.Tenant
			}
			if err != nil || !changed || !slices.Equal(got.Backlog, tt.left) || !slices.Equal(got.Covered, tt.covered) || got.Watermark != got.ImpliedWatermark() {
				t.Errorf("%s: changed %v, error %v, %+v", tt.name, changed, err, got)
			}
			if tenant && !slices.Equal(before.Tenant.Backlog, tt.backlog) {
				t.Errorf("%s: changes the state that it began with", tt.name)
			}
		}
	}

	filtered := with(quietStream(), func(s *Stream) {
		s.Backlog = []Window{{Gte: 600, Lte: 650, Filter: filterA}}
		s.Covered = append(s.Covered, Span{600, 650, filterA})
	})
	if !filtered.cancel(Span{Gte: 0, Lte: 2000}) || !slices.Equal(filtered.Covered, spans(600, 1000)) {
		t.Errorf("with a filter: %+v", filtered)
	}
}
