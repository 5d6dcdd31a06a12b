// Package names defines the names and places of the collector's objects: the records under the feed
// prefix, the state, and the staged objects beside it.
//
// It promises that nothing uncommitted lies where the feed looks, and that each state has its own
// folder of staged objects. It knows nothing about the content of objects.
package names

import (
	"fmt"
	"path"
	"strings"
	"time"
	"unicode"
)

// FinalLayout is the name, below the feed prefix, of a published object: a time layout, UTC. Names
// and folders are the Python function's.
const FinalLayout = "openai_auditlog_20060102_150405.ndjson"

// Longest is the longest name of an object, in bytes
// (https://cloud.google.com/storage/docs/objects#naming).
const Longest = 1024

// Layout is where all objects of a collector lie.
type Layout struct {
	Bucket      string // that the feed reads
	Prefix      string // the feed's folder in it, without slashes around
	StateBucket string
	StateKey    string // name of the state object
}

// OneBucket reports whether state and feed share a bucket: an object is then published by a rename.
func (l Layout) OneBucket() bool { return l.StateBucket == l.Bucket }

// FeedFolder is the folder that the feed reads, with its trailing slash.
func (l Layout) FeedFolder() string { return l.Prefix + "/" }

// StateInFeed reports whether the feed would ingest the state object.
func (l Layout) StateInFeed() bool {
	return l.OneBucket() && strings.HasPrefix(l.StateKey, l.FeedFolder())
}

// StagedFolder is the folder of staged objects, with its trailing slash. It lies beside the state, and is
// for this state only: a sweep knows no other state. It never lies under the feed prefix, since staged
// objects must not reach the feed; nor above it, since a sweep must not reach the feed's objects.
func (l Layout) StagedFolder() string {
	dir := path.Join(path.Dir(l.StateKey), "staged", path.Base(l.StateKey)) + "/"
	feed := l.FeedFolder()
	for l.OneBucket() && (strings.HasPrefix(dir, feed) || strings.HasPrefix(feed, dir)) {
		dir = "staged-" + dir
	}
	return dir
}

// Final is the full name of a run's object under the feed prefix. Its second is later than the last
// object's, so that no two share a name.
func (l Layout) Final(last string, now time.Time) string {
	return l.FeedFolder() + finalAfter(last, now)
}

// Next is the name one second after final, in the same folder.
func Next(final string) string {
	return final[:strings.LastIndexByte(final, '/')+1] + finalAfter(final, time.Time{})
}

func finalAfter(last string, now time.Time) string {
	now = now.UTC().Truncate(time.Second)
	if t, err := time.Parse(FinalLayout, path.Base(last)); err == nil && !now.After(t) {
		now = t.Add(time.Second)
	}
	return now.Format(FinalLayout)
}

// IsFinal reports whether a run gives an object this name, below the feed prefix.
func IsFinal(name string) bool {
	t, err := time.Parse(FinalLayout, name)
	return err == nil && t.Format(FinalLayout) == name // Parse accepts fractions
}

// FeedURL is the gs:// URL of an object in the feed's bucket.
func (l Layout) FeedURL(name string) string { return "gs://" + l.Bucket + "/" + name }

// StagedURL is the gs:// URL of an object in the state's bucket.
func (l Layout) StagedURL(name string) string { return "gs://" + l.StateBucket + "/" + name }

// StateURL is the gs:// URL of the state object.
func (l Layout) StateURL() string { return l.StagedURL(l.StateKey) }

// CheckStaged refuses a state with an impossible staged object: staged is its name or "", last its
// final name.
func CheckStaged(staged, last string) error {
	switch {
	case staged == "":
		return nil
	case !strings.Contains(staged, "staged"), strings.ContainsFunc(staged, unicode.IsControl):
		return fmt.Errorf(`"staged" is %q, and no staged object has such a name`, staged)
	case !IsFinal(path.Base(last)), strings.ContainsFunc(last, unicode.IsControl):
		return fmt.Errorf(`"last_object" is %q, and "staged" needs a final name there`, last)
	}
	return nil
}
