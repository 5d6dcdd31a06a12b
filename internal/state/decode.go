package state

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"example.com/auditlog/internal/audit"
)

// Decode reads a state object, to its end. It refuses one that no collector can have written: guessing
// would lose or repeat records. note describes an edit by hand.
func Decode(r io.Reader, now time.Time) (s State, note string, err error) {
	d := newDecoder(r)
	top := d.stream(true)
	if err := d.end(); err != nil {
		return State{}, "", err
	}
	if err := checkVersion(top.members); err != nil {
		return State{}, "", err
	}
	var stored struct {
		storedStream
		Staging
		Organization string   `json:"organization"`
		Objects      *Objects `json:"objects"`
		LastBackfill string   `json:"last_backfill"`
		Version      any      `json:"version"`
	}
	if s.Stream, note, err = top.read(&stored, &stored.storedStream, now); err != nil {
		return State{}, "", err
	}
	s.Staging, s.Organization, s.Objects, s.LastBackfill = stored.Staging, stored.Organization, stored.Objects, stored.LastBackfill
	if top.tenant != nil {
		var stored storedStream
		tenant, edited, err := top.tenant.read(&stored, &stored, now)
		if err != nil {
			return State{}, "", fmt.Errorf(`"tenant": %w`, err)
		}
		if s.Tenant = &tenant; edited != "" {
			note = strings.TrimPrefix(note+"; tenant events: "+edited, "; ")
		}
	}
	if s.StagedGeneration < 0 {
		return State{}, "", fmt.Errorf(`"staged_generation" is %d: remove it`, s.StagedGeneration)
	}
	if s.Objects != nil && s.Objects.Count < 0 {
		return State{}, "", fmt.Errorf(`"objects" has %d: remove it`, s.Objects.Count)
	}
	return s, note, nil
}

// storedStream is a stream as stored. Its own fields hide Stream's keys, to see whether those are
// there, and in what spelling.
type storedStream struct {
	Stream
	Watermark json.RawMessage `json:"last_effective_at"`
	LastRun   json.RawMessage `json:"last_run"`
	High      *int64          `json:"high"`
}

// streamText is a stream's JSON object, apart from what may be large in it.
type streamText struct {
	members []byte // JSON: an object, but for faults
	recent  Recent
	err     error // of recent
	tenant  *streamText
}

// read reads the members into the struct that v points to, of which stored is a part.
func (t *streamText) read(v any, stored *storedStream, now time.Time) (s Stream, note string, err error) {
	if stored.Unknown, err = unmarshal(t.members, v); err != nil {
		return s, "", err
	}
	if t.err != nil {
		return s, "", t.err
	}
	if stored.Watermark == nil {
		return s, "", errors.New(`it is no JSON object with "last_effective_at"`)
	}
	watermark, err := audit.WholeNumber(stored.Watermark)
	if err != nil {
		return s, "", fmt.Errorf(`"last_effective_at": %w`, err)
	}
	s = stored.Stream
	s.Recent = t.recent
	_ = json.Unmarshal(stored.LastRun, &s.LastRun) // for information: any value is accepted
	if stored.High != nil {
		s.High = *stored.High
	}
	if err := s.check(watermark, stored.High != nil, now); err != nil {
		return Stream{}, "", err
	}

	s.Own = true
	if stored.High == nil { // the Python function's
		s = Stream{LastRun: s.LastRun, High: watermark, Unknown: s.Unknown}
	}
	if implied := s.ImpliedWatermark(); watermark != implied {
		note = fmt.Sprintf("last_effective_at was set by hand from %d to %d: reading goes on from there", implied, watermark)
		s.edit(watermark)
		s.Own = false
	}
	s.Watermark = watermark
	return s, note, nil
}

func (s *Stream) check(watermark int64, ours bool, now time.Time) error {
	limit := now.Add(24 * time.Hour).Unix()
	plausible := func(name string, t int64) error {
		if t < 0 || t > limit {
			return fmt.Errorf("%q is %d, which is negative or more than a day ahead", name, t)
		}
		return nil
	}
	if err := errors.Join(plausible("last_effective_at", watermark), plausible("high", s.High), plausible("recent_since", s.RecentSince)); err != nil {
		return err
	}
	if ours && s.RecentSince > s.High { // the next window would begin beyond what is covered
		return fmt.Errorf(`"recent_since" is %d, after "high", %d: remove "recent_since"`, s.RecentSince, s.High)
	}
	for _, w := range s.Backlog {
		if err := errors.Join(plausible("gte", w.Gte), plausible("lte", w.Lte), plausible("after_at", w.AfterAt), w.Filter.Check()); err != nil {
			return err
		}
		if w.Gte > w.Lte {
			return fmt.Errorf(`"backlog" has a window from %d back to %d`, w.Gte, w.Lte)
		}
	}
	for _, c := range s.Covered {
		if c.Gte < 0 || c.Gte > c.Lte {
			return fmt.Errorf(`"covered" has a range from %d to %d: remove "covered"`, c.Gte, c.Lte)
		}
	}
	return nil
}

// decoder reads a state in one pass, until an error.
type decoder struct {
	*jsontext.Decoder
	err  error
	text []byte // of the last name, or records
}

func newDecoder(r io.Reader) *decoder {
	buffered := bufio.NewReaderSize(r, 64<<10)
	if mark, _ := buffered.Peek(3); string(mark) == "\ufeff" { // some editors write a byte order mark
		_, _ = buffered.Discard(len(mark))
	}
	return &decoder{Decoder: jsontext.NewDecoder(buffered, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))}
}

// stream reads a stream's object; top is set if the tenant's may be in it.
func (d *decoder) stream(top bool) (t streamText) {
	if !d.entersObject() {
		t.members = bytes.Clone(d.value())
		return t
	}
	var ids []idTime
	var list []Remembered
	t.members = append(t.members, '{')
	for d.more() {
		had := len(t.members)
		t.members = append(t.members, d.value()...)
		name := unquote(nil, t.members[had:])
		switch {
		case strings.EqualFold(string(name), "recent_ids"):
			ids = d.recentIDs(ids, &t.err)
		case strings.EqualFold(string(name), "recent"):
			list = d.recent(list, ids, &t.err)
		case top && strings.EqualFold(string(name), "tenant"):
			tenant := d.stream(false)
			if t.tenant = &tenant; string(tenant.members) == "null" {
				t.tenant = nil
			}
		default:
			t.members = append(append(append(t.members, ':'), d.value()...), ',')
			continue
		}
		t.members = t.members[:had]
	}
	t.members = append(bytes.TrimSuffix(t.members, []byte(",")), '}')
	t.recent = withUntyped(Recent(nil).With(list), ids)
	return t
}

// idTime is an element of "recent_ids".
type idTime struct {
	id string
	at int64
}

func (d *decoder) recentIDs(ids []idTime, bad *error) []idTime {
	if !d.entersMember("recent_ids", bad) {
		return ids
	}
	for d.more() {
		id := string(d.name())
		at, err := strconv.ParseInt(string(d.value()), 10, 64)
		if err != nil {
			*bad = errors.New(`"recent_ids" has a record without its time`)
		}
		if len(ids) == cap(ids) { // append would do it in smaller steps, and leave more garbage
			ids = slices.Grow(ids, len(ids)+1)
		}
		ids = append(ids, idTime{id, at})
	}
	return ids
}

// recent reads the records of each id. Where the ids are in the same order as ids, it shares their text.
func (d *decoder) recent(list []Remembered, ids []idTime, bad *error) []Remembered {
	if !d.entersMember("recent", bad) {
		return list
	}
	list = slices.Grow(list, len(ids))
	for d.more() {
		name := d.name()
		for len(ids) > 0 && ids[0].id < string(name) {
			ids = ids[1:]
		}
		var id string
		if len(ids) > 0 && ids[0].id == string(name) {
			id = ids[0].id
		} else {
			id = string(name)
		}
		d.text = audit.Compact(d.text[:0], d.value())
		if string(d.text) == "null" || string(d.text) == "[]" {
			continue
		}
		versions := bytes.TrimSuffix(bytes.TrimPrefix(d.text, []byte("[[")), []byte("]]"))
		for version := range bytes.SplitSeq(versions, []byte("],[")) {
			m, err := parseVersion(version)
			if err != nil {
				*bad = errors.New(`"recent" has a record that is not its time and two hashes`)
			}
			m.ID = id
			list = append(list, m)
		}
	}
	return list
}

// parseVersion reads one of the records of an id: its effective_at, and hashes of its type and line.
func parseVersion(text []byte) (m Remembered, err error) {
	at, hashes, _ := bytes.Cut(text, []byte(","))
	typ, line, _ := bytes.Cut(hashes, []byte(","))
	if m.At, err = strconv.ParseInt(string(at), 10, 64); err != nil {
		return m, err
	}
	if m.Type, err = parseHash(typ); err != nil {
		return m, err
	}
	m.Line, err = parseHash(line)
	return m, err
}

func parseHash(text []byte) (uint64, error) {
	if n := len(text); n < 2 || text[0] != '"' || text[n-1] != '"' {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseUint(string(text[1:len(text)-1]), 16, 64)
}

// withUntyped adds the ids that have no record: of those the type is not known.
func withUntyped(r Recent, ids []idTime) Recent {
	slices.SortStableFunc(ids, func(a, b idTime) int { return strings.Compare(a.id, b.id) })
	var untyped []Remembered
	rest := r
	for _, id := range ids {
		for len(rest) > 0 && rest[0].ID < id.id {
			rest = rest[1:]
		}
		if len(rest) == 0 || rest[0].ID != id.id {
			untyped = append(untyped, Remembered{Identity: audit.Identity{ID: id.id, At: id.at, Type: audit.AnyType}})
		}
	}
	return r.With(untyped)
}

// value returns the next value, or the next name in an object. It is valid until the next call.
func (d *decoder) value() (v jsontext.Value) {
	if d.err == nil {
		v, d.err = d.ReadValue()
	}
	return v
}

// name returns the text of the next name in an object. It is valid until the next call.
func (d *decoder) name() []byte {
	d.text = unquote(d.text[:0], d.value())
	return d.text
}

// unquote replaces bytes that are no text.
func unquote(dst []byte, v jsontext.Value) []byte {
	dst, _ = jsontext.AppendUnquote(dst, v)
	return dst
}

// entersObject enters the next value if it is an object, and reports whether it is.
func (d *decoder) entersObject() bool {
	return d.err == nil && d.PeekKind() == '{' && d.token()
}

// entersMember enters the next value, of that member, which must be an object or null.
func (d *decoder) entersMember(name string, bad *error) bool {
	if d.entersObject() {
		return true
	}
	if v := d.value(); v.Kind() != 'n' {
		*bad = fmt.Errorf("%q is no object", name)
	}
	return false
}

// more reports whether the object has more. If not, it leaves it.
func (d *decoder) more() bool {
	if d.err == nil && d.PeekKind() != '}' {
		return true
	}
	d.token()
	return false
}

func (d *decoder) token() bool {
	if d.err == nil {
		_, d.err = d.ReadToken()
	}
	return d.err == nil
}

// end reads to the end of the input, which must be one JSON value.
func (d *decoder) end() error {
	switch more := d.token(); {
	case more:
		return errors.New("something follows its JSON object")
	case d.err == io.EOF && d.InputOffset() > 0:
		return nil
	case errors.Is(d.err, io.EOF), errors.Is(d.err, io.ErrUnexpectedEOF):
		return errors.New("it is empty or cut off")
	}
	return d.err
}
