package auditlog

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"path"
	"strings"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"
)

const (
	// chunkSize is how much of an upload is held in memory and sent at once.
	chunkSize = 2 << 20
	// feedLineLimit is the longest line, in bytes, that a SecOps feed takes.
	feedLineLimit = 4 << 20
	objectLayout  = "openai_auditlog_20060102_150405.ndjson"
	sweepAge      = 24 * time.Hour
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// stagedObject is what a run writes records to: an object outside the feed
// prefix, under a name that no other attempt has. The upload begins with the
// first record, so that a run without news makes no object.
type stagedObject struct {
	object *storage.ObjectHandle
	name   string
	ctx    context.Context
	cancel context.CancelFunc

	w    *storage.Writer
	buf  *bufio.Writer
	line []byte
	size int64
	crc  uint32

	generation int64 // once it is closed
}

// stage names a staged object. Its upload lasts no longer than ctx.
func (c *Collector) stage(ctx context.Context, now time.Time) *stagedObject {
	name := c.cfg.stagedDir() + now.UTC().Format("20060102T150405Z-") + strings.ToLower(rand.Text()) + ".ndjson"
	s := &stagedObject{object: c.states.Object(name), name: name}
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s
}

// write adds a record as one line.
func (s *stagedObject) write(raw []byte) error {
	if s.w == nil {
		// Its condition makes the write idempotent, so that the client sends it again.
		s.w = s.object.If(storage.Conditions{DoesNotExist: true}).NewWriter(s.ctx)
		s.w.ContentType = "application/x-ndjson"
		s.w.ChunkSize = chunkSize
		s.w.ChunkTransferTimeout = 30 * time.Second
		s.w.ChunkRetryDeadline = time.Minute
		s.buf = bufio.NewWriterSize(s.w, 64<<10)
	}
	s.line = append(compact(s.line[:0], raw), '\n')
	s.size += int64(len(s.line))
	s.crc = crc32.Update(s.crc, castagnoli, s.line)
	_, err := s.buf.Write(s.line)
	return err
}

// empty reports whether nothing has been written.
func (s *stagedObject) empty() bool { return s.w == nil }

// close ends the upload. Without an error the object is durable and holds
// exactly the bytes written. It must be called, or abort.
func (s *stagedObject) close(ctx context.Context, timeout time.Duration) error {
	step, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer context.AfterFunc(step, s.cancel)()
	err := s.buf.Flush()
	if closeErr := s.w.Close(); err == nil {
		err = closeErr
	}
	attrs := s.w.Attrs()
	if err != nil {
		// A write that was applied and whose answer was lost fails like any
		// other, or fails its own precondition when the client sends it again.
		look, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		var lookErr error
		if attrs, lookErr = s.object.Attrs(look); lookErr != nil {
			return err
		}
	}
	if attrs.Size != s.size || attrs.CRC32C != s.crc {
		return fmt.Errorf("the bucket holds other bytes than were sent: %d with CRC32C %08x, not %d with %08x", attrs.Size, attrs.CRC32C, s.size, s.crc)
	}
	s.generation = attrs.Generation
	return nil
}

// abort gives up an upload that is under way. What it has written so far may
// still become an object; the sweep removes that.
func (s *stagedObject) abort() {
	s.cancel()
	if s.w != nil {
		s.w.Close()
	}
}

// finalName is the name of a run's object under the feed prefix. Its second is
// after that of the last object, so that no two share a name.
func (c *Collector) finalName(last string, now time.Time) string {
	return c.cfg.Prefix + "/" + nameAfter(last, now)
}

func nameAfter(last string, now time.Time) string {
	now = now.UTC().Truncate(time.Second)
	if t, err := time.Parse(objectLayout, path.Base(last)); err == nil && !now.After(t) {
		now = t.Add(time.Second)
	}
	return now.Format(objectLayout)
}

// publish brings the object that s names as staged under the feed prefix.
// Whether it still has to is read from the staged object, not from the final
// one: the feed may have taken and deleted that. It returns the final name, or
// "" where the object had been published before.
func (c *Collector) publish(ctx context.Context, s State, final string) (string, error) {
	for range 100 {
		err := c.release(ctx, s, final)
		if err == nil {
			return final, nil
		}
		// Another instance may have published it; or this one has, and the answer
		// was lost.
		found, lookErr := c.staged(ctx, s)
		switch {
		case lookErr == nil && !s.stages(found):
			return "", nil
		case lookErr != nil:
			return "", fmt.Errorf("publishing %s as %s: %w; and whether it is done could not be read: %v", c.stagedURL(s.Staged), c.logURL(final), storageHint(err), lookErr)
		case !errors.Is(err, errConflict):
			return "", fmt.Errorf("publishing %s as %s: %w", c.stagedURL(s.Staged), c.logURL(final), storageHint(err))
		}
		// The name is a stranger's, such as the Python function's.
		final = final[:strings.LastIndexByte(final, '/')+1] + nameAfter(final, time.Time{})
	}
	return "", fmt.Errorf("publishing %s: all names up to %s are taken", c.stagedURL(s.Staged), c.logURL(final))
}

// errConflict is a final name that another object has, or a staged object that
// is not the one committed: the answers do not tell these apart.
var errConflict = errors.New("the name is taken, or the staged object is another one")

// release makes the staged object the final one. Within a bucket that is an
// atomic rename: a crash leaves the object either staged or published. From a
// state bucket it is a copy, then a delete.
func (c *Collector) release(ctx context.Context, s State, final string) error {
	step, cancel := context.WithTimeout(ctx, c.cfg.stepTimeout())
	defer cancel()
	src := c.states.Object(s.Staged)
	if s.StagedGeneration != 0 {
		src = src.If(storage.Conditions{GenerationMatch: s.StagedGeneration})
	}
	if c.cfg.StateBucket == c.cfg.Bucket {
		_, err := src.Move(step, storage.MoveObjectDestination{
			Object:     final,
			Conditions: &storage.Conditions{DoesNotExist: true},
		})
		if statusOf(err) == http.StatusPreconditionFailed {
			return errConflict
		}
		return err
	}

	dst := c.logs.Object(final)
	if _, err := dst.If(storage.Conditions{DoesNotExist: true}).CopierFrom(src).Run(step); err != nil {
		// Of an object that is there, the content alone tells whether it is this
		// copy or a stranger's.
		look, cancel := context.WithTimeout(ctx, c.cfg.stepTimeout())
		defer cancel()
		same, lookErr := sameContent(look, c.states.Object(s.Staged), dst)
		switch {
		case lookErr != nil:
			return fmt.Errorf("%w; and what is there could not be compared: %v", err, lookErr)
		case !same:
			return errConflict
		}
	}
	return c.deleteStaged(ctx, s.Staged)
}

// sameContent reports whether both objects exist and hold the same bytes.
func sameContent(ctx context.Context, a, b *storage.ObjectHandle) (bool, error) {
	left, err := a.Attrs(ctx)
	if err != nil {
		return false, err
	}
	right, err := b.Attrs(ctx)
	if err != nil {
		return false, err
	}
	return left.Size == right.Size && left.CRC32C == right.CRC32C, nil
}

// staged returns the generation of the object that has the name of the one that
// s names as staged, 0 where there is none.
func (c *Collector) staged(ctx context.Context, s State) (generation int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.stepTimeout())
	defer cancel()
	attrs, err := c.states.Object(s.Staged).Attrs(ctx)
	switch {
	case err == nil:
		return attrs.Generation, nil
	case errors.Is(err, storage.ErrObjectNotExist) && !bucketMissing(err):
		return 0, nil
	}
	return 0, fmt.Errorf("looking for %s: %w", c.stagedURL(s.Staged), storageHint(err))
}

// keep moves an object that has the staged one's name and another generation to
// where no sweep removes it, and returns its name there.
//
// It may be an upload that was sent twice and landed once more after the move:
// then its records have been published. Or it is the staged object itself,
// rewritten or restored: then they have not. Where the final object is there,
// that tells, and the sweep may have this one: keep returns "". Else the feed has
// taken that, or it never was; only the feed's side knows.
func (c *Collector) keep(ctx context.Context, s State, generation int64) (string, error) {
	step, cancel := context.WithTimeout(ctx, c.cfg.stepTimeout())
	defer cancel()
	switch same, err := sameContent(step, c.states.Object(s.Staged), c.logs.Object(s.LastObject)); {
	case same:
		return "", nil
	case err != nil && !errors.Is(err, storage.ErrObjectNotExist) && statusOf(err) != http.StatusForbidden: // to create there is all that a collector needs
		return "", fmt.Errorf("comparing %s with %s: %w", c.stagedURL(s.Staged), c.logURL(s.LastObject), storageHint(err))
	}
	name := fmt.Sprintf("%s/kept/%d-%s", path.Dir(s.Staged), generation, path.Base(s.Staged))
	src := c.states.Object(s.Staged).If(storage.Conditions{GenerationMatch: generation})
	_, err := src.Move(step, storage.MoveObjectDestination{Object: name})
	if err == nil {
		return name, nil
	}
	found, lookErr := c.staged(ctx, s)
	switch {
	case lookErr != nil:
		return "", fmt.Errorf("moving %s to %s: %w; and whether it is done could not be read: %v", c.stagedURL(s.Staged), c.stagedURL(name), storageHint(err), lookErr)
	case found == 0:
		return name, nil // by this request, or by another instance's
	}
	return "", fmt.Errorf("moving %s to %s: %w", c.stagedURL(s.Staged), c.stagedURL(name), storageHint(err))
}

// deleteStaged removes a staged object. Its name is never used again, so that
// sending the request twice does no harm.
func (c *Collector) deleteStaged(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.stepTimeout())
	defer cancel()
	err := c.states.Object(name).Retryer(storage.WithPolicy(storage.RetryAlways)).Delete(ctx)
	if err != nil && !errors.Is(err, storage.ErrObjectNotExist) {
		return fmt.Errorf("deleting %s: %w", c.stagedURL(name), storageHint(err))
	}
	return nil
}

// sweep removes staged objects that were left by crashed or losing attempts,
// once they are a day older than the commit at committed (the bucket's clock).
//
// An object made before that commit and not named by it can never be named:
// whoever made it has to commit against a state that is no longer there.
func (c *Collector) sweep(ctx context.Context, named string, committed time.Time) (removed int, err error) {
	list, cancel := context.WithTimeout(ctx, c.cfg.stepTimeout())
	defer cancel()
	it := c.states.Objects(list, &storage.Query{Prefix: c.cfg.stagedDir(), Delimiter: "/"}) // without those in kept/
	for {
		attrs, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return removed, nil
		}
		if err != nil {
			return removed, fmt.Errorf("listing %s: %w", c.stagedURL(c.cfg.stagedDir()), storageHint(err))
		}
		if attrs.Prefix != "" || attrs.Name == named || !attrs.Created.Before(committed.Add(-sweepAge)) {
			continue
		}
		if err := c.deleteStaged(ctx, attrs.Name); err != nil {
			return removed, err
		}
		removed++
	}
}

func (c *Collector) stagedURL(name string) string { return "gs://" + c.cfg.StateBucket + "/" + name }
func (c *Collector) logURL(name string) string    { return "gs://" + c.cfg.Bucket + "/" + name }
