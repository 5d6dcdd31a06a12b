package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestFormats: a state of each format that a release has written is read, and keeps
// all that it says.
func TestFormats(t *testing.T) {
	files, err := filepath.Glob("testdata/formats/*.json")
	if err != nil || len(files) != 11 {
		t.Fatalf("%v %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s, note, err := Decode(bytes.NewReader(data), time.Date(2026, 11, 27, 3, 0, 0, 0, time.UTC))
		if err != nil || note != "" || s.Watermark != s.ImpliedWatermark() {
			t.Errorf("%s: note %q, error %v, watermark %d", file, note, err, s.Watermark)
		}
		var before, after map[string]any
		if err := errors.Join(json.Unmarshal(data, &before), json.Unmarshal([]byte(encoded(t, s)), &after)); err != nil {
			t.Fatal(err)
		}
		for key, value := range before {
			if diff := cmp.Diff(value, after[key]); diff != "" {
				t.Errorf("%s: %q differs (-before +after):\n%s", file, key, diff)
			}
		}
		if after["version"] != 1.0 {
			t.Errorf("%s is stored as version %v", file, after["version"])
		}
	}
}

func TestVersion(t *testing.T) {
	for _, tt := range []struct{ version, why string }{
		{"1", ""},
		{"1.0", ""},
		{"2", "it has version 2, and this release reads version 1 at most"},
		{"2e3", "it has version 2000"},
		{"0", `"version" is 0, which is no positive whole number`},
		{"-1", "is -1, which"},
		{"1.5", "is 1.5, which"},
		{"1e300", "no positive whole number"},
		{"null", "no positive whole number"},
		{`"1"`, `is "1", which`},
		{`"` + strings.Repeat("1", 1000) + `"`, "1…, which"},
		{"[1]", "is [1], which"},
	} {
		_, _, err := Decode(strings.NewReader(fmt.Sprintf(`{"last_effective_at": 5, "version": %s}`, tt.version)), testNow)
		if tt.why == "" && err != nil || tt.why != "" && (err == nil || !strings.Contains(err.Error(), tt.why)) {
			t.Errorf("%s: %v", tt.version, err)
		}
		if newer := strings.HasPrefix(tt.version, "2"); errors.Is(err, ErrNewer) != newer {
			t.Errorf("%s: newer %v, %v", tt.version, !newer, err)
		}
	}
	// Its other keys may mean anything.
	if _, _, err := Decode(strings.NewReader(`{"version": 2, "last_effective_at": "x", "high": {}}`), testNow); !errors.Is(err, ErrNewer) {
		t.Error(err)
	}
}

// TestUnknown: a key that differs from a known one only in case is the known one, as
// for every release before: kept beside it, it would win when it is read again.
func TestUnknown(t *testing.T) {
	s, _, err := Decode(strings.NewReader(`{"last_effective_at": 9, "HIGH": 9, "Organization": "o", "": 1, "-": 2, "z": [], "a": "<"}`), testNow)
	if err != nil || s.High != 9 || s.Organization != "o" || s.Unknown != `,"":1,"-":2,"a":"\u003c","z":[]` {
		t.Errorf("%+v, %v", s, err)
	}
}
