package checkup_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/auditlog"
	"example.com/auditlog/internal/checkup"
	"example.com/auditlog/internal/cloudlog"
	"example.com/auditlog/internal/proof/product"
	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/sim/harness"
	"example.com/auditlog/internal/state"
	"example.com/auditlog/internal/store"
)

const stateName = "state/openai-auditlog/state.json"

// inBubble runs f in a world where the function makes runs happen.
func inBubble(t *testing.T, f func(t *testing.T, h *harness.H)) {
	t.Helper()
	harness.InBubble(t, product.Function, f)
}

// collector returns a new instance of the function.
func collector(h *harness.H) *auditlog.Collector {
	h.T.Helper()
	return collectorThrough(h, h.Connect(nil))
}

func collectorThrough(h *harness.H, c harness.Connections) *auditlog.Collector {
	h.T.Helper()
	collector, err := product.New(h.Env, c)
	if err != nil {
		h.T.Fatal(err)
	}
	return collector
}

// at returns a script that lets a fault strike request n alone.
func at(n int, f fault.Fault) fault.Script {
	return func(i int, _ *http.Request) fault.Fault {
		if i == n {
			return f
		}
		return fault.Fault{}
	}
}

// from returns a script that lets a fault strike every request from n on.
func from(n int, f fault.Fault) fault.Script {
	return func(i int, _ *http.Request) fault.Fault {
		if i >= n {
			return f
		}
		return fault.Fault{}
	}
}

// allChecks are the names, in order, where all lies in one bucket.
var allChecks = []string{
	"settings", "api", "clock", "bucket", "retention", "lifecycle",
	"probe_create", "probe_read", "probe_replace", "probe_condition", "probe_list", "probe_move", "probe_delete",
	"state", "organization", "staged", "feed_create", "feed",
}

// holdings is what both buckets hold, but for what changes with the clock.
func holdings(h *harness.H) []string {
	h.T.Helper()
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
func check(h *harness.H) map[string]checkup.Finding {
	h.T.Helper()
	return checkOf(h.T.Context(), h, collector(h))
}

func checkOf(ctx context.Context, h *harness.H, c *auditlog.Collector) map[string]checkup.Finding {
	h.T.Helper()
	before := holdings(h)
	findings := byName(h, slices.Collect(c.Check(ctx)))
	if diff := cmp.Diff(before, holdings(h)); diff != "" {
		h.T.Errorf("the check changes the bucket:\n%s", diff)
	}
	return findings
}

func byName(h *harness.H, findings []checkup.Finding) map[string]checkup.Finding {
	h.T.Helper()
	m := map[string]checkup.Finding{}
	for _, f := range findings {
		if _, ok := m[f.Check]; ok {
			h.T.Errorf("two findings of %s", f.Check)
		}
		if bad := f.Result == checkup.ResultWarning || f.Result == checkup.ResultFailure; bad != (f.Remedy != "") || f.Detail == "" {
			h.T.Errorf("a warning or failure, and nothing else, has a remedy: %+v", f)
		}
		if text := f.Detail + f.Remedy; strings.Contains(text, h.Env["OPENAI_ADMIN_KEY"]) || strings.Contains(text, "\n") {
			h.T.Errorf("shows the key, or has several lines: %+v", f)
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
	logsPath         = "/storage/v1/b/logs"
	statePath        = logsPath + "/o/" + stateName
	userRemedy       = "grant Storage Object User (roles/storage.objectUser) on the managed folder gs://logs/state/openai-auditlog/, or on the bucket, to the account that runs this"
	ownBucket        = "a retention policy or a hold forbids it: set STATE_BUCKET to a bucket without one and copy the state object there, or remove it"
	itself           = "talk to Cloud Storage itself: a proxy or emulator on the way drops the preconditions of requests"
	ruleRemedy       = "limit the rule to gs://logs/openai-auditlog/ (matchesPrefix), or to noncurrent versions"
	keyRemedy        = "OPENAI_ADMIN_KEY is wrong or revoked: create an Admin key and set it"
	staleRemedy      = "see whether the job in Cloud Scheduler is paused or fails, whether the topic has its trigger, and what the function's log says under \"Run failed\""
	kindRemedy       = "create an Admin key (platform.openai.com, Settings > Organization > Admin keys) and set OPENAI_ADMIN_KEY to it"
	typesRemedy      = "correct EVENT_TYPES; leave a type that OpenAI has added of late as it is"
	sameOrganization = `set the Admin key of the state's organization, or give each organization a STATE_KEY and GCS_PREFIX of its own; if it was renamed, remove "organization" from the state object`
	baseRemedy       = "check OPENAI_BASE_URL: what answers there is not the audit log API"
)

func uniform(more string) string {
	return `{"kind":"storage#bucket","name":"logs","storageClass":"STANDARD","iamConfiguration":{"uniformBucketLevelAccess":{"enabled":true}}` + more + `}`
}

// TestCheckGood: before the first run and after runs, nothing is found, and the
// order of the checks is fixed.
func TestCheckGood(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness.H) {
		h.BucketFaults.Set(bucketIs(logsPath, uniform("")))
		for i := range 3 {
			var names []string
			for f := range collector(h).Check(t.Context()) {
				names = append(names, f.Check)
				if first := i == 0 && f.Check == "organization"; f.Result != checkup.ResultOK && !first {
					t.Errorf("%+v", f)
				}
			}
			if diff := cmp.Diff(allChecks, names); diff != "" {
				t.Error(diff)
			}
			check(h)
			h.Add(3, 1, 1)
			h.MustRun()
			time.Sleep(time.Hour)
		}
		h.Env["STATE_BUCKET"] = "states"
		for name, f := range check(h) {
			if f.Result != checkup.ResultOK && name != "organization" {
				t.Errorf("with a STATE_BUCKET: %+v", f)
			}
		}
		// To an account with roles on folders alone.
		h.Conceal()
		for _, stateBucket := range []string{"states", "logs"} {
			h.Env["STATE_BUCKET"] = stateBucket
			for _, f := range check(h) {
				if f.Result == checkup.ResultFailure || f.Result == checkup.ResultWarning {
					t.Errorf("with roles on folders: %+v", f)
				}
			}
		}
	})
}

// checkCase is a set-up with one fault, and what must be found.
type checkCase struct {
	name   string
	spoil  func(h *harness.H)
	check  string
	result checkup.Result
	detail string // part of it
	remedy string // all of it
}

func TestCheckFindings(t *testing.T) {
	api := func(f fault.Fault) func(*harness.H) {
		return func(h *harness.H) { h.APIFaults.Set(from(1, f)) }
	}
	refuse := func(status int, body string) func(*harness.H) {
		return api(fault.Fault{Kind: fault.Refuse, Status: status, Body: body})
	}
	dated := func(ahead time.Duration) func(*harness.H) {
		return func(h *harness.H) {
			api(fault.Fault{Kind: fault.Refuse, Status: 200, Body: `{"object":"list","data":[],"last_id":null,"has_more":false}`,
				Header: http.Header{"Date": {time.Now().Add(-ahead).UTC().Format(http.TimeFormat)}}})(h)
		}
	}
	place := func(more string) func(*harness.H) {
		return func(h *harness.H) { h.BucketFaults.Set(bucketIs(logsPath, uniform(more))) }
	}
	object := func(more string) func(*harness.H) {
		return func(h *harness.H) {
			h.BucketFaults.Set(bucketIs(statePath, `{"name":"`+stateName+`","bucket":"logs","generation":"1","size":"2"`+more+`}`))
		}
	}
	rule := func(action, condition string) func(*harness.H) {
		return place(`,"lifecycle":{"rule":[{"action":{"type":"` + action + `"},"condition":{` + condition + `}}]}`)
	}
	deny := func(bucket, op, prefix string) func(*harness.H) {
		return func(h *harness.H) {
			h.Bucket.Deny(func(_, o, b, name string) bool { return b == bucket && o == op && strings.HasPrefix(name, prefix) })
		}
	}
	edit := func(change func(*state.State)) func(*harness.H) {
		return func(h *harness.H) {
			s, _, err := state.Decode(bytes.NewReader(h.ReadState()), time.Now())
			if err != nil {
				h.T.Fatal(err)
			}
			change(&s)
			data, err := json.Marshal(s)
			if err != nil {
				h.T.Fatal(err)
			}
			h.WriteState(data)
		}
	}
	then := func(all ...func(*harness.H)) func(*harness.H) {
		return func(h *harness.H) {
			for _, f := range all {
				f(h)
			}
		}
	}
	states := func(h *harness.H) { h.Env["STATE_BUCKET"] = "states" }
	key := func(key string) func(*harness.H) {
		return func(h *harness.H) {
			h.Env["OPENAI_ADMIN_KEY"] = key
			h.API.SetKey(key)
		}
	}

	for _, c := range []checkCase{
		{"state_in_feed", func(h *harness.H) { h.Env["STATE_KEY"] = "openai-auditlog/state.json" }, "settings", checkup.ResultWarning, "lies under GCS_PREFIX",
			"set STATE_KEY to a name outside, for example state/openai-auditlog/state.json, and move the object there if there is one"},

		{"empty_part", func(h *harness.H) { h.Env["GCS_PREFIX"] = "openai//auditlog" }, "settings", checkup.ResultWarning, `GCS_PREFIX "openai//auditlog" has an empty part`,
			`set GCS_PREFIX to "openai/auditlog", and let the feed read gs://logs/openai/auditlog/`},
		{"misspelt_type", func(h *harness.H) { h.Env["EVENT_TYPES"] = "login.succeeded,login.fail" }, "settings", checkup.ResultWarning,
			`EVENT_TYPES names "login.fail" (login.failed?), which is not a known type: is it misspelt?`, typesRemedy},
		{"project_key", key("sk-proj-0123"), "settings", checkup.ResultWarning, "OPENAI_ADMIN_KEY begins with sk-proj-, as a project's key does", kindRemedy},
		{"service_account_key", key("sk-svcacct-0123"), "settings", checkup.ResultWarning, "begins with sk-svcacct-, as a service account's key does", kindRemedy},
		{"session_key", key("sess-0123"), "settings", checkup.ResultWarning, "begins with sess-, as a browser session's key does", kindRemedy},
		{"project_key_refused", func(h *harness.H) { h.Env["OPENAI_ADMIN_KEY"] = "sk-proj-0123" }, "api", checkup.ResultFailure, "answered 401", "OPENAI_ADMIN_KEY is not an Admin key: " + kindRemedy},
		{"odd_twice", then(key("sk-proj-0123"), func(h *harness.H) { h.Env["EVENT_TYPES"] = "moon.landed" }), "settings", checkup.ResultWarning,
			`is it misspelt?; OPENAI_ADMIN_KEY begins with`, typesRemedy + "; " + kindRemedy},

		{"wrong_key", func(h *harness.H) { h.API.SetKey("another") }, "api", checkup.ResultFailure, "answered 401 Unauthorized: Incorrect API key provided.", keyRemedy},
		{"missing_scope", func(h *harness.H) { h.API.SetMissingScopes(true) }, "api", checkup.ResultFailure, "Missing scopes", "give the key the scope api.audit_logs.read"},
		{"forbidden", func(h *harness.H) { h.API.SetForbidden(true) }, "api", checkup.ResultFailure, "answered 403 Forbidden: Audit logging is not enabled",
			"audit logging is off: ask an owner of the organization to enable it, Settings > Organization > Data controls"},
		{"wrong_path", func(h *harness.H) { h.Env["OPENAI_BASE_URL"] += "/v2" }, "api", checkup.ResultFailure, "answered 404", "check OPENAI_BASE_URL"},
		{"wrong_host", refuse(404, "<html>nginx</html>"), "api", checkup.ResultFailure, "answered 404 Not Found: <html>", "check OPENAI_BASE_URL"},
		{"html", refuse(200, "<html>hello</html>"), "api", checkup.ResultFailure, "no JSON list", baseRemedy},
		{"no_list", refuse(200, `{"object":"model"}`), "api", checkup.ResultFailure, "bad list", baseRemedy},
		{"redirect", refuse(302, ""), "api", checkup.ResultFailure, "redirect not followed", "set OPENAI_BASE_URL to the API's final address"},
		{"proxy", refuse(407, "who are you"), "api", checkup.ResultFailure, "answered 407", "read what the API says; check OPENAI_BASE_URL, and a proxy on the way"},
		{"key_in_answer", func(h *harness.H) { refuse(400, "no "+h.Env["OPENAI_ADMIN_KEY"])(h) }, "api", checkup.ResultFailure, "no [secret]",
			"read what the API says; check OPENAI_BASE_URL, and a proxy on the way"},
		{"server_error", refuse(500, ""), "api", checkup.ResultFailure, "answered 500",
			"try again later, and look at status.openai.com; runs go on by themselves once it answers"},
		{"rate_limit", api(fault.Fault{Kind: fault.Refuse, Status: 429, Header: http.Header{"Retry-After": {"60"}}}), "api", checkup.ResultFailure, "the next attempt in 1m0s would come after the 20s that this check takes",
			"try again later; runs obey the wait. Where it stays so, look at the organization's limits and at what else uses its Admin keys"},
		{"hangs", api(fault.Fault{Kind: fault.Hang}), "api", checkup.ResultFailure, "gave no answer within 20s",
			"check OPENAI_BASE_URL, and whether a firewall or proxy keeps this host from it"},
		{"dropped", api(fault.Fault{Kind: fault.Drop}), "api", checkup.ResultFailure, "reaching the audit log API: EOF",
			"check host and port in OPENAI_BASE_URL, and whether a firewall or proxy keeps this host from it"},
		{"cut", refuse(200, `{"object":"list","data":[`), "api", checkup.ResultFailure, "answer was cut off",
			"try again; where it stays so, a proxy on the way cuts answers off"},

		{"clock_near", dated(30 * time.Second), "clock", checkup.ResultOK, "this host's clock is 30 seconds ahead of the API's", ""},
		{"clock_ahead", dated(5 * time.Minute), "clock", checkup.ResultWarning, "is 5 minutes ahead of the API's", "set this host's clock, by NTP for example"},
		{"clock_far_ahead", dated(25 * time.Hour), "clock", checkup.ResultFailure, "a first run would begin after the newest record", "set this host's clock, by NTP for example"},
		{"clock_behind", dated(-5 * time.Minute), "clock", checkup.ResultWarning, "is 5 minutes behind the API's", "set this host's clock, by NTP for example"},
		{"clock_far_behind", dated(-49 * time.Hour), "clock", checkup.ResultFailure, "is 2 days behind the API's", "set this host's clock, by NTP for example"},
		{"no_date", api(fault.Fault{Kind: fault.Fail, Status: 200, Header: http.Header{"Date": nil}, Body: `{"object":"list","data":[],"has_more":false}`}),
			"clock", checkup.ResultSkipped, "no Date", ""},

		{"no_bucket", func(h *harness.H) { h.Env["GCS_BUCKET"] = "nowhere" }, "bucket", checkup.ResultFailure, `there is no bucket "nowhere"`,
			"set GCS_BUCKET to a bucket that exists, or create this one"},
		{"no_bucket_skips", func(h *harness.H) { h.Env["GCS_BUCKET"] = "nowhere" }, "feed", checkup.ResultSkipped, "see bucket", ""},
		{"no_state_bucket", func(h *harness.H) { h.Env["STATE_BUCKET"] = "nowhere" }, "bucket", checkup.ResultFailure, `there is no bucket "nowhere"`,
			"set STATE_BUCKET to a bucket that exists, or create this one"},
		{"no_settings", bucketRefused(403), "bucket", checkup.ResultSkipped, "Storage Legacy Bucket Reader (roles/storage.legacyBucketReader)", ""},
		{"no_settings_retention", bucketRefused(403), "retention", checkup.ResultOK, "neither a retention nor a hold on the state object", ""},
		{"no_settings_lifecycle", bucketRefused(403), "lifecycle", checkup.ResultSkipped, "may not be looked at", ""},
		{"no_credentials", bucketRefused(401), "bucket", checkup.ResultFailure, "401",
			`mend the credentials: "gcloud auth application-default login", or a service account for the function`},
		{"bucket_busy", bucketRefused(503), "bucket", checkup.ResultFailure, "no good answer within 15s",
			"try again; where it stays so, check whether a firewall or proxy keeps this host from Cloud Storage, and STORAGE_EMULATOR_HOST if set"},
		{"not_uniform", func(*harness.H) {}, "bucket", checkup.ResultOK, "note: uniform bucket-level access is off", ""},

		{"retention_policy", place(`,"retentionPolicy":{"retentionPeriod":"604800","isLocked":true,"effectiveTime":"1999-01-01T00:00:00Z"}`), "retention", checkup.ResultFailure,
			"gs://logs has a retention policy of 7 days, which is locked: the state could not be replaced", ownBucket},
		{"retention_no_probe", place(`,"retentionPolicy":{"retentionPeriod":"604800","effectiveTime":"1999-01-01T00:00:00Z"}`), "probe_create", checkup.ResultSkipped,
			"a probe object could not be removed: see retention", ""},
		{"default_hold", place(`,"defaultEventBasedHold":true`), "retention", checkup.ResultFailure, "puts an event-based hold on new objects", ownBucket},
		{"retention_state_bucket", then(states, func(h *harness.H) {
			h.BucketFaults.Set(bucketIs("/storage/v1/b/states", `{"name":"states","defaultEventBasedHold":true}`))
		}), "retention", checkup.ResultFailure, "gs://states puts", ownBucket},
		{"temporary_hold", object(`,"temporaryHold":true`), "retention", checkup.ResultFailure, "the state object is under a temporary hold", ownBucket},
		{"event_hold", object(`,"eventBasedHold":true`), "retention", checkup.ResultFailure, "the state object is under an event-based hold", ownBucket},
		{"object_policy", object(`,"retentionExpirationTime":"2000-02-01T00:00:00Z"`), "retention", checkup.ResultFailure, "a retention policy until 2000-02-01T00:00:00Z", ownBucket},
		{"own_retention", object(`,"retention":{"mode":"Locked","retainUntilTime":"2000-02-01T00:00:00Z"}`), "retention", checkup.ResultFailure, "a retention of its own until 2000-02-01T00:00:00Z", ownBucket},
		{"expired_retention", object(`,"retentionExpirationTime":"1999-02-01T00:00:00Z"`), "retention", checkup.ResultOK, "neither", ""},

		{"rule_30_days", rule("Delete", `"age":30`), "lifecycle", checkup.ResultWarning, "a rule deletes the state and staged objects at an age of 30 days", ruleRemedy},
		{"rule_1_day", rule("Delete", `"age":1`), "lifecycle", checkup.ResultFailure, "deletes the state and staged objects at an age of 1 day:", ruleRemedy},
		{"rule_at_once", rule("Delete", `"matchesSuffix":["on"]`), "lifecycle", checkup.ResultFailure, "the state and staged objects at an age of 0 days", ruleRemedy},
		{"rule_state", rule("Delete", `"age":9,"matchesPrefix":["state/openai-auditlog/state"]`), "lifecycle", checkup.ResultWarning, "deletes the state at an age of 9 days", ruleRemedy},
		{"rule_staged", rule("Delete", `"age":9,"matchesPrefix":["state/openai-auditlog/staged/state.json/2"]`), "lifecycle", checkup.ResultWarning, "deletes staged objects at an age of 9 days", ruleRemedy},
		{"rule_feed", rule("Delete", `"age":1,"matchesPrefix":["openai-auditlog/"]`), "lifecycle", checkup.ResultOK, "no rule", ""},
		{"rule_versions", rule("Delete", `"age":1,"isLive":false`), "lifecycle", checkup.ResultOK, "no rule", ""},
		{"rule_class", rule("SetStorageClass", `"age":1`), "lifecycle", checkup.ResultOK, "no rule", ""},

		{"no_create", deny("logs", "create", "state/"), "probe_create", checkup.ResultFailure, "storage.objects.create is not allowed", userRemedy},
		{"no_create_skips", deny("logs", "create", "state/"), "probe_move", checkup.ResultSkipped, "see probe_create", ""},
		{"no_get", deny("logs", "get", "state/"), "probe_read", checkup.ResultFailure, "storage.objects.get is not allowed", userRemedy},
		{"staged_may_not_be_looked_for", deny("logs", "list", "state/openai-auditlog/staged/"), "staged", checkup.ResultFailure, "storage.objects.list is not allowed", userRemedy},
		{"no_get_state", deny("logs", "get", "state/"), "state", checkup.ResultFailure, "storage.objects.get is not allowed", userRemedy},
		{"no_list", deny("logs", "list", ""), "probe_list", checkup.ResultFailure, "storage.objects.list is not allowed", userRemedy},
		{"no_list_feed", deny("logs", "list", ""), "feed", checkup.ResultSkipped, `Storage Object Viewer (roles/storage.objectViewer); the function does without; to have it looked at, run "auditlog check"`, ""},
		{"no_move", deny("logs", "move", ""), "probe_move", checkup.ResultFailure, "storage.objects.move is not allowed", userRemedy},
		{"perimeter", refuseAll("Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: abc"), "bucket", checkup.ResultFailure,
			"reading the settings of gs://logs: 403 Request is prohibited by organization's policy.", store.OutsidePerimeter.Remedy()},
		{"kms_key", refuseAll("Permission denied on Cloud KMS key. Please ensure that your Cloud Storage service account has been authorized to use this key."), "state", checkup.ResultFailure,
			"403 Permission denied on Cloud KMS key.", store.KeyUnusable.Remedy()},
		{"no_conditions", func(h *harness.H) {
			h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault { dropConditions(r); return fault.Fault{} })
		}, "probe_condition", checkup.ResultFailure, "on a condition that did not hold", itself},
		{"no_conditions_feed", func(h *harness.H) {
			h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault { dropConditions(r); return fault.Fault{} })
		}, "feed_create", checkup.ResultSkipped, "see probe_condition", ""},
		{"root_folder", then(func(h *harness.H) { h.Env["STATE_KEY"] = "state.json" }, deny("logs", "create", "staged/")), "probe_create", checkup.ResultFailure, "storage.objects.create",
			"grant Storage Object User (roles/storage.objectUser) on the bucket gs://logs to the account that runs this"},

		{"state_in_feed_no_create", then(func(h *harness.H) { h.Env["STATE_KEY"] = "openai-auditlog/state.json" }, deny("logs", "create", "staged-")), "probe_create", checkup.ResultFailure, "storage.objects.create",
			"grant Storage Object User (roles/storage.objectUser) on the managed folder gs://logs/staged-openai-auditlog/staged/state.json/, or on the bucket, to the account that runs this"},
		{"no_feed_create", deny("logs", "create", "openai-auditlog/"), "feed_create", checkup.ResultFailure, "storage.objects.create is not allowed",
			"grant Storage Object Creator (roles/storage.objectCreator) on the managed folder gs://logs/openai-auditlog/, or on the bucket, to the account that runs this"},
		{"no_feed_read", then(states, deny("logs", "get", "openai-auditlog/")), "feed_read", checkup.ResultFailure, "storage.objects.get is not allowed",
			"grant Storage Object Viewer (roles/storage.objectViewer) on the managed folder gs://logs/openai-auditlog/, or on the bucket, to the account that runs this"},

		{"first_run", func(h *harness.H) { h.Bucket.Delete("logs", stateName) }, "state", checkup.ResultOK, "the next run is the first, and reaches back 24 hours", ""},
		{"damaged", func(h *harness.H) { write(h, stateName, `{"last_effective_at": -1}`) }, "state", checkup.ResultFailure, `"last_effective_at" is -1`,
			"restore an older generation of the object, or mend last_effective_at in it (Unix seconds); deleting it makes a first run"},
		{"newer", func(h *harness.H) { write(h, stateName, `{"last_effective_at": 1, "version": 2}`) }, "state", checkup.ResultFailure, `is newer than this release: it has version 2`,
			"deploy the newer release again, or restore an older generation of the object; deleting it makes a first run"},
		{"damaged_skips", func(h *harness.H) { write(h, stateName, `{`) }, "staged", checkup.ResultSkipped, "see state", ""},
		{"edited", edit(func(s *state.State) { s.Watermark -= 100 }), "state", checkup.ResultOK, "was set by hand", ""},
		{"stale", func(*harness.H) { time.Sleep(4 * time.Hour) }, "state", checkup.ResultWarning, "by a run 4 hours ago: no run has committed since", staleRemedy},
		{"daily", func(h *harness.H) { h.Env["INTERVAL_MINUTES"] = "1440"; time.Sleep(48 * time.Hour) }, "state", checkup.ResultOK, "by a run 2 days ago", ""},
		{"daily_stale", func(h *harness.H) { h.Env["INTERVAL_MINUTES"] = "1440"; time.Sleep(50 * time.Hour) }, "state", checkup.ResultWarning, "no run has committed since", staleRemedy},
		{"another_functions", func(h *harness.H) {
			h.WriteState(fmt.Appendf(nil, `{"last_effective_at": %d}`, time.Now().Unix()))
			time.Sleep(2 * time.Hour)
		}, "state", checkup.ResultOK, "new records are collected up to 2000-01-01T00:00:00Z, by a run 2 hours ago", ""},
		{"ahead", edit(func(s *state.State) { s.High += 3 * 3600; s.Watermark = s.High }), "state", checkup.ResultWarning, `its "high" is 2 hours ahead of now`,
			"compare this host's clock, and that of the runs, with the API's; where \"high\" or last_effective_at was set by hand, set it back"},
		{"backlog", edit(func(s *state.State) {
			s.Backlog = []state.Window{{Gte: s.High - 50, Lte: s.High - 10}}
			s.Watermark = s.High - 50
		}), "state", checkup.ResultOK, "windows left for the next runs: 1", ""},
		{"behind", edit(func(s *state.State) {
			s.Backlog = []state.Window{{Gte: s.High - 50000, Lte: s.High - 10}}
			s.Watermark = s.High - 50000
		}), "state", checkup.ResultWarning, "windows left for the next runs: 1: new records wait to be read",
			"the next runs read what is left, the newest records first; where it grows, raise MAX_RECORDS or RUN_TIMEOUT_SECONDS, or run more often"},
		{"backfill", edit(func(s *state.State) {
			s.Backlog = []state.Window{{Gte: 5, Lte: 999, Backfill: state.Span{Gte: 5, Lte: 999}}}
			s.Watermark = 5
		}), "state", checkup.ResultOK, "a run 0 seconds ago; of the backfill 1970-01-01T00:00:05Z to 1970-01-01T00:16:39Z, 16 minutes left", ""},
		{"set_aside", edit(func(s *state.State) {
			s.Backlog = []state.Window{{Gte: s.High - 50, Lte: s.High - 50, SetAside: true}}
			s.Watermark = s.High - 50
		}), "state", checkup.ResultWarning, "ranges that the API cannot serve, set aside: 1", "see what the runs' log says of each, under \"set aside\"; auditlog backfill --cancel gives one up"},
		{"organization", func(h *harness.H) { h.API.SetOrganization("other-org") }, "organization", checkup.ResultFailure, `belongs to organization "other-org", the state to "example-org"`, sameOrganization},
		{"same_organization", func(*harness.H) {}, "organization", checkup.ResultOK, "key and state belong to the same organization", ""},
		{"staged", then(func(h *harness.H) {
			h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
				if strings.Contains(r.URL.Path, "/moveTo/") {
					return fault.Fault{Kind: fault.Refuse, Status: 403}
				}
				return fault.Fault{}
			})
			h.Add(1, 1, 1)
			h.Run()
			h.BucketFaults.Set(nil)
			time.Sleep(2 * time.Hour)
		}), "staged", checkup.ResultWarning, "records of a run 2 hours ago are committed but not published: gs://logs/state/openai-auditlog/staged/",
			"see what the function's log says under \"publishing\"; once that is mended, the next run publishes them"},
		{"staged_just_now", func(h *harness.H) {
			deny("logs", "move", "")(h)
			h.Add(1, 1, 1)
			h.Run()
			h.Bucket.Deny(nil)
		}, "staged", checkup.ResultOK, "the last run's records are about to be published, or the next run publishes them: gs://logs/state/openai-auditlog/staged/", ""},
		{"staged_rewritten", then(func(h *harness.H) {
			h.Add(1, 1, 1)
			h.MustRun()
			if err := h.Bucket.Write("logs", h.Stored().Staged, []byte("again\n")); err != nil {
				h.T.Fatal(err)
			}
		}), "staged", checkup.ResultWarning, "was written again after its commit", "see what the next run's log says of it"},
		{"staged_elsewhere", edit(func(s *state.State) { s.Staged, s.StagedBucket = "state/openai-auditlog/staged/x", "old" }), "staged", checkup.ResultFailure, `in bucket "old"`,
			"set STATE_BUCKET back to \"old\" for one run, or move the object to the same name in the new bucket, and in the state change \"staged_bucket\" and remove \"staged_generation\""},

		{"strangers", func(h *harness.H) { write(h, "openai-auditlog/notes.txt", "hello") }, "feed", checkup.ResultWarning, "not the collector's: openai-auditlog/notes.txt",
			"move what is not the collector's elsewhere: the feed ingests everything in its folder"},
		{"feed_deletes", func(h *harness.H) { h.Bucket.Delete("logs", h.Stored().LastObject) }, "feed", checkup.ResultOK, "is empty; the feed, or a rule, deletes", ""},
		{"feed_size", func(h *harness.H) {
			h.Bucket.Delete("logs", h.Stored().LastObject)
			write(h, "openai-auditlog/openai_auditlog_20000101_000000.ndjson", strings.Repeat("x", 12345))
		}, "feed", checkup.ResultOK, "has 1 object of 12,345 bytes, the oldest 0 seconds", ""},
		{"feed_stuck", func(h *harness.H) {
			time.Sleep(3 * time.Hour)
			h.Add(1, 1, 1)
			h.MustRun()
			h.Bucket.Delete("logs", h.Stored().LastObject)
		}, "feed", checkup.ResultWarning, "1 of them have lain there for more than 2 hours",
			"look at the feed in SecOps (SIEM Settings > Feeds): its status, its last transfer, and the roles of its service account"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *harness.H) {
				h.Add(3, 1, 1)
				h.MustRun()
				c.spoil(h)
				started := time.Now()
				findings := check(h)
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

// refuseAll refuses what touches objects or, from outside, everything.
func refuseAll(message string) func(*harness.H) {
	return func(h *harness.H) {
		h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
			if strings.Contains(message, "KMS") && (r.Method == http.MethodGet && r.URL.Path != statePath || r.URL.Query().Get("prefix") != "") {
				return fault.Fault{}
			}
			return fault.Fault{Kind: fault.Refuse, Status: 403, Header: http.Header{"Content-Type": {"application/json"}},
				Body: fmt.Sprintf(`{"error":{"code":403,"message":%q,"errors":[{"reason":"forbidden","message":%[1]q}]}}`, message)}
		})
	}
}

func bucketRefused(status int) func(*harness.H) {
	return func(h *harness.H) {
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

func write(h *harness.H, name, data string) {
	h.T.Helper()
	if err := h.Bucket.Write("logs", name, []byte(data)); err != nil {
		h.T.Fatal(err)
	}
}

// TestCheckReach: failures of name resolution and of connections differ from bad answers.
func TestCheckReach(t *testing.T) {
	for want, err := range map[string]error{
		"check the host's name in OPENAI_BASE_URL, and the name resolution of this host":                                &net.DNSError{Err: "no such host", Name: "api.invalid", IsNotFound: true},
		"check host and port in OPENAI_BASE_URL, and whether a firewall or proxy keeps this host from it":               &net.OpError{Op: "dial", Err: fmt.Errorf("connection refused")},
		"a proxy on the way signs with a certificate that this host does not trust: add its authority, or go around it": x509.UnknownAuthorityError{},
	} {
		inBubble(t, func(t *testing.T, h *harness.H) {
			c := h.Connect(nil)
			c.API = roundTripper(func(*http.Request) (*http.Response, error) { return nil, err })
			if f := checkOf(t.Context(), h, collectorThrough(h, c))["api"]; f.Result != checkup.ResultFailure || f.Remedy != want {
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
		spoil  func(h *harness.H)
		check  string
		detail string
		remedy string
	}{
		"no_delete": {func(h *harness.H) {
			h.Bucket.Deny(func(_, op, _, _ string) bool { return op == "delete" })
		}, "probe_replace", "storage.objects.delete is not allowed", userRemedy},
		"retained": {func(h *harness.H) { h.Bucket.Retain("logs") }, "probe_replace", "retention policy", ownBucket},
		"held_at_once": {func(h *harness.H) {
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
			inBubble(t, func(t *testing.T, h *harness.H) {
				h.Add(3, 1, 1)
				h.MustRun()
				before := holdings(h)
				c.spoil(h)
				findings := byName(h, slices.Collect(collector(h).Check(t.Context())))
				if f := findings[c.check]; f.Result != checkup.ResultFailure || f.Remedy != c.remedy || !strings.Contains(f.Detail, c.detail) {
					t.Errorf("found %+v", f)
				}
				left := leftovers(h, before)
				if f := findings["probe_delete"]; len(left) != 1 || f.Result != checkup.ResultFailure || !strings.Contains(f.Detail, left[0]) || f.Remedy != c.remedy {
					t.Errorf("left %q, found %+v", left, f)
				}
				if name == "retained" {
					return // for good
				}
				h.Bucket.Deny(nil)
				h.BucketFaults.Set(nil)
				time.Sleep(25 * time.Hour)
				h.MustRun() // looks for what is staged, and does not sweep
				h.MustRun()
				h.Settle()
				if left := h.Names("state/openai-auditlog/staged/"); len(left) > 0 {
					t.Errorf("the sweep leaves %q", left)
				}
			})
		})
	}
}

// leftovers lists what there is in the buckets and was not before; that must be
// probes outside the feed's folder, and nothing may lack.
func leftovers(h *harness.H, before []string) []string {
	h.T.Helper()
	var left []string
	after := holdings(h)
	for _, o := range after {
		if slices.Contains(before, o) {
			continue
		}
		name, _, _ := strings.Cut(o, "#")
		if !strings.HasPrefix(name, "logs/state/openai-auditlog/staged/state.json/probe-") {
			h.T.Errorf("the check leaves %s", o)
		}
		left = append(left, name)
	}
	for _, o := range before {
		if !slices.Contains(after, o) {
			h.T.Errorf("the check has changed or removed %s", o)
		}
	}
	return left
}

// TestCheckFeedCondition: a bucket that ignores conditions in the feed's folder
// alone gets an empty object there, which is removed.
func TestCheckFeedCondition(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness.H) {
		h.BucketFaults.Set(func(_ int, r *http.Request) fault.Fault {
			if r.Method == http.MethodPost && r.URL.Query().Get("ifGenerationMatch") == "1" {
				dropConditions(r)
			}
			return fault.Fault{}
		})
		if f := check(h)["feed_create"]; f.Result != checkup.ResultFailure || f.Remedy != itself {
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
		if f := check(h)["feed_create"]; f.Result != checkup.ResultSkipped || !strings.Contains(f.Detail, "could not be told") {
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
						inBubble(t, func(t *testing.T, h *harness.H) {
							h.Env["STATE_BUCKET"] = stateBucket
							h.Add(3, 1, 1)
							h.MustRun()
							before := holdings(h)
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
							findings := byName(h, slices.Collect(collector(h).Check(t.Context())))
							if took := time.Since(started); took > 2*time.Minute {
								t.Errorf("%s %d: took %s", how, n, took)
							}
							done = h.BucketFaults.Count() < n
							left := 0
							for _, o := range holdings(h) {
								if !slices.Contains(before, o) {
									left++
									if !strings.Contains(o, "/staged/state.json/probe-") {
										t.Errorf("%s %d: leaves %s", how, n, o)
									}
								}
							}
							if after := holdings(h); len(after) != len(before)+left {
								t.Errorf("%s %d: before %q, after %q", how, n, before, after)
							}
							if left > 0 && (!deleteFails || findings["probe_delete"].Result != checkup.ResultFailure) {
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
		inBubble(t, func(t *testing.T, h *harness.H) {
			h.Add(3, 1, 1)
			h.MustRun()
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
			interrupted := false
			for _, f := range checkOf(ctx, h, collector(h)) {
				interrupted = interrupted || f.Result == checkup.ResultInterrupted
				if f.Result == checkup.ResultFailure {
					t.Errorf("request %d: %+v", n, f)
				}
			}
			if done = ctx.Err() == nil; done && interrupted {
				t.Error("it counts as interrupted, and nobody did")
			}
		})
	}
	for n, check := range []string{"api", "tenant"} { // of the first and the second request to the API
		inBubble(t, func(t *testing.T, h *harness.H) {
			h.Env["TENANT_EVENTS"] = "true"
			ctx, cancel := context.WithCancel(t.Context())
			h.APIFaults.Set(func(i int, _ *http.Request) fault.Fault {
				if i != n+1 {
					return fault.Fault{}
				}
				cancel()
				return fault.Fault{Kind: fault.Hang}
			})
			if f := checkOf(ctx, h, collector(h))[check]; f.Result != checkup.ResultInterrupted {
				t.Errorf("%+v", f)
			}
		})
	}
	inBubble(t, func(t *testing.T, h *harness.H) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for name, f := range checkOf(ctx, h, collector(h)) {
			if f.Result != checkup.ResultInterrupted && f.Result != checkup.ResultSkipped && name != "settings" {
				t.Errorf("%+v", f)
			}
		}
	})
}

// TestCheckTenant: a checkup asks for tenant-scoped events where they are wanted.
func TestCheckTenant(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness.H) {
		h.BucketFaults.Set(bucketIs(logsPath, uniform("")))
		h.Env["TENANT_EVENTS"], h.Env["EVENT_TYPES"] = "true", "login.failed"
		for _, tt := range []struct {
			fault.Fault
			want checkup.Result
			text string
		}{
			{fault.Fault{}, checkup.ResultOK, "brings tenant-scoped events"},
			{fault.Fault{Kind: fault.Refuse, Status: 400, Body: `{"error":{"message":"No tenant."}}`}, checkup.ResultWarning, "No tenant."},
			{fault.Fault{Kind: fault.Refuse, Status: 403, Body: `{"error":{"message":"No tenant."}}`}, checkup.ResultWarning, "No tenant."},
			{fault.Fault{Kind: fault.Refuse, Status: 401}, checkup.ResultFailure, "answered 401"},
		} {
			h.APIFaults.Set(func(_ int, r *http.Request) fault.Fault {
				if r.URL.Query().Has("tenant_only") {
					return tt.Fault
				}
				return fault.Fault{}
			})
			found := check(h)
			if f := found["tenant"]; f.Result != tt.want || !strings.Contains(f.Detail, tt.text) {
				t.Errorf("%+v, want %s with %q", f, tt.want, tt.text)
			}
			if f := found["settings"]; !strings.Contains(f.Detail, "EVENT_TYPES=login.failed") {
				t.Errorf("%+v", f)
			}
			for _, r := range h.APIFaults.Log() {
				if !strings.Contains(r.Query, "event_types%5B%5D=login.failed") {
					t.Errorf("asks for %s", r.Query)
				}
			}
		}
		h.APIFaults.Set(nil)
		h.Put(true, "login.failed", 5)
		h.MustRun()
		s, _, err := state.Decode(bytes.NewReader(h.ReadState()), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		s.Tenant.Watermark = s.Tenant.High - 50
		s.Tenant.Backlog = []state.Window{{Gte: s.Tenant.Watermark, Lte: s.Tenant.High}}
		var object bytes.Buffer
		if err := state.Encode(&object, s); err != nil {
			t.Fatal(err)
		}
		h.WriteState(object.Bytes())
		if f := check(h)["state"]; !strings.Contains(f.Detail, "up to "+time.Unix(s.Tenant.Watermark, 0).UTC().Format(time.RFC3339)) {
			t.Errorf("%+v", f)
		}
		h.Env["TENANT_EVENTS"] = "false"
		if f, ok := check(h)["tenant"]; ok {
			t.Errorf("%+v", f)
		}
	})
}

// TestCheckForbiddenAtAll: what the API refuses altogether is not put down to the
// tenant.
func TestCheckForbiddenAtAll(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness.H) {
		h.Env["TENANT_EVENTS"] = "true"
		h.API.SetForbidden(true)
		h.BucketFaults.Set(bucketIs(logsPath, uniform("")))
		if f := check(h)["tenant"]; f.Result != checkup.ResultSkipped {
			t.Errorf("%+v", f)
		}
	})
}

// TestLogFindings reads what the deployed function logs.
func TestLogFindings(t *testing.T) {
	var out bytes.Buffer
	checkup.Log(cloudlog.New(&out), slices.Values([]checkup.Finding{
		{Check: "api", Result: checkup.ResultOK, Detail: "answers"},
		{Check: "clock", Result: checkup.ResultWarning, Detail: "is ahead", Remedy: "set it"},
		{Check: "bucket", Result: checkup.ResultFailure, Detail: "is not there", Remedy: "create it"},
		{Check: "feed", Result: checkup.ResultSkipped, Detail: "may not be listed"},
		{Check: "state", Result: checkup.ResultOK, Detail: "good"},
		{Check: "staged", Result: checkup.ResultInterrupted, Detail: "not looked at"},
	}))
	want := `{"severity":"INFO","message":"Check api: answers","check":"api","result":"ok"}
{"severity":"WARNING","message":"Check clock: is ahead","check":"clock","result":"warning","remedy":"set it"}
{"severity":"ERROR","message":"Check bucket: is not there","check":"bucket","result":"failure","remedy":"create it"}
{"severity":"INFO","message":"Check feed: may not be listed","check":"feed","result":"skipped"}
{"severity":"INFO","message":"Check state: good","check":"state","result":"ok"}
{"severity":"INFO","message":"Check staged: not looked at","check":"staged","result":"interrupted"}
{"severity":"INFO","message":"Check ended: 2 ok, 1 warning, 1 failure, 1 skipped, 1 interrupted","ok":2,"warnings":1,"failures":1,"skipped":1,"interrupted":1}
`
	if diff := cmp.Diff(want, regexp.MustCompile(`"time":"[^"]*",`).ReplaceAllString(out.String(), "")); diff != "" {
		t.Error(diff)
	}
}
