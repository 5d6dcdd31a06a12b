package store

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"

	"example.com/auditlog/internal/audit"
)

const (
	// chunkSize is how much of an upload is held in memory and sent at once.
	chunkSize = 2 << 20
	sweepAge  = 24 * time.Hour
	// numberKey is the metadata that has an object's number: gaps show what the feed has deleted.
	numberKey = "auditlog-number"
)

// Staged is the object that a run writes records to: outside the feed prefix, under a name that no other
// attempt has. The upload begins with the first record, so that a run without news makes no object.
type Staged struct {
	Name       string
	Number     int64 // of the objects published; see state.Objects
	Size       int64 // bytes written so far
	Generation int64 // once it is closed

	store  *Store
	object *storage.ObjectHandle
	ctx    context.Context
	cancel context.CancelFunc
	w      *storage.Writer
	buf    *bufio.Writer
	line   []byte
	crc    uint32
}

// Stage names a staged object. Its upload lasts no longer than ctx.
func (s *Store) Stage(ctx context.Context, now time.Time) *Staged {
	name := s.StagedFolder() + now.UTC().Format("20060102T150405Z-") + strings.ToLower(rand.Text()) + ".ndjson"
	o := &Staged{Name: name, store: s, object: s.States.Object(name)}
	o.ctx, o.cancel = context.WithCancel(ctx)
	return o
}

// Write adds a record as one line, and returns the line's length in bytes.
func (o *Staged) Write(raw []byte) (int, error) {
	if o.w == nil {
		// The condition makes the write idempotent, so that the client sends it again.
		o.w = o.object.If(storage.Conditions{DoesNotExist: true}).NewWriter(o.ctx)
		o.w.ContentType = "application/x-ndjson"
		o.w.Metadata = map[string]string{numberKey: strconv.FormatInt(o.Number, 10)}
		o.w.ChunkSize = chunkSize
		o.w.ChunkTransferTimeout = 30 * time.Second
		o.w.ChunkRetryDeadline = time.Minute
		o.buf = bufio.NewWriterSize(o.w, 64<<10)
	}
	o.line = append(audit.Compact(o.line[:0], raw), '\n')
	o.Size += int64(len(o.line))
	o.crc = crc32.Update(o.crc, castagnoli, o.line)
	if _, err := o.buf.Write(o.line); err != nil {
		return 0, o.failed(err)
	}
	return len(o.line), nil
}

func (o *Staged) failed(err error) error {
	return fmt.Errorf("writing %s: %w", o.store.StagedURL(o.Name), Hint(err))
}

// Empty reports whether nothing has been written.
func (o *Staged) Empty() bool { return o.w == nil }

// Close ends the upload. Without an error the object is durable and holds exactly the bytes
// written. The caller must call Close or Abort.
func (o *Staged) Close(ctx context.Context) error {
	step, cancel := context.WithTimeout(ctx, o.store.Step)
	defer cancel()
	defer context.AfterFunc(step, o.cancel)()
	err := o.buf.Flush()
	if closeErr := o.w.Close(); err == nil {
		err = closeErr
	}
	attrs := o.w.Attrs()
	if err != nil {
		// A write that was applied, but whose answer was lost, fails like any other, or fails its
		// own precondition when the client sends it again.
		var lookErr error
		if attrs, lookErr = o.store.attrs(ctx, o.object); lookErr != nil {
			return o.failed(err)
		}
	}
	if attrs.Size != o.Size || attrs.CRC32C != o.crc {
		return o.failed(fmt.Errorf("the bucket holds other bytes than were sent: %d with CRC32C %08x, not %d with %08x", attrs.Size, attrs.CRC32C, o.Size, o.crc))
	}
	o.Generation = attrs.Generation
	return nil
}

// Abort gives up an upload under way. What it has sent may still become an object; the sweep removes that.
func (o *Staged) Abort() {
	o.cancel()
	if o.w != nil {
		o.w.Close()
	}
}

// DeleteStaged removes a staged object. Its name is never used again, so that sending the request
// twice does no harm.
func (s *Store) DeleteStaged(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, s.Step)
	defer cancel()
	err := s.States.Object(name).Retryer(storage.WithPolicy(storage.RetryAlways)).Delete(ctx)
	if err != nil && !errors.Is(err, storage.ErrObjectNotExist) {
		return fmt.Errorf("deleting %s: %w", s.StagedURL(name), Hint(err))
	}
	return nil
}

// Sweep removes staged objects of attempts that crashed or were overtaken, once they are a day
// older than the commit at committed (the bucket's clock).
//
// An object made before that commit and not named by it can never be named: its attempt would have
// to commit against a state that is gone.
func (s *Store) Sweep(ctx context.Context, named string, committed time.Time) (removed int, err error) {
	list, cancel := context.WithTimeout(ctx, s.Step)
	defer cancel()
	folder := s.StagedFolder()
	it := s.States.Objects(list, &storage.Query{Prefix: folder, Delimiter: "/"}) // without those in kept/
	for {
		attrs, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return removed, nil
		}
		if err != nil {
			return removed, fmt.Errorf("listing %s: %w", s.StagedURL(folder), Hint(err))
		}
		if attrs.Prefix != "" || attrs.Name == named || !attrs.Created.Before(committed.Add(-sweepAge)) {
			continue
		}
		if err := s.DeleteStaged(ctx, attrs.Name); err != nil {
			return removed, err
		}
		removed++
	}
}
