package udm

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os"
	"regexp"
	"strings"

	"cloud.google.com/go/storage"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
)

// MaxLine is the longest line that is read, in bytes. The feed itself refuses
// lines of over 4 MB.
const MaxLine = 64 << 20

// ErrLongLine is the error of a line beyond MaxLine.
var ErrLongLine = fmt.Errorf("longer than %d MiB", MaxLine>>20)

// byteOrderMark is what some editors begin a file with.
var byteOrderMark = []byte("\ufeff")

// Records calls each for every record of r: for each line that is not blank, with its number, from
// 1 on; or, where r begins with an answer of the API, for each record of its pages, counted. r may be
// compressed by gzip, and begin with a byte order mark.
//
// An err that each gets means that there is no record. Else record is without its end; it is good
// until each returns. wait is called before r may make it wait.
//
// The error is r's, or what each returned, which ends it. Memory is that of the longest line.
func Records(r io.Reader, wait func(), each func(number int, record []byte, err error) error) error {
	wait()
	br := bufio.NewReaderSize(r, 64<<10)
	if start, _ := br.Peek(2); string(start) == "\x1f\x8b" {
		z, err := gzip.NewReader(br)
		if err != nil {
			return err
		}
		br = bufio.NewReaderSize(z, 64<<10)
	}
	if start, _ := br.Peek(len(byteOrderMark)); bytes.Equal(start, byteOrderMark) {
		br.Discard(len(byteOrderMark))
	}
	if beginsPage(br) {
		err := pages(br, wait, each)
		if errors.As(err, new(*jsontext.SyntacticError)) {
			err = errors.New(strings.TrimPrefix(err.Error(), "jsontext: "))
		}
		return err
	}
	return lines(br, wait, each)
}

// pageStart is how an answer of the API begins, or one with sorted names.
var pageStart = regexp.MustCompile(`^\s*\{\s*("object"\s*:\s*"list"|"data"\s*:\s*\[)`)

// beginsPage looks no further than to the first value of an object: r may be slow.
func beginsPage(br *bufio.Reader) bool {
	for n := 1; ; {
		start, err := br.Peek(n)
		text := bytes.TrimSpace(start)
		_, value, named := bytes.Cut(text, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case pageStart.Match(start):
			return true
		case err != nil, n >= 4096, len(text) > 0 && text[0] != '{', named && len(value) >= len(`"list"`):
			return false
		}
		n = max(n+1, br.Buffered())
	}
}

// pages reads the records of pages, one after the other.
func pages(r io.Reader, wait func(), each func(int, []byte, error) error) error {
	dec := jsontext.NewDecoder(r, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for number := 0; ; {
		wait()
		token, err := dec.ReadToken()
		if err == io.EOF {
			return nil
		}
		if err == nil && token.Kind() != '{' {
			err = errors.New("after a page comes no object")
		}
		if err != nil {
			return err
		}
		if err := page(dec, wait, func(record []byte) error { number++; return each(number, record, nil) }); err != nil {
			return err
		}
	}
}

// page reads the rest of a page.
func page(dec *jsontext.Decoder, wait func(), each func([]byte) error) error {
	listed := false
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return err
		}
		if name.String() != "data" || dec.PeekKind() != '[' {
			if err := dec.SkipValue(); err != nil {
				return err
			}
			continue
		}
		listed = true
		dec.ReadToken() // as peeked
		for dec.PeekKind() != ']' {
			wait()
			record, err := dec.ReadValue()
			if err == nil {
				err = each(record)
			}
			if err != nil {
				return err
			}
		}
		dec.ReadToken()
	}
	if _, err := dec.ReadToken(); err != nil || listed {
		return err
	}
	return errors.New("after a page comes an object without a list of records")
}

func lines(br *bufio.Reader, wait func(), each func(number int, line []byte, err error) error) error {
	var line []byte
	for number := 1; ; number++ {
		line = line[:0]
		long := false
		var err error
		for {
			if br.Buffered() == 0 {
				wait()
			}
			var part []byte
			part, err = br.ReadSlice('\n')
			if long = long || len(line)+len(part) > MaxLine; !long {
				line = append(line, part...)
			}
			if err != bufio.ErrBufferFull {
				break
			}
		}
		if err != nil && err != io.EOF {
			return err // the line is cut
		}
		var stop error
		if long {
			stop = each(number, nil, ErrLongLine)
		} else if trimmed := bytes.TrimSpace(line); len(trimmed) > 0 {
			stop = each(number, trimmed, nil)
		}
		if stop != nil || err == io.EOF {
			return stop
		}
	}
}

// Input is something with records to read. Close it.
type Input struct {
	Name string // for messages
	io.ReadCloser
}

// Sources opens inputs. Close it.
type Sources struct {
	Stdin  io.Reader
	client *storage.Client
}

// Close ends what the opening of inputs began.
func (s *Sources) Close() {
	if s.client != nil {
		s.client.Close()
	}
}

// Open opens what name means, one input after the other: "-" standard input,
// gs://BUCKET/OBJECT an object, gs://BUCKET/FOLDER/ and a name with * the objects
// that match, and all else a file. * stands for any characters, / included; of
// the matching objects, by name, those that end in .ndjson are read.
//
// Errors name the file or object, and what to do.
func (s *Sources) Open(ctx context.Context, name string) iter.Seq2[Input, error] {
	return func(yield func(Input, error) bool) {
		path, cloud := strings.CutPrefix(name, "gs://")
		bucket, object, _ := strings.Cut(path, "/")
		switch {
		case name == "-":
			yield(Input{"standard input", io.NopCloser(s.Stdin)}, nil)
		case !cloud:
			f, err := os.Open(name)
			yield(Input{name, f}, err) // the error names the file
		case bucket == "" || strings.Contains(bucket, "*"):
			yield(Input{}, fmt.Errorf("%s: names no bucket: write gs://BUCKET/OBJECT", name))
		case object == "" || strings.HasSuffix(object, "/") || strings.Contains(object, "*"):
			s.matching(ctx, name, bucket, object, yield)
		default:
			yield(s.object(ctx, bucket, object))
		}
	}
}

// matching yields the objects that a folder or a name with * means.
func (s *Sources) matching(ctx context.Context, name, bucket, pattern string, yield func(Input, error) bool) {
	if pattern == "" || strings.HasSuffix(pattern, "/") {
		pattern += "*"
	}
	prefix, _, _ := strings.Cut(pattern, "*")
	match := regexp.MustCompile(`(?s)^` + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + `$`)
	client, err := s.storage(ctx)
	if err != nil {
		yield(Input{}, err)
		return
	}
	query := &storage.Query{Prefix: prefix}
	if err := query.SetAttrSelection([]string{"Name"}); err != nil {
		yield(Input{}, err) // not for an attribute that there is
		return
	}
	objects := client.Bucket(bucket).Objects(ctx, query)
	for found := false; ; {
		o, err := objects.Next()
		if err == iterator.Done {
			if !found {
				yield(Input{}, fmt.Errorf("%s: no object ending in .ndjson is there", name))
			}
			return
		}
		if err != nil {
			yield(Input{}, explain("gs://"+bucket, err))
			return
		}
		if !match.MatchString(o.Name) || !strings.HasSuffix(o.Name, ".ndjson") {
			continue
		}
		found = true
		if !yield(s.object(ctx, bucket, o.Name)) {
			return
		}
	}
}

func (s *Sources) object(ctx context.Context, bucket, object string) (Input, error) {
	client, err := s.storage(ctx)
	if err != nil {
		return Input{}, err
	}
	name := "gs://" + bucket + "/" + object
	r, err := client.Bucket(bucket).Object(object).NewReader(ctx)
	if err != nil {
		return Input{}, explain(name, err)
	}
	return Input{name, r}, nil
}

// storage makes the client when the first object is to be read: it needs
// credentials, or STORAGE_EMULATOR_HOST.
func (s *Sources) storage(ctx context.Context) (*storage.Client, error) {
	if s.client != nil {
		return s.client, nil
	}
	client, err := storage.NewClient(ctx, option.WithScopes(storage.ScopeReadOnly), storage.WithJSONReads())
	if err != nil {
		return nil, fmt.Errorf(`connecting to Cloud Storage (run "gcloud auth application-default login", or set GOOGLE_APPLICATION_CREDENTIALS): %w`, err)
	}
	s.client = client
	return client, nil
}

// explain says what to do about an error of Cloud Storage.
func explain(name string, err error) error {
	switch {
	case errors.Is(err, storage.ErrBucketNotExist):
		return fmt.Errorf("%s: there is no such bucket", name)
	case errors.Is(err, storage.ErrObjectNotExist): // also said where there is no such bucket
		return fmt.Errorf("%s: there is no such object; for all objects of a folder, end the name with /", name)
	}
	if e, ok := errors.AsType[*googleapi.Error](err); ok {
		switch e.Code {
		case http.StatusUnauthorized:
			return fmt.Errorf(`%s: the credentials are not accepted; run "gcloud auth application-default login": %w`, name, err)
		case http.StatusForbidden:
			return fmt.Errorf("%s: your account needs the role Storage Object Viewer (roles/storage.objectViewer) on the bucket: %w", name, err)
		}
	}
	return fmt.Errorf("%s: %w", name, err)
}
