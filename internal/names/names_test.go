package names

import (
	"testing"
	"time"
)

var (
	testNow = time.Date(2026, 11, 24, 1, 0, 0, 123e6, time.UTC)

	oneBucket  = Layout{Bucket: "logs", Prefix: "feed", StateBucket: "logs", StateKey: "state/state.json"}
	twoBuckets = Layout{Bucket: "logs", Prefix: "feed", StateBucket: "states", StateKey: "state/state.json"}
)

func TestStagedFolderLiesOutsideTheFeed(t *testing.T) {
	tests := []struct{ prefix, stateKey, stateBucket, want string }{
		{"openai-auditlog", "state/openai-auditlog/state.json", "logs", "state/openai-auditlog/staged/state.json/"},
		{"openai-auditlog", "openai-auditlog/state.json", "logs", "staged-openai-auditlog/staged/state.json/"},
		{"openai-auditlog", "openai-auditlog/state.json", "other", "openai-auditlog/staged/state.json/"},
		{"openai-auditlog", "openai-auditlog-2/state.json", "logs", "openai-auditlog-2/staged/state.json/"},
		{"openai-auditlog", "state.json", "logs", "staged/state.json/"},
		{"staged", "state.json", "logs", "staged-staged/state.json/"},
		{"staged", "state.json", "other", "staged/state.json/"},
		{"state/staged/state.json", "state/state.json", "logs", "staged-state/staged/state.json/"},
		{"state/staged/state.json/feed", "state/state.json", "logs", "staged-state/staged/state.json/"},
		{"state/staged/state.json/feed", "state/state.json", "other", "state/staged/state.json/"},
		{"staged-staged", "staged-staged/state.json", "logs", "staged-staged-staged/staged/state.json/"},
		{"staged-staged", "staged/state.json", "logs", "staged/staged/state.json/"},
		{"staged-a/staged/b/feed", "a/b", "logs", "a/staged/b/"},
	}
	for _, tt := range tests {
		l := Layout{Bucket: "logs", Prefix: tt.prefix, StateBucket: tt.stateBucket, StateKey: tt.stateKey}
		if got := l.StagedFolder(); got != tt.want {
			t.Errorf("prefix %q, state %q in bucket %q: %q, want %q", tt.prefix, tt.stateKey, tt.stateBucket, got, tt.want)
		}
	}
}

func TestStateInFeed(t *testing.T) {
	for _, tt := range []struct {
		stateKey, stateBucket string
		one, in               bool
	}{
		{"feed/state.json", "logs", true, true},
		{"feed/a/state.json", "logs", true, true},
		{"feed/state.json", "states", false, false},
		{"feeds/state.json", "logs", true, false},
		{"feed", "logs", true, false},
		{"a/feed/state.json", "logs", true, false},
		{"state.json", "states", false, false},
	} {
		l := Layout{Bucket: "logs", Prefix: "feed", StateBucket: tt.stateBucket, StateKey: tt.stateKey}
		if got := l.StateInFeed(); got != tt.in {
			t.Errorf("%s in bucket %s: in the feed %v, want %v", tt.stateKey, tt.stateBucket, got, tt.in)
		}
		if got := l.OneBucket(); got != tt.one {
			t.Errorf("bucket %s: one bucket %v, want %v", tt.stateBucket, got, tt.one)
		}
	}
}

func TestFinal(t *testing.T) {
	for _, tt := range []struct{ last, want string }{
		{"", "openai_auditlog_20261124_010000.ndjson"},
		{"p/openai_auditlog_20261123_235959.ndjson", "openai_auditlog_20261124_010000.ndjson"},
		{"p/openai_auditlog_20261124_005959.ndjson", "openai_auditlog_20261124_010000.ndjson"},
		{"p/openai_auditlog_20261124_010000.ndjson", "openai_auditlog_20261124_010001.ndjson"},
		{"openai_auditlog_20261124_010000.ndjson", "openai_auditlog_20261124_010001.ndjson"},
		{"p/openai_auditlog_20261124_235959.ndjson", "openai_auditlog_20261125_000000.ndjson"},
		{"p/somebody's.ndjson", "openai_auditlog_20261124_010000.ndjson"},
	} {
		for _, now := range []time.Time{testNow, testNow.In(time.FixedZone("", 5*3600+1800))} {
			got := oneBucket.Final(tt.last, now)
			if got != "feed/"+tt.want {
				t.Errorf("after %q: %q, want %q in the feed", tt.last, got, tt.want)
			}
			if name := got[len("feed/"):]; !IsFinal(name) {
				t.Errorf("%q is no name of an object", name)
			}
		}
	}
}

func TestNext(t *testing.T) {
	for final, want := range map[string]string{
		"feed/openai_auditlog_20261124_010000.ndjson":       "feed/openai_auditlog_20261124_010001.ndjson",
		"a/b/openai_auditlog_20261231_235959.ndjson":        "a/b/openai_auditlog_20270101_000000.ndjson",
		"openai_auditlog_20280228_235959.ndjson":            "openai_auditlog_20280229_000000.ndjson",
		"f_20261124/openai_auditlog_20261124_015959.ndjson": "f_20261124/openai_auditlog_20261124_020000.ndjson",
	} {
		if got := Next(final); got != want {
			t.Errorf("after %q: %q, want %q", final, got, want)
		}
	}
}

func TestIsFinal(t *testing.T) {
	for name, want := range map[string]bool{
		"openai_auditlog_20261124_010000.ndjson":      true,
		"openai_auditlog_20280229_235959.ndjson":      true,
		"openai_auditlog_20260229_235959.ndjson":      false, // no such day
		"openai_auditlog_20261124_240000.ndjson":      false,
		"openai_auditlog_20261124_010000.ndjson.gz":   false,
		"openai_auditlog_20261124.ndjson":             false,
		"feed/openai_auditlog_20261124_010000.ndjson": false,
		"state.json": false,
		"":           false,
	} {
		if got := IsFinal(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

func TestURLs(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{oneBucket.FeedFolder(), "feed/"},
		{oneBucket.FeedURL("feed/a"), "gs://logs/feed/a"},
		{twoBuckets.FeedURL("feed/a"), "gs://logs/feed/a"},
		{oneBucket.StagedURL("state/staged/a"), "gs://logs/state/staged/a"},
		{twoBuckets.StagedURL("state/staged/a"), "gs://states/state/staged/a"},
		{oneBucket.StateURL(), "gs://logs/state/state.json"},
		{twoBuckets.StateURL(), "gs://states/state/state.json"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s, want %s", tt.got, tt.want)
		}
	}
}

func TestCheckStaged(t *testing.T) {
	const final = "openai_auditlog_20261124_010002.ndjson"
	for _, tt := range []struct{ staged, last, err string }{
		{"", "", ""},
		{"", "feed/" + final, ""},
		{"", "somebody's", ""},
		{"state/staged/state.json/x", "feed/" + final, ""},
		{"staged-feed/staged/state.json/x", final, ""},
		{"x/y", "feed/" + final, `"staged" is "x/y", and no staged object has such a name`},
		{"x/y", "", `"staged" is "x/y", and no staged object has such a name`},
		{"state/staged/state.json/x", "", `"last_object" is "", and "staged" needs a final name there`},
		{"staged\x1b[2J", "feed/" + final, `"staged" is "staged\x1b[2J", and no staged object has such a name`},
		{"state/staged/state.json/x", "feed\n/" + final, `"last_object" is "feed\n/` + final + `", and "staged" needs a final name there`},
		{"state/staged/state.json/x", "feed/x.ndjson", `"last_object" is "feed/x.ndjson", and "staged" needs a final name there`},
	} {
		got := ""
		if err := CheckStaged(tt.staged, tt.last); err != nil {
			got = err.Error()
		}
		if got != tt.err {
			t.Errorf("staged %q, last %q: error %q, want %q", tt.staged, tt.last, got, tt.err)
		}
	}
	// What a collector makes, it takes again.
	for _, l := range []Layout{oneBucket, twoBuckets, {Bucket: "b", Prefix: "feed", StateBucket: "b", StateKey: "feed/s"}} {
		if err := CheckStaged(l.StagedFolder()+"x", l.Final("", testNow)); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
}
