package checkup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"
	"time"

	"cloud.google.com/go/storage"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/store"
)

const (
	feedStale  = 2 * time.Hour // a feed looks every 15 minutes
	feedListed = 10000         // names read at most
)

const sameKey = "set the Admin key of the state's organization, or give each organization a STATE_KEY and GCS_PREFIX of its own; if it was renamed, remove \"organization\" from the state object"

// state checks how far runs have come, and whether they still start.
func (k *checkup) state(ctx context.Context) Finding {
	snapshot, err := k.store.Load(ctx)
	if damaged, ok := errors.AsType[*store.Damaged](err); ok {
		return failure(damaged.Remedy()+"; deleting it makes a first run", "state %s is %s; runs refuse it", k.store.StateURL(), k.show(err.Error()))
	}
	if err != nil {
		return k.refused(ctx, "reading state "+k.store.StateURL(), err, k.forState("storage.objects.get"))
	}
	k.snapshot = snapshot
	if snapshot.First() {
		return good("%s is not there: the next run is the first, and reaches back %s", k.store.StateURL(), audit.Count(int(k.cfg.Lookback), "hour"))
	}
	return k.progress(snapshot)
}

// organization checks that the key belongs to the organization whose records the state has.
func (k *checkup) organization(context.Context) Finding {
	if k.snapshot == nil {
		return skipped("needs the state: see state")
	}
	if k.snapshot.First() {
		return skipped("no run has recorded one yet: the first run records that of its key")
	}
	switch own, ofKey := k.snapshot.State.Organization, k.answer.Organization; {
	case ofKey == "":
		return skipped("the API did not say whose key it is")
	case own == "":
		return good("the state does not name one yet; the next run makes it %q", audit.Shorten(ofKey))
	case own != ofKey:
		return failure(sameKey, "OPENAI_ADMIN_KEY belongs to organization %q, the state to %q: runs refuse that", audit.Shorten(ofKey), audit.Shorten(own))
	}
	return good("key and state belong to the same organization")
}

// age is how long ago the run that committed the state began; if unknown, how long ago the state
// was written.
func age(s *store.Snapshot) time.Duration {
	t, err := time.Parse(time.RFC3339, s.State.LastRun)
	if err != nil {
		t = s.Written
	}
	return time.Since(t)
}

func (k *checkup) progress(snapshot *store.Snapshot) Finding {
	s, age := &snapshot.State, age(snapshot)
	collectedTo := s.CollectedTo(k.cfg.TenantEvents)
	text := fmt.Sprintf("new records are collected up to %s, by a run %s ago", audit.Time(collectedTo), roughly(max(0, age)))
	windows := s.Windows(k.cfg.TenantEvents)
	high := s.High
	if t := s.Tenant; t != nil && k.cfg.TenantEvents {
		high = max(high, t.High)
	}
	if windows.Open > 0 {
		text += fmt.Sprintf("; windows left for the next runs: %d", windows.Open)
	}
	for _, b := range s.Backfills(k.cfg.TenantEvents) {
		text += fmt.Sprintf("; of the backfill %s, %s left", b, roughly(time.Duration(b.Left)*time.Second))
	}
	if snapshot.Note != "" {
		text += "; " + snapshot.Note
	}
	switch ahead := time.Until(time.Unix(high, 0)); {
	case age > k.cfg.MaxLag():
		return warning("see whether the job in Cloud Scheduler is paused or fails, whether the topic has its trigger, and what the function's log says under \"Run failed\"",
			"%s: no run has committed since", text)
	case time.Since(time.Unix(collectedTo, 0)) > k.cfg.MaxLag():
		return warning("the next runs read what is left, the newest records first; where it grows, raise MAX_RECORDS or RUN_TIMEOUT_SECONDS, or run more often",
			"%s: new records wait to be read", text)
	case windows.SetAside > 0:
		return warning("see what the runs' log says of each, under \"set aside\"; auditlog backfill --cancel gives one up",
			"%s; ranges that the API cannot serve, set aside: %d", text, windows.SetAside)
	case ahead > skewTolerated:
		return warning("compare this host's clock, and that of the runs, with the API's; where \"high\" or last_effective_at was set by hand, set it back",
			"%s; its \"high\" is %s ahead of now: until then, new records are looked for from there on", text, roughly(ahead))
	}
	return good("%s", text)
}

// staged looks for records that are committed but not yet in the feed.
func (k *checkup) staged(ctx context.Context) Finding {
	if k.snapshot == nil {
		return skipped("needs the state: see state")
	}
	if k.snapshot.First() {
		return good("no run has staged anything")
	}
	s := k.snapshot.State.Staging
	if s.Staged == "" {
		return good("nothing is left to publish")
	}
	if s.Elsewhere(k.cfg.StateBucket) {
		return failure(fmt.Sprintf("set STATE_BUCKET back to %q for one run, or move the object to the same name in the new bucket, and in the state change \"staged_bucket\" and remove \"staged_generation\"", s.StagedBucket),
			"the state names %s as staged in bucket %q, but STATE_BUCKET is now %q: runs refuse that", s.Staged, s.StagedBucket, k.cfg.StateBucket)
	}
	generation, _, err := k.store.FindStaged(ctx, s)
	k.pending = err != nil || s.Stages(generation)
	switch {
	case err != nil:
		return k.refused(ctx, "looking for what is staged", err, k.forStaged("storage.objects.list"))
	case generation == 0:
		return good("nothing is left to publish")
	case !k.pending:
		return warning("see what the next run's log says of it", "%s was written again after its commit: it may hold records that were not published", k.store.StagedURL(s.Staged))
	case age(k.snapshot) > time.Duration(k.cfg.Interval)*time.Minute:
		return warning("see what the function's log says under \"publishing\"; once that is mended, the next run publishes them",
			"records of a run %s ago are committed but not published: %s", roughly(age(k.snapshot)), k.store.StagedURL(s.Staged))
	}
	return good("the last run's records are about to be published, or the next run publishes them: %s", k.store.StagedURL(s.Staged))
}

// feedCreate tries an upload without content, on the condition that it replaces a generation that
// does not exist. Without the permission it is refused for that, else for the condition. Nothing is
// written either way.
func (k *checkup) feedCreate(ctx context.Context) Finding {
	if k.lax {
		return skipped("where conditions are ignored, trying would write an object that the feed sees: see probe_condition")
	}
	name, folder := probeName(k.store.FeedFolder()), k.store.FeedURL(k.store.FeedFolder())
	_, err := k.store.Put(ctx, k.store.Feed.Object(name).If(storage.Conditions{GenerationMatch: 1}), probeType, nil)
	switch text := fmt.Sprint(err); {
	case err == nil:
		step, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.store.Step)
		defer cancel()
		left := ""
		if err := k.store.Feed.Object(name).Delete(step); err != nil {
			left = "; delete " + k.store.FeedURL(name)
		}
		return failure(dropsConditions+left, "an empty object was written on a condition that did not hold")
	case store.StatusOf(err) == http.StatusPreconditionFailed:
		return good("creating objects in %s is allowed (tried without writing one)", folder)
	case store.CauseOf(err) == store.NoRole && !strings.Contains(text, "storage.objects.create") &&
		(strings.Contains(text, "storage.objects.delete") || strings.Contains(text, "storage.objects.list")):
		// This request needs permissions that a run does not need.
		return skipped("whether creating objects is allowed could not be told without writing one: %s", k.show(store.Said(err)))
	}
	return k.refused(ctx, "creating an object in "+folder, err, k.forFeed("storage.objects.create", roleCreator))
}

// feedRead tries what a copy from a STATE_BUCKET needs if its answer is lost.
func (k *checkup) feedRead(ctx context.Context) Finding {
	step, cancel := context.WithTimeout(ctx, k.store.Step)
	defer cancel()
	folder := k.store.FeedURL(k.store.FeedFolder())
	_, err := k.store.Feed.Object(probeName(k.store.FeedFolder())).Attrs(step)
	switch {
	case err == nil || errors.Is(err, storage.ErrObjectNotExist) && !store.BucketMissing(err):
		return good("reading objects in %s is allowed", folder)
	case store.CauseOf(err) == store.NoRole && strings.Contains(err.Error(), "storage.objects.list"):
		// Who may not list is not told that there is no such object.
		return skipped("whether reading objects is allowed could not be told without one: %s", k.show(store.Said(err)))
	}
	return k.refused(ctx, "reading in "+folder, err, k.forFeed("storage.objects.get", roleViewer))
}

type listing struct {
	objects, stale int
	bytes          int64
	oldest, newest time.Time
	strange        []string // names that no run gives
	last           bool     // the state's last object is there
	whole          bool     // all names were read
}

// feed checks how much lies in the feed's folder, and for how long. It can detect a feed that does not
// read only where the feed deletes what it has taken.
func (k *checkup) feed(ctx context.Context) Finding {
	folder := k.store.FeedURL(k.store.FeedFolder())
	last := "" // the state's last object, if it should be there
	if k.snapshot != nil && !k.pending && path.Dir(k.snapshot.State.LastObject) == k.cfg.Prefix {
		last = k.snapshot.State.LastObject
	}
	l, err := k.list(ctx, last)
	switch {
	case store.CauseOf(err) == store.NoRole:
		return skipped("this account may not list %s: storage.objects.list comes for example with %s; %s", folder, roleViewer, byHand)
	case err != nil:
		return k.refused(ctx, "listing "+folder, err, k.forFeed("storage.objects.list", roleViewer))
	}
	text := folder + " is empty"
	if l.objects > 0 {
		text = fmt.Sprintf("%s has %s of %s, the oldest %s, the newest %s old", folder, audit.Count(l.objects, "object"), audit.Count(int(l.bytes), "byte"), roughly(time.Since(l.oldest)), roughly(time.Since(l.newest)))
	}
	if !l.whole {
		text += fmt.Sprintf("; only the first %d were looked at", feedListed)
	}
	deletes := last != "" && !l.last && l.whole
	switch {
	case len(l.strange) > 0:
		return warning("move what is not the collector's elsewhere: the feed ingests everything in its folder",
			"%s; not the collector's: %s", text, audit.Shorten(strings.Join(l.strange, ", ")))
	case deletes && l.stale > 0:
		return warning("look at the feed in SecOps (SIEM Settings > Feeds): its status, its last transfer, and the roles of its service account",
			"%s; %d of them have lain there for more than %s, though the feed, or a rule, deletes what it is done with: the feed does not pick up", text, l.stale, roughly(feedStale))
	case deletes:
		return good("%s; the feed, or a rule, deletes what it is done with", text)
	case l.objects == 0:
		return good("%s", text)
	}
	return good("%s; whether the feed has taken them shows in SecOps (SIEM Settings > Feeds)", text)
}

func (k *checkup) list(ctx context.Context, last string) (l listing, err error) {
	step, cancel := context.WithTimeout(ctx, k.store.Step)
	defer cancel()
	read := 0
	for o, err := range k.store.Objects(step) {
		if err != nil {
			return l, err
		}
		if read++; read > feedListed {
			return l, nil
		}
		name := k.store.FeedFolder() + o.Name
		if o.Name == "" || k.store.StateInFeed() && name == k.cfg.StateKey {
			continue // the folder itself; the state: settings warns about that
		}
		if !o.Collected && len(l.strange) < 5 {
			l.strange = append(l.strange, name)
		}
		at := o.Updated // a move may keep Created
		if at.Before(o.Created) {
			at = o.Created
		}
		if l.objects++; l.objects == 1 || at.Before(l.oldest) {
			l.oldest = at
		}
		if at.After(l.newest) {
			l.newest = at
		}
		if time.Since(at) > feedStale {
			l.stale++
		}
		l.bytes += o.Size
		l.last = l.last || name == last
	}
	l.whole = true
	return l, nil
}
