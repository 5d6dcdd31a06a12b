package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"

	"example.com/auditlog/internal/config"
)

// deploymentSetting is a setting of deploy/deploy.sh. Its default may name settings above it.
type deploymentSetting struct{ name, value, pattern, fault string }

const (
	bucketName = `[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]`
	email      = `[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+`
	recipient  = `(` + email + `|projects/[a-z0-9.:-]+/notificationChannels/[0-9]+)`
)

var deployment = []deploymentSetting{
	{"DEPLOY_PROJECT", "", `([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]`, "is not the ID of a project"},
	{"DEPLOY_BUCKET", "", bucketName, "is not a bucket's name: give it without gs:// and without a folder"},
	{"DEPLOY_REGION", "us-central1", `[a-z]+-[a-z]+[0-9]+`, "is not a region"},
	{"DEPLOY_LOCATION", "$DEPLOY_REGION", `[A-Za-z0-9-]+`, "is not a bucket's location"},
	{"DEPLOY_NAME", "openai-auditlog", `[a-z][a-z0-9-]{4,21}[a-z0-9]`, "must be 6 to 23 of a-z, 0-9 and -: service accounts are named after it"},
	{"DEPLOY_TOPIC", "$DEPLOY_NAME", `[A-Za-z][A-Za-z0-9._~%+-]{2,254}`, "is not a topic's name: give it without projects/ and topics/"},
	{"DEPLOY_SECRET", "$DEPLOY_NAME-admin-key", `[A-Za-z0-9_-]{1,255}`, "is not a secret's name: give it without projects/ and secrets/"},
	{"DEPLOY_SCHEDULE", "0 * * * *", cron(`[0-5]?[0-9]`, `([01]?[0-9]|2[0-3])`, `(0?[1-9]|[12][0-9]|3[01])`, `(0?[1-9]|1[0-2]|[A-Za-z]{3})`, `([0-7]|[A-Za-z]{3})`),
		"is not a schedule: give five fields, as cron has them"},
	{"DEPLOY_FEED_READER", "", `(` + email + `)?`, "is not the address of a service account"},
	{"DEPLOY_FEED_DELETES", "false", `true|false`, "is not true or false"},
	{"DEPLOY_NOTIFY", "", `(` + recipient + `(,` + recipient + `)*)?`, "is no list of mail addresses or notification channels, with commas between them"},
	{"DEPLOY_MEMORY_MIB", "256", `[1-9][0-9]{2,4}`, "is not a number of MiB of 100 or more"},
}

// cron returns the pattern of a schedule whose fields have these numbers.
func cron(fields ...string) string {
	for i, number := range fields {
		one := fmt.Sprintf(`(\*|%s(-%[1]s)?)(/[1-9][0-9]?)?`, number)
		fields[i] = fmt.Sprintf(`%s(,%[1]s)*`, one)
	}
	return strings.Join(fields, " ")
}

// intervals has the minutes between two runs of schedules that need no INTERVAL_MINUTES.
var intervals = map[string]string{"*/5 * * * *": "5", "*/15 * * * *": "15", "0 * * * *": "60", "0 */6 * * *": "360", "0 0 * * *": "1440"}

// The service ends a request after 540 seconds, and the run must have ended before.
const longestRun = 510

// effectiveSettings returns the settings of the file, or else of the environment, with all defaults and
// without the key. Those of a deployment's file include the deployment's own. The error names all faults.
func effectiveSettings() (map[string]string, config.Config, error) {
	settings := fileSettings
	if settings == nil {
		settings = env.ToMap(os.Environ())
	}
	cfg, err := config.Load(withoutKey(settings))
	whole := map[string]string{}
	for _, s := range config.Settings() {
		if !strings.HasPrefix(s.Name, "OPENAI_ADMIN_KEY") {
			whole[s.Name] = cmp.Or(settings[s.Name], s.Default)
		}
	}
	isDeployment := func(name string) bool { return strings.HasPrefix(name, "DEPLOY_") }
	if fileSettings == nil || !slices.ContainsFunc(slices.Collect(maps.Keys(fileSettings)), isDeployment) {
		return whole, cfg, err
	}
	d := deployer{settings: settings, whole: whole, cfg: cfg}
	d.faults, _ = errors.AsType[config.Faults](err)
	d.complete()
	d.judgeInterval()
	if err == nil {
		d.judgePlaces()
	}
	if len(d.faults) > 0 {
		return nil, cfg, d.faults
	}
	return whole, cfg, nil
}

// deployer judges the settings of a deployment.
type deployer struct {
	settings map[string]string // as the file has them
	whole    map[string]string // with all defaults
	cfg      config.Config
	faults   config.Faults
}

// complete adds the deployment's own settings.
func (d *deployer) complete() {
	for name, value := range d.whole {
		if strings.Contains(value, "|") { // which stands between them on gcloud's command line
			d.faults.Add(name, `must not hold a "|"`)
		}
	}
	for _, s := range deployment {
		value := cmp.Or(d.settings[s.name], os.Expand(s.value, func(name string) string { return d.whole[name] }))
		if !regexp.MustCompile(`^(` + s.pattern + `)$`).MatchString(value) {
			d.faults.Add(s.name, "%q %s", value, s.fault)
		}
		d.whole[s.name] = value
	}
	if d.whole["DEPLOY_TOPIC"] == d.whole["DEPLOY_NAME"]+"-dead-letter" {
		d.faults.Add("DEPLOY_TOPIC", "is where messages go that have failed")
	}
}

func (d *deployer) judgeInterval() {
	follows := intervals[d.whole["DEPLOY_SCHEDULE"]]
	switch {
	case follows == "" && d.settings["INTERVAL_MINUTES"] == "":
		d.faults.Add("INTERVAL_MINUTES", "must say how many minutes lie between two runs of the schedule %q", d.whole["DEPLOY_SCHEDULE"])
	case follows != "" && follows != d.whole["INTERVAL_MINUTES"]:
		d.faults.Add("INTERVAL_MINUTES", "of the schedule %q is %s: leave it out", d.whole["DEPLOY_SCHEDULE"], follows)
	}
}

// judgePlaces finds what the collector takes, but cannot do with the roles and times that it is deployed with.
func (d *deployer) judgePlaces() {
	bucket, prefix, stateBucket, stateFolder := d.cfg.Bucket, d.cfg.Prefix, d.cfg.StateBucket, path.Dir(d.cfg.StateKey)
	if tidy := path.Clean(prefix); tidy != d.whole["GCS_PREFIX"] {
		d.faults.Add("GCS_PREFIX", "set it to %q", tidy)
	}
	feed, state := bucket+"/"+prefix+"/", stateBucket+"/"+stateFolder+"/"
	if stateFolder == "." || strings.HasPrefix(state, feed) || strings.HasPrefix(feed, state) {
		d.faults.Add("STATE_KEY", `%q is not in a folder of its own, apart from the feed's: set it for example to "state/%s/state.json"`, d.cfg.StateKey, prefix)
	}
	if d.whole["DEPLOY_FEED_DELETES"] == "true" && stateBucket != bucket {
		d.faults.Add("DEPLOY_FEED_DELETES", "must be false with a STATE_BUCKET: a copy and a delete are not one step")
	}
	if d.cfg.RunTimeout > longestRun {
		d.faults.Add("RUN_TIMEOUT_SECONDS", "%d is more than the %d that the deployed service has time for", d.cfg.RunTimeout, longestRun)
	}
}

// withoutKey returns settings that need no key, for what does not ask the API.
func withoutKey(settings map[string]string) map[string]string {
	settings = maps.Clone(settings)
	settings["OPENAI_ADMIN_KEY"] = "unused"
	return settings
}

// printSettings prints lines of NAME=VALUE. No value has a line break.
func printSettings(w io.Writer) error {
	whole, _, err := effectiveSettings()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(whole)) {
		if whole[name] != "" {
			fmt.Fprintf(w, "%s=%s\n", name, whole[name])
		}
	}
	return nil
}
