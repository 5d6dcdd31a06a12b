package main

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"example.com/auditlog/internal/checkup"
	"example.com/auditlog/internal/sim/fault"
)

// TestCheckScripts types auditlog check. Beside some commands of TestScripts
// these scripts have:
//
//	bucket JSON    give the log bucket these attributes
//	deny OP NAME   let the bucket refuse OP on names that begin with NAME
//	revoke         make the key unknown to the API
//	put NAME TEXT  write an object into the log bucket
//	objects        print the names in the log bucket
//	same FILE      compare stdout to FILE, without what differs from run to run
func TestCheckScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/check*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("scripts: %v, %v", scripts, err)
	}
	runScripts(t, testscript.Params{Files: scripts, Cmds: maps.Clone(checkScriptCommands)})
}

var checkScriptCommands = map[string]func(*testscript.TestScript, bool, []string){
	"bucket": func(ts *testscript.TestScript, _ bool, args []string) {
		fixtureOf(ts).world.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
			if r.URL.Path != "/storage/v1/b/logs" {
				return fault.Fault{}
			}
			return fault.Fault{Kind: fault.Refuse, Status: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: args[0]}
		})
	},
	"deny": func(ts *testscript.TestScript, _ bool, args []string) {
		fixtureOf(ts).world.Bucket.Deny(func(_, op, _, name string) bool { return op == args[0] && strings.HasPrefix(name, args[1]) })
	},
	"revoke": func(ts *testscript.TestScript, _ bool, _ []string) { fixtureOf(ts).world.API.SetKey("another") },
	"put": func(ts *testscript.TestScript, _ bool, args []string) {
		ts.Check(fixtureOf(ts).world.Bucket.Write("logs", args[0], []byte(args[1])))
	},
	"objects": func(ts *testscript.TestScript, _ bool, _ []string) {
		for _, o := range fixtureOf(ts).world.Bucket.Objects("logs", "") {
			fmt.Fprintln(ts.Stdout(), o.Name)
		}
	},
	"same": func(ts *testscript.TestScript, _ bool, args []string) {
		got, want := varying(ts.ReadFile("stdout")), ts.ReadFile(args[0])
		if got != want {
			ts.Fatalf("stdout is\n%s\nwant\n%s", got, want)
		}
	},
}

var variants = []struct {
	pattern *regexp.Regexp
	text    string
}{
	{regexp.MustCompile(`http://127\.0\.0\.1:\d+/|https://api\.openai\.com/`), "API/"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "TIME"},
	{regexp.MustCompile(`\d+ (second|minute)s?( ago| old|,)`), "AGE$2"},
	{regexp.MustCompile(`of [\d,]+ bytes`), "of N bytes"},
	{regexp.MustCompile(`probe-[a-z0-9]{26}`), "probe-RANDOM"},
}

func varying(s string) string {
	for _, v := range variants {
		s = v.pattern.ReplaceAllString(s, v.text)
	}
	return s
}

// TestCheckDocs: the output that docs/check.md shows is that of the scripts.
func TestCheckDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/check.md")
	if err != nil {
		t.Fatal(err)
	}
	for file, mark := range map[string]string{"check.txtar": "-- good --\n", "check_bad.txtar": "-- bad --\n"} {
		script, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		_, want, _ := strings.Cut(string(script), mark)
		want = "    " + strings.ReplaceAll(strings.TrimSuffix(want, "\n"), "\n", "\n    ") + "\n"
		if !strings.Contains(varying(string(doc)), want) {
			t.Errorf("docs/check.md lacks the output of %s:\n%s", file, want)
		}
	}
}

// TestCheckStyle shows findings on a terminal, with and without colours, each as it comes.
func TestCheckStyle(t *testing.T) {
	findings := []checkup.Finding{
		{Check: "api", Result: checkup.ResultOK, Detail: "answers"},
		{Check: "clock", Result: checkup.ResultWarning, Detail: "is fast", Remedy: "set it"},
		{Check: "bucket", Result: checkup.ResultFailure, Detail: "is not there", Remedy: "create it"},
		{Check: "feed", Result: checkup.ResultSkipped, Detail: "may not be listed"},
	}
	for want, s := range map[string]style{
		"✓  api              answers\n!  clock            is fast\n   -> set it\n✗  bucket           is not there\n   -> create it\n-  feed             may not be listed\n1 ok, 1 warning, 1 failure, 1 skipped\n":                                                            {width: 200},
		"\x1b[32m✓\x1b[0m  api              answers\n\x1b[33m!\x1b[0m  clock            is fast\n   -> set it\n\x1b[31m✗\x1b[0m  bucket           is not there\n   -> create it\n\x1b[2m-\x1b[0m  feed             may not be listed\n1 ok, 1 warning, 1 failure, 1 skipped\n": {width: 200, colours: true},
		"✓  api              answers\n!  clock            is fast\n   -> set it\n✗  bucket           is not there\n   -> create it\n-  feed             may not be\n                    listed\n1 ok, 1 warning, 1 failure, 1 skipped\n":                                       {width: 34},
		"ok       api              answers\nwarning  clock            is fast\n         -> set it\nfailure  bucket           is not there\n         -> create it\nskipped  feed             may not be listed\n1 ok, 1 warning, 1 failure, 1 skipped\n":                        {},
	} {
		var out bytes.Buffer
		if _, err := s.print(&out, slices.Values(findings)); err != nil || out.String() != want {
			t.Errorf("%v\n%s\nwant\n%s", err, out.String(), want)
		}
	}
	var out bytes.Buffer
	_, err := style{}.print(&out, func(yield func(checkup.Finding) bool) {
		for i, f := range findings {
			if n := strings.Count(out.String(), "\n"); n < i {
				t.Errorf("%d lines after %d findings", n, i)
			}
			yield(f)
		}
	})
	if err != nil {
		t.Error(err)
	}
	if width := columns(new(bytes.Buffer)); width != 0 {
		t.Errorf("a buffer counts as a terminal with %d columns", width)
	}
}
