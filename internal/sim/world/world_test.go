package world_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/storage"

	"example.com/auditlog/internal/sim/auditapi"
	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/sim/world"
)

func start(t *testing.T, o world.Options) (*world.World, *storage.Client) {
	t.Helper()
	w, err := world.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	client, err := storage.NewClient(t.Context(), w.StorageOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return w, client
}

// everywhere runs the test over TCP, and in a bubble over pipes.
func everywhere(t *testing.T, test func(t *testing.T, o world.Options)) {
	t.Run("tcp", func(t *testing.T) { test(t, world.Options{Dir: t.TempDir()}) })
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, world.Options{InMemory: true}) })
	})
}

func fetch(ctx context.Context, w *world.World) (string, error) {
	s := w.Settings()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s["OPENAI_BASE_URL"]+"/organization/audit_logs?limit=100", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+s["OPENAI_ADMIN_KEY"])
	res, err := (&http.Client{Transport: w.Transport()}).Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return fmt.Sprint(res.StatusCode, " ", string(body)), err
}

func TestBothServers(t *testing.T) {
	everywhere(t, func(t *testing.T, o world.Options) {
		w, client := start(t, o)
		if err := w.API.Add([]byte(`{"id":"r1","effective_at":1}`)); err != nil {
			t.Fatal(err)
		}
		if got, err := fetch(t.Context(), w); err != nil || !strings.HasPrefix(got, "200 ") || !strings.Contains(got, `"r1"`) {
			t.Errorf("fetched %s, %v", got, err)
		}

		// Several chunks, so that connections carry much both ways.
		object := client.Bucket(w.Settings()["GCS_BUCKET"]).Object("openai-auditlog/a.ndjson")
		wr := object.NewWriter(t.Context())
		wr.ChunkSize = 256 << 10
		text := `"` + strings.Repeat("x", 1<<20) + "\"\n"
		if _, err := io.WriteString(wr, text); err != nil {
			t.Fatal(err)
		}
		if err := wr.Close(); err != nil {
			t.Fatal(err)
		}
		rd, err := object.NewReader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer rd.Close()
		if got, err := io.ReadAll(rd); string(got) != text || err != nil {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
		if o.Dir != "" {
			if _, err := os.Stat(filepath.Join(o.Dir, "logs", "openai-auditlog", "a.ndjson")); err != nil {
				t.Error(err)
			}
			if w.Settings()["STORAGE_EMULATOR_HOST"] != w.StorageHost() {
				t.Errorf("settings %v", w.Settings())
			}
		}
		if w.APIFaults.Count() != 1 || w.BucketFaults.Count() < 6 {
			t.Errorf("%d and %d requests", w.APIFaults.Count(), w.BucketFaults.Count())
		}
	})
}

// A client of the storage emulator, made from the environment alone, must find
// the bucket as well.
func TestEmulatorHost(t *testing.T) {
	w, _ := start(t, world.Options{})
	t.Setenv("STORAGE_EMULATOR_HOST", w.StorageHost())
	client, err := storage.NewClient(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	wr := client.Bucket("logs").Object("a/b").NewWriter(t.Context())
	io.WriteString(wr, "1")
	if err := wr.Close(); err != nil {
		t.Fatal(err)
	}
	rd, err := client.Bucket("logs").Object("a/b").NewReader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	if got, err := io.ReadAll(rd); string(got) != "1" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestHangUntilTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, client := start(t, world.Options{InMemory: true})
		hang := func(int, *http.Request) fault.Fault { return fault.Fault{Kind: fault.Hang} }
		w.BucketFaults.Set(hang)
		w.APIFaults.Set(hang)
		for name, do := range map[string]func(context.Context) error{
			"write": func(ctx context.Context) error {
				wr := client.Bucket("logs").Object("x").NewWriter(ctx)
				io.WriteString(wr, "1")
				return wr.Close()
			},
			"read": func(ctx context.Context) error {
				_, err := client.Bucket("logs").Object("x").NewReader(ctx)
				return err
			},
			"fetch": func(ctx context.Context) error {
				_, err := fetch(ctx, w)
				return err
			},
		} {
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			err := do(ctx)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Minute {
				t.Errorf("%s: %v after %v", name, err, time.Since(begin))
			}
		}
		if n := len(w.Bucket.Objects("logs", "")); n != 0 {
			t.Errorf("%d objects", n)
		}
	})
}

// Close must end a request that still hangs, and its client.
func TestCloseEndsWhatHangs(t *testing.T) {
	everywhere(t, func(t *testing.T, o world.Options) {
		w, _ := start(t, o)
		reached := make(chan struct{})
		w.APIFaults.Set(func(int, *http.Request) fault.Fault {
			close(reached)
			return fault.Fault{Kind: fault.Hang}
		})
		done := make(chan error)
		go func() {
			_, err := fetch(context.Background(), w)
			done <- err
		}()
		<-reached
		w.Close()
		if err := <-done; err == nil {
			t.Error("the request was answered")
		}
	})
}

func TestCheck(t *testing.T) {
	good := `{"id":"a","effective_at":10}` + "\n" + `{"id":"b","effective_at":20}` + "\n"
	type objects map[string]string
	for _, tt := range []struct {
		name    string
		objects objects
		since   int64
		want    string // the report's counts; "" is no error
		text    []string
	}{
		{"exactly once", objects{"1": good}, 0, "", nil},
		{"two objects", objects{"1": `{"id":"b","effective_at":20}` + "\n", "2": `{"id":"a","effective_at":10}` + "\n"}, 0, "", nil},
		{"nothing", nil, 0, "0 collected, 2 missing, 0 repeated, 0 altered, 0 unexpected, 0 faulty objects", []string{"missing: a,", "missing: b,"}},
		{"look-back", objects{"1": `{"id":"b","effective_at":20}` + "\n"}, 11, "", nil},
		{"look-back, the bound included", nil, 20, "0 collected, 1 missing, 0 repeated, 0 altered, 0 unexpected, 0 faulty objects", []string{"missing: b,"}},
		{"three times", objects{"1": good, "2": good + good}, 0, "6 collected, 0 missing, 4 repeated, 0 altered, 0 unexpected, 0 faulty objects", []string{"repeated: a, 3 times"}},
		{"twice, before the bound", objects{"1": good + good}, 100, "4 collected, 0 missing, 2 repeated, 0 altered, 0 unexpected, 0 faulty objects", nil},
		{"altered", objects{"1": good[:27] + " " + good[27:]}, 0, "2 collected, 0 missing, 0 repeated, 1 altered, 0 unexpected, 0 faulty objects", []string{`altered: line 1 of "openai-auditlog/1"`}},
		{"unexpected", objects{"1": good + `{"id":"c"}` + "\n[]\n"}, 0, "4 collected, 0 missing, 0 repeated, 0 altered, 2 unexpected, 0 faulty objects", []string{`unexpected: line 3`, `[]`}},
		{"no new line", objects{"1": strings.TrimSpace(good)}, 0, "0 collected, 2 missing, 0 repeated, 0 altered, 0 unexpected, 1 faulty objects", []string{"ends without a new line"}},
		{"empty", objects{"1": good, "2": ""}, 0, "2 collected, 0 missing, 0 repeated, 0 altered, 0 unexpected, 1 faulty objects", nil},
		{"empty line", objects{"1": good + "\n"}, 0, "2 collected, 0 missing, 0 repeated, 0 altered, 0 unexpected, 1 faulty objects", []string{"line 3 is not JSON"}},
		{"half a line", objects{"1": good + `{"id":` + "\n"}, 0, "2 collected, 0 missing, 0 repeated, 0 altered, 0 unexpected, 1 faulty objects", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, _ := start(t, world.Options{InMemory: true})
			if err := w.API.Add([]byte(`{"id":"a","effective_at":10}`), []byte(`{"id":"b","effective_at":20}`)); err != nil {
				t.Fatal(err)
			}
			w.Since = tt.since
			w.Bucket.Write("logs", "staged/x", []byte("not for the feed"))
			for name, data := range tt.objects {
				if err := w.Bucket.Write("logs", "openai-auditlog/"+name, []byte(data)); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // what was wrong stays wrong
				err := w.Check()
				if (err == nil) != (tt.want == "") {
					t.Fatalf("Check: %v", err)
				}
				for _, text := range append(tt.text, tt.want) {
					if err != nil && !strings.Contains(err.Error(), text) {
						t.Errorf("the error does not tell %q: %v", text, err)
					}
				}
			}
		})
	}
}

func TestFeedRemoves(t *testing.T) {
	w, _ := start(t, world.Options{InMemory: true})
	g := auditapi.NewGenerator(1)
	write := func(name string, raw ...[]byte) {
		t.Helper()
		var data []byte
		for _, r := range raw {
			data = append(append(data, r...), '\n')
		}
		if err := w.Bucket.Write("logs", "openai-auditlog/"+name, data); err != nil {
			t.Fatal(err)
		}
	}
	a, b := g.Next(1), g.Next(2)
	if err := w.API.Add(a, b); err != nil {
		t.Fatal(err)
	}
	write("1", a)
	w.Bucket.Write("logs", "openai-auditlog/bad", []byte("x"))
	for range 2 {
		if err := w.Feed(true); err != nil && strings.Count(err.Error(), "\n") > 0 {
			t.Error(err)
		}
	}
	if o := w.Bucket.Objects("logs", ""); len(o) != 1 || o[0].Name != "openai-auditlog/bad" {
		t.Errorf("left %+v, want the faulty one", o)
	}
	w.Bucket.Delete("logs", "openai-auditlog/bad")
	write("2", b)
	if got, want := w.Report().String(), "1 collected, 1 missing, 0 repeated, 0 altered, 0 unexpected, 1 faulty objects"; got != want {
		t.Errorf("%s, want %s", got, want)
	}

	// Under a name that is used again, what is there is new.
	write("1", a)
	w.Feed(false)
	if got, want := w.Report().String(), "3 collected, 0 missing, 1 repeated, 0 altered, 0 unexpected, 1 faulty objects"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	w.Feed(true) // deletes what it took before
	if o := w.Bucket.Objects("logs", ""); len(o) != 0 {
		t.Errorf("left %+v", o)
	}
}
