package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/sim/fault"
)

// operation is what a request is about, for the faults to choose by.
type operation string

const (
	anyPage    operation = "any page"
	laterPage  operation = "a later page" // asked for with a cursor
	readState  operation = "state is read"
	look       operation = "an object is looked for"
	upload     operation = "records are written"
	writeState operation = "state is written"
	publish    operation = "object is published"
)

// strike is one fault, waiting for its operation.
type strike struct {
	at   operation
	kind string // what it is counted as
	text string // what it looks like
	fault.Fault
	effect func() // on the world, where the fault is not the answer's
}

// strikes is every way in which the API and the bucket fail.
func (d *demo) strikes() []strike {
	header := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
		return h
	}
	refuse := func(status int, h http.Header, body string) fault.Fault {
		return fault.Fault{Kind: fault.Refuse, Status: status, Header: h, Body: body}
	}
	const (
		apiError = `{"error":{"message":"The server had an error while processing your request","type":"server_error","param":null,"code":null}}`
		limited  = `{"error":{"message":"Rate limit reached","type":"requests","param":null,"code":"rate_limit_exceeded"}}`
		html     = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body>\r\n</html>\r\n"
	)
	all := []strike{
		{anyPage, "API: 500", "the API answers 500", refuse(500, nil, apiError), nil},
		{anyPage, "API: 503", "the API answers 503, and asks for no wait", refuse(503, header("Retry-After", "0"), apiError), nil},
		{anyPage, "API: 429", "the API answers 429, and asks for a wait of 0.2 seconds", refuse(429, header("Retry-After", "0.2"), limited), nil},
		{laterPage, "API: 429", "the API answers 429, and asks for a wait of 50 milliseconds", refuse(429, header("retry-after-ms", "50"), limited), nil},
		{anyPage, "API: HTML page", "a proxy answers 502 in HTML for the API", refuse(502, header("Content-Type", "text/html"), html), nil},
		{laterPage, "API: HTML page", "a proxy answers 200 in HTML for the API", refuse(200, header("Content-Type", "text/html"), html), nil},
		{anyPage, "API: body cut", "the API's answer is cut in the middle", fault.Fault{Kind: fault.Cut}, nil},
		{anyPage, "API: connection dropped", "the connection to the API drops before the request arrives", fault.Fault{Kind: fault.Drop}, nil},
		{laterPage, "API: answer lost", "the API answers, and the answer is lost", fault.Fault{Kind: fault.Lose}, nil},
		{anyPage, "API: no list", `the API answers 200 with {"data":null}`, refuse(200, nil, `{"data":null}`), nil},
		{laterPage, "API: no list", "the API answers 200 with an empty list that says there is more", refuse(200, nil, `{"object":"list","data":[],"first_id":null,"last_id":null,"has_more":true}`), nil},
		{laterPage, "API: cursor refused", "the API no longer knows the cursor", fault.Fault{}, d.API.ExpireCursors},
	}
	for _, w := range []struct {
		at   operation
		noun string
	}{{upload, "the records"}, {writeState, "the new state"}, {publish, "the move into the feed prefix"}} {
		all = append(all,
			strike{w.at, "bucket: 503, not applied", "the bucket refuses " + w.noun + " with 503", fault.Fault{Kind: fault.Refuse}, nil},
			strike{w.at, "bucket: 503, applied", "the bucket applies " + w.noun + ", and answers 503", fault.Fault{Kind: fault.Fail}, nil},
			strike{w.at, "bucket: dropped, not applied", "the connection drops before the bucket gets " + w.noun, fault.Fault{Kind: fault.Drop}, nil},
			strike{w.at, "bucket: answer lost, applied", "the bucket applies " + w.noun + ", and the answer is lost", fault.Fault{Kind: fault.Lose}, nil},
		)
	}
	return append(all,
		strike{readState, "bucket: 503 to a read", "the bucket answers 503 when the state is read", fault.Fault{Kind: fault.Refuse}, nil},
		strike{look, "bucket: 503 to a read", "the bucket answers 503 when the staged object is looked for", fault.Fault{Kind: fault.Refuse}, nil},
		strike{readState, "bucket: read cut", "the state is cut while it is read", fault.Fault{Kind: fault.Cut}, nil},
	)
}

// faults decides which request fails how.
type faults struct {
	mu     sync.Mutex
	armed  []strike
	calm   map[operation]bool // the last request of the operation was struck
	struck map[string]int     // by kind
}

// arm adds faults that strike as soon as their operation comes.
func (f *faults) arm(s ...strike) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = append(f.armed, s...)
}

// disarm returns the faults that have not struck.
func (f *faults) disarm() []strike {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := f.armed
	f.armed = nil
	return left
}

// count counts a fault.
func (f *faults) count(kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.struck[kind]++
}

// next takes the fault for a request of these operations, the widest of them
// first.
func (f *faults) next(ops ...operation) (strike, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, op := range ops {
		// Waits grow with each failure in a row: leave the second attempt alone.
		if f.calm[op] {
			f.calm[op] = false
			return strike{}, false
		}
	}
	for i, s := range f.armed {
		if slices.Contains(ops, s.at) {
			f.armed = slices.Delete(f.armed, i, i+1)
			f.calm[ops[0]] = true
			return s, true
		}
	}
	return strike{}, false
}

// script is the fault.Script of the API or the bucket.
func (d *demo) script(operations func(*http.Request) []operation) fault.Script {
	return func(_ int, r *http.Request) fault.Fault {
		s, ok := d.faults.next(operations(r)...)
		if !ok {
			return fault.Fault{}
		}
		d.faults.count(s.kind)
		d.line("fault", "%s", s.text)
		if s.effect != nil {
			s.effect()
		}
		return s.Fault
	}
}

// apiOperation says what a request to the API is about.
func (d *demo) apiOperation(r *http.Request) []operation {
	if r.URL.Query().Get("after") != "" {
		return []operation{anyPage, laterPage}
	}
	return []operation{anyPage}
}

// bucketOperation says what a request to the bucket is about; nothing that
// faults are made for where it is none of them.
func (d *demo) bucketOperation(r *http.Request) []operation {
	q := r.URL.Query()
	switch {
	case q.Get("uploadType") != "" && q.Get("name") == d.stateKey:
		return []operation{writeState}
	case q.Get("uploadType") != "":
		return []operation{upload}
	case strings.Contains(r.URL.Path, "/moveTo/"):
		return []operation{publish}
	case q.Get("alt") == "media" && strings.HasSuffix(r.URL.Path, d.stateKey):
		return []operation{readState}
	case r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/o/"):
		return []operation{look}
	}
	return nil
}

// chaosStory is the demonstration in which everything fails.
func (d *demo) chaosStory() error {
	d.APIFaults.Set(d.script(d.apiOperation))
	d.BucketFaults.Set(d.script(d.bucketOperation))
	deck := d.strikes()
	d.rand.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })

	d.growing.Store(true)
	d.begin("the first one reaches 24 hours back")
	d.add(2600, lookback)
	if err := d.round(); err != nil {
		return err
	}
	const perRun = 5
	specials := d.specials()
	for n := 0; len(deck) > 0 || len(specials) > 0 || d.faults.waiting() > 0; n++ {
		if n == 50 {
			return fmt.Errorf("%s found no occasion", audit.Count(d.faults.waiting(), "fault"))
		}
		// Where nothing else fails at the same time the outcome of these is known.
		if len(specials) > 0 {
			left := d.faults.disarm()
			d.begin(specials[0].title)
			d.news()
			if err := specials[0].run(); err != nil {
				return err
			}
			d.show(1)
			d.faults.arm(left...)
			specials = specials[1:]
		}
		k := min(perRun, len(deck))
		d.faults.arm(deck[:k]...)
		deck = deck[k:]
		d.begin("news, amid faults")
		if err := d.round(); err != nil {
			return err
		}
	}
	d.growing.Store(false)
	if err := d.drain(true); err != nil {
		return err
	}
	if n := len(d.Bucket.Objects(d.bucket, path.Join(path.Dir(d.stateKey), "staged")+"/")); n > 0 {
		d.line("bucket", "holds %s of runs that died or failed, out of the feed's sight; later they are removed", audit.Count(n, "staged object"))
	}
	d.faultTable()
	return nil
}

// special is a run in which something other than an answer goes wrong.
type special struct {
	title string
	run   func() error
}

// specials returns them in an order of the seed's.
func (d *demo) specials() []special {
	all := []special{
		{"a process dies between two pages", func() error {
			return d.kill(laterPage, "process: killed between two pages")
		}},
		{"a process dies when its records are written, before its commit", func() error {
			return d.kill(upload, "process: killed before its commit")
		}},
		{"a process dies after its commit, before it has published", func() error {
			return d.kill(writeState, "process: killed after its commit")
		}},
		{"two instances at once, the served one and another process", func() error {
			d.faults.count("process: two at once")
			return d.race(func(int) error { return d.child() })
		}},
		{"Pub/Sub delivers twice at the same moment, and once more", func() error {
			d.faults.count("Pub/Sub: event delivered twice at once")
			d.faults.count("Pub/Sub: event delivered again")
			if err := d.race(d.deliver); err != nil {
				return err
			}
			return d.deliver(d.events)
		}},
	}
	d.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// news adds a few records, some of which appear late.
func (d *demo) news() {
	d.add(30+d.rand.IntN(30), 2*time.Second)
	d.add(5+d.rand.IntN(10), 90*time.Second)
	d.announce()
}

// round is one trigger, after which the feed takes the objects and deletes them.
func (d *demo) round() error {
	d.news()
	if err := d.deliver(d.event()); err != nil {
		return err
	}
	d.show(1)
	return d.feed(true)
}

// command is "auditlog run" as another process: the same function, in another
// instance.
func (d *demo) command() (*exec.Cmd, *bytes.Buffer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	var out bytes.Buffer
	c := exec.Command(self, "run")
	c.Stdout, c.Stderr = &out, os.Stderr
	return c, &out, nil
}

// child does a run in another process.
func (d *demo) child() error {
	c, out, err := d.command()
	if err != nil {
		return err
	}
	if err := c.Run(); err != nil {
		return fmt.Errorf("the other process: %w", err)
	}
	d.line("process", "%s", bytes.TrimSpace(out.Bytes()))
	return nil
}

// kill does a run in another process and kills that once the world has done the
// operation and not answered yet.
func (d *demo) kill(op operation, kind string) error {
	c, _, err := d.command()
	if err != nil {
		return err
	}
	started, dead := make(chan struct{}), make(chan struct{})
	var once sync.Once
	killer := func(operations func(*http.Request) []operation) fault.Hook {
		return func(_ int, r *http.Request) {
			if !slices.Contains(operations(r), op) {
				return
			}
			once.Do(func() {
				<-started
				d.faults.count(kind)
				d.line("fault", "%s", kind)
				c.Process.Kill()
				<-dead // it must not live to see the answer
			})
		}
	}
	d.APIFaults.SetHooks(d.keepGrowing, killer(d.apiOperation))
	d.BucketFaults.SetHooks(nil, killer(d.bucketOperation))
	defer d.APIFaults.SetHooks(d.keepGrowing, nil)
	defer d.BucketFaults.SetHooks(nil, nil)
	if err := c.Start(); err != nil {
		return err
	}
	close(started)
	err = c.Wait()
	close(dead)
	if c.ProcessState.Exited() {
		return fmt.Errorf("the process that was to be killed has ended by itself: %w", cmp.Or(err, errors.New("exit status 0")))
	}
	return nil
}

// race delivers an event while other does a run, too, and holds both until both
// have read the same records and want to commit.
func (d *demo) race(other func(event int) error) error {
	var arrived atomic.Int32
	both, over := make(chan struct{}), make(chan struct{})
	d.BucketFaults.SetHooks(func(_ int, r *http.Request) {
		if !slices.Contains(d.bucketOperation(r), writeState) {
			return
		}
		if arrived.Add(1) == 2 {
			d.line("race", "both have read, and now both replace the state")
			close(both)
		}
		select {
		case <-both:
		case <-over:
		}
	}, nil)
	defer d.BucketFaults.SetHooks(nil, nil)

	event, ended := d.event(), make(chan error)
	go func() { ended <- d.deliver(event) }()
	go func() { ended <- other(event) }()
	err := <-ended
	close(over) // whoever ended without a commit is not waited for
	return errors.Join(err, <-ended)
}

// waiting returns the number of armed faults.
func (f *faults) waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.armed)
}

// faultTable lists how often each kind of fault has struck.
func (d *demo) faultTable() {
	d.printf("\nFaults that struck:\n\n")
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	for _, kind := range slices.Sorted(maps.Keys(d.faults.struck)) {
		fmt.Fprintf(w, "  %s\t%d\n", kind, d.faults.struck[kind])
	}
	w.Flush()
}
