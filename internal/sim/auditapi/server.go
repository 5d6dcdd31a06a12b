// Package auditapi simulates OpenAI's audit log API: the records, the filters,
// the cursors, the shape of answers and of errors. Its pages are read from
// sorted slices, so that years of records cost no more than a day of them.
package auditapi

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Path is where the API serves the audit logs.
const Path = "/v1/organization/audit_logs"

// Order is the order in which pages bring the records. The real API documents
// none; each of these pages consistently.
type Order struct {
	kind orderKind
	seed uint64
}

type orderKind int

const (
	newestFirst orderKind = iota
	oldestFirst
	shuffled
)

// NewestFirst and OldestFirst order by effective_at; of records of one second,
// the one added later counts as the newer.
var (
	NewestFirst = Order{kind: newestFirst}
	OldestFirst = Order{kind: oldestFirst}
)

// Shuffled is an arbitrary order, fixed by the seed.
func Shuffled(seed uint64) Order { return Order{shuffled, seed} }

// Server is the API. It is safe for concurrent use.
type Server struct {
	zippers sync.Pool

	mu            sync.Mutex
	key           string
	organization  string
	forbidden     bool
	missingScopes bool
	plain         bool
	bad           map[string]int // by id of a record: the status of answers that would have it
	quirks        Quirks
	requests      int
	epoch         int // counts ExpireCursors; see record.served
	added         int
	ordinary      log
	tenant        log
}

// New returns an API without records that wants the key and calls the
// organization by its name in its answers.
func New(key, organization string) *Server {
	return &Server{
		key:          key,
		organization: organization,
		epoch:        1,
		zippers: sync.Pool{New: func() any {
			// The level is known to be valid. Speed, as pages are many.
			z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed)
			return z
		}},
	}
}

// Add adds records, visible at once. Each is a JSON object with a unique id
// and a whole effective_at; it is served with its bytes as they are, but for
// insignificant white space. On an error none is added.
func (s *Server) Add(raw ...[]byte) error { return s.add(&s.ordinary, raw) }

// AddTenant adds tenant-scoped records. They are served to requests with
// tenant_only, and to no others.
func (s *Server) AddTenant(raw ...[]byte) error { return s.add(&s.tenant, raw) }

func (s *Server) add(l *log, raw [][]byte) error {
	records := make([]*record, len(raw))
	for i, b := range raw {
		r, err := newRecord(b)
		if err != nil {
			return err
		}
		records[i] = r
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make(map[string]bool, len(records))
	for _, r := range records {
		if ids[r.id] || s.ordinary.byID[r.id] != nil || s.tenant.byID[r.id] != nil {
			return fmt.Errorf("adding a record: id %q is taken", r.id)
		}
		ids[r.id] = true
	}
	for _, r := range records {
		s.added++
		r.seq, r.tenant = s.added, l == &s.tenant
		l.insert(r)
	}
	return nil
}

// Records returns the records, ordinary and tenant-scoped, in the order of their
// adding: the truth that a collector is measured by. The bytes must not be changed.
func (s *Server) Records() [][]byte {
	var raw [][]byte
	for _, r := range s.inOrder() {
		raw = append(raw, r.raw)
	}
	return raw
}

// Each calls f for each record, in the order of their adding.
func (s *Server) Each(f func(id string, effectiveAt int64, tenant bool)) {
	for _, r := range s.inOrder() {
		f(r.id, r.at, r.tenant)
	}
}

func (s *Server) inOrder() []*record {
	s.mu.Lock()
	defer s.mu.Unlock()
	records := slices.Concat(s.ordinary.records, s.tenant.records)
	slices.SortFunc(records, func(a, b *record) int { return a.seq - b.seq })
	return records
}

// Record returns the record of that id. The bytes must not be changed.
func (s *Server) Record(id string) (raw []byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := cmp.Or(s.ordinary.byID[id], s.tenant.byID[id])
	if r == nil {
		return nil, false
	}
	return r.raw, true
}

// SetOrder sets the order of pages. The default is NewestFirst.
func (s *Server) SetOrder(o Order) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ordinary.setOrder(o)
	s.tenant.setOrder(o)
}

// SetKey replaces the key, as a rotation of keys does.
func (s *Server) SetKey(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = key
}

// SetOrganization sets the name in the openai-organization header.
func (s *Server) SetOrganization(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.organization = name
}

// SetForbidden makes the API answer 403 to the right key, as it does where
// audit logging is not enabled.
func (s *Server) SetForbidden(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forbidden = on
}

// SetMissingScopes makes the API answer 401 to the right key, as it does where
// the key lacks the scope that reads audit logs.
func (s *Server) SetMissingScopes(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.missingScopes = on
}

// SetGzip says whether answers are compressed for clients that accept it. The
// default is true.
func (s *Server) SetGzip(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plain = !on
}

// ExpireCursors makes every id served so far unknown as a cursor, until it is
// served again.
func (s *Server) ExpireCursors() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
}

// SetBad lets the API answer with this status where a page would have the record, as where
// its own copy is damaged; with 200 the record comes without its members. 0 heals it.
func (s *Server) SetBad(id string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bad == nil {
		s.bad = map[string]int{}
	}
	s.bad[id] = status
}

// Quirks are faults of an API that answers 200.
type Quirks struct {
	Hollow  int // each so-manieth answer has no records, although more follow; 0: none
	Ignored int // each so-manieth cursor is ignored, as a cache on the way does; 0: none
}

// SetQuirks replaces the quirks.
func (s *Server) SetQuirks(q Quirks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quirks = q
}

// holeMark ends the cursor of an answer without records: reading goes on where that answer did.
const holeMark = "~"

// Heal makes every bad record a good one, and ends all quirks.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.bad)
	s.quirks = Quirks{}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, organization, requestID, err := s.serve(r)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("openai-organization", organization)
	w.Header().Set("x-request-id", requestID)
	if err != nil {
		w.WriteHeader(err.status)
		w.Write(err.body())
		return
	}

	s.mu.Lock()
	zip := !s.plain && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip")
	s.mu.Unlock()
	if !zip {
		w.Write(indent(body))
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	z := s.zippers.Get().(*gzip.Writer)
	defer s.zippers.Put(z)
	z.Reset(w)
	z.Write(indent(body))
	z.Close()
}

// serve returns the answer's body, compact.
func (s *Server) serve(r *http.Request) (body []byte, organization, requestID string, err *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	organization, requestID = s.organization, fmt.Sprintf("req_%032x", s.requests)

	if err := s.refusal(r); err != nil {
		return nil, organization, requestID, err
	}
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, organization, requestID, err
	}
	l := &s.ordinary
	if q.tenantOnly {
		l = &s.tenant
	}
	if n := s.quirks.Hollow; n > 0 && s.requests%n == 0 {
		return fmt.Appendf(nil, `{"object":"list","data":[],"first_id":null,"last_id":%s,"has_more":true}`, quote(q.after+holeMark)), organization, requestID, nil
	}
	if n := s.quirks.Ignored; n > 0 && s.requests%n == 0 {
		q.after = ""
	}
	q.after = strings.TrimRight(q.after, holeMark)
	records, more, err := l.page(q, s.epoch)
	if err != nil {
		return nil, organization, requestID, err
	}
	for i, rec := range records {
		rec.served = s.epoch
		switch status := s.bad[rec.id]; status {
		case 0:
		case http.StatusOK:
			records[i] = &record{id: rec.id, raw: []byte(`{"object":"organization.audit_log"}`)}
		default:
			return nil, organization, requestID, &apiError{status, "The server had an error while processing your request.", "server_error", "", ""}
		}
	}
	return list(records, more), organization, requestID, nil
}

// refusal returns why the request is refused whatever it asks for.
func (s *Server) refusal(r *http.Request) *apiError {
	auth := r.Header.Get("Authorization")
	switch {
	case r.URL.Path != Path:
		return &apiError{404, "Invalid URL (" + r.Method + " " + r.URL.Path + ")", "invalid_request_error", "", ""}
	case r.Method != http.MethodGet:
		return &apiError{405, "Not allowed to " + r.Method + " on " + Path + ".", "invalid_request_error", "", "method_not_supported"}
	case auth == "":
		return &apiError{401, "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth.", "invalid_request_error", "", ""}
	case auth != "Bearer "+s.key:
		return &apiError{401, "Incorrect API key provided.", "invalid_request_error", "", "invalid_api_key"}
	case s.missingScopes:
		return &apiError{401, "You have insufficient permissions for this operation. Missing scopes: api.audit_logs.read. Check that you have the correct role in your organization.", "invalid_request_error", "", ""}
	case s.forbidden:
		return &apiError{403, "Audit logging is not enabled for this organization.", "invalid_request_error", "", ""}
	}
	return nil
}

// list returns an answer, compact. It is put together by hand, as a record's
// bytes must stay as they are.
func list(records []*record, more bool) []byte {
	var b bytes.Buffer
	b.WriteString(`{"object":"list","data":[`)
	first, last := []byte("null"), []byte("null")
	for i, r := range records {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(r.raw)
	}
	if n := len(records); n > 0 {
		first, last = quote(records[0].id), quote(records[n-1].id)
	}
	fmt.Fprintf(&b, `],"first_id":%s,"last_id":%s,"has_more":%t}`, first, last, more)
	return b.Bytes()
}

// indent returns the valid JSON b with the white space of the real API.
func indent(b []byte) []byte {
	var out bytes.Buffer
	out.Grow(2 * len(b))
	json.Indent(&out, b, "", "  ")
	return out.Bytes()
}

// quote returns s as JSON, without escapes that are not needed.
func quote(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(s)
	return bytes.TrimSpace(b.Bytes())
}
