package store

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/auditlog/internal/names"
	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/state"
)

const (
	staged  = folder + "a.ndjson"
	content = "{\"id\":\"a\"}\n"
)

// staging stages that content, and is what a state says of it.
func (x *fixture) staging() state.Staging {
	x.t.Helper()
	o := x.write(staged, content)
	return state.Staging{LastObject: final, Staged: staged, StagedGeneration: o.Generation, StagedBucket: x.StateBucket}
}

// inFeed puts an object under the feed prefix.
func (x *fixture) inFeed(name, data string) {
	x.t.Helper()
	if err := x.server.Write("logs", name, []byte(data)); err != nil {
		x.t.Fatal(err)
	}
}

// published fails the test unless the content is under the feed prefix as that
// name and nowhere else; "" for nowhere.
func (x *fixture) published(name string) {
	x.t.Helper()
	for _, o := range x.server.Objects("logs", "feed/") {
		data, err := x.server.Read("logs", o.Name)
		if err != nil {
			x.t.Fatal(err)
		}
		if (string(data) == content) != (o.Name == name) {
			x.t.Errorf("%s holds %q, while it is published as %q", o.Name, data, name)
		}
	}
	if name != "" {
		x.holds("logs", name, content)
	}
}

func moves(r *http.Request) bool {
	return strings.Contains(r.URL.Path, "/moveTo/") || strings.Contains(r.URL.Path, "/rewriteTo/")
}

// buckets are those that the state can lie in.
var buckets = map[string]string{"a rename": "logs", "a copy": "states"}

func TestPublish(t *testing.T) {
	for name, stateBucket := range buckets {
		t.Run(name, func(t *testing.T) {
			inBubble(t, stateBucket, func(t *testing.T, x *fixture) {
				s := x.staging()
				x.write(folder+"b.ndjson", "another")
				if got, err := x.Publish(t.Context(), s, final); err != nil || got != final {
					t.Fatalf("%q, %v", got, err)
				}
				x.published(final)
				if diff := cmp.Diff(sorted("logs/"+final, stateBucket+"/"+folder+"b.ndjson"), x.all()); diff != "" {
					t.Error(diff)
				}
				// Published before, also where the feed has taken it since.
				for range 2 {
					if got, err := x.Publish(t.Context(), s, final); err != nil || got != "" {
						t.Errorf("again: %q, %v", got, err)
					}
					x.server.Delete("logs", final)
				}
				x.published("")
			})
		})
	}
}

// TestPublishTaken: a name that a stranger's object has moves on by a second, and
// that object stays.
func TestPublishTaken(t *testing.T) {
	for name, stateBucket := range buckets {
		t.Run(name, func(t *testing.T) {
			inBubble(t, stateBucket, func(t *testing.T, x *fixture) {
				s := x.staging()
				x.inFeed(final, "a stranger's")
				x.inFeed(next, "")
				want := names.Next(next)
				if got, err := x.Publish(t.Context(), s, final); err != nil || got != want {
					t.Fatalf("%q, %v", got, err)
				}
				x.published(want)
				x.holds("logs", final, "a stranger's")
				x.holds(stateBucket, staged, "")
			})
			inBubble(t, stateBucket, func(t *testing.T, x *fixture) {
				s, taken := x.staging(), final
				for range 100 {
					x.inFeed(taken, "a stranger's")
					taken = names.Next(taken)
				}
				_, err := x.Publish(t.Context(), s, final)
				wantError(t, "all taken", err, "publishing gs://"+stateBucket+"/"+staged+": all names up to gs://logs/"+taken+" are taken")
				x.published("")
				x.holds(stateBucket, staged, content)
			})
		})
	}
}

// TestPublishOther: an object of the staged one's name and another generation is
// not the one committed; it stays.
func TestPublishOther(t *testing.T) {
	for name, stateBucket := range buckets {
		t.Run(name, func(t *testing.T) {
			inBubble(t, stateBucket, func(t *testing.T, x *fixture) {
				s := x.staging()
				x.write(staged, content)
				if got, err := x.Publish(t.Context(), s, final); err != nil || got != "" {
					t.Errorf("%q, %v", got, err)
				}
				x.published("")
				x.holds(stateBucket, staged, content)
				s.StagedGeneration = 0 // any
				if got, err := x.Publish(t.Context(), s, final); err != nil || got != final {
					t.Errorf("of any generation: %q, %v", got, err)
				}
				x.published(final)
				x.holds(stateBucket, staged, "")
			})
		})
	}
}

// TestPublishFails lets each request fail in every way, once or from then on:
// what Publish calls done is, and after an error another attempt gets there.
func TestPublishFails(t *testing.T) {
	kinds := map[string]fault.Fault{
		"403":            {Kind: fault.Refuse, Status: 403},
		"503":            {Kind: fault.Refuse},
		"fail":           {Kind: fault.Fail},
		"fail with 403":  {Kind: fault.Fail, Status: 403},
		"drop":           {Kind: fault.Drop},
		"lose":           {Kind: fault.Lose},
		"hang":           {Kind: fault.Hang},
		"hang after":     {Kind: fault.HangAfter},
		"412 of a proxy": {Kind: fault.Refuse, Status: 412},
	}
	for name, stateBucket := range buckets {
		for kind, f := range kinds {
			for _, from := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/from %v", name, kind, from), func(t *testing.T) {
					for n, done := 1, false; !done; n++ {
						inBubble(t, stateBucket, func(t *testing.T, x *fixture) {
							s := x.staging()
							x.faults.Set(func(i int, r *http.Request) fault.Fault {
								if i == n || from && i > n {
									return f
								}
								return fault.Fault{}
							})
							began := time.Now()
							got, err := x.Publish(t.Context(), s, final)
							if took := time.Since(began); took > 5*step {
								t.Errorf("request %d: took %s", n, took)
							}
							done = x.faults.Count() < n
							if done && (err != nil || got != final) {
								t.Errorf("without a fault: %q, %v", got, err)
							}
							x.faults.Set(nil)
							if passes := kind == "503" || kind == "fail" || kind == "drop" || kind == "lose"; passes && !from && err != nil {
								t.Errorf("request %d, just once: %v", n, err)
							}
							if err != nil {
								wantError(t, fmt.Sprint("request ", n), err, "publishing gs://"+stateBucket+"/"+staged+" as gs://logs/")
								if got != "" {
									t.Errorf("request %d: %q, with %v", n, got, err)
								}
								if got, err = x.Publish(t.Context(), s, final); err != nil {
									t.Errorf("request %d, another attempt: %v", n, err)
								}
							}
							if kind == "412 of a proxy" && got == next {
								x.published(next) // it could not know better
							} else {
								x.published(final)
							}
							x.holds(stateBucket, staged, "")
						})
						if n > 20 {
							t.Fatal("publishing has no end")
						}
					}
				})
			}
		}
	}
}

// TestPublishInTwoSteps: from a state bucket, what was copied and not deleted is
// not copied once more.
func TestPublishInTwoSteps(t *testing.T) {
	inBubble(t, "states", func(t *testing.T, x *fixture) {
		s := x.staging()
		x.server.Deny(func(_, op, _, _ string) bool { return op == "delete" })
		_, err := x.Publish(t.Context(), s, final)
		wantError(t, "interrupted", err, "publishing gs://states/"+staged+" as gs://logs/"+final+": deleting gs://states/"+staged+": ", "lacks a role on the bucket")
		x.published(final)
		x.holds("states", staged, content)

		x.server.Deny(nil)
		if got, err := x.Publish(t.Context(), s, final); err != nil || got != final {
			t.Errorf("%q, %v", got, err)
		}
		x.published(final)
		x.holds("states", staged, "")
	})

	// Of an object that has the name, another size or sum tells that it is a stranger's.
	for _, data := range []string{"", "{\"id\":\"b\"}\n", content + "\n"} {
		inBubble(t, "states", func(t *testing.T, x *fixture) {
			s := x.staging()
			x.inFeed(final, data)
			if got, err := x.Publish(t.Context(), s, final); err != nil || got != next {
				t.Errorf("%q: %q, %v", data, got, err)
			}
			x.published(next)
		})
	}

	// Whose it is cannot be told: it is neither deleted nor copied elsewhere.
	inBubble(t, "states", func(t *testing.T, x *fixture) {
		s := x.staging()
		x.inFeed(final, content)
		x.server.Deny(func(_, op, bucket, _ string) bool { return op == "get" && bucket == "logs" })
		_, err := x.Publish(t.Context(), s, final)
		wantError(t, "denied", err, "publishing gs://states/"+staged+" as gs://logs/"+final+": ", "and what is there could not be compared: ")
		x.published(final)
		x.holds("states", staged, content)
	})
}

// TestPublishUnreadable: where neither the answer nor a look tells, both are in the
// error.
func TestPublishUnreadable(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		s := x.staging()
		x.server.Deny(func(_, op, _, _ string) bool { return op == "list" || op == "move" })
		_, err := x.Publish(t.Context(), s, final)
		wantError(t, "denied", err, "publishing gs://logs/"+staged+" as gs://logs/"+final+": ", "; and whether it is done could not be read: looking for gs://logs/"+staged+": ", "storage.objects.move", "storage.objects.list")
		x.holds("logs", staged, content)
	})
	inBubble(t, "nowhere", func(t *testing.T, x *fixture) {
		_, err := x.Publish(t.Context(), state.Staging{Staged: staged, LastObject: final}, final)
		wantError(t, "no bucket", err, "no such bucket")
	})
}

func TestFindStaged(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		s := state.Staging{Staged: staged, LastObject: final}
		check := func(what string, s state.Staging, want int64, others ...string) {
			t.Helper()
			found, rest, err := x.FindStaged(t.Context(), s)
			var names []string
			for _, o := range rest {
				names = append(names, o.Name)
			}
			if diff := cmp.Diff(others, names); err != nil || found != want || diff != "" {
				t.Errorf("%s: %d, want %d, %v\n%s", what, found, want, err, diff)
			}
			if attrs, err := x.LookStaged(t.Context(), s); err != nil || (attrs == nil) != (want == 0) || attrs != nil && attrs.Generation != want {
				t.Errorf("%s: %+v, %v", what, attrs, err)
			}
		}
		check("absent", s, 0)
		x.write(folder+"before.ndjson", "")
		x.write(staged+"x", "")
		x.write(folder+"kept/5-a.ndjson", "")
		check("absent, among others", s, 0, staged+"x", folder+"before.ndjson")
		o := x.write(staged, content)
		check("there", s, o.Generation, staged+"x", folder+"before.ndjson")
		check("nothing named", state.Staging{}, 0, staged, staged+"x", folder+"before.ndjson")

		// One that was staged under another STATE_KEY is found, and its folder is another's to sweep.
		old := x.write("old/staged/state.json/a", "")
		x.write("old/staged/state.json/b", "")
		check("under another key", state.Staging{Staged: old.Name}, old.Generation)

		// Absence shows after the last page: one may be empty.
		pages := 0
		x.faults.Set(func(_ int, r *http.Request) fault.Fault {
			q := r.URL.Query()
			if q.Get("pageToken") == "" {
				return fault.Fault{Kind: fault.Refuse, Status: 200, Body: `{"kind":"storage#objects","nextPageToken":"first"}`}
			}
			if q.Get("pageToken") == "first" {
				q.Del("pageToken")
			}
			q.Set("maxResults", "1")
			r.URL.RawQuery = q.Encode()
			pages++
			return fault.Fault{}
		})
		check("on a later page", state.Staging{Staged: folder + "before.ndjson"}, x.object(folder+"before.ndjson").Generation, staged, staged+"x")
		if pages < 4 {
			t.Errorf("%d pages", pages)
		}
		x.faults.Set(nil)

		x.server.Deny(func(_, op, _, _ string) bool { return op == "list" })
		if attrs, err := x.LookStaged(t.Context(), s); attrs != nil || StatusOf(err) != 403 {
			t.Errorf("denied: %+v, %v", attrs, err)
		}
		_, _, err := x.FindStaged(t.Context(), s)
		wantError(t, "denied", err, "looking for what is staged in gs://logs/"+folder+": ", "lacks a role on the bucket")
	})
	inBubble(t, "nowhere", func(t *testing.T, x *fixture) {
		s := state.Staging{Staged: staged, LastObject: final}
		if attrs, err := x.LookStaged(t.Context(), s); attrs != nil || !BucketMissing(err) {
			t.Errorf("no bucket: %+v, %v", attrs, err)
		}
		_, _, err := x.FindStaged(t.Context(), s)
		wantError(t, "no bucket", err, "looking for what is staged in gs://nowhere/"+folder+": ", "no such bucket")
	})
}

// TestKeepAside: what was written again after its commit is kept, unless it is
// known to be published.
func TestKeepAside(t *testing.T) {
	deny := func(op, bucket string) func(*fixture) {
		return func(x *fixture) {
			x.server.Deny(func(_, o, b, _ string) bool { return o == op && b == bucket })
		}
	}
	for name, stateBucket := range buckets {
		for _, c := range []struct {
			name  string
			final string // content under the final name, "" for no object
			spoil func(*fixture)
			kept  bool
			error string // part of it, "" for none
		}{
			{"published", content, func(*fixture) {}, false, ""},
			{"taken by the feed", "", func(*fixture) {}, true, ""},
			{"another's final", "a stranger's", func(*fixture) {}, true, ""},
			{"as long, another's", "{\"id\":\"b\"}\n", func(*fixture) {}, true, ""},
			{"the feed may not be read", content, func(x *fixture) {
				x.faults.Set(func(_ int, r *http.Request) fault.Fault {
					if reads(r) && strings.Contains(r.URL.Path, "/o/feed") {
						return fault.Fault{Kind: fault.Refuse, Status: 403}
					}
					return fault.Fault{}
				})
			}, true, ""},
			{"answer lost", "", func(x *fixture) { x.strike(1, fault.Fault{Kind: fault.Lose}, moves) }, true, ""},
			{"applied, never answered", "", func(x *fixture) { x.strike(0, fault.Fault{Kind: fault.HangAfter}, moves) }, true, ""},
			{"applied, busy", "", func(x *fixture) { x.strike(0, fault.Fault{Kind: fault.Fail}, moves) }, true, ""},
			{"busy", "", func(x *fixture) { x.strike(0, fault.Fault{Kind: fault.Refuse}, moves) }, false, "moving "},
			{"may not move", "", deny("move", stateBucket), false, "lacks a role on the bucket"},
			{"comparing is busy", content, func(x *fixture) { x.strike(0, fault.Fault{Kind: fault.Refuse}, reads) }, false, "comparing "},
			{"comparing hangs", content, func(x *fixture) { x.strike(0, fault.Fault{Kind: fault.Hang}, reads) }, false, "comparing "},
			{"neither moved nor looked for", "", func(x *fixture) {
				compared := false
				x.faults.Set(func(_ int, r *http.Request) fault.Fault {
					if compared = compared || moves(r); compared {
						return fault.Fault{Kind: fault.Refuse, Status: 403}
					}
					return fault.Fault{}
				})
			}, false, "; and whether it is done could not be read: looking for "},
			{"written once more", "", func(x *fixture) {
				x.faults.SetHooks(func(_ int, r *http.Request) {
					if moves(r) {
						x.write(staged, "once more")
					}
				}, nil)
			}, false, "moving "},
			{"moved by another instance", "", func(x *fixture) {
				x.faults.SetHooks(func(_ int, r *http.Request) {
					if moves(r) {
						o := x.object(staged)
						x.write(fmt.Sprintf("%skept/%d-a.ndjson", folder, o.Generation), content)
						x.server.Delete(x.StateBucket, staged)
					}
				}, nil)
			}, true, ""},
		} {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				inBubble(t, stateBucket, func(t *testing.T, x *fixture) {
					s := x.staging()
					if c.final != "" {
						x.inFeed(final, c.final)
					}
					again := x.write(staged, content)
					if again.Generation == s.StagedGeneration {
						t.Fatal("generations do not differ")
					}
					c.spoil(x)
					began := time.Now()
					kept, err := x.KeepAside(t.Context(), s, again.Generation)
					if took := time.Since(began); took > 3*step {
						t.Errorf("took %s", took)
					}
					want := ""
					if c.kept {
						want = fmt.Sprintf("%skept/%d-a.ndjson", folder, again.Generation)
					}
					if kept != want || (err != nil) != (c.error != "") {
						t.Errorf("kept as %q, want %q; %v", kept, want, err)
					}
					if c.error != "" {
						wantError(t, "error", err, c.error, "gs://"+stateBucket+"/"+staged)
					}
					x.faults.Set(nil)
					x.faults.SetHooks(nil, nil)
					if c.kept {
						x.holds(stateBucket, want, content)
						x.holds(stateBucket, staged, "")
					} else {
						x.object(staged) // for the sweep, or the next run
					}
					x.holds("logs", final, c.final)

					// No sweep removes what is kept.
					if _, err := x.sweep("", time.Now().Add(100*24*time.Hour)); err != nil && c.name != "may not move" {
						t.Error(err)
					}
					if c.kept {
						x.holds(stateBucket, want, content)
					}
				})
			})
		}
	}
}
