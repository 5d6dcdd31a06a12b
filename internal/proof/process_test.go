package proof

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caarlos0/env/v11"

	"example.com/auditlog/internal/proof/product"
	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/sim/harness"
	"example.com/auditlog/internal/sim/world"
)

// TestMain lets this binary be the process that does a run, for tests to kill, or that starts a
// command and says what it has used: a process's peak memory counts what its parent had.
func TestMain(m *testing.M) {
	switch os.Getenv("AUDITLOG_TEST_PROCESS") {
	default:
		os.Exit(m.Run())
	case "run":
		c, err := product.New(env.ToMap(os.Environ()), harness.Connections{})
		if err != nil {
			panic(err)
		}
		if _, err := c.Run(context.Background(), slog.New(slog.DiscardHandler)); err != nil {
			os.Exit(1)
		}
	case "start":
		cmd := exec.Command(os.Args[1], os.Args[2:]...)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			panic(err)
		}
		fmt.Println(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime(), cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss>>10)
	}
}

// runCommand runs a command to its end.
func runCommand(t testing.TB, command string, settings map[string]string, args ...string) (u usage) {
	t.Helper()
	cmd := harness.Command(t, os.Args[0], settings)
	cmd.Args = append(cmd.Args, append([]string{command}, args...)...)
	cmd.Env = append(cmd.Env, "AUDITLOG_TEST_PROCESS=start")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, err.(*exec.ExitError).Stderr)
	}
	var cpu string
	if _, err := fmt.Sscan(string(out), &cpu, &u.peak); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if u.cpu, err = time.ParseDuration(cpu); err != nil {
		t.Fatal(err)
	}
	return u
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
				h.Env["MAX_RECORDS"] = "250"
				h.Add(200, 100, 1)
				h.MustRun()
				h.Add(300, 1, 0)

				cmd := harness.Command(t, os.Args[0], h.Env)
				cmd.Env = append(cmd.Env, "AUDITLOG_TEST_PROCESS=run")
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
				h.Settle()
				if t.Failed() {
					t.Fatalf("at request %d", n)
				}
			}
		})
	}
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
			var all usage
			for b.Loop() {
				b.StopTimer()
				h := harness.New(b, product.Function, world.Options{})
				h.Env["FETCH_CONCURRENCY"] = "4"
				h.API.SetGzip(bm.gzip)
				times := make([]int64, bm.records)
				for i := range times {
					times[i] = time.Now().Unix() - int64(i/3) - 1
				}
				if err := h.API.Add(harness.Samples(b, "../audit/testdata/samples.ndjson", times)...); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				all.add(runProcess(b, binary, h))
				b.StopTimer()
				if len(h.Names("openai-auditlog/")) != 1 {
					b.Fatal("nothing is collected")
				}
				h.Close()
				b.StartTimer()
			}
			all.report(b)
		})
	}
}

// BenchmarkOverlap is a run without news in a process of its own: it reads again all
// records of the overlap, and the state, and writes that.
func BenchmarkOverlap(b *testing.B) {
	binary := buildFunction(b)
	for _, records := range []int{1, 100_000, 500_000} {
		b.Run(fmt.Sprintf("%d records", records), func(b *testing.B) {
			h := overlapping(b, records)
			runProcess(b, binary, h) // collects all of them
			var all usage
			for b.Loop() {
				all.add(runProcess(b, binary, h))
			}
			all.report(b)
		})
	}
}

// overlapping is a world with so many records, all of them in the overlap.
func overlapping(t testing.TB, records int) *harness.H {
	h := harness.New(t, product.Function, world.Options{})
	h.Env["MAX_RECORDS"], h.Env["FETCH_CONCURRENCY"], h.Env["OVERLAP_SECONDS"] = "1000000", "8", "900000"
	h.Env["GOMEMLIMIT"] = "192MiB" // as deploy/ sets it
	h.API.SetGzip(false)           // it costs the server more than all else
	now := time.Now().Unix()
	for i := range records {
		if err := h.API.Add(h.Records.Next(now - int64(i/5) - 1)); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// usage is what processes have used.
type usage struct {
	cpu  time.Duration
	peak int64 // MiB
}

func (u *usage) add(more usage) { u.cpu, u.peak = u.cpu+more.cpu, max(u.peak, more.peak) }

func (u *usage) report(b *testing.B) {
	b.ReportMetric(float64(u.cpu.Microseconds())/1000/float64(b.N), "cpu-ms/run")
	b.ReportMetric(float64(u.peak), "peak-MiB")
}

// runProcess starts the function for one run.
func runProcess(t testing.TB, binary string, h *harness.H) (u usage) {
	t.Helper()
	cmd := harness.Command(t, binary, h.Env)
	url, log := harness.Listen(t, cmd)
	if status, body := harness.Post(t, url, harness.PublishedType, harness.EmptyMessage); status != 200 {
		t.Fatalf("%d %s\n%.2000s", status, body, log)
	}
	u.peak = harness.PeakMemory(t, cmd.Process.Pid)
	cmd.Process.Kill()
	cmd.Wait()
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return u
}

// BenchmarkRun is a whole run of a warm instance.
func BenchmarkRun(b *testing.B) {
	for _, n := range []int{0, 20, 5000} {
		b.Run(fmt.Sprintf("%d records", n), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				h := &simulation{H: harness.New(b, product.Function, world.Options{})}
				h.Add(n, 1, 1)
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
		t.Skip("builds the function and reads 150,000 records")
	}
	binary := buildFunction(t)
	for _, tt := range []struct {
		records, size int    // size of a record, 0 for that of ordinary ones
		concurrency   string // FETCH_CONCURRENCY
		limit         int64  // MiB
	}{
		{5_000, 0, "4", 40},
		{40_000, 0, "4", 60},
		{5_000, 0, "32", 60},
		{400, 310_000, "4", 240}, // pages of 31 MB
		{800, 250_000, "8", 240},
	} {
		h := overTCP(t)
		h.Env["MAX_RECORDS"], h.Env["FETCH_CONCURRENCY"] = "1000000", tt.concurrency
		h.Env["GOMEMLIMIT"] = "192MiB" // as deploy/ sets it
		h.API.SetGzip(false)           // it costs the server more than all else
		step := int64(0)
		for i := range tt.records {
			if i%3 == 0 {
				step++
			}
			if err := h.API.Add(h.Records.NextSize(time.Now().Unix()-step, tt.size)); err != nil {
				t.Fatal(err)
			}
		}
		peak := runProcess(t, binary, h.H).peak
		what := fmt.Sprintf("%d records, %s requests at once", tt.records, tt.concurrency)
		t.Logf("%s: peak memory %d MiB", what, peak)
		if peak >= tt.limit {
			t.Errorf("%s: peak memory %d MiB, want below %d", what, peak, tt.limit)
		}
		if err := h.Check(); err != nil {
			t.Error(err)
		}
	}
	h := overlapping(t, 50_000)
	runProcess(t, binary, h)
	peak := runProcess(t, binary, h).peak
	t.Logf("50,000 records in the overlap: peak memory %d MiB", peak)
	if peak >= 60 {
		t.Errorf("50,000 records in the overlap: peak memory %d MiB, want below 60", peak)
	}
}

// BenchmarkVerify compares all records of a range with what was collected. Its memory must not grow
// with the number of days.
func BenchmarkVerify(b *testing.B) {
	function, command := buildFunction(b), filepath.Join(b.TempDir(), "auditlog")
	if out, err := exec.CommandContext(b.Context(), "go", "build", "-o", command, "../../cmd/auditlog").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	for _, days := range []int64{2, 20} {
		b.Run(fmt.Sprintf("%d days of 10,000 records", days), func(b *testing.B) {
			h := harness.New(b, product.Function, world.Options{})
			h.Env["MAX_RECORDS"], h.Env["FETCH_CONCURRENCY"], h.Env["LOOKBACK_HOURS"] = "1000000", "8", fmt.Sprint(24*(days+1))
			h.API.SetGzip(false)
			now := time.Now().Unix()
			for at := now - days*24*3600; at < now; at += 86400 / 10_000 {
				if err := h.API.Add(h.Records.Next(at)); err != nil {
					b.Fatal(err)
				}
			}
			runProcess(b, function, h)
			var all usage
			for b.Loop() {
				cmd := harness.Command(b, command, h.Env)
				cmd.Args = append(cmd.Args, "verify")
				all.add(runCommand(b, command, h.Env, "verify"))
			}
			all.report(b)
		})
	}
}
