package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestStatusScripts types status as an operator does, against worlds served over
// HTTP. Scripts have these of their own, besides those of TestScripts:
//
//	object NAME FILE  write a file into the world's bucket
//	deny OP           let the bucket refuse an operation: get, list, …
//	state FILE        copy the state object out of the bucket
func TestStatusScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/status*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	runScripts(t, testscript.Params{
		Files: files,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"object": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(fixtureOf(ts).world.Bucket.Write("logs", args[0], []byte(ts.ReadFile(args[1]))))
			},
			"deny": func(ts *testscript.TestScript, _ bool, args []string) {
				fixtureOf(ts).world.Bucket.Deny(func(_, op, _, _ string) bool { return op == args[0] })
			},
			"state": func(ts *testscript.TestScript, _ bool, args []string) {
				data, err := fixtureOf(ts).world.Bucket.Read("logs", ts.Getenv("STATE_KEY"))
				ts.Check(err)
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o666))
			},
		},
	})
}

func TestByteSize(t *testing.T) {
	for text, want := range map[string]struct {
		bytes int64
		shown string
	}{
		"0": {0, "0"}, "12": {12, "12"}, "12B": {12, "12"}, "500MB": {5e8, "500000000"}, "1kB": {1000, "1000"}, "2KiB": {2048, "2048"},
		"256MiB": {256 << 20, "256MiB"}, "3GiB": {3 << 30, "3GiB"}, "1TB": {1e12, "1000000000000"},
	} {
		var s byteSize
		if err := s.Set(text); err != nil || int64(s) != want.bytes || s.String() != want.shown {
			t.Errorf("%s: %v, %d, %s", text, err, int64(s), s.String())
		}
	}
	for _, text := range []string{"", "MB", "-1", "1.5GB", "1 GB", "9999999TB", "1e3", "x"} {
		s := byteSize(7)
		if err := s.Set(text); err == nil || s != 7 {
			t.Errorf("%q is taken: %d", text, int64(s))
		}
	}
}

// TestWritePage: a page appears whole or not at all.
func TestWritePage(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "page.html")
	write := func(text string, err error) error {
		return writePage(name, func(w io.Writer) error {
			io.WriteString(w, text)
			return err
		})
	}
	if err := write("old", nil); err != nil {
		t.Fatal(err)
	}
	if err := write("ne", errors.New("no space")); err == nil || !strings.Contains(err.Error(), name+": no space") {
		t.Errorf("error %v", err)
	}
	if data, err := os.ReadFile(name); string(data) != "old" {
		t.Errorf("the file holds %q, %v", data, err)
	}
	if err := write("new", nil); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(name); string(data) != "new" {
		t.Errorf("the file holds %q, %v", data, err)
	}
	if entries, err := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
