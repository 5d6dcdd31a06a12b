// Package udm shows what Google SecOps makes of an OpenAI audit log record: it
// maps records to UDM (Unified Data Model) events, row by row as the mapping
// table of Google's guide "Collect OpenAI Audit Logs" has it, and counts the
// fields that the table leaves out.
//
// Events are structs of the fields that the table needs, with UDM's names and
// types. Google's own messages for Go (cloud.google.com/go/backstory, as of v0.2.0)
// have no parsed user agent, and so cannot hold all rows. The parser that SecOps
// runs is not published; where the table leaves something open, the comments say
// what is assumed.
package udm

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Product is what the table sets as product and as vendor of every event.
const Product = "OPENAI_AUDITLOG"

// Event is a UDM event, in so far as the table fills it. Its JSON has UDM's
// field names in snake case; what a record does not have is left out.
type Event struct {
	Metadata       Metadata         `json:"metadata"`
	Principal      Noun             `json:"principal,omitzero"`
	Network        Network          `json:"network,omitzero"`
	SecurityResult []SecurityResult `json:"security_result,omitempty"` // one, or none
	Additional     Additional       `json:"additional,omitzero"`
}

// Metadata says what kind of event it is.
type Metadata struct {
	EventTimestamp string `json:"event_timestamp,omitempty"` // RFC 3339, UTC, with no or three digits of a second's fraction
	EventType      string `json:"event_type"`
	ProductName    string `json:"product_name"`
	VendorName     string `json:"vendor_name"`
}

// Noun is who or what did it.
type Noun struct {
	IP       []string `json:"ip,omitempty"`
	Asset    Asset    `json:"asset,omitzero"`
	Location Location `json:"location,omitzero"`
	User     User     `json:"user,omitzero"`
}

// Asset is the machine of a Noun.
type Asset struct {
	IP []string `json:"ip,omitempty"`
}

// Location is where a Noun was.
type Location struct {
	City            string   `json:"city,omitempty"`
	State           string   `json:"state,omitempty"`
	CountryOrRegion string   `json:"country_or_region,omitempty"`
	RegionLatitude  *float32 `json:"region_latitude,omitempty"`  // degrees; UDM has a float of 32 bits
	RegionLongitude *float32 `json:"region_longitude,omitempty"` // degrees
}

// User is the account of a Noun.
type User struct {
	UserID         string   `json:"userid,omitempty"`
	EmailAddresses []string `json:"email_addresses,omitempty"`
}

// Network is how a request came.
type Network struct {
	HTTP HTTP `json:"http,omitzero"`
	TLS  TLS  `json:"tls,omitzero"`
}

// HTTP is what the request's header told.
type HTTP struct {
	UserAgent       string    `json:"user_agent,omitempty"`
	ParsedUserAgent UserAgent `json:"parsed_user_agent,omitzero"`
}

// TLS is what the handshake told.
type TLS struct {
	Client TLSClient `json:"client,omitzero"`
}

// TLSClient is the client's side of a TLS.
type TLSClient struct {
	JA3 string `json:"ja3,omitempty"`
}

// SecurityResult holds the record's type, and the fingerprint that has no field
// of its own in the table.
type SecurityResult struct {
	Summary         string  `json:"summary,omitempty"`
	DetectionFields []Label `json:"detection_fields,omitempty"`
}

// Label is a key and its value.
type Label struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Additional holds what UDM has no field for. It is a protobuf Struct, whose map
// is called fields: so the table has it, and SecOps' search. (Protobuf's own JSON
// would leave the name out.)
type Additional struct {
	Fields map[string]string `json:"fields,omitempty"`
}

// row is a row of the table, for one field of a record. set puts the field's
// value, which is not empty, into the event, or returns false where it is nothing
// that the row can use.
type row struct {
	path []string
	set  func(e *Event, value string) bool
}

// table is the guide's, but for the rows on constants and on the event type.
var table = []row{
	{[]string{"effective_at"}, (*Event).setTime},
	{[]string{"type"}, func(e *Event, v string) bool { e.result().Summary = v; return true }},
	{session("ip_address"), func(e *Event, v string) bool {
		e.Principal.IP, e.Principal.Asset.IP = []string{v}, []string{v}
		return true
	}},
	{session("ip_address_details", "city"), location(func(l *Location, v string) { l.City = v })},
	{session("ip_address_details", "region"), location(func(l *Location, v string) { l.State = v })},
	{session("ip_address_details", "country"), location(func(l *Location, v string) { l.CountryOrRegion = v })},
	{session("ip_address_details", "latitude"), degrees(func(l *Location, d *float32) { l.RegionLatitude = d })},
	{session("ip_address_details", "longitude"), degrees(func(l *Location, d *float32) { l.RegionLongitude = d })},
	{session("ip_address_details", "region_code"), additional("region_code")},
	{session("ip_address_details", "asn"), additional("asn")},
	{session("user", "id"), (*Event).setUserID},
	{session("user", "email"), func(e *Event, v string) bool { e.Principal.User.EmailAddresses = []string{v}; return true }},
	{session("user_agent"), func(e *Event, v string) bool { e.Network.HTTP.UserAgent = v; return true }},
	{session("ja3"), func(e *Event, v string) bool { e.Network.TLS.Client.JA3 = v; return true }},
	{session("ja4"), func(e *Event, v string) bool {
		e.result().DetectionFields = []Label{{Key: "ja4", Value: v}}
		return true
	}},
}

func session(path ...string) []string { return append([]string{"actor", "session"}, path...) }

func location(set func(*Location, string)) func(*Event, string) bool {
	return func(e *Event, v string) bool { set(&e.Principal.Location, v); return true }
}

func degrees(set func(*Location, *float32)) func(*Event, string) bool {
	return func(e *Event, v string) bool {
		d, err := strconv.ParseFloat(v, 32)
		if err != nil || math.IsNaN(d) || math.IsInf(d, 0) {
			return false
		}
		f := float32(d)
		set(&e.Principal.Location, &f)
		return true
	}
}

func additional(key string) func(*Event, string) bool {
	return func(e *Event, v string) bool {
		if e.Additional.Fields == nil {
			e.Additional.Fields = map[string]string{}
		}
		e.Additional.Fields[key] = v
		return true
	}
}

func (e *Event) result() *SecurityResult {
	if e.SecurityResult == nil {
		e.SecurityResult = make([]SecurityResult, 1)
	}
	return &e.SecurityResult[0]
}

// The bounds of a protobuf Timestamp, in Unix seconds: the years 1 to 9999.
const (
	minUnix = -62135596800
	maxUnix = 253402300799
)

// setTime takes Unix seconds, whole as the API documents them, or with a
// fraction, of which milliseconds are kept.
func (e *Event) setTime(v string) bool {
	at, layout := time.Time{}, time.RFC3339
	if s, err := strconv.ParseInt(v, 10, 64); err == nil {
		at = time.Unix(s, 0)
	} else {
		f, err := strconv.ParseFloat(v, 64)
		if err != nil || !(f >= minUnix && f <= maxUnix) { // so that NaN is out
			return false
		}
		at = time.UnixMilli(int64(math.Round(f * 1000)))
		if at.Nanosecond() != 0 {
			layout = "2006-01-02T15:04:05.000Z07:00"
		}
	}
	if s := at.Unix(); s < minUnix || s > maxUnix {
		return false
	}
	e.Metadata.EventTimestamp = at.UTC().Format(layout)
	return true
}

// userID is the assumed pattern: the table only says that there is one. Ids are
// user- and letters and digits; what stands around one is not taken.
var userID = regexp.MustCompile(`\buser-[0-9A-Za-z][0-9A-Za-z_-]*`)

func (e *Event) setUserID(v string) bool {
	id := userID.FindString(v)
	if id == "" {
		return false
	}
	e.Principal.User.UserID = id
	return true
}

// traits are the parser's own variables that decide on the event type.
type traits struct{ principal, user, target, file, sourceFile bool }

// eventType tries the most specific condition first. Taken from the top, as the
// table lists them, the first one (has_principal) would hide the three after it,
// which ask for more.
func (t traits) eventType() string {
	switch {
	case t.principal && t.file && t.sourceFile:
		return "FILE_COPY"
	case t.principal && t.file:
		return "FILE_UNCATEGORIZED"
	case t.principal && t.target:
		return "NETWORK_CONNECTION"
	case t.principal:
		return "STATUS_UPDATE"
	case t.user:
		return "USER_UNCATEGORIZED"
	}
	return "GENERIC_EVENT"
}

// traits are the event's. No row of the table fills a target or a file, so that
// three outcomes remain: STATUS_UPDATE, USER_UNCATEGORIZED, GENERIC_EVENT. That a
// principal is an IP address, and a user an id or an e-mail address, is assumed.
func (e *Event) traits() traits {
	u := e.Principal.User
	return traits{principal: len(e.Principal.IP) > 0, user: u.UserID != "" || len(u.EmailAddresses) > 0}
}

// Map returns the event of a record, which is the JSON object in line. Names
// are told apart by case; of one that stands twice, the last counts. A field that
// is null or empty is taken as absent.
//
// An error means that line is no JSON object.
func Map(line []byte) (*Event, error) {
	e, err := read(line, func([]byte, bool) {})
	if err != nil {
		return nil, err
	}
	e.Network.HTTP.ParsedUserAgent = parseUserAgent(e.Network.HTTP.UserAgent)
	e.Metadata.EventType = e.traits().eventType()
	e.Metadata.ProductName, e.Metadata.VendorName = Product, Product
	return e, nil
}

// read reads a record into an event, but for what is derived from other fields.
//
// saw is called for each field of the record with its path, which is good until
// saw returns. Fields are the values that are neither objects nor arrays. mapped
// says whether it is in the event: that is false, too, for fields of the table with
// a value that their row cannot use. Nothing is said of fields of the table that
// are null or empty, or of an object on the way to one that is.
//
// An error means that line is no JSON object; saw has not been called then.
func read(line []byte, saw func(path []byte, mapped bool)) (*Event, error) {
	if err := check(line); err != nil {
		return nil, err
	}
	m := mapper{dec: decoder(line), saw: saw}
	if err := m.walk(&root, nil); err != nil {
		return nil, err // not after check
	}
	return &m.event, nil
}

// decoder reads what the collector collects: duplicate names and invalid UTF-8
// are the API's affair.
func decoder(line []byte) *jsontext.Decoder {
	return jsontext.NewDecoder(bytes.NewBuffer(line), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// check returns nil where line holds one JSON object and nothing else.
func check(line []byte) error {
	dec := decoder(line)
	kind := dec.PeekKind()
	err := dec.SkipValue()
	switch {
	case err == io.EOF:
		return errors.New("empty, not a JSON object")
	case err == nil && kind != '{':
		return errors.New("not a JSON object")
	case err == nil:
		if _, err = dec.ReadToken(); err == nil {
			return errors.New("more than one JSON object")
		} else if err == io.EOF {
			return nil
		}
	}
	return errors.New(strings.TrimPrefix(err.Error(), "jsontext: "))
}

// node is a place in the table's tree of names. A tree, not a set of joined
// paths: names in records hold dots, too.
type node struct {
	children map[string]*node
	set      func(*Event, string) bool
}

var root = func() (n node) {
	for _, r := range table {
		at := &n
		for _, name := range r.path {
			if at.children == nil {
				at.children = map[string]*node{}
			}
			if at.children[name] == nil {
				at.children[name] = &node{}
			}
			at = at.children[name]
		}
		at.set = r.set
	}
	return n
}()

type mapper struct {
	dec   *jsontext.Decoder
	event Event
	saw   func([]byte, bool)
}

// walk reads a value. n is nil where the table has nothing at path.
func (m *mapper) walk(n *node, path []byte) error {
	token, err := m.dec.ReadToken()
	if err != nil {
		return err
	}
	switch token.Kind() {
	case '{':
		for m.dec.PeekKind() != '}' {
			name, err := m.dec.ReadToken()
			if err != nil {
				return err
			}
			var child *node
			key := name.String()
			if n != nil {
				child = n.children[key]
			}
			if err := m.walk(child, join(path, key)); err != nil {
				return err
			}
		}
		_, err = m.dec.ReadToken()
	case '[':
		for m.dec.PeekKind() != ']' {
			if err := m.walk(nil, extend(path, "[]")); err != nil {
				return err
			}
		}
		_, err = m.dec.ReadToken()
	default:
		m.field(n, path, token)
	}
	return err
}

func (m *mapper) field(n *node, path []byte, token jsontext.Token) {
	value := ""
	if k := token.Kind(); k == '"' || k == '0' {
		value = token.String()
	}
	switch {
	case n != nil && value == "" && (token.Kind() == 'n' || token.Kind() == '"'):
	case n != nil && n.set != nil && value != "" && n.set(&m.event, value):
		m.saw(path, true)
	default:
		m.saw(path, false)
	}
}

// maxPath bounds paths, in bytes: names are whatever the input says.
const maxPath = 1000

func join(path []byte, name string) []byte {
	if len(path) > 0 {
		path = extend(path, ".")
	}
	return extend(path, name)
}

// extend appends, and ends a path that becomes too long with an ellipsis.
func extend(path []byte, s string) []byte {
	const cut = "…"
	switch {
	case len(path) > maxPath:
		return path
	case len(path)+len(s) > maxPath:
		return append(append(path, s[:maxPath-len(path)]...), cut...)
	}
	return append(path, s...)
}

// Pair is a field of an event, by UDM's path as SecOps' search has it.
type Pair struct{ Name, Value string }

// Fields returns the fields of the event that are set, in the order of its JSON.
func (e *Event) Fields() (list []Pair) {
	add := func(name string, values ...string) {
		for _, v := range values {
			if v != "" {
				list = append(list, Pair{name, v})
			}
		}
	}
	angle := func(name string, d *float32) {
		if d != nil {
			add(name, strconv.FormatFloat(float64(*d), 'f', -1, 32))
		}
	}
	m, p, n := &e.Metadata, &e.Principal, &e.Network
	add("metadata.event_timestamp", m.EventTimestamp)
	add("metadata.event_type", m.EventType)
	add("metadata.product_name", m.ProductName)
	add("metadata.vendor_name", m.VendorName)
	add("principal.ip", p.IP...)
	add("principal.asset.ip", p.Asset.IP...)
	add("principal.location.city", p.Location.City)
	add("principal.location.state", p.Location.State)
	add("principal.location.country_or_region", p.Location.CountryOrRegion)
	angle("principal.location.region_latitude", p.Location.RegionLatitude)
	angle("principal.location.region_longitude", p.Location.RegionLongitude)
	add("principal.user.userid", p.User.UserID)
	add("principal.user.email_addresses", p.User.EmailAddresses...)
	add("network.http.user_agent", n.HTTP.UserAgent)
	ua := &n.HTTP.ParsedUserAgent
	add("network.http.parsed_user_agent.family", ua.Family)
	add("network.http.parsed_user_agent.platform", ua.Platform)
	add("network.http.parsed_user_agent.device", ua.Device)
	add("network.http.parsed_user_agent.os", ua.OS)
	add("network.http.parsed_user_agent.browser", ua.Browser)
	add("network.http.parsed_user_agent.browser_version", ua.BrowserVersion)
	add("network.http.parsed_user_agent.browser_engine_version", ua.BrowserEngineVersion)
	add("network.tls.client.ja3", n.TLS.Client.JA3)
	for _, r := range e.SecurityResult {
		add("security_result.summary", r.Summary)
		for _, l := range r.DetectionFields {
			add("security_result.detection_fields["+l.Key+"]", l.Value)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(e.Additional.Fields)) {
		add("additional.fields["+key+"]", e.Additional.Fields[key])
	}
	return list
}
