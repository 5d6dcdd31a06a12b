package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

var update = flag.Bool("update", false, "write the golden files anew")

var now = time.Date(2026, 11, 24, 12, 34, 56, 0, time.UTC)

// hostile is what somebody outside could name a thing.
const hostile = "</title></svg><script>console.error('x')</script>\x1b[31m&\"'"

// sample is a report that has some of everything, and always the same.
func sample() *Report {
	at := func(d time.Duration) int64 { return now.Add(-d).Unix() }
	const hour, day = time.Hour, 24 * time.Hour
	r := &Report{Time: now, State: State{
		Object:       "gs://logs/state/openai-auditlog/state.json",
		Committed:    true,
		Organization: "example-org",
		LagSeconds:   int64((26 * hour).Seconds()),
		Staged: &Staged{
			Object:      "gs://logs/state/openai-auditlog/staged/state.json/20261124T120006Z-abc.ndjson",
			PublishesAs: "gs://logs/openai-auditlog/openai_auditlog_20261124_120006.ndjson",
			Now:         "pending",
			Bytes:       123456,
		},
	}}
	const last = "2026-11-24T12:00:06Z"
	asked := rng(at(9*day), at(7*day))
	r.State.Stream = newStream(&state.Stream{
		Watermark: at(9 * day), LastRun: last, High: at(35 * time.Minute), Filter: "event_types%5B%5D=a", Own: true,
		Covered: []state.Span{{Gte: at(4 * day), Lte: at(35 * time.Minute), Filter: "event_types%5B%5D=a"}, rng(at(5*day), at(4*day)), rng(at(9*day), at(6*day))},
		Backlog: []state.Window{
			{Gte: at(26 * hour), Lte: at(2 * hour), After: "audit_log-1", Top: at(2 * hour), AfterAt: at(20 * hour)},
			{Gte: at(5 * day), Lte: at(5 * day), SetAside: true},
			{Gte: at(8 * day), Lte: at(7 * day), Backfill: asked}, {Gte: at(9 * day), Lte: at(8*day) - 1, Backfill: asked},
		},
		Recent: recent(12),
	})
	r.State.Stream.Filter = "EVENT_TYPES=" + hostile
	tenant := newStream(&state.Stream{
		Watermark: at(3 * day), LastRun: last, High: at(35 * time.Minute), Own: true,
		Covered: []state.Span{rng(at(3*day), at(35*time.Minute))},
		Backlog: []state.Window{{Gte: at(3 * day), Lte: at(2 * day), After: "audit_log-2", Top: at(2 * day), AfterAt: at(50 * hour), SetAside: true}},
		Recent:  recent(3),
	})
	r.State.Tenant = &tenant

	random := rand.New(rand.NewPCG(1, 2))
	types := []string{"login.succeeded", "api_key.created", "login.failed", "logout.succeeded", "project.created", "user.added",
		"invite.sent", "rate_limit.updated", "role.assignment.created", "certificate.deleted", hostile}
	f := newFeed("gs://logs/openai-auditlog/", 3, now)
	for i := range 73 {
		created := now.Add(-time.Duration(i) * hour).Truncate(hour).Add(6 * time.Second)
		if created.Before(f.Since) {
			continue
		}
		o := &Object{Name: created.Format("openai_auditlog_20060102_150405.ndjson"), Created: created, Read: i < 70}
		busy := 40 + 35*math.Sin(float64(created.Hour()-8)/24*2*math.Pi)
		n := int(busy) + random.IntN(20)
		reach := 3600
		if i == 5 {
			n, reach = 400, 100000
		}
		o.Bytes = int64(n)*1100 + int64(random.IntN(300))
		for range n {
			if o.Read {
				k := min(random.IntN(len(types)), random.IntN(len(types)))
				add(o, created.Unix()-int64(random.IntN(reach))-3, types[k])
			}
		}
		f.Objects = append(f.Objects, o)
	}
	add(f.Objects[3], at(80*hour), "")
	f.Objects[2].lines = append(f.Objects[2].lines, f.Objects[6].lines[0]) // written again
	f.Objects[3].Bad = 1
	f.Older, f.Others, f.Other = 1234, 1, hostile
	f.finish()
	r.Feed = f
	r.Errors = []string{"something could not be read: " + hostile}
	r.judge(2 * hour)
	return r
}

func recent(n int) (r state.Recent) {
	for i := range n {
		r = append(r, state.Remembered{Identity: audit.Identity{ID: fmt.Sprint(i)}})
	}
	return r
}

var added uint64

// add adds a record that no other object has.
func add(o *Object, at int64, typ string) {
	added++
	o.lines = append(o.lines, audit.Line{At: at, Type: typ, Hash: added})
}

func rng(gte, lte int64) state.Span { return state.Span{Gte: gte, Lte: lte} }

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func text(t *testing.T, r *Report, colour bool) string {
	t.Helper()
	var b strings.Builder
	if err := Screen(&b, r, 80, colour); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestScreen(t *testing.T) {
	got := text(t, sample(), false)
	golden(t, "screen.txt", got)
	for _, line := range strings.Split(got, "\n") {
		if n := len([]rune(line)); n > 80 && !strings.Contains(line, "gs://") {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	coloured := text(t, sample(), true)
	if !strings.Contains(coloured, "\x1b[") || strings.Contains(got, "\x1b") {
		t.Error("colour is not where it should be")
	}
	if plain := regexp.MustCompile(`\x1b\[\d+m`).ReplaceAllString(coloured, ""); plain != got {
		t.Errorf("colours change more than colours:\n%s", cmp.Diff(got, plain))
	}
}

// TestScreenOfLittle: what is not there is said, or left out.
func TestScreenOfLittle(t *testing.T) {
	r := &Report{Time: now, State: State{Object: "gs://logs/state.json"}, Feed: newFeed("gs://logs/openai-auditlog/", 1, now)}
	r.Feed.finish()
	r.judge(time.Hour)
	got := text(t, r, false)
	r.State.Committed, r.Feed = true, nil
	r.State.Stream = newStream(&state.Stream{Watermark: now.Unix(), High: now.Unix()})
	r.judge(time.Hour)
	r.State.Staged = &Staged{Object: "gs://logs/staged/x", PublishesAs: "gs://logs/y", Now: "published"}
	got += "\n" + text(t, r, false)
	for _, s := range []string{"rewritten", "elsewhere", "unknown"} {
		r.State.Staged.Now = s
		got += "\n" + text(t, r, false)
	}
	golden(t, "little.txt", got)
}

func TestPlain(t *testing.T) {
	var b strings.Builder
	if err := Plain(&b, sample()); err != nil {
		t.Fatal(err)
	}
	golden(t, "plain.txt", b.String())
}

func TestJSON(t *testing.T) {
	r := sample()
	r.Feed.Objects, r.Feed.Hours = r.Feed.Objects[:2], r.Feed.Hours[:2]
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", string(b)+"\n")
}

func render(t *testing.T, r *Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := HTML(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestHTML: the page needs nothing from elsewhere, and shows text from outside
// as text. TestBrowser looks at the plots.
func TestHTML(t *testing.T) {
	got := render(t, sample())
	for _, banned := range []string{"<script", "http://", "https://", "url(", "@import", "src=", "<link", "ZgotmplZ", "NaN", "Inf", "\x1b"} {
		if strings.Contains(got, banned) {
			t.Errorf("the page has %q", banned)
		}
	}
	if !strings.Contains(got, "&lt;script&gt;") {
		t.Error("the page lacks what should be escaped")
	}
	for _, m := range regexp.MustCompile(`<rect class="[a-z0-9]+" x="([^"]+)" y="([^"]+)" width="([^"]+)" height="([^"]+)">`).FindAllStringSubmatch(got, -1) {
		var x, y, w, h float64
		if _, err := fmt.Sscan(strings.Join(m[1:], " "), &x, &y, &w, &h); err != nil || x < -.01 || y < -.01 || w <= 0 || h <= 0 || x+w > plotWidth+.01 || y+h > plotHeight+.01 {
			t.Errorf("mark %s is not in its box: %v", m[0], err)
		}
	}
}

// TestHTMLValues: wherever there is a mark, the page shows its value under the pointer.
func TestHTMLValues(t *testing.T) {
	r := sample()
	p := newPage(r)
	got := render(t, r)
	for _, plot := range p.Plots {
		for _, m := range plot.Marks {
			x, y := (m.X+m.W/2)/plotWidth*100, m.Y+m.H/2
			if !slices.ContainsFunc(plot.Hits, func(h hit) bool { return h.X <= x && x <= h.X+h.W && h.Y <= y && y <= h.Y+h.H && h.Value != "" }) {
				t.Errorf("plot %s shows no value at %v", plot.ID, m)
			}
		}
	}
	hour := r.Feed.Hours[len(r.Feed.Hours)-2]
	for _, want := range []string{
		fmt.Sprintf(`data-value="%s, %d records: login.succeeded `, stamp(hour.Start), hour.Records),
		`data-value="backfill, to read: 2026-11-16T12:34:56Z to 2026-11-17T12:34:56Z, 1 d"`,
		`data-value="collected with a filter: 2026-11-20T12:34:56Z to 2026-11-24T11:59:56Z, 3 d 23 h, only EVENT_TYPES=a"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}

// TestHTMLOfLittle: no report breaks the page.
func TestHTMLOfLittle(t *testing.T) {
	empty := newFeed("gs://logs/openai-auditlog/", 1, now)
	empty.finish()
	full := sample()
	for name, r := range map[string]*Report{
		"no run":    {Time: now, Feed: empty},
		"no feed":   {Time: now, State: full.State, Errors: []string{"listing failed"}},
		"unknown":   {Time: now, State: State{Committed: true, Stream: newStream(&state.Stream{High: now.Unix()})}, Feed: full.Feed},
		"year":      {Time: now, State: full.State, Feed: yearOf(full.Feed)},
		"in future": {Time: now.Add(-99 * time.Hour), State: full.State, Feed: empty},
	} {
		got := render(t, r)
		if !strings.HasSuffix(got, "</html>\n") || strings.Contains(got, "NaN") || strings.Contains(got, "Inf") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func yearOf(f *Feed) *Feed {
	year := newFeed(f.Prefix, 365, now)
	for i := range 3000 {
		created := now.Add(-time.Duration(i) * 150 * time.Minute)
		o := &Object{Name: fmt.Sprint(i), Created: created, Bytes: 5, Read: true}
		add(o, created.Unix()-60, "a")
		year.Objects = append(year.Objects, o)
	}
	year.finish()
	return year
}

func TestTypesAreBounded(t *testing.T) {
	f := newFeed("p", 1, now)
	o := &Object{Read: true}
	for i := range 5000 {
		add(o, now.Unix()-int64(i), fmt.Sprint("type ", i))
	}
	f.Objects = append(f.Objects, o)
	f.finish()
	if len(f.Types) != maxTypes+1 || f.Types[0] != (Count{otherTypes, 5000 - maxTypes}) || f.Records != 5000 {
		t.Errorf("%d types, first %v, %d records", len(f.Types), f.Types[0], f.Records)
	}
}

func TestUnits(t *testing.T) {
	for want, got := range map[string]string{
		"0 s": span(0), "59 s": span(59), "1 min": span(60), "1 h 1 min": span(3661), "9 d": span(9 * 86400), "2 d 3 h": span(2*86400 + 3*3600 + 59),
		"999 B": size(999), "1.0 kB": size(1000), "1.0 MB": size(999_950), "2.5 GB": size(2_500_000_000), "2000.0 TB": size(2e15),
		"1 object is": are(1, "object"), "1,234 objects are": are(1234, "object"),
		"a·b…": printable("a\x1bbcd", 4),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
