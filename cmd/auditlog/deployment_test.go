package main

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseSettings(t *testing.T) {
	for _, tt := range []struct {
		text string
		want map[string]string // nil: refused
	}{
		{"", map[string]string{}},
		{"# c\n\n \t\n  # c\nPAGE_SIZE=1", map[string]string{"PAGE_SIZE": "1"}},
		{"PAGE_SIZE=1\r\nMAX_RECORDS=2\r\n", map[string]string{"PAGE_SIZE": "1", "MAX_RECORDS": "2"}},
		{" PAGE_SIZE= 1 \t", map[string]string{"PAGE_SIZE": "1"}},
		{"GCS_PREFIX=a b", map[string]string{"GCS_PREFIX": "a b"}},
		{"GCS_PREFIX= 'a # \" b ' ", map[string]string{"GCS_PREFIX": "a # \" b "}},
		{`GCS_PREFIX="it's $HOME \n"`, map[string]string{"GCS_PREFIX": `it's $HOME \n`}},
		{"GCS_PREFIX=", map[string]string{"GCS_PREFIX": ""}},
		{"GCS_PREFIX=''", map[string]string{"GCS_PREFIX": ""}},
		{"GCS_PREFIX=a=b", map[string]string{"GCS_PREFIX": "a=b"}},
		{"GCS_PREFIX=Prüfung", map[string]string{"GCS_PREFIX": "Prüfung"}},
		{"DEPLOY_BUCKET=b\nDEPLOY_SCHEDULE=*/5 * * * *", map[string]string{"DEPLOY_BUCKET": "b", "DEPLOY_SCHEDULE": "*/5 * * * *", "GCS_BUCKET": "b", "INTERVAL_MINUTES": "5"}},
		{"DEPLOY_BUCKET=b\nGCS_BUCKET=b", map[string]string{"DEPLOY_BUCKET": "b", "GCS_BUCKET": "b"}},
		{"DEPLOY_BUCKET=b\nGCS_BUCKET=c", nil},
		{"DEPLOY_SCHEDULE=0 * * * *\nINTERVAL_MINUTES=61", nil},
		{"PAGE_SIZE=1 # one", nil},
		{"PAGE_SIZE = 1", nil},
		{"export PAGE_SIZE=1", nil},
		{"GCS_PREFIX='a", nil},
		{"GCS_PREFIX='a'b", nil},
		{"GCS_PREFIX=a'b", nil},
		{"page_size=1", nil},
		{"PAGE_SIZE", nil},
		{"PAGE_SIZE=1\nPAGE_SIZE=1", nil},
		{"PAGE_SIZES=1", nil},
		{"DEPLOY_BUCKETS=b", nil},
		{"OPENAI_ADMIN_KEY=sk-admin-1", nil},
		{"OPENAI_ADMIN_KEY_FILE=/key", nil},
	} {
		got, err := parseSettings(tt.text)
		switch {
		case tt.want == nil && (err == nil || strings.Contains(err.Error(), "sk-admin")):
			t.Errorf("%q is read as %q, error %v", tt.text, got, err)
		case tt.want != nil && (err != nil || !maps.Equal(got, tt.want)):
			t.Errorf("%q: %v (-want +got):\n%s", tt.text, err, cmp.Diff(tt.want, got))
		}
	}
}

// judged returns the settings of a good deployment with changes, pairs of name and value, and what is wrong with them.
func judged(t *testing.T, changes ...string) (map[string]string, string) {
	t.Helper()
	fileSettings = map[string]string{"DEPLOY_PROJECT": "my-project", "DEPLOY_BUCKET": "my-bucket", "GCS_BUCKET": "my-bucket", "STATE_KEY": "state/a/state.json"}
	defer func() { fileSettings = nil }()
	for i := 0; i < len(changes); i += 2 {
		fileSettings[changes[i]] = changes[i+1]
	}
	whole, _, err := effectiveSettings()
	if err != nil {
		return nil, strings.TrimPrefix(err.Error(), "bad settings: ")
	}
	return whole, ""
}

func TestDeploymentTaken(t *testing.T) {
	for _, tt := range [][3]string{
		{"DEPLOY_NAME", "second-org", "second-org"},
		{"DEPLOY_TOPIC", "", "openai-auditlog"},
		{"DEPLOY_SECRET", "", "openai-auditlog-admin-key"},
		{"DEPLOY_LOCATION", "", "us-central1"},
		{"DEPLOY_LOCATION", "EU", "EU"},
		{"DEPLOY_PROJECT", "example.com:my-project", "example.com:my-project"},
		{"DEPLOY_NOTIFY", "a@example.com,projects/my-project/notificationChannels/12,b+c@example.com", "a@example.com,projects/my-project/notificationChannels/12,b+c@example.com"},
		{"DEPLOY_FEED_READER", "", ""},
		{"DEPLOY_SCHEDULE", "0 0 * * *", "0 0 * * *"},
		{"INTERVAL_MINUTES", "", "60"},
		{"GCS_PREFIX", "", "openai-auditlog"},
		{"GCS_PREFIX", "logs/openai", "logs/openai"},
		{"RUN_TIMEOUT_SECONDS", "510", "510"},
		{"STATE_BUCKET", "states", "states"},
	} {
		changes := tt[:2]
		if tt[1] == "0 0 * * *" {
			changes = append(changes, "INTERVAL_MINUTES", "1440") // as parseSettings adds it
		}
		whole, fault := judged(t, changes...)
		if fault != "" || whole[tt[0]] != tt[2] {
			t.Errorf("%q: %q %s", tt, whole[tt[0]], fault)
		}
	}
	for _, schedule := range []string{"7 * * * *", "30 6-18/2 * * MON-FRI", "0,30 1 1 1 *", "*/20 0-5,22-23 */2 jan-mar 1-5"} {
		if _, fault := judged(t, "DEPLOY_SCHEDULE", schedule, "INTERVAL_MINUTES", "60"); fault != "" {
			t.Errorf("%s: %s", schedule, fault)
		}
	}
}

// TestDeploymentRefused: each refused value is named.
func TestDeploymentRefused(t *testing.T) {
	long := strings.Repeat("n", 24)
	for name, values := range map[string][]string{
		"DEPLOY_PROJECT":      {"", "Not-A-Project", "example.com:", "my-project;rm", "projects/my-project", "short"},
		"DEPLOY_BUCKET":       {"", "gs://my-bucket", "my-bucket/", "My-Bucket", "b"},
		"DEPLOY_REGION":       {"nowhere", "us-central1-a"},
		"DEPLOY_LOCATION":     {"us central1"},
		"DEPLOY_NAME":         {"short", "ends-with-", "Upper-Case", long, "a_b_c_d"},
		"DEPLOY_TOPIC":        {"projects/p/topics/t", "t", "openai-auditlog-dead-letter"},
		"DEPLOY_SECRET":       {"projects/p/secrets/s", "a b"},
		"DEPLOY_FEED_READER":  {"nobody", "a@b@c", "serviceAccount:a@b.c"},
		"DEPLOY_FEED_DELETES": {"yes"},
		"DEPLOY_NOTIFY":       {"a", "a@b.c,", "a@b.c b@c.d", "projects/p/notificationChannels/x", "a@b.c|d"},
		"DEPLOY_MEMORY_MIB":   {"99", "256Mi", "0256"},
		"DEPLOY_SCHEDULE": {"@hourly", "hourly", "0 * * *", "0 * * * * *", "60 * * * *", "0 24 * * *", "0 0 0 * *", "0 0 1 13 *", "0 0 * * 8", "*/0 * * * *", "every 5 minutes",
			"0 * * * *;", "5- * * * *"},
		"INTERVAL_MINUTES":    {"61", "0", "x"},
		"GCS_PREFIX":          {"gs://my-bucket/a", "/a", "a/", "a//b", "../a", "a|b", "state", "state/a", "state/a/b"},
		"STATE_KEY":           {"", "state.json", "openai-auditlog/state.json", "openai-auditlog/a/state.json", "gs://b/../s", "a|b/c"},
		"STATE_BUCKET":        {"gs://states", "a|b"},
		"RUN_TIMEOUT_SECONDS": {"511", "0", "x"},
		"MAX_RECORDS":         {"0", "many"},
		"OPENAI_BASE_URL":     {"ftp://x", "https://a|b"},
		"TENANT_EVENTS":       {"maybe"},
		"ACTOR_EMAILS":        {"a|b"},
	} {
		for _, value := range values {
			_, fault := judged(t, name, value)
			named := strings.HasPrefix(fault, name+": ") || strings.Contains(fault, "; "+name+": ")
			if name == "GCS_PREFIX" && strings.HasPrefix(value, "state") {
				named = strings.HasPrefix(fault, "STATE_KEY: ") // which lies in it, or around it
			}
			if !named || strings.ContainsAny(fault, "\n") {
				t.Errorf("%s=%q: %q", name, value, fault)
			}
		}
	}
	if _, fault := judged(t, "DEPLOY_SCHEDULE", "7 * * * *"); !strings.HasPrefix(fault, "INTERVAL_MINUTES: must say") {
		t.Errorf("a schedule that is not known: %q", fault)
	}
	if _, fault := judged(t, "STATE_BUCKET", "states", "DEPLOY_FEED_DELETES", "true"); !strings.HasPrefix(fault, "DEPLOY_FEED_DELETES: ") {
		t.Errorf("a feed that deletes, and a state bucket: %q", fault)
	}
	if _, fault := judged(t, "DEPLOY_NAME", "a", "MAX_RECORDS", "x", "DEPLOY_BUCKET", ""); strings.Count(fault, "; ") != 3 { // the topic is named alike
		t.Errorf("not all faults: %q", fault)
	}
}

// TestExample: the example can be deployed, and so can each line of it that is commented out and is no placeholder.
func TestExample(t *testing.T) {
	text, err := os.ReadFile("../../deploy/settings.example")
	if err != nil {
		t.Fatal(err)
	}
	example := string(text)
	commented := example
	for line := range strings.Lines(example) {
		if name, value, ok := strings.Cut(strings.TrimPrefix(line, "#"), "="); ok && line[0] == '#' && line[1] != ' ' &&
			!slices.Contains([]string{"INTERVAL_MINUTES", "DEPLOY_FEED_READER", "DEPLOY_FEED_DELETES"}, name) {
			commented = strings.Replace(commented, line, name+"="+value, 1)
		}
	}
	for _, text := range []string{example, commented} {
		if fileSettings, err = parseSettings(text); err != nil {
			t.Fatal(err)
		}
		whole, cfg, err := effectiveSettings()
		fileSettings = nil
		if err != nil || len(cfg.Warnings()) > 0 {
			t.Errorf("%v, warnings %v:\n%s", err, cfg.Warnings(), text)
		}
		for name, value := range map[string]string{"DEPLOY_TOPIC": "openai-auditlog", "OVERLAP_SECONDS": "900", "STATE_KEY": "state/openai-auditlog/state.json"} {
			if whole[name] != value {
				t.Errorf("%s is %q", name, whole[name])
			}
		}
	}
	for _, d := range deployment {
		if !strings.Contains(example, "\n"+d.name+"=") && !strings.Contains(example, "\n#"+d.name+"=") {
			t.Errorf("the example lacks %s", d.name)
		}
	}
}
