// Package bucket embeds a Cloud Storage server: the emulator fake-gcs-server
// keeps the objects, and this package answers for them, with what the emulator
// lacks and a collector relies on: preconditions on every operation, atomic
// moves, resumable uploads that survive a chunk sent twice, checksums, and
// generations that rise even where the clock stands still.
package bucket

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

// Object describes a stored object.
type Object struct {
	Name        string
	Generation  int64
	Size        int64
	ContentType string
	Metadata    map[string]string
	Created     time.Time
	CRC32C      uint32
}

// Server is a Cloud Storage server. It is safe for concurrent use, and every
// operation is atomic.
type Server struct {
	gcs   *fakestorage.Server
	files bool
	mux   *http.ServeMux

	mu         sync.Mutex
	generation int64 // the last one given
	sessions   map[string]*session
	retained   map[string]bool
	denied     func(method, op, bucket, object string) bool
	conceals   bool
}

// New returns a Server with the named buckets. It keeps the objects in memory
// or, where dir is not empty, as plain files below dir/<bucket>/, where a later
// Server finds them again.
func New(dir string, buckets ...string) (*Server, error) {
	gcs, err := fakestorage.NewServerWithOptions(fakestorage.Options{NoListener: true, StorageRoot: dir})
	if err != nil {
		return nil, fmt.Errorf("starting the bucket: %w", err)
	}
	s := &Server{
		gcs:      gcs,
		files:    dir != "",
		sessions: make(map[string]*session),
		retained: make(map[string]bool),
	}
	s.routes()
	for _, b := range buckets {
		if s.files {
			// Where it cannot make the directory, the emulator panics.
			if err := os.MkdirAll(filepath.Join(dir, b), 0o700); err != nil {
				return nil, fmt.Errorf("creating bucket %q: %w", b, err)
			}
		}
		gcs.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: b})
		// New generations follow those of an earlier Server, whatever its clock.
		objects, err := s.list(b, fakestorage.ListOptions{})
		if err != nil {
			return nil, err
		}
		for _, o := range objects.Objects {
			s.generation = max(s.generation, generation(o))
		}
	}
	return s, nil
}

// Close ends the server. Files stay.
func (s *Server) Close() { s.gcs.Stop() }

// Retain gives the bucket a retention policy without end: existing objects can
// be neither replaced nor deleted nor moved.
func (s *Server) Retain(bucket string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retained[bucket] = true
}

// Deny makes the server answer 403 where f returns true; nil denies nothing. It
// is asked for each permission that a request needs, op being the last word of
// the permission's name: create, get, list, move, or delete, which replacing an
// object needs, too. To list, object is the prefix that is asked for. It must not
// call the Server.
func (s *Server) Deny(f func(method, op, bucket, object string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied = f
}

// Conceal makes the server answer 403 for an object that does not exist, as to an
// account that may not list the bucket.
func (s *Server) Conceal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conceals = true
}

// Objects returns the objects with that prefix, by name; none where the bucket
// does not exist.
func (s *Server) Objects(bucket, prefix string) []Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := s.list(bucket, fakestorage.ListOptions{Prefix: prefix})
	if err != nil {
		return nil
	}
	objects := make([]Object, len(found.Objects))
	for i, o := range found.Objects {
		objects[i] = public(o)
	}
	return objects
}

// Get returns an object with its content. Where there is none the error is
// fs.ErrNotExist.
func (s *Server) Get(bucket, name string) (Object, []byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, data, err := s.read(bucket, name)
	if err != nil {
		return Object{}, nil, err
	}
	return public(o), data, nil
}

// Read returns an object's content. Where there is none the error is
// fs.ErrNotExist.
func (s *Server) Read(bucket, name string) ([]byte, error) {
	_, data, err := s.Get(bucket, name)
	return data, err
}

// Write creates or replaces an object. Deny does not bind it, a retention
// policy does.
func (s *Server) Write(bucket, name string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.create(trusted, fakestorage.ObjectAttrs{BucketName: bucket, Name: name, ContentType: defaultType}, conditions{}, data)
	return err
}

// Delete deletes an object, bound as Write is. Where there is none the error is
// fs.ErrNotExist.
func (s *Server) Delete(bucket, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remove(trusted, bucket, name, conditions{})
}

const (
	defaultType = "application/octet-stream"
	trusted     = "" // in place of a request's method: nothing is denied
)

// generation returns the object's generation, 0 for none. The emulator gives
// none of its own choosing to files, and the same one twice while the clock
// stands still; the time of update, which it keeps to the microsecond, holds
// ours. Real generations look the same.
func generation(o fakestorage.ObjectAttrs) int64 {
	if o.Updated.IsZero() {
		return 0
	}
	return o.Updated.UnixMicro()
}

func public(o fakestorage.ObjectAttrs) Object {
	crc, _ := base64.StdEncoding.DecodeString(o.Crc32c)
	return Object{
		Name:        o.Name,
		Generation:  generation(o),
		Size:        o.Size,
		ContentType: o.ContentType,
		Metadata:    o.Metadata,
		Created:     o.Created,
		CRC32C:      binary.BigEndian.Uint32(crc),
	}
}

// The methods below want s.mu to be held.

// exists returns an error where the bucket does not exist.
func (s *Server) exists(bucket string) error {
	if _, err := s.gcs.Backend().GetBucket(bucket); err != nil {
		return &apiError{http.StatusNotFound, "notFound", "The specified bucket does not exist."}
	}
	return nil
}

// find looks for an object in a bucket that must exist.
func (s *Server) find(bucket, name string) (o fakestorage.ObjectAttrs, found bool, err error) {
	if err := s.exists(bucket); err != nil {
		return o, false, err
	}
	if name == "" || s.files && (!filepath.IsLocal(name) || strings.HasSuffix(name, "/")) {
		return o, false, &apiError{http.StatusBadRequest, "invalid", fmt.Sprintf("Invalid object name %q.", name)}
	}
	stored, err := s.gcs.GetObjectStreaming(bucket, name)
	if err != nil {
		return o, false, nil
	}
	// The emulator opens a file only to read it: there is nothing to close.
	return stored.ObjectAttrs, true, nil
}

// stat returns an object that must exist.
func (s *Server) stat(bucket, name string) (fakestorage.ObjectAttrs, error) {
	o, found, err := s.find(bucket, name)
	if err == nil && !found {
		err = &apiError{http.StatusNotFound, "notFound", "No such object: " + bucket + "/" + name}
	}
	return o, err
}

func (s *Server) read(bucket, name string) (fakestorage.ObjectAttrs, []byte, error) {
	o, err := s.stat(bucket, name)
	if err != nil {
		return o, nil, err
	}
	stored, err := s.gcs.GetObjectStreaming(bucket, name)
	if err != nil {
		return o, nil, fmt.Errorf("reading object %q: %w", name, err)
	}
	defer stored.Close()
	data := make([]byte, o.Size)
	if _, err := io.ReadFull(stored.Content, data); err != nil {
		return o, nil, fmt.Errorf("reading object %q: %w", name, err)
	}
	return o, data, nil
}

func (s *Server) list(bucket string, options fakestorage.ListOptions) (fakestorage.ListResponse, error) {
	if err := s.exists(bucket); err != nil {
		return fakestorage.ListResponse{}, err
	}
	found, err := s.gcs.ListObjectsWithOptionsPaginated(bucket, options)
	if err != nil {
		return found, fmt.Errorf("listing bucket %q: %w", bucket, err)
	}
	return found, nil
}

// create creates the object, or replaces the one of its name.
func (s *Server) create(method string, o fakestorage.ObjectAttrs, c conditions, data []byte) (fakestorage.ObjectAttrs, error) {
	old, found, err := s.find(o.BucketName, o.Name)
	if err != nil {
		return o, err
	}
	if err := s.allow(method, "create", o.BucketName, o.Name); err != nil {
		return o, err
	}
	if err := c.check(generation(old)); err != nil {
		return o, err
	}
	if found {
		if err := s.allow(method, "delete", o.BucketName, o.Name); err != nil {
			return o, err
		}
		if err := s.retains(o.BucketName, o.Name); err != nil {
			return o, err
		}
	}

	now := time.Now()
	s.generation = max(s.generation+1, now.UnixMicro())
	o.Created, o.Updated, o.Generation = now, time.UnixMicro(s.generation), 0
	if err := s.gcs.CreateObjectStreaming(fakestorage.Object{ObjectAttrs: o, Content: data}.StreamingObject()); err != nil {
		return o, fmt.Errorf("writing object %q: %w", o.Name, err)
	}
	return s.stat(o.BucketName, o.Name)
}

func (s *Server) remove(method, bucket, name string, c conditions) error {
	o, err := s.stat(bucket, name)
	if err != nil {
		return err
	}
	if err := s.allow(method, "delete", bucket, name); err != nil {
		return err
	}
	if err := c.check(generation(o)); err != nil {
		return err
	}
	if err := s.retains(bucket, name); err != nil {
		return err
	}
	return s.erase(bucket, name)
}

// move renames an object. The new one has the old one's content and attributes.
func (s *Server) move(method, bucket, from, to string, source, c conditions) (fakestorage.ObjectAttrs, error) {
	if from == to {
		return fakestorage.ObjectAttrs{}, &apiError{http.StatusBadRequest, "invalid", "The source and destination object names must differ."}
	}
	o, data, err := s.read(bucket, from)
	if err != nil {
		return o, err
	}
	if err := s.allow(method, "move", bucket, from); err != nil {
		return o, err
	}
	if err := source.check(generation(o)); err != nil {
		return o, err
	}
	if err := s.retains(bucket, from); err != nil {
		return o, err
	}
	o.Name = to
	if o, err = s.create(method, o, c, data); err != nil {
		return o, err
	}
	return o, s.erase(bucket, from)
}

func (s *Server) erase(bucket, name string) error {
	if err := s.gcs.Backend().DeleteObject(bucket, name); err != nil {
		return fmt.Errorf("deleting object %q: %w", name, err)
	}
	return nil
}

// concealed is the answer's error for err.
func (s *Server) concealed(err error) error {
	if e, ok := errors.AsType[*apiError](err); ok && s.conceals && strings.HasPrefix(e.message, "No such object") {
		return &apiError{http.StatusForbidden, "forbidden", "The caller does not have storage.objects.list access to the bucket."}
	}
	return err
}

// allow returns an error where the permission is denied.
func (s *Server) allow(method, op, bucket, name string) error {
	if method == trusted || s.denied == nil || !s.denied(method, op, bucket, name) {
		return nil
	}
	permission := "storage.objects." + op
	return &apiError{http.StatusForbidden, "forbidden", fmt.Sprintf(
		"The caller does not have %s access to %s. Permission '%s' denied on resource (or it may not exist).",
		permission, strings.TrimSuffix(bucket+"/"+name, "/"), permission)}
}

// retains returns an error where the bucket keeps its objects.
func (s *Server) retains(bucket, name string) error {
	if !s.retained[bucket] {
		return nil
	}
	return &apiError{http.StatusForbidden, "retentionPolicyNotMet", fmt.Sprintf(
		"Object '%s/%s' is subject to bucket's retention policy or object retention and cannot be deleted or overwritten.", bucket, name)}
}
