package verify_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/auditlog"
	"example.com/auditlog/internal/config"
	"example.com/auditlog/internal/openai"
	"example.com/auditlog/internal/proof/product"
	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/sim/harness"
	"example.com/auditlog/internal/store"
	"example.com/auditlog/internal/verify"
)

func verifier(h *harness.H, o verify.Options) *verify.Verifier {
	h.T.Helper()
	cfg, err := config.Load(h.Env)
	if err != nil {
		h.T.Fatal(err)
	}
	c := h.Connect(nil)
	api := openai.New(openai.Options{Base: cfg.BaseURL, Key: cfg.AdminKey, Transport: c.API, Backoff: openai.DefaultBackoff})
	st := store.New(c.Storage, store.Options{Layout: cfg.Layout(), Step: cfg.StepTimeout()})
	o.Tenant, o.PageSize, o.Concurrency = cfg.TenantEvents, cfg.PageSize, cfg.Concurrency
	return verify.New(api, st, o)
}

func check(h *harness.H, o verify.Options) *verify.Report {
	h.T.Helper()
	r, err := verifier(h, o).Check(h.T.Context())
	if err != nil {
		h.T.Fatal(err)
	}
	return r
}

// want compares a report's counts, all others being zero, with "kind n" pairs.
func want(t testing.TB, r *verify.Report, counts map[string]int) {
	t.Helper()
	for _, k := range r.Kinds() {
		if k.Count != counts[k.Name] {
			t.Errorf("%d %s, want %d: %v", k.Count, k.Name, counts[k.Name], k.First)
		}
	}
}

// collect lives through some hours, each with records that a run collects, and one without.
func collect(h *harness.H, hours int) {
	h.T.Helper()
	for range hours {
		h.Add(30, 10, 100)
		h.MustRun()
		time.Sleep(time.Hour)
	}
	h.MustRun()
}

// edit replaces the lines of the n-th object by what f makes of them.
func edit(h *harness.H, n int, f func(lines [][]byte) [][]byte) (object string) {
	h.T.Helper()
	object = h.Names("openai-auditlog/")[n]
	data, err := h.Bucket.Read("logs", object)
	if err != nil {
		h.T.Fatal(err)
	}
	if err := h.Bucket.Write("logs", object, bytes.Join(f(slices.Collect(bytes.Lines(data))), nil)); err != nil {
		h.T.Fatal(err)
	}
	return strings.TrimPrefix(object, "openai-auditlog/")
}

func idOf(line []byte) string {
	var r struct{ ID string }
	if err := json.Unmarshal(line, &r); err != nil {
		panic(err)
	}
	return r.ID
}

// TestRight: what runs have collected is right, with and without a range, filters and a tenant.
func TestRight(t *testing.T) {
	harness.InBubble(t, product.Function, func(t *testing.T, h *harness.H) {
		h.Env["TENANT_EVENTS"], h.Env["FETCH_CONCURRENCY"] = "true", "4"
		collect(h, 30)
		h.Env["EVENT_TYPES"] = "login.succeeded,login.failed"
		collect(h, 30)
		shown := 0.0
		r := check(h, verify.Options{Progress: func(done float64) {
			if done < shown || done > 1 {
				t.Errorf("progress goes from %v to %v", shown, done)
			}
			shown = done
		}})
		want(t, r, nil)
		if !r.Right || r.Records < 900 || r.Records != r.Lines || shown != 1 || len(r.Left) > 0 {
			t.Errorf("%s; %v, progress %v", r.Verdict, r.Left, shown)
		}

		// A part of it, and more than can be checked.
		from := time.Now().Add(-30 * time.Hour)
		if r := check(h, verify.Options{From: from, To: from.Add(time.Hour)}); !r.Right || r.Records == 0 || r.Records > 40 {
			t.Errorf("%s", r.Verdict)
		}
		s := h.Stored()
		h.Put(false, "login.failed", time.Now().Unix()-min(s.High, s.Tenant.High)+1) // the next run finds it
		r = check(h, verify.Options{From: time.Now().Add(-100 * 24 * time.Hour), To: time.Now()})
		want(t, r, nil)
		why := map[string]bool{}
		for _, part := range r.Left {
			why[part.Why] = true
		}
		if r.Right || !why["not collected"] || !why["tenant events not collected"] || !why["too recent: the next runs read it again"] || len(why) != 3 {
			t.Errorf("%s: %v", r.Verdict, r.Left)
		}
	})
}

// TestByHand: each change to the objects is found, by identity and place, and nothing else.
func TestByHand(t *testing.T) {
	harness.InBubble(t, product.Function, func(t *testing.T, h *harness.H) {
		collect(h, 6)
		for range 2 { // these have a project
			for i := range int64(30) {
				h.Put(false, "login.succeeded", 10+i*100)
			}
			h.MustRun()
			time.Sleep(time.Hour)
		}
		collect(h, 4)
		var removed, doubled, altered, enriched string
		edit(h, 2, func(lines [][]byte) [][]byte {
			removed = idOf(lines[3])
			return slices.Delete(lines, 3, 4)
		})
		first := edit(h, 4, func(lines [][]byte) [][]byte {
			doubled = idOf(lines[5])
			return append(lines, lines[5])
		})
		second := edit(h, 6, func(lines [][]byte) [][]byte {
			altered, enriched = idOf(lines[0]), idOf(lines[1])
			lines[0] = bytes.ReplaceAll(lines[0], []byte("p+1"), []byte("p+2"))
			lines[1] = bytes.ReplaceAll(lines[1], []byte(`"id":"p+1"`), nil)
			return append(lines, []byte(fmt.Sprintf("{\"id\":\"none\",\"effective_at\":%d}\n", time.Now().Unix()-6*3600)), []byte("{\"id\":\"cut\n"))
		})
		h.Bucket.Write("logs", "openai-auditlog/notes.txt", []byte("of somebody else\n"))
		r := check(h, verify.Options{})
		want(t, r, map[string]int{"missing": 1, "repeated": 1, "altered": 1, "enriched": 1, "foreign": 1, "damaged": 1})
		for _, found := range []struct {
			verify.Findings
			id     string
			places []string
		}{
			{r.Missing, removed, nil},
			{r.Repeated, doubled, []string{first + ":6", first + ":31"}},
			{r.Altered, altered, []string{second + ":1"}},
			{r.Enriched, enriched, []string{second + ":2"}},
			{r.Foreign, "none", []string{second + ":31"}},
			{r.Damaged, "", []string{second + ":32"}},
		} {
			if len(found.First) == 0 {
				continue // told above
			}
			if f := found.First[0]; f.ID != found.id || !slices.Equal(f.Places, found.places) {
				t.Errorf("%s, want %s in %v", f, found.id, found.places)
			}
		}
		if want := "not right: 1 missing, 1 repeated, 1 altered, 1 damaged; 358 records of the API and 359 lines in 13 objects, 1999-12-31T00:00:00Z to 2000-01-01T10:57:49Z; noted: 1 enriched, 1 foreign"; r.Right || r.Verdict != want {
			t.Errorf("verdict %s", r.Verdict)
		}
	})
}

// TestBacklog: what is still to be read, or set aside, is named, and its records are not called missing.
func TestBacklog(t *testing.T) {
	harness.InBubble(t, product.Function, func(t *testing.T, h *harness.H) {
		h.Env["MAX_RECORDS"] = "100"
		bad := h.Put(false, "bad", 9*3600)
		h.API.SetBad(bad, http.StatusInternalServerError)
		h.Add(300, 3600, 60)
		for range 3 {
			h.Run()
		}
		r := check(h, verify.Options{})
		want(t, r, nil)
		if r.Right || r.Records == 0 || len(r.Left) == 0 || r.Left[0].Why != "in the backlog" {
			t.Errorf("%s: %v", r.Verdict, r.Left)
		}
		for range 60 {
			h.Run()
			time.Sleep(time.Hour)
		}
		r = check(h, verify.Options{})
		want(t, r, nil)
		if r.Right || r.Records != 300 || len(r.Left) != 1 || !strings.Contains(r.Left[0].Why, "set aside") {
			t.Errorf("%s: %v", r.Verdict, r.Left)
		}
	})
}

// TestAgain: what a backfill has written once more is repeated.
func TestAgain(t *testing.T) {
	harness.InBubble(t, product.Function, func(t *testing.T, h *harness.H) {
		collect(h, 4)
		h.Env["GCS_PREFIX"] = "openai-auditlog"
		cfg, _ := config.Load(h.Env)
		c := h.Connect(nil)
		collector, err := auditlog.New(t.Context(), cfg, auditlog.Options{Transport: c.API, Storage: c.Storage})
		if err != nil {
			t.Fatal(err)
		}
		again, _ := auditlog.ParseBackfill("4h", "3h", time.Now())
		again.Again = true
		if _, err := collector.Backfill(t.Context(), h.Log, again); err != nil {
			t.Fatal(err)
		}
		n := h.MustRun().Records
		if r := check(h, verify.Options{}); n == 0 || r.Right || r.Repeated.Count != n || r.Missing.Count != 0 {
			t.Errorf("%s; %d are written again", r.Verdict, n)
		}
	})
}

// TestRefuses: what makes a check worthless ends it, and says why.
func TestRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(h *harness.H)
		o     verify.Options
		want  string
	}{
		"another key":     {spoil: func(h *harness.H) { h.API.SetKey("other") }, want: "OPENAI_ADMIN_KEY is wrong or revoked"},
		"another company": {spoil: func(h *harness.H) { h.API.SetOrganization("other") }, want: `OPENAI_ADMIN_KEY belongs to organization "other", but the state to "example-org"`},
		"no state":        {spoil: func(h *harness.H) { h.Env["STATE_KEY"] = "none/state.json" }, want: "there is no state gs://logs/none/state.json yet"},
		"no range":        {spoil: func(*harness.H) {}, o: verify.Options{From: time.Unix(5, 0), To: time.Unix(4, 0)}, want: "nothing to check: the range ends before it begins"},
		"no list": {spoil: func(h *harness.H) {
			h.Bucket.Deny(func(_, op, _, _ string) bool { return op == "list" })
		}, want: "Storage Object Viewer"},
		"no object": {spoil: func(h *harness.H) {
			h.Bucket.Deny(func(_, op, _, name string) bool { return op == "get" && strings.HasSuffix(name, "ndjson") })
		}, want: "Storage Object Viewer"},
		"a tenant that is none": {spoil: func(h *harness.H) {
			h.APIFaults.SetHooks(func(_ int, r *http.Request) {
				r.URL.RawQuery = strings.ReplaceAll(r.URL.RawQuery, "tenant_only=true", "")
			}, nil)
		}, want: "does a proxy on the way drop it?"},
	} {
		t.Run(name, func(t *testing.T) {
			harness.InBubble(t, product.Function, func(t *testing.T, h *harness.H) {
				h.Env["TENANT_EVENTS"] = "true"
				collect(h, 2)
				tt.spoil(h)
				if r, err := verifier(h, tt.o).Check(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, report %v", err, r)
				}
			})
		})
	}
}

// TestNotServed: a day that the API does not serve is named, and the others are compared.
func TestNotServed(t *testing.T) {
	harness.InBubble(t, product.Function, func(t *testing.T, h *harness.H) {
		collect(h, 40)
		h.API.Each(func(id string, at int64, _ bool) {
			if at > time.Now().Unix()-20*3600 && at < time.Now().Unix()-19*3600 {
				h.API.SetBad(id, http.StatusInternalServerError)
			}
		})
		r := check(h, verify.Options{})
		want(t, r, nil)
		if r.Right || len(r.Left) != 1 || r.Left[0].String() != "2000-01-01T00:00:00Z to 2000-01-01T23:59:59Z" || !strings.Contains(r.Left[0].Why, "500") || r.Records < 400 || r.Records > 600 {
			t.Errorf("%s: %v", r.Verdict, r.Left)
		}
	})
}

// leaveStaged lets a run commit new records, and not publish them.
func leaveStaged(h *harness.H) {
	h.T.Helper()
	h.Add(5, 10, 10)
	h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
		if strings.Contains(r.URL.Path, "/moveTo/") {
			return fault.Fault{Kind: fault.Refuse, Status: http.StatusForbidden}
		}
		return fault.Fault{}
	})
	if _, err := h.Run(); err == nil {
		h.T.Fatal("published")
	}
	h.BucketFaults.Set(nil)
}

// TestRunUnderWay: what is committed and not yet published is waited for.
func TestRunUnderWay(t *testing.T) {
	harness.InBubble(t, product.Function, func(t *testing.T, h *harness.H) {
		collect(h, 2)
		leaveStaged(h)
		if _, err := verifier(h, verify.Options{}).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "committed, and not yet published") {
			t.Errorf("error %v", err)
		}
		h.MustRun()
		if r := check(h, verify.Options{}); !r.Right {
			t.Error(r.Verdict)
		}
	})
}

// TestMoved: counting goes on where a stranger has taken an object's name, and another run publishes it.
func TestMoved(t *testing.T) {
	harness.InBubble(t, product.Function, func(t *testing.T, h *harness.H) {
		collect(h, 2)
		leaveStaged(h)
		h.Bucket.Write("logs", h.Stored().LastObject, nil)
		collect(h, 2)
		if s := string(h.ReadState()); !strings.Contains(s, `"count": 5`) {
			t.Error(s)
		}
	})
}

// TestDeleted: what the feed has deleted is not called missing, nor is what it may have had.
func TestDeleted(t *testing.T) {
	for name, tt := range map[string]struct {
		remove       []int // objects
		missing      int   // a line of the last object but one is taken out, too
		notCheckable int
	}{
		"none":            {missing: 1},
		"the oldest ones": {remove: []int{0, 1, 2}, missing: 1, notCheckable: 90},
		"one between":     {remove: []int{4}, missing: 1, notCheckable: 30},
		"the last":        {remove: []int{11}, notCheckable: 29},
		"all":             {remove: []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, notCheckable: 358},
	} {
		t.Run(name, func(t *testing.T) {
			harness.InBubble(t, product.Function, func(t *testing.T, h *harness.H) {
				collect(h, 12)
				h.MustRun()
				names := h.Names("openai-auditlog/")
				edit(h, 10, func(lines [][]byte) [][]byte { return slices.Delete(lines, 3, 4) })
				for _, i := range tt.remove {
					if err := h.Bucket.Delete("logs", names[i]); err != nil {
						t.Fatal(err)
					}
				}
				r := check(h, verify.Options{})
				want(t, r, map[string]int{"missing": tt.missing, "not checkable": tt.notCheckable})
				if r.Right {
					t.Error(r.Verdict)
				}
				if r := check(h, verify.Options{AllowDeleted: true}); r.Right != (tt.missing == 0) || len(tt.remove) > 0 && !strings.Contains(r.Verdict, "not checkable") {
					t.Error(r.Verdict)
				}
			})
		})
	}
}

// TestCount: where counting begins, by this release or again after an older one, what is not found before
// that is not checkable.
func TestCount(t *testing.T) {
	forget := func(h *harness.H) {
		var s map[string]any
		if err := json.Unmarshal(h.ReadState(), &s); err != nil {
			h.T.Fatal(err)
		}
		delete(s, "objects")
		data, _ := json.Marshal(s)
		h.WriteState(data)
	}
	for name, between := range map[string]func(h *harness.H) (later int){
		"an older state": func(h *harness.H) int {
			forget(h)
			want(h.T, check(h, verify.Options{}), map[string]int{"not checkable": 1})
			return 1
		},
		"an older release": func(h *harness.H) int { // it keeps the key as it is
			counted := regexp.MustCompile(`(?s)"objects": \{.*?\}`).Find(h.ReadState())
			forget(h)
			collect(h, 1)
			forget(h)
			h.WriteState(bytes.Replace(h.ReadState(), []byte(`"organization"`), append(counted, `,"organization"`...), 1))
			h.Bucket.Delete("logs", h.Names("openai-auditlog/")[4])
			want(h.T, check(h, verify.Options{}), map[string]int{"not checkable": 1 + 28})
			return 1 + 30 // the newest two are settled later
		},
	} {
		t.Run(name, func(t *testing.T) {
			harness.InBubble(t, product.Function, func(t *testing.T, h *harness.H) {
				take := func(lines [][]byte) [][]byte { return lines[1:] }
				collect(h, 4)
				edit(h, 1, take)
				before := between(h)
				collect(h, 4)
				want(t, check(h, verify.Options{}), map[string]int{"not checkable": before})
				edit(h, len(h.Names("openai-auditlog/"))-2, take)
				want(t, check(h, verify.Options{}), map[string]int{"not checkable": before, "missing": 1})
			})
		})
	}
}

// TestOtherFunction: where the Python function began the state, what runs have collected since is checked.
func TestOtherFunction(t *testing.T) {
	harness.InBubble(t, product.Function, func(t *testing.T, h *harness.H) {
		h.Add(50, 3700, 60)
		h.WriteState(fmt.Appendf(nil, `{"last_effective_at":%d,"last_run":"x"}`, time.Now().Unix()-3600))
		if r, err := verifier(h, verify.Options{}).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing to check") {
			t.Errorf("error %v, report %v", err, r)
		}
		collect(h, 3)
		r := check(h, verify.Options{})
		if want(t, r, nil); !r.Right || r.Records != 30*2-2 {
			t.Error(r.Verdict)
		}
		edit(h, 1, func(lines [][]byte) [][]byte { return lines[1:] })
		want(t, check(h, verify.Options{}), map[string]int{"missing": 1})
		r = check(h, verify.Options{From: time.Now().Add(-day)})
		if want(t, r, map[string]int{"missing": 1}); len(r.Left) != 1 || r.Left[0].Why != "not collected" {
			t.Error(r.Left)
		}
	})
}

const day = 24 * time.Hour

// TestTenantLater: all that can be checked is, where one stream began later.
func TestTenantLater(t *testing.T) {
	harness.InBubble(t, product.Function, func(t *testing.T, h *harness.H) {
		collect(h, 30)
		h.Env["TENANT_EVENTS"] = "true"
		collect(h, 2)
		if r := check(h, verify.Options{}); !r.Right {
			t.Error(r.Verdict, r.Left)
		}
		r := check(h, verify.Options{From: time.Now().Add(-30 * time.Hour)})
		if want(t, r, nil); r.Right || len(r.Left) != 1 || r.Left[0].Why != "tenant events not collected" {
			t.Error(r.Verdict, r.Left)
		}
	})
}
