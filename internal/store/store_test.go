package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/storage"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/option"

	"example.com/auditlog/internal/names"
	"example.com/auditlog/internal/sim/bucket"
	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/sim/world"
	"example.com/auditlog/internal/state"
)

const (
	stateKey = "state/collector/state.json"
	folder   = "state/collector/staged/state.json/"
	final    = "feed/openai_auditlog_20000101_000000.ndjson"
	next     = "feed/openai_auditlog_20000101_000001.ndjson"
	step     = 15 * time.Second
)

// fixture is a store, and the world that it is in.
type fixture struct {
	*Store
	t      *testing.T
	world  *world.World
	server *bucket.Server // of the store's objects
	faults *fault.Handler // of its requests
}

// inBubble runs f with the store of a collector, whose feed reads from the bucket
// "logs". The clock stands still but while everything waits.
func inBubble(t *testing.T, stateBucket string, f func(t *testing.T, x *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w, err := world.New(world.Options{InMemory: true, Buckets: []string{"logs", "states"}})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		x := &fixture{t: t, world: w, server: w.Bucket, faults: w.BucketFaults}
		x.Store = x.with(names.Layout{Bucket: "logs", Prefix: "feed", StateBucket: stateBucket, StateKey: stateKey})
		f(t, x)
	})
}

// with is another collector's store.
func (x *fixture) with(l names.Layout) *Store {
	x.t.Helper()
	client, err := NewClient(context.Background(), x.world.StorageOptions()...)
	if err != nil {
		x.t.Fatal(err)
	}
	return New(client, Options{Layout: l, Step: step})
}

func (x *fixture) write(name, data string) bucket.Object {
	x.t.Helper()
	if err := x.server.Write(x.StateBucket, name, []byte(data)); err != nil {
		x.t.Fatal(err)
	}
	return x.object(name)
}

// object is one in the state's bucket.
func (x *fixture) object(name string) bucket.Object {
	x.t.Helper()
	o, _, err := x.server.Get(x.StateBucket, name)
	if err != nil {
		x.t.Fatal(err)
	}
	return o
}

// holds fails the test unless the bucket has an object with that content; "" for
// none.
func (x *fixture) holds(where, name, want string) {
	x.t.Helper()
	data, err := x.server.Read(where, name)
	if want == "" && err == nil || string(data) != want {
		x.t.Errorf("%s/%s holds %.100q, want %.100q", where, name, data, want)
	}
}

// all lists both buckets.
func (x *fixture) all() []string {
	var all []string
	for _, b := range []string{"logs", "states"} {
		for _, o := range x.server.Objects(b, "") {
			all = append(all, b+"/"+o.Name)
		}
	}
	return all
}

// strike lets a fault strike the requests of which is true, n of them; 0 for all.
func (x *fixture) strike(n int, f fault.Fault, which func(*http.Request) bool) {
	struck := 0
	x.faults.Set(func(_ int, r *http.Request) fault.Fault {
		if !which(r) || n > 0 && struck == n {
			return fault.Fault{}
		}
		struck++
		return f
	})
}

func writes(r *http.Request) bool  { return r.Method == http.MethodPost || r.Method == http.MethodPut }
func reads(r *http.Request) bool   { return r.Method == http.MethodGet }
func deletes(r *http.Request) bool { return r.Method == http.MethodDelete }
func anything(*http.Request) bool  { return true }

// after does something once the first request of which is true has been handled.
func (x *fixture) after(which func(*http.Request) bool, do func()) {
	done := false
	x.faults.SetHooks(nil, func(_ int, r *http.Request) {
		if !done && which(r) {
			done = true
			do()
		}
	})
}

// stateOf is a state at a watermark.
func stateOf(watermark int64) state.State {
	return state.State{Stream: state.Stream{Watermark: watermark, High: watermark, LastRun: "2000-01-01T00:00:00Z"}}
}

func staging(s state.State, name string) state.State {
	s.Staging = state.Staging{Staged: folder + name, LastObject: final, StagedGeneration: 7, StagedBucket: "logs"}
	return s
}

func encoded(t *testing.T, s state.State) string {
	t.Helper()
	var object strings.Builder
	if err := state.Encode(&object, s); err != nil {
		t.Fatal(err)
	}
	return object.String()
}

func (x *fixture) load() *Snapshot {
	x.t.Helper()
	s, err := x.Load(x.t.Context())
	if err != nil {
		x.t.Fatal(err)
	}
	return s
}

func (x *fixture) commit(old *Snapshot, s state.State) {
	x.t.Helper()
	if _, err := x.Commit(x.t.Context(), old, s); err != nil {
		x.t.Fatal(err)
	}
}

func wantError(t *testing.T, what string, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%s: error %q lacks %q", what, err, p)
		}
	}
}

func TestLoad(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		if s := x.load(); !s.First() || s.Note != "" || !s.Written.IsZero() || s.State.Watermark != 0 {
			t.Errorf("absent: %+v", s)
		}
		time.Sleep(time.Hour)
		want := staging(stateOf(946684000), "a.ndjson")
		want.Organization, want.Tenant = "o", &state.Stream{Watermark: 5, High: 5}
		o := x.write(stateKey, encoded(t, want))
		time.Sleep(time.Hour)
		s := x.load()
		want.Own, want.Tenant.Own = true, true
		if diff := cmp.Diff(want, s.State); diff != "" {
			t.Error(diff)
		}
		if s.First() || s.Note != "" || s.Written.Sub(o.Created).Abs() >= time.Second || s.generation != o.Generation {
			t.Errorf("%+v, want generation %d of %s", s, o.Generation, o.Created)
		}
		if n := x.faults.Count(); n != 2 {
			t.Errorf("%d requests, want one each", n)
		}

		x.write(stateKey, `{"last_effective_at": 946684000}`)
		if s := x.load(); s.First() || s.Note != "" || s.State.High != 946684000 {
			t.Errorf("another function's: %+v", s)
		}
		x.write(stateKey, `{"last_effective_at": 946683000, "high": 946684000}`)
		if s := x.load(); !strings.Contains(s.Note, "set by hand from 946684000 to 946683000") {
			t.Errorf("edited: %+v", s)
		}
	})
}

// TestPutIsWhole: what is not written to its end makes no object.
func TestPutIsWhole(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		failed := errors.New("failed")
		for _, text := range []string{"", "half", strings.Repeat("x", 1<<20)} {
			// The checksum is that of what is written, so that the bucket would take it.
			_, err := x.put(t.Context(), x.States.Object("whole"), storage.ObjectAttrs{CRC32C: checksum([]byte(text))}, func(w io.Writer) error {
				_, err := io.WriteString(w, text)
				return errors.Join(err, failed)
			})
			if !errors.Is(err, failed) {
				t.Errorf("%d bytes: error %v", len(text), err)
			}
			if _, _, err := x.server.Get("logs", "whole"); err == nil {
				t.Errorf("%d bytes make an object", len(text))
			}
		}
	})
}

// TestLoadFails: no failure passes for a first run.
func TestLoadFails(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		for name, data := range map[string]string{
			"no JSON":              `{`,
			"nothing":              ``,
			"no state":             `{"high": 5}`,
			"ahead":                `{"last_effective_at": 1946684000}`,
			"staged elsewhere":     `{"last_effective_at": 1, "staged": "feed/x.ndjson", "last_object": "` + final + `"}`,
			"staged without final": `{"last_effective_at": 1, "staged": "` + folder + `x.ndjson"}`,
			"staged as what":       `{"last_effective_at": 1, "staged": "` + folder + `x.ndjson", "last_object": "feed/x.ndjson"}`,
		} {
			x.write(stateKey, data)
			s, err := x.Load(t.Context())
			if damaged := new(Damaged); s != nil || !errors.As(err, &damaged) || errors.Unwrap(err) == nil || err.Error() != "damaged: "+damaged.Err.Error() || !strings.HasSuffix(damaged.Remedy(), "(Unix seconds)") {
				t.Errorf("%s: %+v, %v", name, s, err)
			}
		}
		x.write(stateKey, `{"last_effective_at": 1, "version": 2}`)
		s, err := x.Load(t.Context())
		if damaged := new(Damaged); s != nil || !errors.As(err, &damaged) || !strings.HasPrefix(err.Error(), "newer than this release: it has version 2") || !strings.HasPrefix(damaged.Remedy(), "deploy the newer release again") {
			t.Errorf("a later release's: %+v, %v", s, err)
		}

		x.write(stateKey, encoded(t, stateOf(1)))
		for name, c := range map[string]struct {
			fault fault.Fault
			is    func(error) bool
		}{
			"unauthorized":  {fault.Fault{Kind: fault.Refuse, Status: 401}, func(err error) bool { return StatusOf(err) == 401 }},
			"forbidden":     {fault.Fault{Kind: fault.Refuse, Status: 403}, func(err error) bool { return StatusOf(err) == 403 }},
			"busy":          {fault.Fault{Kind: fault.Refuse, Status: 503}, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
			"never answers": {fault.Fault{Kind: fault.Hang}, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
			"other bytes than are stored": {fault.Fault{Kind: fault.Fail, Status: 200, Header: http.Header{"X-Goog-Hash": {"crc32c=AAAAAA=="}}, Body: `{"last_effective_at": 5}`},
				func(err error) bool { return strings.Contains(err.Error(), "CRC") }},
		} {
			x.strike(0, c.fault, anything)
			began := time.Now()
			s, err := x.Load(t.Context())
			if s != nil || err == nil || !c.is(err) || errors.As(err, new(*Damaged)) || BucketMissing(err) {
				t.Errorf("%s: %+v, %v", name, s, err)
			}
			if took := time.Since(began); took > step {
				t.Errorf("%s: took %s", name, took)
			}
		}
		for _, kind := range []fault.Kind{fault.Drop, fault.Lose, fault.Cut} {
			x.strike(1, fault.Fault{Kind: kind}, anything)
			if s := x.load(); s.State.Watermark != 1 {
				t.Errorf("%s: %+v", kind, s)
			}
		}

		x.faults.Set(nil)
		for name, l := range map[string]names.Layout{
			"no bucket":       {Bucket: "nowhere", Prefix: "feed", StateBucket: "nowhere", StateKey: stateKey},
			"no state bucket": {Bucket: "logs", Prefix: "feed", StateBucket: "nowhere", StateKey: stateKey},
		} {
			if s, err := x.with(l).Load(t.Context()); s != nil || !BucketMissing(err) {
				t.Errorf("%s: %+v, %v", name, s, err)
			}
		}
	})
}

// TestLoadReplaced: a state that is replaced while it is read, whose rest is gone, does not pass for absent.
func TestLoadReplaced(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		x.write(stateKey, encoded(t, stateOf(1)))
		x.strike(1, fault.Fault{Kind: fault.Cut}, reads)
		x.after(reads, func() { x.write(stateKey, encoded(t, stateOf(2))) })
		if s, err := x.Load(t.Context()); err != nil || s.First() || s.State.Watermark != 2 {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

// TestTooLarge: what is not read is not written either.
func TestTooLarge(t *testing.T) {
	client := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		if !reads(r) {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		return &http.Response{
			StatusCode: http.StatusOK, ContentLength: state.MaxBytes + 1, Request: r,
			Header: http.Header{"X-Goog-Generation": {"1"}, "X-Goog-Metageneration": {"1"}},
			Body:   io.NopCloser(io.LimitReader(zeros{}, state.MaxBytes+1)),
		}, nil
	})}
	gcs, err := NewClient(t.Context(), option.WithHTTPClient(client), option.WithoutAuthentication())
	if err != nil {
		t.Fatal(err)
	}
	st := New(gcs, Options{Layout: names.Layout{Bucket: "logs", Prefix: "feed", StateBucket: "logs", StateKey: stateKey}, Step: time.Minute})
	s, err := st.Load(t.Context())
	wantError(t, "load", err, fmt.Sprintf("larger than %d MiB", state.MaxBytes>>20))
	if s != nil || errors.As(err, new(*Damaged)) {
		t.Errorf("it is loaded, or damaged: %v", err)
	}
	if testing.Short() {
		return // encoding so much takes seconds
	}
	big := stateOf(1)
	big.Organization = strings.Repeat("x", state.MaxBytes)
	_, err = st.Commit(t.Context(), &Snapshot{}, big)
	wantError(t, "commit", err, fmt.Sprintf("more than the %d MiB that are read", state.MaxBytes>>20), "gs://logs/"+stateKey, "OVERLAP_SECONDS")
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// zeros has no end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestCommit(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		first, alsoFirst := x.load(), x.load()
		written, err := x.Commit(t.Context(), first, stateOf(10))
		if err != nil || !written.Equal(time.Now()) {
			t.Fatalf("%s, %v", written, err)
		}
		if o := x.object(stateKey); o.ContentType != "application/json" {
			t.Errorf("%+v", o)
		}
		if _, err := x.Commit(t.Context(), alsoFirst, stateOf(11)); !errors.Is(err, ErrOvertaken) {
			t.Errorf("a first commit twice: %v", err)
		}
		if _, err := x.Commit(t.Context(), first, stateOf(11)); !errors.Is(err, ErrOvertaken) {
			t.Errorf("a first commit twice: %v", err)
		}
		x.holds("logs", stateKey, encoded(t, stateOf(10)))

		old, stale := x.load(), x.load()
		time.Sleep(time.Hour)
		if written, err := x.Commit(t.Context(), old, stateOf(20)); err != nil || !written.Equal(time.Now()) {
			t.Errorf("%s, %v", written, err)
		}
		for _, s := range []*Snapshot{stale, old} {
			if _, err := x.Commit(t.Context(), s, stateOf(30)); !errors.Is(err, ErrOvertaken) {
				t.Errorf("a stale snapshot: %v", err)
			}
		}
		x.holds("logs", stateKey, encoded(t, stateOf(20)))
	})
}

// TestCommitOnce: of those at the same time one commits, and no commit is lost.
func TestCommitOnce(t *testing.T) {
	const committers, each = 6, 5
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		x.commit(x.load(), stateOf(0))
		var wg sync.WaitGroup
		for i := range committers {
			wg.Go(func() {
				st := x.with(x.Layout)
				for n := 0; n < each; {
					old, err := st.Load(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					s := old.State
					s.Watermark++
					s.High, s.LastBackfill = s.Watermark, fmt.Sprint(i, n)
					switch _, err := st.Commit(t.Context(), old, s); {
					case err == nil:
						n++
					case !errors.Is(err, ErrOvertaken):
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if s := x.load(); s.State.Watermark != committers*each {
			t.Errorf("%d commits count, want %d", s.State.Watermark, committers*each)
		}
	})
}

// TestCommitReadsBack: what the answer does not say, the bucket does.
func TestCommitReadsBack(t *testing.T) {
	old := staging(stateOf(10), "old.ndjson")
	mine := staging(stateOf(20), "mine.ndjson")
	backfill := old
	backfill.LastBackfill = "mine"
	edited := func(s state.State) state.State { s.Watermark = 15; return s }
	others := func(s state.State) state.State { s.LastBackfill = "theirs"; return s }
	overtaken := func(err error) bool { return errors.Is(err, ErrOvertaken) }
	refused := func(parts ...string) func(error) bool {
		return func(err error) bool {
			for _, p := range parts {
				if err == nil || errors.Is(err, ErrOvertaken) || !strings.Contains(err.Error(), p) {
					return false
				}
			}
			return true
		}
	}
	fine := func(err error) bool { return err == nil }

	lost := fault.Fault{Kind: fault.Lose}
	for _, c := range []struct {
		name   string
		first  bool // there is no state before
		next   state.State
		fault  fault.Fault // of writes
		times  int         // it strikes; 0: each
		after  any         // in place of what is there once the write has been handled: a state, data, or nil for none
		reads  fault.Fault // of reads
		result func(error) bool
	}{
		{name: "answer lost once", next: mine, fault: lost, times: 1, after: mine, result: fine},
		{name: "answers lost", next: mine, fault: lost, after: mine, result: fine},
		{name: "first, answer lost", first: true, next: mine, fault: lost, times: 1, after: mine, result: fine},
		{name: "nothing staged, answer lost", next: stateOf(20), fault: lost, times: 1, after: stateOf(20), result: fine},
		{name: "first, nothing staged, answer lost", first: true, next: stateOf(20), fault: lost, times: 1, after: stateOf(20), result: fine},
		{name: "applied and failed", next: mine, fault: fault.Fault{Kind: fault.Fail, Status: 503}, after: mine, result: fine},
		{name: "applied and never answered", next: mine, fault: fault.Fault{Kind: fault.HangAfter}, after: mine, result: fine},
		{name: "applied and forbidden", next: mine, fault: fault.Fault{Kind: fault.Fail, Status: 403}, after: mine, result: fine},
		{name: "busy", next: mine, fault: fault.Fault{Kind: fault.Refuse}, after: old, result: refused("writing state gs://logs/"+stateKey+": ", "503")},
		{name: "first, busy", first: true, next: mine, fault: fault.Fault{Kind: fault.Refuse}, result: refused("writing state gs://logs/"+stateKey+": ", "503")},
		{name: "forbidden", next: mine, fault: fault.Fault{Kind: fault.Refuse, Status: 403}, after: old, result: refused("lacks a role on the bucket")},
		{name: "never answered", next: mine, fault: fault.Fault{Kind: fault.Hang}, after: old, result: refused("deadline exceeded")},
		{name: "busy once", next: mine, fault: fault.Fault{Kind: fault.Refuse}, times: 1, after: mine, result: fine},

		{name: "edited", next: mine, fault: lost, times: 1, after: edited(mine), result: fine},
		{name: "edited by hand", next: mine, fault: lost, times: 1, after: `{"last_effective_at": 5, "high": 20, "staged": "` + mine.Staged + `", "last_object": "` + final + `"}`, result: fine},
		{name: "first, edited", first: true, next: mine, fault: lost, times: 1, after: edited(mine), result: fine},
		{name: "a backfill on top", next: mine, fault: lost, times: 1, after: others(mine), result: fine},
		{name: "a run on top", next: mine, fault: lost, times: 1, after: staging(stateOf(30), "theirs.ndjson"), result: overtaken},
		{name: "what was before, again", next: mine, fault: lost, times: 1, after: old, result: overtaken},
		{name: "nothing staged, edited", next: stateOf(20), fault: lost, times: 1, after: edited(stateOf(20)), result: overtaken},
		{name: "backfill, edited", next: backfill, fault: lost, times: 1, after: edited(backfill), result: fine},
		{name: "backfill, another's on top", next: backfill, fault: lost, times: 1, after: others(backfill), result: overtaken},
		{name: "backfill, a run on top", next: backfill, fault: lost, times: 1, after: func() state.State { s := mine; s.LastBackfill = "mine"; return s }(), result: fine},
		{name: "a run that stages nothing, another backfill", next: edited(old), fault: lost, times: 1, after: others(old), result: overtaken},

		{name: "deleted", next: mine, fault: lost, times: 1, after: nil, result: refused("it was deleted during the run")},
		{name: "first, deleted", first: true, next: mine, fault: fault.Fault{Kind: fault.Fail, Status: 403}, after: nil, result: refused("writing state gs://logs/" + stateKey + ": ")},
		{name: "damaged", next: mine, fault: lost, times: 1, after: "{", result: refused("and what is there now is damaged: ")},
		{name: "newer", next: mine, fault: lost, times: 1, after: `{"last_effective_at": 5, "version": 2}`, result: refused("and what is there now is newer than this release: ")},
		{name: "damaged name", next: mine, fault: lost, times: 1, after: `{"last_effective_at": 5, "staged": "x"}`, result: refused("and what is there now is damaged: ", "no staged object has such a name")},
		{name: "unreadable", next: mine, fault: lost, times: 1, after: mine, reads: fault.Fault{Kind: fault.Refuse, Status: 403}, result: refused("and it could not be read back: ", "403")},
		{name: "unreadable, busy", next: mine, fault: lost, after: mine, reads: fault.Fault{Kind: fault.Refuse}, result: refused("and it could not be read back: ")},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, "logs", func(t *testing.T, x *fixture) {
				if !c.first {
					x.write(stateKey, encoded(t, old))
				}
				before := x.load()
				struck := 0
				x.faults.Set(func(_ int, r *http.Request) fault.Fault {
					switch {
					case reads(r):
						return c.reads
					case c.times > 0 && struck == c.times:
						return fault.Fault{}
					}
					struck++
					return c.fault
				})
				var want string
				switch after := c.after.(type) {
				case state.State:
					want = encoded(t, after)
				case string:
					want = after
				}
				x.after(writes, func() {
					switch data, err := x.server.Read("logs", stateKey); {
					case want == "":
						if err := x.server.Delete("logs", stateKey); err != nil {
							t.Error(err)
						}
					case err != nil || string(data) != want:
						x.write(stateKey, want)
					}
				})
				began := time.Now()
				written, err := x.Commit(t.Context(), before, c.next)
				if !c.result(err) {
					t.Errorf("error %v", err)
				}
				if (err == nil) == written.IsZero() || err == nil && (written.Before(began.Truncate(time.Second)) || written.After(time.Now())) {
					t.Errorf("written at %s, with %v", written, err)
				}
				if took := time.Since(began); took > 2*step {
					t.Errorf("took %s", took)
				}
				x.holds("logs", stateKey, want)
			})
		})
	}
}

// TestCommitDeleted: a state that somebody deletes during a run is not begun anew
// by it.
func TestCommitDeleted(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		x.commit(x.load(), stateOf(10))
		old := x.load()
		if err := x.server.Delete("logs", stateKey); err != nil {
			t.Fatal(err)
		}
		_, err := x.Commit(t.Context(), old, stateOf(20))
		wantError(t, "deleted", err, "writing state gs://logs/"+stateKey+": it was deleted during the run")
		x.holds("logs", stateKey, "")

		// Deleted and begun anew: its generations are others.
		x.commit(x.load(), stateOf(15))
		if _, err := x.Commit(t.Context(), old, stateOf(20)); !errors.Is(err, ErrOvertaken) {
			t.Errorf("begun anew: %v", err)
		}
		x.holds("logs", stateKey, encoded(t, stateOf(15)))
	})
}

func TestCommitNowhere(t *testing.T) {
	inBubble(t, "nowhere", func(t *testing.T, x *fixture) {
		_, err := x.Commit(t.Context(), &Snapshot{}, stateOf(1))
		wantError(t, "no bucket", err, "writing state gs://nowhere/"+stateKey+": ", "no such bucket: check GCS_BUCKET and STATE_BUCKET")
		_, err = x.Commit(t.Context(), &Snapshot{generation: 5}, stateOf(1))
		wantError(t, "no bucket any more", err, "writing state gs://nowhere/"+stateKey+": ")
	})
}

func TestPut(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		o := x.States.Object("x")
		attrs, err := x.Put(t.Context(), o.If(storage.Conditions{DoesNotExist: true}), "text/plain", []byte("hello"))
		if err != nil || attrs.Size != 5 || attrs.ContentType != "text/plain" || attrs.Generation != x.object("x").Generation {
			t.Errorf("%+v, %v", attrs, err)
		}
		x.holds("logs", "x", "hello")
		if n := x.faults.Count(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
		if _, err := x.Put(t.Context(), o.If(storage.Conditions{DoesNotExist: true}), "text/plain", []byte("again")); StatusOf(err) != http.StatusPreconditionFailed {
			t.Errorf("it is there: %v", err)
		}
		x.holds("logs", "x", "hello")
		size := 1 << 20
		if !testing.Short() {
			size = 17 << 20 // more than the client sends at once unless told otherwise
		}
		big := strings.Repeat("x", size)
		x.faults.Set(nil)
		if _, err := x.Put(t.Context(), o.If(storage.Conditions{GenerationMatch: attrs.Generation}), "text/plain", []byte(big)); err != nil || x.faults.Count() != 1 {
			t.Errorf("large: %v, %d requests", err, x.faults.Count())
		}
		x.holds("logs", "x", big)

		// What changes on the way is refused.
		x.faults.SetHooks(func(_ int, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(strings.NewReader(strings.Replace(string(body), "sent", "came", 1)))
		}, nil)
		_, err = x.Put(t.Context(), x.States.Object("y"), "text/plain", []byte("sent"))
		wantError(t, "changed", err, "CRC32C")
		x.holds("logs", "y", "")
	})
}

func TestHolds(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		want := x.write("x", "hello")
		for data, holds := range map[string]bool{"hello": true, "hallo": false, "hello ": false, "": false} {
			attrs, ok := x.Holds(t.Context(), x.States.Object("x"), []byte(data))
			if ok != holds || ok != (attrs != nil) || ok && attrs.Generation != want.Generation {
				t.Errorf("%q: %v, %+v", data, ok, attrs)
			}
		}
		if _, ok := x.Holds(t.Context(), x.States.Object("y"), nil); ok {
			t.Error("it holds nothing, and is not there")
		}
		x.write("y", "")
		if _, ok := x.Holds(t.Context(), x.States.Object("y"), nil); !ok {
			t.Error("an empty object does not hold nothing")
		}
		x.server.Deny(func(_, _, _, _ string) bool { return true })
		if _, ok := x.Holds(t.Context(), x.States.Object("x"), []byte("hello")); ok {
			t.Error("what may not be read is held")
		}
	})
}

func TestNewClient(t *testing.T) {
	_, err := NewClient(t.Context(), option.WithScopes("x"), option.WithoutAuthentication(), option.WithAPIKey("k"))
	wantError(t, "bad options", err, "making the storage client: ")
}

// conceal makes the bucket answer 403 for what is not there, and list only inside the
// state's folder.
func (x *fixture) conceal() {
	x.server.Conceal()
	x.server.Deny(func(_, op, bucket, name string) bool {
		return op == "list" && (bucket != x.StateBucket || !strings.HasPrefix(name, "state/collector/"))
	})
}

// TestConcealed: where the bucket does not say what is missing, a listing does.
func TestConcealed(t *testing.T) {
	for name, stateBucket := range buckets {
		inBubble(t, stateBucket, func(t *testing.T, x *fixture) {
			x.conceal()
			if s := x.load(); !s.First() {
				t.Errorf("%s: %+v", name, s)
			}
			if err := x.DeleteStaged(t.Context(), staged); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			s := x.staging()
			for _, want := range []string{final, "", ""} {
				if got, err := x.Publish(t.Context(), s, final); err != nil || got != want {
					t.Errorf("%s: %q, %v", name, got, err)
				}
				x.server.Delete("logs", final)
			}

			// A first commit that is refused has not been made.
			x.strike(0, fault.Fault{Kind: fault.Refuse, Status: 403, Body: `{"error":{"message":"no"}}`}, writes)
			_, err := x.Commit(t.Context(), &Snapshot{}, stateOf(1))
			wantError(t, name, err, "writing state "+x.StateURL()+": ", "403")
			if strings.Contains(err.Error(), "read back") {
				t.Error(err)
			}

			// A 403 for what is there is an error, and so is a listing that fails.
			x.write(stateKey, encoded(t, stateOf(1)))
			x.strike(0, fault.Fault{Kind: fault.Refuse, Status: 403}, func(r *http.Request) bool { return r.URL.Query().Get("prefix") == "" })
			if s, err := x.Load(t.Context()); s != nil || StatusOf(err) != 403 || strings.Contains(err.Error(), "listed") {
				t.Errorf("%s: %+v, %v", name, s, err)
			}
			x.strike(0, fault.Fault{Kind: fault.Refuse, Status: 403}, reads)
			s1, err := x.Load(t.Context())
			if wantError(t, name, err, "403", "; and whether it is there could not be listed: "); s1 != nil || absent(err) {
				t.Errorf("%s: %+v, %v", name, s1, err)
			}
		})
	}
}

func sorted(list ...string) []string { slices.Sort(list); return list }
