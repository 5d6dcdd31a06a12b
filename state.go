package auditlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"
)

// maxStateBytes bounds the state object that is read: 64 MiB hold the ids of
// about a million records.
const maxStateBytes = 64 << 20

// State is the content of the state object.
//
// The Python function's state has the first two keys only and is read as it
// is; that function in turn reads ours by its first key.
type State struct {
	Stream

	// Tenant is the stream of tenant-scoped records; nil where none was read.
	Tenant *Stream `json:"tenant,omitempty"`

	// Staged names the object that the commit of this state makes part of the
	// feed, until a later state does not name it; LastObject is its final name.
	LastObject string `json:"last_object,omitempty"`
	Staged     string `json:"staged,omitempty"`
	// StagedGeneration is the one to publish, 0 for any. Once it has been moved
	// away, an upload that was sent twice can still land late and bring an
	// object of the same name back.
	StagedGeneration int64 `json:"staged_generation,omitempty"`
	// StagedBucket is where it lies: STATE_BUCKET may have changed since.
	StagedBucket string `json:"staged_bucket,omitempty"`

	// Organization is the one whose records these are, as the API names it.
	Organization string `json:"organization,omitempty"`

	// LastBackfill is an id of the last backfill that was put into a backlog.
	LastBackfill string `json:"last_backfill,omitempty"`
}

// counted lists the streams whose backlog and lag count; tenant is TENANT_EVENTS.
// Of one that was never read, failures tell.
func (s *State) counted(tenant bool) []*Stream {
	if tenant && s.Tenant != nil && !s.Tenant.Unread {
		return []*Stream{&s.Stream, s.Tenant}
	}
	return []*Stream{&s.Stream}
}

// stages reports whether an object of this generation is the one that Staged
// names.
func (s *State) stages(generation int64) bool {
	return generation != 0 && (s.StagedGeneration == 0 || s.StagedGeneration == generation)
}

// window is a range of effective_at that is not read to its end: both ends
// included, with the cursor reached in it.
type window struct {
	Gte   int64  `json:"gte"`
	Lte   int64  `json:"lte"`
	After string `json:"after,omitempty"` // "" where reading begins at the start

	// AfterAt is the effective_at of the record that After names, Top that of
	// the first record read.
	AfterAt int64 `json:"after_at,omitempty"`
	Top     int64 `json:"top,omitempty"`
	// Unordered is set once records of the window did not come newest first.
	Unordered bool `json:"unordered,omitempty"`

	// Filter limits what it brings. It stays what it was as the window began,
	// whatever the settings become.
	Filter filter `json:"filter,omitempty"`
}

// descends reports whether the window has been seen to come newest first, so
// that all of it above AfterAt is read. That no record came out of order is not
// enough: those of one second are in any order.
func (w *window) descends() bool {
	return w.After != "" && !w.Unordered && w.contains(w.AfterAt) && w.AfterAt < w.Top
}

func (w *window) contains(at int64) bool { return w.Gte <= at && at <= w.Lte }

// unread reports whether a record at this time may be one that the window has
// yet to bring, and not one that appeared late.
func (w *window) unread(at int64) bool {
	return w.contains(at) && (!w.descends() || at <= w.AfterAt)
}

// advance notes that a page has been taken: the cursor moves to its last record.
func (w *window) advance(p page) {
	last := w.AfterAt
	if w.After == "" {
		last = w.Lte
		if len(p.records) > 0 {
			w.Top = p.records[0].at
		}
	}
	for _, r := range p.records {
		w.Unordered = w.Unordered || r.at > last
		last = r.at
	}
	if n := len(p.records); n > 0 {
		w.Unordered = w.Unordered || p.more && p.records[n-1].id != p.cursor
		w.AfterAt = last
	}
	w.After = p.cursor
}

// restart makes the window begin anew without its cursor, which the API
// refuses, and reports whether records may be repeated by that.
func (w *window) restart() (repeats bool) {
	switch {
	case w.descends():
		w.Lte = w.AfterAt
	case w.AfterAt == w.Top && !w.Unordered && w.contains(w.AfterAt):
		// All that was read lies in this second; those ids are remembered.
	default:
		repeats = true
	}
	w.After, w.AfterAt, w.Top, w.Unordered = "", 0, 0, false
	return repeats
}

// snapshot is the state as one read of the object gave it.
type snapshot struct {
	State
	generation int64 // 0: there is no object, this is the first run
	note       string
}

// decodeState reads a state object. Of what no collector can have written it
// says why it refuses it.
func decodeState(data []byte, now time.Time) (snapshot, error) {
	var stored struct {
		State
		Tenant json.RawMessage `json:"tenant"`

		// These hide keys that decodeStream reads.
		Watermark json.RawMessage `json:"last_effective_at"`
		LastRun   json.RawMessage `json:"last_run"`
		RecentIDs json.RawMessage `json:"recent_ids"`
	}
	main, note, err := decodeStream(data, now)
	if err != nil {
		return snapshot{}, err
	}
	if err := json.Unmarshal(data, &stored); err != nil {
		return snapshot{}, err
	}
	snap := snapshot{State: stored.State, note: note}
	snap.Stream = main
	if t := stored.Tenant; len(t) > 0 && string(t) != "null" {
		tenant, note, err := decodeStream(t, now)
		if err != nil {
			return snapshot{}, fmt.Errorf(`"tenant": %w`, err)
		}
		if snap.Tenant = &tenant; note != "" {
			snap.note = strings.TrimPrefix(snap.note+"; tenant events: "+note, "; ")
		}
	}
	if snap.StagedGeneration < 0 {
		return snapshot{}, fmt.Errorf(`"staged_generation" is %d: remove it`, snap.StagedGeneration)
	}
	if snap.Staged != "" {
		if !strings.Contains(snap.Staged, "staged") {
			return snapshot{}, fmt.Errorf(`"staged" is %q, and no staged object has such a name`, snap.Staged)
		}
		if _, err := time.Parse(objectLayout, path.Base(snap.LastObject)); err != nil {
			return snapshot{}, fmt.Errorf(`"last_object" is %q, and "staged" needs a final name there`, snap.LastObject)
		}
	}
	return snap, nil
}

// load reads the state object. An absent object means a first run; nothing
// else does.
func (c *Collector) load(ctx context.Context) (snapshot, error) {
	data, generation, _, err := c.readState(ctx)
	switch {
	case errors.Is(err, storage.ErrObjectNotExist) && !bucketMissing(err):
		return snapshot{}, nil
	case err != nil:
		return snapshot{}, fmt.Errorf("reading state %s: %w", c.stateURL(), storageHint(err))
	}
	snap, err := decodeState(data, time.Now())
	if err != nil {
		return snapshot{}, fmt.Errorf("state %s is damaged: %w; nothing was collected or changed: restore an older version of the object, or mend last_effective_at in it (Unix seconds)", c.stateURL(), err)
	}
	// What an edit has left to do, no run has looked at.
	for _, s := range []*Stream{&snap.Stream, snap.Tenant} {
		if s != nil && !s.continues {
			s.LastRun = ""
		}
	}
	snap.generation = generation
	return snap, nil
}

// readState returns the state's bytes, their generation and when they were
// written, by the bucket's clock.
func (c *Collector) readState(ctx context.Context) (data []byte, generation int64, written time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.stepTimeout())
	defer cancel()
	r, err := c.state.NewReader(ctx)
	if err != nil {
		return nil, 0, time.Time{}, err
	}
	defer r.Close()
	data, err = io.ReadAll(io.LimitReader(r, maxStateBytes+1))
	if err == nil && len(data) > maxStateBytes {
		err = fmt.Errorf("it is larger than %d MiB", maxStateBytes>>20)
	}
	return data, r.Attrs.Generation, r.Attrs.LastModified, err
}

// errOvertaken is the commit of a run that another run got ahead of.
var errOvertaken = errors.New("another run got ahead of this one")

// commit replaces the state that was loaded as old by next, if nobody else has
// replaced it: the one write that decides whether a run counts. It returns when
// the new state was written, by the bucket's clock.
//
// After an error other than errOvertaken the write may still land.
func (c *Collector) commit(ctx context.Context, old snapshot, next State) (time.Time, error) {
	data, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return time.Time{}, fmt.Errorf("encoding state: %w", err)
	}
	data = append(data, '\n')
	if len(data) > maxStateBytes {
		return time.Time{}, fmt.Errorf("state %s would have %d bytes, more than the %d MiB that are read: lower OVERLAP_SECONDS", c.stateURL(), len(data), maxStateBytes>>20)
	}
	written, err := c.writeState(ctx, old.generation, data)
	if err == nil {
		return written, nil
	}

	// A write that was applied and whose answer was lost fails like any other,
	// or fails its own precondition when the client sends it again.
	found, generation, written, readErr := c.readState(ctx)
	switch {
	case readErr != nil && !errors.Is(readErr, storage.ErrObjectNotExist):
		return time.Time{}, fmt.Errorf("writing state %s: %w; and it could not be read back: %v", c.stateURL(), storageHint(err), readErr)
	case readErr == nil && bytes.Equal(found, data):
		return written, nil
	case readErr == nil && generation != old.generation:
		// Somebody may have edited it since, or run: what it names tells.
		snap, decodeErr := decodeState(found, time.Now())
		switch {
		case decodeErr != nil:
			return time.Time{}, fmt.Errorf("writing state %s: %w; and what is there now is damaged: %v", c.stateURL(), storageHint(err), decodeErr)
		case next.Staged != "" && next.Staged != old.Staged && snap.Staged == next.Staged,
			next.LastBackfill != old.LastBackfill && snap.LastBackfill == next.LastBackfill:
			return written, nil
		}
		return time.Time{}, errOvertaken
	case readErr != nil && old.generation != 0:
		return time.Time{}, fmt.Errorf("writing state %s: it was deleted during the run", c.stateURL())
	}
	return time.Time{}, fmt.Errorf("writing state %s: %w", c.stateURL(), storageHint(err))
}

func (c *Collector) writeState(ctx context.Context, generation int64, data []byte) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.stepTimeout())
	defer cancel()
	condition := storage.Conditions{GenerationMatch: generation}
	if generation == 0 {
		condition = storage.Conditions{DoesNotExist: true}
	}
	w := c.state.If(condition).NewWriter(ctx)
	w.ContentType = "application/json"
	w.ChunkSize = max(256<<10, len(data)+1) // one request
	w.CRC32C, w.SendCRC32C = checksum(data), true
	if _, err := w.Write(data); err != nil {
		w.Close()
		return time.Time{}, err
	}
	if err := w.Close(); err != nil {
		return time.Time{}, err
	}
	return w.Attrs().Updated, nil
}

func (c *Collector) stateURL() string {
	return "gs://" + c.cfg.StateBucket + "/" + c.cfg.StateKey
}

// statusOf is the HTTP status that a storage error carries, 0 for none.
func statusOf(err error) int {
	var e *googleapi.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

func bucketMissing(err error) bool {
	var e *googleapi.Error
	return errors.As(err, &e) && e.Code == http.StatusNotFound &&
		strings.Contains(e.Message+e.Body, "bucket does not exist")
}

// storageHint adds to a storage error what to do about it.
func storageHint(err error) error {
	switch status := statusOf(err); {
	case bucketMissing(err):
		return fmt.Errorf("%w (no such bucket: check GCS_BUCKET and STATE_BUCKET)", err)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return fmt.Errorf("%w (the function's service account lacks a role on the bucket, or a retention policy or hold forbids it)", err)
	}
	return err
}
