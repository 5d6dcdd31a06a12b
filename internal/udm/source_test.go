package udm_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"example.com/auditlog/internal/sim/world"
	"example.com/auditlog/internal/udm"
)

type line struct {
	Number int
	Text   string
	Long   bool
}

func lines(r io.Reader) (list []line, err error) {
	err = udm.Records(r, func() {}, func(n int, text []byte, err error) error {
		list = append(list, line{n, string(text), errors.Is(err, udm.ErrLongLine)})
		return nil
	})
	return list, err
}

func TestLines(t *testing.T) {
	big := strings.Repeat("x", 5<<20)
	for _, tt := range []struct {
		name, input string
		want        []line
	}{
		{"none", "", nil},
		{"one", "a\n", []line{{1, "a", false}}},
		{"no end", "a\nb", []line{{1, "a", false}, {2, "b", false}}},
		{"blank ones count", "\n \t\na\r\n\r\nb\r\n", []line{{3, "a", false}, {5, "b", false}}},
		{"of many MB", big + "\n" + big, []line{{1, big, false}, {2, big, false}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tt.input), iotest.DataErrReader(strings.NewReader(tt.input))} {
				got, err := lines(r)
				if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
					t.Errorf("%v; -want +got\n%.1000s", err, diff)
				}
			}
		})
	}
}

// TestPages: an answer of the API is read record by record, however it is spaced, compressed
// or cut into reads.
func TestPages(t *testing.T) {
	compressed := func(text string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write([]byte(text))
		z.Close()
		return b.String()
	}
	pretty := "{\n  \"object\": \"list\",\n  \"data\": [\n    {\"id\": \"a\"},\n    {\n      \"id\": \"b\"\n    }\n  ],\n  \"has_more\": false\n}\n"
	a, b := line{1, `{"id": "a"}`, false}, line{2, "{\n      \"id\": \"b\"\n    }", false}
	for _, tt := range []struct {
		name, input string
		want        []line
		err         string
	}{
		{"as the API prints it", pretty, []line{a, b}, ""},
		{"on one line", `{"object":"list","data":[{"id": "a"}],"has_more":true}`, []line{a}, ""},
		{"sorted", `{"data":[{"id": "a"}],"object":"list"}`, []line{a}, ""},
		{"two", `{"object":"list","data":[{"id": "a"}]}` + "\n" + `{"data":[1]}`, []line{a, {2, "1", false}}, ""},
		{"empty", `{"object":"list","data":[]}`, nil, ""},
		{"with a byte order mark", "\ufeff" + pretty, []line{a, b}, ""},
		{"compressed", compressed(pretty), []line{a, b}, ""},
		{"compressed lines, with a byte order mark", compressed("\ufeffx\ny\n"), []line{{1, "x", false}, {2, "y", false}}, ""},
		{"two files compressed", compressed("x\n") + compressed("y\n"), []line{{1, "x", false}, {2, "y", false}}, ""},
		{"lines with a byte order mark", "\ufeffx\n", []line{{1, "x", false}}, ""},
		{"a record", `{"object":"organization.audit_log","data":[1]}`, []line{{1, `{"object":"organization.audit_log","data":[1]}`, false}}, ""},
		{"a record with data", `{"id":"a","data":[1]}`, []line{{1, `{"id":"a","data":[1]}`, false}}, ""},

		{"cut", `{"object":"list","data":[{"id": "a"},{"i`, []line{a}, "unexpected EOF"},
		{"cut after it", `{"object":"list","data":[{"id": "a"}]`, []line{a}, "unexpected EOF"},
		{"no list", `{"object":"list","data":{}}`, nil, "without a list"},
		{"something after it", `{"object":"list","data":[{"id": "a"}]} x`, []line{a}, "invalid"},
		{"a record after it", `{"object":"list","data":[{"id": "a"}]} {"id":"b"}`, []line{a}, "without a list"},
		{"compressed, cut", compressed(pretty)[:20], nil, "unexpected EOF"},
		{"no gzip", "\x1f\x8b\n", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tt.input), iotest.OneByteReader(strings.NewReader(tt.input))} {
				got, err := lines(r)
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
				if text := fmt.Sprint(err); tt.err != "" && !strings.Contains(text, tt.err) || tt.err == "" && err != nil && tt.name != "no gzip" || strings.Contains(text, "jsontext") {
					t.Errorf("error %v, want %q", err, tt.err)
				}
			}
		})
	}
}

// TestRecordsOfSlowInput: a record is out before the input brings the next.
func TestRecordsOfSlowInput(t *testing.T) {
	r, w := io.Pipe()
	got := make(chan string)
	go func() {
		defer close(got)
		udm.Records(r, func() {}, func(_ int, text []byte, _ error) error { got <- string(text); return nil })
	}()
	for _, line := range []string{`{"id":"audit_log-1"}`, "x"} {
		io.WriteString(w, line+"\n")
		if text := <-got; text != line {
			t.Errorf("%q, want %q", text, line)
		}
	}
	w.Close()
	<-got
}

// xs is a stream of n times x.
func xs(n int64) io.Reader {
	return io.LimitReader(readerFunc(func(p []byte) (int, error) {
		for i := range p {
			p[i] = 'x'
		}
		return len(p), nil
	}), n)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestLinesTooLong(t *testing.T) {
	got, err := lines(io.MultiReader(strings.NewReader("a\n"), xs(udm.MaxLine+1), strings.NewReader("\nb\n")))
	want := []line{{1, "a", false}, {2, "", true}, {3, "b", false}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v; -want +got\n%s", err, diff)
	}
}

func TestLinesEnd(t *testing.T) {
	broken := errors.New("broken")
	// A line that was cut is no line.
	got, err := lines(io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)))
	if diff := cmp.Diff([]line{{1, "a", false}}, got); diff != "" || err != broken {
		t.Errorf("%v; -want +got\n%s", err, diff)
	}
	calls := 0
	err = udm.Records(strings.NewReader("a\nb\n"), func() {}, func(int, []byte, error) error { calls++; return broken })
	if err != broken || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

// Before the input may keep the reader waiting, all that came is out.
func TestLinesWait(t *testing.T) {
	var story strings.Builder
	r := io.MultiReader(strings.NewReader("a\nb\n"), readerFunc(func([]byte) (int, error) {
		story.WriteString("read ")
		return 0, io.EOF
	}))
	udm.Records(r, func() { story.WriteString("wait ") }, func(_ int, text []byte, _ error) error {
		story.WriteString(string(text) + " ")
		return nil
	})
	if got, want := story.String(), "wait a b wait read "; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestSources(t *testing.T) {
	w, err := world.New(world.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	t.Setenv("STORAGE_EMULATOR_HOST", w.StorageHost())
	for _, name := range []string{"f/1.ndjson", "f/2.ndjson", "f/x/3.ndjson", "f/notes.txt", "f.ndjson", "g/a+b.ndjson", "secret/1.ndjson"} {
		if err := w.Bucket.Write("logs", name, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	w.Bucket.Deny(func(_, op, bucket, object string) bool {
		return op == "get" && strings.HasPrefix(object, "secret/")
	})
	file := filepath.Join(t.TempDir(), "a b.ndjson")
	if err := os.WriteFile(file, []byte("file"), 0o600); err != nil {
		t.Fatal(err)
	}

	s := &udm.Sources{Stdin: strings.NewReader("typed")}
	t.Cleanup(s.Close)
	for _, tt := range []struct {
		name string
		want []string // contents
		err  string   // substring
	}{
		{"-", []string{"typed"}, ""},
		{file, []string{"file"}, ""},
		{file + "x", nil, "a b.ndjsonx"},
		{"gs://logs/f/1.ndjson", []string{"f/1.ndjson"}, ""},
		{"gs://logs/f/notes.txt", []string{"f/notes.txt"}, ""}, // as it was asked for
		{"gs://logs/f/", []string{"f/1.ndjson", "f/2.ndjson", "f/x/3.ndjson"}, ""},
		{"gs://logs/f*", []string{"f.ndjson", "f/1.ndjson", "f/2.ndjson", "f/x/3.ndjson"}, ""},
		{"gs://logs/f/*.ndjson", []string{"f/1.ndjson", "f/2.ndjson", "f/x/3.ndjson"}, ""},
		{"gs://logs/*/1*", []string{"f/1.ndjson"}, "gs://logs/secret/1.ndjson: your account needs the role Storage Object Viewer"},
		{"gs://logs/g/a+*", []string{"g/a+b.ndjson"}, ""},
		{"gs://logs/f*/", []string{"f/1.ndjson", "f/2.ndjson", "f/x/3.ndjson"}, ""},
		{"gs://logs/*/x/", []string{"f/x/3.ndjson"}, ""},
		{"gs://logs/h/", nil, "gs://logs/h/: no object ending in .ndjson"},
		{"gs://logs/f/*.txt", nil, "no object ending in .ndjson"},
		{"gs://logs/f", nil, "gs://logs/f: there is no such object; for all objects of a folder, end the name with /"},
		{"gs://nowhere/f", nil, "gs://nowhere/f: there is no such object"},
		{"gs://nowhere/", nil, "gs://nowhere: there is no such bucket"},
		{"gs://", nil, "names no bucket"},
		{"gs://lo*/", nil, "names no bucket"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			problems := ""
			for in, err := range s.Open(t.Context(), tt.name) {
				if err != nil {
					problems += err.Error()
					continue
				}
				data, err := io.ReadAll(in)
				if err != nil {
					t.Error(err)
				}
				if err := in.Close(); err != nil {
					t.Error(err)
				}
				got = append(got, string(data))
				if tt.name != "-" && tt.name != file && in.Name != "gs://logs/"+string(data) {
					t.Errorf("named %s", in.Name)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if !strings.Contains(problems, tt.err) || (tt.err == "") != (problems == "") {
				t.Errorf("errors %q, want %q", problems, tt.err)
			}
		})
	}

	w.Bucket.Deny(func(_, op, _, _ string) bool { return op == "list" })
	for _, err := range s.Open(t.Context(), "gs://logs/") {
		if err == nil || !strings.Contains(err.Error(), "gs://logs: your account needs the role Storage Object Viewer") {
			t.Errorf("a list that is denied: %v", err)
		}
	}
}
