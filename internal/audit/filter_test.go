package audit

import (
	"strings"
	"testing"
)

func TestNewFilter(t *testing.T) {
	all := map[string][]string{
		"EVENT_TYPES":  {"key.created", "login.failed"},
		"PROJECT_IDS":  {"p&1"},
		"ACTOR_EMAILS": {"a@x.org", "b+1@x.org"},
		"ACTOR_IDS":    {"user=1"},
		"RESOURCE_IDS": {"r 1"},
	}
	for _, tt := range []struct {
		name   string
		values map[string][]string
		filter Filter
		shown  string
	}{
		{"nothing", nil, "", "none"},
		{"an empty list", map[string][]string{"ACTOR_IDS": {}}, "", "none"},
		{"no setting that filters", map[string][]string{"GCS_BUCKET": {"logs"}}, "", "none"},
		{"one", map[string][]string{"ACTOR_EMAILS": {"a@x.org", "b+1@x.org"}}, "actor_emails%5B%5D=a%40x.org&actor_emails%5B%5D=b%2B1%40x.org", "ACTOR_EMAILS=a@x.org,b+1@x.org"},
		{"all", all,
			"actor_emails%5B%5D=a%40x.org&actor_emails%5B%5D=b%2B1%40x.org&actor_ids%5B%5D=user%3D1&event_types%5B%5D=key.created&event_types%5B%5D=login.failed&project_ids%5B%5D=p%261&resource_ids%5B%5D=r+1",
			"EVENT_TYPES=key.created,login.failed PROJECT_IDS=p&1 ACTOR_EMAILS=a@x.org,b+1@x.org ACTOR_IDS=user=1 RESOURCE_IDS=r 1"},
	} {
		f := NewFilter(tt.values)
		if f != tt.filter {
			t.Errorf("%s: filter\n%q, want\n%q", tt.name, string(f), string(tt.filter))
		}
		if got := f.String(); got != tt.shown {
			t.Errorf("%s: shown as\n%s, want\n%s", tt.name, got, tt.shown)
		}
		if err := f.Check(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestFilterCheckRefuses(t *testing.T) {
	for filter, part := range map[Filter]string{
		"limit=1":                          `"limit" is none of its parameters`,
		"event_types%5B%5D=a&limit=1":      `"limit" is none of its parameters`,
		"event_types=a":                    `"event_types" is none of its parameters`,
		"EVENT_TYPES=a":                    `"EVENT_TYPES" is none of its parameters`,
		"event_types%5B%5D=%zz":            `invalid URL escape "%zz"`,
		"event_types%5B%5D=a;b":            "semicolon",
		"=":                                `"" is none of its parameters`,
		Filter(strings.Repeat("a\n", 999)): "…",
	} {
		err := filter.Check()
		if err == nil || !strings.HasPrefix(err.Error(), `"filter" is "`) || !strings.Contains(err.Error(), part) {
			t.Errorf("%.100q: error %v, want one with %q", string(filter), err, part)
		}
	}
}

func TestFilterExcludes(t *testing.T) {
	for _, tt := range []struct {
		a, b Filter
		want bool
	}{
		{"event_types%5B%5D=a", "event_types%5B%5D=b&event_types%5B%5D=c", true},
		{"event_types%5B%5D=a&event_types%5B%5D=b", "event_types%5B%5D=b", false},
		{"event_types%5B%5D=a&event_types%5B%5D=b", "event_types%5B%5D=b&event_types%5B%5D=c", false},
		{"event_types%5B%5D=a", "event_types%5B%5D=a", false},
		{"event_types%5B%5D=a", "", false},
		{"", "", false},
		{"project_ids%5B%5D=a", "project_ids%5B%5D=b", false}, // an event may be of both
		{"event_types%5B%5D=a&project_ids%5B%5D=a", "event_types%5B%5D=b&project_ids%5B%5D=a", true},
		{"event_types%5B%5D=a", "project_ids%5B%5D=a", false}, // of one project, all types may come
		{"event_types%5B%5D=a&project_ids%5B%5D=a", "project_ids%5B%5D=b", false},
	} {
		if got := tt.a.Excludes(tt.b); got != tt.want {
			t.Errorf("%s and %s: %v", string(tt.a), string(tt.b), got)
		}
		if got := tt.b.Excludes(tt.a); got != tt.want {
			t.Errorf("%s and %s: %v", string(tt.b), string(tt.a), got)
		}
	}
}

func TestFilterIncludes(t *testing.T) {
	for _, tt := range []struct {
		wide, narrow Filter
		want         bool
	}{
		{"", "", true},
		{"", "event_types%5B%5D=a", true},
		{"event_types%5B%5D=a", "", false},
		{"event_types%5B%5D=a", "event_types%5B%5D=a", true},
		{"event_types%5B%5D=a&event_types%5B%5D=b", "event_types%5B%5D=b", true},
		{"event_types%5B%5D=b", "event_types%5B%5D=a&event_types%5B%5D=b", false},
		{"event_types%5B%5D=a", "event_types%5B%5D=a&project_ids%5B%5D=a", true},
		{"event_types%5B%5D=a&project_ids%5B%5D=a", "event_types%5B%5D=a", false},
		{"event_types%5B%5D=a&project_ids%5B%5D=a", "event_types%5B%5D=a&project_ids%5B%5D=b", false},
		{"event_types=%zz", "event_types=%zz", false}, // a state may hold anything
	} {
		if got := tt.wide.Includes(tt.narrow); got != tt.want {
			t.Errorf("%s includes %s: %v", string(tt.wide), string(tt.narrow), got)
		}
	}
}
