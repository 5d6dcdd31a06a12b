package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestWarnings: settings that are good and odd pass, each with what to do.
func TestWarnings(t *testing.T) {
	const (
		tidy    = `set GCS_PREFIX to "a/b", and let the feed read gs://logs/a/b/`
		correct = "correct EVENT_TYPES; leave a type that OpenAI has added of late as it is"
	)
	inFeed := Warning{"STATE_KEY lies under GCS_PREFIX, where the feed ingests it and may delete it",
		"set STATE_KEY to a name outside, for example state/openai-auditlog/state.json, and move the object there if there is one"}
	for _, tt := range []struct {
		name    string
		changes []string
		want    []Warning
	}{
		{"defaults", nil, []Warning{inFeed}},
		{"state in another bucket", []string{"STATE_BUCKET", "states"}, nil},
		{"slashes around the prefix", []string{"GCS_PREFIX", "/a/b//", "STATE_KEY", "state.json"}, nil},
		{"empty part of the prefix", []string{"GCS_PREFIX", "a//b", "STATE_KEY", "a/b/state.json"}, []Warning{{`GCS_PREFIX "a//b" has an empty part`, tidy}}},
		{"empty parts of the prefix", []string{"GCS_PREFIX", "a///b"}, []Warning{{`GCS_PREFIX "a///b" has an empty part`, tidy}}},
		{"known types", []string{"GCS_PREFIX", "a", "EVENT_TYPES", "login.failed, role.bound_to_resource,tenant.user.looked_up"}, nil},
		{"a type that is misspelt", []string{"GCS_PREFIX", "a", "EVENT_TYPES", "login.failed,api_key.create"},
			[]Warning{{`EVENT_TYPES names "api_key.create" (api_key.created?), which is not a known type: is it misspelt?`, correct}}},
		{"types of another case, and new ones", []string{"GCS_PREFIX", "a", "EVENT_TYPES", "Login.Failed,moon.landed"},
			[]Warning{{`EVENT_TYPES names "Login.Failed" (login.failed?), "moon.landed", which are not known types: are they misspelt?`, correct}}},
		{"all of it", []string{"GCS_PREFIX", "openai-auditlog", "EVENT_TYPES", "x"},
			[]Warning{inFeed, {`EVENT_TYPES names "x", which is not a known type: is it misspelt?`, correct}}},
	} {
		c, err := Load(environ(tt.changes...))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, c.Warnings()); diff != "" {
			t.Errorf("%s: warnings differ (-want +got):\n%s", tt.name, diff)
		}
	}
}
