package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"example.com/auditlog"
	"example.com/auditlog/internal/plan"
	"example.com/auditlog/internal/sim/auditapi"
	"example.com/auditlog/internal/sim/world"
	"example.com/auditlog/internal/state"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"auditlog": main})
}

// TestScripts types whole commands. Scripts have these of their own:
//
//	exits STATUS COMMAND...  run the command, which must end with that status
//	world N                  start a world with N records of the last hour, and set the environment for it
//	older N DAYS             add N records, a minute apart, from so many days ago on
//	tenant N                 add N tenant-scoped records of the last hour
//	complete                 fail unless the world's feed has got each record once, unchanged
//	freeport                 set PORT to a port that nobody uses
//	trigger                  send the function on PORT an event, as soon as it is served; with !, it must fail
//	refuse                   let the API refuse every request
//	python HOURS             write the state of the Python function that ran so many hours ago
//	follow                   run the command that the last one's standard error advises
func TestScripts(t *testing.T) {
	runScripts(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"older":    addOlder,
			"tenant":   addTenant,
			"complete": complete,
			"freeport": freePort,
			"refuse":   refuse,
			"trigger":  trigger,
			"python":   pythonState,
			"follow":   followRemedy,
		},
	})
}

// runScripts runs scripts, each with a fixture of its own, with the commands exits and world besides others.
func runScripts(t *testing.T, p testscript.Params) {
	t.Helper()
	p.RequireExplicitExec = true
	p.Setup = func(env *testscript.Env) error {
		env.Values[fixtureKey{}] = new(fixture)
		return nil
	}
	p.Cmds["exits"], p.Cmds["world"] = exits, startWorld
	testscript.Run(t, p)
}

// fixture is what a script's commands share.
type fixture struct{ world *world.World }

type fixtureKey struct{}

func fixtureOf(ts *testscript.TestScript) *fixture { return ts.Value(fixtureKey{}).(*fixture) }

func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d (%v), want %d", got, err, want)
	}
}

func startWorld(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	w, err := world.New(world.Options{})
	ts.Check(err)
	ts.Defer(w.Close)
	g, at := auditapi.NewGenerator(1), time.Now().Add(-time.Hour).Unix()
	for i := range n {
		ts.Check(w.API.Add(g.Next(at + int64(i))))
	}
	for name, value := range w.Settings() {
		ts.Setenv(name, value)
	}
	fixtureOf(ts).world = w
}

func addOlder(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	days, err := strconv.Atoi(args[1])
	ts.Check(err)
	w := fixtureOf(ts).world
	g, at := auditapi.NewGenerator(uint64(days)), time.Now().AddDate(0, 0, -days).Unix()
	for i := range n {
		ts.Check(w.API.Add(g.Next(at + int64(60*i))))
	}
}

func addTenant(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	g, at := auditapi.NewGenerator(7), time.Now().Add(-time.Hour).Unix()
	for i := range n {
		ts.Check(fixtureOf(ts).world.API.AddTenant(g.Next(at + int64(i))))
	}
}

func pythonState(ts *testscript.TestScript, _ bool, args []string) {
	age, err := time.ParseDuration(args[0] + "h")
	ts.Check(err)
	state := fmt.Sprintf(`{"last_effective_at": %d, "last_run": "x"}`, time.Now().Add(-age).Unix())
	ts.Check(fixtureOf(ts).world.Bucket.Write(ts.Getenv("GCS_BUCKET"), ts.Getenv("STATE_KEY"), []byte(state)))
}

var advised = regexp.MustCompile(`auditlog backfill --again --from \S+Z --to [-0-9:TZ]+Z`)

func followRemedy(ts *testscript.TestScript, _ bool, _ []string) {
	command := strings.Fields(advised.FindString(ts.ReadFile("stderr")))
	if len(command) == 0 {
		ts.Fatalf("nothing is advised")
	}
	ts.Check(ts.Exec(command[0], command[1:]...))
}

func complete(ts *testscript.TestScript, _ bool, _ []string) {
	w := fixtureOf(ts).world
	ts.Check(w.Check())
	if got, want := w.Report().Collected, len(w.API.Records()); got != want {
		ts.Fatalf("the feed got %d lines of %d records", got, want)
	}
}

func freePort(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Check(l.Close())
	ts.Setenv("PORT", port)
}

func refuse(ts *testscript.TestScript, _ bool, _ []string) {
	fixtureOf(ts).world.API.SetForbidden(true)
}

func trigger(ts *testscript.TestScript, neg bool, _ []string) {
	address := "127.0.0.1:" + ts.Getenv("PORT")
	ts.Check(await(address, nil))
	status, err := post(address, 1)
	ts.Check(err)
	if (status == http.StatusOK) == neg {
		ts.Fatalf("the event was answered with %d", status)
	}
}

// TestOnlyJSON: what others print is not lost where only JSON may leave.
func TestOnlyJSON(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr := os.Stdout, os.Stderr
	defer func() {
		os.Stdout, os.Stderr = stdout, stderr
		log.SetOutput(stderr)
	}()
	os.Stderr = w
	if _, err := onlyJSON(); err != nil {
		t.Fatal(err)
	}
	printed := bufio.NewReader(r)
	for i, print := range []func(){
		func() { fmt.Print("\nWARNING: text\n") },
		func() { fmt.Fprint(os.Stderr, "WARNING: text\n") },
		func() { log.Print("WARNING: text") },
	} {
		print()
		line, err := printed.ReadString('\n')
		if !strings.HasPrefix(line, "{") || !strings.Contains(line, `WARNING: text"}`) {
			t.Errorf("%d: what is printed comes out as %q, %v", i, line, err)
		}
	}
}

// TestConsole reads what a terminal shows in the end.
func TestConsole(t *testing.T) {
	var out bytes.Buffer
	c := newConsole(&out)
	log := slog.New(c)
	log.Info("Fetching audit logs")
	log.Info("Page 1: Retrieved 100 events")
	c.progress(figures(100, 1))
	log.Warn("Rate limited (429). Retrying after 2s...")
	c.progress(figures(200, 2))
	log.Warn("A record is long", "id", "audit_log-1", "run", auditlog.Summary{})

	want := "Fetching audit logs\nWARN: Rate limited (429). Retrying after 2s...\nWARN: A record is long id=audit_log-1\n"
	if got := screen(out.String()); got != want {
		t.Errorf("the terminal shows\n%s\nwant\n%s", got, want)
	}
	c.progress(figures(3000, 30))
	if got := screen(out.String()); !strings.Contains(got, "3,000 records, 30 pages") {
		t.Errorf("no progress is shown:\n%s", got)
	}
	c.clear()
	if got := screen(out.String()); got != want {
		t.Errorf("cleared, the terminal shows\n%s\nwant\n%s", got, want)
	}
}

// TestBackfillDone: what was collected before does not count.
func TestBackfillDone(t *testing.T) {
	b := newBackfilled(state.Backfilled{
		Asked: state.Span{Gte: 0, Lte: 999}, Parts: []state.Span{{Gte: 100, Lte: 149}}, Waiting: []state.Span{{Gte: 300, Lte: 349}},
	}, false)
	for reached, want := range map[int64]float64{0: 0, 900: 0, 350: 0, 325: .25, 200: .5, 125: .75, 100: 1, 50: 1} {
		if got := b.done(reached); got != want {
			t.Errorf("reached %d: %v, want %v", reached, got, want)
		}
	}
}

func figures(records, pages int) auditlog.Summary {
	return auditlog.Summary{Figures: plan.Figures{Records: records, Pages: pages}}
}

// screen is what stays on a terminal, without spaces at the ends of lines.
func screen(output string) string {
	lines := strings.Split(output, "\n")
	for i, l := range lines {
		var shown []rune
		for part := range strings.SplitSeq(l, "\r") {
			over := []rune(part)
			shown = append(over, shown[min(len(over), len(shown)):]...)
		}
		lines[i] = strings.TrimRight(string(shown), " ")
	}
	return strings.Join(lines, "\n")
}
