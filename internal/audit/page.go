package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// ErrCutBody is an answer that ends early.
var ErrCutBody = errors.New("answer was cut off")

// DecodePage reads an answer to q in one pass and checks it whole: what it
// returns without an error can be relied on. An answer that ends early is
// ErrCutBody.
func DecodePage(body []byte, q Request) (Page, error) {
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
			if t, err = d.token(`"last_id" to be a string`, `"n`); err == nil && t.Kind() == '"' {
				p.Cursor = t.String()
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
	case p.More && len(p.Records) == 0:
		return Page{}, errors.New(`"has_more" is true, but there are no records`)
	case p.More && p.Cursor == "":
		return Page{}, errors.New(`"has_more" is true, but there is no "last_id" to go on from`)
	case p.More && p.Cursor == q.After:
		return Page{}, fmt.Errorf(`"last_id" is the cursor %q that was asked with: it does not advance`, Shorten(p.Cursor))
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
		if r.At < q.Gte || r.At > q.Lte {
			return nil, fmt.Errorf("record %q has effective_at %d, outside of the %d to %d that was asked for: the filter was ignored", Shorten(string(r.ID)), r.At, q.Gte, q.Lte)
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
	for d.dec.PeekKind() != '}' {
		name, err := d.dec.ReadToken()
		if err != nil {
			return r, err
		}
		switch name.String() {
		case "id":
			t, err := d.token(`"id" to be a string`, `"`)
			if err != nil {
				return r, err
			}
			r.ID = Identity(t.String())
		case "effective_at":
			v, err := d.dec.ReadValue()
			if err != nil {
				return r, err
			}
			if r.At, err = WholeNumber(v); err != nil {
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
	r.Raw = d.body[start:d.dec.InputOffset()]
	switch {
	case r.ID == "":
		return r, errors.New("it has no id")
	case !timed:
		return r, fmt.Errorf("%q has no effective_at", Shorten(string(r.ID)))
	}
	return r, nil
}

// token reads a token of one of these kinds. Its error says what stands there
// instead, or that the input is cut or broken there.
func (d *pageDecoder) token(wanted, kinds string) (jsontext.Token, error) {
	if kind := d.dec.PeekKind(); kind != 0 && strings.IndexByte(kinds, byte(kind)) >= 0 {
		return d.dec.ReadToken()
	}
	v, err := d.dec.ReadValue()
	if err == nil {
		err = fmt.Errorf("wanted %s, not %s", wanted, Shorten(string(v[:min(len(v), maxText)])))
	}
	return jsontext.Token{}, err
}
