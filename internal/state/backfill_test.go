package state

import (
	"errors"
	"math/rand/v2"
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
		Recent: recent(map[string]int64{"a": 900, "b": 1000}), RecentSince: 900,
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

		parts   []Span
		backlog []Window
		covered []Span
		ids     []string // that are left
	}{
		{"before what is covered", quietStream(), since(100, 500), "",
			[]Span{{Gte: 100, Lte: 500}}, []Window{{Gte: 100, Lte: 500}}, spans(600, 1000, 100, 500), []string{"a", "b"}},
		{"up to what is covered", quietStream(), since(100, 599), "",
			[]Span{{Gte: 100, Lte: 599}}, []Window{{Gte: 100, Lte: 599}}, spans(100, 1000), []string{"a", "b"}},
		{"without an end", quietStream(), since(100, -1), "",
			[]Span{{Gte: 100, Lte: 599}}, []Window{{Gte: 100, Lte: 599}}, spans(100, 1000), []string{"a", "b"}},
		{"one second", quietStream(), since(0, 0), "",
			[]Span{{Gte: 0, Lte: 0}}, []Window{{Gte: 0, Lte: 0}}, spans(600, 1000, 0, 0), []string{"a", "b"}},
		{"one second without an end", quietStream(), since(599, -1), "",
			[]Span{{Gte: 599, Lte: 599}}, []Window{{Gte: 599, Lte: 599}}, spans(599, 1000), []string{"a", "b"}},
		{"a hole", with(quietStream(), func(s *Stream) { s.Covered = spans(600, 1000, 100, 200) }), since(201, 599), "",
			[]Span{{Gte: 201, Lte: 599}}, []Window{{Gte: 201, Lte: 599}}, spans(100, 1000), []string{"a", "b"}},
		{"without an end, beside older ranges", with(quietStream(), func(s *Stream) { s.Covered = spans(600, 1000, 100, 200) }), since(300, -1), "",
			[]Span{{Gte: 300, Lte: 599}}, []Window{{Gte: 300, Lte: 599}}, spans(300, 1000, 100, 200), []string{"a", "b"}},
		{"among windows of the backlog", openStream(), since(100, 599), "",
			[]Span{{Gte: 100, Lte: 599}}, append(openStream().Backlog, Window{Gte: 100, Lte: 599}), spans(100, 1000), []string{"a", "b"}},

		// What is there stays.
		{"partly collected", quietStream(), since(500, 700), "",
			[]Span{{Gte: 500, Lte: 599}}, []Window{{Gte: 500, Lte: 599}}, spans(500, 1000), []string{"a", "b"}},
		{"by one second", quietStream(), since(500, 600), "",
			[]Span{{Gte: 500, Lte: 599}}, []Window{{Gte: 500, Lte: 599}}, spans(500, 1000), []string{"a", "b"}},
		{"collected in between, and to be later", with(quietStream(), func(s *Stream) { s.Covered = spans(600, 1000, 100, 200) }), since(50, 2000), "",
			[]Span{{Gte: 201, Lte: 599}, {Gte: 50, Lte: 99}}, []Window{{Gte: 201, Lte: 599}, {Gte: 50, Lte: 99}}, spans(50, 1000), []string{"a", "b"}},
		{"a window that is not among what is covered", with(openStream(), func(s *Stream) { s.Covered = spans(700, 1000) }), since(500, 699), "",
			[]Span{{Gte: 651, Lte: 699}, {Gte: 500, Lte: 599}},
			[]Window{openStream().Backlog[0], {Gte: 651, Lte: 699}, openStream().Backlog[1], {Gte: 500, Lte: 599}}, spans(651, 1000, 500, 599), []string{"a", "b"}},

		// Again: its ids must not count as collected.
		{"again", quietStream(), again(since(700, 800)), "",
			[]Span{{Gte: 700, Lte: 800}}, []Window{{Gte: 700, Lte: 800}}, spans(600, 1000), []string{"a", "b"}},
		{"again from what is remembered on", quietStream(), again(since(900, 999)), "",
			[]Span{{Gte: 900, Lte: 999}}, []Window{{Gte: 900, Lte: 999}}, spans(600, 1000), []string{"b"}},
		{"again just beside it", quietStream(), again(since(901, 999)), "",
			[]Span{{Gte: 901, Lte: 999}}, []Window{{Gte: 901, Lte: 999}}, spans(600, 1000), []string{"a", "b"}},
		{"again up to high", quietStream(), again(since(100, 1000)), "",
			[]Span{{Gte: 100, Lte: 1000}}, []Window{{Gte: 100, Lte: 1000}}, spans(100, 1000), nil},
		{"again what is read of a window", openStream(), again(since(751, 850)), "",
			[]Span{{Gte: 751, Lte: 850}}, append([]Window{{Gte: 751, Lte: 850}}, openStream().Backlog...), spans(600, 1000), []string{"a", "b"}},
		{"again between windows", openStream(), again(since(651, 699)), "",
			[]Span{{Gte: 651, Lte: 699}}, slices.Insert(openStream().Backlog, 1, Window{Gte: 651, Lte: 699}), spans(600, 1000), []string{"a", "b"}},
		{"again where it is not known what is covered", with(quietStream(), unknown), again(since(100, 800)), "",
			[]Span{{Gte: 100, Lte: 800}}, []Window{{Gte: 100, Lte: 800}}, nil, []string{"a", "b"}},
		{"again beside windows of types that exclude it", withFilter(openStream(), filterA), again(since(600, 850)), filterB,
			[]Span{{Gte: 600, Lte: 850, Filter: filterB}},
			[]Window{{Gte: 600, Lte: 850, Filter: filterB}, withFilter(openStream(), filterA).Backlog[0], withFilter(openStream(), filterA).Backlog[1]},
			[]Span{{Gte: 600, Lte: 1000, Filter: filterA}, {Gte: 600, Lte: 850, Filter: filterB}}, []string{"a", "b"}},
		{"again with other filters, before what is remembered", withFilter(quietStream(), filterA), again(since(600, 899)), "",
			[]Span{{Gte: 600, Lte: 899}}, []Window{{Gte: 600, Lte: 899}}, []Span{{Gte: 600, Lte: 1000, Filter: filterA}, {Gte: 600, Lte: 899}}, []string{"a", "b"}},
		{"again with other filters, beside what is remembered", withFilter(quietStream(), filterA), again(since(901, 999)), "",
			[]Span{{Gte: 901, Lte: 999}}, []Window{{Gte: 901, Lte: 999}}, []Span{{Gte: 901, Lte: 999}, {Gte: 600, Lte: 1000, Filter: filterA}}, []string{"a", "b"}},
		{"again with other filters, where nothing is remembered", with(withFilter(quietStream(), filterA), func(s *Stream) { s.Recent = nil }), again(since(600, 1000)), "",
			[]Span{{Gte: 600, Lte: 1000}}, []Window{{Gte: 600, Lte: 1000}}, []Span{{Gte: 600, Lte: 1000, Filter: filterA}, {Gte: 600, Lte: 1000}}, nil},

		// Filters.
		{"types that the last windows left out", withFilter(quietStream(), filterA), since(700, 800), filterB,
			[]Span{{Gte: 700, Lte: 800, Filter: filterB}}, []Window{{Gte: 700, Lte: 800, Filter: filterB}},
			[]Span{{Gte: 700, Lte: 800, Filter: filterB}, {Gte: 600, Lte: 1000, Filter: filterA}}, []string{"a", "b"}},
		{"... up to where they have come", withFilter(quietStream(), filterA), since(700, -1), filterB,
			[]Span{{Gte: 700, Lte: 1000, Filter: filterB}}, []Window{{Gte: 700, Lte: 1000, Filter: filterB}},
			[]Span{{Gte: 700, Lte: 1000, Filter: filterB}, {Gte: 600, Lte: 1000, Filter: filterA}}, []string{"a", "b"}},
		{"... that another has not left out: around it", with(withFilter(quietStream(), filterA), func(s *Stream) {
			s.Covered = []Span{{Gte: 800, Lte: 1000, Filter: filterA}, {Gte: 600, Lte: 799, Filter: filterB}}
		}), since(100, -1), filterB,
			[]Span{{Gte: 800, Lte: 1000, Filter: filterB}, {Gte: 100, Lte: 599, Filter: filterB}},
			[]Window{{Gte: 800, Lte: 1000, Filter: filterB}, {Gte: 100, Lte: 599, Filter: filterB}},
			[]Span{{Gte: 800, Lte: 1000, Filter: filterA}, {Gte: 100, Lte: 1000, Filter: filterB}}, []string{"a", "b"}},
		{"here with the filters of runs", withFilter(quietStream(), filterA), here(since(100, 500)), filterA,
			[]Span{{Gte: 100, Lte: 500, Filter: filterA}}, []Window{{Gte: 100, Lte: 500, Filter: filterA}},
			[]Span{{Gte: 600, Lte: 1000, Filter: filterA}, {Gte: 100, Lte: 500, Filter: filterA}}, []string{"a", "b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := State{Stream: tt.before}
			kept := tt.before
			kept.Backlog, kept.Recent, kept.Covered = slices.Clone(kept.Backlog), slices.Clone(kept.Recent), slices.Clone(kept.Covered)
			b, err := s.AddBackfill(tt.want, tt.filter, false)
			if err != nil || !slices.Equal(b.Parts, tt.parts) || b.Asked.Gte != tt.want.From.Unix() {
				t.Errorf("%+v, error %v; want %+v", b, err, tt.parts)
			}
			want := tt.before
			want.Backlog, want.Covered = tt.backlog, tt.covered
			want.Recent = tt.before.Recent.Only(func(r Remembered) bool { return slices.Contains(tt.ids, r.ID) })
			want.Watermark = min(tt.before.Watermark, tt.parts[len(tt.parts)-1].Gte)
			if diff := cmp.Diff(want, s.Stream, cmpopts.EquateEmpty(), ofAny); diff != "" {
				t.Errorf("differs (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(kept, tt.before); diff != "" {
				t.Errorf("changes the state that it was made of (-want +got):\n%s", diff)
			}
			// Delivered twice, it is there once.
			once := s.Stream
			if second, err := s.AddBackfill(tt.want, tt.filter, false); err == nil && (len(second.Parts) > 0 || second.Idle() || second.Asked != b.Asked) {
				t.Errorf("a second time: %+v", second)
			}
			if diff := cmp.Diff(once, s.Stream, cmpopts.EquateEmpty(), ofAny); diff != "" {
				t.Errorf("a second time changes it (-want +got):\n%s", diff)
			}
		})
	}
}

// TestBackfillLeaves: what is collected, or in the backlog, is left alone, and so is what
// may be.
func TestBackfillLeaves(t *testing.T) {
	unknown := with(quietStream(), func(s *Stream) { s.Covered = nil })
	filtered := withFilter(quietStream(), filterA)
	mixed := with(quietStream(), func(s *Stream) { s.Covered = []Span{{Gte: 600, Lte: 799, Filter: filterA}, {Gte: 800, Lte: 1000}} })
	backlog := with(openStream(), func(s *Stream) { s.Backlog[0].Filter, s.Backlog[1].Filter = filterA, filterB })
	aside := with(quietStream(), func(s *Stream) { s.Backlog = []Window{{Gte: 100, Lte: 500, Filter: filterA, SetAside: true}} })
	begun := with(unknown, func(s *Stream) { s.Backlog = []Window{{Gte: 100, Lte: 500, After: "c"}} }) // nothing is known of the order

	tests := []struct {
		name   string
		before Stream
		want   Backfill
		filter audit.Filter

		waiting, unsure []Span
		text            string
	}{
		{"collected", quietStream(), since(700, 800), "", nil, nil, "1970-01-01T00:11:40Z to 1970-01-01T00:13:20Z: collected already: all of it"},
		{"collected to its ends", quietStream(), since(600, 1000), "", nil, nil, "collected already: all of it"},
		{"collected from there on", quietStream(), since(600, -1), "", nil, nil, "1970-01-01T00:10:00Z to 1970-01-01T00:16:40Z: collected already: all of it"},
		{"up to later", quietStream(), since(600, 1001), "", nil, nil, "1970-01-01T00:10:00Z to 1970-01-01T00:16:40Z: collected already: all of it; newer than 1970-01-01T00:16:40Z: the next run collects it"},
		{"in the backlog", openStream(), since(710, 720), "", spans(710, 720), nil, "in the backlog already: all of it"},
		{"begun", openStream(), since(700, 800), "", spans(700, 750), nil, "in the backlog already: 1970-01-01T00:11:40Z to 1970-01-01T00:12:30Z; collected already: 1970-01-01T00:12:31Z to 1970-01-01T00:13:20Z"},
		{"of two windows", openStream(), since(640, 710), "", spans(700, 710, 640, 650), nil, "; collected already: 1970-01-01T00:10:51Z to 1970-01-01T00:11:39Z"},
		{"set aside", aside, since(200, 300), filterA, spans(200, 300), nil, "in the backlog already: all of it"},

		{"unknown", unknown, since(100, 500), "", nil, spans(100, 500), "unknown: all of it"},
		{"unknown, without an end", unknown, since(100, -1), "", nil, spans(100, 1000), "unknown: all of it"},
		{"unknown, and begun", begun, since(50, 300), "", spans(100, 300), spans(50, 99), "in the backlog already: 1970-01-01T00:01:40Z to 1970-01-01T00:05:00Z; unknown: 1970-01-01T00:00:50Z to 1970-01-01T00:01:39Z"},

		{"with other filters", filtered, since(700, 800), "", nil, spans(700, 800), "unknown: all of it"},
		{"... in part", mixed, since(700, 900), "", nil, spans(700, 799), "collected already: 1970-01-01T00:13:20Z to 1970-01-01T00:15:00Z; unknown: 1970-01-01T00:11:40Z to 1970-01-01T00:13:19Z"},
		{"with a filter that shares types", withFilter(quietStream(), filterA), since(700, 800), filterAB, nil, spans(700, 800), "unknown"},
		{"with one that has all types", withFilter(quietStream(), filterAB), since(700, 800), filterA, nil, nil, "collected already: all of it"},
		{"with none", quietStream(), since(700, 800), filterA, nil, nil, "collected already: all of it"},
		{"in the backlog with a filter", with(backlog, func(s *Stream) { s.Covered = nil }), since(700, 850), filterA, spans(700, 750), spans(751, 850), "unknown: 1970-01-01T00:12:31Z to 1970-01-01T00:14:10Z"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, tenant := range []bool{false, true} {
				s := State{Stream: tt.before}
				if tenant {
					other := tt.before
					s.Tenant = &other
				}
				b, err := s.AddBackfill(tt.want, tt.filter, true)
				for i := range tt.waiting {
					tt.waiting[i].Filter = tt.filter
				}
				for i := range tt.unsure {
					tt.unsure[i].Filter = tt.filter
				}
				if err != nil || len(b.Parts) > 0 || !slices.Equal(b.Waiting, tt.waiting) || !slices.Equal(b.Unsure, tt.unsure) {
					t.Errorf("%+v, error %v", b, err)
				}
				if !strings.Contains(b.String(), tt.text) {
					t.Errorf("%q lacks %q", b, tt.text)
				}
				if b.Idle() != (len(tt.waiting)+len(tt.unsure) == 0) {
					t.Errorf("idle %v", b.Idle())
				}
				if about := strings.Contains(b.Why, "another function"); len(b.Unsure) > 0 && about != (len(tt.before.Covered) == 0) {
					t.Errorf("unsure, since %s", b.Why)
				}
				if diff := cmp.Diff(tt.before, s.Stream); diff != "" {
					t.Errorf("changes the state (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// TestBackfillRefused: a range that no run can collect as a whole is refused; the state
// stays as it is.
func TestBackfillRefused(t *testing.T) {
	filtered := withFilter(quietStream(), filterA)
	// The ids below RecentSince are those of windows that are open.
	early := with(filtered, func(s *Stream) { s.Recent = recent(map[string]int64{"a": 899, "b": 1000}) })

	tests := []struct {
		name   string
		before Stream
		want   Backfill
		filter audit.Filter
		why    []string
	}{
		{"before 1970", quietStream(), since(-1, 500), "", []string{"before 1970"}},
		{"ends before it begins", quietStream(), since(500, 499), "", []string{"ends, at 1970-01-01T00:08:19Z, before it begins"}},
		{"... beyond high", quietStream(), since(2000, 1999), "", []string{"before it begins"}},
		{"later than high", quietStream(), since(1001, 1002), "", []string{"begins after 1970-01-01T00:16:40Z, the end of what has been collected so far", "the next run collects what is newer"}},
		{"... without an end", quietStream(), since(1001, -1), "", []string{"the next run collects what is newer"}},
		{"... again", quietStream(), again(since(1001, 1002)), "", []string{"the next run collects what is newer"}},

		{"again, with backlog to be read", openStream(), again(since(720, 730)), "", []string{"the backlog has part of the range still to be read, 1970-01-01T00:11:40Z to 1970-01-01T00:12:30Z"}},
		{"... at its last second", openStream(), again(since(750, 760)), "", []string{"still to be read"}},
		{"... at its first", openStream(), again(since(690, 700)), "", []string{"still to be read"}},
		{"... in the second window", openStream(), again(since(640, 660)), "", []string{"1970-01-01T00:10:00Z to 1970-01-01T00:10:50Z"}},
		{"... with a filter that shares types", withFilter(openStream(), filterAB), again(since(720, 730)), filterA, []string{"still to be read"}},
		{"... begun", with(quietStream(), func(s *Stream) { s.Backlog = []Window{{Gte: 100, Lte: 500, After: "c"}} }), again(since(100, 500)), "", []string{"still to be read"}},

		{"again what other filters have let through of late", filtered, again(since(700, 900)), "", []string{"must end before 1970-01-01T00:15:00Z"}},
		{"... by its first second", filtered, again(since(1000, 1000)), "", []string{"must end before 1970-01-01T00:15:00Z"}},
		{"... without an end", filtered, again(since(700, -1)), "", []string{"must end before 1970-01-01T00:15:00Z"}},
		{"... by its last second", with(filtered, func(s *Stream) { s.Recent = recent(map[string]int64{"a": 900}) }), again(since(900, 950)), "", []string{"must end before"}},
		{"again what open windows with other filters need", early, again(since(700, 899)), "", []string{"windows with other filters in the range: let runs read them first"}},
		{"... and what is remembered of late", early, again(since(700, 1000)), "", []string{"let runs read them first"}},
		{"again with windows of other filters in the backlog", with(quietStream(), func(s *Stream) { s.Backlog = []Window{{Gte: 850, Lte: 900, Filter: filterA}} }), again(since(900, 950)), filterB, []string{"must end before"}},

		{"again where it is not known what is covered, with another filter than the last", with(quietStream(), func(s *Stream) { s.Covered, s.Filter = nil, filterA }), again(since(700, 1000)), "", []string{"must end before"}},

		{"here with other filters", filtered, here(since(100, 500)), filterB, []string{"the runs have other filters (EVENT_TYPES=a) than these settings (EVENT_TYPES=b)", "--detach"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := State{Stream: tt.before}
			_, err := s.AddBackfill(tt.want, tt.filter, false)
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
			if diff := cmp.Diff(tt.before, s.Stream); diff != "" {
				t.Errorf("changes the state (-want +got):\n%s", diff)
			}
		})
	}
}

// TestBackfillParts asks random streams for random ranges, and judges second by second:
// nothing is added that is collected, in the backlog, or may be; all else of the range is;
// and what is said of the rest is true.
func TestBackfillParts(t *testing.T) {
	const end = 40
	filters := []audit.Filter{"", filterA, filterB, filterAB}
	for seed := range uint64(20000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		filter := func() audit.Filter { return filters[rnd.IntN(len(filters))] }
		span := func() Span {
			from := rnd.Int64N(end)
			return Span{from, min(end-1, from+rnd.Int64N(15)), filter()}
		}
		s := Stream{High: end - 1, Own: true, Filter: filter()}
		for range rnd.IntN(3) {
			w := span()
			s.Backlog = append(s.Backlog, Window{Gte: w.Gte, Lte: w.Lte, Filter: w.Filter})
		}
		known := rnd.IntN(5) > 0
		for range 1 + rnd.IntN(4) {
			if known {
				s.Covered = Cover(s.Covered, span())
			}
		}
		asked := span()
		want := since(asked.Gte, asked.Lte+rnd.Int64N(2)*end)
		before := s
		b, err := s.backfill(want, asked.Filter)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		in := func(list []Span, at int64) bool {
			return slices.ContainsFunc(list, func(s Span) bool { return s.Gte <= at && at <= s.Lte })
		}
		for at := range int64(end) {
			// may: some of the filter's records are collected or in the backlog. sure: all.
			may, sure, waits := !known, false, false
			see := func(from, to int64, f audit.Filter) (includes bool) {
				if from > at || at > to {
					return false
				}
				includes = f == "" || f == asked.Filter || f == filterAB && asked.Filter != ""
				may = may || includes || asked.Filter == "" || asked.Filter == filterAB || f == filterAB
				sure = sure || includes
				return includes
			}
			for _, c := range before.Covered {
				see(c.Gte, c.Lte, c.Filter)
			}
			for _, w := range before.Backlog {
				waits = see(w.Gte, w.Lte, w.Filter) || waits
			}
			inside := b.Asked.Gte <= at && at <= b.Asked.Lte
			got := []bool{in(b.Parts, at), in(b.Waiting, at), in(b.Unsure, at)}
			if expect := []bool{inside && !may, inside && waits, inside && may && !sure}; !slices.Equal(got, expect) {
				t.Fatalf("seed %d: second %d: added, waiting, unsure: %v, want %v\n%+v\nof %+v", seed, at, got, expect, b, before)
			}
		}
		for i, p := range b.Parts {
			added := func(w Window) bool { return Span{w.Gte, w.Lte, w.Filter} == p }
			if slices.ContainsFunc(b.Parts[i+1:], p.overlaps) || !slices.ContainsFunc(s.Backlog, added) {
				t.Fatalf("seed %d: %v is added twice or not at all: %+v", seed, p, s.Backlog)
			}
		}
		if len(s.Backlog) != len(before.Backlog)+len(b.Parts) || b.Asked.Gte != asked.Gte || b.Asked.Lte != min(want.To.Unix(), end-1) || b.Limited != (want.To.Unix() >= end) {
			t.Fatalf("seed %d: %+v of %+v, backlog %+v", seed, b, want, s.Backlog)
		}
		second, err := s.backfill(want, asked.Filter)
		if err != nil || len(second.Parts) > 0 {
			t.Fatalf("seed %d: a second time %+v, %v", seed, second, err)
		}
	}
}

// TestBackfillAgainInBacklog: a range that the backlog has as it is asked for again is not
// put there twice.
func TestBackfillAgainInBacklog(t *testing.T) {
	s := State{Stream: quietStream()}
	s.Backlog = []Window{{Gte: 100, Lte: 500}}
	b, err := s.AddBackfill(again(since(100, 500)), "", false)
	if err != nil || len(b.Parts) > 0 || !slices.Equal(b.Waiting, spans(100, 500)) || len(s.Backlog) != 1 {
		t.Errorf("%+v, error %v, backlog %+v", b, err, s.Backlog)
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
		limited    bool
		parts      []Span
		inMain     []Window
		inTenant   []Window
		err        string
		notTouched bool // the tenant's stream is the same object
	}{
		{name: "both lack it", main: quietStream(), tenant: quietStream(), want: since(100, 500),
			asked: Span{Gte: 100, Lte: 500}, parts: spans(100, 500), inMain: []Window{{Gte: 100, Lte: 500}}, inTenant: []Window{{Gte: 100, Lte: 500}}},
		{name: "each up to what it has", main: quietStream(), tenant: later, want: since(100, -1),
			asked: Span{Gte: 100, Lte: 1000}, parts: spans(100, 799), inMain: []Window{{Gte: 100, Lte: 599}}, inTenant: []Window{{Gte: 100, Lte: 799}}},
		{name: "each up to what it has, the tenant less", main: later, tenant: quietStream(), want: since(100, -1),
			asked: Span{Gte: 100, Lte: 1000}, parts: spans(100, 799), inMain: []Window{{Gte: 100, Lte: 799}}, inTenant: []Window{{Gte: 100, Lte: 599}}},
		{name: "the others have it", main: quietStream(), tenant: later, want: since(600, 700),
			asked: Span{Gte: 600, Lte: 700}, parts: spans(600, 700), inTenant: []Window{{Gte: 600, Lte: 700}}},
		{name: "the others have it, to where they begin", main: quietStream(), tenant: later, want: since(650, -1),
			asked: Span{Gte: 650, Lte: 1000}, parts: spans(650, 799), inTenant: []Window{{Gte: 650, Lte: 799}}},
		{name: "the tenant has it", main: later, tenant: quietStream(), want: since(600, 700),
			asked: Span{Gte: 600, Lte: 700}, parts: spans(600, 700), inMain: []Window{{Gte: 600, Lte: 700}}},
		{name: "both have it", main: quietStream(), tenant: quietStream(), want: since(600, 700), asked: Span{Gte: 600, Lte: 700}},
		{name: "in both backlogs", main: with(quietStream(), func(s *Stream) { s.Backlog = []Window{{Gte: 100, Lte: 500}} }),
			tenant: with(quietStream(), func(s *Stream) { s.Backlog = []Window{{Gte: 100, Lte: 500}} }), want: since(100, 500),
			asked: Span{Gte: 100, Lte: 500}, inMain: []Window{{Gte: 100, Lte: 500}}, inTenant: []Window{{Gte: 100, Lte: 500}}},
		{name: "in the others' backlog", main: with(quietStream(), func(s *Stream) { s.Backlog = []Window{{Gte: 100, Lte: 500}} }),
			tenant: quietStream(), want: since(100, 500),
			asked: Span{Gte: 100, Lte: 500}, parts: spans(100, 500), inMain: []Window{{Gte: 100, Lte: 500}}, inTenant: []Window{{Gte: 100, Lte: 500}}},
		{name: "in the tenant's backlog", main: quietStream(),
			tenant: with(quietStream(), func(s *Stream) { s.Backlog = []Window{{Gte: 100, Lte: 500}} }), want: since(100, 500),
			asked: Span{Gte: 100, Lte: 500}, parts: spans(100, 500), inMain: []Window{{Gte: 100, Lte: 500}}, inTenant: []Window{{Gte: 100, Lte: 500}}},
		{name: "each again up to its end", main: ahead, tenant: quietStream(), want: again(since(700, 1100)),
			asked: Span{Gte: 700, Lte: 1100}, parts: spans(700, 1100), inMain: []Window{{Gte: 700, Lte: 1100}}, inTenant: []Window{{Gte: 700, Lte: 1000}}},
		{name: "... the others' first", main: quietStream(), tenant: ahead, want: again(since(700, 1100)),
			asked: Span{Gte: 700, Lte: 1100}, parts: spans(700, 1100), inMain: []Window{{Gte: 700, Lte: 1000}}, inTenant: []Window{{Gte: 700, Lte: 1100}}},
		{name: "up to later than both", main: quietStream(), tenant: later, want: since(700, 2000),
			asked: Span{Gte: 700, Lte: 1000}, limited: true, parts: spans(700, 799), inTenant: []Window{{Gte: 700, Lte: 799}}},
		{name: "newer than the tenant's, whose last record may be old", main: ahead, tenant: quietStream(), want: again(since(1100, 1150)),
			asked: Span{Gte: 1100, Lte: 1150}, parts: spans(1100, 1150), inMain: []Window{{Gte: 1100, Lte: 1150}}},
		{name: "newer than the others'", main: quietStream(), tenant: ahead, want: again(since(1100, 1150)),
			asked: Span{Gte: 1100, Lte: 1150}, parts: spans(1100, 1150), inTenant: []Window{{Gte: 1100, Lte: 1150}}},
		{name: "newer than both", main: quietStream(), tenant: ahead, want: since(1300, 1350), err: "the range begins after 1970-01-01T00:16:40Z"},
		{name: "refused for the tenant", main: ahead, tenant: openStream(), want: again(since(720, 730)), err: "tenant events: the backlog has part"},
		{name: "refused for the others", main: openStream(), tenant: ahead, want: again(since(720, 730)), err: "the backlog has part", notTouched: true},
		{name: "the others have it, the tenant in part", main: quietStream(), tenant: later, want: since(700, 900),
			asked: Span{Gte: 700, Lte: 900}, parts: spans(700, 799), inTenant: []Window{{Gte: 700, Lte: 799}}},
		{name: "without TENANT_EVENTS", main: quietStream(), tenant: quietStream(), want: since(100, 500), off: true,
			asked: Span{Gte: 100, Lte: 500}, parts: spans(100, 500), inMain: []Window{{Gte: 100, Lte: 500}}, notTouched: true},
		{name: "the tenant's was never read", main: quietStream(), tenant: untouched, want: since(100, 500),
			asked: Span{Gte: 100, Lte: 500}, parts: spans(100, 500), inMain: []Window{{Gte: 100, Lte: 500}}, notTouched: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := State{Stream: tt.main, Tenant: &tt.tenant}
			before := s.Tenant
			kept := *s.Tenant
			b, err := s.AddBackfill(tt.want, "", !tt.off)
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
			if err != nil || b.Asked != tt.asked || b.Limited != tt.limited || !slices.Equal(b.Parts, tt.parts) {
				t.Errorf("%+v, error %v; want %+v, %v, %v", b, err, tt.asked, tt.limited, tt.parts)
			}
			if diff := cmp.Diff([][]Window{tt.inMain, tt.inTenant}, [][]Window{s.Backlog, s.Tenant.Backlog}, cmpopts.EquateEmpty(), ofAny); diff != "" {
				t.Errorf("backlogs differ (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("no tenant's stream", func(t *testing.T) {
		s := State{Stream: quietStream()}
		if b, err := s.AddBackfill(since(100, 500), "", true); err != nil || len(b.Parts) != 1 || s.Tenant != nil {
			t.Errorf("%+v, error %v, tenant %+v", b, err, s.Tenant)
		}
	})
	t.Run("the filter is told", func(t *testing.T) {
		s := State{Stream: withFilter(quietStream(), filterA), Tenant: new(Stream)}
		*s.Tenant = s.Stream
		if b, err := s.AddBackfill(since(100, 500), filterA, true); err != nil || b.Asked.Filter != filterA || b.Parts[0].Filter != filterA {
			t.Errorf("%+v, error %v", b, err)
		}
	})
}

// ofAny leaves out which backfill a window is of: TestBackfillIsMarked looks at that.
var ofAny = cmpopts.IgnoreFields(Window{}, "Backfill")

// TestBackfillIsMarked: each window of a backfill has the range that was asked for, and so has what is left
// where a part is cancelled.
func TestBackfillIsMarked(t *testing.T) {
	s := State{Stream: quietStream()}
	for _, want := range []Backfill{since(100, 500), {From: time.Unix(200, 0), To: time.Unix(300, 0), Cancel: true}} {
		if _, err := s.AddBackfill(want, "", false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.AddBackfill(since(50, -1), "", false); err != nil {
		t.Fatal(err)
	}
	first, second := Span{Gte: 100, Lte: 500}, Span{Gte: 50, Lte: 1000}
	if diff := cmp.Diff([]Window{
		{Gte: 501, Lte: 599, Backfill: second}, {Gte: 301, Lte: 500, Backfill: first}, {Gte: 200, Lte: 300, Backfill: second},
		{Gte: 100, Lte: 199, Backfill: first}, {Gte: 50, Lte: 99, Backfill: second},
	}, s.Backlog); diff != "" {
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
		parts    []Span
		left     []Window
		covered  []Span
	}{
		{"unread", []Window{begun, unread}, 600, 650, spans(600, 650), []Window{begun}, spans(651, 1000)},
		{"more than the window", []Window{begun, unread}, 500, 699, spans(600, 650), []Window{begun}, spans(651, 1000)},
		{"a part", []Window{unread}, 610, 620, spans(610, 620), []Window{{Gte: 621, Lte: 650}, {Gte: 600, Lte: 609}}, spans(621, 1000, 600, 609)},
		{"set aside", []Window{aside, unread}, 750, 750, spans(750, 750), []Window{unread}, spans(751, 1000, 600, 749)},
		{"a part of what is set aside", []Window{{Gte: 740, Lte: 800, After: "c", AfterAt: 750, Top: 790, SetAside: true}}, 750, 750, nil, nil, nil},
		{"begun, and unread", []Window{begun, unread}, 600, 800, spans(600, 650), []Window{begun}, spans(651, 1000)},
		{"begun", []Window{begun, unread}, 700, 800, nil, nil, nil},
		{"nothing there", []Window{begun, unread}, 900, 950, nil, nil, nil},
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
			b, err := s.AddBackfill(want, "", false)
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
			if err != nil || !slices.Equal(b.Parts, tt.parts) || !slices.Equal(got.Backlog, tt.left) || !slices.Equal(got.Covered, tt.covered) || got.Watermark != got.ImpliedWatermark() {
				t.Errorf("%s: %+v, error %v, %+v", tt.name, b, err, got)
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
	if len(filtered.cancel(Span{Gte: 0, Lte: 2000})) != 1 || !slices.Equal(filtered.Covered, spans(600, 1000)) {
		t.Errorf("with a filter: %+v", filtered)
	}
}
