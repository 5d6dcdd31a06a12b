package auditapi

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
)

// record is one audit log record.
type record struct {
	id     string
	at     int64 // effective_at, as it is shown
	exact  int64 // what filters and order go by, in microseconds; see newRecord
	raw    []byte
	seq    int // rank by adding
	tenant bool
	rank   uint64 // in a shuffled order
	served int    // epoch in which it was served last: older ones are no cursors
}

func newRecord(raw []byte) (*record, error) {
	var head struct {
		ID string `json:"id"`
		At *int64 `json:"effective_at"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, fmt.Errorf("adding a record: %w", err)
	}
	if head.ID == "" || head.At == nil {
		return nil, errors.New("adding a record: it has no id or no effective_at")
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return nil, fmt.Errorf("adding a record: %w", err)
	}
	return &record{id: head.ID, at: *head.At, exact: *head.At*second + fraction(head.ID), raw: bytes.Clone(b.Bytes())}, nil
}

// second is one, in the microseconds of a record's exact time. The API keeps
// fractions of a second that it does not show.
const second = 1_000_000

// fraction is that of the record with this id.
func fraction(id string) int64 {
	h := fnv.New32a()
	h.Write([]byte(id))
	return int64(h.Sum32() % second)
}

// fields are the parts of a record that filters look at.
type fields struct {
	Type    string `json:"type"`
	Project struct {
		ID string `json:"id"`
	} `json:"project"`
	Actor struct {
		Session struct {
			User user `json:"user"`
		} `json:"session"`
		APIKey struct {
			User           user `json:"user"`
			ServiceAccount user `json:"service_account"`
		} `json:"api_key"`
	} `json:"actor"`
	resource string // the id of the payload
}

type user struct {
	ID    string `json:"id"`
	Email string `json:"email"`
}

func (f fields) actorID() string {
	a := f.Actor
	return a.Session.User.ID + a.APIKey.User.ID + a.APIKey.ServiceAccount.ID
}

func (f fields) actorEmail() string {
	return f.Actor.Session.User.Email + f.Actor.APIKey.User.Email
}

// fields decodes the record. What is not of the usual shape matches no filter.
func (r *record) fields() fields {
	var f fields
	json.Unmarshal(r.raw, &f)
	var payloads map[string]json.RawMessage
	json.Unmarshal(r.raw, &payloads)
	var payload struct {
		ID string `json:"id"`
	}
	json.Unmarshal(payloads[f.Type], &payload)
	f.resource = payload.ID
	return f
}

// log is a set of records, kept in the order of its pages.
type log struct {
	order   Order
	byID    map[string]*record
	records []*record // ascending by compare, once sorted; NewestFirst walks it backwards
	sorted  bool
}

func (l *log) insert(r *record) {
	if l.byID == nil {
		l.byID = make(map[string]*record)
	}
	r.rank = l.order.rank(r.id)
	// Mostly records come in the order of time: then nothing needs sorting.
	n := len(l.records)
	l.sorted = n == 0 || l.sorted && l.compare(l.records[n-1], r) < 0
	l.records = append(l.records, r)
	l.byID[r.id] = r
}

func (l *log) setOrder(o Order) {
	l.order, l.sorted = o, false
	for _, r := range l.records {
		r.rank = o.rank(r.id)
	}
}

// rank is the record's place in a shuffled order, and 0 in another.
func (o Order) rank(id string) uint64 {
	if o.kind != shuffled {
		return 0
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s", o.seed, id)
	return h.Sum64()
}

func (l *log) compare(a, b *record) int {
	if l.order.kind == shuffled {
		return cmp.Or(cmp.Compare(a.rank, b.rank), a.seq-b.seq)
	}
	return cmp.Or(cmp.Compare(a.exact, b.exact), a.seq-b.seq)
}

// page returns the records of a page, and whether more lie beyond it.
func (l *log) page(q query, epoch int) (page []*record, more bool, err *apiError) {
	if !l.sorted {
		slices.SortFunc(l.records, l.compare)
		l.sorted = true
	}

	// The page lies within records[lo:hi].
	lo, hi := 0, len(l.records)
	if l.order.kind != shuffled {
		lo, _ = slices.BinarySearchFunc(l.records, q.from, func(r *record, at int64) int {
			if r.exact < at {
				return -1
			}
			return 1
		})
		hi, _ = slices.BinarySearchFunc(l.records, q.to, func(r *record, at int64) int {
			if r.exact <= at {
				return -1
			}
			return 1
		})
	}
	descending := l.order.kind == newestFirst
	for _, c := range []struct {
		param, id string
		upwards   bool // the page lies above the cursor in records
	}{
		{"after", q.after, !descending},
		{"before", q.before, descending},
	} {
		if c.id == "" {
			continue
		}
		r := l.byID[c.id]
		if r == nil || r.served != 0 && r.served != epoch {
			return nil, false, &apiError{400, "Invalid '" + c.param + "': no audit log with id '" + c.id + "'.", "invalid_request_error", c.param, "invalid_cursor"}
		}
		at, _ := slices.BinarySearchFunc(l.records, r, l.compare)
		if c.upwards {
			lo = max(lo, at+1)
		} else {
			hi = min(hi, at)
		}
	}

	// Walk away from the cursor: with before, that is against the order.
	backwards := descending != (q.before != "")
	for n := range max(0, hi-lo) {
		i := lo + n
		if backwards {
			i = hi - 1 - n
		}
		r := l.records[i]
		if !q.matches(r) {
			continue
		}
		if len(page) == q.limit {
			more = true
			break
		}
		page = append(page, r)
	}
	if q.before != "" {
		slices.Reverse(page)
	}
	return page, more, nil
}
