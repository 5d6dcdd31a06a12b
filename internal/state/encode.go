package state

import (
	"encoding/binary"
	"encoding/hex"
	"io"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"example.com/auditlog/internal/audit"
)

// Encode writes the state object, in pieces: no more of it is in memory.
func Encode(w io.Writer, s State) error {
	e := encoder{w: w}
	e.stream(struct {
		State
		Version int `json:"version"`
	}{s, version}, &s.Stream, s.Tenant, "")
	e.buf = append(e.buf, '\n')
	e.flush()
	return e.err
}

// encoder puts each member of an object, and each object of an array, on its own line, for people to
// read and edit. Other arrays stay on one line: each remembered record is one.
type encoder struct {
	w   io.Writer
	buf []byte // not yet written
	err error

	word [8]byte // of a hash
}

func (e *encoder) flush() {
	if e.err == nil {
		_, e.err = e.w.Write(e.buf)
	}
	e.buf = e.buf[:0]
}

// stream writes the members of v, which are those of s that are small, then the tenant's stream if there
// is one, and at the end what may be large.
func (e *encoder) stream(v any, s, tenant *Stream, margin string) {
	data, err := marshal(v, s.Unknown)
	if err != nil {
		e.err = err
		return
	}
	end := "\n" + margin + "}"
	e.buf = indent(e.buf, data, margin)
	e.buf = e.buf[:len(e.buf)-len(end)]
	if tenant != nil {
		e.buf = append(e.buf, ",\n  \"tenant\": "...)
		e.stream(tenant, tenant, nil, "  ")
	}
	e.recent(s.Recent, "\n"+margin+"  ")
	e.buf = append(e.buf, end...)
}

// recent writes the remembered records as two members; newline is what begins a line.
func (e *encoder) recent(r Recent, newline string) {
	n := 0
	member := func(id string) {
		if n++; n > 1 {
			e.buf = append(e.buf, ',')
		}
		e.buf = append(append(e.buf, newline...), "  "...)
		e.buf, _ = jsontext.AppendQuote(e.buf, id) // its error is of bytes that are no text, which it replaces
		e.buf = append(e.buf, ": "...)
		if len(e.buf) >= 64<<10 {
			e.flush()
		}
	}
	end := func() {
		if n > 0 {
			e.buf = append(e.buf, newline...)
		}
		e.buf, n = append(e.buf, '}'), 0
	}
	e.buf = append(append(append(e.buf, ','), newline...), `"recent_ids": {`...)
	for records := range r.byID() {
		member(records[0].ID)
		e.buf = strconv.AppendInt(e.buf, records[len(records)-1].At, 10)
	}
	end()
	for records := range r.byID() {
		if len(records) == 1 && records[0].Type == audit.AnyType {
			continue
		}
		if n == 0 {
			e.buf = append(append(append(e.buf, ','), newline...), `"recent": {`...)
		}
		member(records[0].ID)
		separator := byte('[')
		for _, m := range records {
			e.buf = append(e.buf, separator, '[')
			e.buf = strconv.AppendInt(e.buf, m.At, 10)
			e.hash(m.Type)
			e.hash(m.Line)
			e.buf, separator = append(e.buf, ']'), ','
		}
		e.buf = append(e.buf, ']')
	}
	if n > 0 {
		end()
	}
}

// hash writes one more element of an array.
func (e *encoder) hash(h uint64) {
	e.buf = append(e.buf, `,"`...)
	e.buf = hex.AppendEncode(e.buf, binary.BigEndian.AppendUint64(e.word[:0], h))
	e.buf = append(e.buf, '"')
}

// indent appends src in lines that begin with margin. src has no white space.
func indent(dst, src []byte, margin string) []byte {
	var open []bool // open brackets, and whether their content has its own lines
	line := func() {
		dst = append(append(dst, '\n'), margin...)
		for range open {
			dst = append(dst, "  "...)
		}
	}
	for i := 0; i < len(src); i++ {
		switch c := src[i]; c {
		case '{', '[':
			lines := c == '{' && src[i+1] != '}' || src[i+1] == '{'
			if dst, open = append(dst, c), append(open, lines); lines {
				line()
			}
		case '}', ']':
			lines := open[len(open)-1]
			if open = open[:len(open)-1]; lines {
				line()
			}
			dst = append(dst, c)
		case ',':
			if dst = append(dst, c); open[len(open)-1] {
				line()
			}
		case ':':
			dst = append(dst, ": "...)
		case '"':
			start := i
			for i++; src[i] != '"'; i++ {
				if src[i] == '\\' {
					i++
				}
			}
			dst = append(dst, src[start:i+1]...)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
