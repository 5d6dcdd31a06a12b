package report

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

const shownObjects = 10

// Screen writes the report for people: labels, a table and a chart, at most 80 columns wide except
// for names. colour allows colours.
func Screen(w io.Writer, r *Report, colour bool) error {
	p := &printer{w: w, colour: colour}
	s := &r.State
	of := ""
	if s.Organization != "" {
		of = ", of organization " + printable(s.Organization, 100)
	}
	p.line("State", "%s%s", s.Object, of)
	if !s.Committed {
		p.line("", "No run has committed yet.")
	} else {
		p.state(s, r.Time)
	}
	if r.Feed != nil {
		p.feed(r.Feed)
	}
	return p.err
}

type printer struct {
	w      io.Writer
	colour bool
	err    error
}

func (p *printer) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

func (p *printer) paint(code, text string) string {
	if !p.colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

const (
	bold   = "1"
	dim    = "2"
	yellow = "33"
	blue   = "34"
)

func (p *printer) line(label, format string, args ...any) {
	p.printf("%s%s\n", p.paint(bold, fmt.Sprintf("%-11s", label)), fmt.Sprintf(format, args...))
}

// lines writes one line per entry, with the label before the first.
func (p *printer) lines(label string, entries []string) {
	for _, e := range entries {
		p.line(label, "%s", e)
		label = ""
	}
}

func (p *printer) state(s *State, now time.Time) {
	if s.Note != "" {
		p.line("", "%s", p.paint(yellow, printable(s.Note, 200)))
	}
	p.line("Watermark", "%s (%d): all before it is collected", stamp(s.WatermarkTime), s.Watermark)
	p.line("Lag", "%s since the oldest moment that may hold uncollected records", span(s.LagSeconds))
	if s.LastRun.IsZero() {
		p.line("Last run", "unknown")
	} else {
		p.line("Last run", "%s, %s ago", stamp(s.LastRun), span(int64(now.Sub(s.LastRun).Seconds())))
	}
	if s.Filter != "" {
		p.line("Filter", "%s", printable(s.Filter, 500))
	}
	p.lines("Covered", s.covered())
	p.lines("Gap", p.yellow(s.gaps()))
	if len(s.Backlog.Windows) == 0 {
		p.line("Backlog", "none")
	} else {
		p.line("Backlog", "%s", p.paint(yellow, s.Backlog.summary()))
		p.lines("", s.Backlog.list())
	}
	switch {
	case s.Staged == nil:
		p.line("Staged", "nothing")
	case s.Staged.Now == StagedPublished:
		p.line("Staged", "%s", printable(s.Staged.fate(), 500))
	default:
		p.line("Staged", "%s", p.paint(yellow, printable(s.Staged.fate(), 500)))
	}
	p.line("Ids kept", "%s", audit.Number(s.RecentIDs))
	if t := s.Tenant; t != nil {
		p.line("Tenant", "all before %s (%d) is collected", stamp(t.WatermarkTime), t.Watermark)
		p.line("", "%s", t.lastRun(now))
		if len(t.Backlog.Windows) > 0 {
			p.line("", "%s", p.paint(yellow, "backlog: "+t.Backlog.summary()))
			p.lines("", t.Backlog.list())
		}
	}
}

func (t *Tenant) lastRun(now time.Time) string {
	if t.LastRun.IsZero() {
		return "not read yet"
	}
	return fmt.Sprintf("last read %s, %s ago", stamp(t.LastRun), span(int64(now.Sub(t.LastRun).Seconds())))
}

func (p *printer) yellow(texts []string) []string {
	for i, t := range texts {
		texts[i] = p.paint(yellow, t)
	}
	return texts
}

// shownRanges bounds a list of ranges: a damaged or often edited state may have any number.
const shownRanges = 20

func list[T any](all []T, show func(T) string) []string {
	var lines []string
	for i, one := range all {
		if i == shownRanges {
			return append(lines, fmt.Sprintf("and %s more", audit.Number(len(all)-i)))
		}
		lines = append(lines, show(one))
	}
	return lines
}

func rangeLine(r state.Span) string { return fmt.Sprintf("%s, %s", r, span(r.Seconds())) }

func (s *State) covered() []string {
	if len(s.Covered) == 0 {
		return []string{fmt.Sprintf("up to %s; since when is not known", audit.Time(s.High))}
	}
	return list(s.Covered, rangeLine)
}

func (s *State) gaps() []string {
	return list(s.Gaps, func(r state.Span) string { return rangeLine(r) + ": neither collected nor asked for" })
}

func (b *Backlog) summary() string {
	return fmt.Sprintf("%s, %s to read, the oldest second %s old", audit.Count(len(b.Windows), "window"), span(b.SpanSeconds), span(b.AgeSeconds))
}

func (b *Backlog) list() []string {
	return list(b.Windows, func(w Window) string {
		switch {
		case w.SetAside:
			return w.left().String() + ", set aside: the API cannot serve it"
		case w.Cursor == "":
			return w.Span.String() + ", not begun"
		case w.LeftTo == w.Lte:
			return w.Span.String() + ", begun"
		}
		return w.Span.String() + ", read down to " + audit.Time(w.LeftTo)
	})
}

func (p *printer) feed(f *Feed) {
	p.printf("\n")
	p.line("Feed", "%s", f.Prefix)
	p.line("", "%s", f.summary())
	for _, note := range f.notes() {
		p.line("", "%s", p.paint(dim, note))
	}
	if len(f.Objects) == 0 {
		return
	}
	shown := f.Objects[:min(shownObjects, len(f.Objects))]
	width := 0
	for _, o := range shown {
		width = max(width, utf8.RuneCountInString(printable(o.Name, 50)))
	}
	p.printf("\n%s\n", p.paint(bold, fmt.Sprintf("%-*s  %-20s %9s %9s", width, "Newest objects", "created", "records", "size")))
	for _, o := range shown {
		records := "not read"
		if o.Read {
			records = audit.Number(o.Records)
		}
		name := printable(o.Name, 50)
		p.printf("%s%s  %-20s %9s %9s\n", name, strings.Repeat(" ", width-utf8.RuneCountInString(name)), stamp(o.Created), records, size(o.Bytes))
	}
	p.chart(f)
}

// chart draws the records of each hour, one line per day.
func (p *printer) chart(f *Feed) {
	const blocks = "▁▂▃▄▅▆▇█"
	most := 0
	for _, h := range f.Hours {
		most = max(most, h.Records)
	}
	p.printf("\n%s\n", p.paint(bold, fmt.Sprintf("Records an hour, UTC; a full block is %s", audit.Number(most))))
	p.printf("%s\n", p.paint(dim, fmt.Sprintf("%-12s%-24s %9s", "", "0     6     12    18", "total")))
	for hours := f.Hours; len(hours) > 0; {
		day := hours[0].Start.Format(time.DateOnly)
		cells, total := strings.Repeat(" ", hours[0].Start.Hour()), 0
		for len(hours) > 0 && hours[0].Start.Format(time.DateOnly) == day {
			n := hours[0].Records
			switch {
			case n == 0:
				cells += "·"
			default:
				cells += string([]rune(blocks)[(n*8-1)/most])
			}
			total += n
			hours = hours[1:]
		}
		cells += strings.Repeat(" ", 24-utf8.RuneCountInString(cells))
		p.printf("%s  %s %9s\n", day, p.paint(blue, cells), audit.Number(total))
	}
}

// Plain writes the report for pipes: one line per figure, with its name first, separated by tabs.
func Plain(w io.Writer, r *Report) error {
	p := &printer{w: w}
	row := func(name string, values ...any) {
		p.printf("%s", name)
		for _, v := range values {
			text := fmt.Sprint(v)
			if t, ok := v.(time.Time); ok {
				text = stamp(t)
			}
			p.printf("\t%s", printable(text, 2000))
		}
		p.printf("\n")
	}
	s := &r.State
	row("time", r.Time)
	row("state", s.Object)
	row("committed", s.Committed)
	if s.Committed {
		if s.Note != "" {
			row("note", s.Note)
		}
		row("organization", s.Organization)
		row("watermark", s.WatermarkTime, s.Watermark)
		row("lag_seconds", s.LagSeconds)
		row("last_run", s.LastRun)
		for _, c := range s.Covered {
			row("covered", audit.Time(c.Gte), audit.Time(c.Lte))
		}
		for _, g := range s.Gaps {
			row("gap", audit.Time(g.Gte), audit.Time(g.Lte))
		}
		row("open_windows", len(s.Backlog.Windows))
		row("backlog_seconds", s.Backlog.SpanSeconds)
		row("backlog_age_seconds", s.Backlog.AgeSeconds)
		for _, w := range s.Backlog.Windows {
			row("window", audit.Time(w.Gte), audit.Time(w.Lte), audit.Time(w.LeftTo))
		}
		if s.Staged == nil {
			row("staged", "none")
		} else {
			row("staged", s.Staged.Now, s.Staged.Object, s.Staged.PublishesAs)
		}
		row("recent_ids", s.RecentIDs)
		if s.Filter != "" {
			row("filter", s.Filter)
		}
		if t := s.Tenant; t != nil {
			row("tenant_watermark", t.WatermarkTime, t.Watermark)
			row("tenant_last_run", t.LastRun)
			row("tenant_open_windows", len(t.Backlog.Windows))
			row("tenant_backlog_seconds", t.Backlog.SpanSeconds)
			row("tenant_backlog_age_seconds", t.Backlog.AgeSeconds)
			for _, w := range t.Backlog.Windows {
				row("tenant_window", audit.Time(w.Gte), audit.Time(w.Lte), audit.Time(w.LeftTo))
			}
			row("tenant_recent_ids", t.RecentIDs)
		}
	}
	if f := r.Feed; f != nil {
		row("feed", f.Prefix)
		row("since", f.Since)
		row("objects", len(f.Objects))
		row("older_objects", f.Older)
		row("other_objects", f.Others)
		row("unread_objects", f.Unread)
		row("bad_lines", f.Bad)
		row("bytes", f.Bytes)
		row("records", f.Records)
		row("records_outside", f.Outside)
		for _, t := range f.Types {
			row("type", t.Type, t.Records)
		}
		for _, o := range f.Objects[:min(shownObjects, len(f.Objects))] {
			records := any(o.Records)
			if !o.Read {
				records = ""
			}
			row("object", o.Name, o.Created, records, o.Bytes)
		}
		for _, h := range f.Hours {
			row("hour", h.Start, h.Records)
		}
	}
	return p.err
}
