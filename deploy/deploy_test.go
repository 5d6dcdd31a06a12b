// Package deploy_test runs deploy.sh against a stand-in for gcloud, and has the
// commands that it gave checked by the parser of the real one.
package deploy_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

//go:generate sh -c "UPDATE_FLAGS=1 go test -count=1 -run 'Deployed|Updated|Destroyed|DryRun|Commands' ."

const (
	key    = "sk-admin-0123456789-SECRET"
	bucket = "my-bucket"
)

// This binary is gcloud, too, and sleep, where it is called so.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "gcloud":
		os.Exit(standIn())
	case "sleep":
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var (
	usual     = []string{"--notify", "team@example.com", "--feed-reader", "feed@secops.iam.gserviceaccount.com"}
	retention = append([]string{"--retention-days", "30"}, usual...)
)

func TestDeployed(t *testing.T) {
	p := newProject(t)
	out := p.deploy(t, usual...)

	want := strings.Fields(`services/run.googleapis.com services/cloudfunctions.googleapis.com
		services/cloudbuild.googleapis.com services/artifactregistry.googleapis.com
		services/pubsub.googleapis.com services/cloudscheduler.googleapis.com
		services/secretmanager.googleapis.com services/storage.googleapis.com
		services/logging.googleapis.com services/monitoring.googleapis.com services/iam.googleapis.com
		services_identity/pubsub.googleapis.com
		storage_buckets/gs://my-bucket
		storage_managed-folders/gs://my-bucket/openai-auditlog/
		storage_managed-folders/gs://my-bucket/state/openai-auditlog/
		iam_service-accounts/openai-auditlog@my-project.iam.gserviceaccount.com
		iam_service-accounts/openai-auditlog-push@my-project.iam.gserviceaccount.com
		iam_service-accounts/openai-auditlog-build@my-project.iam.gserviceaccount.com
		secrets/openai-auditlog-admin-key secrets_versions/openai-auditlog-admin-key
		pubsub_topics/openai-auditlog pubsub_topics/openai-auditlog-dead-letter
		pubsub_subscriptions/openai-auditlog pubsub_subscriptions/openai-auditlog-dead-letter
		functions/openai-auditlog run_services/openai-auditlog scheduler_jobs/openai-auditlog
		logging_metrics/openai_auditlog_runs monitoring_channels/projects/my-project/notificationChannels/1
		monitoring_policies/projects/my-project/alertPolicies/1 monitoring_dashboards/projects/1/dashboards/1`)
	slices.Sort(want)
	if diff := cmp.Diff(want, p.names()); diff != "" {
		t.Errorf("made (-want +got):\n%s", diff)
	}

	// Each account has what it needs, and nothing else.
	collector := "serviceAccount:openai-auditlog@my-project.iam.gserviceaccount.com"
	push := "serviceAccount:openai-auditlog-push@my-project.iam.gserviceaccount.com"
	build := "serviceAccount:openai-auditlog-build@my-project.iam.gserviceaccount.com"
	agent := "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com"
	feed := "serviceAccount:feed@secops.iam.gserviceaccount.com"
	wantRoles := map[string][]string{
		"storage_managed-folders/gs://my-bucket/openai-auditlog/":                      {"roles/storage.objectCreator|" + collector},
		"storage_managed-folders/gs://my-bucket/state/openai-auditlog/":                {"roles/storage.objectUser|" + collector},
		"storage_buckets/gs://my-bucket":                                               {"roles/storage.objectViewer|" + feed, "roles/storage.legacyBucketReader|" + feed},
		"secrets/openai-auditlog-admin-key":                                            {"roles/secretmanager.secretAccessor|" + collector},
		"projects/my-project":                                                          {"roles/logging.logWriter|" + build, "roles/artifactregistry.writer|" + build, "roles/storage.objectViewer|" + build},
		"run_services/openai-auditlog":                                                 {"roles/run.invoker|" + push},
		"iam_service-accounts/openai-auditlog-push@my-project.iam.gserviceaccount.com": {"roles/iam.serviceAccountTokenCreator|" + agent},
		"pubsub_topics/openai-auditlog-dead-letter":                                    {"roles/pubsub.publisher|" + agent},
		"pubsub_subscriptions/openai-auditlog":                                         {"roles/pubsub.subscriber|" + agent},
	}
	if diff := cmp.Diff(wantRoles, p.cloud().Roles); diff != "" {
		t.Errorf("roles (-want +got):\n%s", diff)
	}

	p.inOrder(t, "services enable", "storage buckets create", "iam service-accounts create openai-auditlog",
		"projects add-iam-policy-binding", "storage managed-folders create", "secrets create", "secrets versions add",
		"pubsub topics create openai-auditlog", "functions deploy", "run services add-iam-policy-binding",
		"beta services identity create", "pubsub subscriptions create openai-auditlog ", "scheduler jobs create pubsub",
		"logging metrics create", "beta monitoring channels create", "alpha monitoring policies create", "monitoring dashboards create")

	deploy := p.given(t, "functions deploy openai-auditlog")
	for _, flag := range []string{"--gen2", "--runtime=go126", "--source=.", "--entry-point=main", "--trigger-http",
		"--no-allow-unauthenticated", "--ingress-settings=internal-only", "--cpu=1", "--concurrency=1", "--memory=256Mi",
		"--min-instances=0", "--max-instances=1", "--timeout=540s",
		"--run-service-account=openai-auditlog@my-project.iam.gserviceaccount.com",
		"--build-service-account=projects/my-project/serviceAccounts/openai-auditlog-build@my-project.iam.gserviceaccount.com",
		"--set-secrets=OPENAI_ADMIN_KEY=openai-auditlog-admin-key:latest",
		"--set-build-env-vars=GOFLAGS=-tags=disable_grpc_modules,GOOGLE_GOLDFLAGS=-s -w,CGO_ENABLED=0",
		"--set-env-vars=^|^GCS_BUCKET=my-bucket|GCS_PREFIX=openai-auditlog|STATE_KEY=state/openai-auditlog/state.json|OVERLAP_SECONDS=900|RUN_TIMEOUT_SECONDS=480|GOMEMLIMIT=192MiB",
	} {
		if !slices.Contains(deploy.Args, flag) {
			t.Errorf("functions deploy lacks %s:\n%q", flag, deploy.Args)
		}
	}
	wantPush := map[string]string{
		"topic":                                    "projects/my-project/topics/openai-auditlog",
		"pushConfig.pushEndpoint":                  "https://openai-auditlog-abc-uc.a.run.app/projects/my-project/topics/openai-auditlog",
		"pushConfig.oidcToken.audience":            "https://openai-auditlog-abc-uc.a.run.app",
		"pushConfig.oidcToken.serviceAccountEmail": "openai-auditlog-push@my-project.iam.gserviceaccount.com",
		"ackDeadlineSeconds":                       "600",
		"messageRetentionDuration":                 "3000s",
		"retryPolicy.minimumBackoff":               "60s",
		"retryPolicy.maximumBackoff":               "600s",
		"deadLetterPolicy.deadLetterTopic":         "projects/my-project/topics/openai-auditlog-dead-letter",
		"deadLetterPolicy.maxDeliveryAttempts":     "5",
	}
	if diff := cmp.Diff(wantPush, p.cloud().Things["pubsub_subscriptions/openai-auditlog"]); diff != "" {
		t.Errorf("push subscription (-want +got):\n%s", diff)
	}
	if got, want := p.cloud().Things["logging_metrics/openai_auditlog_runs"]["file"], `"filter": "service_name=\"openai-auditlog\" in my-project"`; !strings.Contains(got, want) {
		t.Errorf("the metric's file lacks %s:\n%s", want, got)
	}
	if got, want := p.cloud().Things["monitoring_policies/projects/my-project/alertPolicies/1"]["file"], "openai_auditlog_runs over 3 hours or 14400 s, see README.md"; !strings.Contains(got, want) {
		t.Errorf("the alert's file lacks %s:\n%s", want, got)
	}
	for _, line := range []string{"gcloud scheduler jobs run openai-auditlog --location=us-central1", "gs://my-bucket/openai-auditlog/\n", "OPENAI_AUDITLOG", "gcloud logging read"} {
		if !strings.Contains(out, line) {
			t.Errorf("the output lacks %q:\n%s", line, out)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(p.dir, "tmp", "*")); len(left) > 0 {
		t.Errorf("temporary files are left: %q", left)
	}
}

func TestDeployedTwice(t *testing.T) {
	p := deployed(t, retention)
	before := p.cloud()
	// No key is at hand, and none is asked for.
	out, code := p.run("", append(retention, "--bucket", bucket, "--yes")...)
	if code != 0 {
		t.Fatalf("exit status %d:\n%s", code, out)
	}
	var changed []string
	for _, c := range p.changes() {
		changed = append(changed, strings.Join(c.Args[:3], " "))
	}
	if diff := cmp.Diff([]string{"functions deploy openai-auditlog", "logging metrics update"}, changed); diff != "" {
		t.Errorf("second run (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, p.cloud()); diff != "" {
		t.Errorf("the second run changed (-first +second):\n%s", diff)
	}
}

func TestUpdated(t *testing.T) {
	p := deployed(t, usual)
	p.deploy(t, "--schedule", "*/30 * * * *", "--retry-window", "1200", "--alert-hours", "5", "--notify", "other@example.com",
		"--rotate-key", "--max-records", "20000", "--lookback-hours", "720", "--base-url", "https://eu.api.openai.com/v1,x",
		"--setting", "TENANT_EVENTS=true", "--setting=EVENT_TYPES=login.failed,login.succeeded")
	var got []string
	for _, c := range p.changes() {
		got = append(got, strings.Join(c.Args[:min(4, len(c.Args))], " "))
	}
	want := []string{
		"secrets versions add openai-auditlog-admin-key",
		"functions deploy openai-auditlog --gen2",
		"pubsub subscriptions update openai-auditlog",
		"scheduler jobs update pubsub",
		"logging metrics update openai_auditlog_runs",
		"beta monitoring channels create",
		"alpha monitoring policies update",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	env := "|RUN_TIMEOUT_SECONDS=480|MAX_RECORDS=20000|LOOKBACK_HOURS=720|OPENAI_BASE_URL=https://eu.api.openai.com/v1,x|TENANT_EVENTS=true|EVENT_TYPES=login.failed,login.succeeded"
	if d := p.given(t, "functions deploy"); !strings.Contains(strings.Join(d.Args, " "), env) {
		t.Errorf("functions deploy lacks %s:\n%q", env, d.Args)
	}

	// A channel that somebody has added by hand stays.
	p.change(func(c *cloud) {
		c.Things["monitoring_policies/projects/my-project/alertPolicies/1"]["notificationChannels"] += ",by-hand"
	})
	p.deploy(t, "--alert-hours", "6")
	if got, want := p.cloud().Things["monitoring_policies/projects/my-project/alertPolicies/1"]["notificationChannels"], "projects/my-project/notificationChannels/1,projects/my-project/notificationChannels/2,by-hand"; got != want {
		t.Errorf("the alert notifies %q, not %q", got, want)
	}
}

// TestDryRun runs what a dry run prints: it makes the same as a deployment.
func TestDryRun(t *testing.T) {
	want := deployed(t, retention).cloud()
	for _, account := range []string{"", "me@example.com"} { // without and with a login
		p := newProject(t)
		p.change(func(c *cloud) { c.Account = account })
		out, code := p.run("", append(retention, "--bucket", bucket, "--dry-run", "--project=my-project")...)
		if code != 0 || len(p.changes()) > 0 {
			t.Fatalf("exit status %d, changes %v:\n%s", code, p.changes(), out)
		}
		if strings.Contains(out, "as if it were missing") != (account == "") {
			t.Errorf("login %q, and it says:\n%s", account, out)
		}
		p.change(func(c *cloud) { c.Account = "me@example.com" })
		pasted := exec.Command("bash", "-euo", "pipefail", "-c", strings.Replace(out, "gcloud secrets versions add", "printf "+key+" | gcloud secrets versions add", 1))
		pasted.Env = p.environ()
		if out, err := pasted.CombinedOutput(); err != nil {
			t.Fatalf("pasting the dry run: %v\n%s", err, out)
		}
		if diff := cmp.Diff(want, p.cloud()); diff != "" {
			t.Errorf("login %q: deployed or pasted (-deployed +pasted):\n%s", account, diff)
		}
	}
}

func TestRefusedWithoutTerminal(t *testing.T) {
	for _, flags := range [][]string{{"--bucket", bucket}, {"--destroy"}} {
		p := newProject(t)
		if out, code := p.run(key, flags...); code != 2 || !strings.Contains(out, "--yes") || len(p.calls()) > 0 {
			t.Errorf("%q: exit status %d, calls %v:\n%s", flags, code, p.calls(), out)
		}
	}
}

func TestKeyStaysSecret(t *testing.T) {
	p := newProject(t)
	// The worst that a caller's shell can be set to: a trace, exported names.
	p.env = []string{"SHELLOPTS=xtrace:allexport", "OPENAI_ADMIN_KEY=" + key, "admin_key=" + key}
	out := p.deploy(t)
	if !strings.Contains(out, "+ main") {
		t.Fatalf("there is no trace:\n%s", out)
	}
	if strings.Contains(out, key) {
		t.Error("the key is in the output")
	}
	stored := 0
	for _, c := range p.calls() {
		if strings.Contains(strings.Join(c.Args, "\n"), key) || strings.Contains(strings.Join(c.Env, "\n"), key) {
			t.Errorf("the key is in the arguments or the environment of %q", c.Args)
		}
		if strings.HasPrefix(strings.Join(c.Args, " "), "secrets versions add ") {
			stored++
			if c.Stdin != key {
				t.Errorf("secrets versions add got %q", c.Stdin)
			}
		} else if c.Stdin != "" {
			t.Errorf("%q got %q", c.Args, c.Stdin)
		}
	}
	if stored != 1 {
		t.Errorf("the key was stored %d times", stored)
	}

	for _, bad := range []string{"\n", "sk-a b", "sk-a\nsk-b\n", "sk-\u00e9"} {
		p := deployed(t, usual)
		if out, code := p.run(bad, "--bucket", bucket, "--yes", "--rotate-key"); code != 1 || len(p.changes()) > 0 || !strings.Contains(out, "Admin key") {
			t.Errorf("key %q: exit status %d, changes %v:\n%s", bad, code, p.changes(), out)
		}
	}
	p = deployed(t, usual)
	p.run(key+"\r\n", "--bucket", bucket, "--yes", "--rotate-key")
	if c := p.given(t, "secrets versions add"); c.Stdin != key {
		t.Errorf("secrets versions add got %q", c.Stdin)
	}
}

func TestDestroyed(t *testing.T) {
	p := deployed(t, retention)
	out, code := p.run("", append(retention, "--bucket", bucket, "--destroy", "--yes")...)
	if code != 0 {
		t.Fatalf("exit status %d:\n%s", code, out)
	}
	var left []string
	for _, name := range p.names() {
		if !strings.HasPrefix(name, "services") {
			left = append(left, name)
		}
	}
	want := []string{"storage_buckets/gs://my-bucket", "storage_buckets/gs://my-bucket-state",
		"storage_managed-folders/gs://my-bucket-state/state/openai-auditlog/", "storage_managed-folders/gs://my-bucket/openai-auditlog/"}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	for thing, roles := range p.cloud().Roles {
		if len(roles) > 0 && thing != "storage_buckets/gs://my-bucket" { // the feed's
			t.Errorf("roles on %s are left: %q", thing, roles)
		}
	}
	if !strings.Contains(out, "Kept") {
		t.Errorf("it does not say what is kept:\n%s", out)
	}

	p.forgetCalls()
	if out, code := p.run("", append(retention, "--bucket", bucket, "--destroy", "--yes")...); code != 0 || len(p.changes()) > 0 {
		t.Errorf("destroyed again: exit status %d, changes %v:\n%s", code, p.changes(), out)
	}

	// A channel that others use is theirs, too.
	p = deployed(t, usual)
	p.change(func(c *cloud) {
		c.Things["monitoring_policies/other"] = map[string]string{"name": "other", "displayName": "theirs", "notificationChannels": "projects/my-project/notificationChannels/1"}
	})
	p.run("", "--destroy", "--yes")
	if !slices.Contains(p.names(), "monitoring_channels/projects/my-project/notificationChannels/1") || slices.Contains(p.names(), "monitoring_policies/projects/my-project/alertPolicies/1") {
		t.Errorf("left: %q", p.names())
	}
}

// TestFailedLook: what could not be looked at is not taken to be missing.
func TestFailedLook(t *testing.T) {
	const forbidden = "ERROR: PERMISSION_DENIED: Permission 'x.get' denied on resource (or it may not exist, not found)."
	p := deployed(t, usual)
	for _, look := range []string{"projects describe", "services list", "storage buckets describe", "iam service-accounts describe",
		"secrets versions describe", "functions describe", "pubsub subscriptions get-iam-policy", "alpha monitoring policies list"} {
		for _, answer := range []string{forbidden, "ERROR: gcloud crashed (ConnectionError): Max retries exceeded"} {
			if answer != forbidden && look != "functions describe" || testing.Short() && answer == forbidden && look != "secrets versions describe" {
				continue
			}
			p.forgetCalls()
			p.change(func(c *cloud) { c.Failures = []failure{{look, answer, 1000}} })
			out, code := p.run("", "--bucket", bucket, "--yes")
			if code != 1 || len(p.changes()) > 0 || !strings.Contains(out, answer) {
				t.Errorf("%s fails, and the exit status is %d, the changes %v:\n%s", look, code, p.changes(), out)
			}
		}
	}
}

func TestSlowToSettle(t *testing.T) {
	p := newProject(t)
	p.change(func(c *cloud) {
		c.Failures = []failure{
			{"add-iam-policy-binding", "ERROR: INVALID_ARGUMENT: Service account openai-auditlog does not exist.", 3},
			{"pubsub topics describe", "ERROR: PERMISSION_DENIED: Cloud Pub/Sub API has not been used in project 1 before or it is disabled.", 3},
			{"functions deploy", "ERROR: Permission denied on secret: projects/1/secrets/openai-auditlog-admin-key", 2},
		}
	})
	p.deploy(t)

	p = newProject(t)
	p.change(func(c *cloud) { c.Failures = []failure{{"service-accounts create", "ERROR: quota", 1}} })
	out, code := p.run(key, "--bucket", bucket, "--yes")
	if code != 1 || !strings.Contains(out, "ERROR: quota") || !strings.Contains(out, "run this again") {
		t.Errorf("exit status %d:\n%s", code, out)
	}
	p.deploy(t) // goes on where it ended
}

func TestRefusedAsItIs(t *testing.T) {
	for _, test := range []struct {
		name  string
		thing string
		is    map[string]string
		flags []string
		says  string
	}{
		{"python", "functions/openai-auditlog", map[string]string{"environment": "GEN_2", "eventTrigger.eventType": "google.cloud.pubsub.topic.v1.messagePublished"}, nil, "gcloud functions delete openai-auditlog"},
		{"python_destroyed", "functions/openai-auditlog", map[string]string{"environment": "GEN_2", "eventTrigger.eventType": "google.cloud.pubsub.topic.v1.messagePublished"}, []string{"--destroy"}, "not one of this script's"},
		{"first_generation", "functions/openai-auditlog", map[string]string{"environment": "GEN_1"}, nil, "gcloud functions delete openai-auditlog"},
		{"acls", "storage_buckets/gs://my-bucket", map[string]string{"uniform_bucket_level_access": "False"}, nil, "gcloud storage buckets update gs://my-bucket --uniform-bucket-level-access"},
		{"retention", "storage_buckets/gs://my-bucket", map[string]string{"uniform_bucket_level_access": "True", "retention_policy.retentionPeriod": "864000"}, nil, "give --retention-days 10"},
		{"retention_of_the_state", "storage_buckets/gs://my-bucket-state", map[string]string{"uniform_bucket_level_access": "True", "retention_policy.retentionPeriod": "864000"}, []string{"--retention-days=10"}, "another --state-bucket"},
		{"subscription", "pubsub_subscriptions/openai-auditlog", map[string]string{"topic": "_deleted-topic_"}, nil, "gcloud pubsub subscriptions delete openai-auditlog"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newProject(t)
			p.change(func(c *cloud) {
				c.Things[test.thing] = test.is
				for _, api := range []string{"storage", "cloudfunctions", "pubsub"} {
					c.Things["services/"+api+".googleapis.com"] = map[string]string{}
				}
			})
			out, code := p.run(key, append(test.flags, "--bucket", bucket, "--yes")...)
			if code != 1 || len(p.changes()) > 0 || !strings.Contains(out, test.says) {
				t.Errorf("exit status %d, changes %v:\n%s", code, p.changes(), out)
			}
		})
	}
}

func TestBadFlags(t *testing.T) {
	p := newProject(t)
	for _, flags := range [][]string{
		{}, {"--bucket"}, {"--bucket", "--yes"}, {"--frobnicate"}, {"--frobnicate=1"}, {"positional"}, {"--yes=no"},
		{"--bucket=gs://b"}, {"--bucket=My-Bucket"}, {"--name=short"}, {"--name=ends-with-"}, {"--name=" + strings.Repeat("n", 24)}, {"--name=Upper-Case"},
		{"--region=nowhere"}, {"--topic=projects/p/topics/t"}, {"--topic=openai-auditlog-dead-letter"}, {"--prefix=/p"}, {"--prefix=p/"}, {"--prefix=a//b"}, {"--prefix=a/../b"}, {"--prefix=state/p"},
		{"--retention-days=0"}, {"--retention-days=1.5"}, {"--retention-days=30", "--feed-deletes", "--feed-reader=a@b.c"}, {"--retention-days=30", "--versioning"},
		{"--state-bucket=" + bucket}, {"--feed-deletes"}, {"--feed-reader=nobody"}, {"--max-records=0"}, {"--max-records=08"}, {"--overlap-seconds=-1"},
		{"--base-url=ftp://x"}, {"--base-url=https://user@host"}, {"--base-url=https://a|b"}, {"--max-instances=0"}, {"--memory=256"}, {"--notify=a,b@c.d"},
		{"--retry-window=599"}, {"--retry-window=604801"}, {"--alert-hours=25"}, {"--schedule=@hourly; rm"}, {"--readme-url=https://x\"y"}, {"--destroy", "--rotate-key"},
		{"--project=Not A Project"}, {"--setting=TENANT_EVENTS"}, {"--setting=TENANT_EVENTS="}, {"--setting=STATE_KEY=x"}, {"--setting=EVENT_TYPES=a|b"},
	} {
		if len(flags) > 0 && !strings.HasPrefix(flags[0], "--bucket") {
			flags = append(flags, "--bucket", bucket)
		}
		if out, code := p.run("", append(flags, "--dry-run")...); code != 2 || !strings.HasPrefix(out, "deploy.sh: ") {
			t.Errorf("%q: exit status %d:\n%s", flags, code, out)
		}
	}
	if calls := p.calls(); len(calls) > 0 {
		t.Errorf("gcloud was called: %v", calls)
	}
	if out, code := p.run("", "--help"); code != 0 || !strings.HasPrefix(out, "Usage: ") {
		t.Errorf("--help: exit status %d:\n%s", code, out)
	}
}

func TestNeeds(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*cloud)
		says   string
	}{
		{"old", func(c *cloud) { c.Version = "499.0.0" }, "too old"},
		{"no_login", func(c *cloud) { c.Account = "" }, "gcloud auth login"},
		{"no_project", func(c *cloud) { c.Project = "(unset)" }, "--project"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newProject(t)
			p.change(test.change)
			if out, code := p.run(key, "--bucket", bucket, "--yes"); code != 1 || len(p.changes()) > 0 || !strings.Contains(out, test.says) {
				t.Errorf("exit status %d, changes %v:\n%s", code, p.changes(), out)
			}
		})
	}
}

// TestMonitoringFiles: the files as they are can be filled in and applied.
func TestMonitoringFiles(t *testing.T) {
	if _, err := os.Stat("monitoring"); errors.Is(err, os.ErrNotExist) {
		t.Skip("there is no folder monitoring")
	}
	p := newProject(t)
	dir := filepath.Join(p.dir, "src", "deploy", "monitoring")
	if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS("monitoring"))); err != nil {
		t.Fatal(err)
	}
	p.deploy(t)
	for _, kind := range []string{"metrics", "alerts"} {
		files, err := filepath.Glob("monitoring/" + kind + "/*.json")
		if err != nil || len(files) == 0 {
			t.Errorf("no %s: %v", kind, err)
		}
		made := 0
		for name := range p.cloud().Things {
			if strings.HasPrefix(name, map[string]string{"metrics": "logging_metrics/", "alerts": "monitoring_policies/"}[kind]) {
				made++
			}
		}
		if made != len(files) {
			t.Errorf("%d files of %s made %d", len(files), kind, made)
		}
	}
}

// TestCommands has every command that the tests before have seen checked: against
// a list of flags, and by the real CLI's parser where there is one.
func TestCommands(t *testing.T) {
	if len(seen) == 0 {
		newProject(t).deploy(t, usual...)
	}
	commands := filepath.Join(t.TempDir(), "commands")
	var lines bytes.Buffer
	for _, line := range slices.Sorted(maps.Keys(seen)) {
		lines.WriteString(line + "\n")
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(commands), "FILE"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(commands, lines.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	root, python := realCLI(t)
	if os.Getenv("UPDATE_FLAGS") != "" {
		list, err := askCLI(root, python, "flags", commands)
		if err == nil {
			err = os.WriteFile("gcloud/flags.txt", list, 0o666)
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, list)
		}
	}

	known, err := os.ReadFile("gcloud/flags.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range seen {
		var args []string
		if err := json.Unmarshal([]byte(line), &args); err != nil {
			t.Fatal(err)
		}
		if err := inList(string(known), args); err != nil {
			t.Errorf("gcloud %s: %v", strings.Join(args, " "), err)
		}
	}
	if root == "" {
		t.Logf("%d commands compared with gcloud/flags.txt; there is no gcloud CLI here to parse them", len(seen))
		return
	}
	if out, err := askCLI(root, python, "parse", commands); err != nil {
		t.Errorf("the gcloud CLI refuses (%v):\n%s", err, out)
	}
	t.Logf("%d commands compared with gcloud/flags.txt, and parsed by the gcloud CLI in %s", len(seen), root)
}

// inList reports what the list of flags does not know of a command.
func inList(list string, args []string) error {
	words := args[:max(0, slices.IndexFunc(append(slices.Clone(args), "--"), func(a string) bool { return strings.HasPrefix(a, "-") }))]
	for n := len(words); n > 0; n-- {
		for line := range strings.Lines(list) {
			flags, ok := strings.CutPrefix(line, strings.Join(words[:n], " ")+" --")
			if !ok {
				continue
			}
			known := strings.Fields("--" + flags)
			for _, a := range args[n:] {
				if flag, _, _ := strings.Cut(a, "="); strings.HasPrefix(a, "--") && !slices.Contains(known, flag) {
					return fmt.Errorf("gcloud %s has no flag %s", strings.Join(words[:n], " "), flag)
				}
			}
			return nil
		}
	}
	return errors.New("not in gcloud/flags.txt: go generate ./deploy, where the gcloud CLI is installed")
}

// realCLI returns the gcloud CLI's folder and a Python that runs it, if there is one.
func realCLI(t *testing.T) (root, python string) {
	path, err := exec.LookPath("gcloud")
	if err != nil {
		return "", ""
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		t.Fatal(err)
	}
	root = filepath.Dir(filepath.Dir(path))
	if _, err := os.Stat(filepath.Join(root, "lib", "googlecloudsdk")); err != nil {
		return "", ""
	}
	for _, python := range []string{filepath.Join(root, "platform", "bundledpythonunix", "bin", "python3"), "python3"} {
		if python, err := exec.LookPath(python); err == nil {
			return root, python
		}
	}
	return "", ""
}

func askCLI(root, python, mode, commands string) ([]byte, error) {
	script, err := filepath.Abs("gcloud/cli.py")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(python, "-S", "-B", script, mode, commands)
	cmd.Dir = filepath.Dir(commands)
	cmd.Env = append(os.Environ(), "CLOUDSDK_ROOT="+root, "CLOUDSDK_CONFIG="+cmd.Dir, "CLOUDSDK_CORE_DISABLE_PROMPTS=1")
	return cmd.CombinedOutput()
}

// A project is a copy of what deploy.sh needs, and a cloud to run it in.
type project struct {
	dir string
	env []string
}

func newProject(t *testing.T) *project {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	if out, _ := exec.Command(bash, "-c", "echo $BASH_VERSINFO").Output(); len(out) > 0 && out[0] < '5' {
		t.Skip("bash is older than 5")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &project{dir: t.TempDir()}
	for name, from := range map[string]string{
		"src/function.go": "", "src/go.mod": "", "src/go.sum": "", "src/.gcloudignore": "",
		"src/deploy/deploy.sh": "deploy.sh", "src/deploy/gcloud/state-lifecycle.json": "gcloud/state-lifecycle.json",
		"tmp/.": "",
	} {
		path := filepath.Join(p.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/.") {
			err = os.MkdirAll(path, 0o700)
		} else if from == "" {
			err = os.WriteFile(path, nil, 0o600)
		} else {
			var text []byte
			if text, err = os.ReadFile(from); err == nil {
				err = os.WriteFile(path, text, 0o700)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"metrics/runs.json": `{
  "name": "${metric}_runs",
  "filter": "service_name=\"${name}\" in ${project}",
  "metricDescriptor": {
    "name": "nested"
  }
}`,
		"alerts/late.json": `{
  "displayName": "${name}: late & not here",
  "conditions": [
    {
      "displayName": "${metric}_runs over ${hours} hours or ${lag_seconds} s, see ${readme_url}"
    }
  ]
}`,
		"dashboard.json": `{
  "displayName": "${name}",
  "mosaicLayout": {}
}`,
	} {
		path := filepath.Join(p.dir, "src/deploy/monitoring", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(p.dir, "bin")
	if err := errors.Join(os.Mkdir(bin, 0o700), os.Symlink(self, filepath.Join(bin, "gcloud")), os.Symlink(self, filepath.Join(bin, "sleep"))); err != nil {
		t.Fatal(err)
	}
	p.save(cloud{Version: "528.0.0", Account: "me@example.com", Project: "my-project", Things: map[string]map[string]string{}, Roles: map[string][]string{}})
	t.Cleanup(p.forgetCalls)
	return p
}

func (p *project) environ() []string {
	return append([]string{"PATH=" + filepath.Join(p.dir, "bin") + ":" + os.Getenv("PATH"), "HOME=" + p.dir, "TMPDIR=" + filepath.Join(p.dir, "tmp"), "STAND_IN=" + p.dir, "GOMAXPROCS=1", "GOGC=off"}, p.env...)
}

// run returns all output, of both kinds, and the exit status.
func (p *project) run(stdin string, flags ...string) (string, int) {
	cmd := exec.Command(filepath.Join(p.dir, "src/deploy/deploy.sh"), flags...)
	cmd.Dir, cmd.Env, cmd.Stdin = os.TempDir(), p.environ(), strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return err.Error(), -1
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (p *project) deploy(t *testing.T, flags ...string) string {
	t.Helper()
	out, code := p.run(key, append(flags, "--bucket", bucket, "--yes")...)
	if code != 0 {
		t.Fatalf("exit status %d:\n%s", code, out)
	}
	return out
}

// deployed returns a project in which deploy.sh has been run, with no calls yet.
func deployed(t *testing.T, flags []string) *project {
	t.Helper()
	p := newProject(t)
	once := strings.Join(flags, " ")
	if _, ok := clouds[once]; !ok {
		p.deploy(t, flags...)
		clouds[once] = p.cloud()
		p.forgetCalls()
	}
	p.save(clouds[once])
	return p
}

var clouds = map[string]cloud{} // as deployed leaves them

func (p *project) calls() []call {
	var calls []call
	text, _ := os.ReadFile(filepath.Join(p.dir, "calls"))
	for d := json.NewDecoder(bytes.NewReader(text)); d.More(); {
		var c call
		if err := d.Decode(&c); err != nil {
			panic(err)
		}
		calls = append(calls, c)
	}
	return calls
}

// forgetCalls forgets the calls so far, but for TestCommands.
func (p *project) forgetCalls() {
	for _, c := range p.calls() {
		if slices.Contains(c.Args, "--help") {
			continue
		}
		line, err := json.Marshal(given(c.Args))
		if err != nil {
			panic(err)
		}
		seen[string(line)] = true
	}
	_ = os.Remove(filepath.Join(p.dir, "calls"))
}

// seen has the commands of all tests, as JSON.
var seen = map[string]bool{}

// given returns args with one name for all files, which are gone soon.
func given(args []string) []string {
	args = slices.Clone(args)
	for i, a := range args {
		if flag, _, ok := strings.Cut(a, "-file="); ok {
			args[i] = flag + "-file=FILE"
		}
	}
	return args
}

var looks = regexp.MustCompile(`^(version|config get-value|auth list)|( describe| list| get-iam-policy| --help)( |$)`)

func (p *project) changes() []call {
	return slices.DeleteFunc(p.calls(), func(c call) bool { return looks.MatchString(strings.Join(c.Args, " ")) })
}

func (p *project) given(t *testing.T, start string) call {
	t.Helper()
	for _, c := range p.calls() {
		if strings.HasPrefix(strings.Join(c.Args, " "), start) {
			return c
		}
	}
	t.Fatalf("gcloud %s was not called", start)
	return call{}
}

func (p *project) inOrder(t *testing.T, starts ...string) {
	t.Helper()
	calls := p.changes()
	for _, start := range starts {
		i := slices.IndexFunc(calls, func(c call) bool { return strings.HasPrefix(strings.Join(c.Args, " "), start) })
		if i < 0 {
			t.Errorf("gcloud %s was not called, or too early", start)
			continue
		}
		calls = calls[i:]
	}
}

func (p *project) names() []string { return slices.Sorted(maps.Keys(p.cloud().Things)) }

func (p *project) cloud() cloud {
	var c cloud
	text, err := os.ReadFile(filepath.Join(p.dir, "cloud"))
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		panic(err)
	}
	return c
}

func (p *project) save(c cloud) {
	text, err := json.Marshal(c)
	if err == nil {
		err = os.WriteFile(filepath.Join(p.dir, "cloud"), text, 0o600)
	}
	if err != nil {
		panic(err)
	}
}

func (p *project) change(change func(*cloud)) {
	c := p.cloud()
	change(&c)
	p.save(c)
}

// A call of the stand-in, as it was recorded.
type call struct {
	Args  []string
	Stdin string
	Env   []string
}

// A failure makes the stand-in's next calls with these words fail.
type failure struct {
	Words, Answer string
	Times         int
}

// A cloud is what the stand-in knows: things by kind and name, with the fields
// that describe shows, and roles by thing.
type cloud struct {
	Version, Account, Project string
	Things                    map[string]map[string]string
	Roles                     map[string][]string
	Failures                  []failure `json:",omitempty"`
}

// standIn is gcloud, as far as deploy.sh uses it. It refuses what the real one
// would: a thing whose API is not enabled, that is there already, or that needs
// another one first.
func standIn() int {
	p := &project{dir: os.Getenv("STAND_IN")}
	c := p.cloud()
	answer, err := c.answer(p, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		p.save(c) // failures are counted
		return 1
	}
	p.save(c)
	fmt.Print(answer)
	return 0
}

var verbs = []string{"describe", "list", "get-iam-policy", "add-iam-policy-binding", "remove-iam-policy-binding", "create", "update", "delete", "enable", "deploy", "add", "get-value"}

func (c *cloud) answer(p *project, args []string) (string, error) {
	record := call{Args: slices.Clone(args), Env: os.Environ()}
	flags := map[string]string{}
	var words []string
	for _, a := range args {
		if !strings.HasPrefix(a, "--") {
			words = append(words, a)
			continue
		}
		name, value, _ := strings.Cut(a, "=")
		flags[name] = value
		if strings.HasSuffix(name, "-from-file") || name == "--lifecycle-file" {
			text, err := os.ReadFile(value)
			if err != nil {
				return "", err
			}
			flags["file"] = string(text)
		}
	}
	if stdin, err := io.ReadAll(os.Stdin); err == nil {
		record.Stdin = string(stdin)
	}
	line, err := json.Marshal(record)
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile(filepath.Join(p.dir, "calls"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.Write(append(line, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	for i, f := range c.Failures {
		if f.Times > 0 && strings.Contains(strings.Join(args, " "), f.Words) {
			c.Failures[i].Times--
			return "", errors.New(f.Answer)
		}
	}
	return c.do(words, flags, record.Stdin)
}

// do answers a command. A thing's kind is its command group, and its name the
// command's last word.
func (c *cloud) do(words []string, flags map[string]string, stdin string) (string, error) {
	track := words[0] == "alpha" || words[0] == "beta"
	if track {
		words = words[1:]
	}
	if _, ok := flags["--help"]; ok && !track {
		return "", errors.New("ERROR: (gcloud.monitoring) Invalid choice") // as in older CLIs
	}
	switch strings.Join(words, " ") {
	case "version":
		return c.Version + "\n", nil
	case "config get-value project":
		return c.Project + "\n", nil
	case "config get-value auth/access_token_file":
		return "(unset)\n", nil
	case "auth list":
		return c.Account + "\n", nil
	}
	at := slices.IndexFunc(words, func(w string) bool { return slices.Contains(verbs, w) })
	kind, verb, names := strings.Join(words[:at], "_"), words[at], words[at+1:]
	if kind == "scheduler_jobs" && len(names) > 0 && names[0] == "pubsub" {
		names = names[1:]
	}
	name := strings.Join(names, " ")
	if c.Account == "" {
		return "", errors.New("ERROR: You do not currently have an active account selected.")
	}
	switch {
	case kind == "projects" && verb == "describe":
		return "123456789012\n", nil
	case kind == "services" && verb == "list":
		var list string
		for thing := range c.Things {
			if api, ok := strings.CutPrefix(thing, "services/"); ok {
				list += api + "\n"
			}
		}
		return list, nil
	case kind == "services":
		for _, api := range names {
			if err := c.create("services/"+api, nil); err != nil {
				return "", err
			}
		}
		return "", nil
	}
	api := map[string]string{"storage": "storage", "iam": "iam", "secrets": "secretmanager", "pubsub": "pubsub", "functions": "cloudfunctions",
		"run": "run", "scheduler": "cloudscheduler", "logging": "logging", "monitoring": "monitoring", "services": "pubsub", "projects": "iam"}[words[0]]
	if c.Things["services/"+api+".googleapis.com"] == nil {
		return "", fmt.Errorf("ERROR: PERMISSION_DENIED: %s has not been used in project 1 before or it is disabled. reason: SERVICE_DISABLED", api)
	}

	thing := kind + "/" + name
	switch {
	case strings.HasSuffix(verb, "-iam-policy") || strings.HasSuffix(verb, "-iam-policy-binding"):
		return c.policy(verb, thing, flags)
	case verb == "list":
		var list string
		for _, thing := range slices.Sorted(maps.Keys(c.Things)) {
			if strings.HasPrefix(thing, kind+"/") {
				list += show(c.Things[thing], flags["--format"])
			}
		}
		return list, nil
	case kind == "secrets_versions":
		if verb == "describe" {
			thing = kind + "/" + flags["--secret"]
			break
		}
		if stdin == "" || flags["--data-file"] != "-" {
			return "", errors.New("ERROR: nothing on standard input")
		}
		if err := c.needs("secrets/" + name); err != nil {
			return "", err
		}
		c.Things[thing] = map[string]string{"state": "ENABLED"}
		return "", nil
	case verb == "create" || verb == "update" || verb == "deploy":
		return c.apply(kind, verb, name, flags)
	}

	if err := c.needs(thing); err != nil {
		return "", err
	}
	if verb == "describe" {
		return show(c.Things[thing], flags["--format"]), nil
	}
	delete(c.Things, thing)
	delete(c.Roles, thing)
	switch kind {
	case "functions":
		delete(c.Things, "run_services/"+name)
		delete(c.Roles, "run_services/"+name)
	case "secrets":
		delete(c.Things, "secrets_versions/"+name)
	}
	return "", nil
}

func (c *cloud) create(thing string, is map[string]string) error {
	if c.Things[thing] != nil {
		return fmt.Errorf("ERROR: ALREADY_EXISTS: %s", thing)
	}
	if is == nil {
		is = map[string]string{}
	}
	c.Things[thing] = is
	return nil
}

// needs answers as the real services do, each in its way.
func (c *cloud) needs(things ...string) error {
	for _, thing := range things {
		switch {
		case c.Things[thing] != nil:
		case strings.HasPrefix(thing, "storage"):
			return fmt.Errorf("ERROR: (gcloud.storage) %s not found: 404.", thing)
		case strings.HasPrefix(thing, "functions"):
			return fmt.Errorf("ERROR: (gcloud.functions) ResponseError: status=[404], code=[Ok], message=[Resource '%s' was not found]", thing)
		default:
			return fmt.Errorf("ERROR: NOT_FOUND: %s", thing)
		}
	}
	return nil
}

func (c *cloud) policy(verb, thing string, flags map[string]string) (string, error) {
	if !strings.HasPrefix(thing, "projects/") {
		if err := c.needs(thing); err != nil {
			return "", err
		}
	}
	if verb == "get-iam-policy" {
		var list string
		for _, role := range c.Roles[thing] {
			list += role + "|\n"
		}
		return list, nil
	}
	member := flags["--member"]
	account := strings.TrimPrefix(member, "serviceAccount:")
	switch {
	case strings.Contains(account, "gcp-sa-pubsub"):
		if err := c.needs("services_identity/pubsub.googleapis.com"); err != nil {
			return "", err
		}
	case strings.HasSuffix(account, "@my-project.iam.gserviceaccount.com"):
		if err := c.needs("iam_service-accounts/" + account); err != nil {
			return "", err
		}
	}
	binding := flags["--role"] + "|" + member
	i := slices.Index(c.Roles[thing], binding)
	switch {
	case verb == "add-iam-policy-binding" && i < 0:
		c.Roles[thing] = append(c.Roles[thing], binding)
	case verb == "remove-iam-policy-binding" && i < 0:
		return "", errors.New("ERROR: Policy binding with the specified principal and role not found!")
	case verb == "remove-iam-policy-binding":
		c.Roles[thing] = slices.Delete(c.Roles[thing], i, i+1)
	}
	return "", nil
}

// apply creates or updates a thing: fields of describe from flags.
func (c *cloud) apply(kind, verb, name string, flags map[string]string) (string, error) {
	is := map[string]string{}
	file := func(field string) string {
		var top map[string]any
		_ = json.Unmarshal([]byte(flags["file"]), &top)
		s, _ := top[field].(string)
		return s
	}
	topic := func(name string) string {
		if name == "" || strings.Contains(name, "/") {
			return name
		}
		return "projects/my-project/topics/" + name
	}
	set := func(fields ...string) {
		for i := 0; i < len(fields); i += 2 {
			if fields[i+1] != "" {
				is[fields[i]] = fields[i+1]
			}
		}
	}
	label := func(name string) string {
		_, value, _ := strings.Cut(name, "=")
		return value
	}
	if verb == "update" {
		if err := c.needs(kind + "/" + name); err != nil {
			return "", err
		}
		is = c.Things[kind+"/"+name]
	}
	var needs []string
	switch kind {
	case "services_identity":
		name = flags["--service"]
		if c.Things[kind+"/"+name] != nil {
			return "", nil // it is made once
		}
	case "storage_buckets":
		if verb == "create" {
			set("uniform_bucket_level_access", "True", "public_access_prevention", "enforced", "location", flags["--location"])
			if days, err := strconv.Atoi(strings.TrimSuffix(flags["--retention-period"], "d")); err == nil {
				set("retention_policy.retentionPeriod", strconv.Itoa(days*86400))
			}
		}
		if _, ok := flags["--versioning"]; ok {
			set("versioning_enabled", "True", "lifecycle", flags["file"])
		}
	case "storage_managed-folders":
		needs = append(needs, "storage_buckets/"+strings.Join(strings.SplitN(name, "/", 4)[:3], "/"))
	case "iam_service-accounts":
		name += "@my-project.iam.gserviceaccount.com"
	case "pubsub_subscriptions":
		if flags["--dead-letter-topic"] != "" {
			needs = append(needs, "pubsub_topics/"+flags["--dead-letter-topic"])
		}
		if account := flags["--push-auth-service-account"]; account != "" {
			needs = append(needs, "iam_service-accounts/"+account)
		}
		if verb == "create" {
			needs = append(needs, "pubsub_topics/"+flags["--topic"])
		}
		set("topic", topic(flags["--topic"]), "pushConfig.pushEndpoint", flags["--push-endpoint"],
			"pushConfig.oidcToken.serviceAccountEmail", flags["--push-auth-service-account"], "pushConfig.oidcToken.audience", flags["--push-auth-token-audience"],
			"ackDeadlineSeconds", flags["--ack-deadline"], "messageRetentionDuration", flags["--message-retention-duration"],
			"retryPolicy.minimumBackoff", flags["--min-retry-delay"], "retryPolicy.maximumBackoff", flags["--max-retry-delay"],
			"deadLetterPolicy.deadLetterTopic", topic(flags["--dead-letter-topic"]), "deadLetterPolicy.maxDeliveryAttempts", flags["--max-delivery-attempts"])
		if flags["--expiration-period"] != "never" {
			set("expirationPolicy.ttl", "2678400s")
		}
	case "functions":
		run, build := flags["--run-service-account"], filepath.Base(flags["--build-service-account"])
		needs = append(needs, "iam_service-accounts/"+run, "iam_service-accounts/"+build, "secrets_versions/"+name+"-admin-key")
		if !slices.Contains(c.Roles["secrets/"+name+"-admin-key"], "roles/secretmanager.secretAccessor|serviceAccount:"+run) {
			return "", errors.New("ERROR: the function may not read its secret")
		}
		set("environment", "GEN_2", "serviceConfig.uri", "https://"+name+"-abc-uc.a.run.app")
		delete(c.Things, kind+"/"+name)
		c.Things["run_services/"+name] = map[string]string{}
	case "scheduler_jobs":
		needs = append(needs, "pubsub_topics/"+filepath.Base(flags["--topic"]))
		set("schedule", flags["--schedule"], "timeZone", flags["--time-zone"], "pubsubTarget.topicName", flags["--topic"],
			"pubsubTarget.data", base64.StdEncoding.EncodeToString([]byte(flags["--message-body"])))
	case "logging_metrics":
		set("name", name, "file", flags["file"])
	case "monitoring_channels":
		name = "projects/my-project/notificationChannels/" + strconv.Itoa(1+c.count(kind))
		set("name", name, "type", flags["--type"], "labels.email_address", label(flags["--channel-labels"]), "userLabels.auditlog", label(flags["--user-labels"]))
	case "monitoring_policies":
		if verb == "create" {
			name = "projects/my-project/alertPolicies/" + strconv.Itoa(1+c.count(kind))
		} else {
			delete(is, "notificationChannels") // the file replaces all
		}
		set("name", name, "displayName", file("displayName"), "file", flags["file"],
			"userLabels.auditlog_file", label(flags["--user-labels"]+flags["--update-user-labels"]),
			"notificationChannels", flags["--notification-channels"]+flags["--set-notification-channels"])
	case "monitoring_dashboards":
		name = "projects/1/dashboards/" + strconv.Itoa(1+c.count(kind))
		set("name", name, "displayName", file("displayName"))
	}
	if err := c.needs(needs...); err != nil {
		return "", err
	}
	if verb != "update" {
		if err := c.create(kind+"/"+name, is); err != nil {
			return "", err
		}
	}
	return show(is, flags["--format"]), nil
}

func (c *cloud) count(kind string) int {
	n := 0
	for thing := range c.Things {
		if strings.HasPrefix(thing, kind+"/") {
			n++
		}
	}
	return n
}

var format = regexp.MustCompile(`^value(?:\[separator="\|"\])?\((.*)\)$`)

// show does what the CLI's --format=value(...) does.
func show(is map[string]string, spec string) string {
	m := format.FindStringSubmatch(spec)
	if m == nil {
		return ""
	}
	var values []string
	for field := range strings.SplitSeq(m[1], ",") {
		values = append(values, is[strings.TrimSuffix(field, ".list()")])
	}
	return strings.Join(values, "|") + "\n"
}
