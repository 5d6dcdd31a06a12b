package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/names"
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

func TestLoadDefaults(t *testing.T) {
	got, err := Load(environ("PAGE_SIZE", "")) // empty is as good as unset
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Bucket: "logs", AdminKey: testKey, Prefix: "openai-auditlog", StateKey: "openai-auditlog/state.json", StateBucket: "logs",
		MaxRecords: 5000, PageSize: 100, Concurrency: 4, Lookback: 24, Overlap: 120, BaseURL: "https://api.openai.com/v1", Interval: 60, RunTimeout: 480,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings differ (-want +got):\n%s", diff)
	}
	layout := names.Layout{Bucket: "logs", Prefix: "openai-auditlog", StateBucket: "logs", StateKey: "openai-auditlog/state.json"}
	if diff := cmp.Diff(layout, got.Layout()); diff != "" {
		t.Errorf("layout differs (-want +got):\n%s", diff)
	}
}

// TestBounds: a number is taken at its bounds, and refused beyond them.
func TestBounds(t *testing.T) {
	for _, tt := range []struct {
		name      string
		low, high int64
		of        func(Config) int64
	}{
		{"MAX_RECORDS", 1, 2_147_483_647, func(c Config) int64 { return int64(c.MaxRecords) }},
		{"PAGE_SIZE", 1, 100, func(c Config) int64 { return int64(c.PageSize) }},
		{"FETCH_CONCURRENCY", 1, 32, func(c Config) int64 { return int64(c.Concurrency) }},
		{"LOOKBACK_HOURS", 1, 878_400, func(c Config) int64 { return c.Lookback }},
		{"OVERLAP_SECONDS", 0, 31_622_400, func(c Config) int64 { return c.Overlap }},
		{"INTERVAL_MINUTES", 1, 44_640, func(c Config) int64 { return c.Interval }},
		{"RUN_TIMEOUT_SECONDS", 1, 86_400, func(c Config) int64 { return c.RunTimeout }},
	} {
		for _, v := range []int64{tt.low - 1, tt.low, tt.low + 1, tt.high - 1, tt.high, tt.high + 1} {
			c, err := Load(environ(tt.name, fmt.Sprint(v)))
			if v >= tt.low && v <= tt.high {
				if err != nil || tt.of(c) != v {
					t.Errorf("%s %d is read as %d, error %v", tt.name, v, tt.of(c), err)
				}
				continue
			}
			want := fmt.Sprintf("bad settings: %s: %d is not in %d to ", tt.name, v, tt.low)
			if v > tt.high && tt.name == "MAX_RECORDS" {
				want = fmt.Sprintf("bad settings: %s: \"%d\" is not", tt.name, v) // no int of 32 bits
			}
			if err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("error %v, want %s", err, want)
			}
		}
	}
}

// TestLengths: what makes a name or a request too long is refused, and not what
// is a byte shorter.
func TestLengths(t *testing.T) {
	for _, tt := range []struct {
		name, letter string
		longest      int // in letters
	}{
		{"GCS_PREFIX", "p", 1024 - len("/openai_auditlog_20261124_010000.ndjson")},
		{"STATE_KEY", "s", 1024 - len("staged/") - len("/") - len("kept/") - 100},
		{"ACTOR_IDS", "a", 6144 - len("actor_ids%5B%5D=")},
	} {
		if _, err := Load(environ(tt.name, strings.Repeat(tt.letter, tt.longest))); err != nil {
			t.Errorf("%s of %d bytes: %v", tt.name, tt.longest, err)
		}
		if _, err := Load(environ(tt.name, strings.Repeat(tt.letter, tt.longest+1))); err == nil || !strings.Contains(err.Error(), tt.name+": ") || !strings.Contains(err.Error(), "too long") {
			t.Errorf("%s of %d bytes: error %v", tt.name, tt.longest+1, err)
		}
	}
}

// TestFilterOfSettings: lists are tidied, and say the same in any order; each
// becomes its own parameter.
func TestFilterOfSettings(t *testing.T) {
	c, err := Load(environ("ACTOR_EMAILS", " b+1@x.org , a@x.org,", "EVENT_TYPES", ", ,"))
	if err != nil {
		t.Fatal(err)
	}
	if want := audit.Filter("actor_emails%5B%5D=a%40x.org&actor_emails%5B%5D=b%2B1%40x.org"); c.Filter != want || c.Filter.Check() != nil {
		t.Errorf("filter %q, want %q", string(c.Filter), string(want))
	}
	if got := c.Filter.String(); got != "ACTOR_EMAILS=a@x.org,b+1@x.org" {
		t.Error(got)
	}
	if diff := cmp.Diff([]string{"a@x.org", "b+1@x.org"}, c.ActorEmails); diff != "" || len(c.EventTypes) != 0 {
		t.Errorf("types %q, addresses differ (-want +got):\n%s", c.EventTypes, diff)
	}

	c, err = Load(environ("EVENT_TYPES", "t2,t1,,t2 ", "PROJECT_IDS", "p", "ACTOR_EMAILS", "e", "ACTOR_IDS", "a", "RESOURCE_IDS", "\u00a0r"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Filter.String(); got != "EVENT_TYPES=t1,t2 PROJECT_IDS=p ACTOR_EMAILS=e ACTOR_IDS=a RESOURCE_IDS=r" {
		t.Error(got)
	}
}

func TestLoadTidies(t *testing.T) {
	got, err := Load(environ("OPENAI_ADMIN_KEY", testKey+"\n", "GCS_PREFIX", "/logs/openai/", "OPENAI_BASE_URL", "https://eu.api.openai.com/v1/"))
	if err != nil {
		t.Fatal(err)
	}
	if got.AdminKey != testKey || got.Prefix != "logs/openai" || got.BaseURL != "https://eu.api.openai.com/v1" {
		t.Errorf("got key %q, prefix %q, base %q", string(got.AdminKey), got.Prefix, got.BaseURL)
	}
}

// TestKeyFile: without a key in the environment each Load reads the file anew, and its faults name the
// file and never show what is in it.
func TestKeyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key%d")
	settings := environ("OPENAI_ADMIN_KEY", "", "OPENAI_ADMIN_KEY_FILE", file)
	for _, tt := range []struct{ text, want string }{
		{"", "required, but empty"},
		{"\n", "required, but empty"},
		{`"sk-admin"`, "has quotes around it"},
		{"sk-admin-1 x", "holds characters"},
		{"sk-admin-1\nsk-admin-2\n", "holds characters"},
		{"sk-admin-1\r\n", ""},
		{"sk-admin-2", ""},
	} {
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(settings)
		switch {
		case tt.want == "" && (err != nil || string(c.AdminKey) != strings.TrimSpace(tt.text)):
			t.Errorf("%q is read as %q, error %v", tt.text, string(c.AdminKey), err)
		case tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("bad settings: OPENAI_ADMIN_KEY_FILE: %q: %s", file, tt.want)) || strings.Contains(err.Error(), "sk-admin")):
			t.Errorf("%q: error %v", tt.text, err)
		}
	}
	if c, err := Load(environ("OPENAI_ADMIN_KEY_FILE", file)); err != nil || c.AdminKey != testKey {
		t.Errorf("the file wins over the environment: %q, error %v", string(c.AdminKey), err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(settings); err == nil || err.Error() != fmt.Sprintf("bad settings: OPENAI_ADMIN_KEY_FILE: %q: cannot be read: no such file or directory", file) {
		t.Errorf("without the file: %v", err)
	}
}

// TestLoadTakes: what looks odd and is right passes as it is.
func TestLoadTakes(t *testing.T) {
	for _, tt := range []struct {
		name, value string
		of          func(Config) string
	}{
		{"OPENAI_ADMIN_KEY", "!~", func(c Config) string { return string(c.AdminKey) }},
		{"OPENAI_ADMIN_KEY", `sk-pro"j`, func(c Config) string { return string(c.AdminKey) }},
		{"OPENAI_BASE_URL", "http://localhost:8080", func(c Config) string { return c.BaseURL }},
		{"OPENAI_BASE_URL", "https://proxy/a%3Fb", func(c Config) string { return c.BaseURL }},
		{"STATE_KEY", "a..b/.c", func(c Config) string { return c.StateKey }},
		{"STATE_BUCKET", "states", func(c Config) string { return c.Layout().StateBucket }},
		{"GCS_PREFIX", "Prüfung von heute/a..b", func(c Config) string { return c.Prefix }},
		{"GCS_PREFIX", "a//b/.../.c", func(c Config) string { return c.Prefix }},
		{"EVENT_TYPES", "no.such_type", func(c Config) string { return strings.Join(c.EventTypes, ",") }},
		{"TENANT_EVENTS", "true", func(c Config) string { return fmt.Sprint(c.TenantEvents) }},
		{"TENANT_EVENTS", "false", func(c Config) string { return fmt.Sprint(c.TenantEvents) }},
	} {
		c, err := Load(environ(tt.name, tt.value))
		if err != nil {
			t.Errorf("%s %q: %v", tt.name, tt.value, err)
		} else if got := tt.of(c); got != tt.value {
			t.Errorf("%s %q is read as %q", tt.name, tt.value, got)
		}
	}
}

func TestLoadFaults(t *testing.T) {
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
		{"key empty", environ("OPENAI_ADMIN_KEY", ""), []string{"OPENAI_ADMIN_KEY: required, but empty"}},
		{"key of spaces", environ("OPENAI_ADMIN_KEY", "  "), []string{"OPENAI_ADMIN_KEY: required, but empty"}},
		{"key with a space in it", environ("OPENAI_ADMIN_KEY", "sk-admin x"), []string{"OPENAI_ADMIN_KEY: holds characters"}},
		{"key with a letter of another alphabet", environ("OPENAI_ADMIN_KEY", "sk-admin-é"), []string{"OPENAI_ADMIN_KEY: holds characters"}},
		{"key with a delete character", environ("OPENAI_ADMIN_KEY", "sk-admin-\x7f"), []string{"OPENAI_ADMIN_KEY: holds characters"}},
		{"key in quotes", environ("OPENAI_ADMIN_KEY", `"sk-admin"`+"\n"), []string{"OPENAI_ADMIN_KEY: has quotes around it"}},
		{"key in other quotes", environ("OPENAI_ADMIN_KEY", "'sk-admin x'"), []string{"OPENAI_ADMIN_KEY: has quotes around it"}},
		{"key in printed quotes", environ("OPENAI_ADMIN_KEY", "“sk-admin”"), []string{"OPENAI_ADMIN_KEY: has quotes around it"}},
		{"key with half its quotes", environ("OPENAI_ADMIN_KEY", `sk-admin"`), []string{"OPENAI_ADMIN_KEY: has quotes around it"}},
		{"key of quotes alone", environ("OPENAI_ADMIN_KEY", `""`), []string{"OPENAI_ADMIN_KEY: has quotes around it"}},
		{"user in the URL", environ("OPENAI_BASE_URL", "https://u@proxy/v1"), []string{"OPENAI_BASE_URL", "must not hold a user"}},
		{"URL without a host", environ("OPENAI_BASE_URL", "https:///v1"), []string{"OPENAI_BASE_URL", "is not an http or https URL"}},
		{"URL of another kind, with a password", environ("OPENAI_BASE_URL", "ftp://u:hunter2@proxy/v1"), []string{"OPENAI_BASE_URL", "is not an http or https URL"}},
		{"query and password in the URL", environ("OPENAI_BASE_URL", "https://u:hunter2@proxy/v1?x"), []string{"OPENAI_BASE_URL", "neither a query nor a fragment"}},
		{"password in the URL", environ("OPENAI_BASE_URL", "https://u:hunter2@proxy/v1"), []string{"OPENAI_BASE_URL"}},
		{"query in the URL", environ("OPENAI_BASE_URL", "https://proxy/v1?x=1"), []string{"OPENAI_BASE_URL"}},
		{"empty query in the URL", environ("OPENAI_BASE_URL", "https://proxy/v1?"), []string{"OPENAI_BASE_URL"}},
		{"empty fragment in the URL", environ("OPENAI_BASE_URL", "https://proxy/v1#"), []string{"OPENAI_BASE_URL"}},
		{"prefix as a URL", environ("GCS_PREFIX", "gs://logs/openai/auditlog/"), []string{`GCS_PREFIX: "gs://logs/openai/auditlog" is not a folder's name: set it without gs:// and the bucket, to "openai/auditlog"`}},
		{"prefix as a URL of the bucket", environ("GCS_PREFIX", "gs://logs"), []string{`set it without gs:// and the bucket, to "openai-auditlog"`}},
		{"prefix as half a URL", environ("GCS_PREFIX", "gs://"), []string{`set it without gs:// and the bucket, to "openai-auditlog"`}},
		{"prefix as a URL with dots", environ("GCS_PREFIX", "gs://logs/../x"), []string{`set it without gs:// and the bucket, to "x"`}},
		{"prefix above the bucket", environ("GCS_PREFIX", "../x"), []string{`GCS_PREFIX: "../x" has a part of dots: set it to "x"`}},
		{"prefix that goes back", environ("GCS_PREFIX", "a/../b/"), []string{`GCS_PREFIX: "a/../b" has a part of dots: set it to "b"`}},
		{"prefix in this folder", environ("GCS_PREFIX", "./a/./b"), []string{`set it to "a/b"`}},
		{"prefix is this folder", environ("GCS_PREFIX", "/./"), []string{`GCS_PREFIX: "." has a part of dots: set it to "openai-auditlog"`}},
		{"prefix with a line break", environ("GCS_PREFIX", "openai-auditlog\n"), []string{`GCS_PREFIX: "openai-auditlog\n" holds`}},
		{"bucket with a line break", environ("GCS_BUCKET", "logs\n"), []string{`GCS_BUCKET: "logs\n" holds`}},
		{"state bucket in another encoding", environ("STATE_BUCKET", "\xfcber"), []string{`STATE_BUCKET: "\xfcber" holds`}},
		{"state is the bucket", environ("STATE_KEY", "."), []string{`STATE_KEY: "." has an empty part or one of dots`}},
		{"state at the root", environ("STATE_KEY", "/state.json"), []string{"STATE_KEY", "empty part"}},
		{"state in this folder", environ("STATE_KEY", "a/./b"), []string{"STATE_KEY", "one of dots"}},
		{"prefix of slashes", environ("GCS_PREFIX", "///"), []string{"GCS_PREFIX: names no folder"}},
		{"state key in another encoding", environ("STATE_KEY", "\xfcber.json"), []string{`STATE_KEY: "\xfcber.json" holds`}},
		{"state beside others' folders", environ("STATE_KEY", "state/.."), []string{"STATE_KEY"}},
		{"state with an empty folder", environ("STATE_KEY", "state//a.json"), []string{"STATE_KEY", "empty part"}},
		{"names too long for the bucket", environ("GCS_PREFIX", strings.Repeat("a", 990), "STATE_KEY", strings.Repeat("b", 950)), []string{"GCS_PREFIX: is too long", "STATE_KEY: is too long"}},
		{"not true or false", environ("TENANT_EVENTS", "maybe"), []string{`TENANT_EVENTS: "maybe" is not true or false`}},
		{"filter with a line break", environ("EVENT_TYPES", "a,b\nc"), []string{"EVENT_TYPES: \"b\\nc\" holds"}},
		{"filter in another encoding", environ("RESOURCE_IDS", "a, \xfc"), []string{`RESOURCE_IDS: " \xfc" holds`}},
		{"every number a text", environ("MAX_RECORDS", "a", "PAGE_SIZE", "b", "FETCH_CONCURRENCY", "c", "LOOKBACK_HOURS", "d", "OVERLAP_SECONDS", "e", "RUN_TIMEOUT_SECONDS", "f"), []string{`MAX_RECORDS: "a" is not a whole number;`, `PAGE_SIZE: "b" is`, `FETCH_CONCURRENCY: "c" is`, `LOOKBACK_HOURS: "d" is`, `OVERLAP_SECONDS: "e" is`, `RUN_TIMEOUT_SECONDS: "f" is`}},
		{"filters too long", environ("PROJECT_IDS", "proj_"+strings.Repeat("a", longestFilter), "ACTOR_IDS", "u"), []string{"PROJECT_IDS, ACTOR_IDS: too long for a request"}},
		{"no URL", environ("OPENAI_BASE_URL", "https://%zz"), []string{"OPENAI_BASE_URL"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Load(tt.environ)
			if err == nil {
				t.Fatalf("accepted as %+v", c)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q: %v", want, err)
				}
			}
			for _, setting := range Settings() {
				if strings.Count(err.Error(), " "+setting.Name+": ") > 1 && tt.name != "state key in another encoding" { // that has two faults
					t.Errorf("error names %s twice: %v", setting.Name, err)
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
	list := Settings()
	var required []string
	for _, s := range list {
		if s.Name == "" || s.Help == "" {
			t.Errorf("setting without a name or a help text: %+v", s)
		}
		if s.Required {
			required = append(required, s.Name)
		}
	}
	if diff := cmp.Diff([]string{"GCS_BUCKET"}, required); diff != "" {
		t.Errorf("required settings differ (-want +got):\n%s", diff)
	}
	if fields := reflect.TypeFor[Config]().NumField(); len(list) != fields-1 { // all but Filter
		t.Errorf("%d settings of %d fields", len(list), fields)
	}
	if want := (Setting{Name: "GCS_PREFIX", Default: "openai-auditlog", Help: "feed prefix: the folder that the feed reads"}); list[3] != want {
		t.Errorf("fourth setting %+v, want %+v", list[3], want)
	}
}

// TestTimes: how much of a run's time is left to commit and publish, and how
// much of that to one step.
func TestTimes(t *testing.T) {
	for _, tt := range []struct {
		seconds       int64
		reserve, step time.Duration
	}{
		{1, 250 * time.Millisecond, 5 * time.Second},
		{60, 15 * time.Second, 5 * time.Second},
		{80, 20 * time.Second, 5 * time.Second},
		{96, 24 * time.Second, 6 * time.Second},
		{236, 59 * time.Second, 14750 * time.Millisecond},
		{240, time.Minute, 15 * time.Second},
		{480, time.Minute, 15 * time.Second},
		{86400, time.Minute, 15 * time.Second},
	} {
		if got := Reserve(time.Duration(tt.seconds) * time.Second); got != tt.reserve {
			t.Errorf("of %d s: reserve %v, want %v", tt.seconds, got, tt.reserve)
		}
		if got := (Config{RunTimeout: tt.seconds}).StepTimeout(); got != tt.step {
			t.Errorf("of %d s: step %v, want %v", tt.seconds, got, tt.step)
		}
	}
}

func TestSecretIsNotShown(t *testing.T) {
	c, err := Load(environ())
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
