package main

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestVerifyScripts types verify as an operator does. Scripts have these of their own, besides some of TestScripts:
//
//	take N  take line N out of the first object
//	delete  delete the first object
func TestVerifyScripts(t *testing.T) {
	first := func(ts *testscript.TestScript) string {
		return fixtureOf(ts).world.Bucket.Objects("logs", "openai-auditlog/")[0].Name
	}
	runScripts(t, testscript.Params{
		Files: []string{"testdata/verify.txtar"},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"complete": complete,
			"take": func(ts *testscript.TestScript, _ bool, args []string) {
				n, err := strconv.Atoi(args[0])
				ts.Check(err)
				bucket := fixtureOf(ts).world.Bucket
				data, err := bucket.Read("logs", first(ts))
				ts.Check(err)
				lines := slices.Delete(slices.Collect(bytes.Lines(data)), n-1, n)
				ts.Check(bucket.Write("logs", first(ts), bytes.Join(lines, nil)))
			},
			"delete": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Check(fixtureOf(ts).world.Bucket.Delete("logs", first(ts)))
			},
		},
	})
}

// TestBar reads what a terminal shows while both sides are read, and after.
func TestBar(t *testing.T) {
	var out bytes.Buffer
	bar := newBar(&out)
	bar.Set(barSteps / 4)
	if got := screen(out.String()); !strings.HasPrefix(got, "Reading both sides  25% |") || !strings.Contains(got, "[0s:0s]") {
		t.Errorf("the terminal shows %q", got)
	}
	bar.Clear()
	if got := screen(out.String()); got != "" {
		t.Errorf("cleared, the terminal shows %q", got)
	}
}
