package audit

import (
	"bytes"
	"errors"

	"github.com/go-json-experiment/json/jsontext"
)

// Line describes the record in one line of a collected object.
type Line struct {
	At    int64  // effective_at, Unix seconds
	Type  string // safe to show
	Hash  uint64 // of its bytes
	Bytes int64  // including the line's end
	Bad   bool   // not a record: At and Type mean nothing
}

// LineReader reads lines one after the other.
type LineReader struct{ dec jsontext.Decoder }

// Read reads a line's time and type, and no further: the end of the line may be missing. The caller
// sets Bytes and Hash.
func (r *LineReader) Read(line []byte) (l Line) {
	bad := Line{Bad: true}
	r.dec.Reset(bytes.NewReader(line), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if t, err := r.dec.ReadToken(); err != nil || t.Kind() != '{' {
		return bad
	}
	for timed, typed := false, false; !timed || !typed; {
		name, err := r.dec.ReadToken()
		if err != nil {
			return bad
		}
		if name.Kind() == '}' {
			l.Bad = !timed // a record may have no type
			return l
		}
		switch member := name.String(); {
		case member == "effective_at":
			v, err := r.dec.ReadValue()
			if err != nil {
				return bad
			}
			if l.At, err = second(v); err != nil {
				return bad
			}
			timed = true
		case member == "type" && r.dec.PeekKind() == '"':
			t, err := r.dec.ReadToken()
			if err != nil {
				return bad
			}
			l.Type, typed = Shorten(t.String()), true
		default:
			if err := r.dec.SkipValue(); err != nil {
				return bad
			}
		}
	}
	return l
}

// DecodeLine decodes a whole line of a collected object, and changes its bytes.
func DecodeLine(line []byte) (Record, error) {
	line = Compact(line[:0], line)
	d := newPageDecoder(line)
	r, err := d.record()
	if err == nil && len(bytes.TrimSpace(line[d.dec.InputOffset():])) > 0 {
		err = errors.New("something follows the record")
	}
	return r, err
}
