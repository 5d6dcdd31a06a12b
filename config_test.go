package auditlog

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
)

const testKey = "sk-admin-0123456789"

// environ returns good settings, with changes: pairs of name and value.
func environ(changes ...string) map[string]string {
	m := map[string]string{"GCS_BUCKET": "logs", "OPENAI_ADMIN_KEY": testKey}
	for i := 0; i < len(changes); i += 2 {
		m[changes[i]] = changes[i+1]
	}
	return m
}

func TestLoadConfigDefaults(t *testing.T) {
	got, err := LoadConfig(environ("PAGE_SIZE", "")) // empty is as good as unset
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Bucket: "logs", AdminKey: testKey, Prefix: "openai-auditlog", StateKey: "openai-auditlog/state.json", StateBucket: "logs",
		MaxRecords: 5000, PageSize: 100, Concurrency: 4, Lookback: 24, Overlap: 120, BaseURL: "https://api.openai.com/v1", RunTimeout: 480,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// TestFilterOfSettings: lists are tidied, and say the same in any order.
func TestFilterOfSettings(t *testing.T) {
	c, err := LoadConfig(environ("ACTOR_EMAILS", " b+1@x.org , a@x.org,", "EVENT_TYPES", ", ,"))
	if err != nil {
		t.Fatal(err)
	}
	if want := filter("actor_emails%5B%5D=a%40x.org&actor_emails%5B%5D=b%2B1%40x.org"); c.filter != want || c.filter.check() != nil {
		t.Errorf("filter %q, want %q", string(c.filter), string(want))
	}
	if got := c.filter.String() + ", " + filter("").String(); got != "ACTOR_EMAILS=a@x.org,b+1@x.org, none" {
		t.Error(got)
	}
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"event_types%5B%5D=a", "event_types%5B%5D=b&event_types%5B%5D=c", true},
		{"event_types%5B%5D=a&event_types%5B%5D=b", "event_types%5B%5D=b", false},
		{"event_types%5B%5D=a", "", false},
		{"", "", false},
		{"project_ids%5B%5D=a", "project_ids%5B%5D=b", false}, // an event may be of both
		{"event_types%5B%5D=a&project_ids%5B%5D=a", "event_types%5B%5D=b&project_ids%5B%5D=a", true},
	} {
		if got := filter(tt.a).excludes(filter(tt.b)); got != tt.want {
			t.Errorf("%s and %s: %v", tt.a, tt.b, got)
		}
	}
}

func TestLoadConfigTidies(t *testing.T) {
	got, err := LoadConfig(environ("OPENAI_ADMIN_KEY", testKey+"\n", "GCS_PREFIX", "/logs/openai/", "OPENAI_BASE_URL", "https://eu.api.openai.com/v1/"))
	if err != nil {
		t.Fatal(err)
	}
	if got.AdminKey != testKey || got.Prefix != "logs/openai" || got.BaseURL != "https://eu.api.openai.com/v1" {
		t.Errorf("got key %q, prefix %q, base %q", string(got.AdminKey), got.Prefix, got.BaseURL)
	}
}

func TestLoadConfigFaults(t *testing.T) {
	tests := []struct {
		name    string
		environ map[string]string
		want    []string // parts of the error
	}{
		{"nothing set", map[string]string{}, []string{"GCS_BUCKET: required", "OPENAI_ADMIN_KEY: required"}},
		{"all bad at once", environ("MAX_RECORDS", "many", "PAGE_SIZE", "101", "LOOKBACK_HOURS", "0", "OVERLAP_SECONDS", "-1", "RUN_TIMEOUT_SECONDS", "1.5", "OPENAI_BASE_URL", "ftp://x", "STATE_KEY", "a/", "GCS_BUCKET", ""),
			[]string{`MAX_RECORDS: "many"`, "PAGE_SIZE: 101", "LOOKBACK_HOURS: 0", "OVERLAP_SECONDS: -1", `RUN_TIMEOUT_SECONDS: "1.5"`, "OPENAI_BASE_URL: ", "STATE_KEY: ", "GCS_BUCKET: required"}},
		{"bucket as a URL", environ("GCS_BUCKET", "gs://logs"), []string{"GCS_BUCKET", "without gs://"}},
		{"state bucket as a URL", environ("STATE_BUCKET", "logs/x"), []string{"STATE_BUCKET", "without"}},
		{"prefix is the bucket", environ("GCS_PREFIX", "/"), []string{"GCS_PREFIX"}},
		{"key broken in two", environ("OPENAI_ADMIN_KEY", "sk-admin\nx"), []string{"OPENAI_ADMIN_KEY"}},
		{"key of spaces", environ("OPENAI_ADMIN_KEY", "  "), []string{"OPENAI_ADMIN_KEY"}},
		{"password in the URL", environ("OPENAI_BASE_URL", "https://u:hunter2@proxy/v1"), []string{"OPENAI_BASE_URL"}},
		{"query in the URL", environ("OPENAI_BASE_URL", "https://proxy/v1?x=1"), []string{"OPENAI_BASE_URL"}},
		{"empty query in the URL", environ("OPENAI_BASE_URL", "https://proxy/v1?"), []string{"OPENAI_BASE_URL"}},
		{"empty fragment in the URL", environ("OPENAI_BASE_URL", "https://proxy/v1#"), []string{"OPENAI_BASE_URL"}},
		{"prefix with a line break", environ("GCS_PREFIX", "openai-auditlog\n"), []string{`GCS_PREFIX: "openai-auditlog\n" holds`}},
		{"state key in another encoding", environ("STATE_KEY", "\xfcber.json"), []string{"STATE_KEY"}},
		{"state beside others' folders", environ("STATE_KEY", "state/.."), []string{"STATE_KEY"}},
		{"state with an empty folder", environ("STATE_KEY", "state//a.json"), []string{"STATE_KEY", "empty part"}},
		{"names too long for the bucket", environ("GCS_PREFIX", strings.Repeat("a", 990), "STATE_KEY", strings.Repeat("b", 950)), []string{"GCS_PREFIX: is too long", "STATE_KEY: is too long"}},
		{"not true or false", environ("TENANT_EVENTS", "maybe"), []string{`TENANT_EVENTS: "maybe" is not true or false`}},
		{"filter with a line break", environ("EVENT_TYPES", "a,b\nc"), []string{"EVENT_TYPES: \"b\\nc\" holds"}},
		{"filters too long", environ("PROJECT_IDS", "proj_"+strings.Repeat("a", longestFilter), "ACTOR_IDS", "u"), []string{"PROJECT_IDS, ACTOR_IDS: too long for a request"}},
		{"no URL", environ("OPENAI_BASE_URL", "https://%zz"), []string{"OPENAI_BASE_URL"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := LoadConfig(tt.environ)
			if err == nil {
				t.Fatalf("accepted as %+v", c)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q: %v", want, err)
				}
			}
			for _, never := range []string{"sk-admin", "hunter2", "\n"} {
				if strings.Contains(err.Error(), never) {
					t.Errorf("error holds %q: %v", never, err)
				}
			}
		})
	}
}

func TestSettingsAreComplete(t *testing.T) {
	for _, s := range Settings() {
		if s.Name == "" || s.Help == "" {
			t.Errorf("setting without a name or a help text: %+v", s)
		}
	}
}

func TestStagedDirLiesOutsideTheFeed(t *testing.T) {
	tests := []struct{ prefix, stateKey, stateBucket, want string }{
		{"openai-auditlog", "state/openai-auditlog/state.json", "", "state/openai-auditlog/staged/state.json/"},
		{"openai-auditlog", "openai-auditlog/state.json", "", "staged-openai-auditlog/staged/state.json/"},
		{"openai-auditlog", "openai-auditlog/state.json", "other", "openai-auditlog/staged/state.json/"},
		{"openai-auditlog", "state.json", "", "staged/state.json/"},
		{"staged", "state.json", "", "staged-staged/state.json/"},
		{"state/staged/state.json/feed", "state/state.json", "", "staged-state/staged/state.json/"},
		{"staged-staged", "staged-staged/state.json", "", "staged-staged-staged/staged/state.json/"},
	}
	for _, tt := range tests {
		c, err := LoadConfig(environ("GCS_PREFIX", tt.prefix, "STATE_KEY", tt.stateKey, "STATE_BUCKET", tt.stateBucket))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.stagedDir(); got != tt.want {
			t.Errorf("prefix %q, state %q: %q, want %q", tt.prefix, tt.stateKey, got, tt.want)
		}
	}
}

func TestSecretIsNotShown(t *testing.T) {
	c, err := LoadConfig(environ())
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", c.AdminKey, "config", c)
	js, _ := json.Marshal(c)
	for _, s := range []string{log.String(), string(js), fmt.Sprintf("%v %+v %#v %s %q", c, c, c, c.AdminKey, c.AdminKey)} {
		if strings.Contains(s, testKey) {
			t.Errorf("shows the key: %s", s)
		}
	}
}
