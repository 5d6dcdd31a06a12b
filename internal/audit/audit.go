// Package audit knows what OpenAI's audit log API sends and is asked for: a
// record and its bytes, a page of them, a request for one, the filters of a
// request, and why a request brought no page.
//
// It promises that a record's bytes stay what they were, and that a page which
// it returns has been checked whole. It knows nothing of how pages travel, of
// what has been collected before, or of where records go.
package audit

import (
	"net/url"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Identity tells one record from all others. The id alone does not: one request to
// OpenAI can cause several records, which share it.
type Identity struct {
	ID   string
	At   int64  // effective_at, Unix seconds
	Type uint64 // a hash of the record's "type"
}

// AnyType is the type of an identity of which only id and time are known.
const AnyType = 0

// Record is one audit record: what the collector needs of it, and its bytes.
type Record struct {
	ID   string
	At   int64  // effective_at, Unix seconds
	Type uint64 // a hash of its "type"
	Raw  []byte // as received; valid until the next page is read into the same buffer
}

// Identity is what tells the record from all others.
func (r Record) Identity() Identity { return Identity{r.ID, r.At, r.Type} }

// Line is a hash of the record's line, to see whether it is the same as before.
func (r Record) Line() uint64 { return hash(Compact(nil, r.Raw)) }

// TypeOf is the type of an identity, of a record's "type".
func TypeOf(text string) uint64 { return hash([]byte(text)) }

// hash is never 0. The state keeps hashes: no release may choose another.
func hash(b []byte) uint64 { return max(1, xxhash.Sum64(b)) }

// Page is one answer, checked whole: every record has an id and a time within
// the request's range, and where more follow there is a cursor.
type Page struct {
	Records      []Record
	Cursor       string    // last_id
	More         bool      // has_more
	Organization string    // openai-organization header, "" when absent
	Date         time.Time // Date header, zero when absent
}

// Request asks for one page: a range of effective_at (Unix seconds, both ends
// included), the cursor to go on from ("" at the start), the most records to
// answer with, and which: tenant-scoped ones or the others, and of them those
// that pass the filter.
type Request struct {
	Gte, Lte int64
	After    string
	Limit    int
	Tenant   bool
	Filter   Filter
}

// Hollow reports whether a page has no records though more follow.
func (p Page) Hollow() bool { return p.More && len(p.Records) == 0 }

// What names the records that are asked for.
func (r Request) What() string {
	if r.Tenant {
		return "tenant-scoped audit logs"
	}
	return "audit logs"
}

// Query is the request as a URL's query, as the API's reference has it. The range
// is half-open to the API: it may keep fractions of a second that it does not show,
// and a record of the last second would lie behind effective_at[lte].
func (r Request) Query() string {
	v := url.Values{
		"effective_at[gte]": {strconv.FormatInt(r.Gte, 10)},
		"effective_at[lt]":  {strconv.FormatInt(r.Lte+1, 10)},
		"limit":             {strconv.Itoa(r.Limit)},
	}
	if r.After != "" {
		v.Set("after", r.After)
	}
	if r.Tenant {
		v.Set("tenant_only", "true")
	}
	if r.Filter != "" {
		return v.Encode() + "&" + string(r.Filter)
	}
	return v.Encode()
}

// Kind is what a failure means for what is read next.
type Kind int

const (
	// Other is a failure that the same request would meet again: a wrong key, an
	// answer that is no list, an API that stays away.
	Other Kind = iota
	// Refused is a request that the API itself calls bad or forbidden.
	Refused
	// CursorRefused is a cursor that the API no longer takes.
	CursorRefused
	// PageTooLarge is a page that memory has no room for; a smaller one may fit.
	PageTooLarge
	// OutOfTime is a request under way when the time for reading ended, with
	// nothing wrong so far.
	OutOfTime
	// Interrupted is a request under way when somebody ended the run.
	Interrupted
)

// NoTenantRemedy is what to do where the API refuses tenant-scoped records.
const NoTenantRemedy = "set TENANT_EVENTS to false, or see to the tenant and the key's role in it"

// Failure is why a request brought no page.
type Failure struct {
	Kind Kind
	Err  error
}

func (f *Failure) Error() string { return f.Err.Error() }
func (f *Failure) Unwrap() error { return f.Err }
