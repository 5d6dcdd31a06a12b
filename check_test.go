package auditlog

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/storage"
	"github.com/google/go-cmp/cmp"

	"example.com/auditlog/internal/sim/fault"
)

// allChecks are the names, in order, where all lies in one bucket.
var allChecks = []string{
	"settings", "api", "clock", "bucket", "retention", "lifecycle",
	"probe_create", "probe_read", "probe_replace", "probe_condition", "probe_list", "probe_move", "probe_delete",
	"state", "organization", "staged", "feed_create", "feed",
}

// holdings is what both buckets hold, but for what changes with the clock.
func (h *harness) holdings() []string {
	h.t.Helper()
	var all []string
	for _, b := range []string{"logs", "states"} {
		for _, o := range h.Bucket.Objects(b, "") {
			all = append(all, fmt.Sprintf("%s/%s#%d %08x", b, o.Name, o.Generation, o.CRC32C))
		}
	}
	return all
}

// check makes a new instance check, and fails the test where that changes
// anything.
func (h *harness) check() map[string]Finding {
	h.t.Helper()
	return h.checkOf(h.t.Context(), h.collector())
}

func (h *harness) checkOf(ctx context.Context, c *Collector) map[string]Finding {
	h.t.Helper()
	before := h.holdings()
	findings := h.byName(c.Check(ctx))
	if diff := cmp.Diff(before, h.holdings()); diff != "" {
		h.t.Errorf("the check changes the bucket:\n%s", diff)
	}
	return findings
}

func (h *harness) byName(findings []Finding) map[string]Finding {
	h.t.Helper()
	m := map[string]Finding{}
	for _, f := range findings {
		if _, ok := m[f.Check]; ok {
			h.t.Errorf("two findings of %s", f.Check)
		}
		if bad := f.Result == ResultWarning || f.Result == ResultFailure; bad != (f.Remedy != "") || f.Detail == "" {
			h.t.Errorf("a warning or failure, and nothing else, has a remedy: %+v", f)
		}
		if text := f.Detail + f.Remedy; strings.Contains(text, h.env["OPENAI_ADMIN_KEY"]) || strings.Contains(text, "\n") {
			h.t.Errorf("shows the key, or has several lines: %+v", f)
		}
		m[f.Check] = f
	}
	return m
}

// bucketIs returns a script that gives the bucket, or the object, these
// attributes.
func bucketIs(path, body string) fault.Script {
	return func(_ int, r *http.Request) fault.Fault {
		if r.Method == http.MethodGet && r.URL.Path == path && r.URL.Query().Get("alt") != "media" {
			return fault.Fault{Kind: fault.Refuse, Status: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: body}
		}
		return fault.Fault{}
	}
}

const (
	logsPath   = "/storage/v1/b/logs"
	statePath  = logsPath + "/o/" + stateName
	userRemedy = "grant Storage Object User (roles/storage.objectUser) on the managed folder gs://logs/state/openai-auditlog/, or on the bucket, to the account that runs this"
	ownBucket  = "set STATE_BUCKET to a bucket without one and copy the state object there, or remove it"
	itself     = "talk to Cloud Storage itself: a proxy or emulator on the way drops the preconditions of requests"
	ruleRemedy = "limit the rule to gs://logs/openai-auditlog/ (matchesPrefix), or to noncurrent versions"
	keyRemedy  = "OPENAI_ADMIN_KEY is wrong or revoked: create an Admin key and set it"
	baseRemedy = "check OPENAI_BASE_URL: what answers there is not the audit log API"
)

func uniform(more string) string {
	return `{"kind":"storage#bucket","name":"logs","storageClass":"STANDARD","iamConfiguration":{"uniformBucketLevelAccess":{"enabled":true}}` + more + `}`
}

// TestCheckGood: before the first run and after runs, nothing is found, and the
// order of the checks is fixed.
func TestCheckGood(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.BucketFaults.Set(bucketIs(logsPath, uniform("")))
		for i := range 3 {
			var names []string
			for _, f := range h.collector().Check(t.Context()) {
				names = append(names, f.Check)
				if first := i == 0 && f.Check == "organization"; f.Result != ResultOK && !first {
					t.Errorf("%+v", f)
				}
			}
			if diff := cmp.Diff(allChecks, names); diff != "" {
				t.Error(diff)
			}
			h.check()
			h.add(3, 1, 1)
			h.mustRun()
			time.Sleep(time.Hour)
		}
		h.env["STATE_BUCKET"] = "states"
		for name, f := range h.check() {
			if f.Result != ResultOK && name != "organization" {
				t.Errorf("with a STATE_BUCKET: %+v", f)
			}
		}
	})
}

// checkCase is a set-up with one fault, and what must be found.
type checkCase struct {
	name   string
	spoil  func(h *harness)
	check  string
	result Result
	detail string // part of it
	remedy string // all of it
}

func TestCheckFindings(t *testing.T) {
	api := func(f fault.Fault) func(*harness) {
		return func(h *harness) { h.APIFaults.Set(from(1, f)) }
	}
	refuse := func(status int, body string) func(*harness) {
		return api(fault.Fault{Kind: fault.Refuse, Status: status, Body: body})
	}
	dated := func(ahead time.Duration) func(*harness) {
		return func(h *harness) {
			api(fault.Fault{Kind: fault.Refuse, Status: 200, Body: `{"object":"list","data":[],"last_id":null,"has_more":false}`,
				Header: http.Header{"Date": {time.Now().Add(-ahead).UTC().Format(http.TimeFormat)}}})(h)
		}
	}
	place := func(more string) func(*harness) {
		return func(h *harness) { h.BucketFaults.Set(bucketIs(logsPath, uniform(more))) }
	}
	object := func(more string) func(*harness) {
		return func(h *harness) {
			h.BucketFaults.Set(bucketIs(statePath, `{"name":"`+stateName+`","bucket":"logs","generation":"1","size":"2"`+more+`}`))
		}
	}
	rule := func(action, condition string) func(*harness) {
		return place(`,"lifecycle":{"rule":[{"action":{"type":"` + action + `"},"condition":{` + condition + `}}]}`)
	}
	deny := func(bucket, op, prefix string) func(*harness) {
		return func(h *harness) {
			h.Bucket.Deny(func(_, o, b, name string) bool { return b == bucket && o == op && strings.HasPrefix(name, prefix) })
		}
	}
	state := func(change func(*State)) func(*harness) {
		return func(h *harness) {
			s := h.state()
			change(&s)
			data, _ := json.Marshal(s)
			h.write(stateName, string(data))
		}
	}
	then := func(all ...func(*harness)) func(*harness) {
		return func(h *harness) {
			for _, f := range all {
				f(h)
			}
		}
	}
	states := func(h *harness) { h.env["STATE_BUCKET"] = "states" }

	for _, c := range []checkCase{
		{"state_in_feed", func(h *harness) { h.env["STATE_KEY"] = "openai-auditlog/state.json" }, "settings", ResultWarning, "lies under GCS_PREFIX",
			"set STATE_KEY to a name outside, for example state/openai-auditlog/state.json, and move the object there if there is one"},

		{"wrong_key", func(h *harness) { h.API.SetKey("another") }, "api", ResultFailure, "answered 401 Unauthorized: Incorrect API key provided.", keyRemedy},
		{"missing_scope", func(h *harness) { h.API.SetMissingScopes(true) }, "api", ResultFailure, "Missing scopes", "give the key the scope api.audit_logs.read"},
		{"forbidden", func(h *harness) { h.API.SetForbidden(true) }, "api", ResultFailure, "answered 403 Forbidden: Audit logging is not enabled",
			"OPENAI_ADMIN_KEY must be an Admin key of an Organization Owner, and audit logging must be enabled: Settings > Organization > Data controls"},
		{"wrong_path", func(h *harness) { h.env["OPENAI_BASE_URL"] += "/v2" }, "api", ResultFailure, "answered 404", "check OPENAI_BASE_URL"},
		{"wrong_host", refuse(404, "<html>nginx</html>"), "api", ResultFailure, "answered 404 Not Found: <html>", "check OPENAI_BASE_URL"},
		{"html", refuse(200, "<html>hello</html>"), "api", ResultFailure, "no JSON list", baseRemedy},
		{"no_list", refuse(200, `{"object":"model"}`), "api", ResultFailure, "bad list", baseRemedy},
		{"redirect", refuse(302, ""), "api", ResultFailure, "redirect not followed", "set OPENAI_BASE_URL to the API's final address"},
		{"proxy", refuse(407, "who are you"), "api", ResultFailure, "answered 407", "read what the API says; check OPENAI_BASE_URL, and a proxy on the way"},
		{"key_in_answer", func(h *harness) { refuse(400, "no "+h.env["OPENAI_ADMIN_KEY"])(h) }, "api", ResultFailure, "no [secret]",
			"read what the API says; check OPENAI_BASE_URL, and a proxy on the way"},
		{"server_error", refuse(500, ""), "api", ResultFailure, "answered 500",
			"try again later, and look at status.openai.com; runs go on by themselves once it answers"},
		{"rate_limit", api(fault.Fault{Kind: fault.Refuse, Status: 429, Header: http.Header{"Retry-After": {"60"}}}), "api", ResultFailure, "the next attempt in 1m0s would come after the 20s that this check takes",
			"try again later; runs obey the wait. Where it stays so, look at the organization's limits and at what else uses its Admin keys"},
		{"hangs", api(fault.Fault{Kind: fault.Hang}), "api", ResultFailure, "gave no answer within 20s",
			"check OPENAI_BASE_URL, and whether a firewall or proxy keeps this host from it"},
		{"dropped", api(fault.Fault{Kind: fault.Drop}), "api", ResultFailure, "reaching the audit log API: EOF",
			"check host and port in OPENAI_BASE_URL, and whether a firewall or proxy keeps this host from it"},
		{"cut", refuse(200, `{"object":"list","data":[`), "api", ResultFailure, "answer was cut off",
			"try again; where it stays so, a proxy on the way cuts answers off"},

		{"clock_near", dated(30 * time.Second), "clock", ResultOK, "this host's clock is 30 seconds ahead of the API's", ""},
		{"clock_ahead", dated(5 * time.Minute), "clock", ResultWarning, "is 5 minutes ahead of the API's", "set this host's clock, by NTP for example"},
		{"clock_far_ahead", dated(25 * time.Hour), "clock", ResultFailure, "a first run would begin after the newest record", "set this host's clock, by NTP for example"},
		{"clock_behind", dated(-5 * time.Minute), "clock", ResultWarning, "is 5 minutes behind the API's", "set this host's clock, by NTP for example"},
		{"clock_far_behind", dated(-49 * time.Hour), "clock", ResultFailure, "is 2 days behind the API's", "set this host's clock, by NTP for example"},
		{"no_date", api(fault.Fault{Kind: fault.Fail, Status: 200, Header: http.Header{"Date": nil}, Body: `{"object":"list","data":[],"has_more":false}`}),
			"clock", ResultSkipped, "no Date", ""},

		{"no_bucket", func(h *harness) { h.env["GCS_BUCKET"] = "nowhere" }, "bucket", ResultFailure, `there is no bucket "nowhere"`,
			"set GCS_BUCKET to a bucket that exists, or create this one"},
		{"no_bucket_skips", func(h *harness) { h.env["GCS_BUCKET"] = "nowhere" }, "feed", ResultSkipped, "see bucket", ""},
		{"no_state_bucket", func(h *harness) { h.env["STATE_BUCKET"] = "nowhere" }, "bucket", ResultFailure, `there is no bucket "nowhere"`,
			"set STATE_BUCKET to a bucket that exists, or create this one"},
		{"no_settings", bucketRefused(403), "bucket", ResultSkipped, "Storage Legacy Bucket Reader (roles/storage.legacyBucketReader)", ""},
		{"no_settings_retention", bucketRefused(403), "retention", ResultOK, "neither a retention nor a hold on the state object", ""},
		{"no_settings_lifecycle", bucketRefused(403), "lifecycle", ResultSkipped, "may not be looked at", ""},
		{"no_credentials", bucketRefused(401), "bucket", ResultFailure, "401",
			`mend the credentials: "gcloud auth application-default login", or a service account for the function`},
		{"bucket_busy", bucketRefused(503), "bucket", ResultFailure, "no good answer within 15s",
			"try again; where it stays so, check whether a firewall or proxy keeps this host from Cloud Storage, and STORAGE_EMULATOR_HOST if set"},
		{"not_uniform", func(*harness) {}, "bucket", ResultOK, "note: uniform bucket-level access is off", ""},

		{"retention_policy", place(`,"retentionPolicy":{"retentionPeriod":"604800","isLocked":true,"effectiveTime":"1999-01-01T00:00:00Z"}`), "retention", ResultFailure,
			"gs://logs has a retention policy of 7 days, which is locked: the state could not be replaced", ownBucket},
		{"retention_no_probe", place(`,"retentionPolicy":{"retentionPeriod":"604800","effectiveTime":"1999-01-01T00:00:00Z"}`), "probe_create", ResultSkipped,
			"a probe object could not be removed: see retention", ""},
		{"default_hold", place(`,"defaultEventBasedHold":true`), "retention", ResultFailure, "puts an event-based hold on new objects", ownBucket},
		{"retention_state_bucket", then(states, func(h *harness) {
			h.BucketFaults.Set(bucketIs("/storage/v1/b/states", `{"name":"states","defaultEventBasedHold":true}`))
		}), "retention", ResultFailure, "gs://states puts", "remove it, or set STATE_BUCKET to a bucket without one and copy the state object there"},
		{"temporary_hold", object(`,"temporaryHold":true`), "retention", ResultFailure, "the state object is under a temporary hold", ownBucket},
		{"event_hold", object(`,"eventBasedHold":true`), "retention", ResultFailure, "the state object is under an event-based hold", ownBucket},
		{"object_policy", object(`,"retentionExpirationTime":"2000-02-01T00:00:00Z"`), "retention", ResultFailure, "a retention policy until 2000-02-01T00:00:00Z", ownBucket},
		{"own_retention", object(`,"retention":{"mode":"Locked","retainUntilTime":"2000-02-01T00:00:00Z"}`), "retention", ResultFailure, "a retention of its own until 2000-02-01T00:00:00Z", ownBucket},
		{"expired_retention", object(`,"retentionExpirationTime":"1999-02-01T00:00:00Z"`), "retention", ResultOK, "neither", ""},

		{"rule_30_days", rule("Delete", `"age":30`), "lifecycle", ResultWarning, "a rule deletes the state and staged objects at an age of 30 days", ruleRemedy},
		{"rule_1_day", rule("Delete", `"age":1`), "lifecycle", ResultFailure, "deletes the state and staged objects at an age of 1 day:", ruleRemedy},
		{"rule_at_once", rule("Delete", `"matchesSuffix":["on"]`), "lifecycle", ResultFailure, "the state and staged objects at an age of 0 days", ruleRemedy},
		{"rule_state", rule("Delete", `"age":9,"matchesPrefix":["state/openai-auditlog/state"]`), "lifecycle", ResultWarning, "deletes the state at an age of 9 days", ruleRemedy},
		{"rule_staged", rule("Delete", `"age":9,"matchesPrefix":["state/openai-auditlog/staged/state.json/2"]`), "lifecycle", ResultWarning, "deletes staged objects at an age of 9 days", ruleRemedy},
		{"rule_feed", rule("Delete", `"age":1,"matchesPrefix":["openai-auditlog/"]`), "lifecycle", ResultOK, "no rule", ""},
		{"rule_versions", rule("Delete", `"age":1,"isLive":false`), "lifecycle", ResultOK, "no rule", ""},
		{"rule_class", rule("SetStorageClass", `"age":1`), "lifecycle", ResultOK, "no rule", ""},

		{"no_create", deny("logs", "create", "state/"), "probe_create", ResultFailure, "storage.objects.create is not allowed", userRemedy},
		{"no_create_skips", deny("logs", "create", "state/"), "probe_move", ResultSkipped, "see probe_create", ""},
		{"no_get", deny("logs", "get", "state/"), "probe_read", ResultFailure, "storage.objects.get is not allowed", userRemedy},
		{"no_get_state", deny("logs", "get", "state/"), "state", ResultFailure, "storage.objects.get is not allowed", userRemedy},
		{"no_list", deny("logs", "list", ""), "probe_list", ResultWarning, "storage.objects.list is not allowed", userRemedy},
		{"no_list_feed", deny("logs", "list", ""), "feed", ResultSkipped, `Storage Object Viewer (roles/storage.objectViewer); the function does without; to have it looked at, run "auditlog check"`, ""},
		{"no_move", deny("logs", "move", ""), "probe_move", ResultFailure, "storage.objects.move is not allowed", userRemedy},
		{"no_conditions", func(h *harness) {
			h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault { dropConditions(r); return fault.Fault{} })
		}, "probe_condition", ResultFailure, "on a condition that did not hold", itself},
		{"no_conditions_feed", func(h *harness) {
			h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault { dropConditions(r); return fault.Fault{} })
		}, "feed_create", ResultSkipped, "see probe_condition", ""},
		{"root_folder", then(func(h *harness) { h.env["STATE_KEY"] = "state.json" }, deny("logs", "create", "staged/")), "probe_create", ResultFailure, "storage.objects.create",
			"grant Storage Object User (roles/storage.objectUser) on the bucket gs://logs to the account that runs this"},

		{"no_feed_create", deny("logs", "create", "openai-auditlog/"), "feed_create", ResultFailure, "storage.objects.create is not allowed",
			"grant Storage Object Creator (roles/storage.objectCreator) on the managed folder gs://logs/openai-auditlog/, or on the bucket, to the account that runs this"},
		{"no_feed_read", then(states, deny("logs", "get", "openai-auditlog/")), "feed_read", ResultFailure, "storage.objects.get is not allowed",
			"grant Storage Object Viewer (roles/storage.objectViewer) on the managed folder gs://logs/openai-auditlog/, or on the bucket, to the account that runs this"},

		{"first_run", func(h *harness) { h.Bucket.Delete("logs", stateName) }, "state", ResultOK, "the next run is the first, and reaches back 24 hours", ""},
		{"damaged", func(h *harness) { h.write(stateName, `{"last_effective_at": -1}`) }, "state", ResultFailure, `"last_effective_at" is -1`,
			"restore an older version of the object, or mend last_effective_at in it (Unix seconds); deleting it makes a first run"},
		{"damaged_skips", func(h *harness) { h.write(stateName, `{`) }, "staged", ResultSkipped, "see state", ""},
		{"edited", state(func(s *State) { s.Watermark -= 100 }), "state", ResultOK, "was set by hand", ""},
		{"stale", func(*harness) { time.Sleep(4 * time.Hour) }, "state", ResultWarning, "by a run 4 hours ago: no run has committed since",
			"see whether the job in Cloud Scheduler is paused or fails, whether the topic has its trigger, and what the function's log says under \"Run failed\""},
		{"ahead", state(func(s *State) { s.High += 3 * 3600; s.Watermark = s.High }), "state", ResultWarning, `its "high" is 2 hours ahead of now`,
			"compare this host's clock, and that of the runs, with the API's; where \"high\" or last_effective_at was set by hand, set it back"},
		{"backlog", state(func(s *State) { s.Backlog = []window{{Gte: s.High - 50, Lte: s.High - 10}}; s.Watermark = s.High - 50 }), "state", ResultOK, "windows left for the next runs: 1", ""},
		{"organization", func(h *harness) { h.API.SetOrganization("other-org") }, "organization", ResultFailure, `belongs to organization "other-org", the state to "example-org"`, sameKey},
		{"staged", then(func(h *harness) {
			h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
				if strings.Contains(r.URL.Path, "/moveTo/") {
					return fault.Fault{Kind: fault.Refuse, Status: 403}
				}
				return fault.Fault{}
			})
			h.add(1, 1, 1)
			h.run()
			h.BucketFaults.Set(nil)
			time.Sleep(2 * time.Hour)
		}), "staged", ResultWarning, "records of a run 2 hours ago are committed but not published: gs://logs/state/openai-auditlog/staged/",
			"see what the function's log says under \"publishing\"; once that is mended, the next run publishes them"},
		{"staged_rewritten", then(func(h *harness) {
			h.add(1, 1, 1)
			h.mustRun()
			if err := h.Bucket.Write("logs", h.state().Staged, []byte("again\n")); err != nil {
				t.Fatal(err)
			}
		}), "staged", ResultWarning, "was written again after its commit", "see what the next run's log says of it"},
		{"staged_elsewhere", state(func(s *State) { s.Staged, s.StagedBucket = "state/openai-auditlog/staged/x", "old" }), "staged", ResultFailure, `in bucket "old"`,
			"set STATE_BUCKET back to \"old\" for one run, or move the object to the same name in the new bucket, and in the state change \"staged_bucket\" and remove \"staged_generation\""},

		{"strangers", func(h *harness) { h.write("openai-auditlog/notes.txt", "hello") }, "feed", ResultWarning, "not the collector's: openai-auditlog/notes.txt",
			"move what is not the collector's elsewhere: the feed ingests everything in its folder"},
		{"feed_deletes", func(h *harness) { h.Bucket.Delete("logs", h.state().LastObject) }, "feed", ResultOK, "is empty; the feed, or a rule, deletes", ""},
		{"feed_stuck", func(h *harness) {
			time.Sleep(3 * time.Hour)
			h.add(1, 1, 1)
			h.mustRun()
			h.Bucket.Delete("logs", h.state().LastObject)
		}, "feed", ResultWarning, "1 of them have lain there for more than 2 hours",
			"look at the feed in SecOps (SIEM Settings > Feeds): its status, its last transfer, and the roles of its service account"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *harness) {
				h.add(3, 1, 1)
				h.mustRun()
				c.spoil(h)
				started := time.Now()
				findings := h.check()
				f := findings[c.check]
				if f.Result != c.result || f.Remedy != c.remedy || !strings.Contains(f.Detail, c.detail) {
					t.Errorf("found\n%+v\nwant %s, detail with %q, remedy\n%s", f, c.result, c.detail, c.remedy)
				}
				for _, name := range allChecks {
					if findings[name].Result == "" {
						t.Errorf("no finding of %s", name)
					}
				}
				if took := time.Since(started); took > 40*time.Second {
					t.Errorf("the check took %s", took)
				}
			})
		})
	}
}

func bucketRefused(status int) func(*harness) {
	return func(h *harness) {
		h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
			if r.URL.Path == logsPath {
				return fault.Fault{Kind: fault.Refuse, Status: status}
			}
			return fault.Fault{}
		})
	}
}

func dropConditions(r *http.Request) {
	q := r.URL.Query()
	if r.Method != http.MethodGet {
		q.Del("ifGenerationMatch")
		r.URL.RawQuery = q.Encode()
	}
}

func (h *harness) write(name, data string) {
	h.t.Helper()
	if err := h.Bucket.Write("logs", name, []byte(data)); err != nil {
		h.t.Fatal(err)
	}
}

// TestCheckReach: name resolution and connections are told apart from answers.
func TestCheckReach(t *testing.T) {
	for want, err := range map[string]error{
		"check the host's name in OPENAI_BASE_URL, and the name resolution of this host":                  &net.DNSError{Err: "no such host", Name: "api.invalid", IsNotFound: true},
		"check host and port in OPENAI_BASE_URL, and whether a firewall or proxy keeps this host from it": &net.OpError{Op: "dial", Err: fmt.Errorf("connection refused")},
	} {
		inBubble(t, func(t *testing.T, h *harness) {
			c := h.collectorThrough(roundTripper(func(*http.Request) (*http.Response, error) { return nil, err }))
			if f := h.checkOf(t.Context(), c)["api"]; f.Result != ResultFailure || f.Remedy != want {
				t.Errorf("found %+v, want the remedy %s", f, want)
			}
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestCheckLeftovers: where the probe cannot be removed, the finding says so,
// and the sweep removes it once that is mended.
func TestCheckLeftovers(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(h *harness)
		check  string
		detail string
		remedy string
	}{
		"no_delete": {func(h *harness) {
			h.Bucket.Deny(func(_, op, _, _ string) bool { return op == "delete" })
		}, "probe_replace", "storage.objects.delete is not allowed", userRemedy},
		"retained": {func(h *harness) { h.Bucket.Retain("logs") }, "probe_replace", "retention policy", ownBucket},
		"held_at_once": {func(h *harness) {
			held := false
			h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
				if r.Method == http.MethodPost && !held {
					held = true
					return fault.Fault{Kind: fault.Fail, Status: 200, Header: http.Header{"Content-Type": {"application/json"}},
						Body: `{"name":"x","bucket":"logs","generation":"1","eventBasedHold":true}`}
				}
				if r.Method == http.MethodDelete {
					return fault.Fault{Kind: fault.Refuse, Status: 403, Body: "Object is under active event-based hold"}
				}
				return fault.Fault{}
			})
		}, "probe_create", "is under an event-based hold at once", ownBucket},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *harness) {
				h.add(3, 1, 1)
				h.mustRun()
				before := h.holdings()
				c.spoil(h)
				findings := h.byName(h.collector().Check(t.Context()))
				if f := findings[c.check]; f.Result != ResultFailure || f.Remedy != c.remedy || !strings.Contains(f.Detail, c.detail) {
					t.Errorf("found %+v", f)
				}
				left := h.leftovers(before)
				if f := findings["probe_delete"]; len(left) != 1 || f.Result != ResultFailure || !strings.Contains(f.Detail, left[0]) || f.Remedy != c.remedy {
					t.Errorf("left %q, found %+v", left, f)
				}
				if name == "retained" {
					return // for good
				}
				h.Bucket.Deny(nil)
				h.BucketFaults.Set(nil)
				time.Sleep(25 * time.Hour)
				h.mustRun() // looks for what is staged, and does not sweep
				h.mustRun()
				h.settle()
				if left := h.names("state/openai-auditlog/staged/"); len(left) > 0 {
					t.Errorf("the sweep leaves %q", left)
				}
			})
		})
	}
}

// leftovers lists what there is in the buckets and was not before; that must be
// probes outside the feed's folder, and nothing may lack.
func (h *harness) leftovers(before []string) []string {
	h.t.Helper()
	var left []string
	after := h.holdings()
	for _, o := range after {
		if slices.Contains(before, o) {
			continue
		}
		name, _, _ := strings.Cut(o, "#")
		if !strings.HasPrefix(name, "logs/state/openai-auditlog/staged/state.json/probe-") {
			h.t.Errorf("the check leaves %s", o)
		}
		left = append(left, name)
	}
	for _, o := range before {
		if !slices.Contains(after, o) {
			h.t.Errorf("the check has changed or removed %s", o)
		}
	}
	return left
}

// TestCheckFeedCondition: a bucket that ignores conditions in the feed's folder
// alone gets an empty object there, which is removed.
func TestCheckFeedCondition(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
			if r.Method == http.MethodPost && r.URL.Query().Get("ifGenerationMatch") == "1" {
				dropConditions(r)
			}
			return fault.Fault{}
		})
		if f := h.check()["feed_create"]; f.Result != ResultFailure || f.Remedy != itself {
			t.Errorf("found %+v", f)
		}
		// What only deleting or listing would need says nothing of creating.
		h.Bucket.Deny(nil)
		h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
			if r.URL.Query().Get("ifGenerationMatch") == "1" {
				return fault.Fault{Kind: fault.Refuse, Status: 403, Body: "x does not have storage.objects.delete access"}
			}
			return fault.Fault{}
		})
		if f := h.check()["feed_create"]; f.Result != ResultSkipped || !strings.Contains(f.Detail, "could not be told") {
			t.Errorf("found %+v", f)
		}
	})
}

// TestCheckFaults lets every request to the bucket fail in every way: the state
// stays, the feed's folder stays, and nothing is left where deleting works.
func TestCheckFaults(t *testing.T) {
	kinds := map[string]fault.Fault{
		"403":    {Kind: fault.Refuse, Status: 403},
		"404":    {Kind: fault.Refuse, Status: 404},
		"412":    {Kind: fault.Refuse, Status: 412},
		"503":    {Kind: fault.Refuse, Status: 503},
		"fail":   {Kind: fault.Fail, Status: 503},
		"drop":   {Kind: fault.Drop},
		"lose":   {Kind: fault.Lose},
		"cut":    {Kind: fault.Cut},
		"hang":   {Kind: fault.Hang},
		"landed": {Kind: fault.HangAfter},
	}
	if testing.Short() {
		maps.DeleteFunc(kinds, func(kind string, _ fault.Fault) bool { return kind != "403" && kind != "lose" })
	}
	for _, stateBucket := range []string{"", "states"} {
		for kind, f := range kinds {
			t.Run(kind+stateBucket, func(t *testing.T) {
				for n, done := 1, false; !done; n++ {
					for how, script := range map[string]fault.Script{"one": at(n, f), "all from": from(n, f)} {
						if kind == "cut" && how == "all from" {
							continue // the client reads on at once, for as long as the bubble's clock stands still
						}
						inBubble(t, func(t *testing.T, h *harness) {
							h.env["STATE_BUCKET"] = stateBucket
							h.add(3, 1, 1)
							h.mustRun()
							before := h.holdings()
							deleteFails := how == "all from"
							h.BucketFaults.Set(func(i int, r *http.Request) fault.Fault {
								f := script(i, r)
								if kind == "404" && r.Method == http.MethodDelete {
									f = fault.Fault{} // a lie that nobody could see through
								}
								deleteFails = deleteFails || f.Kind != fault.None && r.Method == http.MethodDelete
								return f
							})
							started := time.Now()
							findings := h.byName(h.collector().Check(t.Context()))
							if took := time.Since(started); took > 2*time.Minute {
								t.Errorf("%s %d: took %s", how, n, took)
							}
							done = h.BucketFaults.Count() < n
							left := 0
							for _, o := range h.holdings() {
								if !slices.Contains(before, o) {
									left++
									if !strings.Contains(o, "/staged/state.json/probe-") {
										t.Errorf("%s %d: leaves %s", how, n, o)
									}
								}
							}
							if after := h.holdings(); len(after) != len(before)+left {
								t.Errorf("%s %d: before %q, after %q", how, n, before, after)
							}
							if left > 0 && (!deleteFails || findings["probe_delete"].Result != ResultFailure) {
								t.Errorf("%s %d: leaves %d probes, and finds %+v", how, n, left, findings["probe_delete"])
							}
						})
					}
					if n > 60 {
						t.Fatal("the check has no end")
					}
				}
			})
		}
	}
}

// TestCheckInterrupted: a check that is interrupted, at any request, leaves
// nothing, and calls nothing a failure.
func TestCheckInterrupted(t *testing.T) {
	for n, done := 1, false; !done; n++ {
		inBubble(t, func(t *testing.T, h *harness) {
			h.add(3, 1, 1)
			h.mustRun()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			h.BucketFaults.Set(nil)
			stop := func(i int, _ *http.Request) {
				if i == n {
					cancel()
				}
			}
			if n%2 == 0 {
				h.BucketFaults.SetHooks(stop, nil)
			} else {
				h.BucketFaults.SetHooks(nil, stop)
			}
			for _, f := range h.checkOf(ctx, h.collector()) {
				if f.Result == ResultFailure {
					t.Errorf("request %d: %+v", n, f)
				}
			}
			done = ctx.Err() == nil
		})
	}
	inBubble(t, func(t *testing.T, h *harness) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for name, f := range h.checkOf(ctx, h.collector()) {
			if f.Result != ResultSkipped && name != "settings" {
				t.Errorf("%+v", f)
			}
		}
	})
}

// TestLifecycleHits goes through the conditions of a rule that deletes.
func TestLifecycleHits(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		k := &checkup{Collector: h.collector()}
		both, day := "the state and staged objects", time.Now().Add(-48*time.Hour)
		for name, c := range map[string]struct {
			condition storage.LifecycleCondition
			want      string
		}{
			"age":            {storage.LifecycleCondition{AgeInDays: 3}, both},
			"all":            {storage.LifecycleCondition{AllObjects: true}, both},
			"live":           {storage.LifecycleCondition{AgeInDays: 3, Liveness: storage.Live}, both},
			"noncurrent":     {storage.LifecycleCondition{Liveness: storage.Archived}, ""},
			"newer versions": {storage.LifecycleCondition{NumNewerVersions: 2}, ""},
			"days since":     {storage.LifecycleCondition{DaysSinceNoncurrentTime: 2}, ""},
			"noncurrent at":  {storage.LifecycleCondition{NoncurrentTimeBefore: day}, ""},
			"custom time":    {storage.LifecycleCondition{DaysSinceCustomTime: 2}, ""},
			"custom at":      {storage.LifecycleCondition{CustomTimeBefore: day}, ""},
			"created before": {storage.LifecycleCondition{CreatedBefore: day}, ""},
			"created until":  {storage.LifecycleCondition{CreatedBefore: time.Now().Add(time.Hour)}, both},
			"its class":      {storage.LifecycleCondition{MatchesStorageClasses: []string{"NEARLINE", "STANDARD"}}, both},
			"class it gets":  {storage.LifecycleCondition{MatchesStorageClasses: []string{"COLDLINE"}}, both},
			"another class":  {storage.LifecycleCondition{MatchesStorageClasses: []string{"ARCHIVE"}}, ""},
			"above":          {storage.LifecycleCondition{MatchesPrefix: []string{"x", "sta"}}, both},
			"elsewhere":      {storage.LifecycleCondition{MatchesPrefix: []string{"x", "states/"}}, ""},
			"ndjson":         {storage.LifecycleCondition{MatchesSuffix: []string{".ndjson"}}, "staged objects"},
			"json":           {storage.LifecycleCondition{MatchesSuffix: []string{"e.json"}}, "the state"},
		} {
			rule := storage.LifecycleRule{Action: storage.LifecycleAction{Type: storage.DeleteAction}, Condition: c.condition}
			attrs := &storage.BucketAttrs{StorageClass: "STANDARD", Lifecycle: storage.Lifecycle{Rules: []storage.LifecycleRule{
				rule, {Action: storage.LifecycleAction{Type: storage.SetStorageClassAction, StorageClass: "COLDLINE"}}}}}
			if got := k.hits(rule, attrs); got != c.want {
				t.Errorf("%s: hits %q, want %q", name, got, c.want)
			}
		}
	})
}

// TestLogFindings reads what the deployed function logs.
func TestLogFindings(t *testing.T) {
	var out bytes.Buffer
	LogFindings(slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return cloudNames(groups, a)
	}})), []Finding{
		{"api", ResultOK, "answers", ""},
		{"clock", ResultWarning, "is ahead", "set it"},
		{"bucket", ResultFailure, "is not there", "create it"},
		{"feed", ResultSkipped, "may not be listed", ""},
		{"state", ResultOK, "good", ""},
	})
	want := `{"severity":"INFO","message":"Check api: answers","check":"api","result":"ok"}
{"severity":"WARNING","message":"Check clock: is ahead","check":"clock","result":"warning","remedy":"set it"}
{"severity":"ERROR","message":"Check bucket: is not there","check":"bucket","result":"failure","remedy":"create it"}
{"severity":"INFO","message":"Check feed: may not be listed","check":"feed","result":"skipped"}
{"severity":"INFO","message":"Check state: good","check":"state","result":"ok"}
{"severity":"INFO","message":"Check ended: 2 ok, 1 warning, 1 failure, 1 skipped","ok":2,"warnings":1,"failures":1,"skipped":1}
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}
