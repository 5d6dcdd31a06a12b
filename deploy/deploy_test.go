// Package deploy_test runs deploy.sh against a stand-in for gcloud, and has the commands that it gave
// checked by the parser of the real one.
package deploy_test

import (
	"bytes"
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
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const key = "sk-admin-0123456789-SECRET"

// collector is the command auditlog, built once.
var collector string

// This binary is gcloud, too, where it is called so.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "gcloud" {
		os.Exit(standIn())
	}
	dir := must(os.MkdirTemp("", "deploy"))
	collector = filepath.Join(dir, "auditlog")
	if out, err := exec.Command("go", "build", "-o", collector, "../cmd/auditlog").CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// usual returns a file of settings, with changes: lines that replace those of the same names.
func usual(changes ...string) string {
	lines := []string{"# one deployment", "DEPLOY_PROJECT=my-project", "DEPLOY_BUCKET=my-bucket", "STATE_KEY='state/openai-auditlog/state.json'",
		"OVERLAP_SECONDS=900", "DEPLOY_NOTIFY=team@example.com", "DEPLOY_FEED_READER=feed@secops.iam.gserviceaccount.com"}
	for _, change := range changes {
		name, _, _ := strings.Cut(change, "=")
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+"=") })
	}
	return strings.Join(append(lines, changes...), "\n")
}

var varying = regexp.MustCompile(`/[^ =]*/tmp/auditlog-deploy\.[^/]*/|timestamp\\>=.*`)

// TestDeployed: testdata/deployed.txt has each command that a first deployment gives, but for metrics and
// alerts, which the files of monitoring make. UPDATE=1 writes it.
func TestDeployed(t *testing.T) {
	p := newProject(t)
	out := p.deploy(t, usual())
	var commands strings.Builder
	for line := range strings.Lines(out) {
		if command, ok := strings.CutPrefix(line, "+ "); ok && !strings.Contains(line, "metrics create") && !strings.Contains(line, "policies create") {
			commands.WriteString(varying.ReplaceAllString(command, "…"))
		}
	}
	if os.Getenv("UPDATE") != "" {
		must(0, os.WriteFile("testdata/deployed.txt", []byte(commands.String()), 0o666))
	}
	if diff := cmp.Diff(string(must(os.ReadFile("testdata/deployed.txt"))), commands.String()); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	alerts := ""
	for _, name := range p.names("monitoring_policies/") {
		alerts += p.cloud().Things[name]["file"]
	}
	for _, want := range []string{"openai-auditlog: no successful run in 3 hours", "lag_seconds>14400", "user_openai_auditlog_runs{", `"disableMetricValidation": true, "evaluationInterval"`} {
		if !strings.Contains(alerts, want) {
			t.Errorf("no alert has %s:\n%s", want, alerts)
		}
	}
	if !strings.Contains(out, "INFO Check ended: 18 ok") || strings.Contains(out, "NOBODY IS TOLD") || strings.Contains(out, "cannot read the bucket") {
		t.Errorf("the output is:\n%s", out)
	}
	if left := must(filepath.Glob(p.dir + "/tmp/*")); len(left) > 0 {
		t.Errorf("temporary files are left: %q", left)
	}
}

// TestDeployedTwice: the second time no key is at hand, and none is asked for. A new revision is all that comes of it.
func TestDeployedTwice(t *testing.T) {
	p := deployed(t)
	before := p.cloud()
	p.run(t, 0, "", usual())
	if diff := cmp.Diff(before, p.cloud()); diff != "" {
		t.Errorf("the second deployment changed (-first +second):\n%s", diff)
	}
	if lines := p.changes(" delete | versions add |^[^b].* create |channels create"); len(lines) > 0 {
		t.Errorf("the second deployment gave %q", lines)
	}
}

// TestUpdated: what has changed is updated or made anew, and what it replaces is gone.
func TestUpdated(t *testing.T) {
	p := deployed(t)
	p.run(t, 0, "", usual("DEPLOY_SCHEDULE=0 */6 * * *", "DEPLOY_NOTIFY=other@example.com,projects/my-project/notificationChannels/9",
		"TENANT_EVENTS=true", "EVENT_TYPES=login.failed, login.succeeded", "DEPLOY_TOPIC=mine", "DEPLOY_MEMORY_MIB=512"))
	c := p.cloud()
	for _, want := range []struct{ thing, flag, has string }{
		{"functions/openai-auditlog", "--set-env-vars", "|EVENT_TYPES=login.failed, login.succeeded|"},
		{"functions/openai-auditlog", "--set-env-vars", "|GOMEMLIMIT=384MiB|"},
		{"functions/openai-auditlog", "--set-env-vars", "|INTERVAL_MINUTES=360|"},
		{"scheduler_jobs/openai-auditlog", "--topic", "projects/my-project/topics/mine"},
		{"pubsub_subscriptions/openai-auditlog", "--topic", "mine"},
		{"pubsub_subscriptions/openai-auditlog", "--message-retention-duration", "21000s"},
	} {
		if got := c.Things[want.thing][want.flag]; !strings.Contains(got, want.has) {
			t.Errorf("%s %s lacks %s: %s", want.thing, want.flag, want.has, got)
		}
	}
	channels, policies := p.names("monitoring_channels/"), p.names("monitoring_policies/")
	if len(channels) != 1 || len(policies) != len(must(filepath.Glob("monitoring/alerts/*.json"))) {
		t.Fatalf("there are %q and %q", channels, policies)
	}
	for _, name := range policies {
		if got := c.Things[name]["--notification-channels"]; got != c.Things[channels[0]]["name"]+",projects/my-project/notificationChannels/9" {
			t.Errorf("%s notifies %q", name, got)
		}
	}
	out := p.run(t, 0, "", usual("DEPLOY_NOTIFY=", "DEPLOY_FEED_READER="))
	if !strings.Contains(out, "NOBODY IS TOLD") || !strings.Contains(out, "The feed cannot read the bucket yet") || len(p.names("monitoring_channels/")) > 0 {
		t.Errorf("without recipients and feed: %q\n%s", p.names("monitoring_channels/"), out)
	}
}

func TestKeyRotated(t *testing.T) {
	p := deployed(t)
	before := p.cloud()
	p.run(t, 0, "sk-admin-new", usual(), "--rotate-key")
	if lines := p.changes(""); len(lines) != 2 || lines[0] != "secrets versions add openai-auditlog-admin-key --data-file=-" || p.calls()[0].Stdin != "sk-admin-new" {
		t.Errorf("%q, and not the version and the check alone", lines)
	}
	if diff := cmp.Diff(before, p.cloud()); diff != "" {
		t.Errorf("more than the key has changed (-before +after):\n%s", diff)
	}
}

// TestDryRun changes nothing, needs no key, and goes through where nothing can be seen.
func TestDryRun(t *testing.T) {
	for _, blind := range []bool{false, true} {
		p := newProject(t)
		if blind {
			p.change(func(c *cloud) { c.Failures = []failure{{"", "ERROR: nobody is logged in", 1000}} })
		}
		out := p.run(t, 0, "", usual(), "--dry-run")
		if got := p.changes(""); len(got) > 0 || strings.Count(out, "\n+ gcloud ") < 40 || strings.Contains(out, key) {
			t.Errorf("a dry run gave %q, and says\n%s", got, out)
		}
	}
}

// TestMoves: where a deployed function keeps its objects does not change without a yes.
func TestMoves(t *testing.T) {
	for change, want := range map[string]string{
		"DEPLOY_BUCKET=other":            "GCS_BUCKET: my-bucket -> other",
		"GCS_PREFIX=logs":                "GCS_PREFIX: openai-auditlog -> logs",
		"STATE_BUCKET=states":            "STATE_BUCKET: not set -> states",
		"STATE_KEY=state/new/state.json": "STATE_KEY: state/openai-auditlog/state.json -> state/new/state.json",
	} {
		p := deployed(t)
		p.refuses(t, want, "", usual(change))
	}
	for look, answer := range map[string]string{"services list": "ERROR: nobody is logged in", "functions list": "ERROR: PERMISSION_DENIED"} {
		p := deployed(t)
		p.change(func(c *cloud) { c.Failures = []failure{{look, answer, 1000}} })
		p.refuses(t, answer, "", usual(), "--yes")
	}
	p := deployed(t)
	p.change(func(c *cloud) {
		c.Things["functions/openai-auditlog"]["eventTrigger.eventType"] = "google.cloud.pubsub.topic.v1.messagePublished"
	})
	p.refuses(t, "triggered by events", "", usual(), "--yes")
}

func TestKeyStaysSecret(t *testing.T) {
	p := newProject(t)
	// The worst that a caller's shell can be set to: a trace, exported names.
	p.env = []string{"SHELLOPTS=xtrace:allexport", "OPENAI_ADMIN_KEY=" + key, "admin_key=" + key}
	if out := p.deploy(t, usual()); !strings.Contains(out, "+ main") || strings.Contains(out, key) {
		t.Error("there is no trace, or the key is in the output")
	}
	for _, c := range p.calls() {
		if strings.Contains(strings.Join(c.Args, "\n")+strings.Join(c.Env, "\n"), key) {
			t.Errorf("the key is in the arguments or the environment of %q", c.Args)
		}
		if want := map[bool]string{true: key}[strings.HasPrefix(strings.Join(c.Args, " "), "secrets versions add ")]; c.Stdin != want {
			t.Errorf("%q got %q", c.Args, c.Stdin)
		}
	}
	for _, bad := range []string{"", "\n", "sk-a b", "sk-a\nsk-b\n", "sk-\u00e9"} {
		newProject(t).refuses(t, "no Admin key was given", bad, usual())
	}
}

// TestDestroyed: what was there before, and what was collected, stays.
func TestDestroyed(t *testing.T) {
	p := newProject(t)
	settings := usual("DEPLOY_TOPIC=mine", "DEPLOY_SECRET=mine", "STATE_BUCKET=states")
	p.change(func(c *cloud) {
		c.Things["pubsub_topics/mine"], c.Things["secrets/mine"] = map[string]string{}, map[string]string{"labels.auditlog": "another"}
		c.Things["monitoring_policies/99"] = map[string]string{"displayName": "theirs"}
	})
	p.deploy(t, settings)
	if roles := p.cloud().Roles["storage_managed-folders/gs://my-bucket/openai-auditlog/"]; !slices.Contains(roles, "storage.objectViewer openai-auditlog@my-project.iam.gserviceaccount.com") {
		t.Errorf("with a state bucket the collector cannot read what it has published: %q", roles)
	}
	p.forgetCalls()
	p.refuses(t, "give --yes", "", settings, "--destroy")
	out := p.run(t, 0, "", settings, "--destroy", "--yes")
	left := slices.DeleteFunc(p.names(""), func(n string) bool { return strings.HasPrefix(n, "services") })
	want := []string{"monitoring_policies/99", "pubsub_topics/mine", "secrets/mine", "secrets_versions/mine", "storage_buckets/gs://my-bucket", "storage_buckets/gs://states",
		"storage_managed-folders/gs://my-bucket/openai-auditlog/", "storage_managed-folders/gs://states/state/openai-auditlog/"}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if roles := fmt.Sprint(p.cloud().Roles); strings.Contains(roles, "@my-project.iam") {
		t.Errorf("roles are left: %s", roles)
	}
	if !strings.Contains(out, "kept: mine is not of this script's making") || !strings.Contains(out, "Kept: the buckets") {
		t.Errorf("it does not say what is kept:\n%s", out)
	}
	p.forgetCalls()
	if p.run(t, 0, "", settings, "--destroy", "--yes"); len(p.changes("delete")) > 0 {
		t.Errorf("destroyed again: %q", p.changes("delete"))
	}
	p.deploy(t, settings)

	// What is named alike and is not ours, such as the guide's function.
	p = deployed(t)
	p.change(func(c *cloud) {
		delete(c.Things["functions/openai-auditlog"], "--update-labels")
		delete(c.Things["pubsub_topics/openai-auditlog"], "--labels")
	})
	p.run(t, 0, "", usual(), "--destroy", "--yes")
	for _, thing := range []string{"functions/openai-auditlog", "pubsub_topics/openai-auditlog"} {
		if !slices.Contains(p.names(""), thing) {
			t.Errorf("%s is gone", thing)
		}
	}
}

// TestSlowToSettle: each kind of step waits for what is new to be known, and does not know what gcloud says then.
func TestSlowToSettle(t *testing.T) {
	p := newProject(t)
	p.change(func(c *cloud) {
		for _, step := range []string{"services enable", "storage buckets create", "service-accounts create", "managed-folders create", "add-iam-policy-binding", "secrets create", "versions add",
			"functions deploy", "topics create", "subscriptions create", "services identity create", "subscriptions list", "functions describe openai-auditlog --gen2 --region=us-central1 --format=value(serviceConfig.uri)",
			"projects describe", "jobs create", "metrics create", "channels list", "channels create", "policies list", "policies create", "dashboards list", "dashboards create", "topics publish", "logging read"} {
			c.Failures = append(c.Failures, failure{step, "ERROR: whatever", 2})
		}
	})
	if out := p.deploy(t, usual()); !strings.Contains(out, "again in 4 seconds") || !strings.Contains(out, "again in 60 seconds") {
		t.Errorf("nothing was tried again:\n%s", out)
	}
	if diff := cmp.Diff(deployed(t).cloud().Things, p.cloud().Things); diff != "" {
		t.Errorf("deployed slowly (-at once +slowly):\n%s", diff)
	}

	p = newProject(t)
	p.change(func(c *cloud) { c.Failures = []failure{{"service-accounts create", "ERROR: quota", 7}} })
	if out := p.run(t, 1, key, usual()); !strings.Contains(out, "ERROR: quota") || !strings.Contains(out, "run this again") || len(p.changes("functions deploy")) > 0 {
		t.Errorf("a step that fails for good: changes %q\n%s", p.changes(""), out)
	}
	p.deploy(t, usual()) // goes on where it ended
}

// TestRefused: what the collector's check refuses is named, and gcloud is not called. The check's own tests have
// each value.
func TestRefused(t *testing.T) {
	p := newProject(t)
	for _, test := range []struct{ settings, says string }{
		{usual("DEPLOY_SCHEDULE=hourly"), "DEPLOY_SCHEDULE: "},
		{usual("DEPLOY_BUCKET=gs://my-bucket"), "DEPLOY_BUCKET: "},
		{usual("MAX_RECORDS=0"), "MAX_RECORDS: 0 is not in"},
		{usual("MAX_RECORD=10"), "MAX_RECORD is no setting"},
		{usual("$(touch gone)"), "is not NAME=VALUE"},
		{usual("OPENAI_ADMIN_KEY=" + key), "does not belong in this file"},
	} {
		for _, flags := range [][]string{{"--yes"}, {"--dry-run"}, {"--destroy", "--yes"}, {"--rotate-key"}} {
			if out := p.run(t, 2, key, test.settings, flags...); !strings.Contains(out, test.says) || strings.Contains(out, key) {
				t.Errorf("%q does not say %q:\n%s", flags, test.says, out)
			}
		}
	}
	for _, flags := range [][]string{{"--frobnicate"}, {"--destroy", "--rotate-key"}, {"another"}} {
		p.run(t, 2, "", usual(), flags...)
	}
	if calls := p.calls(); len(calls) > 0 {
		t.Errorf("gcloud was called: %v", calls)
	}
	if out := p.run(t, 0, "", usual(), "--help"); !strings.HasPrefix(out, "Usage: ") {
		t.Errorf("--help: %s", out)
	}
	p.env = []string{"AUDITLOG=../" + filepath.Base(p.dir) + "/bin/auditlog", "COLLECTOR=/bin/false"} // a released binary is asked instead
	must(0, os.Symlink(collector, p.dir+"/bin/auditlog"))
	p.run(t, 0, "", usual(), "--dry-run")
}

// TestFollows: what follows from the schedule, and from a project of a domain.
func TestFollows(t *testing.T) {
	p := newProject(t)
	for settings, want := range map[string]string{
		"DEPLOY_SCHEDULE=*/5 * * * *":                                 "2 600 10 openai-auditlog-push@my-project.iam.gserviceaccount.com",
		"DEPLOY_SCHEDULE=*/15 * * * *":                                "2 600 30 openai-auditlog-push@my-project.iam.gserviceaccount.com",
		"DEPLOY_PROJECT=example.com:my-project":                       "3 3000 60 openai-auditlog-push@my-project.example.com.iam.gserviceaccount.com",
		"DEPLOY_SCHEDULE=0 */6 * * *\nDEPLOY_NAME=second":             "13 21000 60 second-push@my-project.iam.gserviceaccount.com",
		"DEPLOY_SCHEDULE=0 0 * * *":                                   "49 85800 60 openai-auditlog-push@my-project.iam.gserviceaccount.com",
		"DEPLOY_SCHEDULE=30 7-19/2 * * MON-FRI\nINTERVAL_MINUTES=120": "5 6600 60 openai-auditlog-push@my-project.iam.gserviceaccount.com",
	} {
		out := p.bash(t, 0, "", usual(settings), `. "$1"; file="my settings.env"; read_settings; echo "$alert_hours $retry_window $backoff $push_account"`)
		if !strings.HasSuffix(out, "\n"+want+"\n") {
			t.Errorf("%s: %s, want %s", settings, out, want)
		}
	}
}

// TestCommands has every command that the tests before have given parsed by the real CLI, where there is one.
func TestCommands(t *testing.T) {
	if _, err := exec.LookPath("gcloud"); err != nil {
		t.Skip("there is no gcloud CLI")
	}
	if len(seen) == 0 {
		newProject(t).deploy(t, usual())
	}
	cmd := exec.Command("python3", "-S", "-B", must(filepath.Abs("gcloud/cli.py")))
	cmd.Stdin, cmd.Dir = strings.NewReader(strings.Join(slices.Sorted(maps.Keys(seen)), "\n")), t.TempDir()
	cmd.Env = append(os.Environ(), "CLOUDSDK_CONFIG="+cmd.Dir, "CLOUDSDK_CORE_DISABLE_PROMPTS=1")
	if err := os.WriteFile(filepath.Join(cmd.Dir, "FILE"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the gcloud CLI refuses (%v):\n%s", err, out)
	}
	t.Logf("%d commands parsed", len(seen))
}

// A project is a cloud, and a folder to run deploy.sh with.
type project struct {
	dir string
	env []string
}

func newProject(t *testing.T) *project {
	t.Helper()
	p := &project{dir: t.TempDir()}
	err := errors.Join(os.Mkdir(p.dir+"/bin", 0o700), os.Mkdir(p.dir+"/tmp", 0o700))
	for name, script := range map[string]string{"sleep": "", "go": `[ "$1 $2" = "run ./cmd/auditlog" ] && shift 2 && exec "$COLLECTOR" "$@"`} {
		err = errors.Join(err, os.WriteFile(p.dir+"/bin/"+name, []byte("#!/bin/sh\n"+script), 0o700))
	}
	if err := errors.Join(err, os.Symlink(must(os.Executable()), p.dir+"/bin/gcloud")); err != nil {
		t.Fatal(err)
	}
	p.save(cloud{Things: map[string]map[string]string{}, Roles: map[string][]string{}})
	t.Cleanup(p.forgetCalls)
	return p
}

// bash runs code with the path of deploy.sh as $1, and returns all output, of both kinds.
func (p *project) bash(t *testing.T, status int, stdin, settings, code string, flags ...string) string {
	t.Helper()
	if err := os.WriteFile(p.dir+"/my settings.env", []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", append([]string{"-c", code, "bash", must(filepath.Abs("deploy.sh"))}, flags...)...)
	cmd.Dir, cmd.Stdin = p.dir, strings.NewReader(stdin)
	cmd.Env = append([]string{"PATH=" + p.dir + "/bin" + ":" + os.Getenv("PATH"), "HOME=" + p.dir, "TMPDIR=" + p.dir + "/tmp",
		"STAND_IN=" + p.dir, "COLLECTOR=" + collector, "GOMAXPROCS=1", "GOGC=off", "MAX_RECORDS=not of the file"}, p.env...)
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != status {
		t.Fatalf("exit status %d, not %d:\n%s", code, status, out)
	}
	return string(out)
}

// run runs deploy.sh, which must end with that status.
func (p *project) run(t *testing.T, status int, stdin, settings string, flags ...string) string {
	t.Helper()
	return p.bash(t, status, stdin, settings, `exec "$@"`, append(flags, "my settings.env")...)
}

// refuses runs deploy.sh, which must end with status 1, say so, and change nothing.
func (p *project) refuses(t *testing.T, says, stdin, settings string, flags ...string) {
	t.Helper()
	if out := p.run(t, 1, stdin, settings, flags...); !strings.Contains(out, says) || len(p.changes("")) > 0 {
		t.Errorf("changes %q, and it should say %q:\n%s", p.changes(""), says, out)
	}
}

func (p *project) deploy(t *testing.T, settings string) string {
	t.Helper()
	return p.run(t, 0, key, settings, "--yes")
}

// deployed returns a project in which deploy.sh has been run, with no calls yet.
func deployed(t *testing.T) *project {
	t.Helper()
	p := newProject(t)
	if asDeployed.Things == nil {
		p.deploy(t, usual())
		asDeployed = p.cloud()
		p.forgetCalls()
	}
	p.save(asDeployed)
	return p
}

var asDeployed cloud

func (p *project) calls() (calls []call) {
	text, _ := os.ReadFile(p.dir + "/calls")
	for line := range bytes.Lines(text) {
		var c call
		must(0, json.Unmarshal(line, &c))
		calls = append(calls, c)
	}
	return calls
}

// forgetCalls forgets the calls so far, but for TestCommands. Files, which are gone soon, have one name there.
func (p *project) forgetCalls() {
	for _, c := range p.calls() {
		for i, a := range c.Args {
			c.Args[i] = filled.ReplaceAllString(a, "${1}FILE")
		}
		line, _ := json.Marshal(c.Args)
		seen[string(line)] = true
	}
	_ = os.Remove(p.dir + "/calls")
}

var filled = regexp.MustCompile(`^(--[a-z-]+-from-file=).*`)

// seen has the commands of all tests, as JSON.
var seen = map[string]bool{}

var looks = regexp.MustCompile(` (describe|list|read)( |$)`)

// changes returns the calls that change something and match the pattern.
func (p *project) changes(pattern string) (lines []string) {
	for _, c := range p.calls() {
		if line := strings.Join(c.Args, " "); !looks.MatchString(line) && regexp.MustCompile(pattern).MatchString(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

func (p *project) names(start string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(p.cloud().Things)), func(n string) bool { return !strings.HasPrefix(n, start) })
}

func (p *project) cloud() (c cloud) {
	must(0, json.Unmarshal(must(os.ReadFile(p.dir+"/cloud")), &c))
	return c
}

func (p *project) save(c cloud) {
	must(0, os.WriteFile(p.dir+"/cloud", must(json.Marshal(c)), 0o600))
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

// A cloud is what the stand-in knows: things by kind and name, with the flags that made them, and roles by thing.
type cloud struct {
	Things   map[string]map[string]string
	Roles    map[string][]string
	Failures []failure `json:",omitempty"`
	Made     int       // things that the cloud has named
}

// standIn is gcloud, as far as deploy.sh uses it. It refuses what the real one would: what is there already, or needs
// another thing first.
func standIn() int {
	p := &project{dir: os.Getenv("STAND_IN")}
	c := p.cloud()
	stdin, _ := io.ReadAll(os.Stdin)
	calls := must(os.OpenFile(p.dir+"/calls", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600))
	must(0, json.NewEncoder(calls).Encode(call{os.Args[1:], string(stdin), os.Environ()}))
	answer, err := c.answer(os.Args[1:], string(stdin))
	p.save(c)
	fmt.Print(answer)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (c *cloud) answer(args []string, stdin string) (string, error) {
	for i, f := range c.Failures {
		if f.Times > 0 && strings.Contains(strings.Join(args, " "), f.Words) {
			c.Failures[i].Times--
			return "", errors.New(f.Answer)
		}
	}
	flags := map[string]string{}
	var words []string
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		switch {
		case !strings.HasPrefix(a, "--"):
			words = append(words, a)
		case filled.MatchString(a):
			flags["file"] = string(must(os.ReadFile(value)))
			if m := displayName.FindStringSubmatch(flags["file"]); m != nil {
				flags["displayName"] = m[1]
			}
		default:
			flags[name] = value
		}
	}
	if words[0] == "alpha" || words[0] == "beta" {
		words = words[1:]
	}
	return c.do(words, flags, stdin)
}

var displayName = regexp.MustCompile(`(?m)^  "displayName": "(.*)"`)

var verbs = []string{"describe", "list", "add-iam-policy-binding", "remove-iam-policy-binding", "create", "update", "delete", "enable", "deploy", "add", "publish", "read"}

// do answers a command. A thing's kind is its command group, and its name the command's last word.
func (c *cloud) do(words []string, flags map[string]string, stdin string) (string, error) {
	at := slices.IndexFunc(words, func(w string) bool { return slices.Contains(verbs, w) })
	kind, verb, name := strings.Join(words[:at], "_"), words[at], words[len(words)-1]
	switch kind + " " + verb {
	case "projects describe":
		return "123456789012\n", nil
	case "services list":
		return map[bool]string{true: "cloudfunctions.googleapis.com\n"}[c.Things["services/cloudfunctions"] != nil], nil
	case "services enable":
		c.Things["services/cloudfunctions"] = flags
		return "", nil
	case "logging read":
		return "INFO Check ended: 18 ok\n", nil
	case "services_identity create":
		name = "pubsub"
	case "secrets_versions describe":
		name = flags["--secret"]
	case "iam_service-accounts create":
		name += "@my-project.iam.gserviceaccount.com"
	}
	if !strings.HasPrefix(name, "gs://") {
		name = filepath.Base(name)
	}
	thing := kind + "/" + name
	switch verb {
	case "list":
		list := ""
		for _, thing := range slices.Sorted(maps.Keys(c.Things)) {
			if _, is, all := strings.Cut(flags["--filter"], "~/"); strings.HasPrefix(thing, kind+"/") && (!all || thing == kind+"/"+strings.TrimSuffix(is, "$")) {
				list += c.show(thing, flags["--format"])
			}
		}
		return list, nil
	case "create", "deploy", "add":
		return c.create(kind, name, verb, flags, stdin)
	case "publish":
		return "", nil
	}
	if err := c.needs(thing); err != nil {
		return "", err
	}
	switch verb {
	case "describe":
		return c.show(thing, flags["--format"]), nil
	case "add-iam-policy-binding", "remove-iam-policy-binding":
		binding := strings.TrimPrefix(flags["--role"], "roles/") + " " + strings.TrimPrefix(flags["--member"], "serviceAccount:")
		c.Roles[thing] = slices.DeleteFunc(c.Roles[thing], func(b string) bool { return b == binding })
		if verb == "add-iam-policy-binding" {
			c.Roles[thing] = slices.Sorted(slices.Values(append(c.Roles[thing], binding)))
		}
	case "update":
		maps.Copy(c.Things[thing], flags)
	case "delete":
		for _, thing := range []string{thing, map[string]string{"functions": "run_services/", "secrets": "secrets_versions/"}[kind] + name} {
			delete(c.Things, thing)
			delete(c.Roles, thing)
		}
	}
	return "", nil
}

func (c *cloud) needs(things ...string) error {
	for _, thing := range things {
		if c.Things[thing] == nil && !strings.HasPrefix(thing, "projects/") {
			return fmt.Errorf("ERROR: NOT_FOUND: %s", thing)
		}
	}
	return nil
}

func (c *cloud) create(kind, name, verb string, flags map[string]string, stdin string) (string, error) {
	var needs []string
	for flag, value := range flags {
		switch {
		case strings.HasSuffix(flag, "-service-account"):
			needs = append(needs, "iam_service-accounts/"+filepath.Base(value))
		case flag == "--topic", flag == "--dead-letter-topic":
			needs = append(needs, "pubsub_topics/"+filepath.Base(value))
		}
	}
	switch kind {
	case "storage_managed-folders":
		needs = append(needs, "storage_buckets/"+strings.Join(strings.SplitN(name, "/", 4)[:3], "/"))
	case "secrets_versions":
		if needs = append(needs, "secrets/"+name); stdin == "" {
			return "", errors.New("ERROR: nothing on standard input")
		}
	case "functions":
		_, secret, _ := strings.Cut(strings.TrimSuffix(flags["--set-secrets"], ":latest"), "=")
		if needs = append(needs, "secrets_versions/"+secret); !slices.Contains(c.Roles["secrets/"+secret], "secretmanager.secretAccessor "+flags["--run-service-account"]) {
			return "", errors.New("ERROR: the function may not read its secret")
		}
		c.Things["run_services/"+name] = map[string]string{}
		flags["environment"], flags["serviceConfig.uri"] = "GEN_2", "https://"+name+"-abc-uc.a.run.app"
	case "monitoring_channels", "monitoring_policies", "monitoring_dashboards":
		c.Made++
		name = fmt.Sprint(c.Made)
		flags["name"] = "projects/my-project/" + kind + "/" + name
	}
	thing := kind + "/" + name
	if err := c.needs(needs...); err != nil {
		return "", err
	}
	if c.Things[thing] != nil && verb == "create" && kind != "services_identity" {
		return "", fmt.Errorf("ERROR: ALREADY_EXISTS: %s", thing)
	}
	c.Things[thing] = flags
	return c.show(thing, flags["--format"]), nil
}

// show does what the CLI's --format=value[separator='|'](...) does.
func (c *cloud) show(thing, format string) string {
	_, fields, ok := strings.Cut(strings.TrimSuffix(format, ")"), "(")
	if !ok {
		return ""
	}
	var values []string
	for field := range strings.SplitSeq(fields, ",") {
		values = append(values, c.field(thing, field))
	}
	return strings.Join(values, "|") + "\n"
}

// field returns a field of a thing: as it was set, or as a flag has it in a list of pairs.
func (c *cloud) field(thing, field string) string {
	is := c.Things[thing]
	if set, ok := is[field]; ok {
		return set
	}
	switch field {
	case "state":
		return "ENABLED"
	case "topic":
		return "projects/my-project/topics/" + is["--topic"]
	}
	for _, list := range is {
		for pair := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == '|' }) {
			if key, value, ok := strings.Cut(pair, "="); ok && key == field[strings.LastIndex(field, ".")+1:] {
				return value
			}
		}
	}
	return ""
}
