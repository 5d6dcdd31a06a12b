package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/storage"
)

const (
	// chunkSize is how much of an upload is held in memory and sent at once.
	chunkSize  = 1 << 20
	stagedType = "application/x-ndjson"
	sweepAge   = 24 * time.Hour
	// numberKey is the metadata that has an object's number: gaps show what the feed has deleted.
	numberKey = "auditlog-number"
)

// Staged is the object that a run writes records to: outside the feed prefix, under a name that no other
// attempt has. Up to a chunk of records is one upload, when it is closed; a run without news makes no object.
type Staged struct {
	Name       string
	Number     int64 // of the objects published; see state.Objects
	Size       int64 // bytes written so far
	Generation int64 // once it is closed

	store  *Store
	object *storage.ObjectHandle
	ctx    context.Context
	cancel context.CancelFunc
	buf    []byte          // not yet sent
	w      *storage.Writer // once that is more than a chunk
	crc    uint32
}

// Stage names a staged object. Its upload lasts no longer than ctx.
func (s *Store) Stage(ctx context.Context, now time.Time) *Staged {
	name := s.StagedFolder() + now.UTC().Format("20060102T150405Z-") + strings.ToLower(rand.Text()) + ".ndjson"
	o := &Staged{Name: name, store: s, object: s.States.Object(name)}
	o.ctx, o.cancel = context.WithCancel(ctx)
	return o
}

// Write adds a record, which must be one line, and returns the line's length in bytes.
func (o *Staged) Write(record []byte) (int, error) {
	if o.buf == nil { // growing it bit by bit would allocate several times as much
		o.buf = make([]byte, 0, chunkSize+chunkSize/8)
	}
	had := len(o.buf)
	o.buf = append(append(o.buf, record...), '\n')
	line := o.buf[had:]
	o.Size += int64(len(line))
	o.crc = crc32.Update(o.crc, castagnoli, line)
	if len(o.buf) > chunkSize {
		if err := o.send(); err != nil {
			return 0, o.failed(err)
		}
	}
	return len(line), nil
}

// send sends what is more than a chunk.
func (o *Staged) send() (err error) {
	if o.w == nil {
		// The client does not bound the request that begins an upload. An upload that was not ended makes
		// no object, so that it can be begun again.
		err = try(o.ctx, time.Minute, o.begin)
	} else {
		_, err = o.w.Write(o.buf)
	}
	o.buf = o.buf[:0]
	return err
}

// begin begins the upload. It returns once the first chunk is there, and the upload outlives attempt.
func (o *Staged) begin(attempt context.Context) error {
	ctx, cancel := context.WithCancel(o.ctx)
	inTime := context.AfterFunc(attempt, cancel)
	o.w = o.conditional().NewWriter(ctx)
	o.w.ContentType, o.w.Metadata = stagedType, o.metadata()
	o.w.ChunkSize = chunkSize
	o.w.ChunkTransferTimeout = o.store.Step / 4
	o.w.ChunkRetryDeadline = time.Minute
	_, err := o.w.Write(o.buf)
	if !inTime() {
		return cmp.Or(err, attempt.Err())
	}
	return err
}

// resend makes the client send an upload again after a dropped connection, too.
var resend = storage.WithErrorFunc(shouldRetry)

// conditional is the object for a write. The condition makes it idempotent, so that it is sent again.
func (o *Staged) conditional() *storage.ObjectHandle {
	return o.object.If(storage.Conditions{DoesNotExist: true}).Retryer(resend)
}

func (o *Staged) metadata() map[string]string {
	return map[string]string{numberKey: strconv.FormatInt(o.Number, 10)}
}

func (o *Staged) failed(err error) error {
	return fmt.Errorf("writing %s: %w", o.store.StagedURL(o.Name), Hint(err))
}

// Empty reports whether nothing has been written.
func (o *Staged) Empty() bool { return o.Size == 0 }

// Close ends the upload. Without an error the object is durable and holds exactly the bytes
// written. The caller must call Close or Abort.
func (o *Staged) Close(ctx context.Context) error {
	attrs, err := o.end(ctx)
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

func (o *Staged) end(ctx context.Context) (*storage.ObjectAttrs, error) {
	if o.w == nil {
		return o.store.putBytes(o.ctx, o.conditional(), storage.ObjectAttrs{ContentType: stagedType, Metadata: o.metadata()}, o.buf)
	}
	step, cancel := context.WithTimeout(ctx, o.store.Step)
	defer cancel()
	defer context.AfterFunc(step, o.cancel)()
	_, err := o.w.Write(o.buf)
	if closeErr := o.w.Close(); err == nil {
		err = closeErr
	}
	return o.w.Attrs(), err
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
	err := s.try(ctx, s.States.Object(name).Retryer(storage.WithPolicy(storage.RetryAlways)).Delete)
	if err = s.settle(ctx, name, err); err != nil && !errors.Is(err, storage.ErrObjectNotExist) {
		return fmt.Errorf("deleting %s: %w", s.StagedURL(name), Hint(err))
	}
	return nil
}

// Sweep removes staged objects of attempts that crashed or were overtaken, once they are a day
// older than the commit at committed (the bucket's clock).
//
// An object that was listed before that commit, and that the state before it did not name, can never
// be named: its attempt would have to commit against a state that is gone.
func (s *Store) Sweep(ctx context.Context, others []*storage.ObjectAttrs, committed time.Time) (removed int, err error) {
	for _, o := range others {
		if !o.Created.Before(committed.Add(-sweepAge)) {
			continue
		}
		if err := s.DeleteStaged(ctx, o.Name); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}
