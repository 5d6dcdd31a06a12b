package auditlog

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
	"github.com/caarlos0/env/v11"

	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/sim/world"
)

// TestMain lets this binary be the process that tests start, signal and kill.
func TestMain(m *testing.M) {
	switch os.Getenv("AUDITLOG_TEST_PROCESS") {
	case "serve":
		err := funcframework.StartHostPort("127.0.0.1", os.Getenv("PORT"))
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case "run":
		cfg, err := LoadConfig(env.ToMap(os.Environ()))
		if err != nil {
			panic(err)
		}
		c, err := New(context.Background(), cfg)
		if err != nil {
			panic(err)
		}
		if _, err := c.Run(context.Background(), slog.New(slog.DiscardHandler)); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// process is a command of its own with the given settings and nothing else of
// this one's environment.
func process(t *testing.T, kind string, settings map[string]string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = []string{"AUDITLOG_TEST_PROCESS=" + kind, "FUNCTION_TARGET=main"}
	for name, value := range settings {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// overTCP returns a harness whose world other processes can reach.
func overTCP(t *testing.T) *harness {
	h := newHarness(t, world.Options{})
	h.pause = func() {}
	t.Cleanup(h.Close)
	return h
}

// TestKilled kills a process with SIGKILL at each request of its run: before it
// is handled, and when it has been and is not yet answered.
func TestKilled(t *testing.T) {
	for _, after := range []bool{false, true} {
		if testing.Short() && !after { // much the same as after the request before
			continue
		}
		t.Run(fmt.Sprintf("after %v", after), func(t *testing.T) {
			for n := 1; ; n++ {
				h := overTCP(t)
				h.env["MAX_RECORDS"] = "250"
				h.add(200, 100, 1)
				h.mustRun()
				h.add(300, 1, 0)

				cmd := process(t, "run", h.env)
				var mu sync.Mutex
				count, killed := 0, false
				ended := make(chan struct{})
				kill := func(int, *http.Request) {
					mu.Lock()
					defer mu.Unlock()
					if count++; count == n {
						killed = true
						cmd.Process.Kill()
						<-ended // it must not live to see the answer
					}
				}
				before, behind := fault.Hook(kill), fault.Hook(nil)
				if after {
					before, behind = behind, before
				}
				h.APIFaults.SetHooks(before, behind)
				h.BucketFaults.SetHooks(before, behind)
				mu.Lock() // for the hook, which may come before Start has returned
				err := cmd.Start()
				mu.Unlock()
				if err != nil {
					t.Fatal(err)
				}
				err = cmd.Wait()
				close(ended)
				mu.Lock()
				died := killed
				mu.Unlock()
				h.APIFaults.SetHooks(nil, nil)
				h.BucketFaults.SetHooks(nil, nil)
				if !died {
					if err != nil || n < 8 {
						t.Fatalf("run of %d requests: %v", n-1, err)
					}
					return
				}
				h.checkInvariants()
				if err := h.Feed(true); err != nil {
					t.Error(err)
				}
				h.settle()
				if t.Failed() {
					t.Fatalf("at request %d", n)
				}
			}
		})
	}
}

// server starts the function under the real functions-framework server and
// returns its URL and what it logs.
func server(t *testing.T, settings map[string]string) (url string, cmd *exec.Cmd, log *syncBuffer) {
	t.Helper()
	cmd = process(t, "serve", settings)
	url, log = listen(t, cmd)
	return url, cmd, log
}

// listen starts a command that serves on PORT of this machine.
func listen(t testing.TB, cmd *exec.Cmd) (url string, log *syncBuffer) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	cmd.Env = append(cmd.Env, "PORT="+address[strings.LastIndex(address, ":")+1:])
	log = &syncBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for range 20_000 {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return "http://" + address, log
		}
		time.Sleep(time.Millisecond / 2) // nothing tells when another process listens
	}
	t.Fatalf("server does not listen:\n%s", log)
	return
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// waitFor waits until the process has written that: what it writes comes through
// a pipe, and may come after its answer.
func (s *syncBuffer) waitFor(t *testing.T, text string) {
	t.Helper()
	for range 2000 {
		if strings.Contains(s.String(), text) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("log lacks %q:\n%s", text, s)
}

// post sends an event as Eventarc does.
func post(t testing.TB, url, eventType, data string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if eventType != "" {
		req.Header.Set("ce-specversion", "1.0")
		req.Header.Set("ce-id", "event-1")
		req.Header.Set("ce-source", "//pubsub.googleapis.com/projects/p/topics/t")
		req.Header.Set("ce-type", eventType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

const (
	publishedType = "google.cloud.pubsub.topic.v1.messagePublished"
	emptyMessage  = `{"message":{"data":"e30=","messageId":"1","publishTime":"2026-11-24T01:00:00Z"},"subscription":"projects/p/subscriptions/s"}`
)

// message is an event's data with a message that says text.
func message(text string) string {
	return `{"message":{"data":"` + base64.StdEncoding.EncodeToString([]byte(text)) + `","messageId":"1"}}`
}

func TestServer(t *testing.T) {
	h := overTCP(t)
	h.add(120, 1, 1)
	url, _, log := server(t, h.env)

	// An answer of 400: nothing that can be mended by sending it again.
	for name, e := range map[string]struct{ kind, data, want string }{
		"another type":    {"google.cloud.storage.object.v1.finalized", "{}", "Pub/Sub topic"},
		"no message":      {publishedType, "{}", "no Pub/Sub message"},
		"no object":       {publishedType, "[1]", "no Pub/Sub message"},
		"data not base64": {publishedType, `{"message":{"data":"?"}}`, "no Pub/Sub message"},
		"no such order":   {publishedType, message(`{"backfill": {"since": "1d"}}`), "unknown field"},
	} {
		if status, body := post(t, url, e.kind, e.data); status != 400 || !strings.Contains(body, e.want) {
			t.Errorf("%s: %d %q", name, status, body)
		}
	}
	if status, _ := post(t, url, "", "hello"); status < 400 || status > 499 {
		t.Errorf("no CloudEvent: %d", status)
	}
	if n := h.APIFaults.Count() + h.BucketFaults.Count(); n != 0 {
		t.Errorf("bad events caused %d requests", n)
	}

	if status, body := post(t, url, publishedType, emptyMessage); status != 200 {
		t.Errorf("good event: %d %s\n%s", status, body, log)
	}
	if n := len(h.names("openai-auditlog/")); n != 1 {
		t.Errorf("%d objects", n)
	}
	h.add(1, 0, 0)
	// A push subscription's own form, at the path that names the topic.
	if status, body := post(t, url+"/projects/p/topics/t", "", emptyMessage); status != 200 {
		t.Errorf("push: %d %s", status, body)
	}
	if n := len(h.names("openai-auditlog/")); n != 2 {
		t.Errorf("%d objects", n)
	}

	h.add(10, 3*24*3600, 60)
	if status, body := post(t, url, publishedType, message(`{"backfill": {"from": "4d"}}`)); status != 200 {
		t.Errorf("backfill: %d %s", status, body)
	}
	if n := len(h.state().Backlog); n != 1 {
		t.Errorf("%d windows in the backlog", n)
	}
	if status, body := post(t, url, publishedType, message(`{"backfill": {"from": "1h"}}`)); status != 200 { // as where it is delivered twice
		t.Errorf("backfill of what is collected: %d %s", status, body)
	}
	log.waitFor(t, `"message":"Backfill: nothing to do: the range is collected, or in the backlog: all from `)

	if status, body := post(t, url, publishedType, message(`{"check": true}`)); status != 200 {
		t.Errorf("check: %d %s", status, body)
	}
	log.waitFor(t, `"check":"probe_move","result":"ok"`)

	h.API.SetKey("another")
	status, body := post(t, url, publishedType, emptyMessage)
	if status != 500 || !strings.Contains(body, "401") || !strings.Contains(body, "OPENAI_ADMIN_KEY") {
		t.Errorf("wrong key: %d %s", status, body)
	}
	for _, want := range []string{`"message":"Page 1: Retrieved 100 events","event_id":"event-1"`, `"severity":"ERROR","message":"Run failed: audit log API answered 401`, `"event_id":"event-1","run":{"records":120,`} {
		log.waitFor(t, want)
	}
	for _, never := range []string{"%!", h.env["OPENAI_ADMIN_KEY"]} {
		if strings.Contains(log.String()+body, never) {
			t.Errorf("log or answer shows %q", never)
		}
	}
	h.API.SetKey(h.env["OPENAI_ADMIN_KEY"])
	h.settle()
}

// TestServerWithBadSettings: the server starts, and each event is told all that
// is wrong.
func TestServerWithBadSettings(t *testing.T) {
	url, _, log := server(t, map[string]string{"PAGE_SIZE": "0", "MAX_RECORDS": "50%"})
	status, body := post(t, url, publishedType, emptyMessage)
	for _, want := range []string{"GCS_BUCKET", "OPENAI_ADMIN_KEY", "PAGE_SIZE", "MAX_RECORDS"} {
		log.waitFor(t, want)
		if status != 500 || !strings.Contains(body, want) {
			t.Errorf("%d %q lacks %s", status, body, want)
		}
	}
	if strings.Contains(log.String(), "%!") {
		t.Errorf("mangled log:\n%s", log)
	}
}

// TestSIGTERM: a host that shuts down gets what has been read committed.
func TestSIGTERM(t *testing.T) {
	h := overTCP(t)
	h.add(300, 1, 1)
	url, cmd, log := server(t, h.env)
	h.APIFaults.Set(func(n int, _ *http.Request) fault.Fault {
		if n < 3 {
			return fault.Fault{}
		}
		cmd.Process.Signal(syscall.SIGTERM)
		return fault.Fault{Kind: fault.Hang}
	})
	if status, body := post(t, url, publishedType, emptyMessage); status != 500 || !strings.Contains(body, "interrupted") {
		t.Errorf("%d %s\n%s", status, body, log)
	}
	if s := h.state(); len(s.Backlog) != 1 || len(h.names("openai-auditlog/")) != 1 {
		t.Errorf("state %+v, objects %v", s, h.names(""))
	}
	h.settle()
}

// BenchmarkFirstRun is a cold start: from the exec of the function to its answer
// to a first event, against a world in another process. It reports the CPU time
// that the function's process takes, and its peak memory.
func BenchmarkFirstRun(b *testing.B) {
	binary := buildFunction(b)
	for _, bm := range []struct {
		name    string
		records int
		gzip    bool
	}{{"20 records", 20, true}, {"5000 records", 5000, true}, {"5000 records not compressed", 5000, false}} {
		b.Run(bm.name, func(b *testing.B) {
			var cpu time.Duration
			var peak int64
			for b.Loop() {
				b.StopTimer()
				h := newHarness(b, world.Options{})
				h.env["FETCH_CONCURRENCY"] = "4"
				h.API.SetGzip(bm.gzip)
				times := make([]int64, bm.records)
				for i := range times {
					times[i] = time.Now().Unix() - int64(i/3) - 1
				}
				if err := h.API.Add(sampleRecords(b, times)...); err != nil {
					b.Fatal(err)
				}
				cmd := functionProcess(b, binary, h.env)
				b.StartTimer()
				url, log := listen(b, cmd)
				status, body := post(b, url, publishedType, emptyMessage)
				b.StopTimer()
				if status != 200 || len(h.names("openai-auditlog/")) != 1 {
					b.Fatalf("%d %s\n%s", status, body, log)
				}
				peak = max(peak, peakMemory(b, cmd.Process.Pid))
				cmd.Process.Kill()
				cmd.Wait()
				cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
				h.Close()
				b.StartTimer()
			}
			b.ReportMetric(float64(cpu.Microseconds())/1000/float64(b.N), "cpu-ms/run")
			b.ReportMetric(float64(peak), "peak-MiB")
		})
	}
}

// functionProcess is a process of the function with these settings, as it is in
// the cloud.
func functionProcess(t testing.TB, binary string, settings map[string]string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Env = []string{"FUNCTION_TARGET=main"}
	for name, value := range settings {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// BenchmarkRun is a whole run of a warm instance.
func BenchmarkRun(b *testing.B) {
	for _, n := range []int{0, 20, 5000} {
		b.Run(fmt.Sprintf("%d records", n), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				h := newHarness(b, world.Options{})
				h.add(n, 1, 1)
				c := h.collector()
				b.StartTimer()
				if sum, err := c.Run(b.Context(), slog.New(slog.DiscardHandler)); err != nil || sum.Records != n {
					b.Fatalf("%+v, %v", sum, err)
				}
				b.StopTimer()
				h.Close()
				b.StartTimer()
			}
		})
	}
}

// TestPeakMemory: of the function as it is built for the cloud, against a world
// in another process. It must not grow with the number of records, and pages as
// large as are read at all must fit into the memory that deploy/ sets.
func TestPeakMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the function and reads 200,000 records")
	}
	binary := buildFunction(t)
	for _, tt := range []struct {
		records, size int    // size of a record, 0 for that of ordinary ones
		concurrency   string // FETCH_CONCURRENCY
		limit         int64  // MiB
	}{
		{5_000, 0, "4", 40},
		{200_000, 0, "4", 80},
		{5_000, 0, "32", 60},
		{600, 310_000, "4", 240}, // pages of 31 MB
	} {
		h := overTCP(t)
		h.env["MAX_RECORDS"], h.env["FETCH_CONCURRENCY"] = "1000000", tt.concurrency
		h.env["GOMEMLIMIT"] = "192MiB" // as deploy/ sets it
		h.API.SetGzip(false)           // it costs the server more than all else
		step := int64(0)
		for i := range tt.records {
			if i%3 == 0 {
				step++
			}
			if err := h.API.Add(h.records.NextSize(time.Now().Unix()-step, tt.size)); err != nil {
				t.Fatal(err)
			}
		}
		cmd := functionProcess(t, binary, h.env)
		url, log := listen(t, cmd)
		if status, body := post(t, url, publishedType, emptyMessage); status != 200 {
			t.Fatalf("%d %s\n%.2000s", status, body, log)
		}
		peak := peakMemory(t, cmd.Process.Pid)
		what := fmt.Sprintf("%d records, %s requests at once", tt.records, tt.concurrency)
		t.Logf("%s: peak memory %d MiB", what, peak)
		if peak >= tt.limit {
			t.Errorf("%s: peak memory %d MiB, want below %d", what, peak, tt.limit)
		}
		if err := h.Check(); err != nil {
			t.Error(err)
		}
	}
}

// peakMemory is the most memory, in MiB, that a process has held so far.
func peakMemory(t testing.TB, pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Errorf("this test needs Linux's /proc: %v", err)
		return 0
	}
	kib := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	n, err := strconv.ParseInt(string(kib[1]), 10, 64)
	if err != nil {
		t.Error(err)
	}
	return n >> 10
}

// TestReadme: the settings table has every setting with its default, and the
// text names no setting that does not exist.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"STORAGE_EMULATOR_HOST": true, "OPENAI_AUDITLOG": true} // a log type
	for _, s := range Settings() {
		known[s.Name] = true
		value := s.Default
		if s.Required {
			value = "required"
		}
		row := regexp.MustCompile("(?m)^\\| `" + s.Name + "` \\| (.*?) \\|").FindSubmatch(readme)
		if row == nil || value != "" && strings.Trim(string(row[1]), "`") != value {
			t.Errorf("README.md: row of %s is %q, want the default %q", s.Name, row, value)
		}
	}
	for _, name := range regexp.MustCompile("`([A-Z]+_[A-Z_]+)`").FindAllSubmatch(readme, -1) {
		if !known[string(name[1])] {
			t.Errorf("README.md names %s, which is no setting", name[1])
		}
	}
}
