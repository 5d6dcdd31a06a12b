package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/storage"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/sim/fault"
)

func (x *fixture) list() []Object {
	x.t.Helper()
	var list []Object
	for o, err := range x.Objects(x.t.Context()) {
		if err != nil {
			x.t.Fatal(err)
		}
		list = append(list, o)
	}
	return list
}

// lines reads an object.
func (x *fixture) lines(o Object) (lines []audit.Line, err error) {
	for l, err := range x.Lines(x.t.Context(), o) {
		if err != nil {
			return lines, err
		}
		if l.Bad {
			l.At, l.Type = 0, "" // they say nothing
		}
		l.Hash = 0 // see TestLineHash
		lines = append(lines, l)
	}
	return lines, nil
}

func TestObjects(t *testing.T) {
	inBubble(t, "states", func(t *testing.T, x *fixture) {
		if list := x.list(); len(list) != 0 {
			t.Errorf("before the first run: %+v", list)
		}
		for _, name := range []string{"feed", "feed/", final, next, "feed/openai_auditlog_20000101_000000.ndjson.gz", "feed/sub/openai_auditlog_20000101_000000.ndjson", "feed/\U0001F600", "feeds/x", "state/x"} {
			x.inFeed(name, name)
			time.Sleep(time.Second)
		}
		x.write("feed/of-states", "")
		began := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
		object := func(name string, second int, collected bool) Object {
			at := began.Add(time.Duration(second) * time.Second)
			return Object{Name: name, Created: at, Updated: at, Size: int64(len("feed/" + name)), Collected: collected}
		}
		want := []Object{
			object("", 1, false),
			object("openai_auditlog_20000101_000000.ndjson", 2, true),
			object("openai_auditlog_20000101_000000.ndjson.gz", 4, false),
			object("openai_auditlog_20000101_000001.ndjson", 3, true),
			object("sub/openai_auditlog_20000101_000000.ndjson", 5, false),
			object("\U0001F600", 6, false),
		}
		if diff := cmp.Diff(want, x.list(), cmpopts.IgnoreUnexported(Object{})); diff != "" {
			t.Error(diff)
		}

		// Whoever has seen enough may stop; and a list comes in pages.
		x.faults.SetHooks(func(_ int, r *http.Request) {
			q := r.URL.Query()
			q.Set("maxResults", "2")
			r.URL.RawQuery = q.Encode()
		}, nil)
		x.faults.Set(nil)
		for range x.Objects(t.Context()) {
			break
		}
		if n := x.faults.Count(); n != 1 {
			t.Errorf("%d requests for one object, want 1", n)
		}
		if diff := cmp.Diff(want, x.list(), cmpopts.IgnoreUnexported(Object{})); diff != "" {
			t.Error(diff)
		}
		x.faults.SetHooks(nil, nil)

		// The error is the client's, and the last that comes.
		x.server.Deny(func(_, op, _, _ string) bool { return op == "list" })
		n := 0
		for o, err := range x.Objects(t.Context()) {
			if n++; StatusOf(err) != 403 || o != (Object{}) {
				t.Errorf("denied: %+v, %v", o, err)
			}
		}
		if n != 1 {
			t.Errorf("denied: %d errors", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, err := range x.Objects(ctx) {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
		}
	})
}

func TestObjectsNowhere(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		l := x.Layout
		l.Bucket = "nowhere"
		for _, err := range x.with(l).Objects(t.Context()) {
			if !BucketMissing(err) {
				t.Errorf("no bucket: %v", err)
			}
		}
	})
}

// TestLines: each line is one, whatever it holds.
func TestLines(t *testing.T) {
	long := `{"effective_at":9,"type":"long","x":"` + strings.Repeat("x", 3<<20) + `"}`
	late := `{"x":"` + strings.Repeat("x", maxLineHead) + `","effective_at":9}` // beyond what is held
	bad := func(n int) audit.Line { return audit.Line{Bytes: int64(n), Bad: true} }
	for name, c := range map[string]struct {
		data string
		want []audit.Line
	}{
		"empty":       {"", nil},
		"empty lines": {"\n \n\r\n\t", nil},
		"one":         {`{"type":"a","effective_at":7}` + "\n", []audit.Line{{At: 7, Type: "a", Bytes: 30}}},
		"no end":      {`{"type":"a","effective_at":7}`, []audit.Line{{At: 7, Type: "a", Bytes: 29}}},
		"odd": {strings.Join([]string{
			`{"type":"a","effective_at":7}`,
			`{"id":"x","nested":{"type":"no","effective_at":1},"effective_at":8e0,"actor":null}`,
			``, `{"type":"no time"}`, `[1]`, `{"effective_at":"soon"}`, `cut {`,
			`{"type":"line\u2028\u0007break","effective_at":10}`,
		}, "\n"), []audit.Line{{At: 7, Type: "a", Bytes: 30}, {At: 8, Bytes: 83}, bad(19), bad(4), bad(24), bad(6), {At: 10, Type: "line break", Bytes: 50}}},
		"long":       {long + "\n" + long, []audit.Line{{At: 9, Type: "long", Bytes: int64(len(long)) + 1}, {At: 9, Type: "long", Bytes: int64(len(long))}}},
		"long, late": {late + "\n" + `{"effective_at":3}`, []audit.Line{bad(len(late) + 1), {At: 3, Bytes: 18}}},
		"buffer's":   {strings.Repeat(" ", 64<<10-1) + "\n" + `{"effective_at":3}` + strings.Repeat(" ", 64<<10-19) + "\n" + `{"effective_at":4}`, []audit.Line{{At: 3, Bytes: 64 << 10}, {At: 4, Bytes: 18}}},
		"binary":     {"\x00\xff\x1f\x8b\n\n{", []audit.Line{bad(5), bad(1)}},
	} {
		inBubble(t, "states", func(t *testing.T, x *fixture) {
			x.inFeed(final, c.data)
			got, err := x.lines(x.list()[0])
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
			// Whoever has seen enough may stop.
			for range x.Lines(t.Context(), x.list()[0]) {
				break
			}
		})
	}
}

// TestLineHash: lines of the same bytes have the same hash, whatever ends them.
func TestLineHash(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		x.inFeed(final, `{"effective_at":1}`+"\r\n"+`{"effective_at":2}`+"\n"+`{"effective_at":1}`)
		var hashes []uint64
		for l, err := range x.Lines(t.Context(), x.list()[0]) {
			if err != nil {
				t.Fatal(err)
			}
			hashes = append(hashes, l.Hash)
		}
		if len(hashes) != 3 || hashes[0] != hashes[2] || hashes[0] == hashes[1] {
			t.Errorf("hashes %x", hashes)
		}
	})
}

// TestLinesChange: an object is read as it was listed, or not at all.
func TestLinesChange(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		x.inFeed(final, `{"effective_at":1}`)
		o := x.list()[0]
		for _, change := range []func(){
			func() { x.inFeed(final, `{"effective_at":2}`) },
			func() { x.server.Delete("logs", final) },
		} {
			change()
			got, err := x.lines(o)
			if !errors.Is(err, storage.ErrObjectNotExist) || len(got) > 0 {
				t.Errorf("%+v, %v", got, err)
			}
			wantError(t, "gone", err, "reading gs://logs/"+final+": ")
		}
	})
}

// TestLinesFail: what is cut off, lost or busy is read on; an error is the last that
// comes, and never passes for the end.
func TestLinesFail(t *testing.T) {
	var data strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&data, "{\"effective_at\":%d}\n", i)
	}
	for name, f := range map[string]fault.Fault{"cut": {Kind: fault.Cut}, "lose": {Kind: fault.Lose}, "drop": {Kind: fault.Drop}, "busy": {Kind: fault.Refuse}} {
		inBubble(t, "logs", func(t *testing.T, x *fixture) {
			x.inFeed(final, data.String())
			o := x.list()[0]
			x.strike(1, f, anything)
			got, err := x.lines(o)
			if err != nil || len(got) != 20000 {
				t.Errorf("%s: %d lines, %v", name, len(got), err)
			}
			for i, l := range got {
				if l.At != int64(i) || l.Bad {
					t.Fatalf("%s: line %d is %+v", name, i, l)
				}
			}
		})
	}
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		x.inFeed(final, data.String())
		o := x.list()[0]
		x.server.Deny(func(_, op, _, _ string) bool { return op == "get" })
		_, err := x.lines(o)
		wantError(t, "denied", err, "reading gs://logs/"+final+": ", `whoever reads needs the role Storage Object Viewer on bucket "logs": `)
		x.server.Deny(nil)

		// Cut off, and then denied.
		x.faults.Set(func(n int, r *http.Request) fault.Fault {
			if n == 1 {
				return fault.Fault{Kind: fault.Cut}
			}
			return fault.Fault{Kind: fault.Refuse, Status: 403}
		})
		got, err := x.lines(o)
		wantError(t, "cut and denied", err, "reading gs://logs/"+final+": ", "Storage Object Viewer")
		if len(got) == 0 || len(got) >= 20000 {
			t.Errorf("cut and denied: %d lines", len(got))
		}
		for i, l := range got {
			if l.At != int64(i) || l.Bad {
				t.Fatalf("line %d is %+v", i, l)
			}
		}

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		x.faults.Set(nil)
		n, last := 0, error(nil)
		for _, err := range x.Lines(ctx, o) {
			n, last = n+1, err
			cancel()
		}
		if !errors.Is(last, context.Canceled) || n >= 20000 {
			t.Errorf("cancelled: %d lines, %v", n, last)
		}
	})
}
