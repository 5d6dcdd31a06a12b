// Package audit describes what OpenAI's audit log API sends and receives: a record and its bytes, a
// page of records, a request for a page, a request's filters, and why a request brought no page.
//
// It promises that a record's bytes stay as they were, and that every page it returns has been
// checked completely. It knows nothing about how pages travel, what has been collected before, or
// where records go.
package audit

import (
	"net/url"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Identity distinguishes a record from all others. The id alone does not: one request to OpenAI can
// cause several records with the same id.
type Identity struct {
	ID   string
	At   int64  // effective_at, Unix seconds
	Type uint64 // a hash of the record's "type"
}

// AnyType is the type of an identity with only id and time known.
const AnyType = 0

// Record is one audit record: what the collector needs to know of it, and its bytes.
type Record struct {
	ID   string
	At   int64  // effective_at, Unix seconds
	Type uint64 // a hash of its "type"
	// Line has its bytes as received, without white space between tokens. It is valid until the next
	// page is read into the same buffer.
	Line []byte
}

// Identity returns what distinguishes the record from all others.
func (r Record) Identity() Identity { return Identity{r.ID, r.At, r.Type} }

// Hash returns a hash of the record's line, to see whether the line has changed.
func (r Record) Hash() uint64 { return hash(r.Line) }

// TypeOf returns the Type for the text of a record's "type".
func TypeOf(text string) uint64 { return hash([]byte(text)) }

// hash is never 0. No release may change it: the state keeps hashes.
func hash(b []byte) uint64 { return max(1, xxhash.Sum64(b)) }

// Page is one answer, checked completely: every record has an id and a time within the request's
// range, and there is a cursor if more records follow.
type Page struct {
	Records      []Record
	Cursor       string    // last_id
	More         bool      // has_more
	Organization string    // openai-organization header, "" when absent
	Date         time.Time // Date header, zero when absent
}

// Request asks for one page: a range of effective_at (Unix seconds, both ends included), the cursor
// to continue from ("" at the start), the maximum number of records, and which ones: tenant-scoped
// or the others, of those the ones that pass the filter. Once asks for no second attempt at a page
// that the API cannot serve.
type Request struct {
	Gte, Lte int64
	After    string
	Limit    int
	Tenant   bool
	Filter   Filter
	Once     bool
}

// Hollow reports whether a page has no records although more follow.
func (p Page) Hollow() bool { return p.More && len(p.Records) == 0 }

// What describes the requested records for people.
func (r Request) What() string {
	if r.Tenant {
		return "tenant-scoped audit logs"
	}
	return "audit logs"
}

// Query returns the request as a URL query, as the API's reference defines it. The range is sent
// half-open: the API may keep fractions of a second that it does not show, and effective_at[lte]
// would miss a record of the last second.
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

// Kind is what a failure means for the requests that follow.
type Kind int

const (
	// Other is a failure that other requests would meet, too: a wrong key, an unreachable API.
	Other Kind = iota
	// Refused is a request that the API itself forbids.
	Refused
	// BadRequest is a request that the API itself calls bad.
	BadRequest
	// Unserved is a page that the API has not served in any attempt, though it can be reached: an
	// answer 5xx, or one that is not a valid list.
	Unserved
	// CursorRefused is a cursor that the API no longer accepts.
	CursorRefused
	// PageTooLarge is a page too large for memory; a smaller one may fit.
	PageTooLarge
	// OutOfTime is a request under way, with nothing wrong so far, when the time for reading ended.
	OutOfTime
	// Interrupted is a request under way when somebody ended the run.
	Interrupted
)

// NoTenantRemedy is what to do where the API refuses tenant-scoped records.
const NoTenantRemedy = "set TENANT_EVENTS to false, or see to the tenant and the key's role in it"

// Failure is the reason why a request brought no page.
type Failure struct {
	Kind Kind
	Err  error
}

// RefusesTenant reports whether the API has refused a request for tenant-scoped records.
func (f *Failure) RefusesTenant() bool { return f.Kind == Refused || f.Kind == BadRequest }

func (f *Failure) Error() string { return f.Err.Error() }
func (f *Failure) Unwrap() error { return f.Err }
