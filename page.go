package auditlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// record is one audit record: what the collector needs of it, and its bytes.
type record struct {
	id  string
	at  int64  // effective_at, Unix seconds
	raw []byte // as received; valid until the next page is read
}

// page is one answer, checked whole: every record has an id and a time within
// the query's range, and where more follow there is a cursor that advances.
type page struct {
	records      []record
	cursor       string    // last_id
	more         bool      // has_more
	organization string    // openai-organization header, "" when absent
	date         time.Time // Date header, zero when absent
	apart        bool      // see Stream.Apart
}

// decodePage reads an answer to q in one pass and checks it whole: what it
// returns without an error can be relied on. An answer that ends early is
// errCutBody.
func decodePage(body []byte, q query) (page, error) {
	d := &pageDecoder{
		body: body,
		// Duplicate names and invalid UTF-8 are the API's affair: the record's
		// bytes go on as they are.
		dec: jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)),
	}
	p, err := d.page(q)
	if err != nil {
		var syntax *jsontext.SyntacticError
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
			return page{}, errCutBody
		case errors.As(err, &syntax):
			return page{}, fmt.Errorf("audit log API answered 200 with no JSON list, but %q", shorten(string(body[:min(len(body), 4*maxErrorText)])))
		}
		return page{}, fmt.Errorf("audit log API answered 200 with a bad list: %w", err)
	}
	return p, nil
}

type pageDecoder struct {
	body []byte
	dec  *jsontext.Decoder
}

func (d *pageDecoder) page(q query) (page, error) {
	var p page
	if d.dec.PeekKind() != '{' {
		return page{}, d.unexpected("an object")
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return page{}, err
	}
	seen := map[string]bool{}
	for d.dec.PeekKind() != '}' {
		name, err := d.dec.ReadToken()
		if err != nil {
			return page{}, err
		}
		member := name.String()
		switch member {
		case "object", "data", "last_id", "has_more":
			if seen[member] {
				return page{}, fmt.Errorf("%q stands twice", member)
			}
			seen[member] = true
		}
		switch kind := d.dec.PeekKind(); member {
		case "object":
			if kind != '"' {
				return page{}, d.unexpected(`"object" to be a string`)
			}
			t, err := d.dec.ReadToken()
			if err != nil {
				return page{}, err
			}
			if s := t.String(); s != "list" {
				return page{}, fmt.Errorf(`"object" is %q, not "list"`, shorten(s))
			}
		case "data":
			if p.records, err = d.records(q); err != nil {
				return page{}, err
			}
		case "last_id":
			if kind != '"' && kind != 'n' {
				return page{}, d.unexpected(`"last_id" to be a string`)
			}
			t, err := d.dec.ReadToken()
			if err != nil {
				return page{}, err
			}
			if kind == '"' {
				p.cursor = t.String()
			}
		case "has_more":
			if kind != 't' && kind != 'f' {
				return page{}, d.unexpected(`"has_more" to be true or false`)
			}
			t, err := d.dec.ReadToken()
			if err != nil {
				return page{}, err
			}
			p.more = t.Bool()
		default:
			if _, err := d.dec.ReadValue(); err != nil {
				return page{}, err
			}
		}
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return page{}, err
	}
	if rest := bytes.Trim(d.body[d.dec.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return page{}, fmt.Errorf("%d bytes follow it", len(rest))
	}
	switch {
	case !seen["object"], !seen["data"], !seen["has_more"]:
		return page{}, errors.New(`"object", "data" or "has_more" is missing`)
	case p.more && len(p.records) == 0:
		return page{}, errors.New(`"has_more" is true, but there are no records`)
	case p.more && p.cursor == "":
		return page{}, errors.New(`"has_more" is true, but there is no "last_id" to go on from`)
	case p.more && p.cursor == q.after:
		return page{}, fmt.Errorf(`"last_id" is the cursor %q that was asked with: it does not advance`, shorten(p.cursor))
	}
	return p, nil
}

func (d *pageDecoder) records(q query) ([]record, error) {
	if d.dec.PeekKind() != '[' {
		return nil, d.unexpected(`"data" to be an array`)
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return nil, err
	}
	list := make([]record, 0, q.limit)
	for d.dec.PeekKind() != ']' {
		r, err := d.record()
		if err != nil {
			return nil, fmt.Errorf("record %d of the page: %w", len(list)+1, err)
		}
		if r.at < q.gte || r.at > q.lte {
			return nil, fmt.Errorf("record %q has effective_at %d, outside of the %d to %d that was asked for: the filter was ignored", shorten(r.id), r.at, q.gte, q.lte)
		}
		list = append(list, r)
	}
	_, err := d.dec.ReadToken()
	return list, err
}

func (d *pageDecoder) record() (record, error) {
	var r record
	if d.dec.PeekKind() != '{' {
		return r, d.unexpected("an object")
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return r, err
	}
	start := d.dec.InputOffset() - 1
	timed := false
	for d.dec.PeekKind() != '}' {
		name, err := d.dec.ReadToken()
		if err != nil {
			return r, err
		}
		switch member := name.String(); member {
		case "id":
			if d.dec.PeekKind() != '"' {
				return r, d.unexpected(`"id" to be a string`)
			}
			t, err := d.dec.ReadToken()
			if err != nil {
				return r, err
			}
			r.id = t.String()
		case "effective_at":
			v, err := d.dec.ReadValue()
			if err != nil {
				return r, err
			}
			if r.at, err = wholeNumber(v); err != nil {
				return r, fmt.Errorf("effective_at: %w", err)
			}
			timed = true
		default:
			if _, err := d.dec.ReadValue(); err != nil {
				return r, err
			}
		}
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return r, err
	}
	r.raw = d.body[start:d.dec.InputOffset()]
	switch {
	case r.id == "":
		return r, errors.New("it has no id")
	case !timed:
		return r, fmt.Errorf("%q has no effective_at", shorten(r.id))
	}
	return r, nil
}

// unexpected reports what stands where something else was wanted, or that the
// input is cut or broken there.
func (d *pageDecoder) unexpected(wanted string) error {
	v, err := d.dec.ReadValue()
	if err != nil {
		return err
	}
	return fmt.Errorf("wanted %s, not %s", wanted, shorten(string(v[:min(len(v), maxErrorText)])))
}

// wholeNumber reads a JSON number that has no fraction, however it is written.
func wholeNumber(v []byte) (int64, error) {
	if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, fmt.Errorf("%s is not a whole number", shorten(string(v)))
	}
	return int64(f), nil
}

// compact appends the JSON value src to dst without its insignificant white
// space and with every other byte as it is. src must be valid JSON.
func compact(dst, src []byte) []byte {
	for i := 0; i < len(src); {
		start := i
		for i < len(src) && src[i] > ' ' {
			if src[i] == '"' {
				i = stringEnd(src, i)
			} else {
				i++
			}
		}
		dst = append(dst, src[start:i]...)
		for i < len(src) && src[i] <= ' ' {
			i++
		}
	}
	return dst
}

// stringEnd returns where the string that begins at src[i] has ended. It goes by
// eight bytes where it can: most of a record is in strings.
func stringEnd(src []byte, i int) int {
	for i++; ; i++ {
		for i+8 <= len(src) {
			word := binary.LittleEndian.Uint64(src[i:])
			stops := bytesEqual(word, '"') | bytesEqual(word, '\\')
			if stops != 0 {
				i += bits.TrailingZeros64(stops) / 8
				break
			}
			i += 8
		}
		switch src[i] {
		case '"':
			return i + 1
		case '\\':
			i++ // what it escapes, which may be a quote
		}
	}
}

// bytesEqual has the highest bit of the lowest byte of word that is c, and none
// below it. Above it, bits mean nothing.
func bytesEqual(word uint64, c byte) uint64 {
	const ones = 0x0101010101010101
	x := word ^ ones*uint64(c)
	return (x - ones) &^ x & (ones << 7)
}
