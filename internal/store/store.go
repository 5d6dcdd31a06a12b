// Package store keeps the collector's objects in Cloud Storage: the state, replaced by
// compare-and-swap; the staged object of a run; and its publication under the feed prefix.
//
// It promises that every write has a precondition; that it looks at the object where an answer does
// not show whether the write was applied; and that only whoever has read a state can replace it. It
// knows nothing about the API, windows or the content of records.
package store

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"io"
	"net/http"
	"strings"
	"time"

	"cloud.google.com/go/storage"
	"github.com/googleapis/gax-go/v2"
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
	stored, err := s.readState(ctx)
	switch {
	case absent(err):
		return &Snapshot{}, nil
	case err != nil:
		return nil, err
	case stored.damage != nil:
		return nil, stored.damage
	}
	return &stored.Snapshot, nil
}

// decode reads a state, and refuses one with an impossible staged object. Its error is *Damaged.
func decode(r io.Reader) (s state.State, note string, err error) {
	if s, note, err = state.Decode(r, time.Now()); err == nil {
		err = names.CheckStaged(s.Staged, s.LastObject)
	}
	if err != nil {
		err = &Damaged{err}
	}
	return s, note, err
}

// storedState is the state object as it was read.
type storedState struct {
	Snapshot
	damage error // *Damaged: it has no State
	digest *digest
}

// readState reads the state object, and decodes it on the way. The error is the storage client's.
func (s *Store) readState(ctx context.Context) (stored storedState, err error) {
	err = s.try(ctx, func(ctx context.Context) error {
		for {
			r, err := s.States.Object(s.StateKey).NewReader(ctx)
			if err != nil {
				return err
			}
			stored = storedState{Snapshot: Snapshot{Written: r.Attrs.LastModified, generation: r.Attrs.Generation}, digest: newDigest()}
			in := &reader{r: io.TeeReader(io.LimitReader(r, state.MaxBytes+1), stored.digest)}
			stored.State, stored.Note, stored.damage = decode(in)
			_, _ = io.Copy(io.Discard, in) // at its end, the client checks what it has read
			r.Close()
			if !errors.Is(in.err, storage.ErrObjectNotExist) { // else it was replaced or deleted meanwhile
				return in.err
			}
		}
	})
	if err == nil && stored.digest.size > state.MaxBytes {
		err = fmt.Errorf("it is larger than %d MiB", state.MaxBytes>>20)
	}
	return stored, s.settle(ctx, s.StateKey, err)
}

// reader keeps the error of a reader, which a decoder may hide in its own.
type reader struct {
	r   io.Reader
	err error
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// digest is what an object's bytes are compared by, without having them in memory.
type digest struct {
	size int64
	crc  uint32
	hash maphash.Hash
}

var seed = maphash.MakeSeed()

func newDigest() *digest {
	d := new(digest)
	d.hash.SetSeed(seed)
	return d
}

func (d *digest) Write(p []byte) (int, error) {
	d.size += int64(len(p))
	d.crc = crc32.Update(d.crc, castagnoli, p)
	return d.hash.Write(p)
}

func (d *digest) equal(other *digest) bool {
	return d.size == other.size && d.hash.Sum64() == other.hash.Sum64()
}

// ErrOvertaken means that another run has committed first.
var ErrOvertaken = errors.New("another run got ahead of this one")

// Commit replaces the state that was loaded as old by next, if nobody else has replaced it: the one write
// that decides whether a run counts. It returns when the new state was written, by the bucket's clock.
//
// After an error other than ErrOvertaken the write may still be applied.
func (s *Store) Commit(ctx context.Context, old *Snapshot, next state.State) (time.Time, error) {
	encode := func(w io.Writer) error { return state.Encode(w, next) }
	want := newDigest()
	if err := encode(want); err != nil {
		return time.Time{}, fmt.Errorf("encoding state: %w", err)
	}
	if want.size > state.MaxBytes {
		return time.Time{}, fmt.Errorf("state %s would have %d bytes, more than the %d MiB that are read: lower OVERLAP_SECONDS", s.StateURL(), want.size, state.MaxBytes>>20)
	}
	condition := storage.Conditions{GenerationMatch: old.generation}
	if old.First() {
		condition = storage.Conditions{DoesNotExist: true}
	}
	attrs, err := s.put(ctx, s.States.Object(s.StateKey).If(condition), storage.ObjectAttrs{ContentType: "application/json", CRC32C: want.crc}, encode)
	if err == nil {
		return attrs.Updated, nil
	}

	// A write that was applied, but whose answer was lost, fails like any other, or fails its own
	// precondition when it is sent again.
	found, readErr := s.readState(ctx)
	switch {
	case readErr != nil && !errors.Is(readErr, storage.ErrObjectNotExist):
		return time.Time{}, fmt.Errorf("writing state %s: %w; and it could not be read back: %s", s.StateURL(), Hint(err), Plain(readErr))
	case readErr == nil && found.digest.equal(want):
		return found.Written, nil
	case readErr == nil && found.generation != old.generation:
		// An edit or another run may have followed this commit: then the state still has its names.
		switch now := found.State; {
		case found.damage != nil:
			return time.Time{}, fmt.Errorf("writing state %s: %w; and what is there now is %v", s.StateURL(), Hint(err), found.damage)
		case next.Staged != "" && next.Staged != old.State.Staged && now.Staged == next.Staged,
			next.LastBackfill != old.State.LastBackfill && now.LastBackfill == next.LastBackfill:
			return found.Written, nil
		}
		return time.Time{}, ErrOvertaken
	case readErr != nil && !old.First():
		return time.Time{}, fmt.Errorf("writing state %s: it was deleted during the run", s.StateURL())
	}
	return time.Time{}, fmt.Errorf("writing state %s: %w", s.StateURL(), Hint(err))
}

// Put writes an object in one request, on the condition of the handle. After an error it may still
// have been written.
func (s *Store) Put(ctx context.Context, object *storage.ObjectHandle, contentType string, data []byte) (*storage.ObjectAttrs, error) {
	return s.putBytes(ctx, object, storage.ObjectAttrs{ContentType: contentType}, data)
}

func (s *Store) putBytes(ctx context.Context, object *storage.ObjectHandle, o storage.ObjectAttrs, data []byte) (*storage.ObjectAttrs, error) {
	o.CRC32C = checksum(data)
	return s.put(ctx, object, o, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// put writes what write writes, each time that it is called. o has the content type, the checksum and
// the metadata. The client would send a request again only if it had all of it in memory.
func (s *Store) put(ctx context.Context, object *storage.ObjectHandle, o storage.ObjectAttrs, write func(io.Writer) error) (attrs *storage.ObjectAttrs, err error) {
	err = s.try(ctx, func(ctx context.Context) error {
		for backoff := (gax.Backoff{}); ; {
			if attrs, err = upload(ctx, object, o, write); !shouldRetry(err) || gax.Sleep(ctx, backoff.Pause()) != nil {
				return err
			}
		}
	})
	return attrs, err
}

// shouldRetry reports whether to send an upload again. The client does not know what HTTP/2 says: that a
// stream was broken off, or that a request was refused unread, as by a server that goes away, and that the
// transport would have sent it again itself if it had all of it in memory.
func shouldRetry(err error) bool {
	return storage.ShouldRetry(err) || err != nil &&
		(strings.Contains(err.Error(), "stream error: stream ID") || strings.Contains(err.Error(), "http2: Transport: cannot retry err"))
}

func upload(ctx context.Context, object *storage.ObjectHandle, o storage.ObjectAttrs, write func(io.Writer) error) (*storage.ObjectAttrs, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := object.NewWriter(ctx)
	w.ContentType, w.Metadata, w.CRC32C, w.SendCRC32C = o.ContentType, o.Metadata, o.CRC32C, true
	w.ChunkSize = 0 // one request, with nothing of it in memory
	written := make(chan error, 1)
	go func() { written <- write(w) }()
	var err error
	select {
	case err = <-written:
	case <-ctx.Done(): // the client may wait for ever for who took the request and answered before its end
		return nil, ctx.Err()
	}
	if err != nil {
		cancel() // an object must not end here
	}
	if closeErr := w.Close(); err == nil {
		err = closeErr
	}
	return w.Attrs(), err
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
