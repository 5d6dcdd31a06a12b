package auditlog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"

	"cloud.google.com/go/storage"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/api/iterator"
)

// Status is what the state object says, read once and never changed.
type Status struct {
	State
	URL        string    // of the state object
	Prefix     string    // URL of the feed's folder
	Committed  bool      // false: no run has committed yet, and State is empty
	Written    time.Time // the state object, by the bucket's clock
	Note       string    // what the next run will say of the state
	StagedNow  StagedNow
	StagedSize int64 // where it is there

	tenant bool // TENANT_EVENTS
}

// StagedNow is what has become of the object that the state names as staged.
type StagedNow string

// The state goes on naming a staged object until the next commit: that it is
// published is the usual case.
const (
	StagedNone      StagedNow = "none"
	StagedPublished StagedNow = "published" // it is no longer there
	StagedPending   StagedNow = "pending"   // the next run publishes it
	StagedRewritten StagedNow = "rewritten" // its name has another object; the next run looks into it
	StagedElsewhere StagedNow = "elsewhere" // in a bucket that STATE_BUCKET no longer names: runs fail
	StagedUnknown   StagedNow = "unknown"   // it could not be looked for
)

// Status reads the state. Where there is none, no run has committed yet; where
// it is damaged, the error says what to do. With an error the status holds what
// was read, if Committed is set.
func (c *Collector) Status(ctx context.Context) (Status, error) {
	s := Status{URL: c.stateURL(), tenant: c.cfg.TenantEvents, Prefix: c.logURL(c.cfg.Prefix + "/"), StagedNow: StagedNone}
	data, _, written, err := c.readState(ctx)
	switch {
	case errors.Is(err, storage.ErrObjectNotExist) && !bucketMissing(err):
		return s, nil
	case err != nil:
		return s, fmt.Errorf("reading state %s: %w", s.URL, readHint(err, c.cfg.StateBucket))
	}
	snap, err := decodeState(data, time.Now())
	if err != nil {
		return s, fmt.Errorf("state %s is damaged: %w; restore an older version of the object, or mend last_effective_at in it (Unix seconds)", s.URL, err)
	}
	s.State, s.Committed, s.Written, s.Note = snap.State, true, written, snap.note
	if s.Staged != "" {
		err = c.lookStaged(ctx, &s)
	}
	return s, err
}

// lookStaged looks for the staged object where the next run will.
func (c *Collector) lookStaged(ctx context.Context, s *Status) error {
	if s.StagedBucket != "" && s.StagedBucket != c.cfg.StateBucket {
		s.StagedNow = StagedElsewhere
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.stepTimeout())
	defer cancel()
	attrs, err := c.states.Object(s.Staged).Attrs(ctx)
	switch {
	case errors.Is(err, storage.ErrObjectNotExist) && !bucketMissing(err):
		s.StagedNow = StagedPublished
	case err != nil:
		s.StagedNow = StagedUnknown
		return fmt.Errorf("looking for %s: %w", c.stagedURL(s.Staged), readHint(err, c.cfg.StateBucket))
	case s.stages(attrs.Generation):
		s.StagedNow, s.StagedSize = StagedPending, attrs.Size
	default:
		s.StagedNow, s.StagedSize = StagedRewritten, attrs.Size
	}
	return nil
}

// Lag is a run's lag_seconds as of now: the seconds since the oldest moment that
// may hold uncollected records. 0 before the first run, as nothing is known.
func (s *Status) Lag(now time.Time) int64 {
	if !s.Committed {
		return 0
	}
	collectedTo := s.collectedTo()
	for _, stream := range s.counted(s.tenant) {
		collectedTo = min(collectedTo, stream.collectedTo())
	}
	return max(0, now.Unix()-collectedTo)
}

// LeftTo is the newest second of the window that may hold unread records.
func (w *window) LeftTo() int64 {
	if w.descends() {
		return w.AfterAt
	}
	return w.Lte
}

// Object is one under the feed prefix.
type Object struct {
	Name    string // below the prefix
	Created time.Time
	Size    int64
	// Collected is set where the name is of the kind that a run gives. The feed
	// reads the others, too.
	Collected bool

	generation int64
}

// Objects lists what is under the feed prefix, by name.
func (c *Collector) Objects(ctx context.Context) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		prefix := c.cfg.Prefix + "/"
		query := &storage.Query{Prefix: prefix, Projection: storage.ProjectionNoACL}
		if err := query.SetAttrSelection([]string{"Name", "Created", "Size", "Generation"}); err != nil {
			yield(Object{}, err)
			return
		}
		it := c.logs.Objects(ctx, query)
		for {
			attrs, err := it.Next()
			if errors.Is(err, iterator.Done) {
				return
			}
			if err != nil {
				yield(Object{}, fmt.Errorf("listing %s: %w", c.logURL(prefix), readHint(err, c.cfg.Bucket)))
				return
			}
			o := Object{Name: attrs.Name[len(prefix):], Created: attrs.Created, Size: attrs.Size, generation: attrs.Generation}
			_, err = time.Parse(objectLayout, o.Name)
			o.Collected = err == nil
			if !yield(o, nil) {
				return
			}
		}
	}
}

// Record is what a line of an object tells of its record.
type Record struct {
	At    int64  // effective_at
	Type  string // fit to be shown
	Bytes int64  // of the line, with its end
	Bad   bool   // it is no record: At and Type say nothing
}

// maxLineHead is how much of a line is held in memory: time and type stand
// before that in all but freaks.
const maxLineHead = 1 << 20

// Records reads an object as a stream, as it was when it was listed. Where it
// has gone since then, the error is storage.ErrObjectNotExist.
func (c *Collector) Records(ctx context.Context, o Object) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		name := c.cfg.Prefix + "/" + o.Name
		url := c.logURL(name)
		r, err := c.logs.Object(name).Generation(o.generation).NewReader(ctx)
		if err != nil {
			yield(Record{}, fmt.Errorf("reading %s: %w", url, readHint(err, c.cfg.Bucket)))
			return
		}
		defer r.Close()
		lines := bufio.NewReaderSize(r, 64<<10)
		var head []byte
		var dec jsontext.Decoder
		for {
			var size int64
			head = head[:0]
			for err = bufio.ErrBufferFull; errors.Is(err, bufio.ErrBufferFull); {
				var part []byte
				part, err = lines.ReadSlice('\n')
				size += int64(len(part))
				head = append(head, part[:min(len(part), maxLineHead-len(head))]...)
			}
			if err != nil && !errors.Is(err, io.EOF) {
				yield(Record{}, fmt.Errorf("reading %s: %w", url, readHint(err, c.cfg.Bucket)))
				return
			}
			if len(bytes.TrimSpace(head)) > 0 {
				rec := readRecord(&dec, head)
				rec.Bytes = size
				if !yield(rec, nil) {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
}

// readRecord reads a line's time and type, and no further: the end may be
// missing.
func readRecord(dec *jsontext.Decoder, line []byte) (r Record) {
	bad := Record{Bad: true}
	dec.Reset(bytes.NewReader(line), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if t, err := dec.ReadToken(); err != nil || t.Kind() != '{' {
		return bad
	}
	for timed, typed := false, false; !timed || !typed; {
		name, err := dec.ReadToken()
		if err != nil {
			return bad
		}
		if name.Kind() == '}' {
			r.Bad = !timed // without a type it is a record all the same
			return r
		}
		switch member := name.String(); {
		case member == "effective_at":
			v, err := dec.ReadValue()
			if err != nil {
				return bad
			}
			if r.At, err = wholeNumber(v); err != nil {
				return bad
			}
			timed = true
		case member == "type" && dec.PeekKind() == '"':
			t, err := dec.ReadToken()
			if err != nil {
				return bad
			}
			r.Type, typed = shorten(t.String()), true
		default:
			if err := dec.SkipValue(); err != nil {
				return bad
			}
		}
	}
	return r
}

// readHint adds to an error of reading what its reader can do about it.
func readHint(err error, bucket string) error {
	switch statusOf(err) {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("whoever reads needs the role Storage Object Viewer on bucket %q: %w", bucket, err)
	}
	return storageHint(err)
}
