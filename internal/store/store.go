// Package store keeps the collector's objects in Cloud Storage: the state, replaced by
// compare-and-swap; the staged object of a run; and its publication under the feed prefix.
//
// It promises that every write has a precondition; that it looks at the object where an answer does
// not show whether the write was applied; and that only whoever has read a state can replace it. It
// knows nothing about the API, windows or the content of records.
package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/option"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/names"
	"example.com/auditlog/internal/state"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// pingTimeout is how long an HTTP/2 connection may be silent before it is tried, and then be silent
// before it is given up.
const pingTimeout = 5 * time.Second

func init() {
	// The storage client clones this transport. Without pings, every attempt would use the same dead connection.
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingTimeout, PingTimeout: pingTimeout}
	}
}

// Options configure a Store.
type Options struct {
	names.Layout
	// Step bounds one operation other than the streaming of records, with all its attempts.
	Step time.Duration
}

// Store is a collector's part of its buckets. It is safe for concurrent use.
type Store struct {
	Options
	Feed   *storage.BucketHandle // that the feed reads
	States *storage.BucketHandle // of the state and of staged objects
}

// New returns a store that works through client.
func New(client *storage.Client, o Options) *Store {
	return &Store{Options: o, Feed: client.Bucket(o.Bucket), States: client.Bucket(o.StateBucket)}
}

// NewClient returns a storage client with the options that a Store needs.
func NewClient(ctx context.Context, opts ...option.ClientOption) (*storage.Client, error) {
	client, err := storage.NewClient(ctx, append([]option.ClientOption{storage.WithJSONReads()}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("making the storage client: %w", Hint(err))
	}
	return client, nil
}

// try calls an operation, and again if an attempt hangs. The operation must be one that can be sent
// twice: an attempt that was given up may still be applied.
func (s *Store) try(ctx context.Context, operation func(context.Context) error) error {
	return try(ctx, s.Step, operation)
}

// try gives the last attempt half of the time, for what is large.
func try(ctx context.Context, limit time.Duration, operation func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for range 2 {
		attempt, cancel := context.WithTimeout(ctx, limit/4)
		err := operation(attempt)
		hung := attempt.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil || !hung {
			return err
		}
	}
	return operation(ctx)
}

// Snapshot is the state from one read of the object. A commit replaces only that generation.
type Snapshot struct {
	State   state.State
	Note    string    // what an edit by hand has changed, "" for nothing
	Written time.Time // by the bucket's clock

	generation int64 // 0: there is no object, this is the first run
}

// First reports whether there is no state yet.
func (s *Snapshot) First() bool { return s.generation == 0 }

// NextNumber is the number of the object that the next commit names.
func (s *Snapshot) NextNumber() int64 { return s.State.CountObject("", s.Written).Count }

// Damaged is a state object that this release cannot continue from. Its text continues "state … is".
type Damaged struct{ Err error }

func (e *Damaged) Error() string {
	text := audit.Shorten(e.Err.Error()) // it may quote the state
	if errors.Is(e.Err, state.ErrNewer) {
		return text
	}
	return "damaged: " + text
}

func (e *Damaged) Unwrap() error { return e.Err }

// Remedy is what to do about it.
func (e *Damaged) Remedy() string {
	if errors.Is(e.Err, state.ErrNewer) {
		return "deploy the newer release again, or restore an older generation of the object"
	}
	return "restore an older generation of the object, or mend last_effective_at in it (Unix seconds)"
}

// Load reads the state object. Only an absent object means a first run. The error is the storage
// client's, or *Damaged.
func (s *Store) Load(ctx context.Context) (*Snapshot, error) {
	data, generation, written, err := s.readState(ctx)
	switch {
	case absent(err):
		return &Snapshot{}, nil
	case err != nil:
		return nil, err
	}
	decoded, note, err := decode(data)
	if err != nil {
		return nil, err
	}
	return &Snapshot{decoded, note, written, generation}, nil
}

// decode reads a state, and refuses one with an impossible staged object. Its error is *Damaged.
func decode(data []byte) (s state.State, note string, err error) {
	if s, note, err = state.Decode(data, time.Now()); err == nil {
		err = names.CheckStaged(s.Staged, s.LastObject)
	}
	if err != nil {
		err = &Damaged{err}
	}
	return s, note, err
}

// readState returns the state's bytes, generation and time of writing, by the bucket's clock.
func (s *Store) readState(ctx context.Context) (data []byte, generation int64, written time.Time, err error) {
	err = s.try(ctx, func(ctx context.Context) error {
		r, err := s.States.Object(s.StateKey).NewReader(ctx)
		if err != nil {
			return err
		}
		defer r.Close()
		generation, written = r.Attrs.Generation, r.Attrs.LastModified
		data, err = io.ReadAll(io.LimitReader(r, state.MaxBytes+1))
		return err
	})
	if err == nil && len(data) > state.MaxBytes {
		err = fmt.Errorf("it is larger than %d MiB", state.MaxBytes>>20)
	}
	return data, generation, written, s.settle(ctx, s.StateKey, err)
}

// ErrOvertaken means that another run has committed first.
var ErrOvertaken = errors.New("another run got ahead of this one")

// Commit replaces the state that was loaded as old by next, if nobody else has replaced it: the one write
// that decides whether a run counts. It returns when the new state was written, by the bucket's clock.
//
// After an error other than ErrOvertaken the write may still be applied.
func (s *Store) Commit(ctx context.Context, old *Snapshot, next state.State) (time.Time, error) {
	data, err := state.Encode(next)
	if err != nil {
		return time.Time{}, fmt.Errorf("encoding state: %w", err)
	}
	if len(data) > state.MaxBytes {
		return time.Time{}, fmt.Errorf("state %s would have %d bytes, more than the %d MiB that are read: lower OVERLAP_SECONDS", s.StateURL(), len(data), state.MaxBytes>>20)
	}
	condition := storage.Conditions{GenerationMatch: old.generation}
	if old.First() {
		condition = storage.Conditions{DoesNotExist: true}
	}
	attrs, err := s.Put(ctx, s.States.Object(s.StateKey).If(condition), "application/json", data)
	if err == nil {
		return attrs.Updated, nil
	}

	// A write that was applied, but whose answer was lost, fails like any other, or fails its own
	// precondition when the client sends it again.
	found, generation, written, readErr := s.readState(ctx)
	switch {
	case readErr != nil && !errors.Is(readErr, storage.ErrObjectNotExist):
		return time.Time{}, fmt.Errorf("writing state %s: %w; and it could not be read back: %s", s.StateURL(), Hint(err), Plain(readErr))
	case readErr == nil && bytes.Equal(found, data):
		return written, nil
	case readErr == nil && generation != old.generation:
		// An edit or another run may have followed this commit: then the state still has its names.
		now, _, decodeErr := decode(found)
		switch {
		case decodeErr != nil:
			return time.Time{}, fmt.Errorf("writing state %s: %w; and what is there now is %v", s.StateURL(), Hint(err), decodeErr)
		case next.Staged != "" && next.Staged != old.State.Staged && now.Staged == next.Staged,
			next.LastBackfill != old.State.LastBackfill && now.LastBackfill == next.LastBackfill:
			return written, nil
		}
		return time.Time{}, ErrOvertaken
	case readErr != nil && !old.First():
		return time.Time{}, fmt.Errorf("writing state %s: it was deleted during the run", s.StateURL())
	}
	return time.Time{}, fmt.Errorf("writing state %s: %w", s.StateURL(), Hint(err))
}

// resend makes the client send an upload again after a dropped connection, too.
var resend = storage.WithErrorFunc(storage.ShouldRetry)

// Put writes an object in one request, on the condition of the handle. After an error it may still
// have been written.
func (s *Store) Put(ctx context.Context, object *storage.ObjectHandle, contentType string, data []byte) (*storage.ObjectAttrs, error) {
	return s.put(ctx, object, contentType, nil, data)
}

func (s *Store) put(ctx context.Context, object *storage.ObjectHandle, contentType string, metadata map[string]string, data []byte) (attrs *storage.ObjectAttrs, err error) {
	err = s.try(ctx, func(ctx context.Context) error {
		w := object.Retryer(resend).NewWriter(ctx)
		w.ContentType, w.Metadata = contentType, metadata
		w.ChunkSize = max(256<<10, len(data)+1) // one request
		w.CRC32C, w.SendCRC32C = checksum(data), true
		_, err := w.Write(data)
		if closeErr := w.Close(); err == nil {
			err = closeErr
		}
		attrs = w.Attrs()
		return err
	})
	return attrs, err
}

// Holds returns an object's attributes if it holds exactly this data: for writes whose answer does
// not show whether they were applied.
func (s *Store) Holds(ctx context.Context, object *storage.ObjectHandle, data []byte) (*storage.ObjectAttrs, bool) {
	attrs, err := s.attrs(ctx, object)
	if err != nil || attrs.Size != int64(len(data)) || attrs.CRC32C != checksum(data) {
		return nil, false
	}
	return attrs, true
}

func (s *Store) attrs(ctx context.Context, object *storage.ObjectHandle) (attrs *storage.ObjectAttrs, err error) {
	err = s.try(ctx, func(ctx context.Context) error {
		attrs, err = object.Attrs(ctx)
		return err
	})
	return attrs, err
}
