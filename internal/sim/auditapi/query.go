package auditapi

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
)

// query is what a request asks for.
type query struct {
	from, to      int64 // of the exact time, both inclusive, in microseconds
	limit         int
	after, before string
	tenantOnly    bool
	filters       []filter
}

// filter keeps the records for which one of the values is one that get returns.
type filter struct {
	get    func(fields) string
	values []string
}

func parseQuery(raw string) (query, *apiError) {
	q := query{from: math.MinInt64, to: math.MaxInt64, limit: 20}
	params, err := url.ParseQuery(raw)
	if err != nil {
		return q, invalid("", "Malformed query string.")
	}
	for name, values := range params {
		value := values[len(values)-1]
		number := func() (int64, *apiError) {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n > math.MaxInt64/second-1 || n < math.MinInt64/second+1 {
				return 0, invalid(name, "Invalid type for '%s': expected an integer, but got %q instead.", name, value)
			}
			return n, nil
		}
		var n int64
		var bad *apiError
		switch name {
		case "effective_at[gte]":
			n, bad = number()
			q.from = max(q.from, n*second)
		case "effective_at[gt]":
			n, bad = number()
			q.from = max(q.from, n*second+1)
		case "effective_at[lte]":
			n, bad = number()
			q.to = min(q.to, n*second)
		case "effective_at[lt]":
			n, bad = number()
			q.to = min(q.to, n*second-1)
		case "limit":
			if n, bad = number(); bad == nil && (n < 1 || n > 100) {
				bad = invalid(name, "Invalid 'limit': expected a value between 1 and 100, but got %d instead.", n)
			}
			q.limit = int(n)
		case "after":
			q.after = value
		case "before":
			q.before = value
		case "tenant_only":
			on, err := strconv.ParseBool(value)
			if err != nil {
				bad = invalid(name, "Invalid type for 'tenant_only': expected a boolean, but got %q instead.", value)
			}
			q.tenantOnly = on
		case "event_types[]":
			q.filters = append(q.filters, filter{func(f fields) string { return f.Type }, values})
		case "project_ids[]":
			q.filters = append(q.filters, filter{func(f fields) string { return f.Project.ID }, values})
		case "actor_ids[]":
			q.filters = append(q.filters, filter{fields.actorID, values})
		case "actor_emails[]":
			q.filters = append(q.filters, filter{fields.actorEmail, values})
		case "resource_ids[]":
			q.filters = append(q.filters, filter{func(f fields) string { return f.resource }, values})
		default:
			bad = &apiError{400, "Unknown parameter: '" + name + "'.", "invalid_request_error", name, "unknown_parameter"}
		}
		if bad != nil {
			return q, bad
		}
	}
	if q.after != "" && q.before != "" {
		return q, invalid("before", "'after' and 'before' are mutually exclusive.")
	}
	return q, nil
}

func (q *query) matches(r *record) bool {
	if r.exact < q.from || r.exact > q.to {
		return false
	}
	if len(q.filters) == 0 {
		return true
	}
	f := r.fields()
	for _, filter := range q.filters {
		if !slices.Contains(filter.values, filter.get(f)) {
			return false
		}
	}
	return true
}

// apiError is an error answer. An empty param or code is null.
type apiError struct {
	status                    int
	message, typ, param, code string
}

func (e *apiError) body() []byte {
	orNull := func(s string) []byte {
		if s == "" {
			return []byte("null")
		}
		return quote(s)
	}
	return indent(fmt.Appendf(nil, `{"error":{"message":%s,"type":%s,"param":%s,"code":%s}}`,
		quote(e.message), quote(e.typ), orNull(e.param), orNull(e.code)))
}

// invalid is the error for a bad parameter.
func invalid(param, format string, args ...any) *apiError {
	return &apiError{400, fmt.Sprintf(format, args...), "invalid_request_error", param, "invalid_value"}
}
