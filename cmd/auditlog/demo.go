package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/caarlos0/env/v11"
	"github.com/spf13/cobra"

	"example.com/auditlog"
	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/cloudlog"
	"example.com/auditlog/internal/config"
	"example.com/auditlog/internal/sim/auditapi"
	"example.com/auditlog/internal/sim/world"
	"example.com/auditlog/internal/state"
)

// The events of a Pub/Sub topic.
const (
	eventType   = "google.cloud.pubsub.topic.v1.messagePublished"
	eventSource = "//pubsub.googleapis.com/projects/demo/topics/audit-logs"
)

// lookback is the age of the oldest records. The first run, which begins later,
// must still reach them.
const lookback = 24*time.Hour - 10*time.Minute

// maxDeliveries bounds how often an event that is not acknowledged is delivered.
const maxDeliveries = 20

func demoCommand() *cobra.Command {
	var o demoOptions
	c := &cobra.Command{
		Use:   "demo",
		Short: "Demonstrate the collector on a simulated API and bucket",
		Long: `demo needs no account, no key and no cloud. It starts a simulated audit log API and
a bucket that is a directory. Between them is the real function, served by Google's
Functions Framework and triggered as Pub/Sub does it. At the end demo compares every
record of the API with every line that the feed got; the exit status is 1 if one is
missing, repeated or changed. Then verify finds a line that was taken out of an object,
and adds its record again.

With --chaos, the API and the bucket fail in every way they can, and runs race each
other and are killed on the way. The promise stays the same.

The directory is kept, for you to look into. "auditlog sandbox" is the same
simulation for you to run commands against.`,
		Example: `  auditlog demo
  auditlog demo --chaos
  auditlog demo --chaos --seed 7 --dir /tmp/chaos-7`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.out = cmd.OutOrStdout()
			return runDemo(o)
		},
	}
	c.Flags().StringVar(&o.dir, "dir", "", "directory for the bucket and the log, new or empty (default a temporary one)")
	c.Flags().BoolVar(&o.chaos, "chaos", false, "let everything fail")
	c.Flags().Uint64Var(&o.seed, "seed", 1, "seed of the records and, with --chaos, of the faults")
	c.Flags().BoolVar(&o.logs, "logs", false, "show the function's log here, instead of writing it to function.log")
	return c
}

type demoOptions struct {
	dir         string
	chaos, logs bool
	seed        uint64
	out         io.Writer
}

// demo is a demonstration under way.
type demo struct {
	demoOptions
	*world.World
	bucket, prefix, stateKey string
	address                  string // of the function
	width                    int    // of the reader's terminal
	rand                     *rand.Rand
	shown                    map[string]bool // objects
	announced, collected     int             // records, as the reader has been told
	runs, events             int
	faults                   faults
	growing                  atomic.Bool // records are added while a run reads

	mu      sync.Mutex // the API and the bucket tell of faults while a run is under way
	records *auditapi.Generator
}

func runDemo(o demoOptions) error {
	d, err := newDemo(o)
	if err != nil {
		return err
	}
	defer d.Close()
	if o.chaos {
		err = d.chaosStory()
	} else {
		err = d.story()
	}
	// Whatever kept the story from its end, the comparison shows where it stands.
	err = errors.Join(err, d.verdict())
	if err == nil && !o.chaos {
		err = d.verify()
	}
	d.printf("\n")
	d.line("bucket", "%s", filepath.Join(d.dir, d.bucket))
	if !o.logs {
		d.line("log", "%s", filepath.Join(d.dir, "function.log"))
	}
	return err
}

// newDemo sets the stage: the world, the function's environment, the function.
func newDemo(o demoOptions) (*demo, error) {
	var err error
	if o.dir, err = emptyDir(o.dir); err != nil {
		return nil, err
	}
	d := &demo{
		demoOptions: o,
		width:       cmp.Or(columns(o.out), 100),
		rand:        rand.New(rand.NewPCG(o.seed, 0)),
		shown:       map[string]bool{},
		records:     auditapi.NewGenerator(o.seed),
		faults:      faults{calm: map[operation]bool{}, struck: map[string]int{}},
	}
	if d.World, err = world.New(world.Options{Dir: o.dir, Buckets: []string{"demo-logs"}}); err != nil {
		return nil, err
	}
	settings := d.Settings()
	settings["MAX_RECORDS"] = "1000"
	if o.chaos {
		settings["MAX_RECORDS"], settings["PAGE_SIZE"] = "300", "50"
	}
	d.bucket, d.prefix, d.stateKey = settings["GCS_BUCKET"], settings["GCS_PREFIX"], settings["STATE_KEY"]
	setEnvironment(settings)
	if !o.logs {
		f, err := os.Create(filepath.Join(o.dir, "function.log"))
		if err != nil {
			return nil, err
		}
		os.Stderr, auditlog.Logs = f, f
		log.SetOutput(f)
	}
	if err := d.serve(); err != nil {
		return nil, err
	}
	d.APIFaults.SetHooks(d.keepGrowing, nil)

	d.printf("%s\n\n", wrappedLine("The function reads a simulated audit log API, and writes to a bucket that is a directory.", d.width))
	d.line("API", "%s", d.APIBase())
	d.line("function", "http://%s/", d.address)
	if o.chaos {
		d.line("seed", "%d", o.seed)
	}
	return d, nil
}

// emptyDir makes sure that nothing of the reader's is in the way.
func emptyDir(dir string) (string, error) {
	if dir == "" {
		return os.MkdirTemp("", "auditlog-demo-")
	}
	switch entries, err := os.ReadDir(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return dir, os.MkdirAll(dir, 0o777)
	case err != nil:
		return "", err
	case len(entries) > 0:
		return "", fmt.Errorf("directory %q is not empty: name a new one with --dir", dir)
	}
	return dir, nil
}

// setEnvironment makes the environment the function's, and keeps out what the
// reader's own holds: a demonstration must never touch a real bucket.
func setEnvironment(settings map[string]string) {
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		for _, prefix := range []string{"CLOUD_RUN_", "FUNCTION_", "GCS_", "GOOGLE_", "K_", "OPENAI_", "STORAGE_"} {
			if strings.HasPrefix(name, prefix) {
				os.Unsetenv(name)
			}
		}
	}
	for _, s := range config.Settings() {
		os.Unsetenv(s.Name)
	}
	for name, value := range settings {
		os.Setenv(name, value)
	}
}

// serve serves the function on a free port, and returns when it answers.
func (d *demo) serve() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	d.address = l.Addr().String()
	l.Close() // the framework opens ports by their numbers only
	host, port, err := net.SplitHostPort(d.address)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- serve(host, port) }()
	return await(d.address, failed)
}

// await returns when something listens at address, or has failed to.
func await(address string, failed <-chan error) error {
	for {
		if c, err := net.Dial("tcp", address); err == nil {
			return c.Close()
		}
		select {
		case err := <-failed:
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// story is the demonstration in which nothing fails.
func (d *demo) story() error {
	steps := []struct {
		title string
		first func() // what happens before the trigger
		feed  bool   // the feed reads after the run
	}{
		{"the first one reaches 24 hours back", func() { d.add(800, lookback) }, false},
		{"what is new by now, and records that appear up to 100 seconds late", func() {
			d.growing.Store(false)
			d.add(100, 5*time.Second)
			d.add(50, 100*time.Second)
		}, true},
		{"no news, and no object", func() {}, false},
		{"a burst beyond MAX_RECORDS, 1000 here: the rest becomes the backlog", func() {
			d.add(2500, 60*time.Second)
			d.growing.Store(true)
		}, false},
		{"Pub/Sub delivers twice: the backlog drains, fresh records first", func() { d.add(40, 5*time.Second) }, true},
	}
	d.growing.Store(true)
	for i, s := range steps {
		d.begin(s.title)
		s.first()
		d.announce()
		if err := d.deliver(d.event()); err != nil {
			return err
		}
		if i == len(steps)-1 {
			d.show(3)
			if err := d.deliver(d.events); err != nil {
				return err
			}
		}
		d.show(3)
		if s.feed {
			if err := d.feed(false); err != nil {
				return err
			}
		}
	}
	d.growing.Store(false)
	return d.drain(false)
}

// drain triggers runs until one has found nothing new and left nothing open.
func (d *demo) drain(remove bool) error {
	for range 20 {
		d.begin("no more news; what is left is collected")
		if err := d.deliver(d.event()); err != nil {
			return err
		}
		fresh := d.show(1)
		if err := d.feed(remove); err != nil {
			return err
		}
		if s, err := d.state(); err == nil && fresh == 0 && len(s.Backlog) == 0 && s.Staged == "" {
			return nil
		}
	}
	return errors.New("runs do not come to an end of the news")
}

// keepGrowing is the hook that adds records: an organization does not hold its
// breath while its log is read.
func (d *demo) keepGrowing(int, *http.Request) {
	if d.growing.Load() {
		d.add(1, 0)
	}
}

// add adds n records to the API, of the time from back ago to now.
func (d *demo) add(n int, back time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	ats := make([]int64, n)
	for i := range ats {
		ats[i] = now.Add(-time.Duration(d.rand.Int64N(int64(back) + 1))).Unix()
	}
	slices.Sort(ats)
	raw := make([][]byte, n)
	for i, at := range ats {
		raw[i] = d.records.Next(at)
	}
	if err := d.API.Add(raw...); err != nil {
		panic(err) // the generator's records are good
	}
}

// event publishes: it returns the id of a new event.
func (d *demo) event() int {
	d.events++
	return d.events
}

// deliver delivers an event as Pub/Sub does: again, until it is acknowledged.
func (d *demo) deliver(event int) error {
	for range maxDeliveries {
		started := time.Now()
		status, err := post(d.address, event)
		if err != nil {
			return err
		}
		took := time.Since(started).Seconds()
		if status/100 == 2 {
			d.line("Pub/Sub", "event %d is acknowledged: %d after %.1f s", event, status, took)
			return nil
		}
		d.line("Pub/Sub", "event %d is not: %d after %.1f s; it is delivered again", event, status, took)
		d.faults.count("Pub/Sub: event delivered again")
	}
	return fmt.Errorf("event %d was delivered %d times in vain", event, maxDeliveries)
}

// post sends an event in the form in which Eventarc sends those of Pub/Sub.
func post(address string, event int) (status int, err error) {
	id := strconv.Itoa(event)
	body := fmt.Sprintf(`{"message":{"data":"e30=","messageId":%q,"publishTime":%q},"subscription":"projects/demo/subscriptions/audit-logs"}`,
		id, time.Now().UTC().Format(time.RFC3339Nano))
	req, err := http.NewRequest(http.MethodPost, "http://"+address+"/projects/demo/topics/audit-logs", strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	for name, value := range map[string]string{
		"Content-Type":   "application/json",
		"Ce-Specversion": "1.0",
		"Ce-Type":        eventType,
		"Ce-Source":      eventSource,
		"Ce-Id":          id,
	} {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// show shows the objects that are new under the feed prefix, with the first of
// their records, and the state. It returns how many objects are new.
func (d *demo) show(records int) (fresh int) {
	for _, o := range d.Bucket.Objects(d.bucket, d.prefix+"/") {
		if d.shown[o.Name] {
			continue
		}
		d.shown[o.Name] = true
		fresh++
		data, err := d.Bucket.Read(d.bucket, o.Name)
		if err != nil {
			d.line("object", "%s cannot be read: %v", o.Name, err)
			continue
		}
		lines := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
		d.collected += len(lines)
		d.line("object", "%s, %s:", o.Name, audit.Count(len(lines), "record"))
		for _, l := range lines[:min(records, len(lines))] {
			d.sample(l)
		}
	}
	d.account()
	s, err := d.state()
	if err != nil {
		d.line("state", "%v", err)
		return fresh
	}
	if _, _, err := d.Bucket.Get(d.bucket, s.Staged); s.Staged != "" && err == nil {
		d.line("staged", "%s is committed, and not yet published", s.Staged)
	}
	clock := func(unix int64) string { return time.Unix(unix, 0).UTC().Format("Mon 15:04:05") }
	d.line("state", "last_effective_at %s, high %s, %s", clock(s.Watermark), clock(s.High), audit.Count(len(s.Recent), "recent id"))
	for _, w := range s.Backlog {
		d.line("", "left to read: %s back to %s", clock(cmp.Or(w.AfterAt, w.Lte)), clock(w.Gte))
	}
	return fresh
}

// announce says how many records there are before a run.
func (d *demo) announce() {
	d.announced = len(d.API.Records())
	d.line("API", "holds %s", audit.Count(d.announced, "record"))
}

// account says what has become of the records: more may have come than were announced.
func (d *demo) account() {
	before := d.announced
	d.announced = len(d.API.Records())
	text := fmt.Sprintf("%s published, %s left", audit.Count(d.collected, "record"), audit.Count(d.announced-d.collected, "record"))
	if came := d.announced - before; came > 0 {
		text += fmt.Sprintf("; %s came during the run", audit.Count(came, "record"))
	}
	d.line("so far", "%s", text)
}

func (d *demo) state() (s state.State, err error) {
	data, err := d.Bucket.Read(d.bucket, d.stateKey)
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(data, &s)
}

// feed lets the feed read what is new under its prefix, and delete it then where
// it is set to.
func (d *demo) feed(remove bool) error {
	before := d.Report().Collected
	if err := d.Feed(remove); err != nil {
		return err
	}
	n, then := d.Report().Collected-before, ""
	if remove && n > 0 {
		then = ", and deletes what it has read"
	}
	d.line("feed", "reads %s%s", audit.Count(n, "line"), then)
	return nil
}

// verdict compares what the API holds with what the feed got.
func (d *demo) verdict() error {
	if err := d.Feed(false); err != nil {
		return err
	}
	r := d.Report()
	d.printf("\nEvery record of the API, against every line that the feed got:\n\n")
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	for _, row := range []struct {
		name  string
		count int
	}{
		{"records in the API", len(d.API.Records())},
		{"lines in the feed", r.Collected},
		{"missing", r.Missing},
		{"repeated", r.Repeated},
		{"altered", r.Altered},
	} {
		fmt.Fprintf(w, "  %s\t%6d\n", row.name, row.count)
	}
	w.Flush()
	if err := r.Err(); err != nil {
		return fmt.Errorf("the promise is broken, look into %s: %w", d.dir, err)
	}
	d.printf("\nNothing is lost, nothing is repeated, nothing is changed.\n")
	return nil
}

// verify takes a line out of an object, as an accident may, and lets verify find the record and
// add it again.
func (d *demo) verify() error {
	name := d.Bucket.Objects(d.bucket, d.prefix+"/")[0].Name
	data, err := d.Bucket.Read(d.bucket, name)
	if err != nil {
		return err
	}
	at := func(line []byte) int64 {
		record, _ := audit.DecodeLine(line) // the generator's records are good
		return record.At
	}
	oldest := slices.MinFunc(slices.Collect(bytes.Lines(data)), func(a, b []byte) int { return cmp.Compare(at(a), at(b)) })
	if err := d.Bucket.Write(d.bucket, name, bytes.Replace(data, oldest, nil, 1)); err != nil {
		return err
	}
	d.printf("\n%s\n\n", wrappedLine(`"auditlog verify" makes this comparison for any bucket. An accident takes a line out of an object; verify finds the record, and --repair adds it:`, d.width))
	cfg, err := config.Load(env.ToMap(os.Environ()))
	if err != nil {
		return err
	}
	for _, repair := range []bool{false, true, false} {
		o := verifyOptions{repair: repair}
		o.Progress = func(float64) {}
		report, err := o.verify(context.Background(), cfg, cloudlog.New(auditlog.Logs))
		if err != nil {
			return err
		}
		d.line("verify", "%s", report.Verdict)
		if repair && report.Repaired != nil {
			d.line("repair", "%s, now in %s", audit.Count(report.Repaired.Records, "record"), report.Repaired.Object)
		}
	}
	return nil
}

// begin begins a step.
func (d *demo) begin(title string) {
	d.runs++
	d.printf("\n%s\n", wrappedLine(fmt.Sprintf("Run %d: %s", d.runs, title), d.width))
}

// line prints one line of a step.
func (d *demo) line(label, format string, args ...any) {
	d.printf("%s\n", wrappedLine(plain(fmt.Sprintf("  %-8s  ", label)+fmt.Sprintf(format, args...)), d.width))
}

// sample prints a record, cut to the reader's terminal.
func (d *demo) sample(record []byte) {
	text := []rune(plain(fmt.Sprintf("%12s%s", "", record)))
	if len(text) > d.width {
		text = append(text[:d.width-1], '…')
	}
	d.printf("%s\n", string(text))
}

// plain is text without what a terminal would obey.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '·'
		}
		return r
	}, text)
}

func (d *demo) printf(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.out, format, args...)
}
