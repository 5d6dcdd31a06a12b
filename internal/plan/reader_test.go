package plan

import (
	"bytes"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
)

// pager is an API in memory: records that become visible over time, in some
// order that pages consistently. A record's type is its id up to a dash.
type pager struct {
	records []audit.Record
	compare func(a, b audit.Record) int
}

func newestFirst(a, b audit.Record) int {
	if a.At != b.At {
		return int(b.At - a.At)
	}
	return strings.Compare(string(b.ID), string(a.ID))
}

func oldestFirst(a, b audit.Record) int { return newestFirst(b, a) }

func shuffled(a, b audit.Record) int {
	h := func(r audit.Record) uint32 { f := fnv.New32a(); f.Write([]byte(r.ID)); return f.Sum32() }
	if x, y := h(a), h(b); x != y {
		return int(int64(x) - int64(y))
	}
	return strings.Compare(string(a.ID), string(b.ID))
}

type order struct {
	name    string
	compare func(a, b audit.Record) int
	// A refused cursor may lose records where the order is none: of shuffled
	// pages the first few may look ordered.
	cursorsExpire bool
}

var orders = []order{
	{"newest first", newestFirst, true},
	{"oldest first", oldestFirst, true},
	{"shuffled", shuffled, false},
}

func (p *pager) add(r audit.Record) {
	i, _ := slices.BinarySearchFunc(p.records, r, p.compare)
	p.records = slices.Insert(p.records, i, r)
}

func (p *pager) page(q audit.Request, date time.Time) audit.Page {
	found := audit.Page{Date: date}
	v, _ := url.ParseQuery(string(q.Filter))
	types := v["event_types[]"]
	q.After = strings.TrimRight(q.After, "~") // of an empty page
	past := q.After == ""
	for _, r := range p.records {
		if past && r.ID != q.After && r.At >= q.Gte && r.At <= q.Lte && (types == nil || slices.Contains(types, kindOf(r.ID))) {
			if n := len(found.Records); n >= q.Limit && found.Records[n-1].ID != r.ID {
				found.More = true
				break
			}
			found.Records = append(found.Records, r) // those that share an id are on one page
			found.Cursor = r.ID
		}
		past = past || r.ID == q.After
	}
	return found
}

func kindOf(id string) string {
	kind, _, _ := strings.Cut(id, "-")
	return kind
}

// choices are those of a history: one a byte of data, so that a fuzzer can
// steer them, and from a generator once data is used up.
type choices struct {
	data []byte
	rnd  *rand.Rand
}

// n chooses from 0 to n-1; n is at most 256.
func (c *choices) n(n int64) int64 {
	if len(c.data) == 0 {
		return c.rnd.Int64N(n)
	}
	b := c.data[0]
	c.data = c.data[1:]
	return int64(b) % n
}

// answer is what becomes of a request.
type answer struct {
	page    audit.Page
	others  *audit.Page
	failure *audit.Failure
}

func failed(kind audit.Kind) answer {
	return answer{failure: &audit.Failure{Kind: kind, Err: errors.New("no page")}}
}

// reader does what a run does with a plan, without the network: up to width
// requests are under way, and answered in any order.
type reader struct {
	t     *testing.T
	width int
	pick  func(n int) int // one of the requests under way
	// send is what the API does with a request, arrive what is left of that as it
	// is answered.
	send   func(Request) answer
	arrive func(r Request, cancelled bool, a answer) answer
	hangs  func(Request) bool // it is sent again and again, so that others need not wait for it
	heard  func(Request, Outcome)

	beside int // requests that were sent beside those that hang
}

// sent is a request under way.
type sent struct {
	Request
	answer
	hangs, cancelled bool
}

// run reads until the plan wants nothing more, also where it has to start over,
// and returns what is written.
func (d *reader) run(p *Plan) (last *Plan, written []audit.Record, restarts int) {
	d.t.Helper()
	for {
		pages := p.Figures().Pages
		written, taken := d.read(p)
		next, note := p.StartOver()
		// Of a page that contradicts another some records are counted.
		if f := p.Figures(); f.Records != len(written) && next == nil || f.Pages-pages != taken {
			d.t.Fatalf("figures are %+v, where %d records of %d pages were written", f, len(written), taken)
		}
		if next == nil {
			return p, written, restarts
		}
		if note.Severity != Warning || p.Answered() {
			d.t.Fatalf("what contradicts itself is said as %+v, answered %v", note, p.Answered())
		}
		p = next
		restarts++
	}
}

func (d *reader) read(p *Plan) (written []audit.Record, taken int) {
	d.t.Helper()
	var underWay []*sent
	last, room := 0, map[bool]int{false: p.settings.MaxRecords, true: p.settings.MaxRecords}
	for {
		hanging := 0
		for _, q := range underWay {
			if q.hangs {
				hanging++
			}
		}
		for len(underWay) < d.width || hanging == len(underWay) {
			idleOnly := len(underWay) >= d.width
			r, ok := p.Next(idleOnly)
			if !ok {
				break
			}
			room[r.Tenant] -= r.Limit
			if r.ID != last+1 || r.Limit < 1 || r.Limit > p.settings.PageSize || room[r.Tenant] < 0 || r.Gte > r.Lte || r.Gte < 0 {
				d.t.Fatalf("request %+v after number %d, with room for %d records", r, last, room[r.Tenant]+r.Limit)
			}
			if idleOnly && slices.ContainsFunc(underWay, func(q *sent) bool { return q.Tenant == r.Tenant }) {
				d.t.Fatalf("request %+v is of no idle stream", r)
			}
			if last = r.ID; idleOnly {
				d.beside++
			}
			q := &sent{Request: r, answer: d.send(r)}
			if q.hangs = d.hangs != nil && d.hangs(r); q.hangs {
				hanging++
			}
			underWay = append(underWay, q)
		}
		if len(underWay) == 0 {
			p.Finish()
			return written, taken
		}
		i := 0
		if len(underWay) > 1 {
			i = d.pick(len(underWay))
		}
		q := underWay[i]
		underWay = slices.Delete(underWay, i, i+1)
		a := d.arrive(q.Request, q.cancelled, q.answer)
		room[q.Tenant] += q.Limit
		var o Outcome
		if a.failure != nil {
			if o = p.Fail(q.Request, a.failure); o.Taken || o.New != nil {
				d.t.Fatalf("a failure makes %+v", o)
			}
		} else if o = p.Take(q.Request, a.page, a.others, d.width-len(underWay)); o.Taken {
			taken++
		}
		room[q.Tenant] -= len(o.New)
		written = append(written, o.New...)
		for _, id := range o.Cancel {
			j := slices.IndexFunc(underWay, func(q *sent) bool { return q.ID == id })
			if j < 0 {
				d.t.Fatalf("request %d is cancelled, and not under way", id)
			}
			underWay[j].cancelled = true
		}
		if d.heard != nil {
			d.heard(q.Request, o)
		}
	}
}

// stored is what the next run loads of what a run commits.
func stored(t *testing.T, s state.State, now time.Time) state.State {
	t.Helper()
	var object bytes.Buffer
	if err := state.Encode(&object, s); err != nil {
		t.Fatal(err)
	}
	data := object.String()
	next, note, err := state.Decode(&object, now)
	if err != nil || note != "" {
		t.Fatalf("of its own state it says %q, error %v:\n%s", note, err, data)
	}
	next.Adopt()
	return next
}
