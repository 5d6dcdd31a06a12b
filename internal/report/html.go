package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// HTML writes the report as one page, which loads nothing else and runs no script.
func HTML(w io.Writer, r *Report) error { return pageTemplate.Execute(w, newPage(r)) }

type page struct {
	*Report
	Now      string
	Headline string
	Where    string
	Alerts   []string
	Figures  []figure
	Notes    []string
	Plots    []plot
	Tables   []table
}

type figure struct{ Name, Value, Detail string }

type table struct {
	Title   string
	Head    []string
	Rows    [][]string
	Numbers int // number of columns at the end that hold numbers
}

// plot is a figure of rectangles in a box of 1000 by 100, which the page stretches to its width.
// Labels are outside the box, and so keep their size.
type plot struct {
	ID, Title, Text string
	Marks           []mark
	Hits            []hit
	X, Y            []tick
	Legend          []entry
	Rows            bool // Y has names of rows, not heights
}

type mark struct {
	X, Y, W, H float64
	Class      string
}

// hit is a part of the box, in percent, and what the page shows while the pointer is on it.
type hit struct {
	X, Y, W, H float64
	Value      string
}

// add adds a mark, which shows a value: in a plot without rows, wherever the pointer is above or below it.
func (p *plot) add(m mark, value string) {
	p.Marks = append(p.Marks, m)
	if !p.Rows {
		m.Y, m.H = 0, plotHeight
	}
	p.Hits = append(p.Hits, hit{m.X / plotWidth * 100, m.Y, m.W / plotWidth * 100, m.H, value})
}

// tick is a label at a percentage of an axis.
type tick struct {
	At    float64
	Label string
	Minor bool // left out where there is little room
}

type entry struct{ Class, Text string }

const (
	shownTypes   = 8
	plotWidth    = 1000.0
	plotHeight   = 100.0
	mostBars     = 120  // of events
	plotted      = 1000 // objects
	narrowest    = 2.0
	listedOnPage = 50
)

func newPage(r *Report) page {
	p := page{Report: r, Now: stamp(r.Time), Headline: r.Headline()}
	s := &r.State
	p.Where = s.Object
	if s.Organization != "" {
		p.Where += ", of organization " + printable(s.Organization, 100)
	}
	for _, alert := range append(slices.Clone(r.Errors), s.Note) {
		if alert != "" {
			p.Alerts = append(p.Alerts, printable(alert, 2000))
		}
	}
	if s.Committed {
		p.Figures = append(p.Figures, figure{"Lag", span(s.LagSeconds), "new records: " + s.collected(r.Time)},
			figure{"Last run", s.lastRun(r.Time), ""},
			count("To read", "window", list(s.of(KindNew), Window.toRead)),
			count("Backfills", "backfill", list(s.Backfills, Backfill.toRead)),
			count("Set aside", "range", list(s.of(KindSetAside), Window.setAside)),
			count("Gaps", "gap", list(s.Gaps, Range.gap)))
		staged := figure{"Staged", "nothing", ""}
		switch {
		case s.Staged == nil:
		case s.Staged.Now == StagedPublished:
			staged.Detail = path.Base(s.Staged.PublishesAs) + " is published"
		case s.Staged.Now == StagedPending:
			staged = figure{"Staged", "pending", "the next run publishes " + path.Base(s.Staged.PublishesAs)}
		default:
			staged.Value = s.Staged.Now
			p.Alerts = append(p.Alerts, printable(s.Staged.fate(), 2000))
		}
		p.Figures = append(p.Figures, staged, figure{"Ids kept", audit.Number(s.RecentIDs), "of records that a later read can bring again"})
		if s.Filter != "" {
			p.Figures = append(p.Figures, figure{"Filter", "set", printable(s.Filter, 500)})
		}
		if t := s.Tenant; t != nil {
			p.Figures = append(p.Figures, figure{"Tenant events", stamp(t.CollectedToTime), fmt.Sprintf("%s; last read: %s", t.collected(r.Time), t.lastRun(r.Time))},
				count("Tenant events to read", "window", list(t.Windows, Window.toRead)))
		}
	}
	f := r.Feed
	if f != nil {
		p.Figures = append(p.Figures,
			figure{"Records", audit.Number(f.Records), fmt.Sprintf("in objects of the last %s", audit.Count(f.days, "day"))},
			figure{"Objects", audit.Number(len(f.Objects)), fmt.Sprintf("%s; %s older", size(f.Bytes), audit.Number(f.Older))})
		p.Notes = f.notes()
		p.Plots = append(p.Plots, f.events())
	}
	if s.Committed {
		p.Plots = append(p.Plots, s.coverage(r.Time))
	}
	if f != nil && len(f.Objects) > 0 {
		p.Plots = append(p.Plots, f.lags(), f.sizes())
	}
	p.tables()
	return p
}

// count is a figure of things, with the first of them.
func count(name, noun string, all []string) figure {
	if len(all) == 0 {
		return figure{name, "none", ""}
	}
	return figure{name, audit.Count(len(all), noun), all[0]}
}

func (p *page) tables() {
	s := &p.State
	if len(s.Windows)+len(s.Gaps) > 0 {
		t := table{Title: "Windows, backfills and gaps", Head: []string{"what", "from", "to", "still to read", "length"}, Numbers: 1}
		for _, w := range s.Windows[:min(listedOnPage, len(s.Windows))] {
			t.Rows = append(t.Rows, []string{kindTexts[w.Kind], stamp(w.GteTime), stamp(w.LteTime), w.left().String(), span(w.left().Seconds())})
		}
		for _, g := range s.Gaps[:min(listedOnPage, len(s.Gaps))] {
			t.Rows = append(t.Rows, []string{"gap", stamp(g.GteTime), stamp(g.LteTime), "not asked for", span(g.Seconds())})
		}
		p.Tables = append(p.Tables, t)
	}
	f := p.Feed
	if f == nil || len(f.Objects) == 0 {
		return
	}
	t := table{Title: "Newest objects", Head: []string{"object", "created", "oldest record", "newest record", "records", "size"}, Numbers: 2}
	for _, o := range f.Objects[:min(listedOnPage, len(f.Objects))] {
		row := []string{printable(o.Name, 100), stamp(o.Created), "", "", "not read", size(o.Bytes)}
		if o.Read {
			row[4] = audit.Number(o.Records)
		}
		if o.own() > 0 {
			row[2], row[3] = stamp(o.OldestTime), stamp(o.NewestTime)
		}
		t.Rows = append(t.Rows, row)
	}
	p.Tables = append(p.Tables, t)
	t = table{Title: "Types", Head: []string{"type", "records"}, Numbers: 1}
	for _, c := range f.Types {
		t.Rows = append(t.Rows, []string{printable(c.Type, 100), audit.Number(c.Records)})
	}
	if len(t.Rows) > 0 {
		p.Tables = append(p.Tables, t)
	}
}

// events shows the records over time, stacked by type.
func (f *Feed) events() plot {
	p := plot{ID: "events", Title: "Events over time, by type"}
	shown := f.Types[:min(shownTypes, len(f.Types))]
	class := map[string]int{}
	rest := f.Records
	for i, c := range shown {
		class[c.Type] = i
		rest -= c.Records
		p.Legend = append(p.Legend, entry{fmt.Sprintf("t%d", i), fmt.Sprintf("%s, %s", printable(c.Type, 60), audit.Number(c.Records))})
	}
	if rest > 0 {
		p.Legend = append(p.Legend, entry{fmt.Sprintf("t%d", shownTypes), fmt.Sprintf("others, %s", audit.Number(rest))})
	}

	step := 1 // hours a bar
	for _, step = range []int{1, 2, 3, 6, 12, 24, 48, 168} {
		if len(f.Hours) <= mostBars*step {
			break
		}
	}
	bars := make([][shownTypes + 1]int, (len(f.Hours)+step-1)/step)
	highest := 0
	for i, h := range f.Hours {
		bar := &bars[i/step]
		for typ, n := range h.Types {
			k, ok := class[typ]
			if !ok {
				k = shownTypes
			}
			bar[k] += n
		}
		sum := 0
		for _, n := range bar {
			sum += n
		}
		highest = max(highest, sum)
	}
	axis := f.axis()
	top := p.heights(float64(highest), func(v float64) string { return audit.Number(int(v)) })
	for i, bar := range bars {
		start := f.Hours[i*step].Start
		x, w := axis.place(start.Unix(), start.Add(time.Duration(step)*time.Hour).Unix())
		y, sum := 0.0, 0
		var values []string
		for k, n := range bar {
			if n == 0 {
				continue
			}
			name := "others"
			if k < len(shown) {
				name = printable(shown[k].Type, 60)
			}
			h := float64(n) / top * plotHeight
			y += h
			p.Marks = append(p.Marks, mark{x + w*.06, plotHeight - y, w * .88, h, fmt.Sprintf("t%d", k)})
			sum, values = sum+n, append(values, name+" "+audit.Number(n))
		}
		if sum > 0 {
			p.Hits = append(p.Hits, hit{x / plotWidth * 100, 0, w / plotWidth * 100, plotHeight,
				fmt.Sprintf("%s, %s: %s", stamp(start), audit.Count(sum, "record"), strings.Join(values, ", "))})
		}
	}
	p.X = axis.ticks()
	p.Text = fmt.Sprintf("Records by their effective_at, UTC, %s a bar. The highest bar has %s.", span(int64(step)*3600), audit.Number(highest))
	return p
}

var kindTexts = map[string]string{KindNew: "new, to read", KindBackfill: "backfill, to read", KindSetAside: "set aside: the API cannot serve it"}

// coverage shows what is collected, what is left to read, and the gaps.
func (s *State) coverage(now time.Time) plot {
	p := plot{ID: "coverage", Title: "Collected, to read, and gaps", Rows: true,
		Y: []tick{{At: 100. / 6, Label: "collected"}, {At: 50, Label: "to read"}, {At: 500. / 6, Label: "gaps"}}}
	oldest := s.High
	for _, c := range s.Collected {
		oldest = min(oldest, c.Gte)
	}
	for _, w := range s.Windows {
		oldest = min(oldest, w.Gte)
	}
	end := max(now.Unix(), s.High)
	oldest = min(oldest, end-3600)
	axis := timeAxis{oldest - (end-oldest)/50, end}
	add := func(row int, r Range, class, title string) {
		x, w := axis.place(r.Gte, r.Lte+1)
		p.add(mark{x, plotHeight/3*float64(row) + 6, max(w, narrowest), plotHeight/3 - 12, class}, fmt.Sprintf("%s: %s", title, r))
	}
	for _, c := range s.Collected[:min(plotted, len(s.Collected))] {
		class, title := "done", "collected"
		if c.Filter != "" {
			class, title = "part", "collected with a filter"
		}
		add(0, c, class, title)
	}
	if newest := (state.Span{Gte: s.High + 1, Lte: end}); newest.Gte <= newest.Lte {
		add(1, NewRange(newest), "fresh", "new, for the next run")
	}
	for _, w := range s.Windows[:min(plotted, len(s.Windows))] {
		add(1, NewRange(w.left()), w.Kind, kindTexts[w.Kind])
	}
	for _, g := range s.Gaps[:min(plotted, len(s.Gaps))] {
		add(2, g, "gap", "neither collected nor asked for")
	}
	p.Legend = []entry{{"done", "collected"}, {"part", "collected with a filter"}, {"fresh", "new, for the next run"}, {KindNew, kindTexts[KindNew]},
		{KindBackfill, kindTexts[KindBackfill]}, {KindSetAside, kindTexts[KindSetAside]}, {"gap", "gap, neither collected nor asked for"}}
	p.X = axis.ticks()
	p.Text = fmt.Sprintf("Ranges of effective_at, UTC, since %s.", audit.Time(oldest))
	if s.Unknown {
		p.Text = fmt.Sprintf("All up to %s; since when is not known: another function, or an older version, began the state.", stamp(s.HighTime))
	}
	return p
}

// lags shows how old each object's records were when it was made.
func (f *Feed) lags() plot {
	p := plot{ID: "lags", Title: "Lag of each object's records"}
	axis := f.axis()
	longest := int64(60)
	for _, o := range f.plotted() {
		if o.own() > 0 {
			longest = max(longest, o.Created.Unix()-o.Oldest)
		}
	}
	// A logarithm: a second and a month both matter.
	height := func(seconds int64) float64 {
		return math.Log(max(1, float64(seconds))) / math.Log(float64(longest)*1.2) * plotHeight
	}
	for _, o := range f.plotted() {
		if o.own() == 0 {
			continue
		}
		low, high := max(0, o.Created.Unix()-o.Newest), max(0, o.Created.Unix()-o.Oldest)
		x, w := f.bar(axis, o)
		p.add(mark{x, plotHeight - height(high), w, max(height(high)-height(low), 1.5), "lag"},
			fmt.Sprintf("%s, created %s: newest record %s old, oldest %s", printable(o.Name, 100), stamp(o.Created), span(low), span(high)))
	}
	for _, s := range []int64{1, 10, 60, 600, 3600, 6 * 3600, 86400, 7 * 86400, 30 * 86400, 365 * 86400} {
		if s <= longest {
			p.Y = append(p.Y, tick{At: 100 - height(s), Label: span(s)})
		}
	}
	p.X = axis.ticks()
	p.Text = "From its newest record (bottom) to its oldest (top), when the object was published; a logarithmic scale. A backlog reaches far up."
	return p
}

func (f *Feed) sizes() plot {
	p := plot{ID: "sizes", Title: "Size of each object"}
	axis := f.axis()
	largest := int64(0)
	for _, o := range f.plotted() {
		largest = max(largest, o.Bytes)
	}
	top := p.heights(float64(largest), func(v float64) string { return size(int64(v)) })
	for _, o := range f.plotted() {
		x, w := f.bar(axis, o)
		h := float64(o.Bytes) / top * plotHeight
		p.add(mark{x, plotHeight - h, w, h, "size"}, fmt.Sprintf("%s, created %s: %s", printable(o.Name, 100), stamp(o.Created), size(o.Bytes)))
	}
	p.X = axis.ticks()
	p.Text = fmt.Sprintf("By the time of publishing. The largest has %s.", size(largest))
	return p
}

func (f *Feed) plotted() []*Object { return f.Objects[:min(plotted, len(f.Objects))] }

func (f *Feed) axis() timeAxis {
	return timeAxis{f.Since.Unix(), f.Hours[len(f.Hours)-1].Start.Add(time.Hour).Unix()}
}

// bar places an object: as wide as half an hour, if that is visible.
func (f *Feed) bar(axis timeAxis, o *Object) (x, w float64) {
	_, w = axis.place(axis.from, axis.from+1800)
	w = max(w, narrowest)
	x, _ = axis.place(o.Created.Unix(), o.Created.Unix())
	return min(max(x-w/2, 0), plotWidth-w), w
}

// heights sets the ticks of a linear scale from 0, and returns its top, which is above highest.
func (p *plot) heights(highest float64, label func(float64) string) (top float64) {
	highest = max(highest, 1)
	step := 1.0
	for i := 0; highest/step > 5; i++ {
		step *= []float64{2, 2.5, 2}[i%3] // 1, 2, 5, 10, …
	}
	top = highest * 1.05
	for v := 0.0; v <= top; v += step {
		p.Y = append(p.Y, tick{At: 100 - v/top*100, Label: label(v)})
	}
	return top
}

// timeAxis is a horizontal axis, in Unix seconds.
type timeAxis struct{ from, to int64 }

// place returns where a range lies in the box.
func (a timeAxis) place(from, to int64) (x, w float64) {
	scale := plotWidth / float64(a.to-a.from)
	x = min(max(0, float64(from-a.from)*scale), plotWidth)
	return x, min(max(0, float64(to-a.from)*scale), plotWidth) - x
}

// ticks are at round times, UTC. A narrow page shows every other one.
func (a timeAxis) ticks() []tick {
	const hour, day = 3600, 86400
	step := int64(0)
	for _, step = range []int64{hour, 3 * hour, 6 * hour, 12 * hour, day, 2 * day, 7 * day, 14 * day, 30 * day, 90 * day, 365 * day, 3650 * day} {
		if (a.to-a.from)/step <= 8 {
			break
		}
	}
	var ticks []tick
	for t := (a.from + step - 1) / step * step; t <= a.to; t += step {
		at := time.Unix(t, 0).UTC()
		label := at.Format("15:04")
		switch {
		case step >= 365*day:
			label = at.Format("Jan 2006")
		case t%day == 0:
			label = at.Format("Jan 2")
		}
		ticks = append(ticks, tick{At: float64(t-a.from) / float64(a.to-a.from) * 100, Label: label})
	}
	// Days matter more than hours.
	keep := 0
	for i := range ticks {
		if !strings.Contains(ticks[i].Label, ":") {
			keep = i
			break
		}
	}
	for i := range ticks {
		ticks[i].Minor = (len(ticks) > 4 || step >= 365*day) && (i-keep)%2 != 0
	}
	return slices.DeleteFunc(ticks, func(t tick) bool { return t.At > 99 })
}

// Number reports whether a column holds numbers.
func (t table) Number(column int) bool { return column >= len(t.Head)-t.Numbers }
