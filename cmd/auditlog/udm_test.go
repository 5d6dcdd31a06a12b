package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"example.com/auditlog/internal/udm"
)

// TestUDM types whole udm commands. Besides those of TestScripts, scripts have
// these commands of their own:
//
//	upload FILE BUCKET OBJECT  write an object into the world's bucket; ^ in its name is the escape character
//	deny PREFIX                answer 403 to who reads objects with that prefix
//	documented                 fail unless docs/udm.md shows what the last command printed
//
// samples.ndjson is there to be read.
func TestUDM(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/udm",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Values[fixtureKey{}] = new(fixture)
			data, err := os.ReadFile("../../internal/audit/testdata/samples.ndjson")
			if err != nil {
				return err
			}
			return os.WriteFile(env.WorkDir+"/samples.ndjson", data, 0o666)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      exits,
			"world":      startWorld,
			"upload":     uploadObject,
			"deny":       denyObjects,
			"documented": documented,
		},
	})
}

func uploadObject(ts *testscript.TestScript, _ bool, args []string) {
	name := strings.ReplaceAll(args[2], "^", "\x1b")
	ts.Check(fixtureOf(ts).world.Bucket.Write(args[1], name, []byte(ts.ReadFile(args[0]))))
}

func denyObjects(ts *testscript.TestScript, _ bool, args []string) {
	fixtureOf(ts).world.Bucket.Deny(func(_, op, _, object string) bool {
		return op == "get" && strings.HasPrefix(object, args[0])
	})
}

func documented(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(shownInDocs(ts.ReadFile("stdout")))
}

// shownInDocs fails unless docs/udm.md has the output, indented.
func shownInDocs(output string) error {
	doc, err := os.ReadFile("../../docs/udm.md")
	if err != nil {
		return err
	}
	want := "    " + strings.ReplaceAll(strings.TrimRight(output, "\n"), "\n", "\n    ") + "\n"
	if !strings.Contains(string(doc), want) {
		return fmt.Errorf("docs/udm.md does not show\n%s", want)
	}
	return nil
}

// TestEventBlocks reads what a terminal shows, with what it must not obey.
func TestEventBlocks(t *testing.T) {
	e, err := udm.Map([]byte(`{"type":"a\u001b[31m b","actor":{"session":{"ip_address":"203.0.113.1","ja4":"x y",` +
		`"ip_address_details":{"city":"Zürich","region":"say \"ZH\"","latitude":47.37,"longitude":8.54}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	const want = `no event_timestamp  STATUS_UPDATE  "a\x1b[31m b"
  metadata         product_name=OPENAI_AUDITLOG
                   vendor_name=OPENAI_AUDITLOG
  principal        ip=203.0.113.1 asset.ip=203.0.113.1
                   location.city=Zürich
                   location.state="say \"ZH\""
                   location.region_latitude=47.37
                   location.region_longitude=8.54
  security_result  detection_fields[ja4]="x y"

`
	var out bytes.Buffer
	eventBlocks(&out, 60, false)(e)
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	out.Reset()
	eventBlocks(&out, 60, true)(e)
	plain := regexp.MustCompile(`\x1b\[\d+m`).ReplaceAllString(out.String(), "")
	if plain != want || plain == out.String() {
		t.Errorf("in colours\n%q", out.String())
	}
}

// The documentation shows the block of the samples' first record.
func TestEventBlockDocumented(t *testing.T) {
	samples, err := os.ReadFile("../../internal/audit/testdata/samples.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := bytes.Cut(samples, []byte("\n"))
	e, err := udm.Map(first)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	eventBlocks(&out, 100, false)(e)
	if err := shownInDocs(out.String()); err != nil {
		t.Error(err)
	}
}
