package bucket

import (
	"bytes"
	"cmp"
	"crypto/md5"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

// upload is the object that a request wants to create.
type upload struct {
	object     fakestorage.ObjectAttrs
	conditions conditions
	sums       sums
}

// sums are the checksums that the content must have; "" means any.
type sums struct{ crc32c, md5 string }

// session is a resumable upload.
type session struct {
	upload
	chunks [][]byte // joined at the end: growing one slice would copy it over and over
	size   int64

	// How the upload ended, once it has: a client that lost the answer
	// sends its last chunk again, and gets the same one.
	done   bool
	answer answer
	err    error
}

// newUpload returns the upload of a request, given the JSON that describes the
// object and the type that its content is sent with.
func newUpload(r *http.Request, metadata []byte, contentType string) (upload, error) {
	var m struct {
		attributes
		Name    string `json:"name"`
		CRC32C  string `json:"crc32c"`
		MD5Hash string `json:"md5Hash"`
	}
	if err := json.Unmarshal(metadata, &m); err != nil && len(metadata) > 0 {
		return upload{}, invalid("Parse Error: %v", err)
	}
	q := r.URL.Query()
	c, err := parseConditions(q, false)
	if err != nil {
		return upload{}, err
	}
	u := upload{
		object:     fakestorage.ObjectAttrs{BucketName: r.PathValue("bucket"), Name: cmp.Or(q.Get("name"), m.Name)},
		conditions: c,
		sums:       sums{m.CRC32C, m.MD5Hash},
	}
	m.apply(&u.object)
	u.object.ContentType = cmp.Or(m.ContentType, contentType, defaultType)
	return u, nil
}

func (s *Server) serveUpload(r *http.Request, body []byte) (answer, error) {
	if err := s.exists(r.PathValue("bucket")); err != nil {
		return answer{}, err
	}
	q := r.URL.Query()
	if id := q.Get("upload_id"); id != "" {
		return s.serveChunk(r, id, body)
	}
	if r.Method != http.MethodPost {
		return serveUnknown(r, body)
	}
	switch q.Get("uploadType") {
	case "media":
		u, err := newUpload(r, nil, r.Header.Get("Content-Type"))
		if err != nil {
			return answer{}, err
		}
		return s.finish(r, u, body)
	case "multipart":
		metadata, contentType, data, err := split(r.Header.Get("Content-Type"), body)
		if err != nil {
			return answer{}, invalid("Malformed multipart body: %v", err)
		}
		u, err := newUpload(r, metadata, contentType)
		if err != nil {
			return answer{}, err
		}
		return s.finish(r, u, data)
	case "resumable":
		return s.serveStart(r, body)
	}
	return answer{}, invalid("Invalid uploadType: %q", q.Get("uploadType"))
}

// split returns the two parts of a multipart upload.
func split(header string, body []byte) (metadata []byte, contentType string, data []byte, err error) {
	_, params, err := mime.ParseMediaType(header)
	if err != nil {
		return nil, "", nil, err
	}
	parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	part, err := parts.NextRawPart()
	if err != nil {
		return nil, "", nil, err
	}
	if metadata, err = io.ReadAll(part); err != nil {
		return nil, "", nil, err
	}
	if part, err = parts.NextRawPart(); err != nil {
		return nil, "", nil, err
	}
	if data, err = io.ReadAll(part); err != nil {
		return nil, "", nil, err
	}
	if _, end := parts.NextRawPart(); end != io.EOF {
		return nil, "", nil, fmt.Errorf("no end after two parts: %v", end)
	}
	return metadata, part.Header.Get("Content-Type"), data, nil
}

// serveStart begins a resumable upload.
func (s *Server) serveStart(r *http.Request, body []byte) (answer, error) {
	u, err := newUpload(r, body, r.Header.Get("X-Upload-Content-Type"))
	if err != nil {
		return answer{}, err
	}
	if _, _, err := s.find(u.object.BucketName, u.object.Name); err != nil {
		return answer{}, err
	}
	if err := s.allow(r.Method, "create", u.object.BucketName, u.object.Name); err != nil {
		return answer{}, err
	}
	id := rand.Text()
	s.sessions[id] = &session{upload: u}
	return answer{header: http.Header{"Location": {fmt.Sprintf("http://%s/upload/storage/v1/b/%s/o?uploadType=resumable&upload_id=%s",
		r.Host, url.PathEscape(u.object.BucketName), id)}}}, nil
}

// serveCancel ends a resumable upload without an object.
func (s *Server) serveCancel(r *http.Request, _ []byte) (answer, error) {
	delete(s.sessions, r.URL.Query().Get("upload_id"))
	return answer{status: 499}, nil // GCS's own status for it
}

// serveChunk takes a chunk of a resumable upload, or a question for its state.
func (s *Server) serveChunk(r *http.Request, id string, body []byte) (answer, error) {
	up := s.sessions[id]
	if up == nil {
		return answer{}, &apiError{http.StatusNotFound, "notFound", "No such upload: " + id}
	}
	if up.done {
		return up.answer, up.err
	}
	first, total, err := parseRange(r.Header.Get("Content-Range"), len(body))
	if err != nil {
		return answer{}, err
	}
	if first > up.size {
		return answer{}, &apiError{http.StatusServiceUnavailable, "backendError", fmt.Sprintf(
			"Invalid request. According to the Content-Range header, the upload offset is %d byte(s), which exceeds already uploaded size of %d byte(s).", first, up.size)}
	}
	// What was sent before, and stored, is not stored again.
	if known := up.size - first; first >= 0 && known < int64(len(body)) {
		up.chunks = append(up.chunks, body[known:])
		up.size += int64(len(body)) - known
	}
	if total >= 0 && up.size > total {
		return answer{}, invalid("Invalid request. %d bytes were sent of a total of %d.", up.size, total)
	}
	if up.size != total {
		return incomplete(r, up.size), nil
	}

	up.done = true
	up.answer, up.err = s.finish(r, up.upload, bytes.Join(up.chunks, nil))
	up.chunks = nil
	return up.answer, up.err
}

// parseRange parses a Content-Range for a body of that size. Without a body
// first is -1; an unknown total is -1.
func parseRange(header string, size int) (first, total int64, err error) {
	if header == "" {
		return 0, int64(size), nil
	}
	bad := invalid("Invalid Content-Range %q for %d bytes", header, size)
	span, all, ok := strings.Cut(strings.TrimPrefix(header, "bytes "), "/")
	if !ok {
		return 0, 0, bad
	}
	total = -1
	if all != "*" {
		if total, err = strconv.ParseInt(all, 10, 64); err != nil || total < 0 {
			return 0, 0, bad
		}
	}
	if span == "*" {
		if size > 0 {
			return 0, 0, bad
		}
		return -1, total, nil
	}
	from, to, _ := strings.Cut(span, "-")
	first, err = strconv.ParseInt(from, 10, 64)
	if err != nil || first < 0 {
		return 0, 0, bad
	}
	if last, err := strconv.ParseInt(to, 10, 64); err != nil || last-first+1 != int64(size) {
		return 0, 0, bad
	}
	return first, total, nil
}

// incomplete says how much of a resumable upload is there.
func incomplete(r *http.Request, have int64) answer {
	a := answer{status: http.StatusPermanentRedirect, header: http.Header{}}
	if have > 0 {
		a.header.Set("Range", fmt.Sprintf("bytes=0-%d", have-1))
	}
	if r.Header.Get("X-Guploader-No-308") != "" {
		a.status = http.StatusOK
		a.header.Set("X-Http-Status-Code-Override", "308")
	}
	return a
}

// finish creates the object that was uploaded.
func (s *Server) finish(r *http.Request, u upload, data []byte) (answer, error) {
	if err := u.sums.check(data); err != nil {
		return answer{}, err
	}
	if err := headerSums(r.Header).check(data); err != nil {
		return answer{}, err
	}
	o, err := s.create(r.Method, u.object, u.conditions, data)
	if err != nil {
		return answer{}, err
	}
	return answer{body: newResource(o, r)}, nil
}

// headerSums returns the checksums in a request's header.
func headerSums(h http.Header) (want sums) {
	for _, line := range h.Values("X-Goog-Hash") {
		for sum := range strings.SplitSeq(line, ",") {
			switch name, value, _ := strings.Cut(strings.TrimSpace(sum), "="); name {
			case "crc32c":
				want.crc32c = value
			case "md5":
				want.md5 = value
			}
		}
	}
	return want
}

func (want sums) check(data []byte) error {
	if want.crc32c != "" {
		sum := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
		if got := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum)); got != want.crc32c {
			return invalid("Provided CRC32C %q doesn't match calculated CRC32C %q.", want.crc32c, got)
		}
	}
	if want.md5 != "" {
		sum := md5.Sum(data)
		if got := base64.StdEncoding.EncodeToString(sum[:]); got != want.md5 {
			return invalid("Provided MD5 hash %q doesn't match calculated MD5 hash %q.", want.md5, got)
		}
	}
	return nil
}
