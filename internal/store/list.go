package store

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"time"

	"cloud.google.com/go/storage"
	"github.com/cespare/xxhash/v2"
	"google.golang.org/api/iterator"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/names"
)

// list lists the objects of the state's bucket whose names begin with prefix. The account may be allowed
// to list only inside the state's folder.
func (s *Store) list(ctx context.Context, prefix string) (listed []*storage.ObjectAttrs, err error) {
	query := &storage.Query{Prefix: prefix, Projection: storage.ProjectionNoACL}
	err = s.try(ctx, func(ctx context.Context) error {
		listed = nil
		it := s.States.Objects(ctx, query)
		for {
			attrs, err := it.Next()
			if errors.Is(err, iterator.Done) {
				return nil
			}
			if err != nil {
				return err
			}
			listed = append(listed, attrs)
		}
	})
	return listed, err
}

// look returns an object of the state's bucket, nil for none. It asks with a listing: for an object that
// is not there, an account that may not list the bucket gets a 403.
func (s *Store) look(ctx context.Context, name string) (*storage.ObjectAttrs, error) {
	listed, err := s.list(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, o := range listed {
		if o.Name == name {
			return o, nil
		}
	}
	return nil, nil
}

// settle finds out by a listing whether a 403 means only that the object is not there. Then it returns
// storage.ErrObjectNotExist.
func (s *Store) settle(ctx context.Context, name string, err error) error {
	if StatusOf(err) != http.StatusForbidden {
		return err
	}
	switch found, listErr := s.look(ctx, name); {
	case listErr != nil:
		return fmt.Errorf("%w; and whether it is there could not be listed: %s", err, Plain(listErr))
	case found == nil:
		return storage.ErrObjectNotExist
	}
	return err
}

// Object is an object under the feed prefix.
type Object struct {
	Name    string // below the prefix
	Created time.Time
	Updated time.Time
	Size    int64 // bytes
	// Collected is set if a run gives such a name. The feed reads the others, too.
	Collected bool
	Number    int64 // of the objects published, 0: unknown; see state.Objects

	generation int64
}

// Same reports whether both are the same bytes under the same name.
func (o Object) Same(other Object) bool {
	return o.Name == other.Name && o.generation == other.generation
}

// Objects lists the objects under the feed prefix, by name. The error is the storage client's.
func (s *Store) Objects(ctx context.Context) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		query := &storage.Query{Prefix: s.FeedFolder(), Projection: storage.ProjectionNoACL}
		if err := query.SetAttrSelection([]string{"Name", "Created", "Updated", "Size", "Generation", "Metadata"}); err != nil {
			yield(Object{}, err)
			return
		}
		it := s.Feed.Objects(ctx, query)
		for {
			attrs, err := it.Next()
			if errors.Is(err, iterator.Done) {
				return
			}
			if err != nil {
				yield(Object{}, err)
				return
			}
			name := attrs.Name[len(s.FeedFolder()):]
			number, _ := strconv.ParseInt(attrs.Metadata[numberKey], 10, 64)
			if !yield(Object{name, attrs.Created, attrs.Updated, attrs.Size, names.IsFinal(name), number, attrs.Generation}, nil) {
				return
			}
		}
	}
}

// Open reads an object's bytes, as they were when it was listed. The error is the storage client's.
func (s *Store) Open(ctx context.Context, o Object) (io.ReadCloser, error) {
	return s.Feed.Object(s.FeedFolder() + o.Name).Generation(o.generation).NewReader(ctx)
}

// maxLineHead is how much of a line is held in memory: time and type come before that in almost
// every record.
const maxLineHead = 1 << 20

// Lines reads an object as a stream, as it was when it was listed. If it has gone since then, the
// error is storage.ErrObjectNotExist.
func (s *Store) Lines(ctx context.Context, o Object) iter.Seq2[audit.Line, error] {
	return func(yield func(audit.Line, error) bool) {
		name := s.FeedFolder() + o.Name
		fail := func(err error) {
			yield(audit.Line{}, fmt.Errorf("reading %s: %w", s.FeedURL(name), ReadHint(err, s.Bucket)))
		}
		r, err := s.Open(ctx, o)
		if err != nil {
			fail(err)
			return
		}
		defer r.Close()
		lines := bufio.NewReaderSize(r, 64<<10)
		var head []byte
		var reader audit.LineReader
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
				fail(err)
				return
			}
			if len(bytes.TrimSpace(head)) > 0 {
				line := reader.Read(head)
				line.Bytes, line.Hash = size, xxhash.Sum64(bytes.TrimSpace(head))
				if !yield(line, nil) {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
}
