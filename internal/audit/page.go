package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// ErrCutBody is an answer that ends too early.
var ErrCutBody = errors.New("answer was cut off")

// DecodePage decodes an answer to q in one pass and checks it completely: a page without an error
// can be relied on. For an answer that ends too early the error is ErrCutBody. The records' lines
// are in body, whose white space first goes to its end: it stays the text that it was.
func DecodePage(body []byte, q Request) (Page, error) {
	whole := body
	body = Compact(body[:0], body)
	for i := len(body); i < len(whole); i++ {
		whole[i] = ' '
	}
	p, err := newPageDecoder(body).page(q)
	if err != nil {
		var syntax *jsontext.SyntacticError
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
			return Page{}, ErrCutBody
		case errors.As(err, &syntax):
			return Page{}, fmt.Errorf("audit log API answered 200 with no JSON list, but %q", Shorten(string(body[:min(len(body), 4*maxText)])))
		}
		return Page{}, fmt.Errorf("audit log API answered 200 with a bad list: %w", err)
	}
	return p, nil
}

type pageDecoder struct {
	body []byte
	dec  *jsontext.Decoder
}

func newPageDecoder(body []byte) *pageDecoder {
	return &pageDecoder{
		body: body,
		// Duplicate names and invalid UTF-8 are the API's business: the record's bytes stay as they are.
		dec: jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)),
	}
}

func (d *pageDecoder) page(q Request) (Page, error) {
	var p Page
	if _, err := d.token("an object", "{"); err != nil {
		return Page{}, err
	}
	seen := map[string]bool{}
	for d.dec.PeekKind() != '}' {
		name, err := d.dec.ReadToken()
		if err != nil {
			return Page{}, err
		}
		member := name.String()
		switch member {
		case "object", "data", "last_id", "has_more":
			if seen[member] {
				return Page{}, fmt.Errorf("%q stands twice", member)
			}
			seen[member] = true
		}
		var t jsontext.Token
		switch member {
		case "object":
			if t, err = d.token(`"object" to be a string`, `"`); err == nil && t.String() != "list" {
				err = fmt.Errorf(`"object" is %q, not "list"`, Shorten(t.String()))
			}
		case "data":
			p.Records, err = d.records(q)
		case "last_id":
			var v jsontext.Value
			if kind := d.dec.PeekKind(); kind != '"' && kind != 'n' {
				_, err = d.token(`"last_id" to be a string`, `"n`)
			} else if v, err = d.dec.ReadValue(); err == nil && kind == '"' {
				p.Cursor = string(text(v))
			}
		case "has_more":
			if t, err = d.token(`"has_more" to be true or false`, "tf"); err == nil {
				p.More = t.Bool()
			}
		default:
			_, err = d.dec.ReadValue()
		}
		if err != nil {
			return Page{}, err
		}
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return Page{}, err
	}
	if rest := bytes.Trim(d.body[d.dec.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return Page{}, fmt.Errorf("%d bytes follow it", len(rest))
	}
	switch {
	case !seen["object"], !seen["data"], !seen["has_more"]:
		return Page{}, errors.New(`"object", "data" or "has_more" is missing`)
	case p.More && p.Cursor == "":
		return Page{}, errors.New(`"has_more" is true, but there is no "last_id" to go on from`)
	}
	return p, nil
}

func (d *pageDecoder) records(q Request) ([]Record, error) {
	if _, err := d.token(`"data" to be an array`, "["); err != nil {
		return nil, err
	}
	list := make([]Record, 0, q.Limit)
	for d.dec.PeekKind() != ']' {
		r, err := d.record()
		if err != nil {
			return nil, fmt.Errorf("record %d of the page: %w", len(list)+1, err)
		}
		switch {
		case r.At == q.Lte+1:
			return nil, fmt.Errorf("record %q has effective_at %d, the second after those that were asked for: the API rounds times up, so that records of this range cannot be distinguished from later ones", Shorten(r.ID), r.At)
		case r.At < q.Gte, r.At > q.Lte:
			return nil, fmt.Errorf("record %q has effective_at %d, outside of the %d to %d that was asked for: the filter was ignored", Shorten(r.ID), r.At, q.Gte, q.Lte)
		}
		list = append(list, r)
	}
	_, err := d.dec.ReadToken()
	return list, err
}

func (d *pageDecoder) record() (r Record, err error) {
	if _, err := d.token("an object", "{"); err != nil {
		return r, err
	}
	start := d.dec.InputOffset() - 1
	timed := false
	r.Type = hash(nil)
	for d.dec.PeekKind() != '}' {
		name, err := d.dec.ReadToken()
		if err != nil {
			return r, err
		}
		member := name.String()
		if kind := d.dec.PeekKind(); member == "id" && kind != '"' {
			_, err := d.token(`"id" to be a string`, `"`)
			return r, err
		}
		v, err := d.dec.ReadValue()
		if err != nil {
			return r, err
		}
		switch member {
		case "id":
			r.ID = string(text(v))
		case "type":
			r.Type = hash(text(v))
		case "effective_at":
			if r.At, err = second(v); err != nil {
				return r, fmt.Errorf("effective_at: %w", err)
			}
			timed = true
		}
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return r, err
	}
	r.Line = d.body[start:d.dec.InputOffset()]
	switch {
	case r.ID == "":
		return r, errors.New("it has no id")
	case !timed:
		return r, fmt.Errorf("%q has no effective_at", Shorten(r.ID))
	}
	return r, nil
}

// text returns the content of a JSON string. Invalid Unicode stays a literal: decoded, several such
// strings would become equal.
func text(v jsontext.Value) []byte {
	if s := v[1:max(1, len(v)-1)]; v.Kind() == '"' && bytes.IndexByte(s, '\\') < 0 && utf8.Valid(s) {
		return s
	}
	if s, err := jsontext.AppendUnquote(nil, v); err == nil {
		return s
	}
	return strconv.AppendQuoteToASCII(nil, string(v))
}

// token reads a token of one of these kinds. Its error shows what is there instead, or that the
// input is cut or broken there.
func (d *pageDecoder) token(wanted, kinds string) (jsontext.Token, error) {
	if strings.IndexByte(kinds, byte(d.dec.PeekKind())) >= 0 {
		return d.dec.ReadToken()
	}
	v, err := d.dec.ReadValue()
	if err == nil {
		err = fmt.Errorf("wanted %s, not %s", wanted, Shorten(string(v[:min(len(v), maxText)])))
	}
	return jsontext.Token{}, err
}
