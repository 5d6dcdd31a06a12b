package auditlog

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"

	"example.com/auditlog/internal/cloudlog"
	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/sim/harness"
	"example.com/auditlog/internal/sim/world"
)

// These tests tell what the function does in whole lives: processes of it, under
// the framework's own server, in a world of an API, a bucket and a feed. That its
// promises hold wherever a fault strikes is for internal/proof to show.

// TestMain lets this binary be the process that tests start, signal and kill.
func TestMain(m *testing.M) {
	if os.Getenv("AUDITLOG_TEST_PROCESS") == "serve" {
		err := funcframework.StartHostPort("127.0.0.1", os.Getenv("PORT"))
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// newWorld returns a world that processes can reach.
func newWorld(t *testing.T) *harness.H {
	return harness.OverTCP(t, harness.Function{Logger: cloudlog.New})
}

// process is an instance of the function, in a process of its own.
type process struct {
	cmd *exec.Cmd
	url string
	log *harness.Output
}

// serve starts an instance. What it logs must never show the key, a mangled
// format or a data race.
func serve(t *testing.T, settings map[string]string) process {
	t.Helper()
	cmd := harness.Command(t, os.Args[0], settings)
	cmd.Env = append(cmd.Env, "AUDITLOG_TEST_PROCESS=serve")
	url, log := harness.Listen(t, cmd)
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait() // until the log is whole
		for _, never := range []string{world.Key, "%!", "DATA RACE"} {
			if strings.Contains(log.String(), never) {
				t.Errorf("log has %q:\n%s", never, log)
			}
		}
	})
	return process{cmd, url, log}
}

// event sends an event as a push subscription does, and returns the status of the
// answer, 0 where there is none.
func (p process) event() int {
	resp, err := http.Post(p.url+"/projects/p/topics/t", "application/json", strings.NewReader(harness.EmptyMessage))
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// publish sends a message, which must be answered well.
func (p process) publish(t *testing.T, message string) {
	t.Helper()
	if status, body := harness.Post(t, p.url, harness.PublishedType, harness.Message(message)); status != 200 {
		t.Fatalf("%s: %d %s\n%s", message, status, body, p.log)
	}
}

// run sends a message that asks for nothing, so for a run.
func (p process) run(t *testing.T) {
	t.Helper()
	p.publish(t, "{}")
}

// die sends an event that a fault answers by killing the process.
func (p process) die(t *testing.T) {
	t.Helper()
	if status := p.event(); status != 0 {
		t.Fatalf("answers %d, and should be dead\n%s", status, p.log)
	}
	p.cmd.Wait()
}

// settle sends events until nothing is left to do. Then each record must have
// reached the feed once, unchanged.
func (p process) settle(t *testing.T, h *harness.H) {
	t.Helper()
	for range 20 {
		p.run(t)
		if s := h.Stored(); len(s.Backlog) == 0 && s.Staged == "" {
			if err := h.Check(); err != nil {
				t.Errorf("%v\n%s", err, p.log)
			}
			return
		}
	}
	t.Errorf("runs never settle\n%s", p.log)
}

const feedFolder = "openai-auditlog/"

// read returns an object of the log bucket.
func read(t *testing.T, h *harness.H, name string) string {
	t.Helper()
	data, err := h.Bucket.Read("logs", name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestFirstRun: a run makes one object of what it reads. It is named, filled and
// logged as by the Python function, and the state says how far it reaches.
func TestFirstRun(t *testing.T) {
	h := newWorld(t)
	newest := time.Now().Unix() - 5
	for i := range int64(250) { // newest first, as the API lists them
		h.AddRecord(false, h.Records.Next(newest-60*i))
	}
	p := serve(t, h.Env)
	before := time.Now().Truncate(time.Second)
	status, body := harness.Post(t, p.url, harness.PublishedType, harness.EmptyMessage)
	if status != 200 {
		t.Fatalf("%d %s\n%s", status, body, p.log)
	}

	s := h.Stored()
	started, err := time.Parse(time.RFC3339, s.LastRun)
	if err != nil || started.Before(before) || started.After(time.Now()) {
		t.Errorf("last run %q, error %v; now it is %v", s.LastRun, err, time.Now())
	}
	name := feedFolder + started.Format("openai_auditlog_20060102_150405.ndjson")
	objects := h.Bucket.Objects("logs", feedFolder)
	if len(objects) != 1 || objects[0].Name != name || objects[0].ContentType != "application/x-ndjson" {
		t.Fatalf("the feed sees %+v, want %s", objects, name)
	}
	data := read(t, h, name)
	if want := string(bytes.Join(h.API.Records(), []byte("\n"))) + "\n"; data != want {
		t.Errorf("object has %d bytes, %d lines; want the API's %d, 250", len(data), strings.Count(data, "\n"), len(want))
	}
	if s.Watermark != newest || s.High != newest || len(s.Backlog) != 0 || s.LastObject != name {
		t.Errorf("state %+v, want watermark %d", s, newest)
	}
	if len(s.RecentIDs) != 3 { // at 0, 60 and 120 seconds before the newest: the overlap is 120
		t.Errorf("recent ids %v", s.RecentIDs)
	}

	for _, want := range []string{
		fmt.Sprintf(`"Fetching audit logs from %s to %s"`, started.Add(-24*time.Hour).Format(time.RFC3339), s.LastRun),
		`"severity":"INFO","message":"Page 1: Retrieved 100 events"`, `"Page 3: Retrieved 50 events"`,
		fmt.Sprintf(`"Saved state: last_effective_at=%d"`, newest),
		`"Wrote 250 records to gs://logs/` + name + `"`, `"Successfully processed 250 records"`,
		`"message":"Run ended","event_id":"event-1","run":{"records":250,"skipped":0,"changed":0,"late":0,"max_lateness_seconds":0,"pages":3,"retries":0,"rate_limit_wait_seconds":0,` +
			fmt.Sprintf(`"bytes":%d,"object":"gs://logs/%s","open_windows":0,"backfill_windows":0,"set_aside":0,"watermark":%d,"overlap_seconds":120,"lag_seconds":`, len(data), name, newest),
		`,"version":"` + Version + `"}`,
	} {
		p.log.WaitFor(t, want)
	}
	everything := p.log.String() + body
	for _, o := range h.Bucket.Objects("logs", "") {
		everything += read(t, h, o.Name)
	}
	if strings.Contains(everything, world.Key) {
		t.Error("an object, the log or the answer shows the key")
	}
	p.settle(t, h)
}

// TestNoNews: a run without news writes no object, and costs little.
func TestNoNews(t *testing.T) {
	h := newWorld(t)
	h.Add(30, 1, 1)
	p := serve(t, h.Env)
	p.run(t)
	for range 3 {
		h.APIFaults.Set(nil) // the counts begin anew
		h.BucketFaults.Set(nil)
		p.run(t)
		reads, writes := 0, 0
		for _, r := range h.BucketFaults.Log() {
			if r.Method == http.MethodGet {
				reads++
			} else {
				writes++
			}
		}
		if n := h.APIFaults.Count(); n != 1 || reads > 2 || writes != 1 { // the state
			t.Errorf("%d API requests, %d storage reads, %d writes: %+v", n, reads, writes, h.BucketFaults.Log())
		}
	}
	if names := h.Names(feedFolder); len(names) != 1 {
		t.Errorf("the feed sees %v", names)
	}
	p.log.WaitFor(t, `"No new audit log records found."`)
	p.settle(t, h)
}

// TestCrash: before the commit a process that dies leaves no trace, and the next
// one reads the same again. After it, the next one publishes what the state names.
func TestCrash(t *testing.T) {
	h := newWorld(t)
	h.Add(250, 1, 1)

	first := serve(t, h.Env)
	h.APIFaults.Set(func(n int, _ *http.Request) fault.Fault {
		if n == 1 {
			return fault.Fault{}
		}
		first.cmd.Process.Kill() // between two pages
		return fault.Fault{Kind: fault.Hang}
	})
	first.die(t)
	h.APIFaults.Set(nil)
	if names := h.Names(""); len(names) != 0 {
		t.Errorf("a run that was killed between pages has left %v", names)
	}

	second := serve(t, h.Env)
	h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
		if !strings.Contains(r.URL.Path, "/moveTo/") {
			return fault.Fault{}
		}
		second.cmd.Process.Kill() // between commit and publish
		return fault.Fault{Kind: fault.Hang}
	})
	second.die(t)
	h.BucketFaults.Set(nil)
	s := h.Stored()
	if n := len(h.Staged(s)); n != 250 || len(h.Names(feedFolder)) != 0 {
		t.Errorf("the state names %d records as staged, the feed sees %v", n, h.Names(feedFolder))
	}

	h.Add(10, 0, 0)
	third := serve(t, h.Env)
	third.run(t)
	third.log.WaitFor(t, `"Published what an earlier run had left staged: gs://logs/`+s.LastObject+`"`)
	third.log.WaitFor(t, `"Wrote 10 records to `)
	third.settle(t, h)
}

// TestTwoInstances: of two runs at once that have read the same records, one
// commits them. The other one lets go, and its event is done, too.
func TestTwoInstances(t *testing.T) {
	h := newWorld(t)
	h.Add(40, 1, 1)
	both := []process{serve(t, h.Env), serve(t, h.Env)}

	var arrived atomic.Int32
	ready, over := make(chan struct{}), make(chan struct{})
	h.BucketFaults.SetHooks(func(_ int, r *http.Request) {
		if r.URL.Query().Get("name") != h.Env["STATE_KEY"] {
			return // no commit
		}
		if arrived.Add(1) == 2 {
			close(ready)
		}
		select {
		case <-ready:
		case <-over:
		}
	}, nil)
	answers := make(chan int)
	for _, p := range both {
		go func() { answers <- p.event() }()
	}
	one := <-answers
	close(over) // whoever ended without a commit is not waited for
	if other := <-answers; one != 200 || other != 200 || arrived.Load() != 2 {
		t.Errorf("answers %d and %d; %d commits", one, other, arrived.Load())
	}

	wrote, gaveUp := 0, 0
	for _, p := range both {
		p.log.WaitFor(t, `"Run ended"`)
		wrote += strings.Count(p.log.String(), `"Wrote 40 records to `)
		gaveUp += strings.Count(p.log.String(), `"Another run got ahead of this one and has collected instead of it"`)
	}
	if wrote != 1 || gaveUp != 1 {
		t.Errorf("%d wrote the records, %d gave up\n%s\n%s", wrote, gaveUp, both[0].log, both[1].log)
	}
	both[1].settle(t, h)
	if names := h.Names(""); len(names) != 2 {
		t.Errorf("want one object and the state, have %v", names)
	}
}

// TestCap: what a burst has beyond MAX_RECORDS becomes the backlog. Each event
// brings what is new first, then of the backlog what there is room for.
func TestCap(t *testing.T) {
	h := newWorld(t)
	h.Env["MAX_RECORDS"] = "100"
	p := serve(t, h.Env)
	h.Add(10, 7200, 10)
	p.run(t)
	h.Add(250, 600, 10) // the burst
	p.run(t)
	s := h.Stored()
	if len(s.Backlog) != 1 || s.Watermark > time.Now().Unix()-3000 {
		t.Errorf("state %+v, want one window in the backlog, and the watermark before it", s)
	}
	p.log.WaitFor(t, `"severity":"WARNING","message":"Windows left for the next runs: 1 (MAX_RECORDS is reached). Where that goes on, raise MAX_RECORDS`)
	h.Add(30, 1, 2)
	p.run(t)
	p.run(t)

	// What the objects hold, in their order, by the records' order of appearance.
	position := map[string]int{}
	h.API.Each(func(id string, _ int64, _ bool) { position[id] = len(position) })
	var got []int
	sizes := map[string]int{}
	for id, object := range h.Published() {
		got = append(got, position[id])
		sizes[object]++
	}
	var want []int
	for _, part := range [][2]int{{0, 10}, {10, 110}, {260, 290}, {110, 180}, {180, 260}} {
		for i := part[0]; i < part[1]; i++ {
			want = append(want, i)
		}
	}
	if !slices.Equal(got, want) || len(sizes) != 4 {
		t.Errorf("objects of %v records, these: %v", sizes, got)
	}
	p.settle(t, h)
}

// TestServer: which events the function takes, what it answers, and what it says.
func TestServer(t *testing.T) {
	h := newWorld(t)
	h.Add(120, 1, 1)
	p := serve(t, h.Env)

	// An answer of 400: nothing that can be mended by sending it again.
	for name, e := range map[string]struct{ kind, data, want string }{
		"another type":    {"google.cloud.storage.object.v1.finalized", "{}", "Pub/Sub topic"},
		"no message":      {harness.PublishedType, "{}", "no Pub/Sub message"},
		"no object":       {harness.PublishedType, "[1]", "no Pub/Sub message"},
		"data not base64": {harness.PublishedType, `{"message":{"data":"?"}}`, "no Pub/Sub message"},
		"no such key":     {harness.PublishedType, harness.Message(`{"backfill": {"since": "1d"}}`), "known are"},
	} {
		if status, body := harness.Post(t, p.url, e.kind, e.data); status != 400 || !strings.Contains(body, e.want) {
			t.Errorf("%s: %d %q", name, status, body)
		}
	}
	if status, _ := harness.Post(t, p.url, "", "hello"); status < 400 || status > 499 {
		t.Errorf("no CloudEvent: %d", status)
	}
	if n := h.APIFaults.Count() + h.BucketFaults.Count(); n != 0 {
		t.Errorf("bad events caused %d requests", n)
	}

	p.publish(t, `{"backfill": {"from": "4d"}}`)
	p.log.WaitFor(t, `"severity":"ERROR","message":"Backfill refused: there is no state yet: `)
	p.publish(t, `{"backfil": {"from": "4d"}}`)
	p.log.WaitFor(t, `"severity":"WARNING","message":"Message not understood, and taken for a run: it has \"backfil\" (did you mean \"backfill\"?)`)
	if n := strings.Count(p.log.String(), "not understood"); n != 1 || h.Stored().Watermark == 0 {
		t.Errorf("%d warnings, state %+v\n%s", n, h.Stored(), p.log)
	}
	h.Add(1, 0, 0)
	if status := p.event(); status != 200 {
		t.Errorf("push: %d", status)
	}
	if names := h.Names(feedFolder); len(names) != 2 {
		t.Errorf("the feed sees %v", names)
	}

	h.Add(10, 3*24*3600, 60)
	p.publish(t, `{"backfill": {"from": "4d"}}`)
	if n := len(h.Stored().Backlog); n != 1 {
		t.Errorf("%d windows in the backlog", n)
	}
	p.log.WaitFor(t, `: to collect: `)
	p.publish(t, `{"backfill": {"from": "4d"}}`) // as where it is delivered twice
	p.log.WaitFor(t, `: in the backlog already: `)
	if n := len(h.Stored().Backlog); n != 1 {
		t.Errorf("%d windows in the backlog", n)
	}
	p.publish(t, `{"backfill": {"from": "2h", "to": "2099-12-31"}}`) // of what is collected
	p.log.WaitFor(t, `"message":"Backfill: nothing to do: `)
	p.log.WaitFor(t, `: the next run collects it. To write the records once more: auditlog backfill --again --from `)

	p.publish(t, `{"backfill": {"from": "2099-12-31"}}`)
	p.log.WaitFor(t, `"severity":"ERROR","message":"Backfill refused: the range begins after `)

	// What may succeed later comes again.
	for want, f := range map[string]fault.Script{
		"reading state": func(int, *http.Request) fault.Fault { return fault.Fault{Kind: fault.Refuse, Status: 403} },
		"runs got ahead of this five times": func(_ int, r *http.Request) fault.Fault {
			if r.Method != http.MethodGet {
				h.WriteState(h.ReadState())
			}
			return fault.Fault{}
		},
	} {
		h.BucketFaults.Set(f)
		status, body := harness.Post(t, p.url, harness.PublishedType, harness.Message(`{"backfill": {"from": "9d", "to": "8d"}}`))
		if status != 500 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %q", want, status, body)
		}
		p.log.WaitFor(t, `"severity":"ERROR","message":"Backfill failed: `+want)
	}
	h.BucketFaults.Set(nil)

	p.publish(t, `{"check": true}`)
	p.log.WaitFor(t, `"check":"probe_move","result":"ok"`)

	h.API.SetKey("another")
	status, body := harness.Post(t, p.url, harness.PublishedType, harness.EmptyMessage)
	if status != 500 || !strings.Contains(body, "401") || !strings.Contains(body, "OPENAI_ADMIN_KEY") || strings.Contains(body, world.Key) {
		t.Errorf("wrong key: %d %s", status, body)
	}
	for _, want := range []string{
		`"message":"Page 1: Retrieved 100 events","event_id":"event-1"`, `"event_id":"event-1","run":{"records":120,`,
		`"severity":"ERROR","message":"Run failed: audit log API answered 401`,
	} {
		p.log.WaitFor(t, want)
	}
	h.API.SetKey(world.Key)
	p.settle(t, h)
}

// TestKeyRotated: an instance takes a new key from its file with the next run. While the file cannot be
// read, runs fail and name it.
func TestKeyRotated(t *testing.T) {
	h := newWorld(t)
	file := filepath.Join(t.TempDir(), "key")
	h.Env["OPENAI_ADMIN_KEY"], h.Env["OPENAI_ADMIN_KEY_FILE"] = "", file
	p := serve(t, h.Env)
	for _, key := range []string{world.Key, "sk-admin-rotated"} {
		h.API.SetKey(key)
		if status := p.event(); status != 500 {
			t.Fatalf("without the key %q: %d\n%s", key, status, p.log)
		}
		if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		p.run(t)
	}
	p.log.WaitFor(t, `bad settings: OPENAI_ADMIN_KEY_FILE: \"`+file+`\": cannot be read: `)
	p.log.WaitFor(t, "API answered 401")
}

// TestServerWithBadSettings: the server starts, and each event is told all that
// is wrong, but no value that may be a secret.
func TestServerWithBadSettings(t *testing.T) {
	p := serve(t, map[string]string{"PAGE_SIZE": "0", "MAX_RECORDS": "50%", "OPENAI_ADMIN_KEY": world.Key + " x"})
	for range 2 {
		status, body := harness.Post(t, p.url, harness.PublishedType, harness.EmptyMessage)
		for _, want := range []string{"GCS_BUCKET", "OPENAI_ADMIN_KEY", "PAGE_SIZE", "MAX_RECORDS"} {
			p.log.WaitFor(t, want)
			if status != 500 || !strings.Contains(body, want) || strings.Contains(body, world.Key) {
				t.Errorf("%d %q: want it to name %s, and no key", status, body, want)
			}
		}
	}
}

// TestOddSettings: what is odd about settings and works is said once a run.
func TestOddSettings(t *testing.T) {
	h := newWorld(t)
	h.Env["GCS_PREFIX"], h.Env["EVENT_TYPES"] = "openai//auditlog", "login.failed,api_key.create"
	p := serve(t, h.Env)
	for range 2 {
		p.run(t)
	}
	for _, want := range []string{
		`"severity":"WARNING","message":"GCS_PREFIX \"openai//auditlog\" has an empty part","event_id":"event-1","remedy":"set GCS_PREFIX to \"openai/auditlog\", `,
		`"severity":"WARNING","message":"EVENT_TYPES names \"api_key.create\" (api_key.created?), which is not a known type: is it misspelt?","event_id":"event-1","remedy":"`,
	} {
		p.log.WaitFor(t, want)
		if n := strings.Count(p.log.String(), want); n != 2 {
			t.Errorf("%d times %s\n%s", n, want, p.log)
		}
	}
}

// wantExit waits until the process has ended by itself.
func (p process) wantExit(t *testing.T, how string) {
	t.Helper()
	defer time.AfterFunc(15*time.Second, func() { p.cmd.Process.Kill() }).Stop()
	p.cmd.Wait()
	if got := p.cmd.ProcessState.String(); got != how {
		t.Fatalf("ended with %q, want %q\n%s", got, how, p.log)
	}
}

// TestSIGTERM: a host that shuts down gets what has been read committed, and the
// answer. The process then ends by itself, and the next one goes on from there.
func TestSIGTERM(t *testing.T) {
	h := newWorld(t)
	h.Add(300, 1, 1)
	first := serve(t, h.Env)
	h.APIFaults.Set(func(n int, _ *http.Request) fault.Fault {
		if n < 3 {
			return fault.Fault{}
		}
		first.cmd.Process.Signal(syscall.SIGTERM)
		return fault.Fault{Kind: fault.Hang}
	})
	if status, body := harness.Post(t, first.url, harness.PublishedType, harness.EmptyMessage); status != 500 || !strings.Contains(body, "run was stopped") {
		t.Errorf("%d %s\n%s", status, body, first.log)
	}
	h.APIFaults.Set(nil)
	if s := h.Stored(); len(s.Backlog) != 1 || len(h.Names(feedFolder)) != 1 {
		t.Errorf("state %+v, the feed sees %v", s, h.Names(feedFolder))
	}
	first.log.WaitFor(t, `"run":{"records":200,`)
	first.wantExit(t, "exit status 143")

	second := serve(t, h.Env)
	second.run(t)
	second.log.WaitFor(t, `"run":{"records":100,`)
	second.settle(t, h)
	second.cmd.Process.Signal(syscall.SIGTERM) // between two runs
	second.wantExit(t, "exit status 143")
}

// TestSIGTERMAtOnce: a process that has had no event, or a second signal, waits for nothing.
func TestSIGTERMAtOnce(t *testing.T) {
	h := newWorld(t)
	idle := serve(t, h.Env)
	idle.cmd.Process.Signal(syscall.SIGTERM)
	idle.wantExit(t, "signal: terminated")

	stuck := serve(t, h.Env)
	h.BucketFaults.Set(func(int, *http.Request) fault.Fault {
		go func() { // until one comes after the first has been taken
			for stuck.cmd.Process.Signal(syscall.SIGTERM) == nil {
				time.Sleep(time.Millisecond)
			}
		}()
		return fault.Fault{Kind: fault.Hang}
	})
	stuck.event()
	stuck.wantExit(t, "signal: terminated")
}
