package udm_test

import (
	"errors"
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
	err = udm.Lines(r, func() {}, func(n int, text []byte, err error) error {
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
	err = udm.Lines(strings.NewReader("a\nb\n"), func() {}, func(int, []byte, error) error { calls++; return broken })
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
	udm.Lines(r, func() { story.WriteString("wait ") }, func(_ int, text []byte, _ error) error {
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
