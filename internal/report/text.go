package report

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"example.com/auditlog/internal/audit"
)

const shownObjects = 10

// Screen writes the report for people: labels, a table and a chart. Text is broken at this width; 0
// means never. colour allows colours.
func Screen(w io.Writer, r *Report, width int, colour bool) error {
	p := &printer{w: w, width: width, colour: colour}
	s := &r.State
	code := green
	if !r.OK {
		code = yellow
	}
	p.wrapped("", code, r.Headline())
	p.printf("\n")
	of := ""
	if s.Organization != "" {
		of = ", of organization " + printable(s.Organization, 100)
	}
	p.line("State", "%s%s", s.Object, of)
	if s.Committed {
		p.state(s, r.Time)
	}
	if r.Feed != nil {
		p.feed(r.Feed)
	}
	return p.err
}

type printer struct {
	w      io.Writer
	width  int
	colour bool
	err    error
}

func (p *printer) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

func (p *printer) paint(code, text string) string {
	if !p.colour || code == plain || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

const (
	plain  = ""
	bold   = "1"
	dim    = "2"
	green  = "32"
	yellow = "33"
	blue   = "34"
)

// labels is the width of the column of labels.
const labels = 11

// wrapped writes text in as many lines as it takes, under margin, the label or as many spaces.
func (p *printer) wrapped(margin, code, text string) {
	for line := range strings.SplitSeq(audit.Wrap(margin+text, p.width, len(margin)), "\n") {
		p.printf("%s%s\n", p.paint(bold, margin), p.paint(code, line[len(margin):]))
		margin = strings.Repeat(" ", len(margin))
	}
}

func (p *printer) line(label, format string, args ...any) {
	p.wrapped(fmt.Sprintf("%-*s", labels, label), plain, fmt.Sprintf(format, args...))
}

// lines writes entries in this colour, with the label before the first.
func (p *printer) lines(label, code string, entries ...string) {
	for _, e := range entries {
		p.wrapped(fmt.Sprintf("%-*s", labels, label), code, e)
		label = ""
	}
}

func (p *printer) state(s *State, now time.Time) {
	if s.Note != "" {
		p.lines("", yellow, printable(s.Note, 200))
	}
	p.stream(&s.Stream, now)
	switch {
	case s.Staged == nil:
		p.line("Staged", "nothing")
	case s.Staged.Now == StagedPublished:
		p.line("Staged", "%s", printable(s.Staged.fate(), 500))
	default:
		p.lines("Staged", yellow, printable(s.Staged.fate(), 500))
	}
	if s.Tenant != nil {
		p.printf("\n")
		p.line("Tenant", "tenant-scoped records:")
		p.stream(s.Tenant, now)
	}
}

func (p *printer) stream(s *Stream, now time.Time) {
	p.line("New", "%s", s.collected(now))
	p.lines("To read", yellow, list(s.of(KindNew), Window.toRead)...)
	p.lines("Backfill", yellow, list(s.Backfills, Backfill.toRead)...)
	p.lines("Set aside", yellow, list(s.of(KindSetAside), Window.setAside)...)
	p.line("Last run", "%s", s.lastRun(now))
	if s.Filter != "" {
		p.line("Filter", "%s", printable(s.Filter, 500))
	}
	p.lines("Collected", plain, s.collectedRanges()...)
	p.lines("Gap", yellow, list(s.Gaps, Range.gap)...)
	p.line("Ids kept", "%s", audit.Number(s.RecentIDs))
}

func (s *Stream) collected(now time.Time) string {
	return fmt.Sprintf("collected up to %s, %s ago", stamp(s.CollectedToTime), span(max(0, now.Unix()-s.CollectedTo)))
}

func (s *Stream) lastRun(now time.Time) string {
	if s.LastRun.IsZero() {
		return "unknown"
	}
	return fmt.Sprintf("%s, %s ago", stamp(s.LastRun), span(int64(now.Sub(s.LastRun).Seconds())))
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

func (r Range) String() string {
	text := fmt.Sprintf("%s, %s", r.Span, span(r.Seconds()))
	if r.Filter != "" {
		text += ", only " + printable(r.Filter, 200)
	}
	return text
}

func (r Range) gap() string { return r.String() + ": neither collected nor asked for" }

func (s *Stream) collectedRanges() []string {
	if s.Unknown {
		return []string{fmt.Sprintf("up to %s; since when is not known", stamp(s.HighTime))}
	}
	return list(s.Collected, Range.String)
}

func (w Window) toRead() string {
	if w.LeftTo < w.Lte {
		return fmt.Sprintf("%s: read down to %s", w.Range, audit.Time(w.LeftTo))
	}
	return w.Range.String()
}

func (w Window) setAside() string {
	return NewRange(w.left()).String() + ": the API cannot serve it"
}

func (b Backfill) toRead() string { return fmt.Sprintf("%s: %s left", b.Range, span(b.LeftSeconds)) }

func (p *printer) feed(f *Feed) {
	p.printf("\n")
	p.line("Feed", "%s", f.Prefix)
	p.line("", "%s", f.summary())
	for _, note := range f.notes() {
		p.lines("", dim, note)
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
	row("ok", r.OK)
	row("verdict", r.Verdict)
	row("state", s.Object)
	row("committed", s.Committed)
	if s.Committed {
		if s.Note != "" {
			row("note", s.Note)
		}
		row("organization", s.Organization)
		row("lag_seconds", s.LagSeconds)
		plainStream("", &s.Stream, row)
		if s.Staged == nil {
			row("staged", "none")
		} else {
			row("staged", s.Staged.Now, s.Staged.Object, s.Staged.PublishesAs)
		}
		if s.Tenant != nil {
			plainStream("tenant_", s.Tenant, row)
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
		row("repeats", f.Repeats)
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

func plainStream(prefix string, s *Stream, row func(name string, values ...any)) {
	row(prefix+"collected_to", s.CollectedToTime, s.CollectedTo)
	row(prefix+"watermark", s.WatermarkTime, s.Watermark)
	row(prefix+"last_run", s.LastRun)
	for _, c := range s.Collected {
		row(prefix+"collected", c.GteTime, c.LteTime, c.Filter)
	}
	for _, g := range s.Gaps {
		row(prefix+"gap", g.GteTime, g.LteTime)
	}
	for _, w := range s.Windows {
		row(prefix+"window", w.GteTime, w.LteTime, w.LeftToTime, w.Kind)
	}
	for _, b := range s.Backfills {
		row(prefix+"backfill", b.GteTime, b.LteTime, b.LeftSeconds)
	}
	row(prefix+"recent_ids", s.RecentIDs)
	if s.Filter != "" {
		row(prefix+"filter", s.Filter)
	}
}

// stamp formats a time for people and programs.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.UTC().Format(time.RFC3339)
}

// span formats a length of time in its two largest units.
func span(seconds int64) string {
	units := []struct {
		name   string
		length int64
	}{{"d", 86400}, {"h", 3600}, {"min", 60}, {"s", 1}}
	for i, u := range units {
		if seconds < u.length {
			continue
		}
		text := fmt.Sprintf("%d %s", seconds/u.length, u.name)
		if i+1 < len(units) {
			if rest := seconds % u.length / units[i+1].length; rest > 0 {
				text += fmt.Sprintf(" %d %s", rest, units[i+1].name)
			}
		}
		return text
	}
	return "0 s"
}

// size formats a number of bytes in the largest unit with a digit before the point.
func size(bytes int64) string {
	if bytes < 1000 {
		return fmt.Sprintf("%d B", bytes)
	}
	n, unit := float64(bytes), ""
	for _, unit = range []string{"kB", "MB", "GB", "TB"} {
		if n /= 1000; n < 999.95 {
			break
		}
	}
	return fmt.Sprintf("%.1f %s", n, unit)
}

// are returns "1 noun is" or "n nouns are".
func are(n int, noun string) string {
	if n == 1 {
		return audit.Count(n, noun) + " is"
	}
	return audit.Count(n, noun) + " are"
}

// printable returns outside text without control codes for the terminal, and of at most this length.
func printable(s string, most int) string {
	runes := []rune(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '·'
		}
		return r
	}, s))
	if len(runes) > most {
		runes = append(runes[:most-1], '…')
	}
	return string(runes)
}

// notes are what a reader must know to judge the figures.
func (f *Feed) notes() []string {
	notes := []string{"Objects that the feed has deleted after transfer are not counted."}
	if f.Unread > 0 {
		notes = append(notes, fmt.Sprintf("%s not read, the oldest: the figures of records are too low. Raise --max-bytes, or lower --days.",
			are(f.Unread, "object")))
	}
	if f.Repeats > 0 {
		notes = append(notes, fmt.Sprintf("%s in more than one object, and counted once.", are(f.Repeats, "record")))
	}
	if f.Outside > 0 {
		notes = append(notes, fmt.Sprintf("%s not of these days, and so not in the chart.", are(f.Outside, "record")))
	}
	if f.Bad > 0 {
		notes = append(notes, fmt.Sprintf("%s no record, and not counted.", are(f.Bad, "line")))
	}
	if f.Others > 0 {
		notes = append(notes, fmt.Sprintf("%s under the prefix without being named as a run names its own, such as %s: the feed reads that, too.",
			are(f.Others, "object"), printable(f.Other, 200)))
	}
	return notes
}

func (f *Feed) summary() string {
	older := ""
	if f.Older > 0 {
		older = fmt.Sprintf("; %s older", audit.Number(f.Older))
	}
	return fmt.Sprintf("%s with %s, %s, in %s%s", audit.Count(len(f.Objects), "object"), audit.Count(f.Records, "record"), size(f.Bytes), audit.Count(f.days, "day"), older)
}

func (s *Staged) fate() string {
	switch s.Now {
	case StagedPublished:
		return "nothing; the last object is published as " + s.PublishesAs
	case StagedPending:
		return fmt.Sprintf("%s (%s): the next run publishes it as %s", s.Object, size(s.Bytes), s.PublishesAs)
	case StagedRewritten:
		return fmt.Sprintf("%s (%s) was written again after its commit: the next run says what becomes of it", s.Object, size(s.Bytes))
	case StagedUnknown:
		return s.Object + ", or it is published by now: it could not be looked for"
	}
	return s.Object + " lies in a bucket that STATE_BUCKET no longer names: set it back for one run"
}
