package bucket_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/storage"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"example.com/auditlog/internal/sim/bucket"
	"example.com/auditlog/internal/sim/fault"
)

// rig is a bucket with a real client and faults between them.
type rig struct {
	testing.TB
	server *bucket.Server
	faults *fault.Handler
	url    string
	client *storage.Client
	logs   *storage.BucketHandle
}

// each runs the test with both ways of keeping objects.
func each(t *testing.T, test func(r *rig)) {
	t.Run("memory", func(t *testing.T) { test(start(t, "")) })
	t.Run("files", func(t *testing.T) { test(start(t, t.TempDir())) })
}

func start(t testing.TB, dir string) *rig {
	t.Helper()
	s, err := bucket.New(dir, "logs", "other")
	if err != nil {
		t.Fatal(err)
	}
	h := fault.Wrap(s)
	srv := httptest.NewServer(h)
	client, err := storage.NewClient(t.Context(), option.WithEndpoint(srv.URL+"/storage/v1/"),
		option.WithoutAuthentication(), storage.WithJSONReads())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		h.Close()
		srv.Close()
		s.Close()
	})
	return &rig{t, s, h, srv.URL, client, client.Bucket("logs")}
}

// write writes an object and returns what the client knows of it then.
func (r *rig) write(o *storage.ObjectHandle, data []byte, change ...func(*storage.Writer)) (*storage.ObjectAttrs, error) {
	w := o.NewWriter(r.Context())
	for _, c := range change {
		c(w)
	}
	if _, err := w.Write(data); err != nil {
		w.Close()
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return w.Attrs(), nil
}

func (r *rig) mustWrite(name, data string) *storage.ObjectAttrs {
	r.Helper()
	a, err := r.write(r.logs.Object(name), []byte(data))
	if err != nil {
		r.Fatal(err)
	}
	return a
}

func (r *rig) read(o *storage.ObjectHandle) (string, error) {
	rd, err := o.NewReader(r.Context())
	if err != nil {
		return "", err
	}
	defer rd.Close()
	data, err := io.ReadAll(rd)
	return string(data), err
}

// has checks the objects of the bucket and their content.
func (r *rig) has(want map[string]string) {
	r.Helper()
	got := map[string]string{}
	for _, o := range r.server.Objects("logs", "") {
		data, err := r.server.Read("logs", o.Name)
		if err != nil {
			r.Error(err)
		}
		got[o.Name] = string(data)
		if want := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)); o.CRC32C != want || o.Size != int64(len(data)) {
			r.Errorf("%s: CRC32C %d of %d bytes, want %d of %d", o.Name, o.CRC32C, o.Size, want, len(data))
		}
	}
	if !maps.Equal(got, want) {
		r.Errorf("the bucket has %q, want %q", got, want)
	}
}

// status checks the HTTP status of an error.
func (r *rig) status(err error, want int) {
	r.Helper()
	if e, ok := errors.AsType[*googleapi.Error](err); !ok || e.Code != want {
		r.Errorf("error %v, want status %d", err, want)
	}
}

var (
	absent    = storage.Conditions{DoesNotExist: true}
	resumable = func(w *storage.Writer) { w.ChunkSize = googleapi.MinUploadChunkSize }
)

func generationMatch(g int64) storage.Conditions { return storage.Conditions{GenerationMatch: g} }

func TestAttributes(t *testing.T) {
	each(t, func(r *rig) {
		before := time.Now().Add(-time.Second)
		const name = "a/b c+ü?#%/x.ndjson"
		a, err := r.write(r.logs.Object(name), []byte("{}\n"), func(w *storage.Writer) {
			w.ContentType = "application/x-ndjson"
			w.CacheControl = "no-store"
			w.Metadata = map[string]string{"attempt": "7"}
		})
		if err != nil {
			r.Fatal(err)
		}
		check := func(a *storage.ObjectAttrs) {
			r.Helper()
			if a.Name != name || a.Size != 3 || a.ContentType != "application/x-ndjson" || a.CacheControl != "no-store" ||
				a.Metadata["attempt"] != "7" || a.Generation == 0 || a.CRC32C != crc32.Checksum([]byte("{}\n"), crc32.MakeTable(crc32.Castagnoli)) ||
				len(a.MD5) != 16 || a.Created.Before(before) || a.Created.After(time.Now().Add(time.Second)) || !a.Updated.Equal(a.Created) {
				r.Errorf("attributes %+v", a)
			}
		}
		check(a)
		a, err = r.logs.Object(name).Attrs(r.Context())
		if err != nil {
			r.Fatal(err)
		}
		check(a)
		if a, err = r.logs.Objects(r.Context(), nil).Next(); err != nil {
			r.Fatal(err)
		}
		check(a)

		rd, err := r.logs.Object(name).NewReader(r.Context())
		if err != nil {
			r.Fatal(err)
		}
		defer rd.Close()
		if data, err := io.ReadAll(rd); string(data) != "{}\n" || err != nil || rd.Attrs.Generation != a.Generation || rd.Attrs.ContentType != "application/x-ndjson" {
			r.Errorf("read %q, %v with %+v", data, err, rd.Attrs)
		}
		o := r.server.Objects("logs", "a/")
		if len(o) != 1 || o[0].Name != name || o[0].Generation != a.Generation || o[0].Metadata["attempt"] != "7" {
			r.Errorf("objects %+v", o)
		}
	})
}

func TestRangeAndXMLReads(t *testing.T) {
	each(t, func(r *rig) {
		r.mustWrite("a b", "0123456789")
		rd, err := r.logs.Object("a b").NewRangeReader(r.Context(), 3, 4)
		if err != nil {
			r.Fatal(err)
		}
		if data, err := io.ReadAll(rd); string(data) != "3456" || err != nil || rd.Attrs.Size != 10 {
			r.Errorf("read %q of %d, %v", data, rd.Attrs.Size, err)
		}
		res, err := http.Get(r.url + "/logs/a%20b")
		if err != nil {
			r.Fatal(err)
		}
		defer res.Body.Close()
		if data, _ := io.ReadAll(res.Body); string(data) != "0123456789" {
			r.Errorf("XML read %q", data)
		}
	})
}

func TestOneWinnerOfManyCreates(t *testing.T) {
	for _, kind := range []string{"multipart", "resumable"} {
		each(t, func(r *rig) {
			var wins atomic.Int32
			var wg sync.WaitGroup
			for i := range 16 {
				wg.Go(func() {
					data := []byte(fmt.Sprint(i))
					if kind == "resumable" {
						data = bytes.Repeat(data, googleapi.MinUploadChunkSize+1)
					}
					_, err := r.write(r.logs.Object("x").If(absent), data, resumable)
					if err == nil {
						wins.Add(1)
					} else {
						r.status(err, http.StatusPreconditionFailed)
					}
				})
			}
			wg.Wait()
			if wins.Load() != 1 {
				r.Errorf("%s: %d winners", kind, wins.Load())
			}
		})
	}
}

func TestCompareAndSwap(t *testing.T) {
	each(t, func(r *rig) {
		first := r.mustWrite("x", "1")
		second, err := r.write(r.logs.Object("x").If(generationMatch(first.Generation)), []byte("2"))
		if err != nil {
			r.Fatal(err)
		}
		if second.Generation <= first.Generation {
			r.Errorf("generation %d after %d", second.Generation, first.Generation)
		}
		_, err = r.write(r.logs.Object("x").If(generationMatch(first.Generation)), []byte("3"))
		r.status(err, http.StatusPreconditionFailed)
		_, err = r.write(r.logs.Object("new").If(generationMatch(first.Generation)), []byte("3"))
		r.status(err, http.StatusPreconditionFailed)
		r.has(map[string]string{"x": "2"})

		// Reading has preconditions, too.
		_, err = r.logs.Object("x").If(generationMatch(first.Generation)).Attrs(r.Context())
		r.status(err, http.StatusPreconditionFailed)
		_, err = r.read(r.logs.Object("x").If(generationMatch(first.Generation)))
		r.status(err, http.StatusPreconditionFailed)
		if got, err := r.read(r.logs.Object("x").If(generationMatch(second.Generation))); got != "2" || err != nil {
			r.Errorf("read %q, %v", got, err)
		}
		_, err = r.read(r.logs.Object("x").If(storage.Conditions{GenerationNotMatch: second.Generation}))
		r.status(err, http.StatusNotModified)
		if _, err = r.read(r.logs.Object("x").Generation(first.Generation)); !errors.Is(err, storage.ErrObjectNotExist) {
			r.Errorf("an old generation: %v", err)
		}
	})
}

func TestDelete(t *testing.T) {
	each(t, func(r *rig) {
		old := r.mustWrite("x", "1")
		now := r.mustWrite("x", "2")
		r.status(r.logs.Object("x").If(generationMatch(old.Generation)).Delete(r.Context()), http.StatusPreconditionFailed)
		if err := r.logs.Object("x").Generation(old.Generation).Delete(r.Context()); !errors.Is(err, storage.ErrObjectNotExist) {
			r.Errorf("an old generation: %v", err)
		}
		r.has(map[string]string{"x": "2"})
		if err := r.logs.Object("x").If(generationMatch(now.Generation)).Delete(r.Context()); err != nil {
			r.Error(err)
		}
		if err := r.logs.Object("x").Delete(r.Context()); !errors.Is(err, storage.ErrObjectNotExist) {
			r.Errorf("deleted twice: %v", err)
		}
		r.has(map[string]string{})
	})
}

func TestMove(t *testing.T) {
	each(t, func(r *rig) {
		move := func(from, to string, source int64, c *storage.Conditions) (*storage.ObjectAttrs, error) {
			src := r.logs.Object(from)
			if source != 0 {
				src = src.If(generationMatch(source))
			}
			return src.Move(r.Context(), storage.MoveObjectDestination{Object: to, Conditions: c})
		}
		a, err := r.write(r.logs.Object("staged/a?b"), []byte("1"), func(w *storage.Writer) {
			w.ContentType = "application/x-ndjson"
			w.Metadata = map[string]string{"k": "v"}
		})
		if err != nil {
			r.Fatal(err)
		}
		_, err = move("staged/a?b", "feed/a", a.Generation+1, &absent)
		r.status(err, http.StatusPreconditionFailed)
		r.has(map[string]string{"staged/a?b": "1"})

		b, err := move("staged/a?b", "feed/a", a.Generation, &absent)
		if err != nil {
			r.Fatal(err)
		}
		if b.Name != "feed/a" || b.Generation <= a.Generation || b.CRC32C != a.CRC32C || b.ContentType != a.ContentType || b.Metadata["k"] != "v" {
			r.Errorf("moved %+v", b)
		}
		r.has(map[string]string{"feed/a": "1"})

		if _, err := move("staged/a?b", "feed/a", 0, &absent); !errors.Is(err, storage.ErrObjectNotExist) {
			r.Errorf("source gone: %v", err)
		}
		r.mustWrite("staged/b", "2")
		_, err = move("staged/b", "feed/a", 0, &absent)
		r.status(err, http.StatusPreconditionFailed)
		r.has(map[string]string{"feed/a": "1", "staged/b": "2"})
		if _, err = move("staged/b", "feed/a", 0, nil); err != nil {
			r.Error(err)
		}
		r.has(map[string]string{"feed/a": "2"})
		_, err = move("feed/a", "feed/a", 0, nil)
		r.status(err, http.StatusBadRequest)
	})
}

func TestOneWinnerOfManyMoves(t *testing.T) {
	each(t, func(r *rig) {
		for i := range 8 {
			r.mustWrite(fmt.Sprintf("staged/%d", i), fmt.Sprint(i))
		}
		var wins atomic.Int32
		var wg sync.WaitGroup
		for i := range 16 { // two for each source
			wg.Go(func() {
				_, err := r.logs.Object(fmt.Sprintf("staged/%d", i/2)).Move(r.Context(), storage.MoveObjectDestination{Object: "feed", Conditions: &absent})
				if err == nil {
					wins.Add(1)
				}
			})
		}
		wg.Wait()
		if n := len(r.server.Objects("logs", "")); wins.Load() != 1 || n != 8 {
			r.Errorf("%d winners, %d objects", wins.Load(), n)
		}
	})
}

func TestCopy(t *testing.T) {
	each(t, func(r *rig) {
		a, err := r.write(r.client.Bucket("other").Object("staged/a"), []byte("1"), func(w *storage.Writer) {
			w.ContentType = "text/x"
			w.Metadata = map[string]string{"k": "v"}
		})
		if err != nil {
			r.Fatal(err)
		}
		src, dst := r.client.Bucket("other").Object("staged/a"), r.logs.Object("feed/a")
		_, err = dst.If(absent).CopierFrom(src.If(generationMatch(a.Generation + 1))).Run(r.Context())
		r.status(err, http.StatusPreconditionFailed)
		r.has(map[string]string{})
		b, err := dst.If(absent).CopierFrom(src).Run(r.Context())
		if err != nil {
			r.Fatal(err)
		}
		if b.Bucket != "logs" || b.CRC32C != a.CRC32C || b.ContentType != "text/x" || b.Metadata["k"] != "v" || b.Generation <= a.Generation {
			r.Errorf("copied %+v", b)
		}
		_, err = dst.If(absent).CopierFrom(src).Run(r.Context())
		r.status(err, http.StatusPreconditionFailed)
		c := r.logs.Object("feed/b").CopierFrom(src)
		c.ContentType = "text/y"
		if b, err := c.Run(r.Context()); err != nil || b.ContentType != "text/y" || b.Metadata["k"] != "" {
			r.Errorf("copied with a type of its own: %+v, %v", b, err)
		}
		r.has(map[string]string{"feed/a": "1", "feed/b": "1"})
		if _, err := dst.CopierFrom(r.logs.Object("gone")).Run(r.Context()); !errors.Is(err, storage.ErrObjectNotExist) {
			r.Errorf("source gone: %v", err)
		}
	})
}

// content returns n bytes that differ from chunk to chunk.
func content(n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(data)
	return data
}

// chunks makes the nth request for a chunk of a resumable upload suffer.
func chunks(n int, f fault.Fault) fault.Script {
	count := 0
	return func(_ int, r *http.Request) fault.Fault {
		if r.URL.Query().Get("upload_id") == "" {
			return fault.Fault{}
		}
		if count++; count == n {
			return f
		}
		return fault.Fault{}
	}
}

func TestResumable(t *testing.T) {
	const chunk = googleapi.MinUploadChunkSize
	for _, size := range []int{2 * chunk, 2*chunk + 10} {
		data := content(size)
		for _, kind := range []fault.Kind{fault.None, fault.Refuse, fault.Fail, fault.Lose, fault.Drop} {
			for n := 1; n <= 3; n++ { // the last request is final, and empty where the size is round
				t.Run(fmt.Sprintf("%d/%s/%d", size, kind, n), func(t *testing.T) {
					r := start(t, "")
					// A connection for each request: on one that has been used
					// the transport itself repeats what was dropped.
					r.faults.Set(chunks(n, fault.Fault{Kind: kind, Status: 503}))
					o := r.logs.Object("x").If(absent).Retryer(storage.WithPolicy(storage.RetryAlways),
						storage.WithErrorFunc(func(err error) bool { return err != nil }), storage.WithBackoff(noBackoff))
					a, err := r.write(o, data, resumable)
					if err != nil {
						r.Fatal(err)
					}
					if a.Size != int64(size) {
						r.Errorf("%d bytes, want %d", a.Size, size)
					}
					r.has(map[string]string{"x": string(data)})
				})
			}
		}
	}
}

func TestResumableProtocol(t *testing.T) {
	each(t, func(r *rig) {
		post := func(url string, header map[string]string, body string) (*http.Response, string) {
			r.Helper()
			req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, url, strings.NewReader(body))
			if err != nil {
				r.Fatal(err)
			}
			for k, v := range header {
				req.Header.Set(k, v)
			}
			res, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				r.Fatal(err)
			}
			defer res.Body.Close()
			answer, _ := io.ReadAll(res.Body)
			return res, string(answer)
		}
		begin := func(query string) string {
			r.Helper()
			res, answer := post(r.url+"/upload/storage/v1/b/logs/o?uploadType=resumable&name=x"+query,
				map[string]string{"X-Upload-Content-Type": "text/x"}, "{}")
			if res.StatusCode != 200 || res.Header.Get("Location") == "" {
				r.Fatalf("start: %d %s", res.StatusCode, answer)
			}
			return res.Header.Get("Location")
		}
		type step struct {
			content, body string
			status        int
			have          string // the Range header
		}
		run := func(url string, steps ...step) {
			r.Helper()
			for _, s := range steps {
				res, answer := post(url, map[string]string{"Content-Range": s.content}, s.body)
				if res.StatusCode != s.status || res.Header.Get("Range") != s.have {
					r.Errorf("%s: %d, Range %q, want %d, %q: %s", s.content, res.StatusCode, res.Header.Get("Range"), s.status, s.have, answer)
				}
			}
		}
		run(begin(""),
			step{"bytes */*", "", 308, ""},
			step{"bytes 0-3/*", "0123", 308, "bytes=0-3"},
			step{"bytes 0-3/*", "0123", 308, "bytes=0-3"}, // sent twice
			step{"bytes */*", "", 308, "bytes=0-3"},
			step{"bytes 6-7/*", "67", 503, ""}, // leaves a hole
			step{"bytes 4-7/*", "45", 400, ""}, // length and range differ
			step{"bits 4-5/*", "45", 400, ""},
			step{"bytes 2-7/*", "234567", 308, "bytes=0-7"}, // overlaps
			step{"bytes 8-9/9", "89", 400, ""},              // beyond the total
		)
		run(begin(""),
			step{"bytes 0-3/*", "0123", 308, "bytes=0-3"},
			step{"bytes 2-5/*", "2345", 308, "bytes=0-5"},
			step{"bytes 5-6/7", "56", 200, ""},
		)
		r.has(map[string]string{"x": "0123456"})
		if err := r.server.Delete("logs", "x"); err != nil {
			r.Fatal(err)
		}
		url := begin("&ifGenerationMatch=0")
		run(url,
			step{"bytes 0-3/*", "0123", 308, "bytes=0-3"},
			step{"bytes 4-9/10", "456789", 200, ""},
			step{"bytes 4-9/10", "456789", 200, ""}, // the answer was lost
			step{"bytes */10", "", 200, ""},
		)
		r.has(map[string]string{"x": "0123456789"})
		if a, err := r.logs.Object("x").Attrs(r.Context()); err != nil || a.ContentType != "text/x" {
			r.Errorf("attributes %+v, %v", a, err)
		}
		g := r.server.Objects("logs", "")[0].Generation
		run(begin("&ifGenerationMatch=0"), step{"bytes 0-3/4", "abcd", 412, ""}, step{"bytes 0-3/4", "abcd", 412, ""})
		run(url+"0", step{"bytes 0-3/4", "abcd", 404, ""})
		if got := r.server.Objects("logs", "")[0].Generation; got != g {
			r.Error("the object was replaced")
		}
	})
}

var noBackoff = gax.Backoff{Initial: time.Millisecond, Max: time.Millisecond, Multiplier: 1}

func TestChecksums(t *testing.T) {
	each(t, func(r *rig) {
		wrong := func(w *storage.Writer) { w.SendCRC32C, w.CRC32C = true, 7 }
		_, err := r.write(r.logs.Object("x"), []byte("1"), wrong)
		r.status(err, http.StatusBadRequest)
		_, err = r.write(r.logs.Object("x"), content(2*googleapi.MinUploadChunkSize), wrong, resumable)
		r.status(err, http.StatusBadRequest)
		_, err = r.write(r.logs.Object("x"), []byte("1"), func(w *storage.Writer) { w.MD5 = make([]byte, 16) })
		r.status(err, http.StatusBadRequest)

		// Damage on the way, which the client's own checksum tells.
		for _, size := range []int{10, googleapi.MinUploadChunkSize + 10} {
			h := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				body, _ := io.ReadAll(req.Body)
				req.Body = io.NopCloser(bytes.NewReader(bytes.Replace(body, []byte("aaa"), []byte("aba"), 1)))
				r.server.ServeHTTP(w, req)
			})
			srv := httptest.NewServer(h)
			client, err := storage.NewClient(r.Context(), option.WithEndpoint(srv.URL+"/storage/v1/"), option.WithoutAuthentication())
			if err != nil {
				r.Fatal(err)
			}
			_, err = r.write(client.Bucket("logs").Object("x"), bytes.Repeat([]byte("a"), size), resumable)
			r.status(err, http.StatusBadRequest)
			client.Close()
			srv.Close()
		}
		r.has(map[string]string{})
	})
}

func TestList(t *testing.T) {
	each(t, func(r *rig) {
		var want []string
		for i := range 25 {
			name := fmt.Sprintf("p/%02d", i)
			r.mustWrite(name, "x")
			want = append(want, name)
		}
		r.mustWrite("q/1", "x")
		list := func(q *storage.Query) (names []string) {
			it := r.logs.Objects(r.Context(), q)
			it.PageInfo().MaxSize = 10
			for {
				a, err := it.Next()
				if err == iterator.Done {
					return names
				}
				if err != nil {
					r.Fatal(err)
				}
				names = append(names, a.Name+a.Prefix)
			}
		}
		if got := list(&storage.Query{Prefix: "p/"}); !slices.Equal(got, want) {
			r.Errorf("listed %v", got)
		}
		if got := list(&storage.Query{Delimiter: "/"}); !slices.Equal(got, []string{"p/", "q/"}) {
			r.Errorf("listed %v", got)
		}
		if got := list(&storage.Query{Prefix: "none"}); got != nil {
			r.Errorf("listed %v", got)
		}
	})
}

func TestMissingBucket(t *testing.T) {
	each(t, func(r *rig) {
		b := r.client.Bucket("missing")
		_, err := r.write(b.Object("x"), []byte("1"))
		r.status(err, http.StatusNotFound)
		_, err = r.write(b.Object("x"), content(2*googleapi.MinUploadChunkSize), resumable)
		r.status(err, http.StatusNotFound)
		_, err = b.Object("x").Attrs(r.Context())
		r.status(err, http.StatusNotFound)
		_, err = r.read(b.Object("x"))
		r.status(err, http.StatusNotFound)
		r.status(b.Object("x").Delete(r.Context()), http.StatusNotFound)
		_, err = b.Object("x").Move(r.Context(), storage.MoveObjectDestination{Object: "y"})
		r.status(err, http.StatusNotFound)
		_, err = b.Objects(r.Context(), nil).Next()
		r.status(err, http.StatusNotFound)
		r.mustWrite("x", "1")
		_, err = b.Object("x").CopierFrom(r.logs.Object("x")).Run(r.Context())
		r.status(err, http.StatusNotFound)
		_, err = b.Attrs(r.Context())
		r.status(err, http.StatusNotFound)
		if err := r.server.Write("missing", "x", nil); !errors.Is(err, fs.ErrNotExist) {
			r.Errorf("Write: %v", err)
		}
		if _, err := r.logs.Attrs(r.Context()); err != nil {
			r.Errorf("a bucket that exists: %v", err)
		}
	})
}

func TestRetain(t *testing.T) {
	each(t, func(r *rig) {
		r.server.Retain("logs")
		r.mustWrite("x", "1")
		check := func(err error) {
			r.Helper()
			r.status(err, http.StatusForbidden)
			if e, ok := errors.AsType[*googleapi.Error](err); !ok || len(e.Errors) != 1 || e.Errors[0].Reason != "retentionPolicyNotMet" {
				r.Errorf("error %v", err)
			}
		}
		_, err := r.write(r.logs.Object("x"), []byte("2"))
		check(err)
		_, err = r.write(r.logs.Object("x"), content(2*googleapi.MinUploadChunkSize), resumable)
		check(err)
		check(r.logs.Object("x").Delete(r.Context()))
		_, err = r.logs.Object("x").Move(r.Context(), storage.MoveObjectDestination{Object: "y"})
		check(err)
		_, err = r.write(r.logs.Object("x").If(absent), []byte("2"))
		r.status(err, http.StatusPreconditionFailed)
		if r.server.Write("logs", "x", nil) == nil || r.server.Delete("logs", "x") == nil {
			r.Error("the policy does not bind the server's own hands")
		}
		r.has(map[string]string{"x": "1"})
		if _, err := r.write(r.client.Bucket("other").Object("x"), []byte("1")); err != nil {
			r.Error(err)
		}
		if err := r.client.Bucket("other").Object("x").Delete(r.Context()); err != nil {
			r.Errorf("another bucket: %v", err)
		}
	})
}

func TestDeny(t *testing.T) {
	r := start(t, "")
	r.mustWrite("x", "1")
	r.mustWrite("y", "1")
	for _, tt := range []struct {
		name string
		do   func() error
		need []string // op and object
	}{
		{"create", func() error { _, err := r.write(r.logs.Object("new"), nil); return err }, []string{"create new"}},
		{"resumable", func() error {
			_, err := r.write(r.logs.Object("new2"), content(2*googleapi.MinUploadChunkSize), resumable)
			return err
		}, []string{"create new2"}},
		{"replace", func() error { _, err := r.write(r.logs.Object("x"), nil); return err }, []string{"create x", "delete x"}},
		{"attrs", func() error { _, err := r.logs.Object("x").Attrs(r.Context()); return err }, []string{"get x"}},
		{"read", func() error { _, err := r.read(r.logs.Object("x")); return err }, []string{"get x"}},
		{"list", func() error { _, err := r.logs.Objects(r.Context(), nil).Next(); return err }, []string{"list "}},
		{"list a folder", func() error {
			if _, err := r.logs.Objects(r.Context(), &storage.Query{Prefix: "f/"}).Next(); !errors.Is(err, iterator.Done) {
				return err
			}
			return nil
		}, []string{"list f/"}},
		{"copy", func() error {
			_, err := r.logs.Object("z").CopierFrom(r.logs.Object("x")).Run(r.Context())
			return err
		}, []string{"get x", "create z"}},
		{"move", func() error {
			_, err := r.logs.Object("x").Move(r.Context(), storage.MoveObjectDestination{Object: "w"})
			return err
		}, []string{"move x", "create w"}},
		{"delete", func() error { return r.logs.Object("y").Delete(r.Context()) }, []string{"delete y"}},
	} {
		for _, need := range tt.need {
			r.server.Deny(func(_, op, bucket, object string) bool { return bucket == "logs" && op+" "+object == need })
			if err := tt.do(); err == nil {
				t.Errorf("%s was done without %q", tt.name, need)
			} else {
				r.status(err, http.StatusForbidden)
			}
		}
		r.server.Deny(func(_, op, bucket, object string) bool { return !slices.Contains(tt.need, op+" "+object) })
		if err := tt.do(); err != nil {
			t.Errorf("%s with what it needs: %v", tt.name, err)
		}
	}
	r.server.Deny(func(string, string, string, string) bool { return true })
	if err := r.server.Delete("logs", "w"); err != nil {
		t.Errorf("the server's own hands: %v", err)
	}
}

// TestConceal: what is missing is a 403, but for a bucket, and for those who call the
// Server.
func TestConceal(t *testing.T) {
	r := start(t, "")
	r.mustWrite("x", "1")
	r.server.Conceal()
	for _, err := range []error{
		func() error { _, err := r.logs.Object("none").Attrs(r.Context()); return err }(),
		func() error { _, err := r.read(r.logs.Object("none")); return err }(),
		func() error { _, err := r.read(r.logs.Object("x").Generation(1)); return err }(),
		r.logs.Object("none").Delete(r.Context()),
		func() error {
			_, err := r.logs.Object("none").Move(r.Context(), storage.MoveObjectDestination{Object: "y"})
			return err
		}(),
	} {
		r.status(err, http.StatusForbidden)
	}
	if _, err := r.read(r.logs.Object("x")); err != nil {
		t.Error(err)
	}
	_, err := r.client.Bucket("nowhere").Object("x").Attrs(r.Context())
	r.status(err, http.StatusNotFound)
	if _, err := r.server.Read("logs", "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestFilesSurvive(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir)
	a, err := r.write(r.logs.Object("feed/a.ndjson"), []byte("{}\n"), func(w *storage.Writer) {
		w.ContentType = "application/x-ndjson"
		w.Metadata = map[string]string{"k": "v"}
	})
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "logs", "feed", "a.ndjson")); string(data) != "{}\n" || err != nil {
		t.Errorf("file: %q, %v", data, err)
	}

	r = start(t, dir)
	b, err := r.logs.Object("feed/a.ndjson").Attrs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b.Generation != a.Generation || b.ContentType != a.ContentType || b.Metadata["k"] != "v" || !b.Created.Equal(a.Created) || b.CRC32C != a.CRC32C {
		t.Errorf("after a restart: %+v, before: %+v", b, a)
	}
	if _, err := r.write(r.logs.Object("feed/a.ndjson").If(generationMatch(a.Generation)), []byte("[]\n")); err != nil {
		t.Error(err)
	}
	r.has(map[string]string{"feed/a.ndjson": "[]\n"})

	// A Server whose clock is behind goes on from there all the same.
	last := r.server.Objects("logs", "")[0].Generation
	synctest.Test(t, func(t *testing.T) {
		s, err := bucket.New(dir, "logs")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Write("logs", "x", nil); err != nil {
			t.Fatal(err)
		}
		if o, _, err := s.Get("logs", "x"); err != nil || o.Generation <= last {
			t.Errorf("generation %d after %d, %v", o.Generation, last, err)
		}
	})
	for _, name := range []string{"../x", "a/", "/x", ".."} {
		if err := r.server.Write("logs", name, nil); err == nil {
			t.Errorf("wrote %q", name)
		}
	}
}

func TestGenerationsRiseWhileTheClockStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, dir := range []string{"", t.TempDir()} {
			s, err := bucket.New(dir, "logs")
			if err != nil {
				t.Fatal(err)
			}
			var last int64
			for i := range 20 {
				if err := s.Write("logs", fmt.Sprint("x", i%2), []byte{byte(i)}); err != nil {
					t.Fatal(err)
				}
				o, data, err := s.Get("logs", fmt.Sprint("x", i%2))
				if err != nil || data[0] != byte(i) {
					t.Fatalf("got %v, %v", data, err)
				}
				if o.Generation <= last {
					t.Errorf("generation %d after %d", o.Generation, last)
				}
				if !o.Created.Equal(time.Now()) {
					t.Errorf("created %v, want %v", o.Created, time.Now())
				}
				last = o.Generation
			}
			// Of a name that was free in between, too.
			if err := s.Delete("logs", "x1"); err != nil {
				t.Fatal(err)
			}
			s.Write("logs", "x1", nil)
			if o, _, _ := s.Get("logs", "x1"); o.Generation <= last {
				t.Errorf("generation %d after %d", o.Generation, last)
			}
			s.Close()
		}
	})
}

func TestUnknownOperations(t *testing.T) {
	r := start(t, "")
	r.mustWrite("x", "1")
	_, err := r.logs.Object("x").Update(r.Context(), storage.ObjectAttrsToUpdate{ContentType: "text/plain"})
	r.status(err, http.StatusNotImplemented)
	_, err = r.logs.Object("y").ComposerFrom(r.logs.Object("x")).Run(r.Context())
	r.status(err, http.StatusNotImplemented)
	r.has(map[string]string{"x": "1"})
}

func TestManyChunks(t *testing.T) {
	r := start(t, "")
	data := content(20<<20 + 1)
	if _, err := r.write(r.logs.Object("x"), data, func(w *storage.Writer) { w.ChunkSize = 1 << 20 }); err != nil {
		t.Fatal(err)
	}
	if got, err := r.server.Read("logs", "x"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, want %d as written: %v", len(got), len(data), err)
	}
}

// BenchmarkChunks uploads large objects: a MiB takes as long whatever their size.
func BenchmarkChunks(b *testing.B) {
	for _, size := range []int{8 << 20, 128 << 20} {
		b.Run(fmt.Sprintf("%d MiB", size>>20), func(b *testing.B) {
			r := start(b, "")
			data := content(size)
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := r.write(r.logs.Object("x"), data, func(w *storage.Writer) { w.ChunkSize = 1 << 20 }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
