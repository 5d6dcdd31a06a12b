package report

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/auditlog/internal/state"
)

// keep lets a developer look at what the browser shows.
var keep = os.Getenv("AUDITLOG_SCREENSHOTS") // a directory

// browser finds one of Chromium's family, or skips the test.
func browser(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("a browser takes seconds: not in short tests")
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if file, err := exec.LookPath(name); err == nil {
			return file
		}
	}
	t.Skip("NOT TESTED: no Chromium or Chrome in PATH to open the page with")
	return ""
}

// browse opens a file and returns what the browser writes, and says.
func browse(t *testing.T, browser, file string, args ...string) (out, log string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, browser, append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-dev-shm-usage", "--hide-scrollbars", "--force-device-scale-factor=1",
		"--enable-logging=stderr", "--user-data-dir=" + t.TempDir(),
	}, append(args, "file://"+file)...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 10 * time.Second // its helpers may hold the pipes
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatalf("%s: %v\n%s", browser, err, stderr.String())
	}
	return stdout.String(), stderr.String()
}

// TestBrowser opens the page in a real browser: it has all marks, complains of
// nothing, asks nobody for anything, and fits a screen and a phone.
func TestBrowser(t *testing.T) {
	chromium := browser(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "page.html")
	r := sample()
	if err := os.WriteFile(file, []byte(render(t, r)), 0o666); err != nil {
		t.Fatal(err)
	}
	dom, log := browse(t, chromium, file, "--dump-dom")
	noComplaint(t, log)

	bars := 0
	for _, h := range r.Feed.Hours {
		shown, others := 0, 0
		for typ := range h.Types {
			others = 1
			for _, c := range r.Feed.Types[:shownTypes] {
				if c.Type == typ {
					shown++
				}
			}
		}
		if len(h.Types) > shown {
			shown += others
		}
		bars += shown
	}
	objects := len(r.Feed.Objects)
	for id, want := range map[string]int{
		"events":   bars,
		"coverage": 3 + 5 + 1, // what is collected, without what is to read; windows and what is new; a gap
		"lags":     objects - r.Feed.Unread,
		"sizes":    objects,
	} {
		svg := regexp.MustCompile(`(?s)<svg id="` + id + `".*?</svg>`).FindString(dom)
		if got := strings.Count(svg, "<rect "); got != want || want == 0 {
			t.Errorf("plot %s has %d marks, want %d", id, got, want)
		}
	}
	if strings.Contains(dom, "<script") || !strings.Contains(dom, "&lt;script&gt;") {
		t.Error("text from outside became part of the page")
	}

	// Whether pages fit, they measure themselves: in copies that may run a script,
	// in frames of a phone's width and of a screen's.
	short, long := sample(), sample()
	short.Feed, long.Feed = hourly(r.Feed, 1), hourly(r.Feed, 30)
	short.State.Stream = newStream(&state.Stream{High: r.State.High, Covered: []state.Span{r.State.Collected[0].Span}})
	year := sample()
	year.Feed = yearOf(r.Feed)
	year.State.Stream = newStream(&state.Stream{High: now.Unix(), Covered: []state.Span{rng(now.AddDate(-1, -2, 0).Unix(), now.Unix())}})
	ages := sample()
	ages.State.Stream = newStream(&state.Stream{High: now.Unix(), Covered: []state.Span{rng(now.AddDate(-6, 0, 0).Unix(), now.Unix())}})
	frames := ""
	var wanted []string
	for name, r := range map[string]*Report{"sample": r, "short": short, "long": long, "year": year, "ages": ages} {
		page := regexp.MustCompile(`<meta http-equiv[^>]*>`).ReplaceAllString(render(t, r), "")
		page = strings.Replace(page, "</body>", probeScript+"</body>", 1)
		if err := os.WriteFile(filepath.Join(dir, name+".html"), []byte(page), 0o666); err != nil {
			t.Fatal(err)
		}
		for _, width := range []int{360, 1200} {
			frames += fmt.Sprintf(`<iframe src="%s.html#%[1]s" width="%d" height="900" style="border:0"></iframe>`, name, width)
			wanted = append(wanted, fmt.Sprintf("MEASURED #%s %d wide, 0 clipped, 0 overlapping:", name, width))
		}
	}
	frame := filepath.Join(dir, "frames.html")
	if err := os.WriteFile(frame, []byte("<!DOCTYPE html><body>"+frames), 0o666); err != nil {
		t.Fatal(err)
	}
	_, log = browse(t, chromium, frame, "--dump-dom", "--window-size=1300,900")
	for _, want := range wanted {
		if !strings.Contains(log, want) {
			t.Errorf("the log of the browser lacks %q:\n%s", want, strings.Join(regexp.MustCompile(`.*CONSOLE.*`).FindAllString(log, -1), "\n"))
		}
	}

	if keep == "" {
		return
	}
	for name, args := range map[string][]string{
		"light": {"--window-size=1200,2600", "--blink-settings=preferredColorScheme=1"},
		"dark":  {"--window-size=1200,2600", "--blink-settings=preferredColorScheme=0"},
		"phone": {"--window-size=500,2600"}, // the narrowest window that it makes
	} {
		_, log := browse(t, chromium, file, append(args, "--screenshot="+filepath.Join(keep, name+".png"))...)
		noComplaint(t, log)
	}
}

// hourly is a feed of so many days with one record an hour.
func hourly(f *Feed, days int) *Feed {
	g := newFeed(f.Prefix, days, now)
	for _, h := range slices.Backward(g.Hours) {
		o := &Object{Name: h.Start.String(), Created: h.Start, Bytes: 1e9, Read: true}
		add(o, h.Start.Unix()-1, strings.Repeat("long.type.", 9))
		g.Objects = append(g.Objects, o)
	}
	g.finish()
	return g
}

func noComplaint(t *testing.T, log string) {
	t.Helper()
	if lines := regexp.MustCompile(`.*CONSOLE.*`).FindAllString(log, -1); len(lines) > 0 {
		t.Errorf("the browser complains: %s", strings.Join(lines, "\n"))
	}
}

// probeScript tells the page's width, the labels that stand out of it, and those
// of one axis that overlap.
const probeScript = `<script>
const boxes = s => [...document.querySelectorAll(s)].map(e => [e, e.getBoundingClientRect()]).filter(([e, b]) => b.width > 0);
let clipped = [], overlapping = [];
for (const [e, b] of boxes('.x, .y, li, dd, dt, p, h1, h2, .plot')) {
	if (b.left < 0 || b.right > document.documentElement.clientWidth + 0.5) clipped.push(e.textContent.slice(0, 40));
}
for (const plot of document.querySelectorAll('.plot')) for (const axis of ['x', 'y']) {
	const labels = [...plot.querySelectorAll('.' + axis)].map(e => [e, e.getBoundingClientRect()]).filter(([e, b]) => b.width > 0);
	for (const [e, a] of labels) for (const [f, b] of labels) {
		if (e !== f && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom) overlapping.push(e.textContent);
	}
}
console.log('MEASURED ' + location.hash + ' ' + document.documentElement.scrollWidth + ' wide, ' + clipped.length + ' clipped, ' + overlapping.length + ' overlapping: ' + clipped + '; ' + overlapping);
</script>`
