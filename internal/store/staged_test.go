package store

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/auditlog/internal/names"
	"example.com/auditlog/internal/sim/auditapi"
	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/state"
)

// stage stages these records.
func (x *fixture) stage(records ...string) *Staged {
	x.t.Helper()
	o := x.Stage(x.t.Context(), time.Now())
	for _, r := range records {
		if _, err := o.Write([]byte(r)); err != nil {
			x.t.Fatal(err)
		}
	}
	return o
}

// TestStaged: what was written is there, to the byte, one record a line.
func TestStaged(t *testing.T) {
	g := auditapi.NewGenerator(1)
	var many []string
	for size := 0; size < 2*chunkSize+1000; {
		many = append(many, string(g.Next(1)))
		size += len(many[len(many)-1])
	}
	for name, records := range map[string][]string{
		"one":   {`{"id":"a","effective_at":1}`},
		"odd":   {`{"id":"a b","x":[1,2.50e3,"\u00e9\/"]}`, `{"id":"<b>&\u2028é"}`},
		"huge":  {`{"id":"a","x":"` + strings.Repeat("x", 3*chunkSize) + `"}`, `{"id":"b"}`},
		"chunk": {`{"id":"` + strings.Repeat("x", chunkSize-len(`{"id":""}`+"\n")) + `"}`},
		"many":  many,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, "logs", func(t *testing.T, x *fixture) {
				o := x.Stage(t.Context(), time.Date(2026, 11, 24, 12, 34, 56, 0, time.FixedZone("", 3600)))
				if !o.Empty() || o.Size != 0 {
					t.Errorf("it begins with %d bytes", o.Size)
				}
				if !regexp.MustCompile(`^`+folder+`20261124T113456Z-[a-z2-7]{26}\.ndjson$`).MatchString(o.Name) || names.CheckStaged(o.Name, final) != nil {
					t.Errorf("name %s", o.Name)
				}
				if other := x.Stage(t.Context(), time.Now()); other.Name == o.Name {
					t.Error("two have one name")
				}
				var want bytes.Buffer
				for _, r := range records {
					had := want.Len()
					want.WriteString(r + "\n")
					n, err := o.Write([]byte(r))
					if err != nil || n != want.Len()-had || o.Size != int64(want.Len()) || o.Empty() {
						t.Fatalf("wrote %d of %d, in all %d of %d: %v", n, want.Len()-had, o.Size, want.Len(), err)
					}
				}
				if err := o.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				stored, data, err := x.server.Get("logs", o.Name)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(data, want.Bytes()) {
					t.Errorf("%d bytes differ from the %d written:\n%.300q\n%.300q", len(data), want.Len(), data, want.Bytes())
				}
				if o.Generation == 0 || o.Generation != stored.Generation || o.Size != stored.Size || o.crc != stored.CRC32C || stored.ContentType != "application/x-ndjson" {
					t.Errorf("%+v, stored %+v", o, stored)
				}
				o.Abort() // as a run does in the end, whatever has become of it
				if diff := cmp.Diff([]string{"logs/" + o.Name}, x.all()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// TestStagedEmpty: no record, no object, and no request.
func TestStagedEmpty(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		x.Stage(t.Context(), time.Now()).Abort()
		if all, n := x.all(), x.faults.Count(); len(all) > 0 || n > 0 {
			t.Errorf("%d requests, objects %q", n, all)
		}
	})
}

// TestStagedAbort: what is given up does not become an object, however far it got.
func TestStagedAbort(t *testing.T) {
	for name, size := range map[string]int{"small": 10, "a chunk": chunkSize, "chunks": 3*chunkSize + 5} {
		for _, way := range []string{"abort", "the run ends"} {
			t.Run(name+"/"+way, func(t *testing.T) {
				inBubble(t, "logs", func(t *testing.T, x *fixture) {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					o := x.Stage(ctx, time.Now())
					if _, err := o.Write([]byte(`{"id":"` + strings.Repeat("x", size) + `"}`)); err != nil {
						t.Fatal(err)
					}
					if way == "abort" {
						o.Abort()
						_, err := o.Write([]byte(`{"id":"` + strings.Repeat("x", chunkSize) + `"}`))
						wantError(t, "writing after it", err, "writing gs://logs/"+o.Name)
					} else {
						cancel()
						wantError(t, "closing", o.Close(t.Context()), "writing gs://logs/"+o.Name)
						o.Abort()
					}
					time.Sleep(time.Hour)
					if all := x.all(); len(all) > 0 {
						t.Errorf("left: %q", all)
					}
				})
			})
		}
	}
}

// TestStagedFails lets the upload fail in every way, at each of its requests: what
// Close calls durable is there, and of what it does not it says why.
func TestStagedFails(t *testing.T) {
	small, large := []string{`{"id":"a"}`}, []string{`{"id":"a","x":"` + strings.Repeat("x", 2*chunkSize) + `"}`, `{"id":"b"}`}
	for name, c := range map[string]struct {
		fault fault.Fault
		times int // it strikes; 0: each time
		// At which requests the upload gets over it: s is a small one's only one; 1 begins
		// a large one, which 4 ends.
		good string
		text string // of the error
	}{
		"answer lost once":         {fault.Fault{Kind: fault.Lose}, 1, "s1234", ""},
		"no answer once":           {fault.Fault{Kind: fault.Drop}, 1, "s1234", ""},
		"busy once":                {fault.Fault{Kind: fault.Refuse}, 1, "s1234", ""},
		"applied, busy once":       {fault.Fault{Kind: fault.Fail}, 1, "s1234", ""},
		"never answered once":      {fault.Fault{Kind: fault.Hang}, 1, "s1234", ""},
		"applied and hanging once": {fault.Fault{Kind: fault.HangAfter}, 1, "s1234", ""},
		"never answered twice":     {fault.Fault{Kind: fault.Hang}, 2, "s1234", ""},
		"busy":                     {fault.Fault{Kind: fault.Refuse}, 0, "", ""},
		"no answer":                {fault.Fault{Kind: fault.Drop}, 0, "", ""},
		"never answered":           {fault.Fault{Kind: fault.Hang}, 0, "", ""},
		"forbidden":                {fault.Fault{Kind: fault.Refuse, Status: 403}, 0, "", "lacks a role on the bucket"},
		"no such upload":           {fault.Fault{Kind: fault.Refuse, Status: 404}, 0, "", "404"},
		"precondition":             {fault.Fault{Kind: fault.Refuse, Status: 412}, 0, "", "412"},
		"no bucket":                {fault.Fault{Kind: fault.Refuse, Status: 404, Body: `{"error":{"code":404,"message":"` + noBucket + `"}}`}, 0, "", "no such bucket"},
		"answers lost":             {fault.Fault{Kind: fault.Lose}, 0, "s4", ""},
		"applied, never answered":  {fault.Fault{Kind: fault.HangAfter}, 0, "s4", ""},
		"applied and then refused": {fault.Fault{Kind: fault.Fail, Status: 403}, 0, "s4", "lacks a role on the bucket"},
	} {
		t.Run(name, func(t *testing.T) {
			for request, records := range map[string][]string{"s": small, "1": large, "2": large, "3": large, "4": large} {
				if testing.Short() && (request == "2" || request == "3") {
					continue
				}
				inBubble(t, "logs", func(t *testing.T, x *fixture) {
					var sent, struck atomic.Int32
					first, _ := strconv.Atoi(request)
					x.faults.Set(func(_ int, r *http.Request) fault.Fault {
						if !writes(r) || sent.Add(1) < int32(first) || c.times > 0 && int(struck.Load()) == c.times {
							return fault.Fault{}
						}
						struck.Add(1)
						return c.fault
					})
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // a run's
					defer cancel()
					o := x.Stage(ctx, time.Now())
					var err error
					for _, r := range records {
						if err == nil {
							_, err = o.Write([]byte(r))
						}
					}
					if err == nil {
						err = o.Close(t.Context())
					}
					o.Abort()
					if struck.Load() == 0 {
						t.Fatalf("request %s never came", request)
					}
					data, readErr := x.server.Read("logs", o.Name)
					want := strings.Join(records, "\n") + "\n"
					good := strings.Contains(c.good, request)
					switch {
					case good && (err != nil || string(data) != want || o.Generation != x.object(o.Name).Generation):
						t.Errorf("request %s: error %v, %d of %d bytes are there", request, err, len(data), len(want))
					case !good && (err == nil || o.Generation != 0 || readErr == nil):
						t.Errorf("request %s: error %v, generation %d, %d bytes are there", request, err, o.Generation, len(data))
					case !good:
						wantError(t, "request "+request, err, "writing gs://logs/"+o.Name+": ", c.text)
					}
				})
			}
		})
	}
}

// TestStagedOtherBytes: what the bucket holds is compared with what was sent.
func TestStagedOtherBytes(t *testing.T) {
	answer := func(size, crc string) fault.Fault {
		return fault.Fault{Kind: fault.Fail, Status: 200, Header: http.Header{"Content-Type": {"application/json"}},
			Body: `{"name":"x","bucket":"logs","generation":"5","size":"` + size + `","crc32c":"` + crc + `"}`}
	}
	sum := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, checksum([]byte("{\"id\":\"a\"}\n"))))
	for name, f := range map[string]fault.Fault{
		"size":     answer("9", sum),
		"checksum": answer("11", "AAAAAA=="),
		"none":     answer("11", ""),
	} {
		inBubble(t, "logs", func(t *testing.T, x *fixture) {
			x.strike(0, f, writes)
			o := x.stage(`{"id":"a"}`)
			err := o.Close(t.Context())
			wantError(t, name, err, "writing gs://logs/"+o.Name+": the bucket holds other bytes than were sent: ", "not 11 with ")
			if o.Generation != 0 {
				t.Errorf("%s: generation %d", name, o.Generation)
			}
		})
	}

	// What changes on the way is refused, or found out.
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		x.faults.SetHooks(func(_ int, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(strings.NewReader(strings.Replace(string(body), `"id":"a"`, `"id":"b"`, 1)))
		}, nil)
		o := x.stage(`{"id":"a"}`)
		wantError(t, "changed", o.Close(t.Context()), "CRC32C")
		x.holds("logs", o.Name, "")
	})

	// The name is another's: it cannot be, but the bytes tell.
	for data, good := range map[string]bool{"{\"id\":\"b\"}\n": false, "{\"id\":\"a\"}\n": true} {
		inBubble(t, "logs", func(t *testing.T, x *fixture) {
			o := x.stage(`{"id":"a"}`)
			there := x.write(o.Name, data)
			err := o.Close(t.Context())
			if (err == nil) != good || good && o.Generation != there.Generation {
				t.Errorf("%q: generation %d, %v", data, o.Generation, err)
			}
			if !good {
				wantError(t, data, err, "the bucket holds other bytes than were sent")
			}
		})
	}
}

// TestStagedUnknown: where neither the answer nor a look tells, it is an error,
// and one in time.
func TestStagedUnknown(t *testing.T) {
	for name, look := range map[string]fault.Fault{
		"forbidden":      {Kind: fault.Refuse, Status: 403},
		"busy":           {Kind: fault.Refuse},
		"never answered": {Kind: fault.Hang},
	} {
		inBubble(t, "logs", func(t *testing.T, x *fixture) {
			x.faults.Set(func(_ int, r *http.Request) fault.Fault {
				if reads(r) {
					return look
				}
				return fault.Fault{Kind: fault.HangAfter}
			})
			o := x.stage(`{"id":"a"}`)
			began := time.Now()
			wantError(t, name, o.Close(t.Context()), "writing gs://logs/"+o.Name+": ")
			if took := time.Since(began); took > 2*step {
				t.Errorf("%s: took %s", name, took)
			}
		})
	}
}

func TestDeleteStaged(t *testing.T) {
	for name, c := range map[string]struct {
		fault fault.Fault
		times int
		gone  bool
		text  string // of the error, "" for none
	}{
		"good":             {fault.Fault{}, 0, true, ""},
		"answer lost":      {fault.Fault{Kind: fault.Lose}, 1, true, ""},
		"no answer once":   {fault.Fault{Kind: fault.Drop}, 1, true, ""},
		"busy once":        {fault.Fault{Kind: fault.Refuse}, 1, true, ""},
		"applied and busy": {fault.Fault{Kind: fault.Fail}, 1, true, ""},
		"busy":             {fault.Fault{Kind: fault.Refuse}, 0, false, "deadline exceeded"},
		"forbidden":        {fault.Fault{Kind: fault.Refuse, Status: 403}, 0, false, "lacks a role on the bucket"},
	} {
		inBubble(t, "logs", func(t *testing.T, x *fixture) {
			x.write(folder+"a.ndjson", "a")
			x.write(folder+"b.ndjson", "b")
			x.strike(c.times, c.fault, deletes)
			err := x.DeleteStaged(t.Context(), folder+"a.ndjson")
			if c.text != "" {
				wantError(t, name, err, "deleting gs://logs/"+folder+"a.ndjson: ", c.text)
			} else if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			want := []string{"logs/" + folder + "a.ndjson", "logs/" + folder + "b.ndjson"}
			if c.gone {
				want = want[1:]
			}
			if diff := cmp.Diff(want, x.all()); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
			x.faults.Set(nil)
			if err := x.DeleteStaged(t.Context(), folder+"gone.ndjson"); err != nil {
				t.Errorf("what is not there: %v", err)
			}
		})
	}
}

// sweep does what a run does whose state names that as staged.
func (x *fixture) sweep(named string, committed time.Time) (int, error) {
	x.t.Helper()
	_, others, err := x.FindStaged(x.t.Context(), state.Staging{Staged: named})
	if err != nil {
		return 0, err
	}
	return x.Sweep(x.t.Context(), others, committed)
}

func TestSweep(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		old := []string{
			folder + "20000101T000000Z-a.ndjson", folder + "20000101T000000Z-b.ndjson", folder + "probe-x", folder + "named.ndjson",
			folder + "kept/5-a.ndjson", "state/collector/staged/other.json/a.ndjson", "state/collector/staged/state.json", "state/collector/staged/state.jsonl/a",
			stateKey, "staged/state.json/a.ndjson", final, "feed/staged/a",
		}
		for _, name := range old {
			x.write(name, name)
		}
		made := time.Now()
		time.Sleep(time.Microsecond)
		x.write(folder+"later.ndjson", "")

		// An object as old as a day is not yet older.
		n, err := x.sweep(folder+"named.ndjson", made.Add(24*time.Hour))
		if err != nil || n != 0 || len(x.all()) != len(old)+1 {
			t.Errorf("after a day: %d removed, %v", n, err)
		}
		x.faults.Set(nil)
		n, err = x.sweep(folder+"named.ndjson", made.Add(24*time.Hour+time.Microsecond))
		if err != nil || n != 3 {
			t.Errorf("%d removed, %v", n, err)
		}
		var want []string
		for _, name := range append(old[3:], folder+"later.ndjson") {
			want = append(want, "logs/"+name)
		}
		if diff := cmp.Diff(sorted(want...), x.all()); diff != "" {
			t.Error(diff)
		}
		for _, r := range x.faults.Log() {
			if deletes(&http.Request{Method: r.Method}) && !strings.Contains(r.Path, folder) {
				t.Errorf("deletes %s", r.Path)
			}
		}
		// With nothing named, nothing is spared for its name.
		if n, err := x.sweep("", made.Add(48*time.Hour)); err != nil || n != 2 {
			t.Errorf("%d removed, %v", n, err)
		}
	})
}

// TestSweepPages: a list of several pages, in a bucket of the state's own.
func TestSweepPages(t *testing.T) {
	inBubble(t, "states", func(t *testing.T, x *fixture) {
		for i := range 25 {
			x.write(fmt.Sprintf("%s%04d.ndjson", folder, i), "")
		}
		if err := x.server.Write("logs", folder+"a.ndjson", nil); err != nil {
			t.Fatal(err)
		}
		x.faults.SetHooks(func(_ int, r *http.Request) {
			q := r.URL.Query()
			q.Set("maxResults", "10")
			r.URL.RawQuery = q.Encode()
		}, nil)
		if n, err := x.sweep(folder+"0007.ndjson", time.Now().Add(25*time.Hour)); err != nil || n != 24 {
			t.Errorf("%d removed, %v", n, err)
		}
		if diff := cmp.Diff([]string{"logs/" + folder + "a.ndjson", "states/" + folder + "0007.ndjson"}, x.all()); diff != "" {
			t.Error(diff)
		}
		if n := x.faults.Count(); n != 3+24 {
			t.Errorf("%d requests, want 3 pages and 24 deletes", n)
		}
	})
}

func TestSweepFails(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		for _, name := range []string{"a", "b", "c"} {
			x.write(folder+name, "")
		}
		committed := time.Now().Add(48 * time.Hour)
		x.server.Deny(func(_, op, _, _ string) bool { return op == "list" })
		n, err := x.sweep("", committed)
		wantError(t, "list", err, "looking for what is staged in gs://logs/"+folder+": ", "lacks a role on the bucket")
		if n != 0 {
			t.Errorf("%d removed", n)
		}
		x.server.Deny(func(_, op, _, name string) bool { return op == "delete" && strings.HasSuffix(name, "b") })
		n, err = x.sweep("", committed)
		wantError(t, "delete", err, "deleting gs://logs/"+folder+"b: ", "lacks a role on the bucket")
		if n != 1 {
			t.Errorf("%d removed", n)
		}
		x.server.Deny(nil)
		x.strike(0, fault.Fault{Kind: fault.Hang}, reads)
		began := time.Now()
		if _, err = x.sweep("", committed); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > step {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		x.faults.Set(nil)
	})
}
