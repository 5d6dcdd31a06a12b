package bucket

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"time"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func (s *Server) routes() {
	const (
		objects = "/storage/v1/b/{bucket}/o"
		object  = objects + "/{object}"
		upload  = "/upload/storage/v1/b/{bucket}/o"
	)
	s.mux = http.NewServeMux()
	for pattern, h := range map[string]handler{
		"GET " + objects:   s.serveList,
		"GET " + object:    s.serveGet,
		"DELETE " + object: s.serveDelete,
		"POST " + object + "/moveTo/o/{destination}":           s.serveMove,
		"POST " + object + "/rewriteTo/b/{to}/o/{destination}": s.serveRewrite,
		"GET /download" + object:                               s.serveMedia,
		"POST " + upload:                                       s.serveUpload,
		"PUT " + upload:                                        s.serveUpload,
		"DELETE " + upload:                                     s.serveCancel,
		"/{bucket}/{object...}":                                s.serveXML,
		// The emulator would answer with generations of its own.
		objects + "/": serveUnknown,
		objects:       serveUnknown,
		upload:        serveUnknown,
	} {
		s.mux.Handle(pattern, s.atomic(h))
	}
	// What is about buckets.
	s.mux.Handle("/storage/v1/b", s.gcs.HTTPHandler())
	s.mux.Handle("/storage/v1/b/", s.gcs.HTTPHandler())
}

// handler answers a request whose body has been read, with s.mu held.
type handler func(r *http.Request, body []byte) (answer, error)

// answer is what a handler answers: media, or else body as JSON.
type answer struct {
	status int // 0: 200
	header http.Header
	body   any
	media  *media
}

type media struct {
	object fakestorage.ObjectAttrs
	data   []byte
}

// atomic turns h into an operation of its own: the lock is held neither while
// the request is read nor while the answer is written, which both wait for the
// client.
func (s *Server) atomic(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		body.Grow(int(max(0, r.ContentLength)) + bytes.MinRead)
		if _, err := body.ReadFrom(r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		s.mu.Lock()
		a, err := h(r, body.Bytes())
		err = s.concealed(err)
		s.mu.Unlock()
		if err != nil {
			a = refusal(err)
		}
		a.write(w, r)
	})
}

func (a answer) write(w http.ResponseWriter, r *http.Request) {
	for k, v := range a.header {
		w.Header()[k] = v
	}
	if a.media != nil {
		a.media.write(w, r)
		return
	}
	if a.body == nil {
		w.WriteHeader(cmp.Or(a.status, http.StatusOK))
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(cmp.Or(a.status, http.StatusOK))
	json.NewEncoder(w).Encode(a.body)
}

func (m *media) write(w http.ResponseWriter, r *http.Request) {
	o, h := m.object, w.Header()
	h.Set("Content-Type", cmp.Or(o.ContentType, defaultType))
	for name, value := range map[string]string{
		"Content-Encoding":    o.ContentEncoding,
		"Content-Disposition": o.ContentDisposition,
		"Content-Language":    o.ContentLanguage,
		"Cache-Control":       o.CacheControl,
	} {
		if value != "" {
			h.Set(name, value)
		}
	}
	for k, v := range o.Metadata {
		h.Set("X-Goog-Meta-"+k, v)
	}
	h.Set("ETag", strconv.Quote(etag(o)))
	h.Set("X-Goog-Generation", strconv.FormatInt(generation(o), 10))
	h.Set("X-Goog-Metageneration", "1")
	h.Set("X-Goog-Storage-Class", "STANDARD")
	h.Set("X-Goog-Stored-Content-Encoding", cmp.Or(o.ContentEncoding, "identity"))
	h.Set("X-Goog-Stored-Content-Length", strconv.FormatInt(o.Size, 10))
	h.Add("X-Goog-Hash", "crc32c="+o.Crc32c)
	h.Add("X-Goog-Hash", "md5="+o.Md5Hash)
	http.ServeContent(w, r, "", o.Created, bytes.NewReader(m.data))
}

func (s *Server) serveList(r *http.Request, _ []byte) (answer, error) {
	bucket, q := r.PathValue("bucket"), r.URL.Query()
	for _, name := range []string{"matchGlob", "filter"} {
		if q.Get(name) != "" {
			return serveUnknown(r, nil)
		}
	}
	for _, name := range []string{"versions", "softDeleted"} {
		if on, _ := strconv.ParseBool(q.Get(name)); on {
			return serveUnknown(r, nil)
		}
	}
	most := 1000
	if v := q.Get("maxResults"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return answer{}, invalid("Invalid value for maxResults: %q", v)
		}
		most = min(most, n)
	}
	if err := s.exists(bucket); err != nil {
		return answer{}, err
	}
	if err := s.allow(r.Method, "list", bucket, q.Get("prefix")); err != nil {
		return answer{}, err
	}
	found, err := s.list(bucket, fakestorage.ListOptions{
		Prefix:                   q.Get("prefix"),
		Delimiter:                q.Get("delimiter"),
		StartOffset:              q.Get("startOffset"),
		EndOffset:                q.Get("endOffset"),
		IncludeTrailingDelimiter: q.Get("includeTrailingDelimiter") == "true",
		MaxResults:               most,
		PageToken:                q.Get("pageToken"),
	})
	if err != nil {
		return answer{}, err
	}
	items := make([]resource, len(found.Objects))
	for i, o := range found.Objects {
		items[i] = newResource(o, r)
	}
	return answer{body: struct {
		Kind          string     `json:"kind"`
		NextPageToken string     `json:"nextPageToken,omitempty"`
		Prefixes      []string   `json:"prefixes,omitempty"`
		Items         []resource `json:"items,omitempty"`
	}{"storage#objects", found.NextPageToken, found.Prefixes, items}}, nil
}

func (s *Server) serveGet(r *http.Request, body []byte) (answer, error) {
	if r.URL.Query().Get("alt") == "media" {
		return s.serveMedia(r, body)
	}
	o, err := s.lookUp(r)
	if err != nil {
		return answer{}, err
	}
	return answer{body: newResource(o, r)}, nil
}

func (s *Server) serveMedia(r *http.Request, _ []byte) (answer, error) {
	if _, err := s.lookUp(r); err != nil {
		return answer{}, err
	}
	o, data, err := s.read(r.PathValue("bucket"), r.PathValue("object"))
	return answer{media: &media{o, data}}, err
}

// serveXML reads an object as the XML API does, which clients use for reading
// unless they are told otherwise. Its other operations are not simulated.
func (s *Server) serveXML(r *http.Request, body []byte) (answer, error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return serveUnknown(r, body)
	}
	q := r.URL.Query()
	for header, param := range map[string]string{
		"X-Goog-If-Generation-Match":     "ifGenerationMatch",
		"X-Goog-If-Metageneration-Match": "ifMetagenerationMatch",
	} {
		if v := r.Header.Get(header); v != "" {
			q.Set(param, v)
		}
	}
	r.URL.RawQuery = q.Encode()
	return s.serveMedia(r, body)
}

// lookUp returns the object that the request names and may get.
func (s *Server) lookUp(r *http.Request) (fakestorage.ObjectAttrs, error) {
	bucket, name := r.PathValue("bucket"), r.PathValue("object")
	c, err := parseConditions(r.URL.Query(), false)
	if err != nil {
		return fakestorage.ObjectAttrs{}, err
	}
	if err := s.exists(bucket); err != nil {
		return fakestorage.ObjectAttrs{}, err
	}
	if err := s.allow(r.Method, "get", bucket, name); err != nil {
		return fakestorage.ObjectAttrs{}, err
	}
	o, err := s.stat(bucket, name)
	if err != nil {
		return o, err
	}
	err = c.check(generation(o))
	if failed, ok := errors.AsType[*apiError](err); ok && failed.status == http.StatusPreconditionFailed && c.asksForNews() {
		failed.status = http.StatusNotModified
	}
	return o, err
}

func (s *Server) serveDelete(r *http.Request, _ []byte) (answer, error) {
	c, err := parseConditions(r.URL.Query(), false)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusNoContent}, s.remove(r.Method, r.PathValue("bucket"), r.PathValue("object"), c)
}

// parseBothConditions reads those of a source and those of its destination.
func parseBothConditions(q url.Values) (source, c conditions, err error) {
	if source, err = parseConditions(q, true); err != nil {
		return source, c, err
	}
	c, err = parseConditions(q, false)
	return source, c, err
}

func (s *Server) serveMove(r *http.Request, _ []byte) (answer, error) {
	source, c, err := parseBothConditions(r.URL.Query())
	if err != nil {
		return answer{}, err
	}
	o, err := s.move(r.Method, r.PathValue("bucket"), r.PathValue("object"), r.PathValue("destination"), source, c)
	return answer{body: newResource(o, r)}, err
}

func (s *Server) serveRewrite(r *http.Request, body []byte) (answer, error) {
	source, c, err := parseBothConditions(r.URL.Query())
	if err != nil {
		return answer{}, err
	}
	var chosen attributes
	if err := json.Unmarshal(body, &chosen); err != nil && len(body) > 0 {
		return answer{}, invalid("Parse Error: %v", err)
	}
	bucket, name := r.PathValue("bucket"), r.PathValue("object")
	if err := s.exists(bucket); err != nil {
		return answer{}, err
	}
	if err := s.allow(r.Method, "get", bucket, name); err != nil {
		return answer{}, err
	}
	o, data, err := s.read(bucket, name)
	if err != nil {
		return answer{}, err
	}
	if err := source.check(generation(o)); err != nil {
		return answer{}, err
	}
	// Attributes in the request replace all of the source's.
	if !reflect.ValueOf(chosen).IsZero() {
		chosen.apply(&o)
	}
	o.BucketName, o.Name = r.PathValue("to"), r.PathValue("destination")
	o, err = s.create(r.Method, o, c, data)
	return answer{body: map[string]any{
		"kind":                "storage#rewriteResponse",
		"totalBytesRewritten": strconv.FormatInt(o.Size, 10),
		"objectSize":          strconv.FormatInt(o.Size, 10),
		"done":                true,
		"resource":            newResource(o, r),
	}}, err
}

func serveUnknown(r *http.Request, _ []byte) (answer, error) {
	return answer{}, &apiError{http.StatusNotImplemented, "notImplemented", "Not simulated: " + r.Method + " " + r.URL.String()}
}

// attributes are the parts of an object that its writer chooses.
type attributes struct {
	ContentType        string            `json:"contentType,omitempty"`
	ContentEncoding    string            `json:"contentEncoding,omitempty"`
	ContentDisposition string            `json:"contentDisposition,omitempty"`
	ContentLanguage    string            `json:"contentLanguage,omitempty"`
	CacheControl       string            `json:"cacheControl,omitempty"`
	Metadata           map[string]string `json:"metadata,omitempty"`
}

func (a attributes) apply(o *fakestorage.ObjectAttrs) {
	o.ContentType, o.ContentEncoding, o.ContentDisposition = a.ContentType, a.ContentEncoding, a.ContentDisposition
	o.ContentLanguage, o.CacheControl, o.Metadata = a.ContentLanguage, a.CacheControl, a.Metadata
}

// resource is an object in answers.
type resource struct {
	Kind           string `json:"kind"`
	ID             string `json:"id"`
	SelfLink       string `json:"selfLink"`
	MediaLink      string `json:"mediaLink"`
	Bucket         string `json:"bucket"`
	Name           string `json:"name"`
	Generation     int64  `json:"generation,string"`
	Metageneration int64  `json:"metageneration,string"`
	StorageClass   string `json:"storageClass"`
	Size           int64  `json:"size,string"`
	MD5Hash        string `json:"md5Hash"`
	CRC32C         string `json:"crc32c"`
	ETag           string `json:"etag"`
	TimeCreated    string `json:"timeCreated"`
	Updated        string `json:"updated"`
	attributes
}

func newResource(o fakestorage.ObjectAttrs, r *http.Request) resource {
	host, path := "http://"+r.Host, "/storage/v1/b/"+url.PathEscape(o.BucketName)+"/o/"+url.PathEscape(o.Name)
	created := o.Created.UTC().Format(time.RFC3339Nano)
	return resource{
		Kind:           "storage#object",
		ID:             fmt.Sprintf("%s/%s/%d", o.BucketName, o.Name, generation(o)),
		SelfLink:       host + path,
		MediaLink:      host + "/download" + path + "?alt=media",
		Bucket:         o.BucketName,
		Name:           o.Name,
		Generation:     generation(o),
		Metageneration: 1,
		StorageClass:   "STANDARD",
		Size:           o.Size,
		MD5Hash:        o.Md5Hash,
		CRC32C:         o.Crc32c,
		ETag:           etag(o),
		TimeCreated:    created,
		Updated:        created,
		attributes: attributes{o.ContentType, o.ContentEncoding, o.ContentDisposition,
			o.ContentLanguage, o.CacheControl, o.Metadata},
	}
}

func etag(o fakestorage.ObjectAttrs) string { return strconv.FormatInt(generation(o), 10) }

// conditions are a request's preconditions on one object.
type conditions struct {
	generation         *int64 // the only one that is meant
	match, notMatch    *int64
	metaMatch, metaNot *int64
}

// parseConditions returns the preconditions on the destination or, where there
// are two objects, on the source.
func parseConditions(q url.Values, source bool) (c conditions, err error) {
	generation, infix := "generation", ""
	if source {
		generation, infix = "sourceGeneration", "Source"
	}
	for name, to := range map[string]**int64{
		generation:                              &c.generation,
		"if" + infix + "GenerationMatch":        &c.match,
		"if" + infix + "GenerationNotMatch":     &c.notMatch,
		"if" + infix + "MetagenerationMatch":    &c.metaMatch,
		"if" + infix + "MetagenerationNotMatch": &c.metaNot,
	} {
		v := q.Get(name)
		if v == "" {
			continue
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return c, invalid("Invalid value for %s: %q", name, v)
		}
		*to = &n
	}
	return c, nil
}

// check returns an error unless an object of that generation, 0 for none, meets
// the conditions.
func (c conditions) check(generation int64) error {
	var meta int64
	if generation != 0 {
		meta = 1 // no operation here changes attributes alone
	}
	is := func(want *int64, got int64) bool { return want == nil || *want == got }
	isNot := func(unwanted *int64, got int64) bool { return unwanted == nil || *unwanted != got }
	if !is(c.generation, generation) {
		return &apiError{http.StatusNotFound, "notFound", fmt.Sprintf("No such object generation: %d", *c.generation)}
	}
	if !is(c.match, generation) || !isNot(c.notMatch, generation) || !is(c.metaMatch, meta) || !isNot(c.metaNot, meta) {
		return &apiError{http.StatusPreconditionFailed, "conditionNotMet", "At least one of the pre-conditions you specified did not hold."}
	}
	return nil
}

// asksForNews reports whether the conditions are those of a reader who has an
// object already; to such a reader a failed one says that it is not modified.
func (c conditions) asksForNews() bool {
	return c.match == nil && c.metaMatch == nil && (c.notMatch != nil || c.metaNot != nil)
}

// apiError is an error answer.
type apiError struct {
	status          int
	reason, message string
}

func invalid(format string, args ...any) error {
	return &apiError{http.StatusBadRequest, "invalid", fmt.Sprintf(format, args...)}
}

func (e *apiError) Error() string { return e.message }

// Is makes what is missing fs.ErrNotExist for those who call the Server.
func (e *apiError) Is(target error) bool {
	return target == fs.ErrNotExist && e.status == http.StatusNotFound
}

// refusal returns the answer for an error.
func refusal(err error) answer {
	e, ok := errors.AsType[*apiError](err)
	if !ok {
		e = &apiError{http.StatusInternalServerError, "internalError", err.Error()}
	}
	if e.status == http.StatusNotModified {
		return answer{status: e.status}
	}
	return answer{status: e.status, body: map[string]any{"error": map[string]any{
		"code":    e.status,
		"message": e.message,
		"errors":  []map[string]string{{"domain": "global", "reason": e.reason, "message": e.message}},
	}}}
}
