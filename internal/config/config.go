// Package config reads the collector's settings from the environment: into a valid Config, or into
// one error that names all faults.
//
// It promises to accept nothing that a later step would refuse for its form. It asks neither the
// network nor the bucket.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caarlos0/env/v11"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/names"
	"example.com/auditlog/internal/openai"
)

// Config holds the function's settings, read from the environment. Names and defaults are the
// Python function's, where that has them.
type Config struct {
	Bucket      string     `env:"GCS_BUCKET,required,notEmpty" help:"bucket that the SecOps feed reads"`
	AdminKey    openai.Key `env:"OPENAI_ADMIN_KEY" help:"OpenAI Admin key with the scope api.audit_logs.read (required, here or in a file)"`
	KeyFile     string     `env:"OPENAI_ADMIN_KEY_FILE" help:"file with the key, if OPENAI_ADMIN_KEY is empty; each run reads it anew"`
	Prefix      string     `env:"GCS_PREFIX" envDefault:"openai-auditlog" help:"feed prefix: the folder that the feed reads"`
	StateKey    string     `env:"STATE_KEY" envDefault:"openai-auditlog/state.json" help:"name of the state object; keep it outside GCS_PREFIX"`
	StateBucket string     `env:"STATE_BUCKET" help:"bucket of the state and of staged objects (default: GCS_BUCKET)"`
	MaxRecords  int        `env:"MAX_RECORDS" envDefault:"5000" help:"maximum number of records per run; the rest is read by the next runs"`
	PageSize    int        `env:"PAGE_SIZE" envDefault:"100" help:"records per request, 1 to 100"`
	Concurrency int        `env:"FETCH_CONCURRENCY" envDefault:"4" help:"maximum number of parallel API requests, 1 to 32"`
	Lookback    int64      `env:"LOOKBACK_HOURS" envDefault:"24" help:"hours that the first run reads back"`
	Overlap     int64      `env:"OVERLAP_SECONDS" envDefault:"120" help:"seconds before the end of what is collected that each run reads again, to catch late records"`
	BaseURL     string     `env:"OPENAI_BASE_URL" envDefault:"https://api.openai.com/v1" help:"API base URL: a regional host or a proxy"`
	Interval    int64      `env:"INTERVAL_MINUTES" envDefault:"60" help:"minutes between two runs; check reports a state that is older"`
	RunTimeout  int64      `env:"RUN_TIMEOUT_SECONDS" envDefault:"480" help:"deadline of a run in seconds; keep it below the service's request timeout"`

	TenantEvents bool     `env:"TENANT_EVENTS" envDefault:"false" help:"also collect tenant-scoped events, which the API returns in no other way"`
	EventTypes   []string `env:"EVENT_TYPES" help:"collect only these types of events, comma-separated"`
	ProjectIDs   []string `env:"PROJECT_IDS" help:"collect only events of these projects"`
	ActorEmails  []string `env:"ACTOR_EMAILS" help:"collect only events of actors with these addresses"`
	ActorIDs     []string `env:"ACTOR_IDS" help:"collect only events of these actors"`
	ResourceIDs  []string `env:"RESOURCE_IDS" help:"collect only events on these resources"`

	// Filter is made from the lists above.
	Filter audit.Filter `env:"-"`
}

// Faults is an error that names every missing or bad setting, so that one look is enough to correct them all.
type Faults []string

// Add adds what is wrong with a setting.
func (f *Faults) Add(name, format string, args ...any) {
	*f = append(*f, name+": "+fmt.Sprintf(format, args...))
}

func (f Faults) Error() string { return "bad settings: " + strings.Join(f, "; ") }

// Load reads the settings from environ, which maps names to values. Any error is Faults.
func Load(environ map[string]string) (Config, error) {
	var c Config
	var faults Faults

	all, _ := errors.AsType[env.AggregateError](env.ParseWithOptions(&c, env.Options{Environment: environ})) // which returns no other
	failed := map[string]bool{}
	for _, err := range all.Errors {
		switch err := err.(type) {
		case env.VarIsNotSetError:
			faults.Add(err.Key, "required, but not set")
		case env.EmptyVarError:
			faults.Add(err.Key, "required, but empty")
		case env.ParseError:
			name := settingName(err.Name)
			failed[name] = true
			what := "a whole number"
			if name == "TENANT_EVENTS" {
				what = "true or false"
			}
			faults.Add(name, "%q is not %s", environ[name], what)
		default: // a tag of Config's is wrong
			faults = append(faults, err.Error())
		}
	}

	within := func(name string, v, low, high int64) {
		if !failed[name] && (v < low || v > high) {
			faults.Add(name, "%d is not in %d to %d", v, low, high)
		}
	}
	c.loadKey(&faults)
	c.loadFilter(&faults)
	within("MAX_RECORDS", int64(c.MaxRecords), 1, math.MaxInt32)
	within("PAGE_SIZE", int64(c.PageSize), 1, openai.MaxPageSize)
	within("FETCH_CONCURRENCY", int64(c.Concurrency), 1, openai.MaxConcurrency)
	within("LOOKBACK_HOURS", c.Lookback, 1, 100*366*24)
	within("OVERLAP_SECONDS", c.Overlap, 0, 366*24*3600)
	within("INTERVAL_MINUTES", c.Interval, 1, 31*24*60)
	within("RUN_TIMEOUT_SECONDS", c.RunTimeout, 1, 24*3600)

	for _, name := range []string{"GCS_BUCKET", "GCS_PREFIX", "STATE_KEY", "STATE_BUCKET"} {
		// Cloud Storage would refuse these names, some only after the commit.
		if v := environ[name]; !nameable(v) {
			faults.Add(name, "%q holds characters that no name has", v)
		}
	}
	for _, name := range []string{"GCS_BUCKET", "STATE_BUCKET"} {
		if v := environ[name]; strings.Contains(v, "/") {
			faults.Add(name, "%q is not a bucket's name: give it without gs:// and without a folder", v)
		}
	}
	c.StateBucket = cmp.Or(c.StateBucket, c.Bucket)
	c.loadPrefix(&faults)
	// A path like a/.. would have a folder of staged objects that belongs to others.
	if !fs.ValidPath(c.StateKey) || c.StateKey == "." {
		faults.Add("STATE_KEY", "%q has an empty part or one of dots: name the object otherwise, and rename it if there is one", c.StateKey)
	}
	if len(c.Prefix)+len("/")+len(names.FinalLayout) > names.Longest {
		faults.Add("GCS_PREFIX", "is too long: with an object's name it has more than %d bytes", names.Longest)
	}
	if len(c.Layout().StagedFolder())+len("kept/")+100 > names.Longest {
		faults.Add("STATE_KEY", "is too long: with a staged object's name it has more than %d bytes", names.Longest)
	}
	u, err := url.Parse(c.BaseURL)
	switch {
	case err != nil:
		faults.Add("OPENAI_BASE_URL", "is not a URL")
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		faults.Add("OPENAI_BASE_URL", "%q is not an http or https URL", u.Redacted())
	case strings.ContainsAny(c.BaseURL, "?#"):
		faults.Add("OPENAI_BASE_URL", "%q must have neither a query nor a fragment", u.Redacted())
	case u.User != nil:
		faults.Add("OPENAI_BASE_URL", "%q must not hold a user or password", u.Redacted())
	}
	c.BaseURL = strings.TrimRight(c.BaseURL, "/")

	if len(faults) > 0 {
		return Config{}, faults
	}
	return c, nil
}

// loadKey takes the key from the environment, or else from its file. No fault shows the key.
func (c *Config) loadKey(faults *Faults) {
	name, where := "OPENAI_ADMIN_KEY", ""
	if c.AdminKey == "" && c.KeyFile != "" {
		name, where = "OPENAI_ADMIN_KEY_FILE", strconv.Quote(c.KeyFile)+": "
		text, err := os.ReadFile(c.KeyFile)
		if err != nil {
			faults.Add(name, "%scannot be read: %v", where, errors.Unwrap(err))
			return
		}
		c.AdminKey = openai.Key(text)
	}
	// A key from a file or a secret manager often ends in a line break.
	c.AdminKey = openai.Key(strings.TrimSpace(string(c.AdminKey)))
	switch key := string(c.AdminKey); {
	case key == "":
		faults.Add(name, "%srequired, but empty", where)
	case strings.Trim(key, "\"'`“”‘’") != key:
		faults.Add(name, "%shas quotes around it: set it without them (its value is not shown)", where)
	case strings.ContainsFunc(key, notVisibleASCII):
		faults.Add(name, "%sholds characters that no key has (its value is not shown)", where)
	}
}

// loadPrefix refuses a prefix that the feed would not find: Cloud Storage takes dots literally, but
// whatever cleans a URL on its way does not.
func (c *Config) loadPrefix(faults *Faults) {
	folder, isURL := strings.CutPrefix(c.Prefix, "gs://")
	if isURL {
		_, folder, _ = strings.Cut(folder, "/")
	}
	instead := cmp.Or(strings.Trim(path.Clean("/"+folder), "/"), "openai-auditlog")
	dots := func(part string) bool { return part == "." || part == ".." }
	c.Prefix = strings.Trim(c.Prefix, "/")
	switch {
	case c.Prefix == "":
		faults.Add("GCS_PREFIX", "names no folder: the feed must not read the whole bucket")
	case isURL:
		faults.Add("GCS_PREFIX", "%q is not a folder's name: set it without gs:// and the bucket, to %q", c.Prefix, instead)
	case slices.ContainsFunc(strings.Split(c.Prefix, "/"), dots):
		faults.Add("GCS_PREFIX", "%q has a part of dots: set it to %q", c.Prefix, instead)
	}
}

// longestFilter is in bytes. Servers and proxies accept a request line of 8 KiB.
const longestFilter = 6 << 10

// loadFilter makes the filter from the settings, and cleans up their lists.
func (c *Config) loadFilter(faults *Faults) {
	values := map[string][]string{}
	var set []string
	for _, s := range []struct {
		name string
		list *[]string
	}{
		{"EVENT_TYPES", &c.EventTypes}, {"PROJECT_IDS", &c.ProjectIDs}, {"ACTOR_EMAILS", &c.ActorEmails},
		{"ACTOR_IDS", &c.ActorIDs}, {"RESOURCE_IDS", &c.ResourceIDs},
	} {
		list := *s.list
		for i, value := range list {
			if list[i] = strings.TrimSpace(value); !nameable(list[i]) {
				faults.Add(s.name, "%q holds characters that no name has", value)
			}
		}
		slices.Sort(list)
		*s.list = slices.DeleteFunc(slices.Compact(list), func(s string) bool { return s == "" })
		if len(*s.list) > 0 {
			values[s.name] = *s.list
			set = append(set, s.name)
		}
	}
	c.Filter = audit.NewFilter(values)
	if n := len(c.Filter); n > longestFilter {
		faults.Add(strings.Join(set, ", "), "too long for a request: %d bytes of its %d", n, longestFilter)
	}
}

// Setting is one row of the settings table, for help texts.
type Setting struct {
	Name, Default, Help string
	Required            bool
}

// Settings lists the settings in the order of Config.
func Settings() []Setting {
	var list []Setting
	t := reflect.TypeFor[Config]()
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("env"), ",")
		if name == "-" {
			continue
		}
		list = append(list, Setting{
			Name:     name,
			Default:  f.Tag.Get("envDefault"),
			Help:     f.Tag.Get("help"),
			Required: strings.Contains(options, "required"),
		})
	}
	return list
}

func settingName(field string) string {
	f, _ := reflect.TypeFor[Config]().FieldByName(field)
	name, _, _ := strings.Cut(f.Tag.Get("env"), ",")
	return name
}

// nameable reports whether a name may be, or contain, this text.
func nameable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func notVisibleASCII(r rune) bool { return r <= ' ' || r > '~' }

// Layout is where all objects of the collector lie.
func (c Config) Layout() names.Layout {
	return names.Layout{Bucket: c.Bucket, Prefix: c.Prefix, StateBucket: c.StateBucket, StateKey: c.StateKey}
}

// MaxLag is how old the last run, and what is collected, may be where all is well: two runs and an hour.
func (c Config) MaxLag() time.Duration { return 2*time.Duration(c.Interval)*time.Minute + time.Hour }

// StepTimeout bounds one storage operation other than the streaming of records: after one that
// hangs, there is time to find out whether it was applied.
func (c Config) StepTimeout() time.Duration {
	return max(5*time.Second, Reserve(time.Duration(c.RunTimeout)*time.Second)/4)
}

// Reserve is the part of a run's time that is kept to commit and publish.
func Reserve(whole time.Duration) time.Duration { return min(time.Minute, whole/4) }
