package checkup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/storage"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/store"
)

// Roles, as the console and gcloud name them.
const (
	roleUser    = "Storage Object User (roles/storage.objectUser)"
	roleCreator = "Storage Object Creator (roles/storage.objectCreator)"
	roleViewer  = "Storage Object Viewer (roles/storage.objectViewer)"
	roleBucket  = "Storage Legacy Bucket Reader (roles/storage.legacyBucketReader)"

	byHand = `the function does without; to have it looked at, run "auditlog check" with an account that has it`
)

// need is a permission that a check needs in its bucket, a role that has it, and where to grant that.
type need struct {
	folder           string // "" for the bucket as a whole
	permission, role string
}

func (n need) grant(bucket string) string {
	where := "the bucket gs://" + bucket
	if n.folder != "" {
		where = fmt.Sprintf("the managed folder gs://%s/%s, or on the bucket,", bucket, n.folder)
	}
	return fmt.Sprintf("grant %s on %s to the account that runs this", n.role, where)
}

// forState is a need at the state, or at objects beside it.
func (k *checkup) forState(permission string) need {
	n := need{permission: permission, role: roleUser}
	if dir := path.Dir(k.cfg.StateKey); dir != "." {
		n.folder = dir + "/"
	}
	return n
}

// forStaged is a need at staged objects: beside the state, unless that lies in the feed's folder.
func (k *checkup) forStaged(permission string) need {
	n := k.forState(permission)
	if !strings.HasPrefix(k.store.StagedFolder(), n.folder) {
		n.folder = k.store.StagedFolder()
	}
	return n
}

func (k *checkup) forFeed(permission, role string) need {
	return need{k.store.FeedFolder(), permission, role}
}

// refused is the finding of a storage request that failed.
func (k *checkup) refused(ctx context.Context, doing string, err error, n need) Finding {
	if ctx.Err() != nil {
		return interrupted()
	}
	if unusable(err) {
		k.down[k.current.bucket] = k.current.name
	}
	detail, remedy := k.explainStorage(err, n)
	return failure(remedy, "%s: %s", doing, detail)
}

func (k *checkup) explainStorage(err error, n need) (detail, remedy string) {
	detail = k.show(store.Said(err))
	bucket, setting := k.current.bucket, "GCS_BUCKET"
	if bucket != k.cfg.Bucket {
		setting = "STATE_BUCKET"
	}
	switch cause, status := store.CauseOf(err), store.StatusOf(err); {
	case cause == store.NoBucket:
		return fmt.Sprintf("there is no bucket %q", bucket), fmt.Sprintf("set %s to a bucket that exists, or create this one", setting)
	case cause == store.NoRole:
		return fmt.Sprintf("%s is not allowed: %s", n.permission, detail), n.grant(bucket)
	case cause != store.Unknown:
		remedy = cause.Remedy()
	case errors.Is(err, context.DeadlineExceeded):
		detail = fmt.Sprintf("no good answer within %s: %s", k.store.Step, detail)
		remedy = "try again; where it stays so, check whether a firewall or proxy keeps this host from Cloud Storage, and STORAGE_EMULATOR_HOST if set"
	case status == http.StatusNotImplemented, status == http.StatusMethodNotAllowed, status == http.StatusNotFound:
		remedy = "talk to Cloud Storage itself: a proxy or emulator on the way does not know this request"
	default:
		remedy = "try again; where it stays so, read what Cloud Storage says, and check the network"
	}
	return detail, remedy
}

// unusable reports whether err concerns the whole bucket, so that the next steps would fail in the
// same way.
func unusable(err error) bool {
	cause := store.CauseOf(err)
	op, network := errors.AsType[*net.OpError](err)
	return cause == store.NoBucket || cause == store.NoCredentials || cause == store.OutsidePerimeter || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, new(*net.DNSError)) || network && op.Op == "dial"
}

func (k *checkup) stateBucket(ctx context.Context) (f Finding) {
	k.attrs, f = k.bucket(ctx, k.store.States)
	return f
}

func (k *checkup) feedBucket(ctx context.Context) Finding {
	_, f := k.bucket(ctx, k.store.Feed)
	return f
}

// bucket looks at a bucket's settings.
func (k *checkup) bucket(ctx context.Context, b *storage.BucketHandle) (*storage.BucketAttrs, Finding) {
	step, cancel := context.WithTimeout(ctx, k.store.Step)
	defer cancel()
	attrs, err := b.Attrs(step)
	name := k.current.bucket
	switch {
	case store.CauseOf(err) == store.NoRole:
		return nil, skipped("this account may not look at the settings of gs://%s: storage.buckets.get comes for example with %s; %s", name, roleBucket, byHand)
	case err != nil:
		return nil, k.refused(ctx, "reading the settings of gs://"+name, err, need{permission: "storage.buckets.get", role: roleBucket})
	}
	note := "uniform access"
	if !attrs.UniformBucketLevelAccess.Enabled {
		note = "note: uniform bucket-level access is off, so that roles cannot be granted on folders, and objects have lists of their own"
	}
	return attrs, good("gs://%s exists; %s", name, note)
}

// retention looks for whatever would keep the state from being replaced. Then there must be no probe
// either: it could not be removed.
func (k *checkup) retention(ctx context.Context) Finding {
	attrs := k.attrs
	var kept []string
	if attrs != nil {
		if p := attrs.RetentionPolicy; p != nil && p.RetentionPeriod > 0 {
			locked := ""
			if p.IsLocked {
				locked = ", which is locked"
			}
			kept = append(kept, fmt.Sprintf("gs://%s has a retention policy of %s%s", attrs.Name, roughly(p.RetentionPeriod), locked))
		}
		if attrs.DefaultEventBasedHold {
			kept = append(kept, fmt.Sprintf("gs://%s puts an event-based hold on new objects", attrs.Name))
		}
	}
	step, cancel := context.WithTimeout(ctx, k.store.Step)
	defer cancel()
	object, err := k.store.States.Object(k.cfg.StateKey).Attrs(step)
	if err == nil {
		if held := heldBy(object); held != "" {
			kept = append(kept, "the state object is under "+held)
		}
	}
	switch {
	case len(kept) > 0:
		k.retained = true
		return failure(store.Retained.Remedy(), "%s: the state could not be replaced, nor staged objects moved", strings.Join(kept, "; "))
	case attrs != nil && err == nil:
		return good("neither a retention policy nor a hold on gs://%s and the state", attrs.Name)
	case attrs != nil:
		return good("neither a retention policy nor a hold on gs://%s", attrs.Name)
	case err == nil:
		return good("neither a retention nor a hold on the state object; the bucket's own settings may not be looked at")
	}
	return skipped("neither the bucket's settings nor a state object to look at; the probe tells")
}

// heldBy returns what keeps an object from being replaced, "" for nothing.
func heldBy(o *storage.ObjectAttrs) string {
	switch now := time.Now(); {
	case o.TemporaryHold:
		return "a temporary hold"
	case o.EventBasedHold:
		return "an event-based hold"
	case o.Retention != nil && o.Retention.RetainUntil.After(now):
		return "a retention of its own until " + audit.Time(o.Retention.RetainUntil.Unix())
	case o.RetentionExpirationTime.After(now):
		return "a retention policy until " + audit.Time(o.RetentionExpirationTime.Unix())
	}
	return ""
}

// lifecycle looks for rules that delete what the collector needs.
func (k *checkup) lifecycle(context.Context) Finding {
	attrs := k.attrs
	if attrs == nil {
		return skipped("the settings of gs://%s may not be looked at", k.cfg.StateBucket)
	}
	var found []string
	worst := ResultOK
	for _, rule := range attrs.Lifecycle.Rules {
		what := k.hits(rule, attrs)
		if what == "" {
			continue
		}
		age := time.Duration(rule.Condition.AgeInDays) * 24 * time.Hour
		found = append(found, fmt.Sprintf("a rule deletes %s at an age of %s", what, audit.Count(int(rule.Condition.AgeInDays), "day")))
		if age < 48*time.Hour {
			worst = ResultFailure
		} else if worst == ResultOK {
			worst = ResultWarning
		}
	}
	if worst == ResultOK {
		return good("no rule of gs://%s deletes the state or staged objects", attrs.Name)
	}
	return Finding{
		Result: worst,
		Detail: strings.Join(found, "; ") + ": where runs stop for that long, what is collected or staged is forgotten or lost",
		Remedy: fmt.Sprintf("limit the rule to %s (matchesPrefix), or to noncurrent versions", k.store.FeedURL(k.store.FeedFolder())),
	}
}

// hits returns which of the collector's own objects a rule may delete while they are live, "" for
// none. Runs replace the state and never set a custom time.
func (k *checkup) hits(rule storage.LifecycleRule, attrs *storage.BucketAttrs) string {
	c := rule.Condition
	class := len(c.MatchesStorageClasses) == 0 || slices.Contains(c.MatchesStorageClasses, attrs.StorageClass) || attrs.Autoclass != nil
	for _, r := range attrs.Lifecycle.Rules { // another rule may have given the object that class
		class = class || r.Action.Type == storage.SetStorageClassAction && slices.Contains(c.MatchesStorageClasses, r.Action.StorageClass)
	}
	switch {
	case rule.Action.Type != storage.DeleteAction, !class,
		c.Liveness == storage.Archived, c.NumNewerVersions > 0, c.DaysSinceNoncurrentTime > 0, !c.NoncurrentTimeBefore.IsZero(),
		!c.CustomTimeBefore.IsZero(), c.DaysSinceCustomTime > 0,
		!c.CreatedBefore.IsZero() && c.CreatedBefore.Before(time.Now()):
		return ""
	}
	matches := func(of func(given string) bool, list []string) bool {
		return len(list) == 0 || slices.ContainsFunc(list, of)
	}
	const ends = ".ndjson"
	dir := k.store.StagedFolder()
	state := matches(func(p string) bool { return strings.HasPrefix(k.cfg.StateKey, p) }, c.MatchesPrefix) &&
		matches(func(s string) bool { return strings.HasSuffix(k.cfg.StateKey, s) }, c.MatchesSuffix)
	staged := matches(func(p string) bool { return strings.HasPrefix(dir, p) || strings.HasPrefix(p, dir) }, c.MatchesPrefix) &&
		matches(func(s string) bool { return strings.HasSuffix(ends, s) || strings.HasSuffix(s, ends) }, c.MatchesSuffix)
	switch {
	case state && staged:
		return "the state and staged objects"
	case state:
		return "the state"
	case staged:
		return "staged objects"
	}
	return ""
}
