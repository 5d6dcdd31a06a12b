package checkup

import (
	"testing"
	"time"

	"cloud.google.com/go/storage"

	"example.com/auditlog/internal/config"
	"example.com/auditlog/internal/store"
)

// TestLifecycleHits goes through the conditions of a rule that deletes.
func TestLifecycleHits(t *testing.T) {
	cfg, err := config.Load(map[string]string{"GCS_BUCKET": "logs", "OPENAI_ADMIN_KEY": "k", "STATE_KEY": "state/openai-auditlog/state.json"})
	if err != nil {
		t.Fatal(err)
	}
	k := &checkup{cfg: cfg, store: &store.Store{Options: store.Options{Layout: cfg.Layout()}}}
	both, past := "the state and staged objects", time.Now().Add(-48*time.Hour)
	for name, c := range map[string]struct {
		condition storage.LifecycleCondition
		want      string
	}{
		"age":            {storage.LifecycleCondition{AgeInDays: 3}, both},
		"all":            {storage.LifecycleCondition{AllObjects: true}, both},
		"live":           {storage.LifecycleCondition{AgeInDays: 3, Liveness: storage.Live}, both},
		"noncurrent":     {storage.LifecycleCondition{Liveness: storage.Archived}, ""},
		"newer versions": {storage.LifecycleCondition{NumNewerVersions: 2}, ""},
		"days since":     {storage.LifecycleCondition{DaysSinceNoncurrentTime: 2}, ""},
		"noncurrent at":  {storage.LifecycleCondition{NoncurrentTimeBefore: past}, ""},
		"custom time":    {storage.LifecycleCondition{DaysSinceCustomTime: 2}, ""},
		"custom at":      {storage.LifecycleCondition{CustomTimeBefore: past}, ""},
		"created before": {storage.LifecycleCondition{CreatedBefore: past}, ""},
		"created until":  {storage.LifecycleCondition{CreatedBefore: time.Now().Add(time.Hour)}, both},
		"its class":      {storage.LifecycleCondition{MatchesStorageClasses: []string{"NEARLINE", "STANDARD"}}, both},
		"class it gets":  {storage.LifecycleCondition{MatchesStorageClasses: []string{"COLDLINE"}}, both},
		"another class":  {storage.LifecycleCondition{MatchesStorageClasses: []string{"ARCHIVE"}}, ""},
		"above":          {storage.LifecycleCondition{MatchesPrefix: []string{"x", "sta"}}, both},
		"elsewhere":      {storage.LifecycleCondition{MatchesPrefix: []string{"x", "states/"}}, ""},
		"ndjson":         {storage.LifecycleCondition{MatchesSuffix: []string{".ndjson"}}, "staged objects"},
		"json":           {storage.LifecycleCondition{MatchesSuffix: []string{"e.json"}}, "the state"},
	} {
		rule := storage.LifecycleRule{Action: storage.LifecycleAction{Type: storage.DeleteAction}, Condition: c.condition}
		attrs := &storage.BucketAttrs{StorageClass: "STANDARD", Lifecycle: storage.Lifecycle{Rules: []storage.LifecycleRule{
			rule, {Action: storage.LifecycleAction{Type: storage.SetStorageClassAction, StorageClass: "COLDLINE"}}}}}
		if got := k.hits(rule, attrs); got != c.want {
			t.Errorf("%s: hits %q, want %q", name, got, c.want)
		}
	}
	// With Autoclass an object may get any class.
	rule := storage.LifecycleRule{Action: storage.LifecycleAction{Type: storage.DeleteAction}, Condition: storage.LifecycleCondition{MatchesStorageClasses: []string{"ARCHIVE"}}}
	if got := k.hits(rule, &storage.BucketAttrs{StorageClass: "STANDARD", Autoclass: &storage.Autoclass{Enabled: true}}); got != both {
		t.Errorf("Autoclass: hits %q", got)
	}
}
