package audit

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTypes: each type is there once and has a type's form, and those of the samples
// are there.
func TestTypes(t *testing.T) {
	types := Types()
	form := regexp.MustCompile(`^[a-z_]+(\.[a-z_]+)+$`)
	for i, typ := range types {
		if !form.MatchString(typ) || slices.Contains(types[:i], typ) {
			t.Errorf("%q is no type, or there twice", typ)
		}
	}
	for _, typ := range []string{"api_key.created", "ip_allowlist.config.deactivated", "role.assignment.deleted", "tenant.workspace_invite_email_settings.updated"} {
		if !slices.Contains(types, typ) {
			t.Errorf("%s is not there", typ)
		}
	}
	samples, err := os.ReadFile("testdata/samples.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	var r LineReader
	for line := range strings.Lines(string(samples)) {
		if l := r.Read([]byte(line)); !slices.Contains(types, l.Type) && l.Type != "future.unknown_event" {
			t.Errorf("the samples' %q is not there", l.Type)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"backfill", "check", "from", "to"}
	for word, want := range map[string]string{
		"":              "",
		"check":         "check",
		"CHECK":         "check",
		"chek":          "check", // one left out
		"checkk":        "check", // one too many
		"cheek":         "check", // another one
		"chekc":         "check", // two that have changed places
		"backfil":       "backfill",
		"back-fill":     "backfill",
		"back_filll":    "backfill",
		"backfills now": "",
		"back":          "",
		"form":          "from",
		"prom":          "from",
		"t":             "to",
		"of":            "", // as good as nothing of "to"
		"x":             "",
		"ch":            "",
		"rom":           "from",
		"\xff\xff":      "",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("nearest to %q is %q, want %q", word, got, want)
		}
	}
	if got := Nearest("create", []string{"creates", "created", "creat", "create"}); got != "create" {
		t.Errorf("of several, %q", got)
	}
}
